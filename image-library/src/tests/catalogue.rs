// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a large library asks of memory: a catalogue of so many chunks, and every operation on it.
//!
//! A chunk is its number and zeros, so that a catalogue as of 1 TiB in chunks of 64 KiB is made in
//! minutes: chunks are small, and there are as many of them, and of packs, as there would be. Each
//! operation runs in a process of its own, as a command does, which tells the peak of its memory.
//!
//! `RELEVO_CATALOGUE_CHUNKS` sets how many chunks there are; 2^24 are 1 TiB. Beyond that there is no
//! room for a second library: a copy goes [nowhere](Nowhere) then, and what the other one needs of
//! memory is what a first image needs.
//!
//! 10 TiB take hours: with `RELEVO_CATALOGUE_KEPT` naming a directory, what was measured is written
//! down there, and a run that was interrupted goes on with the operation that it was in.

use std::fs;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, available_parallelism};
use std::time::Duration;

use disk::{ReadAt, Silent};

use super::{begin, disk_draft, draft};
use crate::chunk::{CheckedChunk, Encoding};
use crate::core::Core;
use crate::manifest::LEAF_CHUNKS;
use crate::pack::{BlobKind, PackOrigin, PackWriter};
use crate::store::names;
use crate::surroundings::{Machine, Surroundings};
use crate::{
    ChunkState, ChunkUpload, ContentHash, DiskDraft, DiskHashes, DiskIndex, DiskWriter, Error,
    Image, ImageDraft, ImageId, ImageReader, ImageWriter, InitOptions, KeepPolicy, Library,
    LocalLibrary, PruneOptions, ReplicateOptions, Result, ServerName, Statistics, Upload,
    UploadTarget, WantedRange,
};

/// Small enough to be made in seconds by every test run.
const CHUNKS_DEFAULT: u64 = 1 << 16;
const CHUNKS_PER_TIB: u64 = 1 << 24;
/// The promise, for each TiB that was begun.
const BYTES_PER_TIB: u64 = 64 << 20;
/// Hashing longer ones would take hours.
const CHUNK_LENGTH: u32 = crate::chunk::CATALOGUE_CHUNK_SIZE;
/// What a pack of 16 MiB has of chunks of 64 KiB that compress to two fifths.
const CHUNKS_PER_PACK: u64 = 640;

/// What the kernel counts times in for programs: `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

const COUNT: &str = "RELEVO_CATALOGUE_CHUNKS";
const PLACE: &str = "RELEVO_CATALOGUE_DIRECTORY";
const OPERATION: &str = "RELEVO_CATALOGUE_OPERATION";
const KEPT: &str = "RELEVO_CATALOGUE_KEPT";
/// What was measured, one operation on a line, as [`cost_of`] gives it.
const MEASURED: &str = "measured";

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

/// An operation, what it is called, and how many libraries it has open.
type Operation = (&'static str, u64, fn(&Path));

/// What is done, in this order, each on what those before left.
const OPERATIONS: [Operation; 11] = [
    ("making the packs", 1, make_packs),
    ("opening without an index", 1, |place| drop(open(place))),
    ("a first image", 1, upload),
    ("the next image", 1, next),
    ("listing", 1, list),
    ("the map of a disk", 1, map),
    ("verifying", 1, verify),
    ("replicating", 2, replicate),
    ("replicating to elsewhere", 1, replicate_to_nowhere),
    ("a prune that keeps all", 1, |place| prune(&open(place), 2)),
    ("a prune that condemns", 1, condemn),
];

#[test]
fn every_operation_stays_within_its_memory() {
    let own = tempfile::tempdir().expect("tempdir");
    let kept = std::env::var_os(KEPT).map(PathBuf::from);
    let place = kept.as_deref().unwrap_or(own.path());
    let tib = chunk_count().div_ceil(CHUNKS_PER_TIB);
    let operations = OPERATIONS.iter().enumerate();
    let in_room = operations.filter(|(_, (_, libraries, _))| *libraries == 1 || tib == 1);
    for (number, (what, libraries, _)) in in_room {
        let before = measured_before(number, place);
        let (bytes, seconds) = before.unwrap_or_else(|| cost_of(number, place));
        println!("peak of {what}: {bytes} bytes, {seconds:.1} s of CPU");
        let allowed = libraries * tib * BYTES_PER_TIB;
        assert!(bytes < allowed, "{what}: {bytes} bytes, {allowed} allowed");
        if before.is_none() {
            write_down(number, (bytes, seconds), place);
        }
    }
    if let Some(kept) = kept {
        fs::remove_dir_all(kept).expect("removes it");
    }
}

/// What an operation cost in a run that was interrupted later.
fn measured_before(number: usize, place: &Path) -> Option<(u64, f64)> {
    let text = fs::read_to_string(place.join(MEASURED)).ok()?;
    let mut lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|fields| fields[0] == number.to_string())?;
    let parsed = (line[1].parse().ok()?, line[2].parse().ok()?);
    Some(parsed)
}

