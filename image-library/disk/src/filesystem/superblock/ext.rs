// SPDX-License-Identifier: MIT OR Apache-2.0
//! The superblock of ext2, ext3 and ext4: 1024 bytes at 1024, little-endian.
//!
//! | offset | field | offset | field |
//! |---|---|---|---|
//! | 0x00 | inodes | 0x5c, 0x60, 0x64 | features: compatible, incompatible, read-only |
//! | 0x04, 0x150 | blocks, low and high half | 0x68 | UUID |
//! | 0x0c, 0x158 | free blocks, likewise | | |
//! | 0x14 | first data block | 0x78 | label |
//! | 0x18 | block size, as 1024 shifted left | 0xce | reserved descriptor blocks |
//! | 0x1c | cluster size, likewise | 0xe0 | journal inode |
//! | 0x20, 0x24, 0x28 | blocks, clusters, inodes per group | 0xfe | descriptor size |
//! | 0x38 | magic 0xef53 | 0x104 | first meta block group |
//! | 0x58 | inode size | 0x24c | groups with a backup, for sparse_super2 |
//!
//! Everything that a calculation divides by or allocates with is checked here, once.

use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block, text, uuid};
use crate::filesystem::{FilesystemKind, Identity};

pub(crate) const OFFSET: u64 = 1024;
pub(crate) const LENGTH: usize = 1024;
pub(crate) const STRUCTURE: &str = "ext superblock";
/// 256 TiB with the groups of 4 KiB blocks.
const GROUPS_MAX: u64 = 1 << 21;
const MAGIC: u16 = 0xef53;

/// Feature bits that this package acts on.
pub(crate) mod feature {
    pub(crate) const COMPAT_HAS_JOURNAL: u32 = 0x4;
    pub(crate) const COMPAT_SPARSE_SUPER2: u32 = 0x200;
    pub(crate) const INCOMPAT_RECOVER: u32 = 0x4;
    pub(crate) const INCOMPAT_JOURNAL_DEVICE: u32 = 0x8;
    pub(crate) const INCOMPAT_META_BG: u32 = 0x10;
    pub(crate) const INCOMPAT_64BIT: u32 = 0x80;
    pub(crate) const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
    pub(crate) const RO_COMPAT_GDT_CSUM: u32 = 0x10;
    pub(crate) const RO_COMPAT_BIGALLOC: u32 = 0x200;
    pub(crate) const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
    pub(crate) const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x10000;
    /// filetype, recover, meta_bg: what an ext3 may have.
    pub(super) const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
    /// sparse_super, large_file, btree_dir.
    pub(super) const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;
}

/// The geometry of an ext filesystem, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) compat: u32,
    pub(crate) incompat: u32,
    pub(crate) ro_compat: u32,
    pub(crate) blocks: u64,
    pub(crate) first_data_block: u64,
    pub(crate) block_size: u64,
    /// Blocks per cluster: 1 without bigalloc.
    pub(crate) cluster_blocks: u64,
    pub(crate) blocks_per_group: u64,
    pub(crate) inodes_per_group: u64,
    pub(crate) inode_size: u64,
    pub(crate) descriptor_size: u64,
    pub(crate) reserved_descriptor_blocks: u64,
    pub(crate) first_meta_group: u64,
    pub(crate) backup_groups: [u64; 2],
    pub(crate) journal_inode: u32,
    pub(crate) uuid: Option<String>,
    pub(crate) label: Option<String>,
}

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    let superblock = read(device)?;
    Ok(superblock.map(|superblock| superblock.identity(device.length_bytes())))
}

/// Reads the superblock; `None` where there is none, or only that of an external journal.
pub(crate) fn read(device: &dyn ReadAt) -> Result<Option<Superblock>> {
    match read_block(device, OFFSET, LENGTH)? {
        Some(bytes) => Superblock::from_bytes(&bytes),
        None => Ok(None),
    }
}

/// The bytes that are free for files, as the superblock counts them now.
pub(crate) fn free_bytes(device: &dyn ReadAt, superblock: &Superblock) -> Result<u64> {
    let Some(bytes) = read_block(device, OFFSET, LENGTH)? else {
        return Ok(0);
    };
    let fields = Fields(&bytes);
    let high = match superblock.incompat & feature::INCOMPAT_64BIT {
        0 => 0,
        _ => fields.u32(0x158),
    };
    let blocks = u64::from(high) << 32 | u64::from(fields.u32(0x0c));
    Ok(blocks.saturating_mul(superblock.block_size))
}

