// SPDX-License-Identifier: MIT OR Apache-2.0
//! Forks: bytes within the inode, a list of extents, or the root of a tree of them.
//!
//! An extent is 128 bits: 1 unwritten, 54 first block of the file, 52 first block of the
//! filesystem, 21 count. The root of a tree is level and count, 2 bytes each, then keys and
//! pointers, 8 bytes each; its blocks (`BMAP`, `BMA3`) have level and count at 4 and 6, and records
//! of 16 bytes behind a header of 24 or 72.
//!
//! **Invariant:** extents of a mapping are ascending and apart, and each lies in one group.
//! **Limit:** 4 Mi extents.
//!
//! Facts: Linux, `fs/xfs/libxfs/xfs_format.h`, `xfs_bmap_btree.c`.

use std::ops::{Deref, Range};

use super::volume::{Block, Volume};
use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::Fields;

const FORK: &str = "XFS inode fork";
const TREE: &str = "XFS extent tree";
const EXTENTS_MAX: usize = 1 << 22;
const LEVELS_MAX: u16 = 12;
const RECORD: usize = 16;

/// How a fork is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Local,
    Extents,
    Tree,
}

impl Format {
    pub(super) const LOCAL: u8 = 1;

    pub(super) fn of(format: u8) -> Option<Self> {
        Some(match format {
            Self::LOCAL => Self::Local,
            2 => Self::Extents,
            3 => Self::Tree,
            _ => return None,
        })
    }
}

/// A fork of an inode.
#[derive(Debug)]
pub(super) struct Fork {
    /// The inode's number.
    pub(super) owner: u64,
    /// Where the inode stands, in bytes.
    pub(super) offset: u64,
    pub(super) format: Format,
    pub(super) bytes: Vec<u8>,
    /// How many extents there are.
    pub(super) extents: u64,
}

/// Some blocks of a file that are together in the filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first block within the file.
    pub(super) first: u64,
    pub(super) blocks: u64,
    /// Where it stands, in bytes.
    pub(super) offset: u64,
    /// Reserved, but never written: it reads as zeros.
    pub(super) unwritten: bool,
}

impl Extent {
    pub(super) fn end(self) -> u64 {
        self.first + self.blocks
    }
}

/// The extents of a part of a file.
#[derive(Debug, Default)]
pub(super) struct Mapping(pub(super) Vec<Extent>);

impl Mapping {
    /// Reads some blocks of a file as one structure; `None` where any is a hole.
    pub(super) fn read<D: Deref<Target: ReadAt>>(
        &self,
        volume: &Volume<D>,
        first: u64,
        blocks: u64,
    ) -> Result<Option<Block>> {
        let block_size = volume.superblock.block_size;
        let mut result: Option<Block> = None;
        let mut at = first;
        while at < first + blocks {
            let index = self.0.partition_point(|extent| extent.end() <= at);
            let Some(extent) = self.0.get(index).filter(|extent| extent.first <= at) else {
                return Ok(None);
            };
            let count = extent.end().min(first + blocks) - at;
            let offset = extent.offset + (at - extent.first) * block_size;
            let piece = volume.read(offset, (count * block_size) as usize)?;
            match &mut result {
                Some(block) => {
                    block.bytes.extend_from_slice(&piece.bytes);
                    block.replayed |= piece.replayed;
                }
                None => result = Some(piece),
            }
            at += count;
        }
        Ok(result)
    }
}

impl Fork {
    /// The extents that have something of the blocks `range` of the file.
    pub(super) fn mapping<D: Deref<Target: ReadAt>>(
        &self,
        volume: &Volume<D>,
        range: Range<u64>,
    ) -> Result<Mapping> {
        let mut walk = Walk {
            volume,
            fork: self,
            range,
            end: 0,
            found: Vec::new(),
        };
        match self.format {
            Format::Local => {
                let problem = "expected extents, found bytes within the inode";
                return Err(Error::corrupt(FORK, self.offset, problem));
            }
            Format::Extents => {
                let length = usize::try_from(self.extents).ok();
                let length = length.and_then(|count| count.checked_mul(RECORD));
                let records = length.and_then(|length| self.bytes.get(..length));
                let records = records.ok_or_else(|| {
                    Error::corrupt(FORK, self.offset, "more extents than fit the inode")
                })?;
                walk.records(FORK, self.offset, records)?;
            }
            Format::Tree => walk.root()?,
        }
        Ok(Mapping(walk.found))
    }
}

