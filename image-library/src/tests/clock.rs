// SPDX-License-Identifier: MIT OR Apache-2.0
//! A clock that is set back, or stands still: the order of images is that of their commits, and
//! nothing is deleted early.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use disk::Silent;
use jiff::Timestamp;

use super::{TestLibrary, read, sample_disk, store};
use crate::{ImageReader, ImageWriter, KeepPolicy, LocalLibrary, PruneOptions};

const NOVEMBER_2026: i64 = 1_793_500_000;
const YEAR: i64 = 365 * 86_400;

/// Seconds since 1970, by the clock of this file's tests.
static NOW: AtomicI64 = AtomicI64::new(NOVEMBER_2026);

fn clock() -> Timestamp {
    Timestamp::from_second(NOW.load(Ordering::Relaxed)).expect("is a time")
}

#[test]
fn images_keep_their_order_when_the_clock_is_set_back() {
    let test = TestLibrary::new();
    let path = test.directory.path();
    let library = LocalLibrary::open_with_clock(path, clock).expect("opens");
    let disks: Vec<_> = (0..6).map(|seed| sample_disk(seed, 100_000)).collect();
    let mut images = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        match number {
            // By a year, once; otherwise it stands still.
            2 => drop(NOW.fetch_sub(YEAR, Ordering::Relaxed)),
            5 => drop(NOW.fetch_add(2 * YEAR, Ordering::Relaxed)),
            _ => {}
        }
        images.push(store(&library, "web", disk));
        assert_eq!(library.images().expect("lists"), images);
        let server = "web".parse().expect("a legal name");
        let latest = library.latest_hashes(&server, "sda").expect("asks");
        assert_eq!(latest.expect("is there").image(), images[number].id);
    }
    for pair in images.windows(2) {
        assert!(pair[0].received_at < pair[1].received_at);
        assert!(pair[0].id < pair[1].id);
        assert_eq!(pair[1].parent, Some(pair[0].id));
    }

    let keep = KeepPolicy {
        last: 1,
        ..KeepPolicy::default()
    };
    let options = PruneOptions {
        keep: Some(keep),
        grace: Duration::from_secs(3600),
        dry_run: false,
        is_sole_pruner: false,
    };
    for image in &images[..3] {
        library.delete_image(image.id).expect("deletes");
    }
    NOW.fetch_sub(3 * YEAR, Ordering::Relaxed);
    for _ in 0..3 {
        let report = library.prune(&options, &Silent).expect("prunes");
        assert!(
            report.purged.is_empty(),
            "its grace is not over: {report:?}"
        );
        assert_eq!(report.removed_packs, 0);
    }
    assert_eq!(library.images().expect("lists"), &images[3..]);
    for image in &images[..3] {
        library.undelete_image(image.id).expect("takes it back");
    }
    assert_eq!(library.images().expect("lists"), images);
    for (image, disk) in images.iter().zip(&disks) {
        assert!(read(&library, image) == *disk);
    }
    assert!(library.verify(&Silent).expect("verifies").is_sound());
}
