// SPDX-License-Identifier: MIT OR Apache-2.0
//! An overlay against plain bytes, a disk of 1 TiB, a full filesystem, and itself loaded again.

use super::*;
use crate::block::MemoryDevice;
use proptest::prelude::{any, prop, proptest};
use std::io::{self, Cursor, SeekFrom};

const CLUSTER: usize = CLUSTER_SIZE as usize;

/// A disk of 1 TiB that reads as zeros and counts the bytes that are read of it.
#[derive(Debug, Default)]
struct Huge(std::sync::atomic::AtomicU64);

impl ReadAt for Huge {
    fn length_bytes(&self) -> u64 {
        1 << 40
    }

    fn read_exact_at(&self, _offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len() as u64;
        self.0
            .fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        buffer.fill(0);
        Ok(())
    }
}

fn over(bytes: Vec<u8>) -> Overlay {
    Overlay::new(
        Arc::new(MemoryDevice::from(bytes)),
        OverlayOptions::default(),
    )
}

fn read_all(device: &dyn ReadAt) -> Vec<u8> {
    let length = usize::try_from(device.length_bytes()).expect("it is small");
    let mut bytes = vec![0xee; length];
    device.read_exact_at(0, &mut bytes).expect("all of it");
    bytes
}

#[test]
fn changes_are_read_and_the_base_is_not_written() {
    let base = Arc::new(MemoryDevice::from(vec![1; 3 * CLUSTER + 512]));
    let overlay = Overlay::new(base.clone(), OverlayOptions::default());
    overlay
        .write_all_at(CLUSTER_SIZE - 2, b"edit")
        .expect("inside");
    overlay
        .write_all_at(3 * CLUSTER_SIZE + 508, b"last")
        .expect("inside");
    overlay.flush().expect("nothing to do");
    let mut read = [0; 8];
    overlay
        .read_exact_at(CLUSTER_SIZE - 4, &mut read)
        .expect("inside");
    assert_eq!(&read, b"\x01\x01edit\x01\x01");
    assert_eq!(&read_all(&overlay)[3 * CLUSTER + 506..], b"\x01\x01last");
    assert_eq!(
        (overlay.changed_clusters(), overlay.changed_bytes()),
        (3, 3 * 65_536)
    );
    assert!(read_all(&base).iter().all(|byte| *byte == 1));
    assert!(
        overlay
            .write_all_at(3 * CLUSTER_SIZE + 509, b"last")
            .is_err()
    );
    assert_eq!(overlay.base().length_bytes(), 3 * CLUSTER_SIZE + 512);
}

#[test]
fn writing_what_is_there_changes_nothing() {
    let overlay = over(vec![1; 2 * CLUSTER]);
    overlay.write_all_at(100, &[1; CLUSTER]).expect("inside");
    assert_eq!(overlay.changed_clusters(), 0);
}

#[test]
fn extents_of_changes_are_data_and_the_rest_is_the_bases() {
    let overlay = Overlay::new(Arc::new(Huge::default()), OverlayOptions::default());
    overlay
        .write_all_at(5 * CLUSTER_SIZE, &[1; 2 * CLUSTER])
        .expect("inside");
    let extent = |offset| overlay.extent_at(offset).expect("inside").length;
    assert_eq!(extent(CLUSTER_SIZE), 4 * CLUSTER_SIZE);
    assert_eq!(extent(5 * CLUSTER_SIZE + 1), 2 * CLUSTER_SIZE - 1);
    assert_eq!(extent(7 * CLUSTER_SIZE), (1 << 40) - 7 * CLUSTER_SIZE);
    assert!(overlay.extent_at(1 << 40).is_err());
}

#[test]
fn beyond_the_limit_a_write_is_refused_whole() {
    let options = OverlayOptions {
        limit_bytes: 2 * CLUSTER_SIZE,
    };
    let overlay = Overlay::new(Arc::new(MemoryDevice::from(vec![0; 5 * CLUSTER])), options);
    overlay.write_all_at(0, b"x").expect("there is room");
    let error = overlay
        .write_all_at(CLUSTER_SIZE, &[1; 2 * CLUSTER])
        .expect_err("there is no room");
    assert!(
        matches!(error, Error::Limit { limit: 131_072, .. }),
        "{error}"
    );
    assert_eq!(overlay.changed_clusters(), 1);
    overlay
        .write_all_at(1, b"y")
        .expect("the cluster is there already");
}