/// A walk over the extents, which stays out of what lies before and behind the range.
struct Walk<'w, D> {
    volume: &'w Volume<D>,
    fork: &'w Fork,
    range: Range<u64>,
    /// The end of the last extent that was met.
    end: u64,
    found: Vec<Extent>,
}

impl<D: Deref<Target: ReadAt>> Walk<'_, D> {
    fn root(&mut self) -> Result<()> {
        let fields = Fields(&self.fork.bytes);
        let (level, count) = (fields.u16_be(0), usize::from(fields.u16_be(2)));
        let room = self.fork.bytes.len().saturating_sub(4) / RECORD;
        let records = self.fork.bytes.get(4..).unwrap_or_default();
        if !(1..=LEVELS_MAX).contains(&level) || count > room {
            let problem = format!("the root of its tree has level {level} and {count} records");
            return Err(Error::corrupt(FORK, self.fork.offset, problem));
        }
        self.children(self.fork.offset, records, count, room, level)
    }

    /// Descends into those children that can have something of the range.
    fn children(
        &mut self,
        offset: u64,
        records: &[u8],
        count: usize,
        room: usize,
        level: u16,
    ) -> Result<()> {
        let fields = Fields(records);
        for index in 0..count {
            let key = fields.u64_be(index * 8);
            let next = match index + 1 < count {
                true => fields.u64_be((index + 1) * 8),
                false => u64::MAX,
            };
            if key >= next {
                return Err(Error::corrupt(TREE, offset, "its keys do not ascend"));
            }
            if next > self.range.start && key < self.range.end {
                let child = fields.u64_be(room * 8 + index * 8);
                self.node(offset, child, level - 1)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, parent: u64, number: u64, level: u16) -> Result<()> {
        let superblock = &self.volume.superblock;
        let offset = superblock.byte_of_run(TREE, parent, number, 1)?;
        let block = self.volume.read(offset, superblock.block_size as usize)?;
        let magic = match superblock.has_checksums {
            true => b"BMA3",
            false => b"BMAP",
        };
        block.check(TREE, block.bytes.starts_with(magic), None, superblock)?;
        let header = superblock.tree_header_length();
        let (_, records) = block.bytes.split_at(header.min(block.bytes.len()));
        let count = usize::from(block.fields().u16_be(6));
        let room = records.len() / RECORD;
        if block.fields().u16_be(4) != level || count > room || count == 0 {
            let problem = format!("expected level {level} and up to {room} records");
            return Err(Error::corrupt(TREE, offset, problem));
        }
        match level {
            0 => self.records(TREE, offset, &records[..count * RECORD]),
            _ => self.children(offset, records, count, room, level),
        }
    }

    fn records(&mut self, structure: &'static str, offset: u64, records: &[u8]) -> Result<()> {
        for record in records.chunks_exact(RECORD) {
            let (high, low) = (Fields(record).u64_be(0), Fields(record).u64_be(8));
            let first = high >> 9 & ((1 << 54) - 1);
            let block = (high & 0x1ff) << 43 | low >> 21;
            let blocks = low & 0x1f_ffff;
            if first < self.end || blocks == 0 {
                let problem = format!(
                    "expected an extent behind block {:#x} of the file",
                    self.end
                );
                return Err(Error::corrupt(structure, offset, problem));
            }
            self.end = first + blocks;
            if self.end <= self.range.start || first >= self.range.end {
                continue;
            }
            if self.found.len() >= EXTENTS_MAX {
                return Err(Error::Limit {
                    what: "the extents of a guest's file",
                    limit: EXTENTS_MAX as u64,
                });
            }
            let superblock = &self.volume.superblock;
            self.found.push(Extent {
                first,
                blocks,
                offset: superblock.byte_of_run(structure, offset, block, blocks)?,
                unwritten: high >> 63 != 0,
            });
        }
        Ok(())
    }
}
