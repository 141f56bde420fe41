// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library that was written when version 1 of the format was settled. Every later program reads
//! it: this test and its fixture are never changed, only added to.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::{ReadAt, SectorSize, Silent};
use image_library::{
    AuditAction, Authority, Consistency, DiskDraft, DiskIndex, Error, Grant, Image, ImageDraft,
    ImageReader, IngestDisk, LibraryAccess, LocalLibrary, Passphrase, PassphraseSource, Token,
    UploadTarget, ingest,
};
use tempfile::TempDir;

#[path = "frozen/content.rs"]
mod content;

/// The folder with the library, the list of its images and a token of it.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/library-v1")
}

/// A copy of the frozen library, which programs may write to.
struct Thawed {
    library: LocalLibrary,
    _copy: TempDir,
}

fn access(passphrase: &str) -> LibraryAccess {
    let mut access = LibraryAccess::default();
    let passphrase = Passphrase::new(passphrase).unwrap();
    access.key.passphrase = PassphraseSource::Given(passphrase);
    access
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn thaw() -> Thawed {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(&folder().join("library"), copy.path());
    let library = LocalLibrary::open_with_key(copy.path(), access(content::PASSPHRASE)).unwrap();
    Thawed {
        library,
        _copy: copy,
    }
}

/// The images as their documents were when they were written, oldest first.
fn expected() -> Vec<Image> {
    let text = fs::read(folder().join("images.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn read(library: &LocalLibrary, image: &Image, disk: u16) -> Vec<u8> {
    let device = library.open_disk(image.id, DiskIndex(disk)).unwrap();
    let mut bytes = vec![0; device.length_bytes() as usize];
    device.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn its_images_are_what_they_were() {
    let frozen = thaw();
    let images = frozen.library.images().unwrap();
    assert_eq!(images, expected());
    let names: Vec<_> = images
        .iter()
        .map(|image| image.server.to_string())
        .collect();
    assert_eq!(names, ["web", "web", "db"]);
    // What was pruned before counts: the floor of the library is read, and they are above it.
    assert!(images.iter().all(|image| image.generation > 0));
    assert_eq!(read(&frozen.library, &images[0], 0), content::web_disk());
    assert_eq!(
        read(&frozen.library, &images[1], 0),
        content::web_disk_later()
    );
    assert_eq!(read(&frozen.library, &images[2], 0), content::web_disk());
    assert_eq!(read(&frozen.library, &images[2], 1), content::db_disk());
    let (name, side_file) = content::SIDE_FILE;
    let found = frozen.library.side_file(images[1].id, name).unwrap();
    assert_eq!(found.as_deref(), Some(side_file));
}

#[test]
fn it_is_sound_and_opens_with_its_passphrase_alone() {
    let frozen = thaw();
    let report = frozen.library.verify(&Silent).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.images, report.side_files), (3, 1));
    let place = folder().join("library");
    let other = LocalLibrary::open_with_key(&*place, access("another passphrase"));
    assert!(
        matches!(other, Err(Error::WrongPassphrase { .. })),
        "{other:?}"
    );
    let none = LocalLibrary::open(&*place);
    assert!(
        matches!(none, Err(Error::PassphraseNeeded { .. })),
        "{none:?}"
    );
}

#[test]
fn a_deleted_image_comes_back() {
    let frozen = thaw();
    let deleted = frozen.library.deleted_images().unwrap();
    let [deleted] = &*deleted else {
        panic!("expected one, found {deleted:?}");
    };
    frozen.library.undelete_image(deleted.image.id).unwrap();
    let images = frozen.library.images().unwrap();
    assert_eq!(images.len(), 4);
    assert_eq!(
        read(&frozen.library, &images[3], 0),
        content::deleted_disk()
    );
}

#[test]
fn its_tokens_authority_and_audit_trail_are_read() {
    let frozen = thaw();
    let text = fs::read_to_string(folder().join("token")).unwrap();
    let token: Token = text.trim().parse().unwrap();
    let authority = Authority::of(&frozen.library).unwrap();
    assert_eq!(token.authority(), Some(authority.fingerprint()));
    let records = frozen.library.tokens().unwrap();
    let [agent, revoked] = &*records else {
        panic!("expected two, found {records:?}");
    };
    assert_eq!(agent.id, token.id());
    let server = "web".parse().unwrap();
    assert_eq!(agent.grant, Grant::Agent { server });
    assert!(agent.revoked_at.is_none());
    assert!(revoked.revoked_at.is_some());
    let mut actions = Vec::new();
    let damaged = frozen
        .library
        .audit_events(None, &mut |event| actions.push(event.action));
    assert_eq!(damaged.unwrap(), 0);
    assert_eq!(actions, [AuditAction::DeleteImage]);
}

#[test]
fn what_it_has_is_not_stored_again() {
    let frozen = thaw();
    let content = content::web_disk_later();
    let disk = IngestDisk {
        draft: DiskDraft {
            name: "sda".to_owned(),
            size_bytes: content.len() as u64,
            sector_size: SectorSize::B512,
        },
        device: Arc::new(MemoryDevice::from(content.clone())),
        used: None,
        known: None,
    };
    let target = UploadTarget {
        server: "web".parse().unwrap(),
    };
    let draft = ImageDraft {
        taken_at: jiff::Timestamp::now(),
        consistency: Consistency::Crash,
        machine: None,
    };
    let (image, stats) = ingest(&frozen.library, &target, &[disk], &draft, &Silent).unwrap();
    assert_eq!((stats.new_chunks, image.stored_bytes), (0, 0));
    assert_eq!(image.parent, Some(expected()[1].id));
    assert_eq!(read(&frozen.library, &image, 0), content);
}
