// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which bytes of an XFS are in use: all but what the tree of free space of each group lists.
//!
//! | block | holds |
//! |---|---|
//! | `XAGF`, the second sector of a group | length at 12, root and height of the tree at 16 and 28, free blocks at 52 |
//! | `ABTB`, `AB3B` | level at 4, records at 6, right neighbour at 12; then keys and pointers, or first block and count of free runs |
//!
//! Headers of groups, the log, blocks kept for the trees themselves and those that a copy on write
//! has reserved are free nowhere, and so in use. A log that is not empty is replayed in memory
//! first: what it frees is free, as it will be when the guest has mounted the filesystem.
//!
//! Facts: Linux, `fs/xfs/libxfs/xfs_format.h`, `xfs_alloc_btree.c`.

use std::ops::{Deref, Range};

use super::super::extents::Extents;
use super::super::superblock::xfs::Superblock;
use super::volume::{Block, Volume};
use crate::block::ReadAt;
use crate::error::{Error, Result};

const GROUP: &str = "XFS free space header";
const TREE: &str = "XFS free space tree";
const LEVELS_MAX: u32 = 10;
const NO_BLOCK: u32 = u32::MAX;

pub(crate) fn used_extents(
    device: &dyn ReadAt,
    superblock: &Superblock,
) -> Result<Vec<Range<u64>>> {
    superblock.require_known_allocation()?;
    let volume = Volume::open(device, superblock.clone())?;
    let mut used = Extents::default();
    for number in 0..volume.superblock.groups {
        let group = Group::read(&volume, number)?;
        group.used(&volume, &mut used)?;
    }
    Ok(used.finish(device.length_bytes()))
}

/// The free bytes, as the kernel counts them when it mounts.
pub(super) fn free_bytes<D: Deref<Target: ReadAt>>(volume: &Volume<D>) -> Result<u64> {
    let superblock = &volume.superblock;
    let mut blocks: u64 = 0;
    if !volume.recovery.is_dirty() {
        blocks = superblock.free_blocks.min(superblock.blocks);
    } else {
        // The superblock's own count is brought up to date by an unmount only.
        for number in 0..superblock.groups {
            blocks += Group::read(volume, number)?.available_blocks;
        }
    }
    Ok(blocks * superblock.block_size)
}

/// What the header of a group says about its free space.
#[derive(Debug)]
struct Group {
    number: u64,
    /// Where its header stands, in bytes.
    offset: u64,
    blocks: u64,
    root: u32,
    levels: u32,
    free_blocks: u64,
    /// With those that the trees of free space hold or have in reserve.
    available_blocks: u64,
}

impl Group {
    fn read<D: Deref<Target: ReadAt>>(volume: &Volume<D>, number: u64) -> Result<Self> {
        let superblock = &volume.superblock;
        let offset = superblock.group_start(number) + superblock.sector_size;
        let block = volume.read(offset, superblock.sector_size as usize)?;
        block.check(GROUP, block.bytes.starts_with(b"XAGF"), None, superblock)?;
        let fields = block.fields();
        let free_blocks = u64::from(fields.u32_be(52));
        let others = u64::from(fields.u32_be(48)) + u64::from(fields.u32_be(60));
        let group = Self {
            number,
            offset,
            blocks: superblock.group_length(number),
            root: fields.u32_be(16),
            levels: fields.u32_be(28),
            free_blocks,
            available_blocks: free_blocks + others,
        };
        let length = u64::from(fields.u32_be(12));
        if length != group.blocks || u64::from(fields.u32_be(8)) != number {
            return Err(group.broken(format!(
                "expected group {number} of {} blocks, found another",
                group.blocks
            )));
        }
        match (1..=LEVELS_MAX).contains(&group.levels) && group.available_blocks <= length {
            true => Ok(group),
            false => Err(group.broken("its counts are none that a group has".to_owned())),
        }
    }

    fn broken(&self, problem: String) -> Error {
        Error::corrupt(GROUP, self.offset, problem)
    }

    /// Adds what is not free, in ascending order.
    fn used<D: Deref<Target: ReadAt>>(&self, volume: &Volume<D>, used: &mut Extents) -> Result<()> {
        let block_size = volume.superblock.block_size;
        let start = volume.superblock.group_start(self.number);
        let mut add = |blocks: Range<u64>| {
            used.push(start + blocks.start * block_size..start + blocks.end * block_size);
        };
        let (mut end, mut free) = (0, 0);
        let mut leaf = Some(self.first_leaf(volume)?);
        while let Some(block) = leaf {
            for run in runs(&block, &volume.superblock)? {
                if run.start < end || run.is_empty() || run.end > self.blocks {
                    let problem = format!("expected a run behind block {end:#x}, found {run:?}");
                    return Err(Error::corrupt(TREE, block.offset, problem));
                }
                add(end..run.start);
                free += run.end - run.start;
                end = run.end;
            }
            leaf = match block.fields().u32_be(12) {
                NO_BLOCK => None,
                // An empty leaf could go round in circles.
                _ if block.fields().u16_be(6) == 0 => {
                    return Err(Error::corrupt(
                        TREE,
                        block.offset,
                        "an empty leaf has a neighbour",
                    ));
                }
                next => Some(self.node(volume, next, 0)?),
            };
        }
        add(end..self.blocks);
        match free == self.free_blocks {
            true => Ok(()),
            false => Err(self.broken(format!(
                "expected {} free blocks, found {free} in the tree",
                self.free_blocks
            ))),
        }
    }

    fn first_leaf<D: Deref<Target: ReadAt>>(&self, volume: &Volume<D>) -> Result<Block> {
        let mut level = self.levels - 1;
        let mut block = self.node(volume, self.root, level)?;
        while level > 0 {
            let header = header_length(&volume.superblock);
            let records_max = (block.bytes.len() - header) / 12;
            let child = block.fields().u32_be(header + records_max * 8);
            level -= 1;
            block = self.node(volume, child, level)?;
        }
        Ok(block)
    }

    fn node<D: Deref<Target: ReadAt>>(
        &self,
        volume: &Volume<D>,
        number: u32,
        level: u32,
    ) -> Result<Block> {
        let superblock = &volume.superblock;
        if u64::from(number) >= self.blocks {
            return Err(self.broken(format!("its tree goes on in block {number:#x}")));
        }
        let offset =
            superblock.group_start(self.number) + u64::from(number) * superblock.block_size;
        let block = volume.read(offset, superblock.block_size as usize)?;
        let magic = match superblock.has_checksums {
            true => b"AB3B",
            false => b"ABTB",
        };
        block.check(TREE, block.bytes.starts_with(magic), None, superblock)?;
        match u32::from(block.fields().u16_be(4)) == level {
            true => Ok(block),
            false => Err(Error::corrupt(
                TREE,
                offset,
                format!("expected level {level}"),
            )),
        }
    }
}

fn header_length(superblock: &Superblock) -> usize {
    match superblock.has_checksums {
        true => 56,
        false => 16,
    }
}

/// The runs of free blocks of a leaf.
fn runs(leaf: &Block, superblock: &Superblock) -> Result<Vec<Range<u64>>> {
    let length = usize::from(leaf.fields().u16_be(6)) * 8;
    let records = leaf.fields().bytes(header_length(superblock), length);
    if records.len() != length {
        return Err(Error::corrupt(TREE, leaf.offset, "more records than fit"));
    }
    let numbers = |record: &[u8]| {
        let fields = crate::fields::Fields(record);
        let start = u64::from(fields.u32_be(0));
        start..start + u64::from(fields.u32_be(4))
    };
    Ok(records.chunks_exact(8).map(numbers).collect())
}
