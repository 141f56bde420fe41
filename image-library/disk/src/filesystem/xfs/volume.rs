// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device of an XFS as it is after a replay of its log: what all readers of metadata stand on.

use std::ops::Deref;

use super::super::superblock::xfs::Superblock;
use super::log::{Changes, Recovery, recover};
use super::seal::Seal;
use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::Fields;

/// A device, what a replay of its log changes, and the geometry.
#[derive(Debug)]
pub(super) struct Volume<D> {
    device: D,
    pub(super) superblock: Superblock,
    pub(super) recovery: Recovery,
}

/// A structure that was read, and where it stands.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    /// Its first byte on the device.
    pub(super) offset: u64,
    /// Part of it comes from the log: its checksum is made when it is written.
    pub(super) replayed: bool,
}

impl Block {
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields(&self.bytes)
    }

    /// Checks the magic, and what version 5 says besides; `owner` is an inode's number.
    pub(super) fn check(
        &self,
        structure: &'static str,
        has_magic: bool,
        owner: Option<u64>,
        superblock: &Superblock,
    ) -> Result<()> {
        if !has_magic {
            let found = self.fields().bytes(0, 12);
            let problem = format!("expected its magic, found {found:02x?}");
            return Err(Error::corrupt(structure, self.offset, problem));
        }
        match superblock.has_checksums && !self.replayed {
            true => Seal::check(structure, &self.bytes, self.offset, owner, superblock),
            false => Ok(()),
        }
    }
}

impl<D: Deref<Target: ReadAt>> Volume<D> {
    /// Replays the log in memory where it is not empty.
    pub(super) fn open(device: D, superblock: Superblock) -> Result<Self> {
        let recovery = recover(&device, &superblock)?;
        let mut volume = Self {
            device,
            superblock,
            recovery,
        };
        let sector = volume.read(0, volume.superblock.sector_size as usize)?;
        if sector.replayed {
            let length = volume.device.length_bytes();
            volume.superblock = Superblock::from_bytes(&sector.bytes, length)?;
        }
        Ok(volume)
    }

    /// Reads `length` bytes at `offset`.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Block> {
        let mut bytes = vec![0; length];
        let replayed = self.read_into(offset, &mut bytes)?;
        Ok(Block {
            bytes,
            offset,
            replayed,
        })
    }

    /// Fills a buffer; tells whether anything of it comes from the log.
    pub(super) fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        self.changes().read(&*self.device, offset, buffer)
    }

    fn changes(&self) -> &Changes {
        &self.recovery.changes
    }
}
