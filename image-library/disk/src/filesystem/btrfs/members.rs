// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of several devices make up a filesystem: those with its UUID, each by its number.
//!
//! The newest superblock of all counts. A device that was away for a while has an older one; its
//! blocks are told from newer ones by their generations. Of two devices with the same number, which
//! one gets by copying a disk, the newer is taken, or else the first.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::cache::{CachedDevice, check_bounds};
use super::SUPERBLOCK;
use super::superblock::Superblock;
use crate::block::{Extent, ReadAt};
use crate::error::{Error, Result};
use crate::fields::uuid;
use crate::finding::{Finding, Level};

/// One device of a filesystem.
#[derive(Debug)]
pub(super) struct Member<'d> {
    pub(super) uuid: [u8; 16],
    pub(super) device: Box<dyn ReadAt + 'd>,
    generation: u64,
}

/// The devices of a filesystem that are here.
#[derive(Debug)]
pub(super) struct Members<'d> {
    pub(super) superblock: Superblock,
    pub(super) by_number: BTreeMap<u64, Member<'d>>,
    pub(super) findings: Vec<Finding>,
}

impl<'d> Members<'d> {
    /// A device that is looked at alone.
    pub(super) fn one(device: &'d dyn ReadAt) -> Result<Self> {
        let (superblock, _) = Superblock::read(device)?.ok_or_else(no_superblock)?;
        let mut members = Self::new(superblock.clone());
        members.add(&superblock, Box::new(Borrowed(device)));
        Ok(members)
    }

    fn new(superblock: Superblock) -> Self {
        Self {
            superblock,
            by_number: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    fn add(&mut self, superblock: &Superblock, device: Box<dyn ReadAt + 'd>) {
        let number = superblock.device.number;
        let member = Member {
            uuid: superblock.device.uuid,
            device,
            generation: superblock.generation,
        };
        if let Some(other) = self.by_number.get(&number) {
            let place = place(&self.superblock);
            self.findings.push(Finding {
                level: Level::Warning,
                code: "disk.btrfs.device-twice".to_owned(),
                place,
                problem: format!("two devices are number {number} of it; the newer one is read"),
                remedy: Some("leave out the copy".to_owned()),
            });
            if other.generation >= member.generation {
                return;
            }
        }
        self.by_number.insert(number, member);
        if superblock.generation > self.superblock.generation {
            self.superblock = superblock.clone();
        }
    }
}

impl Members<'static> {
    /// Those of `candidates` that belong together with the first.
    pub(super) fn choose(candidates: &[Arc<dyn ReadAt>]) -> Result<Self> {
        let (first, others) = candidates.split_first().ok_or_else(no_superblock)?;
        let (superblock, copy_used) = Superblock::read(first)?.ok_or_else(no_superblock)?;
        let mut members = Self::new(superblock.clone());
        members.take(&superblock, copy_used, first);
        for device in others {
            match Superblock::read(device) {
                Ok(Some((other, copy_used)))
                    if other.filesystem_uuid == superblock.filesystem_uuid =>
                {
                    members.take(&other, copy_used, device);
                }
                // Another filesystem, or none; one that is broken has its turn as the first.
                Ok(_) | Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(members)
    }

    fn take(&mut self, superblock: &Superblock, copy_used: bool, device: &Arc<dyn ReadAt>) {
        if copy_used {
            let number = superblock.device.number;
            self.findings.push(Finding {
                level: Level::Warning,
                code: "disk.btrfs.superblock-copy-used".to_owned(),
                place: place(superblock),
                problem: format!("the first superblock of device {number} is damaged"),
                remedy: Some("`btrfs rescue super-recover` on the server".to_owned()),
            });
        }
        self.add(superblock, Box::new(CachedDevice::new(Arc::clone(device))));
    }
}

/// The filesystem, as findings name it.
pub(super) fn place(superblock: &Superblock) -> String {
    let uuid = uuid(&superblock.filesystem_uuid).unwrap_or_default();
    format!("btrfs {uuid}")
}

fn no_superblock() -> Error {
    Error::unsupported(SUPERBLOCK, "a device without one")
}

/// A device that is somebody else's; reading past its end is the filesystem's damage.
#[derive(Debug)]
struct Borrowed<'d>(&'d dyn ReadAt);

impl ReadAt for Borrowed<'_> {
    fn length_bytes(&self) -> u64 {
        self.0.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_bounds(self.length_bytes(), offset, buffer.len())?;
        self.0.read_exact_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }
}
