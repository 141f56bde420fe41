// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a dirty journal keeps newer copies of a filesystem's blocks; big-endian.
//!
//! | block type | holds |
//! |---|---|
//! | 3, 4 | the journal's superblock: first block, first sequence number, where the log begins |
//! | 1 | a descriptor: tags, each the number of the block that follows in the log |
//! | 2 | the end of a transaction |
//! | 5 | blocks whose older copies are void |
//!
//! This is not a replay: it finds *every* copy, of finished transactions and the one that is not, of
//! void blocks too. Who merges them so that whatever was in use in any copy is in use is right
//! however much of the log a real replay accepts.
//!
//! **Limit:** a journal of 4 Mi blocks.

use super::super::superblock::Fields;
use super::super::superblock::ext::Superblock;
use super::group::Group;
use crate::block::ReadAt;
use crate::error::{Error, Result};

const STRUCTURE: &str = "ext journal";
const MAGIC: u32 = 0xc03b_3998;
const BLOCKS_MAX: u64 = 1 << 22;
const EXTENT_MAGIC: u16 = 0xf30a;
const EXTENT_DEPTH_MAX: u16 = 5;
const FLAG_EXTENTS: u32 = 0x80000;

const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// A newer copy of a block, in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Copy {
    /// Of which block of the filesystem.
    pub(super) of: u64,
    /// The block of the filesystem where the copy stands.
    at: u64,
    /// Its first four bytes were the journal's magic and stand as zeros.
    escaped: bool,
}

/// The copies in the log, ordered by what they are copies of.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<Copy>);

impl Copies {
    /// Calls `merge` with every copy of a block.
    pub(super) fn each(
        &self,
        device: &dyn ReadAt,
        block_size: u64,
        of: u64,
        mut merge: impl FnMut(&[u8]),
    ) -> Result<()> {
        let first = self.0.partition_point(|copy| copy.of < of);
        let mut bytes = vec![0; block_size as usize];
        for copy in self.0[first..].iter().take_while(|copy| copy.of == of) {
            device.read_exact_at(copy.at * block_size, &mut bytes)?;
            if copy.escaped {
                bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
            }
            merge(&bytes);
        }
        Ok(())
    }
}

/// The copies in the journal of a filesystem that was not cleanly unmounted.
pub(super) fn copies(
    device: &dyn ReadAt,
    superblock: &Superblock,
    groups: &[Group],
) -> Result<Copies> {
    if !superblock.needs_recovery() {
        return Ok(Copies::default());
    }
    let log = Log::open(device, superblock, groups)?;
    let mut copies = log.walk()?;
    copies.sort_unstable();
    Ok(Copies(copies))
}

/// The journal as a list of blocks.
struct Log<'a> {
    device: &'a dyn ReadAt,
    superblock: &'a Superblock,
    blocks: Vec<u64>,
    first: u64,
    start: u64,
    sequence: u32,
    incompat: u32,
}

impl<'a> Log<'a> {
    fn open(device: &'a dyn ReadAt, superblock: &'a Superblock, groups: &[Group]) -> Result<Self> {
        let blocks = journal_blocks(device, superblock, groups)?;
        let mut log = Self {
            device,
            superblock,
            blocks,
            first: 0,
            start: 0,
            sequence: 0,
            incompat: 0,
        };
        let bytes = log.read(0)?;
        let fields = Fields(&bytes);
        let kind = fields.u32_be(4);
        if fields.u32_be(0) != MAGIC || !matches!(kind, 3 | 4) {
            return Err(log.broken("expected the journal's superblock"));
        }
        if kind == 4 {
            log.incompat = fields.u32_be(40);
        }
        if log.incompat & INCOMPAT_FAST_COMMIT != 0 {
            return Err(Error::unsupported(
                STRUCTURE,
                "fast_commit in a dirty journal",
            ));
        }
        log.blocks.truncate(fields.u32_be(16) as usize);
        log.first = fields.u32_be(20).into();
        log.sequence = fields.u32_be(24);
        log.start = fields.u32_be(28).into();
        let length = log.blocks.len() as u64;
        match log.first > 0 && log.first < length && log.start < length {
            true => Ok(log),
            false => Err(log.broken("expected a log inside the journal")),
        }
    }

