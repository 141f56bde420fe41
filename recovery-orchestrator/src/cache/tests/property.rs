// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever the holes, the sizes and the reads: the bytes are those of the image.

use proptest::prelude::*;

use super::*;

/// A disk of chunks of 1 KiB, some of them zeros, some alike, the last one cut off.
fn disks() -> impl Strategy<Value = Vec<u8>> {
    let chunk = prop_oneof![Just(None), (0..20_u64).prop_map(Some)];
    (prop::collection::vec(chunk, 1..60), 1..1024_usize).prop_map(|(chunks, tail)| {
        let bytes = |chunk: Option<u64>| match chunk {
            Some(seed) => noise(seed, 1024),
            None => vec![0; 1024],
        };
        let mut disk: Vec<u8> = chunks.into_iter().flat_map(bytes).collect();
        disk.truncate(disk.len() - 1024 + tail);
        disk
    })
}

fn options() -> impl Strategy<Value = (FetchOptions, u64, bool)> {
    let sizes = (1..9000_u64, 1..30_000_u64);
    let memory = prop_oneof![Just(0), Just(5000), Just(1 << 20)];
    (sizes, memory, any::<bool>()).prop_map(|((random, sequential), memory, has_files)| {
        let options = FetchOptions {
            random_bytes: random,
            sequential_bytes: sequential,
            leaf_count_max: 1,
            prefetch_request_count: 2,
            gap_bytes: 0,
        };
        (options, memory, has_files)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reads_are_those_of_the_image(
        bytes in disks(),
        (options, memory, has_files) in options(),
        reads in prop::collection::vec((any::<prop::sample::Index>(), 0..5000_usize), 1..40),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let image = Arc::new(Image::new(bytes, 1024));
        let cache = open(&CacheOptions {
            directory: has_files.then(|| directory.path().to_owned()),
            disk_bytes_max: 40_000,
            memory_bytes_max: memory,
            retry_after: Duration::ZERO,
        });
        let disk = attach(&cache, &image, options);
        for (at, length) in reads {
            let offset = at.index(image.bytes.len());
            let length = length.min(image.bytes.len() - offset);
            let found = read(&disk, offset, length).unwrap();
            prop_assert!(found == image.bytes[offset..offset + length]);
            let extent = disk.extent_at(offset as u64).unwrap();
            let end = offset + usize::try_from(extent.length).unwrap();
            prop_assert!(extent.length > 0 && end <= image.bytes.len());
            let is_zero = image.bytes[offset..end].iter().all(|byte| *byte == 0);
            prop_assert!(is_zero || extent.kind == ExtentKind::Data);
        }
        let counters = disk.counters();
        prop_assert_eq!(counters.damaged_fetch_count + counters.damaged_file_count, 0);
    }
}
