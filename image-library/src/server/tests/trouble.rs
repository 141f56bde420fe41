// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes wrong around a server: its disk is full, another server has the same library open.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use disk::{ReadAt, Silent};

use super::{Site, agent};
use crate::access::{ImageReader, ImageWriter, Upload, UploadTarget};
use crate::client::{RemoteLibrary, ServerAccess};
use crate::document::Image;
use crate::error::Error;
use crate::id::{ContentHash, DiskIndex};
use crate::local::LocalLibrary;
use crate::server::{Access, Limits, RunningServer, Server, ServerOptions, Transport};
use crate::tests::{all_hashes, chunk, draft, put_disk, sample_disk, store};
use crate::token::Token;
use crate::tokens::Grant;

const CHUNK: usize = 65_536;

impl Site {
    fn path(&self) -> std::path::PathBuf {
        self._directory.path().join("library")
    }

    fn connect(&self, token: &Token) -> RemoteLibrary {
        connect(&self.server, token)
    }

    /// Another server of the same library, as a program of its own would open it.
    fn second_server(&self) -> RunningServer {
        let library = LocalLibrary::open(&self.path()).unwrap();
        let options = ServerOptions {
            access: Access::Tokens(library.clone()),
            transport: Transport::Plain,
            limits: Limits::default(),
        };
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(Arc::new(library), address, options).unwrap();
        server.start().unwrap()
    }
}

fn connect(server: &RunningServer, token: &Token) -> RemoteLibrary {
    let access = ServerAccess::with_token(token.clone());
    RemoteLibrary::connect(&server.url(), &access).unwrap()
}

fn begin(library: &RemoteLibrary) -> Box<dyn Upload> {
    let server = "web01".parse().unwrap();
    library.begin(&UploadTarget { server }).unwrap()
}

/// Puts the chunks of a disk; gives their hashes.
fn put_chunks(upload: &dyn Upload, disk: &[u8]) -> Vec<Option<ContentHash>> {
    let mut hashes = Vec::new();
    for plain in disk.chunks(CHUNK) {
        let is_zero = plain.iter().all(|byte| *byte == 0);
        if !is_zero {
            upload.put_chunks(vec![chunk(plain)]).unwrap();
        }
        hashes.push((!is_zero).then(|| ContentHash::of(plain)));
    }
    hashes
}

fn commit(upload: Box<dyn Upload>, disk: &[u8], hashes: &[Option<ContentHash>]) -> Image {
    put_disk(&*upload, "sda", disk.len() as u64, hashes).unwrap();
    upload.commit(&draft()).unwrap()
}