fn write_down(number: usize, (bytes, seconds): (u64, f64), place: &Path) {
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).append(true).open(place.join(MEASURED));
    writeln!(file.expect("opens"), "{number} {bytes} {seconds}").expect("writes");
}

/// Runs an operation in a child; gives the peak of its memory in bytes and its CPU time in seconds.
fn cost_of(number: usize, place: &Path) -> (u64, f64) {
    // proc(5): this program, even when its file was built anew in these hours.
    let output = Command::new("/proc/self/exe")
        .args(["--exact", "tests::catalogue::operation"])
        .args(["--ignored", "--nocapture"])
        .env(PLACE, place)
        .env(OPERATION, number.to_string())
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let cost = text.lines().find_map(|line| line.strip_prefix("cost: "));
    let (bytes, ticks) = cost
        .and_then(|cost| cost.split_once(' '))
        .expect("it tells");
    let ticks: f64 = ticks.parse().expect("a number");
    (bytes.parse().expect("a number"), ticks / TICKS_PER_SECOND)
}

#[test]
#[ignore = "part of every_operation_stays_within_its_memory, which runs it alone"]
fn operation() {
    let variable = |name| std::env::var(name).expect("is run by another test");
    let (_, _, work) = OPERATIONS[variable(OPERATION).parse::<usize>().expect("a number")];
    work(Path::new(&variable(PLACE)));
    println!("cost: {} {}", peak_bytes(), cpu_ticks());
}

/// The most that was resident of this process: proc(5), `VmHWM`.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.expect("a peak").trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") << 10
}

/// The CPU time of this process: proc(5), fields 14 and 15 of `stat`, the third one follows its name.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("reads");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let times = fields.split_whitespace().skip(14 - 3).take(2);
    times
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}

fn open(place: &Path) -> LocalLibrary {
    LocalLibrary::open(place.join("here").as_path()).expect("opens")
}