impl Superblock {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Option<Self>> {
        let fields = Fields(bytes);
        let incompat = fields.u32(0x60);
        if fields.u16(0x38) != MAGIC || incompat & feature::INCOMPAT_JOURNAL_DEVICE != 0 {
            return Ok(None);
        }
        let is_64bit = incompat & feature::INCOMPAT_64BIT != 0;
        let high = if is_64bit { fields.u32(0x150) } else { 0 };
        let bigalloc = fields.u32(0x64) & feature::RO_COMPAT_BIGALLOC != 0;
        let block_shift = shift(fields.u32(0x18), 6, "block size")?;
        let cluster_shift = match bigalloc {
            true => shift(fields.u32(0x1c), 26, "cluster size")?,
            false => block_shift,
        };
        if cluster_shift < block_shift {
            return Err(broken("cluster size", "is below the block size"));
        }
        let revision0 = fields.u32(0x4c) == 0;
        let descriptor_size = fields.u16(0xfe);
        let superblock = Self {
            compat: fields.u32(0x5c),
            incompat,
            ro_compat: fields.u32(0x64),
            blocks: u64::from(high) << 32 | u64::from(fields.u32(0x04)),
            first_data_block: u64::from(fields.u32(0x14)),
            block_size: 1024 << block_shift,
            cluster_blocks: 1 << (cluster_shift - block_shift),
            blocks_per_group: u64::from(fields.u32(0x20)),
            inodes_per_group: u64::from(fields.u32(0x28)),
            inode_size: if revision0 {
                128
            } else {
                fields.u16(0x58).into()
            },
            descriptor_size: if is_64bit { descriptor_size.into() } else { 32 },
            reserved_descriptor_blocks: fields.u16(0xce).into(),
            first_meta_group: fields.u32(0x104).into(),
            backup_groups: [fields.u32(0x24c).into(), fields.u32(0x250).into()],
            journal_inode: fields.u32(0xe0),
            uuid: uuid(fields.bytes(0x68, 16)),
            label: text(fields.bytes(0x78, 16)),
        };
        superblock.check()?;
        Ok(Some(superblock))
    }

    fn check(&self) -> Result<()> {
        let bits = self.block_size * 8;
        let require = |holds: bool, field: &str, problem: &str| match holds {
            true => Ok(()),
            false => Err(broken(field, problem)),
        };
        require(
            self.blocks > self.first_data_block && self.first_data_block <= 1,
            "block count",
            "leaves no blocks behind the first data block",
        )?;
        require(
            self.blocks_per_group > 0
                && self.blocks_per_group.is_multiple_of(self.cluster_blocks)
                && self.blocks_per_group / self.cluster_blocks <= bits,
            "blocks per group",
            "does not fit the block bitmap",
        )?;
        require(
            (1..=bits).contains(&self.inodes_per_group),
            "inodes per group",
            "does not fit the inode bitmap",
        )?;
        require(
            (128..=self.block_size).contains(&self.inode_size) && self.inode_size.is_power_of_two(),
            "inode size",
            "is not a power of two from 128 to the block size",
        )?;
        require(
            (32..=1024).contains(&self.descriptor_size) && self.descriptor_size.is_power_of_two(),
            "group descriptor size",
            "is not a power of two from 32 to 1024",
        )?;
        require(
            self.blocks < 1 << 46 && self.group_count() <= GROUPS_MAX,
            "block count",
            "makes more groups than a device of this world has",
        )
    }

    pub(crate) fn kind(&self) -> FilesystemKind {
        let ext4 = self.incompat & !feature::EXT3_INCOMPAT != 0
            || self.ro_compat & !feature::EXT3_RO_COMPAT != 0;
        match (ext4, self.compat & feature::COMPAT_HAS_JOURNAL != 0) {
            (true, _) => FilesystemKind::Ext4,
            (false, true) => FilesystemKind::Ext3,
            (false, false) => FilesystemKind::Ext2,
        }
    }

    pub(crate) fn identity(&self, device_bytes: u64) -> Identity {
        Identity {
            kind: self.kind(),
            uuid: self.uuid.clone(),
            label: self.label.clone(),
            size_bytes: Some(
                self.blocks
                    .saturating_mul(self.block_size)
                    .min(device_bytes),
            ),
        }
    }

    pub(crate) fn group_count(&self) -> u64 {
        (self.blocks - self.first_data_block).div_ceil(self.blocks_per_group)
    }

    pub(crate) fn needs_recovery(&self) -> bool {
        self.incompat & feature::INCOMPAT_RECOVER != 0
    }

    /// An error where the journal, which is needed, is on another device or nowhere.
    pub(crate) fn require_own_journal(&self) -> Result<()> {
        match self.journal_inode {
            0 => Err(Error::unsupported(STRUCTURE, "an external, dirty journal")),
            _ => Ok(()),
        }
    }

    /// Whether group descriptors carry checksums, and with them the "not initialised" flags.
    pub(crate) fn has_group_checksums(&self) -> bool {
        self.ro_compat & (feature::RO_COMPAT_GDT_CSUM | feature::RO_COMPAT_METADATA_CSUM) != 0
    }
}

fn shift(value: u32, limit: u32, field: &str) -> Result<u32> {
    match value <= limit {
        true => Ok(value),
        false => Err(broken(field, &format!("is 1024 shifted left by {value}"))),
    }
}

fn broken(field: &str, problem: &str) -> Error {
    Error::corrupt(STRUCTURE, OFFSET, format!("the {field} {problem}"))
}
