// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several readers of one disk, several caches on one directory.

use std::sync::Barrier;
use std::thread;

use super::*;

#[test]
fn readers_of_one_chunk_at_one_time_make_one_fetch() {
    for memory in [0, 1 << 20] {
        let image = Arc::new(Image::full(4).delay(Duration::from_millis(200)));
        let disk = attach(&in_memory(memory), &image, one_by_one());
        let barrier = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    check(&disk, &image, CHUNK + 5, 1000);
                });
            }
        });
        assert_eq!(image.request_count(), 1);
    }
}

#[test]
fn readers_of_different_chunks_fetch_at_the_same_time() {
    let image = Arc::new(Image::full(8).delay(Duration::from_millis(300)));
    let disk = attach(&in_memory(1 << 20), &image, one_by_one());
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for chunk in 0..8 {
            let (disk, image, barrier) = (&disk, &image, &barrier);
            scope.spawn(move || {
                barrier.wait();
                check(disk, image, chunk * CHUNK, CHUNK);
            });
        }
    });
    assert!(image.under_way_max.load(Ordering::SeqCst) >= 4);
    assert_eq!(image.request_count(), 8);
}

#[test]
fn who_waits_for_a_fetch_that_fails_tries_once_more_and_gets_the_error() {
    let image = Arc::new(Image::full(4).delay(Duration::from_millis(200)));
    image.is_down.store(true, Ordering::Relaxed);
    let disk = attach(&in_memory(1 << 20), &image, one_by_one());
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                assert!(read(&disk, 0, 100).is_err());
            });
        }
    });
    assert!((2..=4).contains(&image.request_count()));
    image.is_down.store(false, Ordering::Relaxed);
    check(&disk, &image, 0, 100);
}

#[test]
fn who_waits_for_a_fetch_that_panics_fetches_himself() {
    let image = Arc::new(Image::full(4).delay(Duration::from_millis(200)));
    image.panics.store(true, Ordering::Relaxed);
    let disk = attach(&in_memory(1 << 20), &image, one_by_one());
    let barrier = Barrier::new(4);
    let panicked = thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    check(&disk, &image, 0, 100);
                })
            })
            .collect();
        let ended = readers.into_iter().map(thread::ScopedJoinHandle::join);
        ended.filter(Result::is_err).count()
    });
    assert_eq!(panicked, 1);
    assert_eq!(image.request_count(), 2);
}

#[test]
fn reads_that_overlap_do_not_wait_for_each_other_in_a_circle() {
    let image = Arc::new(Image::full(64).delay(Duration::from_millis(1)));
    let options = FetchOptions {
        random_bytes: 8 * CHUNK as u64,
        ..FetchOptions::default()
    };
    // Without memory nothing stays, so that every read fetches.
    let disk = attach(&in_memory(0), &image, options);
    thread::scope(|scope| {
        for reader in 0..6 {
            let (disk, image) = (&disk, &image);
            scope.spawn(move || {
                for step in 0..30 {
                    let first = (reader * 7 + step * 5) % 56;
                    check(disk, image, first * CHUNK, 8 * CHUNK);
                }
            });
        }
    });
}

#[test]
fn caches_on_one_directory_keep_one_bound_and_break_no_reads() {
    let directory = tempfile::tempdir().unwrap();
    let options = CacheOptions {
        disk_bytes_max: 40 * CHUNK as u64,
        ..on_disk(directory.path())
    };
    let image = Arc::new(Image::full(200));
    thread::scope(|scope| {
        for reader in 0..4 {
            let (options, image) = (&options, &image);
            scope.spawn(move || {
                let (cache, told) = open_told(options, WRITES);
                let disk = attach(&cache, image, one_by_one());
                for step in 0..300_usize {
                    let first = (reader * 50 + step * 7) % 196;
                    check(&disk, image, first * CHUNK, 4 * CHUNK);
                }
                settle(&cache);
                assert_eq!(told.findings(), []);
                assert_eq!(disk.counters().damaged_file_count, 0);
            });
        }
    });
    let files = (0..200).filter(|c| file_of(directory.path(), *c).exists());
    assert!((30..=40).contains(&files.count()));
}

#[test]
fn what_one_cache_fetched_another_one_finds() {
    let directory = tempfile::tempdir().unwrap();
    let options = on_disk(directory.path());
    let image = Arc::new(Image::full(10));
    let second = open(&options);
    let first = open(&options);
    check(&attach(&first, &image, one_by_one()), &image, 0, 10 * CHUNK);
    settle(&first);
    let fetched = image.request_count();
    let disk = attach(&second, &image, one_by_one());
    check(&disk, &image, 0, 10 * CHUNK);
    assert_eq!(image.request_count(), fetched);
}
