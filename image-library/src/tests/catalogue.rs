// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a large library asks of memory: a catalogue of so many chunks, and every operation on it.
//!
//! A chunk is its number and zeros, so that a catalogue as of 1 TiB in chunks of 64 KiB is made in
//! minutes: chunks are small, and there are as many of them, and of packs, as there would be. The
//! operations run in a process of their own, which resets the peak of its memory
//! (`/proc/self/clear_refs`, proc(5)) before each.
//!
//! `RELEVO_CATALOGUE_CHUNKS` sets how many chunks there are; 2^24 are 1 TiB.

use std::fs;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use disk::Silent;

use super::{begin, disk_draft, draft};
use crate::chunk::{CheckedChunk, Encoding};
use crate::core::Core;
use crate::manifest::LEAF_CHUNKS;
use crate::pack::{BlobKind, PackOrigin, PackWriter};
use crate::store::names;
use crate::surroundings::{Machine, Surroundings};
use crate::{
    ContentHash, DiskIndex, DiskWriter, Image, ImageReader, ImageWriter, InitOptions, KeepPolicy,
    LocalLibrary, PruneOptions, ReplicateOptions, Result, Statistics,
};

/// Small enough to be made in seconds by every test run.
const CHUNKS_DEFAULT: u64 = 1 << 16;
const CHUNKS_PER_TIB: u64 = 1 << 24;
/// DESIGN.md: 64 MiB for each TiB.
const BYTES_PER_TIB: u64 = 64 << 20;
/// What a program takes before it has any library: its code, its threads, one pack in the making.
const BYTES_AT_LEAST: u64 = 48 << 20;

/// The smallest that there may be.
const CHUNK_LENGTH: u32 = 16 << 10;
/// What a pack of 16 MiB has of chunks of 64 KiB that compress to two fifths.
const CHUNKS_PER_PACK: u64 = 640;

const COUNT: &str = "RELEVO_CATALOGUE_CHUNKS";
const PLACE: &str = "RELEVO_CATALOGUE_DIRECTORY";

fn chunk_count() -> u64 {
    let given = std::env::var(COUNT).ok();
    given.map_or(CHUNKS_DEFAULT, |given| given.parse().expect("a number"))
}

/// A chunk's bytes: its number, which no chunk of zeros has, and zeros.
fn content(chunk: u64) -> [u8; CHUNK_LENGTH as usize] {
    let mut bytes = [0; CHUNK_LENGTH as usize];
    bytes[..8].copy_from_slice(&(chunk + 1).to_le_bytes());
    bytes
}

fn hash(chunk: u64) -> ContentHash {
    ContentHash::of(&content(chunk))
}

/// The same as a zstd frame (RFC 8878, section 3.1.1), for much less than compressing it costs.
fn frame(chunk: u64) -> Vec<u8> {
    // The length of the content, less 256, in two bytes; it is one segment.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x60];
    frame.extend_from_slice(&((CHUNK_LENGTH - 256) as u16).to_le_bytes());
    // A raw block of 8 bytes, then the last: one byte, repeated.
    let mut block = |header: u32, body: &[u8]| {
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(body);
    };
    block(8 << 3, &(chunk + 1).to_le_bytes());
    block((CHUNK_LENGTH - 8) << 3 | 1 << 1 | 1, &[0]);
    frame
}

#[test]
fn every_operation_stays_within_its_memory() {
    let directory = tempfile::tempdir().expect("tempdir");
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "tests::catalogue::operations",
            "--ignored",
            "--nocapture",
        ])
        .env(PLACE, directory.path())
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let peaks: Vec<(&str, u64)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("peak of "))
        .filter_map(|line| line.split_once(": "))
        .map(|(what, rest)| (what, rest.split(' ').next().unwrap_or_default()))
        .map(|(what, bytes)| (what, bytes.parse().expect("a number")))
        .collect();
    assert_eq!(peaks.len(), 10, "{text}");
    let allowed = BYTES_AT_LEAST.max(BYTES_PER_TIB * chunk_count() / CHUNKS_PER_TIB);
    for (what, bytes) in peaks {
        assert!(
            bytes < allowed,
            "{what}: {bytes} bytes, {allowed} allowed\n{text}"
        );
    }
}

#[test]
#[ignore = "part of every_operation_stays_within_its_memory, which runs it alone"]
fn operations() {
    let place = std::env::var_os(PLACE).expect("is run by another test");
    let place = Path::new(&place);
    let chunks = chunk_count();
    let library = create(&place.join("here"));
    peak("making the packs", || {
        make_packs(&library, &place.join("here"), chunks);
    });
    drop(library);
    let open = || LocalLibrary::open(place.join("here").as_path()).expect("opens");
    let library = peak("opening without an index", open);
    let image = peak("a first image", || upload(&library, chunks));
    peak("the next image", || next(&library, chunks));
    peak("listing", || {
        let images = library.images().expect("lists");
        assert_eq!(Statistics::of(&images).images, 2);
    });
    peak("the map of a disk", || {
        let device = library.open_disk(image.id, DiskIndex(0)).expect("opens");
        let mut at = 0;
        while at < device.length_bytes() {
            at += device.extent_at(at).expect("reads").length;
        }
    });
    peak("verifying", || {
        let report = library.verify(&Silent).expect("verifies");
        assert!(report.is_sound(), "{report:?}");
    });
    peak("replicating", || replicate(&library, &place.join("there")));
    peak("a prune that keeps all", || prune(&library, 2));
    peak("a prune that condemns", || {
        let latest = library.images().expect("lists").remove(1);
        library.delete_image(latest.id).expect("deletes");
        prune(&library, 1);
    });
}

