// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run: an immutable file of index entries, sorted by chunk id.
//!
//! ```text
//! blocks   4096 bytes each: up to 84 entries of 48 bytes, at 4032 the number of entries u32,
//!          at 4040 u64 CRC-64/NVME(first 4040 bytes, block number u64); 48 zero
//!   entry  chunk id [32], pack number u32, offset u32, length u32, plain length u32
//! fences   u64 per block, big-endian: the first 8 bytes of its first id
//! packs    64 bytes each: pack id [32], owner tag [16], length u64, 8 zero
//! filter   lines of 64 bytes ([`Filter`])
//! footer   magic "RLVRUN01", version u32, number of packs u32, number of blocks u64, number of
//!          entries u64, number of lines u64, BLAKE3(fences, packs, filter, the 40 bytes before)
//!          [32]; 72 bytes
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::filter::{Filter, LINE_LENGTH, PIECE_LINES};
use super::{Entry, Location, PackRecord};
use crate::chunk::ChunkId;
use crate::crypto::OwnerTag;
use crate::error::{Error, Result};
use crate::pack::{Extent, PackId};
use crate::store::file;

const BLOCK_LENGTH: usize = 4096;
const ENTRY_LENGTH: usize = 48;
const ID_LENGTH: usize = 32;
pub(super) const ENTRIES_PER_BLOCK: usize = 84;
const COUNT_AT: usize = 4032;
const CHECKSUM_AT: usize = 4040;
const FENCE_LENGTH: u64 = 8;
const PACK_LENGTH: u64 = 64;
const FOOTER_LENGTH: u64 = 72;
const FOOTER_PLAIN: usize = 40;
const MAGIC: &[u8; 8] = b"RLVRUN01";
const VERSION: u32 = 3;
/// Larger counts are damage: a run of so many blocks has 90 thousand million entries.
const BLOCKS_MAX: u64 = 1 << 30;
/// The same for lines of the filter.
const LINES_MAX: u64 = 2 * BLOCKS_MAX;

/// Filters are read and written in pieces of so many bytes.
const FILTER_PIECE_LENGTH: usize = PIECE_LINES * LINE_LENGTH;

/// A run open for reading.
#[derive(Debug)]
pub(crate) struct Run {
    path: PathBuf,
    file: File,
    fences: Vec<u64>,
    packs: Vec<PackRecord>,
    filter: RwLock<Filter>,
    entry_count: u64,
}

