// SPDX-License-Identifier: MIT OR Apache-2.0
//! The superblock of one device: 4096 bytes at 64 KiB, with copies at 64 MiB and 256 GiB.
//!
//! | offset | field | offset | field |
//! |---|---|---|---|
//! | 0x00 | checksum of all that follows it | 0xa4 | generation of the chunk tree |
//! | 0x20 | UUID of the filesystem | 0xb4, 0xbc | features: read-only, incompatible |
//! | 0x30 | where this copy is | 0xc4 | checksum type |
//! | 0x38 | flags | 0xc6, 0xc7, 0xc8 | levels: root, chunk, log tree |
//! | 0x40 | magic `_BHRfS_M` | 0xc9 | this device: number, size, ... |
//! | 0x48 | generation | 0x10b | UUID of this device |
//! | 0x50, 0x58, 0x60 | root, chunk, log tree | 0x12b | label |
//! | 0x70 | bytes of all devices | 0x23b | UUID in the metadata, if another |
//! | 0x80 | root tree directory | 0x32b | chunks of the chunk tree |
//! | 0x90, 0x94 | sector size, node size | 0xa0 | bytes of those |
//!
//! Source: Linux, include/uapi/linux/btrfs_tree.h (`btrfs_super_block`), fs/btrfs/disk-io.c
//! (`btrfs_validate_super`).

use super::super::{FilesystemKind, Identity};
use super::SUPERBLOCK;
use super::block::Pointer;
use super::checksum::Checksum;
use crate::block::{ReadAt, array_at};
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block, text, uuid};

/// Where the copies are.
pub(super) const OFFSETS: [u64; 3] = [0x1_0000, 0x400_0000, 0x40_0000_0000];
pub(super) const LENGTH: usize = 4096;
const MAGIC: &[u8] = b"_BHRfS_M";
const SYSTEM_CHUNKS_BYTES_MAX: usize = 2048;

/// Incompatible features that reading works with, or that name what is refused where it is met.
const INCOMPATIBLE_KNOWN: u64 = 0x7ff | 0x800 | INCOMPATIBLE_SIMPLE_QUOTA;
const INCOMPATIBLE_METADATA_UUID: u64 = 0x400;
const INCOMPATIBLE_SIMPLE_QUOTA: u64 = 0x1_0000;
const INCOMPATIBLE_REFUSED: [(u64, &str); 3] = [
    (0x1000, "zoned"),
    (0x2000, "extent-tree-v2"),
    (0x4000, "raid-stripe-tree"),
];
/// Flags of filesystems that are not whole.
const FLAGS_REFUSED: [(u64, &str); 6] = [
    (1 << 33, "a metadata dump"),
    (1 << 34, "a metadata dump"),
    (1 << 35, "an unfinished change of its UUID"),
    (1 << 38, "an unfinished conversion of its block group tree"),
    (1 << 39, "an unfinished change of its data checksums"),
    (1 << 40, "an unfinished change of its metadata checksums"),
];
/// free-space-tree, whether it is valid, verity, block-group-tree: where allocation is written down.
const READ_ONLY_KNOWN: u64 = 0xf;
const READ_ONLY_BLOCK_GROUP_TREE: u64 = 0x8;

/// The filesystem, as one device tells it.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) checksum: Checksum,
    pub(super) filesystem_uuid: [u8; 16],
    /// The UUID in tree blocks and of devices.
    pub(super) metadata_uuid: [u8; 16],
    pub(super) generation: u64,
    pub(super) root_tree: Pointer,
    pub(super) chunk_tree: Pointer,
    /// What was made durable after the last commit, where there is any.
    pub(super) log_tree: Option<Pointer>,
    pub(super) root_directory: u64,
    pub(super) sector_bytes: u64,
    pub(super) node_bytes: usize,
    pub(super) device: DeviceIdentity,
    pub(super) system_chunks: Vec<u8>,
    total_bytes: u64,
    label: Option<String>,
    incompatible: u64,
    read_only: u64,
    flags: u64,
}

/// Which device of the filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceIdentity {
    pub(super) number: u64,
    pub(super) uuid: [u8; 16],
    pub(super) total_bytes: u64,
}

impl Superblock {
    /// The newest sound copy on a device, and whether the first one is not sound.
    ///
    /// `None` where the device has no btrfs. A copy of another filesystem is the rest of an older one.
    pub(super) fn read(device: &dyn ReadAt) -> Result<Option<(Self, bool)>> {
        let first = Self::read_copy(device, OFFSETS[0]);
        let filesystem = match &first {
            Ok(Some(first)) => Some(first.filesystem_uuid),
            Ok(None) => None,
            Err(Error::Corrupt { .. }) => None,
            Err(_) => return first.map(|_| None),
        };
        let mut newest = None;
        for offset in OFFSETS.into_iter().skip(1) {
            let copy = match Self::read_copy(device, offset) {
                Ok(copy) => copy,
                Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => None,
                Err(error) => return Err(error),
            };
            let copy = copy.filter(|copy| {
                filesystem.is_none_or(|uuid| uuid == copy.filesystem_uuid)
                    && offset < copy.device.total_bytes
            });
            newest = newer(newest, copy);
        }
        match first {
            Ok(first @ Some(_)) => Ok(newer(first, newest).map(|newest| (newest, false))),
            Ok(None) => Ok(newest.map(|newest| (newest, true))),
            Err(error) => newest.map(|newest| Some((newest, true))).ok_or(error),
        }
    }

