// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of a cache: restarts, damage, strangers' files, disks that are full or gone.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

/// A cache that holds the first four chunks of an image, closed.
fn filled(directory: &Path) -> Arc<Image> {
    let image = Arc::new(Image::full(4));
    let cache = open(&on_disk(directory));
    check(&attach(&cache, &image, one_by_one()), &image, 0, 4 * CHUNK);
    image
}

#[test]
fn files_survive_a_restart_and_nobody_else_may_read_them() {
    let directory = tempfile::tempdir().unwrap();
    let image = filled(directory.path());
    let fetched = image.request_count();
    let cache = open(&on_disk(directory.path()));
    let disk = attach(&cache, &image, one_by_one());
    check(&disk, &image, 0, 4 * CHUNK);
    assert_eq!(image.request_count(), fetched);
    assert_eq!(disk.counters().disk_hit_count, 4);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = file_of(directory.path(), 0);
    assert_eq!(mode(&directory.path().join("chunks")), 0o700);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn a_directory_that_others_may_enter_is_closed_to_them() {
    let directory = tempfile::tempdir().unwrap();
    let chunks = directory.path().join("chunks");
    fs::create_dir(&chunks).unwrap();
    fs::set_permissions(&chunks, fs::Permissions::from_mode(0o755)).unwrap();
    filled(directory.path());
    let mode = fs::metadata(&chunks).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_damaged_or_torn_file_is_noticed_removed_and_fetched_again() {
    let torn = chunk_bytes(0)[..1000].to_vec();
    let mut flipped = chunk_bytes(0);
    flipped[77] ^= 1;
    let longer = [chunk_bytes(0), vec![0]].concat();
    for bytes in [vec![], torn, flipped, longer, vec![0; CHUNK]] {
        let directory = tempfile::tempdir().unwrap();
        let image = filled(directory.path());
        let file = file_of(directory.path(), 0);
        fs::write(&file, &bytes).unwrap();
        let fetched = image.request_count();
        let cache = open(&on_disk(directory.path()));
        let disk = attach(&cache, &image, one_by_one());
        check(&disk, &image, 0, 4 * CHUNK);
        assert_eq!(image.request_count(), fetched + 1);
        assert_eq!(disk.counters().damaged_file_count, 1);
        assert_eq!(disk.counters().damaged_fetch_count, 0);
        settle(&cache);
        assert_eq!(fs::read(&file).unwrap(), chunk_bytes(0));
    }
}

/// What a stranger may put where a chunk's file would be.
fn in_the_way(place: &Path, outside: &Path, what: &str) {
    match what {
        "link to a whole chunk" => symlink(outside, place).unwrap(),
        "link to nothing" => symlink("/nowhere/at/all", place).unwrap(),
        "directory" => fs::create_dir(place).unwrap(),
        "directory with files" => {
            fs::create_dir(place).unwrap();
            fs::write(place.join("x"), "x").unwrap();
        }
        _pipe => {
            let mode = rustix::fs::Mode::RWXU;
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, place, kind, mode, 0).unwrap();
        }
    }
}

#[test]
fn strangers_files_are_neither_followed_nor_removed_nor_waited_for() {
    let kinds = [
        "link to a whole chunk",
        "link to nothing",
        "directory",
        "directory with files",
        "pipe",
    ];
    for what in kinds {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::write(&outside, chunk_bytes(0)).unwrap();
        let file = file_of(directory.path(), 0);
        let chunks = directory.path().join("chunks");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        in_the_way(&file, &outside, what);
        let before = fs::symlink_metadata(&file).unwrap();
        let stranger = file.parent().unwrap().join("readme.txt");
        fs::write(&stranger, vec![0; 1 << 20]).unwrap();
        fs::write(chunks.join("notes"), "x").unwrap();

        let image = Arc::new(Image::full(4));
        let options = on_disk(directory.path());
        let (cache, told) = open_told(&options, WRITES);
        let disk = attach(&cache, &image, one_by_one());
        for _ in 0..2 {
            check(&disk, &image, 0, 4 * CHUNK);
            settle(&cache);
        }
        // It is fetched each time, and that is all.
        assert_eq!(disk.counters().disk_hit_count, 3, "{what}");
        assert_eq!(told.findings(), [], "{what}");
        drop((disk, cache));
        // So small that what may be removed is.
        settle(&open(&CacheOptions {
            disk_bytes_max: 1,
            ..options
        }));
        assert!(!file_of(directory.path(), 1).exists());
        let after = fs::symlink_metadata(&file).unwrap();
        assert_eq!(after.file_type(), before.file_type(), "{what}");
        assert_eq!(fs::read(&outside).unwrap(), chunk_bytes(0), "{what}");
        assert!(stranger.exists() && chunks.join("notes").exists(), "{what}");
    }
}

#[test]
fn a_link_instead_of_a_directory_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let file = file_of(directory.path(), 0);
    fs::create_dir_all(directory.path().join("chunks")).unwrap();
    symlink(outside.path(), file.parent().unwrap()).unwrap();
    filled(directory.path());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_place_that_cannot_be_a_cache_is_told_once_and_reads_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    fs::create_dir(directory.path().join("linked")).unwrap();
    let linked = directory.path().join("linked/chunks");
    symlink(directory.path(), &linked).unwrap();
    for place in [file, directory.path().join("linked")] {
        let (cache, told) = open_told(&on_disk(&place), WRITES);
        let image = Arc::new(Image::full(4));
        let disk = attach(&cache, &image, one_by_one());
        for _ in 0..3 {
            check(&disk, &image, 0, 4 * CHUNK);
            settle(&cache);
        }
        let findings = told.findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].code, "cache.not-written");
        assert_eq!(findings[0].place, place.display().to_string());
    }
}