#[test]
fn a_disk_of_1_tib_costs_what_is_changed() {
    let base = Arc::new(Huge::default());
    let overlay = Overlay::new(base.clone(), OverlayOptions::default());
    overlay.write_all_at(0, b"first").expect("inside");
    overlay
        .write_all_at((1 << 39) + 7, b"middle")
        .expect("inside");
    overlay
        .write_all_at((1 << 40) - 4, b"last")
        .expect("inside");
    let mut file = Cursor::new(Vec::new());
    let length = overlay.write_qcow2(&mut file, None).expect("memory");
    // Header, 3 data clusters, 3 L2 tables, L1 table, refcounts 2.
    assert_eq!(length, 10 * CLUSTER_SIZE);
    let again = Overlay::from_qcow2(
        Arc::new(MemoryDevice::from(file.into_inner())),
        base.clone(),
        OverlayOptions::default(),
    )
    .expect("it was just written");
    assert_eq!(again.changed_clusters(), 3);
    assert!(*again.read_changes() == *overlay.read_changes());
    let read = base.0.load(std::sync::atomic::Ordering::Relaxed);
    assert!(
        read <= 6 * CLUSTER_SIZE,
        "{read} bytes of the base were read"
    );
}

#[test]
fn an_overlay_of_another_disk_is_refused() {
    let mut file = Cursor::new(Vec::new());
    over(vec![0; 1024])
        .write_qcow2(&mut file, None)
        .expect("memory");
    let image = Arc::new(MemoryDevice::from(file.into_inner()));
    let base = Arc::new(MemoryDevice::from(vec![0; 512]));
    let error =
        Overlay::from_qcow2(image, base, OverlayOptions::default()).expect_err("the sizes differ");
    assert_eq!(
        error.to_string(),
        "qcow2 header at byte 0x18: expected the size of the disk below, 512 bytes, found 1024"
    );
}

/// Takes `room` bytes, then is full.
struct Full {
    room: u64,
    at: u64,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.at += bytes.len() as u64;
        if self.at > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Full {
    fn seek(&mut self, _position: SeekFrom) -> io::Result<u64> {
        Ok(0)
    }
}

#[test]
fn a_full_filesystem_is_told_with_a_hint_wherever_it_happens() {
    let overlay = over(vec![0; 4 * CLUSTER]);
    overlay.write_all_at(0, &[1; 2 * CLUSTER]).expect("inside");
    // Header, 2 data clusters, L2 and L1 table, refcounts 2, header again.
    for clusters in 0..7 {
        let room = clusters * CLUSTER_SIZE + 1;
        let error = overlay
            .write_qcow2(&mut Full { room, at: 0 }, None)
            .expect_err("it is full");
        assert!(
            matches!(
                error,
                Error::Device {
                    action: "write",
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(
            error.hint().as_deref(),
            Some("make room on that filesystem and run the command again")
        );
    }
    let room = u64::MAX;
    overlay
        .write_qcow2(&mut Full { room, at: 0 }, None)
        .expect("there is room");
}

#[test]
fn a_saved_overlay_appears_whole_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("overlay.qcow2");
    let odd = over(vec![0; 1000]);
    assert!(
        odd.save_qcow2(&path, None).is_err(),
        "not a multiple of 512"
    );
    let count = || {
        std::fs::read_dir(directory.path())
            .expect("it exists")
            .count()
    };
    assert_eq!(count(), 0, "nothing is left");
    let overlay = over(vec![0; 1024]);
    let length = overlay.save_qcow2(&path, None).expect("there is room");
    assert_eq!(std::fs::metadata(&path).expect("saved").len(), length);
    assert_eq!(count(), 1);
    let error = overlay.save_qcow2(&path, None).expect_err("it exists");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("another name"))
    );
}

#[test]
fn a_full_device_is_told_by_its_name() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: there is no /dev/full");
        return;
    }
    let mut full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("it is there");
    let error = over(vec![0; 1024])
        .write_qcow2(&mut full, None)
        .expect_err("it is always full")
        .in_file(Path::new("/srv/overlay.qcow2"));
    assert_eq!(error.to_string(), "write /srv/overlay.qcow2");
    assert!(error.hint().is_some_and(|hint| hint.contains("make room")));
}