    fn read_copy(device: &dyn ReadAt, offset: u64) -> Result<Option<Self>> {
        match read_block(device, offset, LENGTH)? {
            Some(bytes) => Self::from_bytes(&bytes, offset),
            None => Ok(None),
        }
    }

    pub(super) fn from_bytes(bytes: &[u8], offset: u64) -> Result<Option<Self>> {
        let fields = Fields(bytes);
        if fields.bytes(0x40, 8) != MAGIC {
            return Ok(None);
        }
        let checksum = Checksum::from_number(fields.u16(0xc4))?;
        let require = |holds: bool, problem: &str| match holds {
            true => Ok(()),
            false => Err(Error::corrupt(SUPERBLOCK, offset, problem)),
        };
        require(
            checksum.matches_structure(bytes),
            "its checksum does not match",
        )?;
        require(
            fields.u64(0x30) == offset,
            "expected its own place, found another",
        )?;
        let (sector, node) = (fields.u32(0x90), fields.u32(0x94));
        require(
            (4096..=65536).contains(&sector) && sector.is_power_of_two(),
            "the sector size is not a power of two from 4096 to 65536",
        )?;
        require(
            (sector..=65536).contains(&node) && node.is_power_of_two(),
            "the node size is not a power of two from the sector size to 65536",
        )?;
        let system_chunks = fields.u32(0xa0) as usize;
        require(
            (1..=SYSTEM_CHUNKS_BYTES_MAX).contains(&system_chunks),
            "the chunks in it do not fit",
        )?;
        let levels = [0xc6, 0xc7, 0xc8].map(|at| fields.u8(at));
        require(
            levels.iter().all(|&level| level <= Pointer::LEVEL_MAX),
            "a tree is higher than 8 levels",
        )?;
        Ok(Some(Self::from_fields(fields, checksum, system_chunks)))
    }

    fn from_fields(fields: Fields<'_>, checksum: Checksum, system_chunks: usize) -> Self {
        let generation = fields.u64(0x48);
        let incompatible = fields.u64(0xbc);
        let filesystem_uuid = array_at(fields.bytes(0x20, 16), 0);
        let pointer = |at, level, generation| Pointer {
            logical: fields.u64(at),
            level: fields.u8(level),
            generation,
            first_key: None,
        };
        // The log belongs to the transaction that was open.
        let log_tree = pointer(0x60, 0xc8, generation.wrapping_add(1));
        Self {
            checksum,
            filesystem_uuid,
            metadata_uuid: match incompatible & INCOMPATIBLE_METADATA_UUID {
                0 => filesystem_uuid,
                _ => array_at(fields.bytes(0x23b, 16), 0),
            },
            generation,
            root_tree: pointer(0x50, 0xc6, generation),
            chunk_tree: pointer(0x58, 0xc7, fields.u64(0xa4)),
            log_tree: (log_tree.logical != 0).then_some(log_tree),
            root_directory: fields.u64(0x80),
            sector_bytes: fields.u32(0x90).into(),
            node_bytes: fields.u32(0x94) as usize,
            device: DeviceIdentity {
                number: fields.u64(0xc9),
                uuid: array_at(fields.bytes(0x10b, 16), 0),
                total_bytes: fields.u64(0xd1),
            },
            system_chunks: fields.bytes(0x32b, system_chunks).to_vec(),
            total_bytes: fields.u64(0x70),
            label: text(fields.bytes(0x12b, 256)),
            incompatible,
            read_only: fields.u64(0xb4),
            flags: fields.u64(0x38),
        }
    }

    /// `Unsupported`, by name, where the trees cannot be read as they are here.
    pub(super) fn refuse_features(&self) -> Result<()> {
        let named = |refused: &[(u64, &str)], bits: u64| {
            let mut refused = refused.iter();
            refused
                .find(|(bit, _)| bits & bit != 0)
                .map(|(_, name)| (*name).to_owned())
        };
        let unknown = self.incompatible & !INCOMPATIBLE_KNOWN;
        let feature = named(&FLAGS_REFUSED, self.flags)
            .or_else(|| named(&INCOMPATIBLE_REFUSED, self.incompatible))
            .or_else(|| (unknown != 0).then(|| format!("the incompatible features {unknown:#x}")));
        match feature {
            Some(feature) => Err(Error::unsupported(SUPERBLOCK, feature)),
            None => Ok(()),
        }
    }

    /// `Unsupported` where allocation may be written down in another way than is known here.
    pub(super) fn refuse_allocation_features(&self) -> Result<()> {
        match self.read_only & !READ_ONLY_KNOWN {
            0 => Ok(()),
            unknown => Err(Error::unsupported(
                SUPERBLOCK,
                format!("a map with the read-only features {unknown:#x}"),
            )),
        }
    }

    pub(super) fn has_block_group_tree(&self) -> bool {
        self.read_only & READ_ONLY_BLOCK_GROUP_TREE != 0
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            kind: FilesystemKind::Btrfs,
            uuid: uuid(&self.filesystem_uuid),
            label: self.label.clone(),
            size_bytes: Some(self.total_bytes),
        }
    }
}

fn newer(left: Option<Superblock>, right: Option<Superblock>) -> Option<Superblock> {
    match (left, right) {
        (Some(left), Some(right)) if right.generation > left.generation => Some(right),
        (left, right) => left.or(right),
    }
}