/// Runs an operation and prints the peak of this process's memory meanwhile.
fn peak<T>(what: &str, work: impl FnOnce() -> T) -> T {
    fs::write("/proc/self/clear_refs", "5").expect("resets the peak");
    let begun = Instant::now();
    let result = work();
    let status = fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.expect("a peak").trim().trim_end_matches(" kB");
    let bytes = kib.parse::<u64>().expect("a number") << 10;
    let seconds = begun.elapsed().as_secs_f64();
    println!("peak of {what}: {bytes} bytes, {seconds:.1} s");
    result
}

fn create(place: &Path) -> LocalLibrary {
    let options = InitOptions {
        chunk_size_bytes: CHUNK_LENGTH,
        ..InitOptions::default()
    };
    LocalLibrary::init(place, &options).expect("creates")
}

/// The machine, but for durability, which tens of thousands of packs need not have here.
#[derive(Debug)]
struct NeverDurable;

impl Surroundings for NeverDurable {
    fn salt(&self) -> Result<[u8; 32]> {
        Machine.salt()
    }

    fn sync(&self, _file: &fs::File, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn pack_length(&self) -> u64 {
        Machine.pack_length()
    }

    fn packs_overlap(&self) -> bool {
        Machine.packs_overlap()
    }
}

fn make_packs(library: &LocalLibrary, place: &Path, chunks: u64) {
    let core = library.core();
    let (surroundings, next): (Arc<dyn Surroundings>, _) =
        (Arc::new(NeverDurable), AtomicU64::new(0));
    let work = || {
        loop {
            let first = next.fetch_add(CHUNKS_PER_PACK, Ordering::Relaxed);
            if first >= chunks {
                return;
            }
            let pack = first..chunks.min(first + CHUNKS_PER_PACK);
            make_pack(core, place, &surroundings, pack);
        }
    };
    let threads = available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

fn make_pack(core: &Core, place: &Path, surroundings: &Arc<dyn Surroundings>, chunks: Range<u64>) {
    let origin = PackOrigin {
        cipher: core.config.cipher,
        library: *core.config.id.as_bytes(),
        owner: core.key.owner(&"web".parse().expect("legal")),
    };
    let temporary = core.workspace.temporary_directory();
    let path = temporary.join(format!("pack-{}", chunks.start));
    let pack = PackWriter::create(&path, &core.key, origin, surroundings);
    let mut pack = pack.expect("creates");
    for chunk in chunks {
        let blob = CheckedChunk {
            hash: hash(chunk),
            length: CHUNK_LENGTH,
            encoding: Encoding::Zstd,
            body: frame(chunk),
        };
        let id = core.key.chunk_id(&blob.hash);
        pack.append(id, BlobKind::Data, &blob).expect("appends");
    }
    let done = pack.finish().expect("finishes");
    let named = place.join(names::pack(&done.id));
    fs::create_dir_all(named.parent().expect("has one")).expect("creates");
    fs::rename(&done.path, named).expect("names it");
}

fn upload(library: &LocalLibrary, chunks: u64) -> Image {
    let upload = begin(library, "web");
    let disk = disk_draft("sda", chunks * u64::from(CHUNK_LENGTH));
    let mut writer = DiskWriter::new(&*upload, &disk);
    for first in (0..chunks).step_by(LEAF_CHUNKS) {
        let last = (first + LEAF_CHUNKS as u64).min(chunks);
        let hashes: Vec<_> = (first..last).map(|chunk| Some(hash(chunk))).collect();
        writer.push(&hashes).expect("puts");
    }
    writer.finish().expect("puts");
    upload.commit(&draft()).expect("commits")
}

/// An image of which every hundredth leaf is another.
fn next(library: &LocalLibrary, chunks: u64) {
    let server = "web".parse().expect("legal");
    let latest = library.latest_hashes(&server, "sda").expect("asks");
    let latest = latest.expect("there is an image");
    let upload = begin(library, "web");
    let disk = disk_draft("sda", chunks * u64::from(CHUNK_LENGTH));
    let mut writer = DiskWriter::new(&*upload, &disk);
    for leaf in 0..chunks.div_ceil(LEAF_CHUNKS as u64) {
        let mut hashes = latest.leaf(leaf).expect("reads");
        if leaf % 100 == 0 {
            hashes.reverse();
        }
        writer.push(&hashes).expect("puts");
    }
    writer.finish().expect("puts");
    upload.commit(&draft()).expect("commits");
}

fn replicate(library: &LocalLibrary, place: &Path) {
    let other = create(place);
    let (options, stop) = (ReplicateOptions::default(), AtomicBool::new(false));
    let report = library.replicate(&other, &options, &Silent, &stop);
    assert_eq!(report.expect("replicates").copied.len(), 2);
}

fn prune(library: &LocalLibrary, last: u32) {
    let options = PruneOptions {
        keep: Some(KeepPolicy {
            last,
            ..KeepPolicy::default()
        }),
        grace: Duration::ZERO,
        dry_run: false,
        is_sole_pruner: false,
    };
    library.prune(&options, &Silent).expect("prunes");
}