    fn broken(&self, problem: &str) -> Error {
        let block = self.blocks.first().copied().unwrap_or(0);
        Error::corrupt(STRUCTURE, block * self.superblock.block_size, problem)
    }

    fn read(&self, index: u64) -> Result<Vec<u8>> {
        let block = self.blocks.get(index as usize).copied();
        let block = block.ok_or_else(|| self.broken("expected a log inside the journal"))?;
        let mut bytes = vec![0; self.superblock.block_size as usize];
        self.device
            .read_exact_at(block * self.superblock.block_size, &mut bytes)?;
        Ok(bytes)
    }

    fn after(&self, index: u64) -> u64 {
        match index + 1 {
            next if next < self.blocks.len() as u64 => next,
            _ => self.first,
        }
    }

    /// Follows the log until a block that is not its continuation.
    fn walk(&self) -> Result<Vec<Copy>> {
        let mut copies = Vec::new();
        if self.start == 0 {
            return Ok(copies);
        }
        let (mut index, mut sequence) = (self.start, self.sequence);
        let mut left = self.blocks.len();
        while left > 0 {
            let bytes = self.read(index)?;
            let fields = Fields(&bytes);
            if fields.u32_be(0) != MAGIC || fields.u32_be(8) != sequence {
                break;
            }
            index = self.after(index);
            left -= 1;
            match fields.u32_be(4) {
                1 => {
                    for (of, escaped) in self.tags(fields) {
                        let at = self.blocks[index as usize];
                        copies.push(Copy { of, at, escaped });
                        index = self.after(index);
                        left = left.saturating_sub(1);
                    }
                }
                2 => sequence = sequence.wrapping_add(1),
                5 => {}
                _ => break,
            }
        }
        Ok(copies)
    }

    /// The blocks that a descriptor names.
    fn tags(&self, fields: Fields<'_>) -> Vec<(u64, bool)> {
        let version3 = self.incompat & INCOMPAT_CSUM_V3 != 0;
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        let version2 = self.incompat & INCOMPAT_CSUM_V2 != 0;
        let length = match (version3, wide) {
            (true, _) => 16,
            (false, true) => 12 + if version2 { 2 } else { 0 },
            (false, false) => 8 + if version2 { 2 } else { 0 },
        };
        let end = fields.0.len() - if version2 || version3 { 4 } else { 0 };
        let mut tags = Vec::new();
        let mut offset = 12;
        while offset + length <= end {
            let flags = match version3 {
                true => fields.u32_be(offset + 4),
                false => fields.u16_be(offset + 6).into(),
            };
            let high = match wide {
                true => fields.u32_be(offset + 8),
                false => 0,
            };
            let block = u64::from(high) << 32 | u64::from(fields.u32_be(offset));
            tags.push((block, flags & TAG_ESCAPED != 0));
            offset += length;
            if flags & TAG_SAME_UUID == 0 {
                offset += 16;
            }
            if flags & TAG_LAST != 0 {
                break;
            }
        }
        tags
    }
}

