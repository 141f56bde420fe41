// SPDX-License-Identifier: MIT OR Apache-2.0
//! Thin pools and thin volumes: dm-thin's metadata, a tree of blocks of 4 KiB, little-endian.
//!
//! | offset in block 0 | size | field |
//! |---|---|---|
//! | 0 | 4 | checksum of the rest |
//! | 4 | 4 | flags; 1: the metadata needs a check |
//! | 8 | 8 | this block's number, 0 |
//! | 32 | 8 | magic 27022010 |
//! | 40 | 4 | version, 1 or 2 |
//! | 320 | 8 | the tree of mappings: device, then block, to data block and time |
//! | 328 | 8 | the tree of devices: when the device was last a snapshot's origin, among others |
//! | 336, 340 | 4 each | a data block in sectors; a metadata block in sectors, 8 |
//! | 352, 356, 360 | 4 each | features: compatible, compatible to read, incompatible |
//!
//! From drivers/md/dm-thin-metadata.c of Linux.
//!
//! A thin volume is read as it is. What it was not given yet reads as zeros, or from its external
//! origin, and what is written there is refused, but zeros: to give a block to a volume means to
//! change the trees. A block that a snapshot shares is refused too, for the same reason. All else
//! is written in place.

mod tree;
mod volume;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::block::{CachedDevice, WriteAt};
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block};

use super::checksum;
use tree::Tree;

pub(super) use volume::ThinVolume;

const BLOCK_BYTES: usize = 4096;
const MAGIC: u64 = 27_022_010;
const SUPERBLOCK_SUM: u32 = 160_774;
/// Metadata that is kept in memory for each pool.
const CACHE_BYTES: u64 = 8 << 20;
const STRUCTURE: &str = "thin pool superblock";
/// Bytes of a value in each tree.
const MAPPING_BYTES: usize = 8;
const DETAILS_BYTES: usize = 24;

/// A thin pool: the trees, and the device with the blocks.
#[derive(Debug)]
pub(super) struct Pool {
    metadata: CachedDevice,
    data: Arc<dyn WriteAt>,
    mappings_root: u64,
    devices_root: u64,
    block_bytes: u64,
}

impl Pool {
    /// Opens the pool that has these two devices. LVM knows the size of a block too.
    pub(super) fn open(
        metadata: Arc<dyn WriteAt>,
        data: Arc<dyn WriteAt>,
        block_bytes: u64,
    ) -> Result<Self> {
        let metadata = CachedDevice::new(metadata, CACHE_BYTES);
        let Some(bytes) = read_block(&metadata, 0, BLOCK_BYTES)? else {
            return Err(corrupt("expected it on the metadata volume".to_owned()));
        };
        let fields = Fields(&bytes);
        check_superblock(fields)?;
        let found = u64::from(fields.u32(336)) * 512;
        if found == 0 || found != block_bytes {
            return Err(corrupt(format!(
                "expected data blocks of {block_bytes} bytes, found {found}"
            )));
        }
        Ok(Self {
            metadata,
            data,
            mappings_root: fields.u64(320),
            devices_root: fields.u64(328),
            block_bytes,
        })
    }

    /// The tree that maps the blocks of a device, and when the device was last shared.
    fn device(&self, number: u64) -> Result<(u64, u32)> {
        let tree = |root, value_bytes| Tree {
            device: &self.metadata,
            root,
            value_bytes,
        };
        let details = tree(self.devices_root, DETAILS_BYTES).get(number)?;
        let root = tree(self.mappings_root, MAPPING_BYTES).get(number)?;
        match (details, root) {
            (Some(details), Some(root)) => Ok((Fields(&root).u64(0), Fields(&details).u32(20))),
            _ => Err(corrupt(format!("expected a device {number} in the pool"))),
        }
    }

    /// The first mapped block from `block` on.
    fn mapping(&self, root: u64, block: u64) -> Result<Option<Mapping>> {
        let tree = Tree {
            device: &self.metadata,
            root,
            value_bytes: MAPPING_BYTES,
        };
        let found = tree.at_or_after(block)?;
        Ok(found.map(|(block, value)| {
            let value = Fields(&value).u64(0);
            Mapping {
                block,
                data_block: value >> 24,
                time: (value & 0xff_ffff) as u32,
            }
        }))
    }
}

/// A block of a thin volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    block: u64,
    data_block: u64,
    /// When it was given to the volume, counted in snapshots.
    time: u32,
}

fn check_superblock(fields: Fields<'_>) -> Result<()> {
    let sum = checksum::of_block(fields.bytes(4, BLOCK_BYTES - 4), SUPERBLOCK_SUM);
    if fields.u64(32) != MAGIC || fields.u64(8) != 0 {
        return Err(corrupt("expected its magic".to_owned()));
    }
    if fields.u32(0) != sum {
        let expected = fields.u32(0);
        return Err(corrupt(format!(
            "expected checksum {expected:#x}, found {sum:#x}"
        )));
    }
    if !matches!(fields.u32(40), 1 | 2) {
        let feature = format!("version {}", fields.u32(40));
        return Err(Error::unsupported(STRUCTURE, feature));
    }
    if fields.u32(360) != 0 {
        let feature = format!("the incompatible features {:#x}", fields.u32(360));
        return Err(Error::unsupported(STRUCTURE, feature));
    }
    if fields.u32(340) != 8 {
        return Err(corrupt(format!(
            "expected metadata blocks of 8 sectors, found {}",
            fields.u32(340)
        )));
    }
    Ok(())
}

fn corrupt(problem: String) -> Error {
    Error::corrupt(STRUCTURE, 0, problem)
}
