// SPDX-License-Identifier: MIT OR Apache-2.0
//! Superblocks of version 0.90: 1024 words of 32 bits in the byte order of the machine.
//!
//! | word | field |
//! |---|---|
//! | 0, 1, 2 | magic, major and minor version (90; 91 while the array is reshaped) |
//! | 5, 13 to 15 | UUID of the array |
//! | 6, 7, 8 | created, level, KiB used of each member |
//! | 10, 11 | members, preferred minor |
//! | 33 | state: bit 0 clean, 5 clustered, 8 bitmap |
//! | 38 | checksum: the sum of all words with this one as 0, its upper half added to the lower |
//! | 39, 40 | events, low word first on little-endian machines |
//! | 64, 65 | layout, bytes of a chunk |
//! | 128 + 32 n | device n: number, major, minor, role, state |
//! | 992 | this device |

use crate::error::Result;
use crate::fields::Fields;

use super::Metadata;
use super::superblock::{MAGIC, Seat, Superblock, corrupt};

const DEVICES_MAX: u32 = 27;
const CLEAN: u32 = 1;
const CLUSTERED: u32 = 1 << 5;
const BITMAP: u32 = 1 << 8;
const DEVICE_FAULTY: u32 = 1;
const DEVICE_SYNC: u32 = 1 << 2;
const MINOR_RESHAPING: u32 = 91;
/// A bitmap stands in the second half of the superblock's room, 4 KiB after its start.
const BITMAP_BYTES_AFTER: u64 = 4096;

/// The words of a superblock in one of the two byte orders.
struct Words<'a> {
    fields: Fields<'a>,
    little: bool,
}

impl Words<'_> {
    fn get(&self, index: usize) -> u32 {
        match self.little {
            true => self.fields.u32(index * 4),
            false => self.fields.u32_be(index * 4),
        }
    }

    fn checksum(&self) -> u32 {
        let sum: u64 = (0..1024)
            .filter(|index| *index != 38)
            .map(|index| u64::from(self.get(index)))
            .sum();
        (sum as u32).wrapping_add((sum >> 32) as u32)
    }

    fn events(&self) -> u64 {
        let (first, second) = (u64::from(self.get(39)), u64::from(self.get(40)));
        match self.little {
            true => second << 32 | first,
            false => first << 32 | second,
        }
    }

    fn seat(&self, index: usize) -> Seat {
        let (role, state) = (self.get(index + 3), self.get(index + 4));
        if state & DEVICE_FAULTY != 0 {
            Seat::Faulty
        } else if state & DEVICE_SYNC != 0 && role < self.get(10) {
            Seat::Role(role)
        } else {
            Seat::Spare
        }
    }
}

/// `None` for what is no superblock of this version, an error for a broken one.
pub(super) fn from_bytes(bytes: &[u8], offset: u64) -> Result<Option<Superblock>> {
    let fields = Fields(bytes);
    let little = match (fields.u32(0), fields.u32_be(0)) {
        (MAGIC, _) => true,
        (_, MAGIC) => false,
        _ => return Ok(None),
    };
    let words = Words { fields, little };
    if words.get(1) != 0 {
        return Ok(None);
    }
    let (sum, expected) = (words.checksum(), words.get(38));
    if sum != expected {
        let problem = format!("expected checksum {expected:#010x}, found {sum:#010x}");
        return Err(corrupt(offset, problem));
    }
    let (disks, number) = (words.get(10), words.get(992));
    if disks == 0 || disks > DEVICES_MAX || number >= DEVICES_MAX {
        let problem =
            format!("expected up to {DEVICES_MAX} members, found {disks}, this one {number}");
        return Err(corrupt(offset, problem));
    }
    Ok(Some(superblock(&words, offset)))
}

fn superblock(words: &Words<'_>, offset: u64) -> Superblock {
    let mut uuid = [0; 16];
    for (bytes, index) in uuid.chunks_exact_mut(4).zip([5, 13, 14, 15]) {
        bytes.copy_from_slice(&words.get(index).to_be_bytes());
    }
    let level = words.get(7).cast_signed();
    let state = words.get(33);
    Superblock {
        metadata: Metadata::V0_90,
        offset,
        uuid,
        device_uuid: None,
        name: None,
        preferred_minor: Some(words.get(11)),
        created: u64::from(words.get(6)),
        level,
        layout: (level != 0).then(|| words.get(64)),
        chunk_bytes: u64::from(words.get(65)),
        component_bytes: u64::from(words.get(8)) * 1024,
        data_offset: 0,
        data_bytes: offset,
        disks: words.get(10),
        events: words.events(),
        number: words.get(992),
        seats: (0..DEVICES_MAX as usize)
            .map(|number| words.seat(128 + 32 * number))
            .collect(),
        dirty: state & CLEAN == 0,
        recovered_bytes: None,
        journal_tail: None,
        has_journal: false,
        ppl: None,
        bitmap: (state & BITMAP != 0).then(|| offset + BITMAP_BYTES_AFTER),
        bad_blocks: None,
        replacement: false,
        reshaping: words.get(2) >= MINOR_RESHAPING,
        clustered: state & CLUSTERED != 0,
    }
}
