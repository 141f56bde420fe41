// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a library as `tests/frozen.rs` expects it, in a new folder. The one in
//! `tests/fixtures/library-v1` was made by this program when version 1 was settled; it is never
//! made again, because what later programs must read is what that one wrote.
//!
//! `cargo run -p image-library --features server --example freeze_library -- FOLDER`

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use disk::block::MemoryDevice;
use disk::{SectorSize, Silent};
use image_library::{
    AuditAction, AuditEvent, Authority, Consistency, DiskDraft, Grant, Image, ImageDraft,
    ImageReader, IngestDisk, InitOptions, LibraryAccess, LocalLibrary, Passphrase, PruneOptions,
    ServerName, UploadTarget, ingest,
};
use jiff::Timestamp;

#[path = "../tests/frozen/content.rs"]
mod content;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os()
        .nth(1)
        .ok_or("expected a folder to be made")?;
    let folder = Path::new(&folder);
    fs::create_dir(folder)?;
    let place = folder.join("library");
    let passphrase = Passphrase::new(content::PASSPHRASE)?;
    let options = InitOptions {
        chunk_size_bytes: 16 << 10,
        ..InitOptions::default()
    };
    let init = || {
        let access = LibraryAccess::default();
        LocalLibrary::init_with_passphrase(&*place, access, &options, Some(&passphrase))
    };
    let library = init()?;

    // What was pruned, so that there is a floor, and images of a generation that is not the first.
    let old = take(&library, "old", &[("sda", content::noise(9, 20 << 10))])?;
    library.delete_image(old.id)?;
    for _ in 0..3 {
        prune(&library)?;
    }
    take(&library, "web", &[("sda", content::web_disk())])?;
    let web = take(&library, "web", &[("sda", content::web_disk_later())])?;
    let (name, side_file) = content::SIDE_FILE;
    library.put_side_file(web.id, name, side_file)?;

    // From here on with the other cipher: every file says its own.
    drop(library);
    let config = place.join("library.json");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replace("aes-256-gcm", "chacha20-poly1305"))?;
    let mut access = LibraryAccess::default();
    access.key.passphrase = image_library::PassphraseSource::Given(passphrase);
    let library = LocalLibrary::open_with_key(&*place, access)?;
    let db = [("sda", content::web_disk()), ("sdb", content::db_disk())];
    take(&library, "db", &db)?;
    let deleted = take(&library, "db", &[("sdb", content::deleted_disk())])?;
    library.delete_image(deleted.id)?;

    let authority = Authority::of(&library)?;
    let grant = Grant::Agent {
        server: name_of("web")?,
    };
    let token = library.add_token(grant, None, Some(authority.fingerprint()))?;
    let revoked = library.add_token(Grant::Operator, None, None)?;
    library.revoke_token(revoked.id())?;
    library.audit_local(AuditAction::DeleteImage, |event| AuditEvent {
        server: Some(deleted.server.clone()),
        image: Some(deleted.id),
        ..event
    })?;
    drop(library);

    let images = LocalLibrary::images(&reopened(&place)?)?;
    fs::write(
        folder.join("images.json"),
        serde_json::to_vec_pretty(&images)?,
    )?;
    fs::write(folder.join("token"), format!("{}\n", *token.reveal()))?;
    // A cache and locks: no part of a library at rest.
    for part in ["index", "locks", "tmp", "uploads"] {
        fs::remove_dir_all(place.join(part))?;
    }
    Ok(())
}

fn reopened(place: &Path) -> Result<LocalLibrary, Box<dyn Error>> {
    let mut access = LibraryAccess::default();
    let passphrase = Passphrase::new(content::PASSPHRASE)?;
    access.key.passphrase = image_library::PassphraseSource::Given(passphrase);
    Ok(LocalLibrary::open_with_key(place, access)?)
}

fn name_of(server: &str) -> Result<ServerName, Box<dyn Error>> {
    Ok(server.parse()?)
}

/// An image of a server with these disks.
fn take(
    library: &LocalLibrary,
    server: &str,
    disks: &[(&str, Vec<u8>)],
) -> Result<Image, Box<dyn Error>> {
    let target = UploadTarget {
        server: name_of(server)?,
    };
    let mut taken = Vec::new();
    for (name, content) in disks {
        taken.push(IngestDisk {
            draft: DiskDraft {
                name: (*name).to_owned(),
                size_bytes: content.len() as u64,
                sector_size: SectorSize::B512,
            },
            device: Arc::new(MemoryDevice::from(content.clone())),
            used: None,
            known: None,
        });
    }
    let draft = ImageDraft {
        taken_at: Timestamp::now(),
        consistency: Consistency::Crash,
        machine: None,
    };
    let (image, _) = ingest(library, &target, &taken, &draft, &Silent)?;
    Ok(image)
}

fn prune(library: &LocalLibrary) -> Result<(), Box<dyn Error>> {
    let options = PruneOptions {
        keep: None,
        grace: Duration::ZERO,
        dry_run: false,
        is_sole_pruner: false,
    };
    library.prune(&options, &Silent)?;
    Ok(())
}
