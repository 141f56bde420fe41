// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bound of the files: kept by one cache and by several, what was used longest ago goes first.

use std::fs::{self, File};
use std::time::SystemTime;

use super::*;

/// A cache for so many chunks.
fn bounded(directory: &Path, chunk_count: u64) -> CacheOptions {
    CacheOptions {
        disk_bytes_max: chunk_count * CHUNK as u64,
        ..on_disk(directory)
    }
}

/// The numbers below `end` of the chunks that have a file.
fn kept(directory: &Path, end: u64) -> Vec<u64> {
    (0..end)
        .filter(|chunk| file_of(directory, *chunk).exists())
        .collect()
}

/// Makes a file look as if it had been used last so long ago.
fn used_before(path: &Path, age: Duration) {
    let file = File::open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn the_bound_holds_at_every_moment_and_what_is_new_stays() {
    let directory = tempfile::tempdir().unwrap();
    let image = Arc::new(Image::full(100));
    let cache = open(&bounded(directory.path(), 20));
    settle(&cache);
    let disk = attach(&cache, &image, one_by_one());
    for chunk in 0..100 {
        check(&disk, &image, chunk * CHUNK, CHUNK);
        settle(&cache);
        assert!(kept(directory.path(), 100).len() <= 20);
    }
    let kept = kept(directory.path(), 100);
    assert!(kept.len() >= 18, "{kept:?}");
    assert!(kept.contains(&99) && kept[0] >= 60, "{kept:?}");
    check(&disk, &image, 0, 100 * CHUNK);
}

#[test]
fn what_was_used_longest_ago_goes_first_and_use_counts() {
    let directory = tempfile::tempdir().unwrap();
    let image = Arc::new(Image::full(30));
    let cache = open(&bounded(directory.path(), 20));
    // The first look is over before anything is written.
    settle(&cache);
    let disk = attach(&cache, &image, one_by_one());
    check(&disk, &image, 0, 20 * CHUNK);
    settle(&cache);
    for chunk in 0..20 {
        let age = Duration::from_secs(100_000 - 1000 * chunk);
        used_before(&file_of(directory.path(), chunk), age);
    }
    // Chunk 1 is used again, which makes it the newest.
    check(&disk, &image, CHUNK, 1);
    check(&disk, &image, 20 * CHUNK, CHUNK);
    settle(&cache);
    // Down to nine tenths, and the new one: 0, 2 and no others went.
    let expected: Vec<u64> = [1].into_iter().chain(3..21).collect();
    assert_eq!(kept(directory.path(), 30), expected);
}

#[test]
fn a_file_that_was_used_a_moment_ago_is_not_touched_again() {
    let directory = tempfile::tempdir().unwrap();
    let image = Arc::new(Image::full(2));
    let cache = open(&bounded(directory.path(), 20));
    let disk = attach(&cache, &image, one_by_one());
    check(&disk, &image, 0, 2 * CHUNK);
    settle(&cache);
    let file = file_of(directory.path(), 0);
    for (age, is_touched) in [(60, false), (3600, true)] {
        let age = Duration::from_secs(age);
        used_before(&file, age);
        check(&disk, &image, 0, 1);
        let found = fs::metadata(&file).unwrap().modified().unwrap();
        let is_new = found.elapsed().unwrap() < age / 2;
        assert_eq!(is_new, is_touched, "{age:?}");
    }
}

#[test]
fn a_cache_that_is_opened_with_a_smaller_bound_shrinks_in_the_background() {
    let directory = tempfile::tempdir().unwrap();
    let image = Arc::new(Image::full(50));
    let cache = open(&bounded(directory.path(), 50));
    settle(&cache);
    check(&attach(&cache, &image, one_by_one()), &image, 0, 50 * CHUNK);
    drop(cache);
    assert_eq!(kept(directory.path(), 50).len(), 50);
    let cache = open(&bounded(directory.path(), 10));
    settle(&cache);
    assert_eq!(kept(directory.path(), 50).len(), 9);
}

#[test]
fn a_wrong_count_of_bytes_is_set_right() {
    for wrong in [vec![], vec![0; 8], vec![0xff; 8], vec![1; 3]] {
        let directory = tempfile::tempdir().unwrap();
        let image = Arc::new(Image::full(40));
        let cache = open(&bounded(directory.path(), 20));
        let disk = attach(&cache, &image, one_by_one());
        check(&disk, &image, 0, 10 * CHUNK);
        settle(&cache);
        fs::write(directory.path().join("chunks/usage"), &wrong).unwrap();
        cache.files.as_ref().unwrap().survey();
        check(&disk, &image, 0, 40 * CHUNK);
        settle(&cache);
        cache.files.as_ref().unwrap().survey();
        let kept = kept(directory.path(), 40);
        assert!((18..=20).contains(&kept.len()), "{wrong:?}: {kept:?}");
    }
}

#[test]
fn what_a_killed_process_was_writing_goes_and_what_is_being_written_stays() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("chunks/ab");
    fs::create_dir_all(&place).unwrap();
    let part = |digit: &str| place.join(format!("{}.part", digit.repeat(32)));
    fs::write(part("0"), "x").unwrap();
    fs::write(part("1"), "x").unwrap();
    fs::write(place.join("strange.part"), "x").unwrap();
    used_before(&part("0"), Duration::from_secs(7200));
    used_before(&place.join("strange.part"), Duration::from_secs(7200));
    settle(&open(&bounded(directory.path(), 20)));
    assert!(!part("0").exists());
    assert!(part("1").exists() && place.join("strange.part").exists());
}

#[test]
fn a_chunk_larger_than_the_cache_is_not_kept_and_pushes_nothing_out() {
    let directory = tempfile::tempdir().unwrap();
    let image = Arc::new(Image::full(2));
    let options = bounded(directory.path(), 1);
    let (cache, told) = open_told(&options, WRITES);
    let disk = attach(&cache, &image, one_by_one());
    check(&disk, &image, 0, 2 * CHUNK);
    settle(&cache);
    check(&disk, &image, 0, 2 * CHUNK);
    assert_eq!(told.findings(), []);
}
