// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a read gives and what is fetched for it, in memory only.

use super::*;

#[test]
fn a_chunk_is_fetched_once_and_holes_never() {
    let image = Arc::new(Image::of(&[Some(1), None, None, Some(2), None]));
    let disk = attach(&in_memory(1 << 20), &image, one_by_one());
    for _ in 0..3 {
        check(&disk, &image, 0, 5 * CHUNK);
        check(&disk, &image, CHUNK - 1, 2);
        check(&disk, &image, 3 * CHUNK + 7, 100);
    }
    assert_eq!(image.requests(), [(0, CHUNK), (3 * CHUNK as u64, CHUNK)]);
    let counters = disk.counters();
    assert_eq!(counters.fetch_count, 2);
    assert_eq!(counters.fetched_bytes, 2 * CHUNK as u64);
    assert_eq!(counters.memory_hit_count, 3 * 4 - 2);
    assert_eq!(counters.disk_hit_count, 0);
}

#[test]
fn a_disk_that_ends_within_a_chunk_is_read_to_its_end_and_not_beyond() {
    let mut bytes = Image::full(3).bytes;
    bytes.truncate(2 * CHUNK + 512);
    let image = Arc::new(Image::new(bytes, CHUNK));
    let disk = attach(&in_memory(1 << 20), &image, FetchOptions::default());
    check(&disk, &image, 2 * CHUNK, 512);
    check(&disk, &image, 0, 2 * CHUNK + 512);
    check(&disk, &image, 2 * CHUNK + 512, 0);
    for (offset, length) in [(2 * CHUNK + 512, 1), (2 * CHUNK, 513), (usize::MAX, 2)] {
        let error = read(&disk, offset, length).unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{error}");
    }
    assert!(disk.extent_at(2 * CHUNK as u64 + 512).is_err());
}

#[test]
fn hashes_of_another_disk_are_refused() {
    let (image, other) = (Arc::new(Image::full(3)), Arc::new(Image::full(4)));
    let device: Arc<dyn ReadAt> = image;
    let refused = CachedDisk::new(in_memory(0), device, other, FetchOptions::default());
    let problem = refused.unwrap_err().to_string();
    assert!(
        problem.contains("found 4 chunks of 4096 bytes"),
        "{problem}"
    );
}

#[test]
fn a_read_here_or_there_brings_its_neighbours_and_one_that_goes_on_more_of_them() {
    let image = Arc::new(Image::full(64));
    let options = FetchOptions {
        random_bytes: 4 * CHUNK as u64,
        sequential_bytes: 16 * CHUNK as u64,
        ..FetchOptions::default()
    };
    let disk = attach(&in_memory(1 << 20), &image, options);
    let size = CHUNK as u64;
    check(&disk, &image, 5 * CHUNK + 10, 20);
    assert_eq!(image.requests(), [(4 * size, 4 * CHUNK)]);
    // Goes on: up to the next multiple, without what is there.
    check(&disk, &image, 6 * CHUNK, 3 * CHUNK);
    assert_eq!(image.requests()[1..], [(8 * size, 8 * CHUNK)]);
    check(&disk, &image, 9 * CHUNK, CHUNK);
    assert_eq!(image.request_count(), 2);
}

#[test]
fn what_is_fetched_together_ends_at_holes_and_at_what_is_here() {
    let mut chunks: Vec<_> = (0..32).map(Some).collect();
    chunks[12] = None;
    let image = Arc::new(Image::of(&chunks));
    let options = FetchOptions {
        random_bytes: 16 * CHUNK as u64,
        ..one_by_one()
    };
    let cache = in_memory(1 << 20);
    check(&attach(&cache, &image, one_by_one()), &image, 4 * CHUNK, 1);
    let disk = attach(&cache, &image, options);
    check(&disk, &image, 8 * CHUNK, 1);
    let size = CHUNK as u64;
    assert_eq!(image.requests()[1..], [(5 * size, 7 * CHUNK)]);
}

#[test]
fn a_long_read_is_few_requests_whatever_the_memory() {
    let image = Arc::new(Image::full(512));
    let disk = attach(&in_memory(0), &image, one_by_one());
    check(&disk, &image, 100, 512 * CHUNK - 200);
    // One chunk after the other would be 512.
    assert_eq!(image.request_count(), 1);
    let large = Arc::new(Image::full(1536));
    let disk = attach(&in_memory(0), &large, one_by_one());
    check(&disk, &large, 0, 1536 * CHUNK);
    let lengths: Vec<_> = large.requests().iter().map(|(_, length)| *length).collect();
    assert_eq!(lengths, [4 << 20, 2 << 20]);
}

#[test]
fn memory_keeps_its_bound_and_what_was_used_last() {
    let image = Arc::new(Image::full(100));
    let cache = in_memory(10 * CHUNK as u64);
    let disk = attach(&cache, &image, one_by_one());
    for chunk in 0..100 {
        check(&disk, &image, chunk * CHUNK, CHUNK);
        check(&disk, &image, 0, 1);
        assert!(cache.memory.weight() <= 10 * CHUNK as u64);
    }
    assert_eq!(image.request_count(), 100);
    check(&disk, &image, 99 * CHUNK, 1);
    assert_eq!(image.request_count(), 100);
    check(&disk, &image, 50 * CHUNK, 1);
    assert_eq!(image.request_count(), 101);
}