impl Run {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::file("open", path))?;
        let length = file.metadata().map_err(Error::file("read", path))?.len();
        let corrupt = |offset, problem: &str| {
            Error::corrupt("index run", path.display().to_string(), offset, problem)
        };
        let Some(footer_at) = length.checked_sub(FOOTER_LENGTH) else {
            return Err(corrupt(0, "it is shorter than a footer"));
        };
        let mut footer = [0; FOOTER_LENGTH as usize];
        file.read_exact_at(&mut footer, footer_at)
            .map_err(Error::file("read", path))?;
        if &footer[..8] != MAGIC || number(&footer, 8, 4) != u64::from(VERSION) {
            return Err(corrupt(
                footer_at,
                "expected the magic RLVRUN01 and version 3",
            ));
        }
        let pack_count = number(&footer, 12, 4);
        let block_count = number(&footer, 16, 8);
        let line_count = number(&footer, 32, 8);
        let are_legal = block_count <= BLOCKS_MAX && (1..=LINES_MAX).contains(&line_count);
        let blocks_length = block_count.min(BLOCKS_MAX) * BLOCK_LENGTH as u64;
        let filter_length = line_count.min(LINES_MAX) * LINE_LENGTH as u64;
        let lists_length = block_count.min(BLOCKS_MAX) * FENCE_LENGTH + pack_count * PACK_LENGTH;
        if !are_legal || blocks_length + lists_length + filter_length != footer_at {
            return Err(corrupt(footer_at, "its length does not fit its counts"));
        }
        let mut lists = vec![0; lists_length as usize];
        file.read_exact_at(&mut lists, blocks_length)
            .map_err(Error::file("read", path))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&lists);
        let filter = read_filter(&file, blocks_length + lists_length, line_count, &mut hasher)
            .map_err(Error::file("read", path))?;
        hasher.update(&footer[..FOOTER_PLAIN]);
        if hasher.finalize().as_bytes() != &footer[FOOTER_PLAIN..] {
            return Err(corrupt(blocks_length, "its checksum is wrong"));
        }
        let (fences, packs) = lists.split_at((block_count * FENCE_LENGTH) as usize);
        Ok(Self {
            path: path.to_owned(),
            file,
            fences: fences.chunks_exact(8).map(fence_from_bytes).collect(),
            packs: packs.chunks_exact(64).map(pack_from_bytes).collect(),
            filter: RwLock::new(filter),
            entry_count: number(&footer, 24, 8),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn packs(&self) -> &[PackRecord] {
        &self.packs
    }

    pub(crate) const fn entry_count(&self) -> u64 {
        self.entry_count
    }

    pub(crate) fn block_count(&self) -> usize {
        self.fences.len()
    }

    fn may_have(&self, id: &ChunkId) -> bool {
        let filter = self.filter.read();
        // Filters are whole at any time.
        filter.unwrap_or_else(PoisonError::into_inner).may_have(id)
    }

    /// Frees the memory of the filter: from now on every look-up reads a block. For runs that are
    /// merged: their filters and that of the merged one are as large again as the whole index.
    pub(super) fn forget_filter(&self) {
        let filter = self.filter.write();
        *filter.unwrap_or_else(PoisonError::into_inner) = Filter::of_everything();
    }

    /// Every entry with this id.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Vec<Entry>> {
        let found = self.find_places(id)?.into_iter();
        Ok(found.map(|(_, entry)| entry).collect())
    }

    /// Every entry with this id and its place: blocks before it times entries of a full block, and
    /// the entries before it in its block.
    pub(super) fn find_places(&self, id: &ChunkId) -> Result<Vec<(u64, Entry)>> {
        if !self.may_have(id) {
            return Ok(Vec::new());
        }
        let prefix = id.prefix();
        // Entries with the prefix of a fence may begin in the block before it.
        let first = self.fences.partition_point(|fence| *fence < prefix);
        let mut found = Vec::new();
        for block in first.saturating_sub(1)..self.fences.len() {
            if self.fences[block] > prefix {
                break;
            }
            let block_bytes = self.read_raw(block)?;
            let entries = entries_of(&block_bytes);
            // Sought among the bytes: this is asked for every chunk of every snapshot.
            let start = entries.partition_point(|entry| entry[..ID_LENGTH] < id.as_bytes()[..]);
            let same = entries[start..].iter();
            let same = same.take_while(|entry| entry[..ID_LENGTH] == id.as_bytes()[..]);
            let places = (block * ENTRIES_PER_BLOCK + start) as u64..;
            found.extend(places.zip(same.map(entry_from_bytes)));
        }
        Ok(found)
    }

    /// What the entry of this run names.
    pub(crate) fn locate(&self, entry: &Entry) -> Result<Location> {
        let record = self.packs.get(entry.pack as usize).ok_or_else(|| {
            let problem = format!("there is no pack number {}", entry.pack);
            Error::corrupt("index run", self.path.display().to_string(), 0, problem)
        })?;
        Ok(Location {
            pack: record.id,
            owner: record.owner,
            extent: entry.extent,
        })
    }

    /// The entries of one block.
    pub(crate) fn read_block(&self, block: usize) -> Result<Vec<Entry>> {
        let bytes = self.read_raw(block)?;
        Ok(entries_of(&bytes).iter().map(entry_from_bytes).collect())
    }

    /// The bytes of one block, checked.
    fn read_raw(&self, block: usize) -> Result<[u8; BLOCK_LENGTH]> {
        let offset = block as u64 * BLOCK_LENGTH as u64;
        let mut bytes = [0; BLOCK_LENGTH];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(Error::file("read", &self.path))?;
        let corrupt = |problem: &str| {
            let place = self.path.display().to_string();
            Error::corrupt("index block", place, offset, problem)
        };
        if bytes[CHECKSUM_AT..CHECKSUM_AT + 8] != block_checksum(&bytes, block as u64) {
            return Err(corrupt("its checksum is wrong"));
        }
        if number(&bytes, COUNT_AT, 4) as usize > ENTRIES_PER_BLOCK {
            return Err(corrupt("it has too many entries"));
        }
        Ok(bytes)
    }
}

