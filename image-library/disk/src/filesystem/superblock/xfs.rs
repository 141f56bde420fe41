// SPDX-License-Identifier: MIT OR Apache-2.0
//! The XFS superblock: one sector at byte 0, big-endian but for its checksum.
//!
//! | offset | field | offset | field |
//! |---|---|---|---|
//! | 0 | magic `XFSB` | 120, 122, 123, 124 | logarithms: block, inode, inodes per block, group |
//! | 4, 8 | block size, data blocks | 126 | set while mkfs is at work |
//! | 32 | UUID | 144 | free blocks, right on a clean filesystem |
//! | 48, 96 | the log: first block (0: on another device), blocks | 192 | directory block, as a shift |
//! | 56 | root inode | 200 | features of version 4 |
//! | 84, 88 | allocation groups: blocks of each, count | 212, 216, 220 | features: read-only, incompatible, log |
//! | 100 | version and flags | 224 | CRC-32C |
//! | 102, 104 | sector size, inode size | 248 | UUID in metadata, where that is another |
//! | 108 | label | | |
//!
//! Everything that a calculation divides by or allocates with is checked here, once. Facts: Linux,
//! `fs/xfs/libxfs/xfs_format.h` and `xfs_sb.c`.

use std::ops::Range;

use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block, text, uuid};
use crate::filesystem::{FilesystemKind, Identity};

pub(crate) const STRUCTURE: &str = "XFS superblock";
/// The second flags of an inode: the counters of its extents are large ones (`XFS_DIFLAG2_NREXT64`).
pub(crate) const BIG_COUNTS: u64 = 0x10;
/// Where the checksum stands.
const CHECKSUM_AT: usize = 224;
/// No smaller group is ever made.
const GROUP_BLOCKS_MIN: u64 = 64;
const DIRECTORY_BLOCK_LOG_MAX: u32 = 16;
/// The largest log that the kernel takes, with room to spare.
const LOG_BYTES_MAX: u64 = 4 << 30;

const VERSION_MASK: u16 = 0xf;
const VERSION_DIRECTORIES_2: u16 = 0x2000;
const VERSION_IGNORES_CASE: u16 = 0x4000;
const VERSION_MORE_FEATURES: u16 = 0x8000;
const FEATURE2_FILE_TYPES: u32 = 0x200;

/// What may be there without harm to whoever only reads free space and files.
const READ_ONLY_KNOWN: u32 = 0xf;
const INCOMPAT_FILE_TYPES: u32 = 0x1;
const INCOMPAT_METADATA_UUID: u32 = 0x4;
const INCOMPAT_NEEDS_REPAIR: u32 = 0x10;
/// File types, sparse inode chunks, metadata UUID, big times, big extent counts, exchange of
/// ranges, parent pointers, a directory of metadata.
const INCOMPAT_KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80 | 0x100;
const INCOMPAT_NAMES: [(u32, &str); 3] = [
    (
        INCOMPAT_NEEDS_REPAIR,
        "one that is marked to need xfs_repair",
    ),
    (0x200, "a zoned realtime section"),
    (0x400, "zones with gaps"),
];

/// The geometry of an XFS, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Whether metadata carries checksums: version 5 of the format.
    pub(crate) has_checksums: bool,
    pub(crate) has_file_types: bool,
    pub(crate) block_size: u64,
    pub(crate) blocks: u64,
    pub(crate) group_blocks: u64,
    pub(crate) groups: u64,
    group_blocks_log: u32,
    pub(crate) sector_size: u64,
    pub(crate) inode_size: u64,
    inodes_per_block_log: u32,
    pub(crate) root_inode: u64,
    pub(crate) directory_block_size: u64,
    pub(crate) free_blocks: u64,
    /// Where the log is, in bytes; `None`: on another device.
    pub(crate) log: Option<Range<u64>>,
    /// Features that only a log which is not empty has.
    pub(crate) log_incompat: u32,
    read_only_unknown: u32,
    pub(crate) metadata_uuid: [u8; 16],
    identity: Identity,
}

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    let Some(bytes) = read_block(device, 0, 512)? else {
        return Ok(None);
    };
    Ok(is_mine(&bytes).then(|| identity(&bytes, device.length_bytes())))
}

/// Reads the superblock; `None` where there is none.
pub(crate) fn read(device: &dyn ReadAt) -> Result<Option<Superblock>> {
    let Some(bytes) = read_block(device, 0, 512)?.filter(|bytes| is_mine(bytes)) else {
        return Ok(None);
    };
    let sector_size = sector_size(&bytes)?;
    let Some(bytes) = read_block(device, 0, sector_size as usize)? else {
        return Err(broken("sector size", "is larger than the device"));
    };
    let superblock = Superblock::from_bytes(&bytes, device.length_bytes())?;
    let expected = checksum(&bytes, CHECKSUM_AT);
    let found = Fields(&bytes).u32(CHECKSUM_AT);
    match !superblock.has_checksums || found == expected {
        true => Ok(Some(superblock)),
        false => Err(Error::corrupt(
            STRUCTURE,
            0,
            format!("expected checksum {expected:#010x}, found {found:#010x}"),
        )),
    }
}

