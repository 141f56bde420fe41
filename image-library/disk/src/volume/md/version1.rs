// SPDX-License-Identifier: MIT OR Apache-2.0
//! Superblocks of version 1: little-endian, sizes in sectors of 512 bytes.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0, 4, 8 | 4 | magic, major version, features |
//! | 16, 32 | 16, 32 | UUID and name of the array |
//! | 64 | 8 | created: seconds in the lower 40 bits |
//! | 72, 76 | 4 | level, layout |
//! | 80 | 8 | used of each member |
//! | 88, 92 | 4 | chunk, members |
//! | 96 | 4 | where the bitmap is, from the superblock (with a PPL: 2 bytes where, 2 bytes size) |
//! | 128, 136, 144 | 8 | where data begins, data of this member, where this superblock is |
//! | 152 | 8 | how far this member is rebuilt, or where its journal begins |
//! | 160, 168 | 4, 16 | number and UUID of this member |
//! | 184 | 1 | flags of this member |
//! | 185, 186, 188 | 1, 2, 4 | bad block log: unit, size, where from the superblock |
//! | 200, 208 | 8 | events, how far the array is in sync |
//! | 216, 220 | 4 | checksum, entries of the list |
//! | 256 | 2 each | the list: role; 0xffff spare, 0xfffe faulty, 0xfffd journal |
//!
//! The checksum is the sum of all words up to the list's end with its own as 0, the upper half
//! added to the lower.

use crate::block::array_at;
use crate::error::Result;
use crate::fields::{Fields, text};

use super::Metadata;
use super::superblock::{BadBlockLog, MAGIC, SECTOR_BYTES, Seat, Superblock, bytes_of, corrupt};

const LIST_OFFSET: usize = 256;
/// What of the list fits the 4 KiB of a superblock.
const ENTRIES_MAX: u32 = 1920;
const CHECKSUM_OFFSET: usize = 216;
const NEVER: u64 = u64::MAX;

/// Bits of the field "features".
mod feature {
    pub(super) const BITMAP: u32 = 1;
    pub(super) const RECOVERY_OFFSET: u32 = 1 << 1;
    pub(super) const RESHAPE: u32 = 1 << 2;
    pub(super) const BAD_BLOCKS: u32 = 1 << 3;
    pub(super) const REPLACEMENT: u32 = 1 << 4;
    pub(super) const NEW_OFFSET: u32 = 1 << 6;
    pub(super) const CLUSTERED: u32 = 1 << 8;
    pub(super) const JOURNAL: u32 = 1 << 9;
    pub(super) const PPL: u32 = 1 << 10;
    pub(super) const MULTIPLE_PPLS: u32 = 1 << 11;
    pub(super) const RAID0_LAYOUT: u32 = 1 << 12;
    pub(super) const ALL: u32 = (1 << 13) - 1;
}

/// `None` for what is no superblock of this version, an error for a broken one.
pub(super) fn from_bytes(
    bytes: &[u8],
    offset: u64,
    device_bytes: u64,
) -> Result<Option<Superblock>> {
    let fields = Fields(bytes);
    // The superblock knows its own place, which tells a stale copy from a real one.
    if fields.u32(0) != MAGIC
        || fields.u32(4) != 1
        || fields.u64(144).checked_mul(SECTOR_BYTES) != Some(offset)
    {
        return Ok(None);
    }
    let entries = fields.u32(220);
    if entries > ENTRIES_MAX {
        let problem = format!("expected up to {ENTRIES_MAX} entries of the list, found {entries}");
        return Err(corrupt(offset, problem));
    }
    let list_end = LIST_OFFSET + 2 * entries as usize;
    let sum = checksum(fields.bytes(0, list_end));
    if sum != fields.u32(CHECKSUM_OFFSET) {
        let expected = fields.u32(CHECKSUM_OFFSET);
        let problem = format!("expected checksum {expected:#010x}, found {sum:#010x}");
        return Err(corrupt(offset, problem));
    }
    let disks = fields.u32(92);
    if disks == 0 || disks > ENTRIES_MAX {
        let problem = format!("expected 1 to {ENTRIES_MAX} members, found {disks}");
        return Err(corrupt(offset, problem));
    }
    let parsed = superblock(fields, offset)?;
    let end = parsed.data_offset + parsed.data_bytes;
    if end > device_bytes {
        let problem = format!("expected a device of {end:#x} bytes, found {device_bytes:#x}");
        return Err(corrupt(offset, problem));
    }
    Ok(Some(parsed))
}

