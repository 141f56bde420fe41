// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images come back as they were put, whatever the chunk size, the cipher and the reader.

use disk::ReadAt;
use disk::block::ExtentKind;
use rstest::rstest;

use super::{
    TestLibrary, all_hashes, begin, disk_draft, draft, noise, put_all, put_disk, sample_disk,
};
use crate::manifest::{LEAF_CHUNKS, leaf_to_bytes};
use crate::{
    ChunkState, Cipher, ContentHash, Error, ImageReader, ImageWriter, InitOptions, LocalLibrary,
};

#[rstest]
fn an_image_comes_back_bit_for_bit(
    #[values(16 << 10, 64 << 10, 4 << 20)] chunk_size_bytes: u32,
    #[values(Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305)] cipher: Cipher,
    #[values(0, 1, 512, 9_000_001)] length: usize,
) {
    let library = TestLibrary::with(&InitOptions {
        chunk_size_bytes,
        cipher,
        ..InitOptions::default()
    });
    let disk = sample_disk(1, length);
    let image = library.store("web", &disk);
    assert_eq!(library.read(&image), disk);
    let again = LocalLibrary::open(library.directory.path()).expect("opens");
    assert_eq!(again.images().expect("lists"), vec![image]);
}

#[test]
fn parts_of_a_disk_read_as_the_whole_does() {
    let library = TestLibrary::new();
    let disk = sample_disk(2, 3_000_000);
    let image = library.store("web", &disk);
    let device = library.open(&image);
    for (offset, length) in [
        (0, 1),
        (16383, 2),
        (999_999, 70_000),
        (2_999_999, 1),
        (5, 0),
    ] {
        let mut bytes = vec![0xee; length];
        device
            .read_exact_at(offset as u64, &mut bytes)
            .expect("reads");
        assert_eq!(bytes, disk[offset..offset + length]);
    }
    let past = device.read_exact_at(2_999_999, &mut [0; 2]);
    assert!(past.is_err());
    assert!(device.read_exact_at(u64::MAX, &mut [0; 2]).is_err());
}

#[test]
fn holes_are_known_without_reading() {
    let library = TestLibrary::new();
    let chunk = 16 << 10;
    let mut disk = vec![0; 5000 * chunk];
    disk[0] = 1;
    disk[4999 * chunk] = 1;
    let image = library.store("web", &disk);
    assert_eq!(image.disks[0].data_bytes, 2 * chunk as u64);
    let device = library.open(&image);
    let first = device.extent_at(0).expect("reads");
    assert_eq!((first.length, first.kind), (chunk as u64, ExtentKind::Data));
    let hole = device.extent_at(chunk as u64 + 1).expect("reads");
    // To the end of the second leaf: the third one names a chunk.
    assert_eq!(hole.length, (4096 * chunk - chunk - 1) as u64);
    assert_eq!(hole.kind, ExtentKind::Zero);
    assert!(device.extent_at(disk.len() as u64).is_err());
}

#[test]
fn a_second_server_with_the_same_disk_costs_next_to_nothing() {
    let library = TestLibrary::new();
    let disk = sample_disk(3, 2_000_000);
    let first = library.store("one", &disk);
    let second = library.store("two", &disk);
    assert!(first.stored_bytes > 700_000, "{}", first.stored_bytes);
    assert_eq!(second.stored_bytes, 0);
    assert_eq!(library.read(&second), disk);
}

#[test]
fn another_servers_chunks_cannot_be_probed_or_named() {
    let library = TestLibrary::new();
    let disk = sample_disk(4, 500_000);
    library.store("one", &disk);
    let secret = ContentHash::of(&disk[..16 << 10]);
    let upload = library.begin("two");
    assert_eq!(
        upload.states(&[secret]).expect("asks"),
        [ChunkState::Missing]
    );
    let stolen = put_disk(&*upload, "sda", 16 << 10, &[Some(secret)]);
    assert!(stolen.is_err());
}

#[test]
fn what_a_server_has_stored_it_need_not_send_again() {
    let library = TestLibrary::new();
    let disk = sample_disk(5, 500_000);
    library.store("one", &disk);
    // All of it stands in packs of the first server.
    library.store("two", &disk);
    let server = "two".parse().expect("legal");
    let hashes = library
        .library
        .latest_hashes(&server, "sda")
        .expect("reads");
    let hashes = all_hashes(&*hashes.expect("there is an image"));
    assert_eq!(hashes[0], Some(ContentHash::of(&disk[..16 << 10])));
    assert_eq!(hashes[25], None);
    let upload = library.begin("two");
    let known: Vec<ContentHash> = hashes.iter().flatten().copied().collect();
    let states = upload.states(&known).expect("asks");
    assert!(states.iter().all(|state| *state == ChunkState::Stored));
    put_disk(&*upload, "sda", 500_000, &hashes).expect("all of it is there");
    let image = upload.commit(&draft()).expect("commits");
    assert_eq!(image.stored_bytes, 0);
    assert_eq!(library.read(&image), disk);
    assert_eq!(
        library.library.images().expect("lists")[1].id,
        image.parent.expect("has one")
    );
}

#[test]
fn an_increment_costs_what_changed() {
    let library = TestLibrary::new();
    let mut disk = sample_disk(6, 2 << 20);
    disk.resize(60 << 20, 0);
    library.store("web", &disk);
    disk[100_000..100_010].copy_from_slice(b"0123456789");
    let image = library.store("web", &disk);
    // One chunk, one leaf, one root.
    assert!(
        image.stored_bytes < 16_500 + 66_000 + 300,
        "{}",
        image.stored_bytes
    );
    assert_eq!(library.read(&image), disk);
}