/// The blocks of the journal's inode, in order.
fn journal_blocks(
    device: &dyn ReadAt,
    superblock: &Superblock,
    groups: &[Group],
) -> Result<Vec<u64>> {
    let number = u64::from(superblock.journal_inode);
    if number == 0 {
        return Err(Error::unsupported(STRUCTURE, "an external, dirty journal"));
    }
    let group = groups.get(((number - 1) / superblock.inodes_per_group) as usize);
    let group = group.ok_or_else(|| Error::corrupt(STRUCTURE, 0, "its inode does not exist"))?;
    let within = (number - 1) % superblock.inodes_per_group * superblock.inode_size;
    let mut inode = vec![0; superblock.inode_size as usize];
    device.read_exact_at(
        group.inode_table * superblock.block_size + within,
        &mut inode,
    )?;
    let fields = Fields(&inode);
    let size = u64::from(fields.u32(0x6c)) << 32 | u64::from(fields.u32(0x04));
    let count = size / superblock.block_size;
    if count > BLOCKS_MAX {
        return Err(Error::Limit {
            what: "the blocks of a journal",
            limit: BLOCKS_MAX,
        });
    }
    let mut map = Map {
        device,
        superblock,
        blocks: Vec::new(),
        count: count as usize,
        reads_left: count + 8,
    };
    match fields.u32(0x20) & FLAG_EXTENTS {
        0 => map.pointers(fields.bytes(0x28, 60))?,
        _ => map.extents(fields.bytes(0x28, 60), EXTENT_DEPTH_MAX)?,
    }
    match map.blocks.len() == map.count && map.blocks.iter().all(|&at| at < superblock.blocks) {
        true => Ok(map.blocks),
        false => Err(Error::corrupt(STRUCTURE, 0, "its blocks are not all there")),
    }
}

/// The blocks of a file without holes, gathered in order.
struct Map<'a> {
    device: &'a dyn ReadAt,
    superblock: &'a Superblock,
    blocks: Vec<u64>,
    count: usize,
    /// Bounds what a tree that refers to itself can cost.
    reads_left: u64,
}

impl Map<'_> {
    fn read(&mut self, block: u64) -> Result<Vec<u8>> {
        self.reads_left = self
            .reads_left
            .checked_sub(1)
            .ok_or_else(|| Error::corrupt(STRUCTURE, 0, "its tree of blocks does not end"))?;
        let mut bytes = vec![0; self.superblock.block_size as usize];
        let offset = block.saturating_mul(self.superblock.block_size);
        self.device.read_exact_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn extents(&mut self, node: &[u8], depth_max: u16) -> Result<()> {
        let fields = Fields(node);
        let depth = fields.u16(6);
        if fields.u16(0) != EXTENT_MAGIC || depth > depth_max {
            return Err(Error::corrupt(
                STRUCTURE,
                0,
                "expected a node of an extent tree",
            ));
        }
        let entries = usize::from(fields.u16(2)).min(node.len() / 12 - 1);
        for entry in (1..=entries).map(|entry| entry * 12) {
            if depth > 0 {
                let high = u64::from(fields.u16(entry + 8)) << 32;
                let child = self.read(high | u64::from(fields.u32(entry + 4)))?;
                self.extents(&child, depth - 1)?;
                continue;
            }
            let length = fields.u16(entry + 4).into();
            let high = u64::from(fields.u16(entry + 6)) << 32;
            let start = high | u64::from(fields.u32(entry + 8));
            let left = self.count.saturating_sub(self.blocks.len());
            self.blocks.extend((start..).take(usize::min(length, left)));
        }
        Ok(())
    }

    fn pointers(&mut self, root: &[u8]) -> Result<()> {
        let fields = Fields(root);
        for slot in 0..12 {
            self.add(fields.u32(slot * 4).into());
        }
        for levels in 1..=3usize {
            self.indirect(fields.u32((11 + levels) * 4).into(), levels)?;
        }
        Ok(())
    }

    fn add(&mut self, block: u64) {
        if self.blocks.len() < self.count {
            self.blocks.push(block);
        }
    }

    fn indirect(&mut self, block: u64, levels: usize) -> Result<()> {
        if self.blocks.len() >= self.count {
            return Ok(());
        }
        let bytes = self.read(block)?;
        for pointer in bytes.chunks_exact(4) {
            let pointer = u64::from(Fields(pointer).u32(0));
            match levels {
                1 => self.add(pointer),
                _ => self.indirect(pointer, levels - 1)?,
            }
        }
        Ok(())
    }
}
