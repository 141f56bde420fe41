// SPDX-License-Identifier: MIT OR Apache-2.0
//! Damage that one program finds is healed by whichever takes the next image.

use std::fs;
use std::time::Duration;

use disk::Silent;

use super::record::{Lost, Place, Record};
use super::{CHUNKS_IN_MEMORY_MAX, Wanted, WantedRange, read_again};
use crate::chunk::ChunkId;
use crate::pack::{BlobKind, PackId};
use crate::store::names;
use crate::tests::damaged::{CHUNK, another, blob, damage, flip, library_with_image, verify};
use crate::tests::{TestLibrary, begin, draft, put_all, put_disk, read, store};
use crate::{Image, ImageId, ImageWriter, LocalLibrary, PruneOptions, VerifyOptions, VerifyScope};

fn records(library: &LocalLibrary) -> Vec<String> {
    let stored = library.core().store.list(names::WANTED).expect("lists");
    stored.into_iter().map(|stored| stored.name).collect()
}

fn is_readable(library: &LocalLibrary, image: &Image) -> bool {
    let image = VerifyScope::Images(vec![image.id]);
    let options = VerifyOptions {
        scope: image,
        dry_run: true,
    };
    let report = library.verify_with(&options, &Silent);
    report.expect("verifies").is_sound()
}

fn wanted(library: &LocalLibrary) -> std::sync::Arc<Wanted> {
    library.core().wanted().expect("reads")
}

#[test]
fn another_program_takes_a_damaged_chunk_again_and_the_old_image_is_whole() {
    for kind in [BlobKind::Data, BlobKind::Leaf, BlobKind::Root] {
        let (test, old, disk) = library_with_image();
        damage(&test.library, kind);
        assert!(!verify(&another(&test)), "{kind:?}");
        assert_eq!(records(&test.library).len(), 1, "{kind:?}");

        let new = store(&another(&test), "web", &disk);
        assert!(new.stored_bytes > 0, "{kind:?}");
        for image in [&old, &new] {
            assert_eq!(read(&another(&test), image), disk, "{kind:?}");
        }
        // Nothing more is sent the next time.
        let third = store(&another(&test), "web", &disk);
        assert_eq!(third.stored_bytes, 0, "{kind:?}");
    }
}

#[test]
fn what_stood_in_a_missing_pack_is_known_to_be_in_none() {
    let (test, old, disk) = library_with_image();
    let (_, path, _) = blob(&test.library, BlobKind::Data);
    fs::remove_file(path).expect("removes");
    assert!(!verify(&another(&test)));
    let names = records(&test.library);
    assert!(names[0].starts_with("wanted/none."), "{names:?}");
    assert_eq!(wanted(&test.library).nowhere.len(), 20);

    store(&another(&test), "web", &disk);
    assert_eq!(read(&another(&test), &old), disk);
    assert!(verify(&another(&test)));
    assert_eq!(records(&test.library), [""; 0]);
}

#[test]
fn an_image_or_a_sample_that_is_verified_leaves_records_too() {
    let scopes = [
        |image: ImageId| VerifyScope::Images(vec![image]),
        |_| VerifyScope::Sample("100%".parse().expect("a share")),
    ];
    for scope in scopes {
        let (test, image, _) = library_with_image();
        let pack = damage(&test.library, BlobKind::Data);
        let mut options = VerifyOptions {
            scope: scope(image.id),
            dry_run: true,
        };
        let verify = |options: &VerifyOptions| {
            let report = another(&test).verify_with(options, &Silent);
            report.expect("verifies").is_sound()
        };
        assert!(!verify(&options));
        assert_eq!(records(&test.library), [""; 0], "it was a dry run");
        options.dry_run = false;
        assert!(!verify(&options));
        let names = records(&test.library);
        assert_eq!(names.len(), 1);
        assert!(
            names[0].starts_with(&format!("wanted/{pack}.")),
            "{names:?}"
        );
        // Found again, it is the same record.
        assert!(!verify(&options));
        assert_eq!(records(&test.library), names);
    }
}

