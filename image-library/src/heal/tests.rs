// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was lost here comes back from a copy, and nothing else does.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use disk::{ReadAt, Silent};

use super::{HealOptions, HealReport};
use crate::pack::BlobKind;
use crate::store::{list_packs, names};
use crate::tests::damaged::{CHUNK, another, blob, damage, flip, library_with_image, verify};
use crate::tests::{TestLibrary, noise, read, sample_disk, store};
use crate::{
    DiskIndex, Error, Image, ImageId, ImageReader, LocalLibrary, ReplicateOptions, Result,
};

fn heal(library: &LocalLibrary, from: &dyn ImageReader) -> HealReport {
    try_heal(library, from, &HealOptions::default()).expect("heals")
}

fn try_heal(
    library: &LocalLibrary,
    from: &dyn ImageReader,
    options: &HealOptions,
) -> Result<HealReport> {
    library.heal(from, options, &Silent, &AtomicBool::new(false))
}

fn replica_of(library: &LocalLibrary) -> TestLibrary {
    let replica = TestLibrary::new();
    let options = ReplicateOptions {
        older_too: true,
        ..ReplicateOptions::default()
    };
    let stop = AtomicBool::new(false);
    let copied = library.replicate(&replica.library, &options, &Silent, &stop);
    assert!(copied.expect("replicates").failed.is_empty());
    replica
}

fn stored_packs(library: &LocalLibrary) -> usize {
    list_packs(&*library.core().store).expect("lists").len()
}

/// Chunks, leaves, roots, places that are left.
fn counts(report: &HealReport) -> (u64, u64, u64, u64) {
    (
        report.chunks,
        report.leaves,
        report.roots,
        report.left_count,
    )
}

#[test]
fn what_is_damaged_comes_back_from_a_replica() {
    for (kind, expected) in [
        (BlobKind::Data, (1, 0, 0, 0)),
        (BlobKind::Leaf, (0, 1, 0, 0)),
        (BlobKind::Root, (0, 0, 1, 0)),
    ] {
        let (test, image, disk) = library_with_image();
        let replica = replica_of(&test.library);
        damage(&test.library, kind);
        assert!(!verify(&another(&test)));
        let report = heal(&another(&test), &replica.library);
        assert_eq!(counts(&report), expected, "{kind:?}");
        assert_eq!(read(&another(&test), &image), disk, "{kind:?}");
        // It is there now.
        let again = heal(&another(&test), &replica.library);
        assert_eq!(counts(&again), (0, 0, 0, 0), "{kind:?}");
    }
}

#[test]
fn missing_packs_come_back_though_nobody_verified() {
    let (test, image, disk) = library_with_image();
    let changed = [noise(5, CHUNK), disk[CHUNK..].to_vec()].concat();
    let second = test.store("web", &changed);
    let other = test.store("mail", &sample_disk(3, 5 << 20));
    let replica = replica_of(&test.library);
    for pack in list_packs(&*test.library.core().store).expect("lists") {
        fs::remove_file(test.directory.path().join(names::pack(&pack.id))).expect("removes");
    }
    let report = heal(&another(&test), &replica.library);
    assert_eq!((report.images, report.roots, report.left_count), (3, 3, 0));
    for image in [&image, &second, &other] {
        assert_eq!(read(&another(&test), image), replica.read(image));
    }
    assert!(verify(&another(&test)));
}

#[test]
fn damage_that_a_heal_meets_first_is_written_down() {
    let (test, image, disk) = library_with_image();
    let replica = replica_of(&test.library);
    let pack = damage(&test.library, BlobKind::Leaf);
    heal(&another(&test), &replica.library);
    let listed = test
        .library
        .core()
        .store
        .list(names::WANTED)
        .expect("lists");
    assert_eq!(listed.len(), 1);
    assert!(listed[0].name.contains(&pack.to_string()));
    assert_eq!(read(&another(&test), &image), disk);
}

#[test]
fn what_both_have_lost_is_told_with_its_place() {
    let (test, image, _) = library_with_image();
    let replica = replica_of(&test.library);
    let (pack, path, _) = blob(&test.library, BlobKind::Data);
    let footer = test.library.core().open_pack(pack).expect("opens").footer();
    for entry in &footer.expect("is whole").entries[2..5] {
        flip(&path, entry.extent.offset as usize + 100);
    }
    verify(&another(&test));
    let other = another(&replica);
    let (pack, path, _) = blob(&other, BlobKind::Data);
    let footer = other.core().open_pack(pack).expect("opens").footer();
    for entry in &footer.expect("is whole").entries[3..6] {
        flip(&path, entry.extent.offset as usize + 100);
    }
    let report = heal(&another(&test), &other);
    assert_eq!((report.chunks, report.left_count), (1, 1));
    let left = &report.left[0];
    let place = format!("image {}, disk \"sda\", bytes 0xc000 to 0x14000", image.id);
    assert_eq!(left.place, place);
    assert!(
        left.problem.starts_with("in the other library: "),
        "{left:?}"
    );
}

