// SPDX-License-Identifier: MIT OR Apache-2.0
//! The superblock of a member, of either format, in the terms that both share.
//!
//! | version | where |
//! |---|---|
//! | 0.90 | the last 64 KiB block that begins 64 KiB before an aligned end |
//! | 1.0 | 8 KiB before the end, aligned to 4 KiB |
//! | 1.1 | at the start |
//! | 1.2 | 4 KiB from the start |
//!
//! Source: Linux, `include/uapi/linux/raid/md_p.h` and `drivers/md/md.c`. Where a device was used
//! for several arrays, the superblock of the youngest array counts, as for `mdadm`.

use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::read_block;

use super::{Metadata, version0, version1};

pub(crate) const MAGIC: u32 = 0xa92b_4efc;
pub(super) const SUPERBLOCK_BYTES: usize = 4096;
pub(super) const SECTOR_BYTES: u64 = 512;
/// Beyond this, a number of sectors is no size of a device: as bytes it fits an `i64`.
const SECTORS_MAX: u64 = 1 << 53;

/// What a device in the list of a superblock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// Holds this position of the array.
    Role(u32),
    /// Waits, or the list has no such device.
    Spare,
    /// Failed.
    Faulty,
    /// Holds the write journal.
    Journal,
}

/// Where a member says which of its blocks are bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadBlockLog {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) shift: u32,
}

/// Everything that a superblock says; places and sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) metadata: Metadata,
    pub(super) offset: u64,
    pub(super) uuid: [u8; 16],
    pub(super) device_uuid: Option<[u8; 16]>,
    pub(super) name: Option<String>,
    pub(super) preferred_minor: Option<u32>,
    pub(super) created: u64,
    pub(super) level: i32,
    /// `None` where a RAID0 does not say how it lays out its zones.
    pub(super) layout: Option<u32>,
    pub(super) chunk_bytes: u64,
    /// What the levels with redundancy use of each member.
    pub(super) component_bytes: u64,
    pub(super) data_offset: u64,
    /// What this member has, for the levels without redundancy.
    pub(super) data_bytes: u64,
    pub(super) disks: u32,
    pub(super) events: u64,
    pub(super) number: u32,
    pub(super) seats: Vec<Seat>,
    pub(super) dirty: bool,
    /// Up to where a member that is being rebuilt is in sync.
    pub(super) recovered_bytes: Option<u64>,
    pub(super) journal_tail: Option<u64>,
    pub(super) has_journal: bool,
    pub(super) ppl: Option<u64>,
    pub(super) bitmap: Option<u64>,
    pub(super) bad_blocks: Option<BadBlockLog>,
    pub(super) replacement: bool,
    pub(super) reshaping: bool,
    pub(super) clustered: bool,
}

impl Superblock {
    /// What the list of this superblock says of a device.
    pub(super) fn seat(&self, number: u32) -> Seat {
        let seat = self.seats.get(number as usize);
        seat.copied().unwrap_or(Seat::Spare)
    }
}

/// The superblock of a device; `None` where it has none.
pub(super) fn find(device: &dyn ReadAt) -> Result<Option<Superblock>> {
    let length = device.length_bytes();
    let mut best: Option<Superblock> = None;
    let mut damage = None;
    let version1 = version1_offsets(length).map(|offset| (offset, true));
    for (offset, is_version1) in version1.chain(version0_offset(length).map(|at| (at, false))) {
        let Some(bytes) = read_block(device, offset, SUPERBLOCK_BYTES)? else {
            continue;
        };
        let parsed = match is_version1 {
            true => version1::from_bytes(&bytes, offset, length),
            false => version0::from_bytes(&bytes, offset),
        };
        match parsed {
            Ok(Some(found)) if best.as_ref().is_none_or(|b| b.created < found.created) => {
                best = Some(found);
            }
            Ok(_) => {}
            Err(error) => damage = damage.or(Some(error)),
        }
    }
    match (best, damage) {
        (None, Some(error)) => Err(error),
        (best, _) => Ok(best),
    }
}

/// Where a version 1 superblock may stand: 1.1, 1.2, 1.0.
pub(crate) fn version1_offsets(length: u64) -> impl Iterator<Item = u64> {
    let at_end = (length / SECTOR_BYTES)
        .checked_sub(16)
        .map(|sector| (sector & !7) * SECTOR_BYTES);
    [Some(0), Some(4096), at_end].into_iter().flatten()
}

/// Where a version 0.90 superblock stands.
pub(crate) fn version0_offset(length: u64) -> Option<u64> {
    (length & !0xffff).checked_sub(0x10000)
}

/// Sectors as bytes.
pub(super) fn bytes_of(sectors: u64, what: &str, offset: u64) -> Result<u64> {
    if sectors > SECTORS_MAX {
        let problem = format!("expected {what} of a device, found {sectors} sectors");
        return Err(corrupt(offset, problem));
    }
    Ok(sectors * SECTOR_BYTES)
}

pub(super) fn corrupt(offset: u64, problem: impl Into<String>) -> Error {
    Error::corrupt("md superblock", offset, problem)
}
