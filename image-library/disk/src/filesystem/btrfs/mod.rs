// SPDX-License-Identifier: MIT OR Apache-2.0
//! btrfs: trees over one address space over several devices, with subvolumes in it.
//!
//! ```text
//! superblock -> chunks -> chunk tree: which logical address is where on which device
//!            -> root tree -> extent, checksum, ... tree
//!                         -> subvolume's tree: inodes, names, extents of files
//!            -> log tree: files that were made durable after the last commit
//! ```
//!
//! Read are all checksums, node and sector sizes, profiles but RAID5 and RAID6, and compressions. Not
//! known, and refused by name, are zoned filesystems, extent-tree-v2, raid-stripe-tree, what grew out
//! of a seed device, and dumps. The log is seen, told, and not replayed: files are those of the last
//! commit, whole and consistent. Signatures of fs-verity are not looked at.
//!
//! Source: Linux, include/uapi/linux/btrfs_tree.h, fs/btrfs; btrfs documentation, "On-disk format".

mod allocation;
mod block;
mod checksum;
mod chunk;
mod compression;
mod file;
mod inode;
mod key;
mod log;
mod members;
mod reader;
mod root;
mod subvolume;
mod superblock;
mod tree;
mod volume;

use std::ops::Range;
use std::sync::Arc;

use super::Identity;
use crate::block::ReadAt;
use crate::error::Result;
use crate::finding::Finding;

pub use reader::SubvolumeReader;
pub use subvolume::{Subvolume, SubvolumeChoice};

use members::Members;
use volume::Volume;

const STRUCTURE: &str = "btrfs filesystem";
const SUPERBLOCK: &str = "btrfs superblock";

/// A btrfs filesystem, with the devices of it that are there.
#[derive(Debug)]
pub struct Btrfs {
    volume: Arc<Volume<'static>>,
    identity: Identity,
}

impl Btrfs {
    /// Opens the filesystem that the first of these devices belongs to.
    ///
    /// Those of the others that belong to it are taken, the rest is left alone. A device that is
    /// missing is a finding; reading what is on no other is `Unsupported`.
    pub fn open_devices(devices: &[Arc<dyn ReadAt>]) -> Result<Self> {
        let members = Members::choose(devices)?;
        let mut identity = members.superblock.identity();
        let lengths = members.by_number.values();
        let there = lengths.fold(0_u64, |sum, member| {
            sum.saturating_add(member.device.length_bytes())
        });
        identity.size_bytes = identity.size_bytes.map(|bytes| bytes.min(there));
        Ok(Self {
            volume: Arc::new(Volume::open(members)?),
            identity,
        })
    }

    /// What the superblock says.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What was noticed up to now: `disk.btrfs.device-missing`, `disk.btrfs.device-twice`,
    /// `disk.btrfs.superblock-copy-used`, `disk.btrfs.copy-used`.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.volume.findings()
    }

    /// Whether files were made durable after the last commit: the kernel puts them into place when it
    /// mounts, and they are not seen here.
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.volume.superblock.log_tree.is_some()
    }

    /// The bytes that are free for files.
    pub fn free_bytes(&self) -> Result<u64> {
        allocation::free_bytes(&self.volume)
    }

    /// All subvolumes, by number; the first is the top level.
    pub fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        subvolume::list(&self.volume)
    }

    /// Opens a subvolume: `NotFound` where there is no such.
    pub fn open_subvolume(&self, choice: SubvolumeChoice<'_>) -> Result<SubvolumeReader> {
        let (number, root) = subvolume::choose(&self.volume, choice)?;
        SubvolumeReader::new(
            Arc::clone(&self.volume),
            self.identity.clone(),
            number,
            root,
        )
    }

    /// Which bytes of device `number` are in use, as [`super::used_extents`] says it of a device that
    /// is looked at alone.
    pub fn used_extents(&self, number: u64) -> Result<Vec<Range<u64>>> {
        allocation::used_extents(&self.volume, number)
    }
}

/// The top level of a filesystem.
pub(crate) fn open(devices: &[Arc<dyn ReadAt>]) -> Result<SubvolumeReader> {
    Btrfs::open_devices(devices)?.open_subvolume(SubvolumeChoice::Id(key::object::TOP_LEVEL))
}

/// Which bytes of a device are in use, as far as that can be told without the others.
pub(crate) fn used_extents(device: &dyn ReadAt) -> Result<Vec<Range<u64>>> {
    let members = Members::one(device)?;
    let number = members.superblock.device.number;
    allocation::used_extents(&Volume::open(members)?, number)
}