fn read(library: &RemoteLibrary, image: &Image) -> Vec<u8> {
    let device = library.open_disk(image.id, DiskIndex(0)).unwrap();
    let mut bytes = vec![1; device.length_bytes() as usize];
    device.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_full_disk_is_told_to_the_agent_and_only_the_next_upload_can_go_on() {
    let site = Site::new();
    let before = store(&site.library, "web01", &sample_disk(1, 300_000));
    let library = site.connect(&site.token(agent("web01")));
    let disk = sample_disk(2, 300_000);
    let upload = begin(&library);
    // What this upload writes meets a device that is full.
    let mut uploads = fs::read_dir(site.path().join("uploads")).unwrap();
    let session = uploads.next().unwrap().unwrap().path();
    symlink("/dev/full", session.join("0.pack-part")).unwrap();

    let hashes = put_chunks(&*upload, &disk);
    put_disk(&*upload, "sda", disk.len() as u64, &hashes).unwrap();
    let error = upload.commit(&draft()).unwrap_err();

    let Error::ServerRefused {
        status,
        message,
        hint,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*status, 507);
    assert!(message.contains("0.pack-part: No space left"), "{message}");
    assert!(hint.as_ref().unwrap().starts_with("make room"), "{hint:?}");
    assert_eq!(
        site.library.images().unwrap(),
        std::slice::from_ref(&before)
    );
    assert!(site.library.verify(&Silent).unwrap().is_sound());

    let upload = begin(&library);
    let hashes = put_chunks(&*upload, &disk);
    let image = commit(upload, &disk, &hashes);
    let operator = site.connect(&site.token(Grant::Operator));
    assert!(read(&operator, &image) == disk);
    assert!(site.library.verify(&Silent).unwrap().is_sound());
}

#[test]
fn a_library_on_a_full_disk_is_still_read() {
    let site = Site::new();
    let disk = sample_disk(1, 300_000);
    let image = store(&site.library, "web01", &disk);
    let operator = site.connect(&site.token(Grant::Operator));
    let agent = site.connect(&site.token(agent("web01")));
    // Neither the audit trail nor anything else can be written any more.
    for folder in ["audit", "tmp", "uploads"] {
        let folder = site.path().join(folder);
        let _ = fs::remove_dir_all(&folder);
        symlink("/dev/full", &folder).unwrap();
    }
    assert!(read(&operator, &image) == disk);
    assert_eq!(operator.images().unwrap(), [image]);
    let server = "web01".parse().unwrap();
    let error = agent.begin(&UploadTarget { server }).unwrap_err();
    assert!(
        matches!(error, Error::ServerRefused { status: 500.., .. }),
        "{error}"
    );
}

#[test]
fn two_servers_of_one_directory_lose_nothing_of_each_other() {
    let site = Site::new();
    let second = site.second_server();
    let token = site.token(agent("web01"));
    let libraries = [site.connect(&token), connect(&second, &token)];
    let disks = [sample_disk(1, 300_000), sample_disk(2, 300_000)];

    // Both take an upload of the same server at once, beside a prune.
    let uploads = [begin(&libraries[0]), begin(&libraries[1])];
    let hashes = [
        put_chunks(&*uploads[0], &disks[0]),
        put_chunks(&*uploads[1], &disks[1]),
    ];
    let at_once = crate::PruneOptions {
        keep: None,
        grace: std::time::Duration::ZERO,
        dry_run: false,
        is_sole_pruner: false,
    };
    site.library.prune(&at_once, &Silent).unwrap();
    let [first, other] = uploads;
    let images = [
        commit(first, &disks[0], &hashes[0]),
        commit(other, &disks[1], &hashes[1]),
    ];

    let operator = site.token(Grant::Operator);
    for server in [&site.server, &second] {
        let library = connect(server, &operator);
        assert_eq!(library.images().unwrap(), images);
        for (image, disk) in images.iter().zip(&disks) {
            assert!(read(&library, image) == *disk);
        }
    }
    assert!(site.library.verify(&Silent).unwrap().is_sound());
    // What one of them stored need not be sent to the other.
    let stored = begin(&libraries[1]).states(&[ContentHash::of(&disks[0][..CHUNK])]);
    assert_eq!(stored.unwrap(), [crate::access::ChunkState::Stored]);
}

#[test]
fn an_upload_is_told_the_hashes_that_it_was_begun_with() {
    let site = Site::new();
    let disk = sample_disk(1, 300_000);
    let first = store(&site.library, "web01", &disk);
    let library = site.connect(&site.token(agent("web01")));
    let latest = || {
        let server = "web01".parse().unwrap();
        let hashes = library.latest_hashes(&server, "sda").unwrap();
        hashes.unwrap().image()
    };

    let upload = begin(&library);
    let second = store(&site.library, "web01", &sample_disk(2, 300_000));
    site.library.delete_image(first.id).unwrap();
    let hashes = upload.latest_hashes("sda").unwrap().unwrap();
    assert_eq!(hashes.image(), first.id);
    assert!(upload.latest_hashes("sdb").unwrap().is_none());
    // Nothing is sent, and nothing refused.
    let image = commit(upload, &disk, &all_hashes(&*hashes));
    assert_eq!(image.parent, Some(first.id));
    assert_eq!(latest(), image.id);

    let stranger = site.connect(&site.token(Grant::Administrator));
    let other = begin(&library);
    site.library.delete_image(image.id).unwrap();
    assert_eq!(latest(), image.id, "the upload's own");
    let server = "web01".parse().unwrap();
    let of_stranger = stranger.latest_hashes(&server, "sda").unwrap().unwrap();
    assert_eq!(of_stranger.image(), second.id);
    drop(other);
    assert_eq!(latest(), second.id);
}
