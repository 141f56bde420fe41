// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a large library asks of memory: a catalogue of so many chunks, and every operation on it.
//!
//! The chunks have made-up hashes and no content worth reading, so that a TiB of them is made in a
//! minute; nothing here reads a chunk. Each operation runs in a process of its own kind: a child
//! with one test, which resets the peak of its memory (`/proc/self/clear_refs`, proc(5)) before each.
//!
//! `RELEVO_CATALOGUE_CHUNKS` sets how many chunks there are; 2^24 are 1 TiB.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use disk::Silent;

use super::{begin, disk_draft, draft};
use crate::chunk::{CheckedChunk, Encoding, compress};
use crate::manifest::LEAF_CHUNKS;
use crate::pack::{BlobKind, PackOrigin, PackWriter};
use crate::store::names;
use crate::{
    ContentHash, DiskIndex, DiskWriter, Image, ImageReader, ImageWriter, InitOptions, KeepPolicy,
    LocalLibrary, PruneOptions, Statistics,
};

/// Small enough to be made in seconds by every test run.
const CHUNKS_DEFAULT: u64 = 1 << 17;
const CHUNKS_PER_TIB: u64 = 1 << 24;
/// DESIGN.md: 64 MiB for each TiB.
const BYTES_PER_TIB: u64 = 64 << 20;
/// What a program takes before it has any library: its code, its threads, one pack in the making.
const BYTES_AT_LEAST: u64 = 48 << 20;

const COUNT: &str = "RELEVO_CATALOGUE_CHUNKS";
const PLACE: &str = "RELEVO_CATALOGUE_DIRECTORY";

fn chunk_count() -> u64 {
    let given = std::env::var(COUNT).ok();
    given.map_or(CHUNKS_DEFAULT, |given| given.parse().expect("a number"))
}

fn content(chunk: u64) -> ContentHash {
    ContentHash::of(&chunk.to_le_bytes())
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
    assert_eq!(peaks.len(), 8, "{text}");
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
    let library = LocalLibrary::init(place, &InitOptions::default()).expect("creates");
    peak("making the packs", || make_packs(&library, chunks));
    drop(library);
    let open = || LocalLibrary::open(place).expect("opens");
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

fn make_packs(library: &LocalLibrary, chunks: u64) {
    let core = library.core();
    let body = compress(&[0; 65536]).expect("compresses");
    let owner = core.key.owner(&"web".parse().expect("legal"));
    let origin = PackOrigin {
        cipher: core.config.cipher,
        library: *core.config.id.as_bytes(),
        owner,
    };
    let path = core.workspace.temporary_directory().join("pack");
    let create = || PackWriter::create(&path, &core.key, origin, &core.surroundings);
    let create = || create().expect("creates");
    let mut pack = create();
    for chunk in 0..chunks {
        let hash = content(chunk);
        let blob = CheckedChunk {
            hash,
            length: 65536,
            encoding: Encoding::Zstd,
            body: body.clone(),
        };
        let appended = pack.append(core.key.chunk_id(&hash), BlobKind::Data, &blob);
        appended.expect("appends");
        if pack.is_full() || chunk + 1 == chunks {
            let done = std::mem::replace(&mut pack, create())
                .finish()
                .expect("finishes");
            core.store
                .adopt(&names::pack(&done.id), &done.path)
                .expect("names it");
            pack = create();
        }
    }
}

fn upload(library: &LocalLibrary, chunks: u64) -> Image {
    let upload = begin(library, "web");
    let disk = disk_draft("sda", chunks << 16);
    let mut writer = DiskWriter::new(&*upload, &disk);
    for first in (0..chunks).step_by(LEAF_CHUNKS) {
        let last = (first + LEAF_CHUNKS as u64).min(chunks);
        let hashes: Vec<_> = (first..last).map(|chunk| Some(content(chunk))).collect();
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
    let disk = disk_draft("sda", chunks << 16);
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