#[test]
fn zeros_are_kept_without_their_bytes_and_are_told() {
    let options = OverlayOptions {
        limit_bytes: 3 * CLUSTER_SIZE,
    };
    let base = Arc::new(MemoryDevice::from(vec![1; 40 * CLUSTER + 100]));
    let overlay = Overlay::new(base, options);
    overlay
        .write_zeroes_at(CLUSTER_SIZE / 2, 30 * CLUSTER_SIZE)
        .expect("the two clusters at its ends and one run fit");
    let bytes = read_all(&overlay);
    let (first, last) = (CLUSTER / 2, CLUSTER / 2 + 30 * CLUSTER);
    assert!(is_zero(&bytes[first..last]));
    assert_eq!((bytes[first - 1], bytes[last]), (1, 1));
    let extent = overlay.extent_at(CLUSTER_SIZE + 7).expect("inside");
    assert_eq!(
        (extent.length, extent.kind),
        (29 * CLUSTER_SIZE - 7, ExtentKind::Zero)
    );
    assert_eq!(overlay.extent_at(5).expect("inside").kind, ExtentKind::Data);
    assert_eq!(overlay.changed_clusters(), 31);

    overlay
        .write_all_at(4 * CLUSTER_SIZE, &[0; CLUSTER])
        .expect("zeros over zeros change nothing");
    let error = overlay
        .write_all_at(4 * CLUSTER_SIZE, &[2; CLUSTER])
        .expect_err("a third cluster and two runs are too much");
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

#[test]
fn the_short_last_cluster_is_a_whole_one() {
    let overlay = over(vec![1; 2 * CLUSTER + 100]);
    assert!(overlay.has_cheap_zeros(CLUSTER_SIZE, CLUSTER_SIZE + 100));
    assert!(!overlay.has_cheap_zeros(CLUSTER_SIZE, CLUSTER_SIZE + 99));
    assert!(!overlay.has_cheap_zeros(1, CLUSTER_SIZE));
    overlay
        .write_zeroes_at(2 * CLUSTER_SIZE, 100)
        .expect("inside");
    assert!(is_zero(&read_all(&overlay)[2 * CLUSTER..]));
    assert_eq!(overlay.read_changes().cost_bytes(), RUN_COST_BYTES);
    overlay
        .write_all_at(2 * CLUSTER_SIZE + 99, &[9])
        .expect("inside");
    assert_eq!(read_all(&overlay)[2 * CLUSTER + 98..], [0, 9]);
    for outside in [101, u64::MAX] {
        assert!(overlay.write_zeroes_at(2 * CLUSTER_SIZE, outside).is_err());
        assert!(overlay.discard_at(2 * CLUSTER_SIZE, outside).is_err());
    }
}

#[test]
fn a_discard_gives_the_bytes_back_and_leaves_the_rest() {
    let overlay = over(vec![1; 4 * CLUSTER]);
    overlay.write_all_at(0, &[2; 3 * CLUSTER]).expect("inside");
    overlay
        .discard_at(10, 2 * CLUSTER_SIZE)
        .expect("it is inside");
    let bytes = read_all(&overlay);
    assert!(bytes[..CLUSTER].iter().all(|byte| *byte == 2));
    assert!(is_zero(&bytes[CLUSTER..2 * CLUSTER]));
    assert!(
        bytes[2 * CLUSTER..3 * CLUSTER]
            .iter()
            .all(|byte| *byte == 2)
    );
    let cost = overlay.read_changes().cost_bytes();
    assert_eq!(cost, 2 * CLUSTER_SIZE + RUN_COST_BYTES);
}

#[test]
fn what_cannot_be_remembered_of_a_discard_stays_as_it_was() {
    let options = OverlayOptions { limit_bytes: 64 };
    let base = Arc::new(MemoryDevice::from(vec![1; 4 * CLUSTER]));
    let overlay = Overlay::new(base, options);
    overlay.discard_at(0, CLUSTER_SIZE).expect("one run fits");
    overlay
        .discard_at(2 * CLUSTER_SIZE, CLUSTER_SIZE)
        .expect("a hint is never too much");
    assert_eq!(overlay.changed_clusters(), 1);
    overlay
        .write_zeroes_at(2 * CLUSTER_SIZE, CLUSTER_SIZE)
        .expect_err("zeros are no hint");
}

/// A disk of 1 TiB that is one hole.
#[derive(Debug)]
struct Hole;

impl ReadAt for Hole {
    fn length_bytes(&self) -> u64 {
        1 << 40
    }

    fn read_exact_at(&self, _offset: u64, buffer: &mut [u8]) -> Result<()> {
        buffer.fill(0);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent {
            length: (1 << 40) - offset,
            kind: ExtentKind::Zero,
        })
    }
}

