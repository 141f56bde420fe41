// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which bytes of an ext filesystem are in use: by its block bitmaps, less the parts of inode tables
//! that were never used.
//!
//! - A bitmap marked "not initialised" was never written: the group holds only what the layout puts
//!   there.
//! - Inodes behind the "unused" count of a group with checksums are read by nobody; the kernel
//!   zeroes them before it first uses them.
//! - Bitmaps, and the used parts of inode tables, are always kept, wherever flex_bg put them.
//!
//! - While a journal is dirty, a block is in use if the bitmap *or any copy of it in the journal* says so:
//!   right before a replay and after it, however far the replay gets.
//!
//! **Limit:** the descriptors of all groups are in memory: 56 bytes per 128 MiB of filesystem.

use std::ops::Range;

use super::super::extents::{Extents, merged};
use super::super::superblock::ext::Superblock;
use super::group::{Group, read_all};
use super::journal::{self, Copies};
use crate::block::ReadAt;
use crate::error::Result;

pub(crate) fn used_extents(
    device: &dyn ReadAt,
    superblock: &Superblock,
) -> Result<Vec<Range<u64>>> {
    let mut groups = read_all(device, superblock)?;
    let copies = journal::copies(device, superblock, &groups)?;
    merge_descriptors(device, superblock, &copies, &mut groups)?;
    let map = Layout::new(superblock, &groups);
    let mut used = Extents::default();
    let mut add = |blocks: Range<u64>| {
        used.push(blocks.start * superblock.block_size..blocks.end * superblock.block_size);
    };
    add(0..superblock.first_data_block + 1);
    let mut bitmap = vec![0; superblock.block_size as usize];
    for (number, group) in (0..).zip(&groups) {
        let blocks = superblock.group_start(number)..superblock.group_end(number);
        let in_bitmap = match group.blocks_uninitialised {
            true => {
                let leading = blocks.start + superblock.leading_blocks(number);
                std::iter::once(blocks.start..leading).collect()
            }
            false => {
                read_bitmap(device, superblock, &copies, group.block_bitmap, &mut bitmap)?;
                set_runs(&bitmap, &blocks, superblock.cluster_blocks)
            }
        };
        map.within(&in_bitmap, &blocks)
            .into_iter()
            .for_each(&mut add);
    }
    Ok(used.finish(device.length_bytes()))
}

/// Reads a bitmap; a block that any copy of it in the journal has in use, is.
fn read_bitmap(
    device: &dyn ReadAt,
    superblock: &Superblock,
    copies: &Copies,
    block: u64,
    bitmap: &mut [u8],
) -> Result<()> {
    device.read_exact_at(block.saturating_mul(superblock.block_size), bitmap)?;
    copies.each(device, superblock.block_size, block, |copy| {
        for (byte, newer) in bitmap.iter_mut().zip(copy) {
            *byte |= newer;
        }
    })
}

/// Takes over from the journal which groups and inodes came into use.
fn merge_descriptors(
    device: &dyn ReadAt,
    superblock: &Superblock,
    copies: &Copies,
    groups: &mut [Group],
) -> Result<()> {
    let per_block = (superblock.block_size / superblock.descriptor_size) as usize;
    for (index, groups) in (0..).zip(groups.chunks_mut(per_block)) {
        let block = superblock.descriptor_block(index);
        copies.each(device, superblock.block_size, block, |copy| {
            let descriptors = copy.chunks_exact(superblock.descriptor_size as usize);
            for (group, bytes) in groups.iter_mut().zip(descriptors) {
                let newer = Group::from_bytes(bytes, superblock);
                group.blocks_uninitialised &= newer.blocks_uninitialised;
                group.inodes_used = group.inodes_used.max(newer.inodes_used);
            }
        })?;
    }
    Ok(())
}

/// The blocks whose bits are set, as runs within the group.
fn set_runs(bitmap: &[u8], blocks: &Range<u64>, cluster_blocks: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    let clusters = (blocks.end - blocks.start).div_ceil(cluster_blocks);
    for cluster in 0..clusters {
        let byte = bitmap.get((cluster / 8) as usize).copied().unwrap_or(0xff);
        if byte >> (cluster % 8) & 1 == 0 {
            continue;
        }
        let start = blocks.start + cluster * cluster_blocks;
        let end = (start + cluster_blocks).min(blocks.end);
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// Where all groups' bitmaps and inode tables are: flex_bg puts them into other groups.
struct Layout {
    /// Ascending, apart.
    kept: Vec<Range<u64>>,
    /// Ascending, apart: inode tables' ends that were never used.
    unused: Vec<Range<u64>>,
}

impl Layout {
    fn new(superblock: &Superblock, groups: &[Group]) -> Self {
        let inodes_per_block = superblock.block_size / superblock.inode_size;
        let table_blocks = superblock.inodes_per_group.div_ceil(inodes_per_block);
        let mut kept = Vec::new();
        let mut unused = Vec::new();
        for group in groups {
            let used_end = group.inode_table + group.inodes_used.div_ceil(inodes_per_block);
            kept.push(group.block_bitmap..group.block_bitmap + 1);
            kept.push(group.inode_bitmap..group.inode_bitmap + 1);
            kept.push(group.inode_table..used_end);
            unused.push(used_end..group.inode_table + table_blocks);
        }
        Self {
            kept: merged(kept, superblock.blocks),
            unused: merged(unused, superblock.blocks),
        }
    }

    /// What to read of one group: its runs without the unused, and what is kept in any case.
    fn within(&self, runs: &[Range<u64>], blocks: &Range<u64>) -> Vec<Range<u64>> {
        let mut result = Vec::new();
        for run in runs {
            let mut start = run.start;
            for hole in overlapping(&self.unused, run) {
                result.push(start..hole.start.max(start));
                start = start.max(hole.end);
            }
            result.push(start..run.end.max(start));
        }
        for kept in overlapping(&self.kept, blocks) {
            result.push(kept.start.max(blocks.start)..kept.end.min(blocks.end));
        }
        merged(result, blocks.end)
    }
}

/// The ranges of a list, ascending and apart, that share something with `range`.
fn overlapping<'l>(
    list: &'l [Range<u64>],
    range: &'l Range<u64>,
) -> impl Iterator<Item = &'l Range<u64>> {
    let first = list.partition_point(|candidate| candidate.end <= range.start);
    list[first..]
        .iter()
        .take_while(move |candidate| candidate.start < range.end)
}