fn create(place: &Path) -> LocalLibrary {
    let options = InitOptions {
        chunk_size_bytes: CHUNK_LENGTH,
        ..InitOptions::default()
    };
    // What an interrupted run left of it.
    let _ = fs::remove_dir_all(place);
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

fn make_packs(place: &Path) {
    let (place, chunks) = (&*place.join("here"), chunk_count());
    let library = create(place);
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

fn upload(place: &Path) {
    let (library, chunks) = (open(place), chunk_count());
    let upload = begin(&library, "web");
    let disk = disk_draft("sda", chunks * u64::from(CHUNK_LENGTH));
    let mut writer = DiskWriter::new(&*upload, &disk);
    for first in (0..chunks).step_by(LEAF_CHUNKS) {
        let last = (first + LEAF_CHUNKS as u64).min(chunks);
        let hashes: Vec<_> = (first..last).map(|chunk| Some(hash(chunk))).collect();
        writer.push(&hashes).expect("puts");
    }
    writer.finish().expect("puts");
    upload.commit(&draft()).expect("commits");
}

/// An image of which every hundredth leaf is another.
fn next(place: &Path) {
    let (library, chunks) = (open(place), chunk_count());
    let server = "web".parse().expect("legal");
    let latest = library.latest_hashes(&server, "sda").expect("asks");
    let latest = latest.expect("there is an image");
    let upload = begin(&library, "web");
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

fn list(place: &Path) {
    let images = open(place).images().expect("lists");
    assert_eq!(Statistics::of(&images).images, 2);
}

fn map(place: &Path) {
    let library = open(place);
    let latest = library.images().expect("lists").remove(1);
    let device = library.open_disk(latest.id, DiskIndex(0)).expect("opens");
    let mut at = 0;
    while at < device.length_bytes() {
        at += device.extent_at(at).expect("reads").length;
    }
}

fn verify(place: &Path) {
    let report = open(place).verify(&Silent).expect("verifies");
    assert!(report.is_sound(), "{report:?}");
}

fn condemn(place: &Path) {
    let library = open(place);
    // An interrupted run may have deleted it already.
    if let Some(latest) = library.images().expect("lists").get(1) {
        library.delete_image(latest.id).expect("deletes");
    }
    prune(&library, 1);
}

fn replicate(place: &Path) {
    copy_all(place, &create(&place.join("there")));
    fs::remove_dir_all(place.join("there")).expect("removes it");
}

fn replicate_to_nowhere(place: &Path) {
    copy_all(place, &Nowhere);
}

fn copy_all(place: &Path, other: &dyn Library) {
    let (options, stop) = (ReplicateOptions::default(), AtomicBool::new(false));
    let report = open(place).replicate(other, &options, &Silent, &stop);
    assert_eq!(report.expect("replicates").copied.len(), 2);
}

/// A library that lacks everything and keeps nothing: the other end of a network.
#[derive(Debug)]
struct Nowhere;

impl ImageReader for Nowhere {
    fn images(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    fn image(&self, id: ImageId) -> Result<Image> {
        let problem = id.to_string();
        Err(Error::NoSuchImage { problem })
    }

    fn open_disk(&self, id: ImageId, _disk: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        let problem = id.to_string();
        Err(Error::NoSuchImage { problem })
    }

    fn side_file(&self, _id: ImageId, _name: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn put_side_file(&self, _id: ImageId, _name: &str, _content: &[u8]) -> Result<()> {
        Ok(())
    }
}

impl ImageWriter for Nowhere {
    fn chunk_size_bytes(&self) -> u32 {
        CHUNK_LENGTH
    }

    fn begin(&self, _target: &UploadTarget) -> Result<Box<dyn Upload>> {
        Ok(Box::new(Self))
    }

    fn latest_hashes(
        &self,
        _server: &ServerName,
        _disk_name: &str,
    ) -> Result<Option<Arc<dyn DiskHashes>>> {
        Ok(None)
    }

    fn wanted(&self, _server: &ServerName) -> Result<Vec<WantedRange>> {
        Ok(Vec::new())
    }
}

impl Upload for Nowhere {
    fn put_chunks(&self, chunks: Vec<ChunkUpload>) -> Result<()> {
        assert!(chunks.iter().all(|chunk| chunk.length == CHUNK_LENGTH));
        Ok(())
    }

    fn latest_hashes(&self, _disk_name: &str) -> Result<Option<Arc<dyn DiskHashes>>> {
        Ok(None)
    }

    fn states(&self, hashes: &[ContentHash]) -> Result<Vec<ChunkState>> {
        Ok(vec![ChunkState::Missing; hashes.len()])
    }

    fn put_leaf(
        &self,
        _disk: &DiskDraft,
        _number: u64,
        _chunks: &[Option<ContentHash>],
    ) -> Result<()> {
        Ok(())
    }

    fn put_disk(&self, _disk: &DiskDraft, _leaves: &[Option<ContentHash>]) -> Result<()> {
        Ok(())
    }

    fn commit(self: Box<Self>, _draft: &ImageDraft) -> Result<Image> {
        unreachable!("only copies are sent there")
    }

    fn commit_copy(self: Box<Self>, original: &Image) -> Result<Image> {
        Ok(original.clone())
    }
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