/// The CRC-32C of a structure whose own checksum, at `at`, counts as zeros.
pub(crate) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let (before, rest) = bytes.split_at(at.min(bytes.len()));
    let after = rest.get(4..).unwrap_or_default();
    !crc32c(crc32c(crc32c(!0, before), &[0; 4]), after)
}

/// CRC-32C without the inversions at its ends, so that calls can be chained.
pub(crate) fn crc32c(state: u32, bytes: &[u8]) -> u32 {
    fs_ext4::checksum::linux_crc32c(state, bytes)
}

fn is_mine(bytes: &[u8]) -> bool {
    bytes.starts_with(b"XFSB")
}

fn identity(bytes: &[u8], device_bytes: u64) -> Identity {
    let fields = Fields(bytes);
    let size_bytes = u64::from(fields.u32_be(4)).checked_mul(fields.u64_be(8));
    Identity {
        kind: FilesystemKind::Xfs,
        uuid: uuid(fields.bytes(32, 16)),
        label: text(fields.bytes(108, 12)),
        size_bytes: size_bytes.map(|size| size.min(device_bytes)),
    }
}

fn sector_size(bytes: &[u8]) -> Result<u64> {
    power_of_two(
        Fields(bytes).u16_be(102).into(),
        512..=32_768,
        "sector size",
    )
}

impl Superblock {
    /// Bytes before the records of a block in a tree of extents.
    pub(crate) fn tree_header_length(&self) -> usize {
        match self.has_checksums {
            true => 72,
            false => 24,
        }
    }

    /// Parses a sector; its checksum was compared, or it comes from the log.
    pub(crate) fn from_bytes(bytes: &[u8], device_bytes: u64) -> Result<Self> {
        let fields = Fields(bytes);
        let version = fields.u16_be(100);
        let has_checksums = match version & VERSION_MASK {
            4 => false,
            5 => true,
            other => {
                return Err(Error::unsupported(STRUCTURE, format!("version {other}")));
            }
        };
        refuse_features(fields, version, has_checksums)?;
        let incompat = if has_checksums { fields.u32_be(216) } else { 0 };
        let features2 = match version & VERSION_MORE_FEATURES {
            0 => 0,
            _ => fields.u32_be(200),
        };
        let block_size = power_of_two(fields.u32_be(4).into(), 512..=65_536, "block size")?;
        let inode_size = power_of_two(fields.u16_be(104).into(), 256..=2048, "inode size")?;
        let mut superblock = Self {
            has_checksums,
            has_file_types: match has_checksums {
                true => incompat & INCOMPAT_FILE_TYPES != 0,
                false => features2 & FEATURE2_FILE_TYPES != 0,
            },
            block_size,
            blocks: fields.u64_be(8),
            group_blocks: fields.u32_be(84).into(),
            groups: fields.u32_be(88).into(),
            group_blocks_log: fields.u8(124).into(),
            sector_size: sector_size(bytes)?,
            inode_size,
            inodes_per_block_log: fields.u8(123).into(),
            root_inode: fields.u64_be(56),
            directory_block_size: directory_block_size(block_size, fields.u8(192))?,
            free_blocks: fields.u64_be(144),
            log: None,
            log_incompat: if has_checksums { fields.u32_be(220) } else { 0 },
            read_only_unknown: match has_checksums {
                true => fields.u32_be(212) & !READ_ONLY_KNOWN,
                false => 0,
            },
            metadata_uuid: metadata_uuid(fields, incompat),
            identity: identity(bytes, device_bytes),
        };
        superblock.check(fields)?;
        superblock.log = superblock.log_range(fields.u64_be(48), fields.u32_be(96).into())?;
        Ok(superblock)
    }

    fn check(&self, fields: Fields<'_>) -> Result<()> {
        let require = |holds: bool, field: &str, problem: &str| match holds {
            true => Ok(()),
            false => Err(broken(field, problem)),
        };
        require(
            fields.u8(126) == 0,
            "mark of mkfs",
            "says that it was not finished",
        )?;
        require(
            u64::from(fields.u8(120)) == u64::from(self.block_size.trailing_zeros()),
            "logarithm of the block size",
            "is another than the block size's",
        )?;
        require(
            self.sector_size <= self.block_size,
            "sector size",
            "is above the block size",
        )?;
        require(
            self.inode_size <= self.block_size
                && self.block_size >> self.inodes_per_block_log.min(31) == self.inode_size,
            "inode size",
            "and the inodes per block are not a block",
        )?;
        require(
            self.group_blocks >= GROUP_BLOCKS_MIN
                && self.group_blocks_log == 64 - (self.group_blocks - 1).leading_zeros(),
            "blocks per group",
            "do not fit their logarithm",
        )?;
        require(
            self.groups > 0
                && self.blocks <= self.groups * self.group_blocks
                && self.blocks > (self.groups - 1) * self.group_blocks
                && self.blocks.checked_mul(self.block_size).is_some(),
            "block count",
            "does not fit the groups",
        )
    }