#[test]
fn nothing_is_visible_before_the_commit_and_all_of_it_after() {
    let library = TestLibrary::new();
    let reader = LocalLibrary::open(library.directory.path()).expect("opens");
    let disk = sample_disk(7, 300_000);
    let upload = begin(&library.library, "web");
    let hashes = put_all(&library.library, &*upload, &disk);
    put_disk(&*upload, "sda", 300_000, &hashes).expect("puts");
    assert_eq!(reader.images().expect("lists"), vec![]);
    let image = upload.commit(&draft()).expect("commits");
    // Opened before the image was made, by another program.
    let device = reader
        .open_disk(image.id, image.disks[0].index)
        .expect("opens");
    let mut bytes = vec![0; disk.len()];
    device.read_exact_at(0, &mut bytes).expect("reads");
    assert_eq!(bytes, disk);
}

#[test]
fn an_interrupted_upload_sends_nothing_twice() {
    let library = TestLibrary::new();
    let disk = sample_disk(8, 2_000_000);
    let upload = library.begin("web");
    let hashes = put_all(&library.library, &*upload, &disk);
    drop(upload);
    assert_eq!(library.library.images().expect("lists"), vec![]);
    let again = LocalLibrary::open(library.directory.path()).expect("opens");
    let upload = begin(&again, "web");
    let known: Vec<ContentHash> = hashes.iter().flatten().copied().collect();
    let states = upload.states(&known).expect("asks");
    assert!(states.iter().all(|state| *state == ChunkState::Stored));
    put_disk(&*upload, "sda", 2_000_000, &hashes).expect("puts");
    let image = upload.commit(&draft()).expect("commits");
    assert_eq!(library.read(&image), disk);
}

#[test]
fn side_files_are_replaced_and_the_image_stays() {
    let library = TestLibrary::new();
    let image = library.store("web", &sample_disk(9, 100_000));
    let of = &library.library;
    assert_eq!(
        of.side_file(image.id, "readiness.json").expect("reads"),
        None
    );
    for content in [&b"first"[..], b"second"] {
        of.put_side_file(image.id, "readiness.json", content)
            .expect("writes");
        let read = of.side_file(image.id, "readiness.json").expect("reads");
        assert_eq!(read.as_deref(), Some(content));
    }
    for name in ["", ".", "..", "../x", "a/b", "A", ".hidden"] {
        assert!(of.put_side_file(image.id, name, b"x").is_err(), "{name}");
    }
    assert_eq!(of.image(image.id).expect("reads"), image);
}

#[test]
fn an_empty_library_says_that_there_is_none() {
    let library = TestLibrary::new();
    let of = &library.library;
    let server = "web".parse().expect("legal");
    assert!(of.latest_hashes(&server, "sda").expect("reads").is_none());
    assert_eq!(of.images().expect("lists"), vec![]);
}

/// A disk of 2100 chunks: one full leaf and another.
fn two_leaves(seed: u64) -> Vec<u8> {
    let mut disk = vec![0; 2100 << 14];
    for (place, bytes) in disk.chunks_mut(1 << 20).enumerate() {
        bytes[..20].copy_from_slice(&noise(seed * 1000 + place as u64, 20));
    }
    disk
}

#[test]
fn a_leaf_of_the_latest_image_is_named_and_not_put_again() {
    let library = TestLibrary::new();
    let mut disk = two_leaves(1);
    library.store("web", &disk);
    disk[2090 << 14] = 7;
    let upload = library.begin("web");
    let hashes = put_all(&library.library, &*upload, &disk);
    let size = disk.len() as u64;
    let draft = disk_draft("sda", size);
    let leaves = hashes.chunks(LEAF_CHUNKS).map(leaf_to_bytes);
    let leaves: Vec<_> = leaves.map(|leaf| Some(ContentHash::of(&leaf))).collect();
    let missing = upload.put_disk(&draft, &leaves).expect_err("leaf 1 is new");
    assert!(missing.to_string().contains("leaf 1"), "{missing}");
    upload.put_leaf(&draft, 1, &hashes[2048..]).expect("puts");
    upload.put_disk(&draft, &leaves).expect("leaf 0 is known");
    let image = upload.commit(&super::draft()).expect("commits");
    assert_eq!(library.read(&image), disk);
    assert_eq!(image.disks[0].data_bytes, 34 << 14);
}

#[test]
fn leaves_that_cannot_be_are_refused() {
    let library = TestLibrary::new();
    let disk = two_leaves(2);
    let other = library.store("other", &disk);
    let upload = library.begin("web");
    let draft = disk_draft("sda", disk.len() as u64);
    let hash = Some(ContentHash::of(&disk[..1 << 14]));
    // Too many, too few, all zeros, beyond the disk, a chunk of another server.
    let wrong = [
        (0, vec![None; 2049]),
        (1, vec![hash; 51]),
        (1, vec![None; 52]),
        (2, vec![hash; 1]),
        (u64::MAX, vec![hash; 2048]),
        (1, vec![hash; 52]),
    ];
    for (number, hashes) in wrong {
        let refused = upload.put_leaf(&draft, number, &hashes);
        assert!(
            matches!(refused, Err(Error::Refused { .. })),
            "leaf {number}"
        );
    }
    // A leaf of another server's image, by its hash.
    let core = library.library.core();
    let root = core
        .read_root(&other.disks[0].manifest, "test")
        .expect("reads");
    for leaves in [root.leaves.clone(), vec![None], vec![None; 3]] {
        let refused = upload.put_disk(&draft, &leaves);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{leaves:?}");
    }
    upload
        .put_disk(&draft, &[None, None])
        .expect("a disk of zeros");
}
