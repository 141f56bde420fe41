// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks in memory read through caches: counted, delayed, failing, damaged.

mod eviction;
mod files;
mod prefetch;
mod property;
mod reads;
mod replay;
mod sharing;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use disk::block::{Extent, ExtentKind};
use disk::{Error, ReadAt, Recorder, Result, Silent};
use image_library::{ContentHash, DiskHashes, ImageId, LEAF_CHUNKS};

use super::tree::WriteBytes;
use super::{CacheOptions, CachedDisk, ChunkCache, FetchOptions};

/// The size of the chunks of most disks here.
const CHUNK: usize = 4096;

/// An image's disk: bytes and their hashes, and what goes wrong with them.
#[derive(Debug)]
struct Image {
    bytes: Vec<u8>,
    chunk_size: usize,
    /// Every request, as first byte and length.
    requests: Mutex<Vec<(u64, usize)>>,
    /// How long a request takes, in microseconds.
    delay_us: AtomicU64,
    /// How many requests are under way, and were at most.
    under_way: AtomicU64,
    under_way_max: AtomicU64,
    is_down: AtomicBool,
    /// Chunks that cannot be read: every request for them fails.
    unreadable: BTreeSet<u64>,
    /// Chunks of which other bytes are given.
    damaged: BTreeSet<u64>,
    /// The next request panics.
    panics: AtomicBool,
    leaf_requests: AtomicU64,
}

impl Image {
    /// Chunks as told: a number is one of those bytes, `None` one of zeros.
    fn of(chunks: &[Option<u64>]) -> Self {
        let mut bytes = Vec::new();
        for chunk in chunks {
            bytes.extend(chunk.map_or_else(|| vec![0; CHUNK], chunk_bytes));
        }
        Self::new(bytes, CHUNK)
    }

    /// So many chunks, all different.
    fn full(count: u64) -> Self {
        let chunks: Vec<_> = (0..count).map(Some).collect();
        Self::of(&chunks)
    }

    fn new(bytes: Vec<u8>, chunk_size: usize) -> Self {
        Self {
            bytes,
            chunk_size,
            requests: Mutex::default(),
            delay_us: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            under_way_max: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            unreadable: BTreeSet::new(),
            damaged: BTreeSet::new(),
            panics: AtomicBool::new(false),
            leaf_requests: AtomicU64::new(0),
        }
    }

    fn delay(self, delay: Duration) -> Self {
        let delay_us = u64::try_from(delay.as_micros()).unwrap();
        self.delay_us.store(delay_us, Ordering::Relaxed);
        self
    }

    fn requests(&self) -> Vec<(u64, usize)> {
        self.requests.lock().unwrap().clone()
    }

    fn request_count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn chunks(&self, offset: u64, length: usize) -> std::ops::Range<u64> {
        let size = self.chunk_size as u64;
        offset / size..(offset + length as u64).div_ceil(size)
    }

    fn answer(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.requests.lock().unwrap().push((offset, buffer.len()));
        let delay_us = self.delay_us.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(delay_us));
        assert!(!self.panics.swap(false, Ordering::Relaxed), "told to panic");
        let chunks = self.chunks(offset, buffer.len());
        let unreadable = chunks.clone().any(|c| self.unreadable.contains(&c));
        if unreadable || self.is_down.load(Ordering::Relaxed) {
            return Err(Error::Device {
                action: "read",
                offset,
                length: buffer.len() as u64,
                source: "it cannot be reached".into(),
            });
        }
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        for chunk in chunks.filter(|c| self.damaged.contains(c)) {
            let at = (chunk * self.chunk_size as u64).saturating_sub(offset);
            buffer[usize::try_from(at).unwrap()] ^= 1;
        }
        Ok(())
    }
}

impl ReadAt for Image {
    fn length_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.under_way_max.fetch_max(now, Ordering::SeqCst);
        let answer = self.answer(offset, buffer);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    /// Knows holes only from leaf to leaf, so that a test sees who is asked.
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let start = usize::try_from(offset).unwrap();
        let zeros = self.bytes[start..].iter().take_while(|b| **b == 0).count();
        let (length, kind) = if zeros == 0 {
            (1, ExtentKind::Data)
        } else {
            (zeros as u64, ExtentKind::Zero)
        };
        Ok(Extent { length, kind })
    }
}