#[test]
fn a_record_stays_with_its_damaged_pack_and_goes_when_that_is_whole_or_gone() {
    let (test, _, disk) = library_with_image();
    let (_, path, at) = blob(&test.library, BlobKind::Data);
    flip(&path, at);
    verify(&another(&test));
    store(&another(&test), "web", &disk);
    verify(&another(&test));
    assert_eq!(records(&test.library).len(), 1, "its pack is damaged still");
    flip(&path, at);
    assert!(verify(&another(&test)));
    assert_eq!(records(&test.library), [""; 0], "its pack was brought back");

    flip(&path, at);
    verify(&another(&test));
    fs::remove_file(&path).expect("removes");
    verify(&another(&test));
    let names = records(&test.library);
    assert!(names.iter().all(|name| name.contains("none")), "{names:?}");
}

#[test]
fn a_damaged_record_is_told_and_its_pack_is_not_relied_on() {
    let (test, old, disk) = library_with_image();
    let pack = damage(&test.library, BlobKind::Data);
    verify(&another(&test));
    let name = records(&test.library).remove(0);
    flip(&test.directory.path().join(&name), 100);

    let chunk = ChunkId::from_bytes([0; 32]);
    assert!(wanted(&another(&test)).covers(&pack, &chunk), "any of it");
    let new = store(&another(&test), "web", &disk);
    assert!(new.stored_bytes > disk.len() as u64, "all of it");
    assert_eq!(read(&another(&test), &old), disk);

    let report = another(&test).verify(&Silent).expect("verifies");
    let found = |code: &str| report.findings.iter().any(|finding| finding.code == code);
    assert!(found("library.record.damaged"), "{report:?}");
    // It was written again.
    assert_eq!(records(&test.library), [name]);
    assert!(!wanted(&another(&test)).covers(&pack, &chunk));
}

#[test]
fn foreign_files_among_the_records_are_ignored() {
    let (test, _, disk) = library_with_image();
    let root = test.directory.path().join("wanted");
    fs::create_dir(&root).expect("creates");
    fs::write(root.join("notes.txt"), "x").expect("writes");
    fs::write(root.join("none.0"), "x").expect("writes");
    let library = another(&test);
    assert!(wanted(&library).is_empty());
    assert_eq!(store(&library, "web", &disk).stored_bytes, 0);
    assert!(verify(&library));
    assert_eq!(fs::read_dir(root).expect("lists").count(), 2);
}

/// By programs of which none knows what another has found.
fn prune(test: &TestLibrary) {
    let options = PruneOptions {
        keep: None,
        grace: Duration::ZERO,
        dry_run: false,
        is_sole_pruner: false,
    };
    for _ in 0..3 {
        another(test).prune(&options, &Silent).expect("prunes");
    }
}

#[test]
fn a_prune_keeps_the_whole_copy_of_a_chunk() {
    let (test, old, disk) = library_with_image();
    damage(&test.library, BlobKind::Data);
    verify(&another(&test));
    store(&another(&test), "web", &disk);
    prune(&test);
    assert_eq!(
        records(&test.library).len(),
        1,
        "the rest of its pack is in use"
    );
    assert_eq!(read(&another(&test), &old), disk);
}

#[test]
fn a_prune_removes_a_damaged_pack_of_which_all_was_taken_again_and_its_record() {
    let (test, old, disk) = library_with_image();
    let (_, path, _) = blob(&test.library, BlobKind::Data);
    flip(&path, 20);
    verify(&another(&test));
    assert_eq!(records(&test.library).len(), 1);
    store(&another(&test), "web", &disk);
    prune(&test);
    assert!(!path.exists());
    assert_eq!(records(&test.library), [""; 0]);
    assert_eq!(read(&another(&test), &old), disk);
    assert!(verify(&another(&test)));
}

#[test]
fn an_upload_that_goes_on_keeps_to_what_it_was_told() {
    let (test, _, disk) = library_with_image();
    let library = another(&test);
    let upload = begin(&library, "web");
    let hashes = put_all(&library, &*upload, &disk);
    damage(&test.library, BlobKind::Data);
    verify(&another(&test));
    put_disk(&*upload, "sda", disk.len() as u64, &hashes).expect("puts");
    let image = upload.commit(&draft()).expect("commits");
    // Its image is damaged; the next one is not, and heals it.
    assert!(!is_readable(&another(&test), &image));
    store(&another(&test), "web", &disk);
    assert_eq!(read(&another(&test), &image), disk);
}

fn ranges(library: &LocalLibrary) -> Vec<(u64, u64)> {
    let server = "web".parse().expect("a legal name");
    let ranges = library.wanted(&server).expect("reads");
    assert!(ranges.iter().all(|range| range.disk == "sda"));
    let numbers = ranges
        .iter()
        .map(|range| (range.first_chunk, range.chunk_count));
    numbers.collect()
}

