// SPDX-License-Identifier: MIT OR Apache-2.0
//! Block group descriptors: 32 bytes, or more with 64bit; little-endian.
//!
//! | offset | field | high half at |
//! |---|---|---|
//! | 0x00 | block of the block bitmap | 0x20 |
//! | 0x04 | block of the inode bitmap | 0x24 |
//! | 0x08 | first block of the inode table | 0x28 |
//! | 0x12 | flags | |
//! | 0x1c | inodes at the end of the table that were never used | 0x32 |
//!
//! They follow the superblock in one table; with meta_bg, from a given group on, each block of
//! descriptors stands at the start of the first group that it describes.

use super::super::superblock::ext::{Superblock, feature};
use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::Fields;

const FLAG_INODES_UNINITIALISED: u16 = 0x1;
pub(super) const FLAG_BLOCKS_UNINITIALISED: u16 = 0x2;

/// No filesystem is larger; what lies about it cannot make a calculation overflow.
const BLOCK_MAX: u64 = 1 << 46;

/// Where a group's structures are, and how much of them is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
    /// The block bitmap was never written; it follows from the layout.
    pub(super) blocks_uninitialised: bool,
    /// Inodes at the start of the table that may be in use.
    pub(super) inodes_used: u64,
}

impl Group {
    pub(super) fn from_bytes(bytes: &[u8], superblock: &Superblock) -> Self {
        let fields = Fields(bytes);
        let wide = superblock.descriptor_size >= 64;
        let block = |low, high| {
            let high = if wide { fields.u32(high) } else { 0 };
            (u64::from(high) << 32 | u64::from(fields.u32(low))).min(BLOCK_MAX)
        };
        let (flags, unused) = match superblock.has_group_checksums() {
            true => {
                let high = if wide { fields.u16(0x32) } else { 0 };
                let unused = u64::from(high) << 16 | u64::from(fields.u16(0x1c));
                (fields.u16(0x12), unused)
            }
            false => (0, 0),
        };
        let inodes = superblock.inodes_per_group;
        Self {
            block_bitmap: block(0x00, 0x20),
            inode_bitmap: block(0x04, 0x24),
            inode_table: block(0x08, 0x28),
            blocks_uninitialised: flags & FLAG_BLOCKS_UNINITIALISED != 0,
            inodes_used: match flags & FLAG_INODES_UNINITIALISED {
                0 => inodes.saturating_sub(unused),
                _ => 0,
            },
        }
    }
}

/// Reads all descriptors, a block at a time.
pub(super) fn read_all(device: &dyn ReadAt, superblock: &Superblock) -> Result<Vec<Group>> {
    let per_block = superblock.block_size / superblock.descriptor_size;
    let count = superblock.group_count();
    let mut groups = Vec::new();
    let mut block = vec![0; superblock.block_size as usize];
    for index in 0..count.div_ceil(per_block) {
        let offset = superblock.descriptor_block(index) * superblock.block_size;
        device.read_exact_at(offset, &mut block)?;
        let left = (count - index * per_block).min(per_block) as usize;
        let descriptors = block.chunks_exact(superblock.descriptor_size as usize);
        groups.extend(
            descriptors
                .take(left)
                .map(|bytes| Group::from_bytes(bytes, superblock)),
        );
    }
    Ok(groups)
}

impl Superblock {
    fn descriptors_per_block(&self) -> u64 {
        self.block_size / self.descriptor_size
    }

    fn is_meta(&self, descriptor_block: u64) -> bool {
        self.incompat & feature::INCOMPAT_META_BG != 0 && descriptor_block >= self.first_meta_group
    }

    /// The block that holds the descriptor block with this index.
    pub(super) fn descriptor_block(&self, index: u64) -> u64 {
        if self.is_meta(index) {
            let group = index * self.descriptors_per_block();
            return self.group_start(group) + u64::from(self.has_backup(group));
        }
        self.first_data_block + 1 + index
    }

    /// The first block of a group.
    pub(super) fn group_start(&self, group: u64) -> u64 {
        self.first_data_block + group * self.blocks_per_group
    }

    /// The block behind the last one of a group.
    pub(super) fn group_end(&self, group: u64) -> u64 {
        self.group_start(group + 1).min(self.blocks)
    }

    /// Whether a group begins with a superblock.
    pub(super) fn has_backup(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat & feature::COMPAT_SPARSE_SUPER2 != 0 {
            return self.backup_groups.contains(&group);
        }
        if self.ro_compat & feature::RO_COMPAT_SPARSE_SUPER == 0 {
            return true;
        }
        group == 1 || [3, 5, 7].iter().any(|&base| is_power(group, base))
    }

    /// Blocks at the start of a group that hold a superblock and descriptors.
    pub(super) fn leading_blocks(&self, group: u64) -> u64 {
        let index = group / self.descriptors_per_block();
        let backup = self.has_backup(group);
        if self.is_meta(index) {
            let within = group % self.descriptors_per_block();
            let last = self.descriptors_per_block() - 1;
            let holds = within == 0 || within == 1 || within == last;
            return u64::from(backup) + u64::from(holds);
        }
        if !backup {
            return 0;
        }
        let all = self.group_count().div_ceil(self.descriptors_per_block());
        let table = match self.incompat & feature::INCOMPAT_META_BG {
            0 => all + self.reserved_descriptor_blocks,
            _ => self.first_meta_group.min(all),
        };
        1 + table
    }
}

fn is_power(mut number: u64, base: u64) -> bool {
    while number > 1 && number.is_multiple_of(base) {
        number /= base;
    }
    number == 1
}