#[test]
fn few_leaves_stay_in_memory() {
    let mut bytes = vec![0; 4 * LEAF_CHUNKS * CHUNK];
    bytes[0] = 1;
    let image = Arc::new(Image::new(bytes, CHUNK));
    let options = FetchOptions {
        leaf_count_max: 2,
        ..one_by_one()
    };
    let disk = attach(&in_memory(1 << 20), &image, options);
    for _ in 0..3 {
        for leaf in [0, 1] {
            check(&disk, &image, leaf * LEAF_CHUNKS * CHUNK, 1);
        }
    }
    assert_eq!(image.leaf_requests.load(Ordering::Relaxed), 2);
    check(&disk, &image, 2 * LEAF_CHUNKS * CHUNK, 1);
    check(&disk, &image, 0, 1);
    assert_eq!(image.leaf_requests.load(Ordering::Relaxed), 4);
}

#[test]
fn a_chunk_that_cannot_be_read_is_an_error_for_itself_only() {
    let mut image = Image::full(16);
    image.unreadable.insert(5);
    image.damaged.insert(9);
    let image = Arc::new(image);
    let options = FetchOptions {
        random_bytes: 16 * CHUNK as u64,
        ..one_by_one()
    };
    let disk = attach(&in_memory(1 << 20), &image, options);
    for chunk in 0..16 {
        let found = read(&disk, chunk * CHUNK, CHUNK);
        match chunk {
            5 => assert!(matches!(found, Err(Error::Device { offset: 20480, .. }))),
            9 => {
                let error = found.unwrap_err();
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert!(source.contains("expected the hash"), "{source}");
            }
            _ => assert!(found.unwrap() == image.bytes[chunk * CHUNK..][..CHUNK]),
        }
    }
    assert!(disk.counters().damaged_fetch_count >= 2);
    // A read of several fails when one of them cannot be had, and the others are kept.
    assert!(read(&disk, 4 * CHUNK, 3 * CHUNK).is_err());
    assert!(read(&disk, 8 * CHUNK, 3 * CHUNK).is_err());
    check(&disk, &image, 6 * CHUNK, 3 * CHUNK);
}

#[test]
fn nothing_damaged_is_kept_and_what_is_whole_again_is_read() {
    let mut broken = Image::full(4);
    broken.damaged.insert(2);
    let (broken, whole) = (Arc::new(broken), Arc::new(Image::full(4)));
    let directory = tempfile::tempdir().unwrap();
    let cache = open(&on_disk(directory.path()));
    assert!(read(&attach(&cache, &broken, one_by_one()), 2 * CHUNK, 1).is_err());
    settle(&cache);
    assert!(!file_of(directory.path(), 2).exists());
    check(&attach(&cache, &whole, one_by_one()), &whole, 0, 4 * CHUNK);
}

#[test]
fn an_image_that_is_down_fails_at_once_and_is_asked_again_later() {
    let image = Arc::new(Image::full(64));
    let disk = attach(&in_memory(1 << 20), &image, one_by_one());
    image.is_down.store(true, Ordering::Relaxed);
    assert!(read(&disk, 0, 1).is_err());
    assert_eq!(image.request_count(), 1);
    image.is_down.store(false, Ordering::Relaxed);
    check(&disk, &image, 0, 64 * CHUNK);
}

#[test]
fn a_request_that_is_slow_to_fail_is_not_made_again_for_each_chunk() {
    let image = Image::full(64).delay(Duration::from_millis(2100));
    image.is_down.store(true, Ordering::Relaxed);
    let image = Arc::new(image);
    let disk = attach(&in_memory(1 << 20), &image, one_by_one());
    assert!(read(&disk, 0, 64 * CHUNK).is_err());
    assert_eq!(image.request_count(), 1);
}

#[test]
fn extents_are_told_from_the_hashes_and_long_holes_whole() {
    let leaf = LEAF_CHUNKS * CHUNK;
    let mut bytes = vec![0; 3 * leaf + 2 * CHUNK];
    bytes[CHUNK] = 1;
    *bytes.last_mut().unwrap() = 1;
    let image = Arc::new(Image::new(bytes, CHUNK));
    let disk = attach(&in_memory(1 << 20), &image, FetchOptions::default());
    let told = |offset: usize| {
        let extent = disk.extent_at(offset as u64).unwrap();
        (usize::try_from(extent.length).unwrap(), extent.kind)
    };
    assert_eq!(told(0), (CHUNK, ExtentKind::Zero));
    assert_eq!(told(CHUNK), (CHUNK, ExtentKind::Data));
    assert_eq!(told(CHUNK + 4000), (96, ExtentKind::Data));
    // From the image, which knows better than chunks.
    let end = image.bytes.len() - 1;
    assert_eq!(told(2 * CHUNK), (end - 2 * CHUNK, ExtentKind::Zero));
    assert_eq!(image.leaf_requests.load(Ordering::Relaxed), 1);
    assert_eq!(told(3 * leaf + CHUNK), (CHUNK, ExtentKind::Data));
    assert_eq!(told(3 * leaf), (CHUNK, ExtentKind::Zero));
    assert_eq!(image.request_count(), 0);
}
