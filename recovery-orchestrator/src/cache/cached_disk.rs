// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of an image that is read through a cache.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use disk::block::{Extent, ExtentKind};
use disk::{Error, ReadAt, Result};
use image_library::{ContentHash, DiskHashes};

use super::counters::{CacheCounters, Counters};
use super::fetch::{Claimed, Fetched};
use super::files::Bytes;
use super::flight::{Flight, Flights, Outcome};
use super::leaves::{Leaves, shared_error};
use super::readers::Readers;
use super::turns::Turns;
use super::{ChunkCache, Keep, Lookup};

/// How long somebody else's fetch is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a disk is fetched.
#[derive(Debug, Clone, Copy)]
pub struct FetchOptions {
    /// A read that follows no other fetches what is missing within aligned blocks of so many bytes.
    pub random_bytes: u64,
    /// A read that goes on where another stopped fetches what is missing up to the next multiple of
    /// so many bytes.
    pub sequential_bytes: u64,
    /// How many leaves of hashes stay in memory: 66 KiB each, for 2048 chunks.
    pub leaf_count_max: usize,
    /// How many requests [`CachedDisk::prefetch`] makes at a time.
    pub prefetch_request_count: usize,
    /// What lies between two ranges that are fetched ahead is fetched along if it is no longer than
    /// so many bytes.
    pub gap_bytes: u64,
}

impl FetchOptions {
    /// For an image behind a server, where a request costs a way there and back.
    #[must_use]
    pub fn for_server() -> Self {
        Self {
            random_bytes: 1 << 20,
            prefetch_request_count: 8,
            gap_bytes: 256 << 10,
            ..Self::default()
        }
    }
}

impl Default for FetchOptions {
    /// For an image in a directory or a bucket. Larger blocks are quicker to boot from the longer
    /// a request takes, and slower the less the way to the image carries: 256 KiB were never far
    /// from the best from 0 to 10 ms.
    fn default() -> Self {
        Self {
            random_bytes: 256 << 10,
            sequential_bytes: 1 << 20,
            leaf_count_max: 256,
            prefetch_request_count: 4,
            gap_bytes: 0,
        }
    }
}

/// A disk of an image, read through a cache: by any number of threads at a time.
///
/// What comes from the image is checked against its hashes. Where one chunk is damaged there, only
/// reads of that chunk fail.
#[derive(Debug)]
pub struct CachedDisk {
    pub(super) cache: Arc<ChunkCache>,
    pub(super) image: Arc<dyn ReadAt>,
    pub(super) leaves: Leaves,
    pub(super) flights: Flights<ContentHash, Bytes>,
    pub(super) turns: Turns,
    pub(super) counters: Counters,
    pub(super) options: FetchOptions,
    pub(super) chunk_size: u64,
    pub(super) length: u64,
    readers: Readers,
}

/// The part of one chunk that a read wants.
struct Piece<'a> {
    chunk: u64,
    /// Where the part begins in the chunk.
    start: usize,
    target: &'a mut [u8],
}

/// A piece that somebody else fetches.
struct Late<'a> {
    piece: Piece<'a>,
    hash: ContentHash,
    flight: Arc<Flight<Bytes>>,
}

impl CachedDisk {
    /// Reads `image` through `cache`; `hashes` are those of the same disk.
    ///
    /// # Errors
    ///
    /// [`disk::Error::Corrupt`] when the hashes are those of a disk of another length.
    pub fn new(
        cache: Arc<ChunkCache>,
        image: Arc<dyn ReadAt>,
        hashes: Arc<dyn DiskHashes>,
        options: FetchOptions,
    ) -> Result<Self> {
        let length = image.length_bytes();
        let chunk_size = u64::from(hashes.chunk_size_bytes());
        Ok(Self {
            leaves: Leaves::new(hashes, length, options.leaf_count_max)?,
            flights: Flights::default(),
            turns: Turns::default(),
            counters: Counters::default(),
            readers: Readers::default(),
            cache,
            image,
            options,
            chunk_size,
            length,
        })
    }

    /// What the cache was good for so far.
    #[must_use]
    pub fn counters(&self) -> CacheCounters {
        self.counters.now()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        let wanted = self.chunks_of(&(offset..end));
        let bounds = self.fetch_bounds(&(offset..end));
        let mut fetched = Fetched::default();
        let mut late = Vec::new();
        for piece in self.pieces(offset, buffer) {
            let Some(hash) = self.leaves.hash_of(piece.chunk)? else {
                piece.target.fill(0);
                continue;
            };
            if let Some(outcome) = fetched.remove(&piece.chunk) {
                self.give(piece, outcome)?;
                continue;
            }
            if let Some(bytes) = self.at_hand(piece.chunk, &hash) {
                self.give(piece, Ok(bytes))?;
                continue;
            }
            match self.claim(hash) {
                Claimed::Here(bytes) => self.give(piece, Ok(bytes))?,
                Claimed::Others(flight) => late.push(Late {
                    piece,
                    hash,
                    flight,
                }),
                Claimed::Mine(claim) => {
                    let _waiting = self.turns.waiting();
                    // What is before it in this read was given already.
                    let is_first = piece.chunk == wanted.start;
                    let start = if is_first { bounds.start } else { piece.chunk };
                    let unit = self.unit(piece.chunk, hash, claim, &(start..bounds.end));
                    fetched = self.fetch(unit, &wanted, Keep::Now);
                    if let Some(outcome) = fetched.remove(&piece.chunk) {
                        self.give(piece, outcome)?;
                    }
                }
            }
        }
        // No claim is held by now: who is waited for does not wait for this reader.
        late.into_iter().try_for_each(|late| self.wait_for(late))
    }