static FULL: AtomicBool = AtomicBool::new(false);

#[test]
fn a_full_disk_is_told_once_what_is_there_is_read_and_writing_goes_on_later() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, told) = open_told(&on_disk(directory.path()), |file, bytes| {
        // As a disk does: some of it still fits.
        file.write_all(&bytes[..bytes.len() / 2])?;
        if FULL.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        file.write_all(&bytes[bytes.len() / 2..])
    });
    let image = Arc::new(Image::full(12));
    let disk = attach(&cache, &image, one_by_one());
    check(&disk, &image, 0, 4 * CHUNK);
    settle(&cache);
    for round in 0..2 {
        FULL.store(true, Ordering::SeqCst);
        let first = 4 + 4 * round;
        check(&disk, &image, 0, (first + 4) * CHUNK);
        settle(&cache);
        assert_eq!(told.findings().len(), round + 1);
        let problem = &told.findings()[round].problem;
        assert_eq!(problem, "the cache cannot be written: no storage space");
        assert_eq!(parts(directory.path()), 0);
        let hits = disk.counters().disk_hit_count;
        check(&disk, &image, 0, 4 * CHUNK);
        assert_eq!(disk.counters().disk_hit_count, hits + 4);

        FULL.store(false, Ordering::SeqCst);
        check(&disk, &image, 0, (first + 4) * CHUNK);
        settle(&cache);
        assert!(file_of(directory.path(), first as u64 + 3).exists());
    }
}

/// How many files are left that were being written.
fn parts(directory: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(directory.join("chunks")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let files = fs::read_dir(path).unwrap();
            let names = files.map(|file| file.unwrap().file_name());
            count += names
                .filter(|n| n.to_str().unwrap().ends_with(".part"))
                .count();
        }
    }
    count
}

#[test]
fn a_directory_that_vanishes_is_told_and_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("cache");
    let options = CacheOptions {
        retry_after: Duration::from_millis(50),
        ..on_disk(&place)
    };
    let (cache, told) = open_told(&options, WRITES);
    let image = Arc::new(Image::full(8));
    let disk = attach(&cache, &image, one_by_one());
    check(&disk, &image, 0, 4 * CHUNK);
    settle(&cache);
    fs::remove_dir_all(&place).unwrap();
    check(&disk, &image, 0, 8 * CHUNK);
    settle(&cache);
    assert_eq!(told.findings().len(), 1);
    std::thread::sleep(Duration::from_millis(60));
    check(&disk, &image, 0, 8 * CHUNK);
    settle(&cache);
    for chunk in 0..8 {
        assert!(file_of(&place, chunk).exists(), "{chunk}");
    }
    assert_eq!(told.findings().len(), 1);
}

#[test]
fn writing_is_not_tried_again_before_its_time() {
    static TRIES: AtomicU64 = AtomicU64::new(0);
    let directory = tempfile::tempdir().unwrap();
    let options = CacheOptions {
        retry_after: Duration::from_secs(3600),
        ..on_disk(directory.path())
    };
    let (cache, told) = open_told(&options, |_, _| {
        TRIES.fetch_add(1, Ordering::SeqCst);
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    });
    let image = Arc::new(Image::full(16));
    check(&attach(&cache, &image, one_by_one()), &image, 0, 16 * CHUNK);
    settle(&cache);
    assert_eq!(TRIES.load(Ordering::SeqCst), 1);
    assert_eq!(told.findings().len(), 1);
}