/// The entries of a block that was checked.
fn entries_of(block: &[u8; BLOCK_LENGTH]) -> &[[u8; ENTRY_LENGTH]] {
    let count = number(block, COUNT_AT, 4) as usize;
    block[..count * ENTRY_LENGTH].as_chunks().0
}

/// Writes a run from sorted entries.
#[derive(Debug)]
pub(crate) struct RunWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    block: Vec<u8>,
    fences: Vec<u8>,
    filter: Filter,
    entry_count: u64,
}

impl RunWriter {
    /// Creates a run of at most so many entries under a temporary name beside `path`.
    pub(crate) fn create(path: &Path, entries_max: u64) -> Result<Self> {
        let temporary = path.with_extension("tmp");
        let file = File::create(&temporary).map_err(Error::file("create", &temporary))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file: BufWriter::with_capacity(1 << 18, file),
            block: Vec::with_capacity(BLOCK_LENGTH),
            fences: Vec::new(),
            filter: Filter::new(entries_max),
            entry_count: 0,
        })
    }

    /// Appends an entry, which is not below the one before.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<()> {
        if self.block.is_empty() {
            let fence = entry.id.prefix().to_be_bytes();
            self.fences.extend_from_slice(&fence);
        }
        self.filter.add(&entry.id);
        self.block.extend_from_slice(entry.id.as_bytes());
        let extent = &entry.extent;
        for field in [
            entry.pack,
            extent.offset,
            extent.length,
            extent.plain_length,
        ] {
            self.block.extend_from_slice(&field.to_le_bytes());
        }
        self.entry_count += 1;
        if self.block.len() == ENTRIES_PER_BLOCK * ENTRY_LENGTH {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<()> {
        let count = (self.block.len() / ENTRY_LENGTH) as u32;
        let number = self.fences.len() as u64 / FENCE_LENGTH - 1;
        self.block.resize(BLOCK_LENGTH, 0);
        self.block[COUNT_AT..COUNT_AT + 4].copy_from_slice(&count.to_le_bytes());
        let checksum = block_checksum(&self.block, number);
        self.block[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&checksum);
        self.file
            .write_all(&self.block)
            .map_err(Error::file("write", &self.temporary))?;
        self.block.clear();
        Ok(())
    }

    /// Names the run and opens it.
    pub(crate) fn finish(mut self, packs: &[PackRecord]) -> Result<Run> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut tail = std::mem::take(&mut self.fences);
        let block_count = tail.len() as u64 / FENCE_LENGTH;
        for pack in packs {
            tail.extend_from_slice(pack.id.as_bytes());
            tail.extend_from_slice(&pack.owner.0);
            tail.extend_from_slice(&pack.length.to_le_bytes());
            tail.extend_from_slice(&[0; 8]);
        }
        let mut footer = Vec::with_capacity(FOOTER_LENGTH as usize);
        footer.extend_from_slice(MAGIC);
        footer.extend_from_slice(&VERSION.to_le_bytes());
        footer.extend_from_slice(&(packs.len() as u32).to_le_bytes());
        footer.extend_from_slice(&block_count.to_le_bytes());
        footer.extend_from_slice(&self.entry_count.to_le_bytes());
        footer.extend_from_slice(&(self.filter.line_count() as u64).to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&tail);
        self.file
            .write_all(&tail)
            .and_then(|()| write_filter(&mut self.file, &self.filter, &mut hasher))
            .map_err(Error::file("write", &self.temporary))?;
        hasher.update(&footer);
        footer.extend_from_slice(hasher.finalize().as_bytes());
        self.file
            .write_all(&footer)
            .and_then(|()| self.file.flush())
            // A cache, but one that should not have to be discarded after a power failure.
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(Error::file("write", &self.temporary))?;
        // Else there would be two of the same in memory, which for 1 TiB are 16 MiB each.
        self.filter = Filter::of_everything();
        file::rename(&self.temporary, &self.path)?;
        Run::open(&self.path)
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        // After `finish` there is nothing under this name; otherwise it is half a run.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Reads a filter a piece at a time: that of 1 TiB is 16 MiB, and should not be in memory twice.
fn read_filter(
    file: &File,
    at: u64,
    line_count: u64,
    hasher: &mut blake3::Hasher,
) -> std::io::Result<Filter> {
    let mut filter = Filter::of_everything();
    let mut at = at;
    let end = at + line_count * LINE_LENGTH as u64;
    let mut bytes = vec![0; FILTER_PIECE_LENGTH];
    while at < end {
        // At most a piece.
        let length = (end - at).min(FILTER_PIECE_LENGTH as u64) as usize;
        let bytes = &mut bytes[..length];
        file.read_exact_at(bytes, at)?;
        hasher.update(bytes);
        filter.push_piece(bytes.as_chunks().0.iter().map(line_from_bytes).collect());
        at += length as u64;
    }
    Ok(filter)
}

fn write_filter(
    file: &mut impl Write,
    filter: &Filter,
    hasher: &mut blake3::Hasher,
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(FILTER_PIECE_LENGTH);
    for lines in filter.pieces() {
        bytes.clear();
        let words = lines.iter().flatten();
        bytes.extend(words.flat_map(|word| word.to_le_bytes()));
        hasher.update(&bytes);
        file.write_all(&bytes)?;
    }
    Ok(())
}

fn line_from_bytes(bytes: &[u8; LINE_LENGTH]) -> [u64; 8] {
    let mut line = [0; 8];
    for (word, bytes) in line.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    line
}

/// Tells accidents of the medium. Not BLAKE3: that took two thirds of the time of a look-up, and a run
/// is a cache without a key, so whoever may write it may write its checksums too.
fn block_checksum(block: &[u8], number: u64) -> [u8; 8] {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    digest.update(&block[..CHECKSUM_AT]);
    digest.update(&number.to_le_bytes());
    digest.finalize().to_le_bytes()
}

/// A little-endian number of up to eight bytes; the caller has checked that they are there.
fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    let mut number = [0; 8];
    number[..length].copy_from_slice(&bytes[offset..offset + length]);
    u64::from_le_bytes(number)
}

fn fence_from_bytes(bytes: &[u8]) -> u64 {
    number(bytes, 0, 8).swap_bytes()
}

fn pack_from_bytes(bytes: &[u8]) -> PackRecord {
    let mut id = [0; 32];
    let mut owner = [0; 16];
    id.copy_from_slice(&bytes[..32]);
    owner.copy_from_slice(&bytes[32..48]);
    PackRecord {
        id: PackId::from_bytes(id),
        owner: OwnerTag(owner),
        length: number(bytes, 48, 8),
    }
}

fn entry_from_bytes(bytes: &[u8; ENTRY_LENGTH]) -> Entry {
    let mut id = [0; ID_LENGTH];
    id.copy_from_slice(&bytes[..ID_LENGTH]);
    let field = |at| number(bytes, at, 4) as u32;
    Entry {
        id: ChunkId::from_bytes(id),
        pack: field(32),
        extent: Extent {
            offset: field(36),
            length: field(40),
            plain_length: field(44),
        },
    }
}