impl DiskHashes for Image {
    fn image(&self) -> ImageId {
        "0192f0c1-2233-7aaa-8bbb-ccccddddeeee".parse().unwrap()
    }

    fn chunk_size_bytes(&self) -> u32 {
        u32::try_from(self.chunk_size).unwrap()
    }

    fn chunk_count(&self) -> u64 {
        self.bytes.len().div_ceil(self.chunk_size) as u64
    }

    fn leaf(&self, number: u64) -> image_library::Result<Vec<Option<ContentHash>>> {
        self.leaf_requests.fetch_add(1, Ordering::Relaxed);
        let chunks = self.bytes.chunks(self.chunk_size);
        let first = usize::try_from(number).unwrap() * LEAF_CHUNKS;
        let hash = |chunk: &[u8]| {
            let is_zero = chunk.iter().all(|byte| *byte == 0);
            (!is_zero).then(|| ContentHash::of(chunk))
        };
        Ok(chunks.skip(first).take(LEAF_CHUNKS).map(hash).collect())
    }
}

/// The bytes of a chunk, different for each number.
fn chunk_bytes(number: u64) -> Vec<u8> {
    noise(number, CHUNK)
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Each chunk by itself, so that a test sees which are fetched.
fn one_by_one() -> FetchOptions {
    FetchOptions {
        random_bytes: 1,
        sequential_bytes: 1,
        ..FetchOptions::default()
    }
}

fn in_memory(bytes_max: u64) -> Arc<ChunkCache> {
    let options = CacheOptions {
        memory_bytes_max: bytes_max,
        ..CacheOptions::default()
    };
    Arc::new(ChunkCache::open(&options, Arc::new(Silent)).unwrap())
}

/// Files only: what is read twice comes from them.
fn on_disk(directory: &Path) -> CacheOptions {
    CacheOptions {
        directory: Some(directory.to_owned()),
        disk_bytes_max: 64 << 20,
        memory_bytes_max: 0,
        retry_after: Duration::ZERO,
    }
}

fn open(options: &CacheOptions) -> Arc<ChunkCache> {
    Arc::new(ChunkCache::open(options, Arc::new(Silent)).unwrap())
}

fn open_told(options: &CacheOptions, write: WriteBytes) -> (Arc<ChunkCache>, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let monitor = Arc::clone(&recorder);
    let cache = ChunkCache::open_writing(options, monitor, write).unwrap();
    (Arc::new(cache), recorder)
}

const WRITES: WriteBytes = |file, bytes| file.write_all(bytes);

fn attach(cache: &Arc<ChunkCache>, image: &Arc<Image>, options: FetchOptions) -> CachedDisk {
    let device: Arc<dyn ReadAt> = Arc::clone(image) as _;
    let hashes: Arc<dyn DiskHashes> = Arc::clone(image) as _;
    CachedDisk::new(Arc::clone(cache), device, hashes, options).unwrap()
}

fn read(disk: &CachedDisk, offset: usize, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0xee; length];
    disk.read_exact_at(offset as u64, &mut bytes)?;
    Ok(bytes)
}

/// Reads a range and compares it with the image.
fn check(disk: &CachedDisk, image: &Image, offset: usize, length: usize) {
    let found = read(disk, offset, length).unwrap();
    assert!(
        found == image.bytes[offset..offset + length],
        "{length} bytes at {offset}"
    );
}

/// The file of a chunk.
fn file_of(directory: &Path, chunk: u64) -> std::path::PathBuf {
    let name = blake3::hash(&chunk_bytes(chunk)).to_hex();
    let chunks = directory.join("chunks");
    chunks.join(&name[..2]).join(name.as_str())
}

fn settle(cache: &ChunkCache) {
    cache.files.as_ref().unwrap().settle();
}