    fn log_range(&self, start: u64, blocks: u64) -> Result<Option<Range<u64>>> {
        if start == 0 {
            return Ok(None);
        }
        let length = blocks * self.block_size;
        if length == 0 || length > LOG_BYTES_MAX {
            return Err(broken("size of the log", "is none that a log has"));
        }
        let start = self.byte_of_run(STRUCTURE, 0, start, blocks)?;
        Ok(Some(start..start + length))
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// An error where a feature may have changed what free space means.
    pub(crate) fn require_known_allocation(&self) -> Result<()> {
        match self.read_only_unknown {
            0 => Ok(()),
            unknown => Err(Error::unsupported(
                STRUCTURE,
                format!("the read-only compatible feature {unknown:#x}"),
            )),
        }
    }

    /// Where a group begins, in bytes.
    pub(crate) fn group_start(&self, group: u64) -> u64 {
        group * self.group_blocks * self.block_size
    }

    /// The blocks of a group; the last one may be short.
    pub(crate) fn group_length(&self, group: u64) -> u64 {
        let before = group.saturating_mul(self.group_blocks);
        self.group_blocks.min(self.blocks.saturating_sub(before))
    }

    /// The byte where `blocks` blocks begin, which lie in one group; `structure` at `offset` named
    /// them.
    pub(crate) fn byte_of_run(
        &self,
        structure: &'static str,
        offset: u64,
        block: u64,
        blocks: u64,
    ) -> Result<u64> {
        let group = block >> self.group_blocks_log;
        let within = block & ((1 << self.group_blocks_log) - 1);
        let end = within.checked_add(blocks);
        let fits = group < self.groups && end.is_some_and(|end| end <= self.group_length(group));
        match fits {
            true => Ok(self.group_start(group) + within * self.block_size),
            false => Err(Error::corrupt(
                structure,
                offset,
                format!("expected blocks of a group, found {blocks} from {block:#x}"),
            )),
        }
    }

    /// The byte where an inode stands: its number says so.
    pub(crate) fn byte_of_inode(&self, inode: u64) -> Result<u64> {
        let block = inode >> self.inodes_per_block_log;
        let index = inode & ((1 << self.inodes_per_block_log) - 1);
        let start = self.byte_of_run("XFS inode number", inode, block, 1)?;
        Ok(start + index * self.inode_size)
    }

    /// The number of the inode that stands `index` inodes behind the start of a block of a group.
    pub(crate) fn inode_number(&self, group: u64, block: u64, index: u64) -> u64 {
        let block = group << self.group_blocks_log | block;
        (block << self.inodes_per_block_log).saturating_add(index)
    }
}

fn refuse_features(fields: Fields<'_>, version: u16, has_checksums: bool) -> Result<()> {
    if version & VERSION_DIRECTORIES_2 == 0 && !has_checksums {
        return Err(Error::unsupported(STRUCTURE, "version 1 of directories"));
    }
    if version & VERSION_IGNORES_CASE != 0 {
        return Err(Error::unsupported(
            STRUCTURE,
            "names without case (ascii-ci)",
        ));
    }
    let unknown = match has_checksums {
        true => fields.u32_be(216) & !INCOMPAT_KNOWN,
        false => 0,
    };
    if unknown == 0 {
        return Ok(());
    }
    let named = INCOMPAT_NAMES.iter().find(|(bit, _)| unknown & bit != 0);
    Err(Error::unsupported(
        STRUCTURE,
        match named {
            Some((_, name)) => (*name).to_owned(),
            None => format!("the incompatible feature {unknown:#x}"),
        },
    ))
}

fn metadata_uuid(fields: Fields<'_>, incompat: u32) -> [u8; 16] {
    let at = match incompat & INCOMPAT_METADATA_UUID {
        0 => 32,
        _ => 248,
    };
    let mut uuid = [0; 16];
    let bytes = fields.bytes(at, 16);
    uuid[..bytes.len()].copy_from_slice(bytes);
    uuid
}

fn directory_block_size(block_size: u64, shift: u8) -> Result<u64> {
    let log = block_size.trailing_zeros() + u32::from(shift);
    match log <= DIRECTORY_BLOCK_LOG_MAX {
        true => Ok(1 << log),
        false => Err(broken("directory block size", "is above 64 KiB")),
    }
}

fn power_of_two(value: u64, allowed: std::ops::RangeInclusive<u64>, field: &str) -> Result<u64> {
    match allowed.contains(&value) && value.is_power_of_two() {
        true => Ok(value),
        false => Err(broken(field, &format!("is {value}"))),
    }
}

fn broken(field: &str, problem: &str) -> Error {
    Error::corrupt(STRUCTURE, 0, format!("the {field} {problem}"))
}
