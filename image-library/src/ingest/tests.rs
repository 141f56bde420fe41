// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks taken in come back, and only what is new is read and sent.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use disk::{ReadAt, Silent};

use super::{IngestDisk, IngestStats, ingest};
use crate::tests::{TestLibrary, disk_draft, draft, sample_disk};
use crate::{ContentHash, DiskHashes, Image, ImageId, UploadTarget};

/// A disk in memory that fails from some byte on, and counts what is read.
#[derive(Debug)]
struct MemoryDisk {
    bytes: Vec<u8>,
    fails_from: u64,
    read: AtomicU64,
}

impl MemoryDisk {
    fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            fails_from: u64::MAX,
            read: AtomicU64::new(0),
        }
    }
}

impl ReadAt for MemoryDisk {
    fn length_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        if offset + buffer.len() as u64 > self.fails_from {
            return Err(disk::Error::corrupt("test disk", offset, "bad sector"));
        }
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        let offset = offset as usize;
        buffer.copy_from_slice(&self.bytes[offset..offset + buffer.len()]);
        Ok(())
    }
}

fn take(
    library: &TestLibrary,
    device: MemoryDisk,
    used: Option<Vec<Range<u64>>>,
) -> crate::Result<(Image, IngestStats)> {
    let target = UploadTarget {
        server: "web".parse().expect("legal"),
    };
    let disk = IngestDisk {
        draft: disk_draft("sda", device.length_bytes()),
        device: Arc::new(device),
        used,
        known: None,
    };
    ingest(&library.library, &target, &[disk], &draft(), &Silent)
}

#[test]
fn a_disk_comes_back_and_the_second_time_nothing_is_sent() {
    let library = TestLibrary::new();
    let disk = sample_disk(1, 9_000_001);
    let (image, stats) = take(&library, MemoryDisk::new(&disk), None).expect("ingests");
    assert_eq!(library.read(&image), disk);
    assert_eq!(stats.disk_bytes, 9_000_001);
    assert_eq!(
        stats.new_chunks + stats.same_chunks + stats.zero_chunks,
        550
    );
    assert!(stats.new_bytes > 4_000_000 && stats.sent_bytes < stats.new_bytes);
    let (image, stats) = take(&library, MemoryDisk::new(&disk), None).expect("ingests");
    assert_eq!((stats.new_chunks, image.stored_bytes), (0, 0));
    assert_eq!(library.read(&image), disk);
}

#[test]
fn a_changed_byte_costs_one_chunk() {
    let library = TestLibrary::new();
    let mut disk = sample_disk(2, 5_000_000);
    take(&library, MemoryDisk::new(&disk), None).expect("ingests");
    disk[1_234_567] ^= 1;
    let (image, stats) = take(&library, MemoryDisk::new(&disk), None).expect("ingests");
    assert_eq!((stats.new_chunks, stats.new_bytes), (1, 16384));
    assert_eq!(library.read(&image), disk);
}

#[test]
fn unused_space_is_neither_read_nor_stored() {
    let library = TestLibrary::new();
    let disk = crate::tests::noise(3, 1_000_000);
    let used = vec![0..4096, 500_000..600_000];
    let (image, stats) = take(&library, MemoryDisk::new(&disk), Some(used)).expect("ingests");
    assert_eq!(stats.read_bytes, 104_096);
    let mut expected = vec![0; disk.len()];
    expected[..4096].copy_from_slice(&disk[..4096]);
    expected[500_000..600_000].copy_from_slice(&disk[500_000..600_000]);
    assert_eq!(library.read(&image), expected);
}

#[test]
fn a_disk_that_cannot_be_read_leaves_no_image_and_the_next_try_goes_on() {
    let library = TestLibrary::new();
    let disk = crate::tests::noise(4, 20 << 20);
    let mut failing = MemoryDisk::new(&disk);
    failing.fails_from = 17 << 20;
    let error = take(&library, failing, None).expect_err("cannot be read");
    assert!(error.to_string().contains("bad sector"), "{error}");
    use crate::ImageReader;
    assert_eq!(library.library.images().expect("lists"), vec![]);
    let (image, stats) = take(&library, MemoryDisk::new(&disk), None).expect("ingests");
    // The batch that failed begins at 16 MiB; everything before it is in the library.
    assert_eq!(stats.new_bytes, 4 << 20);
    assert_eq!(library.read(&image), disk);
}

/// Hashes of a disk that somebody else worked out.
#[derive(Debug)]
struct Known(Vec<Option<ContentHash>>);

impl DiskHashes for Known {
    fn image(&self) -> ImageId {
        ImageId::from_uuid(uuid::Uuid::nil())
    }

    fn chunk_size_bytes(&self) -> u32 {
        1 << 14
    }

    fn chunk_count(&self) -> u64 {
        self.0.len() as u64
    }

    fn leaf(&self, _number: u64) -> crate::Result<Vec<Option<ContentHash>>> {
        Ok(self.0.clone())
    }
}

#[test]
fn a_disk_that_is_not_what_its_known_hashes_say_is_refused() {
    let library = TestLibrary::new();
    let mut disk = crate::tests::noise(5, 40 << 14);
    let hashes = disk
        .chunks(1 << 14)
        .map(|chunk| Some(ContentHash::of(chunk)));
    let known: Arc<dyn DiskHashes> = Arc::new(Known(hashes.collect()));
    let take = |bytes: &[u8]| {
        let target = UploadTarget {
            server: "web".parse().expect("legal"),
        };
        let disk = IngestDisk {
            draft: disk_draft("sda", bytes.len() as u64),
            device: Arc::new(MemoryDisk::new(bytes)),
            used: None,
            known: Some(Arc::clone(&known)),
        };
        ingest(&library.library, &target, &[disk], &draft(), &Silent)
    };
    disk[17 << 14] ^= 1;
    let error = take(&disk).expect_err("another disk").to_string();
    assert!(error.contains("at byte 0x44000"), "{error}");
    disk[17 << 14] ^= 1;
    let (image, _) = take(&disk).expect("the disk itself");
    assert_eq!(library.read(&image), disk);
}