fn superblock(fields: Fields<'_>, offset: u64) -> Result<Superblock> {
    let features = fields.u32(8);
    let has = |bit: u32| features & bit != 0;
    let level = fields.u32(72).cast_signed();
    let bytes = |at: usize, what: &str| bytes_of(fields.u64(at), what, offset);
    let recovery = bytes_of(
        if has(feature::RECOVERY_OFFSET | feature::JOURNAL) {
            fields.u64(152)
        } else {
            0
        },
        "the rebuilt part",
        offset,
    )?;
    let entries = fields.u32(220) as usize;
    let seats = (0..entries).map(|index| seat(fields.u16(LIST_OFFSET + 2 * index)));
    let number = fields.u32(160);
    let is_journal = fields.u16(LIST_OFFSET + 2 * (number as usize).min(entries)) == 0xfffd;
    let has_ppl = has(feature::PPL | feature::MULTIPLE_PPLS);
    Ok(Superblock {
        metadata: match offset {
            0 => Metadata::V1_1,
            4096 => Metadata::V1_2,
            _ => Metadata::V1_0,
        },
        offset,
        uuid: array_at(fields.0, 16),
        device_uuid: Some(array_at(fields.0, 168)),
        name: text(fields.bytes(32, 32)),
        preferred_minor: None,
        created: fields.u64(64) & ((1 << 40) - 1),
        level,
        layout: (level != 0 || has(feature::RAID0_LAYOUT)).then(|| fields.u32(76)),
        chunk_bytes: u64::from(fields.u32(88)) * SECTOR_BYTES,
        component_bytes: bytes(80, "the used part")?,
        data_offset: bytes(128, "the start of data")?,
        data_bytes: bytes(136, "the data")?,
        disks: fields.u32(92),
        events: fields.u64(200),
        number,
        seats: seats.collect(),
        dirty: fields.u64(208) != NEVER,
        recovered_bytes: (has(feature::RECOVERY_OFFSET) && !is_journal).then_some(recovery),
        journal_tail: is_journal.then_some(recovery),
        has_journal: has(feature::JOURNAL),
        ppl: match has_ppl {
            true => Some(from_here(offset, i64::from(fields.u16(96).cast_signed()))?),
            false => None,
        },
        bitmap: match has(feature::BITMAP) && !has_ppl {
            true => Some(from_here(offset, i64::from(fields.u32(96).cast_signed()))?),
            false => None,
        },
        bad_blocks: bad_block_log(fields, offset)?,
        replacement: has(feature::REPLACEMENT),
        // A feature of the future may mean anything: as if the array were being changed.
        reshaping: has(feature::RESHAPE | feature::NEW_OFFSET | !feature::ALL),
        clustered: has(feature::CLUSTERED),
    })
}

fn bad_block_log(fields: Fields<'_>, offset: u64) -> Result<Option<BadBlockLog>> {
    let sectors = u64::from(fields.u16(186));
    if fields.u32(8) & feature::BAD_BLOCKS == 0 || sectors == 0 {
        return Ok(None);
    }
    Ok(Some(BadBlockLog {
        offset: from_here(offset, i64::from(fields.u32(188).cast_signed()))?,
        length: sectors * SECTOR_BYTES,
        shift: u32::from(fields.u8(185)),
    }))
}

/// A place that is told as sectors from the superblock.
fn from_here(offset: u64, sectors: i64) -> Result<u64> {
    let place = offset.checked_add_signed(sectors * SECTOR_BYTES.cast_signed());
    place.ok_or_else(|| {
        let problem = format!("expected a place on the device, found {sectors} sectors from here");
        corrupt(offset, problem)
    })
}

fn seat(entry: u16) -> Seat {
    match entry {
        0xffff => Seat::Spare,
        0xfffe => Seat::Faulty,
        0xfffd => Seat::Journal,
        role => Seat::Role(u32::from(role)),
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = 0_u64;
    for (index, word) in bytes.chunks(4).enumerate() {
        if index * 4 != CHECKSUM_OFFSET {
            // Where the list has an odd number of entries, the last word is half a word.
            sum += u64::from(Fields(word).u16(0)) | u64::from(Fields(word).u16(2)) << 16;
        }
    }
    (sum as u32).wrapping_add((sum >> 32) as u32)
}
