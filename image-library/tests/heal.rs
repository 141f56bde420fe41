// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library heal` as an operator uses it: after `verify`, from a directory and from a server.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod served;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use disk::{ReadAt, SectorSize, Silent};
use image_library::{
    ChunkUpload, Consistency, ContentHash, DiskDraft, DiskIndex, DiskWriter, Grant, Image,
    ImageDraft, ImageReader, ImageWriter, InitOptions, LocalLibrary, ReplicateOptions,
    UploadTarget,
};
use serde_json::Value;

use crate::served::{Served, agent};

const CHUNK: usize = 65_536;

/// Bytes of which no chunk is like another, and which do not compress.
fn disk_bytes() -> Vec<u8> {
    let mut bytes = vec![0; 10 * CHUNK];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn store(library: &LocalLibrary, bytes: &[u8]) -> Image {
    let server = "web01".parse().unwrap();
    let upload = library.begin(&UploadTarget { server }).unwrap();
    let mut hashes = Vec::new();
    for plain in bytes.chunks(CHUNK) {
        let hash = ContentHash::of(plain);
        let chunk = ChunkUpload {
            hash,
            length: plain.len() as u32,
            compressed: zstd::bulk::compress(plain, 1).unwrap(),
        };
        upload.put_chunks(vec![chunk]).unwrap();
        hashes.push(Some(hash));
    }
    let disk = DiskDraft {
        name: "sda".to_owned(),
        size_bytes: bytes.len() as u64,
        sector_size: SectorSize::B512,
    };
    let mut writer = DiskWriter::new(&*upload, &disk);
    writer.push(&hashes).unwrap();
    writer.finish().unwrap();
    let draft = ImageDraft {
        taken_at: "2026-11-01T10:00:00Z".parse().unwrap(),
        consistency: Consistency::Cold,
        machine: None,
    };
    upload.commit(&draft).unwrap()
}

fn read(library: &Path, image: &Image) -> Vec<u8> {
    let library = LocalLibrary::open(library).unwrap();
    let disk = library.open_disk(image.id, DiskIndex(0)).unwrap();
    let mut bytes = vec![0; disk.length_bytes() as usize];
    disk.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

/// A library, and a replica of it behind a server.
struct Site {
    here: PathBuf,
    image: Image,
    replica: Served,
}

impl Site {
    fn new() -> Self {
        let replica = Served::securely();
        let here = replica.file("here");
        let library = LocalLibrary::init(&here, &InitOptions::default()).unwrap();
        let image = store(&library, &disk_bytes());
        let options = ReplicateOptions::default();
        let stop = AtomicBool::new(false);
        let copied = library.replicate(&replica.library, &options, &Silent, &stop);
        assert_eq!(copied.unwrap().copied.len(), 1);
        Self {
            here,
            image,
            replica,
        }
    }

    /// Changes a byte in the middle of a chunk in the only pack of a library.
    fn damage(library: &Path) {
        let directory = fs::read_dir(library.join("packs")).unwrap().next().unwrap();
        let pack = fs::read_dir(directory.unwrap().path()).unwrap().next();
        let path = pack.unwrap().unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[5 * CHUNK] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    fn run(&self, command: &str, more: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_image-library"));
        program.arg(command).arg(&self.here).args(more);
        program.output().unwrap()
    }

    fn heal(&self, more: &[&str]) -> (Option<i32>, Value) {
        let output = self.run("heal", &[more, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout);
        (output.status.code(), report.unwrap_or_else(|_| text.into()))
    }

    fn token_file(&self, grant: Grant) -> String {
        let path = self.replica.file("token");
        fs::write(&path, self.replica.token(grant).reveal().as_bytes()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn what_verify_found_is_healed_from_a_server_by_an_operator() {
    let site = Site::new();
    Site::damage(&site.here);
    assert_eq!(site.run("verify", &[]).status.code(), Some(1));
    let url = site.replica.server.url();
    let token = site.token_file(Grant::Operator);
    let from = ["--from", &url, "--from-token-file", &token];
    let (code, planned) = site.heal(&[&from[..], &["--dry-run"]].concat());
    assert_eq!((code, &planned["chunks"]), (Some(0), &1.into()));
    let (code, report) = site.heal(&from);
    assert_eq!((code, report), (Some(0), planned));
    assert!(read(&site.here, &site.image) == disk_bytes());
    let (code, report) = site.heal(&from);
    assert_eq!((code, &report["chunks"]), (Some(0), &0.into()));
}

#[test]
fn what_is_left_is_told_and_exit_code_1_with_it() {
    let site = Site::new();
    let replica = site.replica.file("library");
    for library in [&site.here, &replica] {
        Site::damage(library);
    }
    assert_eq!(site.run("verify", &[]).status.code(), Some(1));
    let (code, report) = site.heal(&["--from", replica.to_str().unwrap()]);
    assert_eq!((code, &report["left_count"]), (Some(1), &1.into()));
    let place = format!("image {}, disk \"sda\", bytes 0x", site.image.id);
    let found = report["left"][0]["place"].as_str().unwrap();
    assert!(found.starts_with(&place), "{found}");
    // A server tells it of its own chunk as well.
    let url = site.replica.server.url();
    let token = site.token_file(Grant::Operator);
    let (code, report) = site.heal(&["--from", &url, "--from-token-file", &token]);
    assert_eq!((code, &report["left_count"]), (Some(1), &1.into()));
}

#[test]
fn a_library_that_cannot_be_asked_is_an_error_and_not_a_loss() {
    let site = Site::new();
    Site::damage(&site.here);
    assert_eq!(site.run("verify", &[]).status.code(), Some(1));
    let url = site.replica.server.url();
    let token = site.token_file(agent("web01"));
    let (code, told) = site.heal(&["--from", &url, "--from-token-file", &token]);
    assert_eq!(code, Some(2), "an agent reads no images: {told}");
    let (code, told) = site.heal(&["--from", "/nowhere/library"]);
    assert_eq!(code, Some(2), "{told}");
}