#[test]
fn what_is_wanted_of_a_server_is_what_has_no_whole_copy() {
    let (test, _, disk) = library_with_image();
    let core = test.library.core();
    let (pack, path, _) = blob(&test.library, BlobKind::Data);
    let footer = core.open_pack(pack).and_then(|pack| pack.footer());
    let entries = footer.expect("is whole").entries;
    for chunk in [3, 4, 5, 19] {
        flip(&path, entries[chunk].extent.offset as usize + 100);
    }
    assert_eq!(ranges(&another(&test)), [], "nobody knows");
    verify(&another(&test));
    assert_eq!(ranges(&another(&test)), [(3, 3), (19, 1)]);
    let other = "other".parse().expect("a legal name");
    assert_eq!(another(&test).wanted(&other).expect("reads"), []);
    // The copies of another server are as good.
    store(&another(&test), "other", &disk[4 * CHUNK..5 * CHUNK]);
    assert_eq!(ranges(&another(&test)), [(3, 1), (5, 1), (19, 1)]);
    store(&another(&test), "web", &disk);
    assert_eq!(ranges(&another(&test)), []);
    assert_eq!(records(&test.library).len(), 1);
}

#[test]
fn all_of_a_leaf_or_a_disk_is_wanted_when_its_manifest_is_lost() {
    for kind in [BlobKind::Leaf, BlobKind::Root] {
        let (test, ..) = library_with_image();
        damage(&test.library, kind);
        verify(&another(&test));
        assert_eq!(ranges(&another(&test)), [(0, 20)], "{kind:?}");
    }
}

#[test]
fn a_whole_pack_that_is_lost_is_wanted() {
    let (test, _, disk) = library_with_image();
    let (_, path, _) = blob(&test.library, BlobKind::Data);
    let length = fs::metadata(&path).expect("is there").len() as usize;
    flip(&path, length - 40);
    verify(&another(&test));
    assert_eq!(ranges(&another(&test)), [(0, 20)]);
    store(&another(&test), "web", &disk);
    assert_eq!(ranges(&another(&test)), []);
}

#[test]
fn notes_of_wanted_chunks_are_not_believed() {
    let (test, _, _) = library_with_image();
    let server = "web".parse().expect("a legal name");
    let kept = test.library.latest_hashes(&server, "sda").expect("reads");
    let kept = kept.expect("there is an image");
    let before = kept.leaf(0).expect("reads");
    let range = |disk: &str, first_chunk, chunk_count| WantedRange {
        disk: disk.to_owned(),
        first_chunk,
        chunk_count,
    };
    // A server may say anything.
    let told = [
        range("sda", 2, 3),
        range("sdb", 0, 20),
        range("sda", 19, u64::MAX),
        range("sda", u64::MAX, u64::MAX),
    ];
    let doubted = read_again(kept, "sda", &told).leaf(0).expect("reads");
    let changed: Vec<usize> = (0..20).filter(|&at| before[at] != doubted[at]).collect();
    assert_eq!(changed, [2, 3, 4, 19]);
}

#[test]
fn of_more_damage_than_can_be_told_apart_whole_packs_are_avoided() {
    let chunks = |numbers: std::ops::Range<u8>| {
        let ids = numbers.map(|number| ChunkId::from_bytes([number; 32]));
        Lost::Chunks(ids.collect())
    };
    let pack = |number| PackId::from_bytes([number; 32]);
    let in_pack = |number, lost| Record {
        place: Place::Pack(pack(number)),
        lost,
    };
    let mut wanted = Wanted {
        chunks: CHUNKS_IN_MEMORY_MAX - 5,
        ..Wanted::default()
    };
    let other = ChunkId::from_bytes([99; 32]);
    wanted.add(in_pack(1, chunks(0..3)));
    wanted.add(in_pack(2, chunks(0..3)));
    wanted.add(Record {
        place: Place::Nowhere,
        lost: chunks(10..20),
    });
    assert!(!wanted.covers(&pack(1), &other), "there was room for it");
    assert!(wanted.covers(&pack(2), &other));
    assert_eq!(wanted.nowhere.len(), 2);
    assert_eq!(wanted.chunks, CHUNKS_IN_MEMORY_MAX);
}