    /// A chunk from memory or a file.
    fn at_hand(&self, chunk: u64, hash: &ContentHash) -> Option<Bytes> {
        match self.cache.find(hash, self.chunk_length(chunk)) {
            Lookup::Memory(bytes) => {
                self.counters.memory_hits.add(1);
                Some(bytes)
            }
            Lookup::File(bytes) => {
                self.counters.disk_hits.add(1);
                Some(bytes)
            }
            Lookup::Damaged => {
                self.counters.damaged_files.add(1);
                None
            }
            Lookup::Nowhere => None,
        }
    }

    /// Waits for what somebody else fetches. Where that fails it is tried once more: who came late
    /// would be given less patience than the image has, and a guest takes an error badly.
    fn wait_for(&self, late: Late<'_>) -> Result<()> {
        let Late {
            piece,
            hash,
            mut flight,
        } = late;
        let chunk = piece.chunk;
        let mut has_failed = false;
        loop {
            match flight.wait(PATIENCE) {
                Some(Outcome::Done(bytes)) => {
                    self.counters.memory_hits.add(1);
                    return self.give(piece, Ok(bytes));
                }
                Some(Outcome::Failed(error)) if has_failed => return self.give(piece, Err(error)),
                Some(Outcome::Failed(_)) => has_failed = true,
                Some(Outcome::Abandoned) => {}
                None => {
                    let bytes = self.read_chunk(chunk, &hash).map_err(Arc::new);
                    return self.give(piece, bytes);
                }
            }
            if let Some(bytes) = self.at_hand(chunk, &hash) {
                return self.give(piece, Ok(bytes));
            }
            match self.claim(hash) {
                Claimed::Here(bytes) => return self.give(piece, Ok(bytes)),
                Claimed::Others(other) => flight = other,
                Claimed::Mine(claim) => {
                    let alone = chunk..chunk.saturating_add(1);
                    let unit = self.unit(chunk, hash, claim, &alone);
                    let mut fetched = self.fetch(unit, &alone, Keep::Now);
                    let outcome = fetched.remove(&chunk);
                    return outcome.map_or(Ok(()), |outcome| self.give(piece, outcome));
                }
            }
        }
    }

    /// Copies what a read wants of a chunk.
    fn give(&self, piece: Piece<'_>, outcome: Result<Bytes, Arc<Error>>) -> Result<()> {
        let Piece {
            chunk,
            start,
            target,
        } = piece;
        let offset = self.offset_of(chunk).saturating_add(start as u64);
        let length = target.len() as u64;
        let bytes = outcome.map_err(|error| shared_error(offset, length, error))?;
        let part = bytes.get(start..start.saturating_add(target.len()));
        let part = part.ok_or_else(|| {
            // A hash cannot be that of two lengths; hashes that are lies can be.
            let problem = format!("expected {} bytes, found {}", target.len(), bytes.len());
            Error::corrupt("chunk", offset, problem)
        })?;
        target.copy_from_slice(part);
        Ok(())
    }

    /// Takes a read apart.
    fn pieces<'a>(&self, offset: u64, buffer: &'a mut [u8]) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            // Less than a chunk, whose size is an u32.
            let start = (at % self.chunk_size) as usize;
            let length = (self.chunk_size as usize - start).min(rest.len());
            let (target, tail) = rest.split_at_mut(length);
            pieces.push(Piece {
                chunk: at / self.chunk_size,
                start,
                target,
            });
            rest = tail;
            at += length as u64;
        }
        pieces
    }

    /// Which chunks are worth fetching with a read.
    fn fetch_bounds(&self, read: &Range<u64>) -> Range<u64> {
        let goes_on = self.readers.note(read.clone());
        let (block, start) = if goes_on {
            let block = self.options.sequential_bytes.max(1);
            (block, read.start)
        } else {
            let block = self.options.random_bytes.max(1);
            (block, read.start / block * block)
        };
        let end = read.end.checked_next_multiple_of(block);
        let end = end.map_or(self.length, |end| end.min(self.length));
        self.chunks_of(&(start..end))
    }

    /// The chunks that hold a range of bytes.
    pub(super) fn chunks_of(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.chunk_size..range.end.div_ceil(self.chunk_size)
    }

    pub(super) fn offset_of(&self, chunk: u64) -> u64 {
        chunk.saturating_mul(self.chunk_size)
    }

    /// Length of a chunk in bytes; the last one may be shorter.
    pub(super) fn chunk_length(&self, chunk: u64) -> usize {
        let left = self.length.saturating_sub(self.offset_of(chunk));
        // At most the size of a chunk, which is an u32.
        left.min(self.chunk_size) as usize
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(Error::Device {
                action: "read",
                offset,
                length,
                source: format!("the disk ends at byte {:#x}", self.length).into(),
            }),
        }
    }
}

impl ReadAt for CachedDisk {
    fn length_bytes(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check_range(offset, buffer.len() as u64)?;
        self.read(offset, buffer)
    }

    /// From the hashes, within a leaf; a hole that goes on beyond it is told whole where the image
    /// knows it.
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        let chunk = offset / self.chunk_size;
        let (alike, is_hole) = self.leaves.run_from(chunk)?;
        let mut end = self.offset_of(chunk.saturating_add(alike)).min(self.length);
        let kind = if is_hole {
            ExtentKind::Zero
        } else {
            ExtentKind::Data
        };
        let is_at_leaf_end = Leaves::is_leaf_start(end / self.chunk_size);
        if is_hole && is_at_leaf_end && end < self.length {
            // What cannot be told is data, or told when it is asked for.
            let next = self.image.extent_at(end).ok();
            let next = next.filter(|next| next.kind == ExtentKind::Zero);
            end = next.map_or(end, |next| end.saturating_add(next.length).min(self.length));
        }
        Ok(Extent {
            length: end - offset,
            kind,
        })
    }
}