#[test]
fn a_leaf_a_root_and_an_image_that_the_other_has_not_are_left() {
    for (kind, place) in [
        (BlobKind::Data, ", disk \"sda\", bytes 0x1c000 to 0x20000"),
        (BlobKind::Leaf, ", disk \"sda\", bytes 0x0 to 0x50000"),
        (BlobKind::Root, ", disk \"sda\""),
    ] {
        let (test, image, _) = library_with_image();
        let (pack, path, at) = blob(&test.library, kind);
        let footer = test.library.core().open_pack(pack).expect("opens").footer();
        let eighth = footer
            .expect("is whole")
            .entries
            .get(7)
            .map(|entry| entry.extent.offset);
        flip(&path, eighth.map_or(at, |offset| offset as usize + 100));
        verify(&another(&test));
        let report = heal(&another(&test), &TestLibrary::new().library);
        assert_eq!(counts(&report), (0, 0, 0, 1), "{kind:?}");
        assert_eq!(report.left[0].place, format!("image {}{place}", image.id));
        let problem = &report.left[0].problem;
        assert!(
            problem.contains(&format!("no image {}", image.id)),
            "{problem}"
        );
    }
}

#[test]
fn an_image_without_its_document_is_left_to_replicate() {
    let (test, image, _) = library_with_image();
    let replica = replica_of(&test.library);
    let path = test.directory.path().join(names::image(image.id));
    flip(&path, 100);
    let report = heal(&another(&test), &replica.library);
    assert_eq!(counts(&report), (0, 0, 0, 1));
    let remedy = report.left[0].remedy.as_deref().unwrap_or_default();
    assert!(remedy.contains("replicate --older-too"), "{remedy}");
}

#[test]
fn a_pack_without_its_footer_is_healed_from_itself() {
    let (test, image, disk) = library_with_image();
    let (_, path, _) = blob(&test.library, BlobKind::Data);
    let length = fs::metadata(&path).expect("is there").len() as usize;
    flip(&path, length - 40);
    verify(&another(&test));
    let report = heal(&another(&test), &TestLibrary::new().library);
    assert_eq!(counts(&report), (20, 0, 0, 0));
    fs::remove_file(&path).expect("removes");
    assert_eq!(read(&another(&test), &image), disk);
}

#[test]
fn a_dry_run_says_the_same_and_stores_nothing() {
    let (test, ..) = library_with_image();
    let replica = replica_of(&test.library);
    damage(&test.library, BlobKind::Data);
    damage(&test.library, BlobKind::Root);
    verify(&another(&test));
    let before = stored_packs(&test.library);
    let options = HealOptions { dry_run: true };
    let library = another(&test);
    let planned = try_heal(&library, &replica.library, &options).expect("plans");
    assert_eq!(counts(&planned), (1, 0, 1, 0));
    assert_eq!(stored_packs(&test.library), before);
    assert_eq!(heal(&another(&test), &replica.library), planned);
}

/// A library that says it has every image, and has other bytes.
#[derive(Debug)]
struct Liar(Arc<dyn ReadAt>);

impl ImageReader for Liar {
    fn images(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    fn image(&self, _id: ImageId) -> Result<Image> {
        Err(Error::Stopped)
    }

    fn open_disk(&self, _id: ImageId, _disk: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::clone(&self.0))
    }

    fn side_file(&self, _id: ImageId, _name: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn put_side_file(&self, _id: ImageId, _name: &str, _content: &[u8]) -> Result<()> {
        Ok(())
    }
}

#[test]
fn other_bytes_are_not_taken() {
    let wrong = TestLibrary::new();
    let same_length = store(&wrong.library, "web", &noise(7, 20 * CHUNK));
    let longer = store(&wrong.library, "web", &noise(7, 30 * CHUNK));
    for kind in [BlobKind::Data, BlobKind::Leaf, BlobKind::Root] {
        for lie in [&same_length, &longer] {
            let (test, ..) = library_with_image();
            damage(&test.library, kind);
            verify(&another(&test));
            let before = stored_packs(&test.library);
            let report = heal(&another(&test), &Liar(wrong.open(lie)));
            assert_eq!(counts(&report), (0, 0, 0, 1), "{kind:?}");
            assert_eq!(stored_packs(&test.library), before);
        }
    }
}

#[test]
fn a_heal_that_is_stopped_says_so() {
    let (test, ..) = library_with_image();
    let stop = AtomicBool::new(true);
    let from = TestLibrary::new();
    let stopped = test
        .library
        .heal(&from.library, &HealOptions::default(), &Silent, &stop);
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
}
