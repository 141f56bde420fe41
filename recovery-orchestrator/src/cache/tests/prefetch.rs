// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is fetched ahead: in order, several at a time, within bounds, after those who wait.

use std::ops::Range;
use std::thread;
use std::time::Instant;

use super::super::{PrefetchEnd, PrefetchStats};
use super::*;

static GO_ON: AtomicBool = AtomicBool::new(false);

fn range(first: u64, count: u64) -> Range<u64> {
    let size = CHUNK as u64;
    first * size..(first + count) * size
}

/// Units of four chunks, so many at a time.
fn four_by(request_count: usize) -> FetchOptions {
    FetchOptions {
        sequential_bytes: 4 * CHUNK as u64,
        prefetch_request_count: request_count,
        ..one_by_one()
    }
}

#[test]
fn a_list_is_fetched_in_its_order_and_what_is_here_or_a_hole_is_not() {
    let mut chunks: Vec<_> = (0..40).map(Some).collect();
    chunks[21] = None;
    let image = Arc::new(Image::of(&chunks));
    let disk = attach(&in_memory(1 << 20), &image, four_by(1));
    check(&disk, &image, 2 * CHUNK, CHUNK);
    let list = [range(20, 3), range(0, 1), range(1, 5), range(39, 9), 5..5];
    let stats = disk.prefetch(&list, &GO_ON);
    let size = CHUNK as u64;
    let expected = [(20, 1), (22, 1), (0, 2), (3, 1), (4, 2), (39, 1)];
    let expected = expected.map(|(first, count)| (first * size, count * CHUNK));
    assert_eq!(image.requests()[1..], expected);
    let told = PrefetchStats {
        chunk_count: 8,
        fetched_bytes: 8 * size,
        present_count: 1,
        failed_count: 0,
        end: PrefetchEnd::Finished,
    };
    assert_eq!(stats, told);
    check(&disk, &image, 20 * CHUNK, 3 * CHUNK);
    check(&disk, &image, 0, 6 * CHUNK);
    assert_eq!(image.request_count(), 7);
}

#[test]
fn so_many_requests_are_made_at_a_time_as_told() {
    let image = Arc::new(Image::full(64).delay(Duration::from_millis(20)));
    let disk = attach(&in_memory(1 << 20), &image, four_by(3));
    let stats = disk.prefetch(&[range(0, 64)], &GO_ON);
    assert_eq!((stats.chunk_count, stats.end), (64, PrefetchEnd::Finished));
    assert_eq!(image.under_way_max.load(Ordering::SeqCst), 3);
}

#[test]
fn memory_is_filled_by_half_and_then_the_disk_by_nine_tenths() {
    let directory = tempfile::tempdir().unwrap();
    let size = CHUNK as u64;
    let options = CacheOptions {
        memory_bytes_max: 32 * size,
        disk_bytes_max: 100 * size,
        ..on_disk(directory.path())
    };
    let image = Arc::new(Image::full(200));
    let memory_only = CacheOptions {
        directory: None,
        ..options.clone()
    };
    for (options, count_max) in [(memory_only, 16), (options, 90)] {
        let cache = open(&options);
        let disk = attach(&cache, &image, four_by(1));
        let stats = disk.prefetch(&[range(0, 200)], &GO_ON);
        assert_eq!(stats.end, PrefetchEnd::Full);
        let full = count_max..count_max + 4;
        assert!(full.contains(&stats.chunk_count), "{stats:?}");
        assert_eq!(cache.memory.weight(), 16 * size);
        let requests = image.request_count();
        check(&disk, &image, 0, count_max as usize * CHUNK);
        assert_eq!(image.request_count(), requests);
    }
}

#[test]
fn it_stops_when_told_and_when_nothing_can_be_fetched() {
    let image = Arc::new(Image::full(64));
    let disk = attach(&in_memory(1 << 20), &image, four_by(2));
    let stats = disk.prefetch(&[range(0, 64)], &AtomicBool::new(true));
    assert_eq!((stats.chunk_count, stats.end), (0, PrefetchEnd::Stopped));
    image.is_down.store(true, Ordering::Relaxed);
    let stats = disk.prefetch(&[range(0, 64)], &GO_ON);
    assert_eq!((stats.chunk_count, stats.end), (0, PrefetchEnd::Failed));
    assert!(stats.failed_count > 0 && stats.failed_count < 64);
}

#[test]
fn what_is_damaged_is_left_out_and_a_panic_of_the_image_ends_it() {
    let mut image = Image::full(64);
    image.damaged = BTreeSet::from([3, 17, 40]);
    let image = Arc::new(image);
    let disk = attach(&in_memory(1 << 20), &image, four_by(2));
    let stats = disk.prefetch(&[range(0, 64)], &GO_ON);
    assert_eq!((stats.chunk_count, stats.failed_count), (61, 3));

    let disk = attach(&in_memory(1 << 20), &image, four_by(2));
    image.panics.store(true, Ordering::Relaxed);
    let stats = disk.prefetch(&[range(0, 64)], &GO_ON);
    assert_eq!(stats.end, PrefetchEnd::Failed);
    check(&disk, &image, 0, 3 * CHUNK);
}

#[test]
fn who_reads_comes_first() {
    let image = Arc::new(Image::full(400).delay(Duration::from_millis(10)));
    let disk = attach(&in_memory(16 << 20), &image, four_by(4));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let ahead = scope.spawn(|| disk.prefetch(&[range(0, 300)], &stop));
        // Somebody always waits: three readers in turn, each with fetches one after the other, of
        // which none goes on.
        let started = Instant::now();
        let read = |reader: usize| {
            thread::sleep(Duration::from_millis(3) * reader as u32);
            for chunk in (310 + 30 * reader..340 + 30 * reader).rev() {
                check(&disk, &image, chunk * CHUNK, CHUNK);
            }
        };
        thread::scope(|readers| {
            for reader in 0..3 {
                readers.spawn(move || read(reader));
            }
        });
        let took = started.elapsed();
        stop.store(true, Ordering::Relaxed);
        let stats = ahead.join().unwrap();
        // Without turns, four units of four in each 10 ms.
        let unhindered = 16 * took.as_millis() / 10;
        let fetched = u128::from(stats.chunk_count);
        assert!(
            fetched > 0 && fetched < unhindered / 2,
            "{fetched} of {unhindered}"
        );
    });
}