#[test]
fn a_hole_of_1_tib_that_is_discarded_costs_nothing_in_a_file() {
    let overlay = Overlay::new(Arc::new(Hole), OverlayOptions::default());
    overlay.discard_at(0, 1 << 40).expect("inside");
    let extent = overlay.extent_at(1).expect("inside");
    assert_eq!(extent.length, (1 << 40) - 1);
    let mut file = Cursor::new(Vec::new());
    let length = overlay.write_qcow2(&mut file, None).expect("memory");
    // Header, L1 table, refcounts 2.
    assert_eq!(length, 4 * CLUSTER_SIZE);
}

#[test]
fn a_slow_read_of_the_base_keeps_nobody_waiting() {
    /// Waits until somebody lets it go.
    #[derive(Debug)]
    struct Slow(std::sync::Barrier);

    impl ReadAt for Slow {
        fn length_bytes(&self) -> u64 {
            2 * CLUSTER_SIZE
        }

        fn read_exact_at(&self, _offset: u64, buffer: &mut [u8]) -> Result<()> {
            self.0.wait();
            self.0.wait();
            buffer.fill(1);
            Ok(())
        }
    }

    let base = Arc::new(Slow(std::sync::Barrier::new(2)));
    let overlay = Overlay::new(base.clone(), OverlayOptions::default());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| overlay.write_all_at(0, b"a part of a cluster"));
        base.0.wait();
        overlay
            .write_zeroes_at(CLUSTER_SIZE, CLUSTER_SIZE)
            .expect("it needs nothing of the base");
        let mut read = [7; 4];
        overlay
            .read_exact_at(CLUSTER_SIZE, &mut read)
            .expect("inside");
        assert_eq!(read, [0; 4]);
        base.0.wait();
        writer.join().expect("no panic").expect("inside");
    });
    assert_eq!(overlay.changed_clusters(), 2);
}

proptest! {
    #[test]
    fn an_overlay_is_a_copy_that_was_written(
        writes in prop::collection::vec((0..3 * CLUSTER + 90, 1..2 * CLUSTER, any::<u8>(), any::<bool>()), 1..8),
    ) {
        let mut expected = vec![0; 3 * CLUSTER + 512];
        let overlay = over(expected.clone());
        for (at, length, value, is_zero) in writes {
            let end = expected.len().min(at + length);
            if is_zero {
                expected[at..end].fill(0);
                overlay.write_zeroes_at(at as u64, (end - at) as u64).expect("inside");
            } else {
                expected[at..end].fill(value);
                overlay.write_all_at(at as u64, &expected[at..end]).expect("inside");
            }
        }
        assert!(read_all(&overlay) == expected);
        let mut file = Cursor::new(Vec::new());
        overlay.write_qcow2(&mut file, None).expect("memory");
        let image = Arc::new(MemoryDevice::from(file.into_inner()));
        let again = Overlay::from_qcow2(image, overlay.base().clone(), OverlayOptions::default())
            .expect("it was just written");
        assert!(read_all(&again) == expected);
        let copy = MemoryDevice::from(vec![0; expected.len()]);
        overlay.write_to(&copy).expect("memory");
        assert!(read_all(&copy) == expected);
    }
}
