// SPDX-License-Identifier: MIT OR Apache-2.0
//! The RAIDs of logical volumes: dm-raid, which is md with a superblock of its own in front of each
//! image's bitmap, in a logical volume of one extent (`_rmeta_`). Little-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `DmRd` |
//! | 4 | 4 | features; 1: the fields from 60 on are valid |
//! | 12 | 4 | this device's place in the array |
//! | 16 | 8 | count of events: a device with fewer was left behind |
//! | 24 | 8 | failed devices, a bit for each |
//! | 32 | 8 | how far this device was rebuilt, in sectors; all ones when it is whole |
//! | 40 | 8 | how far the array was resynchronised; all ones when it is whole |
//! | 48, 52, 56 | 4 each | level, layout, chunk in sectors |
//! | 60 | 4 | flags; 1: a reshape goes on |
//! | 64 | 8 | how far that went |
//! | 96 | 8 | where the data begins on this device, in sectors |
//!
//! From drivers/md/dm-raid.c of Linux. Its bitmap is not read: of a mirror that was not shut down
//! one leg is read throughout, which is one of the states that the kernel may choose. That parity
//! may be older than its data where the bitmap says so matters only while a leg is missing: then
//! Linux itself does not start the array without being forced, and here it is read.

use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block};
use crate::volume::mapped::Algorithm;

pub(super) const STRUCTURE: &str = "LVM2 RAID";
const MAGIC: &[u8; 4] = b"DmRd";
const SUPERBLOCK_BYTES: usize = 512;
/// Devices that the first field of failures has bits for; LVM makes no RAID of more.
const LEGS_MAX: usize = 64;

/// How the bytes of a RAID lie on its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Copies(usize),
    Parity(Algorithm),
}

/// What a leg says of itself and of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    position: u64,
    events: u64,
    failed: u64,
    is_whole: bool,
    is_synchronised: bool,
    level: u32,
    layout: u32,
    chunk_bytes: u64,
    is_reshaped: bool,
}

/// What was found where a leg's superblock should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Superblock(Superblock),
    /// The leg was never used, or there is no place for a superblock.
    Nothing,
    /// The leg is not there.
    Absent,
}

/// Whether a leg holds what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    InSync,
    /// It was left behind, or is being built, and the other legs know that.
    Stale,
}

impl Found {
    /// Reads the superblock of a leg.
    pub(super) fn read(device: &dyn ReadAt) -> Result<Self> {
        let bytes = read_block(device, 0, SUPERBLOCK_BYTES)?;
        let superblock = bytes.and_then(|bytes| Superblock::from_bytes(&bytes));
        Ok(superblock.map_or(Self::Nothing, Self::Superblock))
    }

    fn superblock(&self) -> Option<&Superblock> {
        match self {
            Self::Superblock(superblock) => Some(superblock),
            Self::Nothing | Self::Absent => None,
        }
    }
}

impl Superblock {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes);
        let has_more = fields.u32(4) & 1 != 0;
        let reshapes = has_more
            && (fields.u32(60) & 1 != 0 || fields.u64(64) != u64::MAX || fields.u64(96) != 0);
        (fields.bytes(0, 4) == MAGIC).then(|| Self {
            position: u64::from(fields.u32(12)),
            events: fields.u64(16),
            failed: fields.u64(24),
            is_whole: fields.u64(32) == u64::MAX,
            is_synchronised: fields.u64(40) == u64::MAX,
            level: fields.u32(48),
            layout: fields.u32(52),
            chunk_bytes: u64::from(fields.u32(56)) * 512,
            is_reshaped: reshapes,
        })
    }
}

impl Shape {
    /// The shape of a segment type; `copies` is what the segment says for RAID-10.
    pub(super) fn of(level: &str, legs: usize, copies: usize) -> Result<Self> {
        let parity = |parity_count, number| {
            Self::Parity(Algorithm {
                parity_count,
                number,
            })
        };
        let shape = match level {
            "raid0" | "raid0_meta" => Self::Copies(1),
            "raid1" => Self::Copies(legs),
            "raid10" | "raid10_near" => Self::Copies(copies.max(2)),
            "raid4" => parity(1, 4),
            "raid5_la" => parity(1, 0),
            "raid5_ra" => parity(1, 1),
            "raid5" | "raid5_ls" => parity(1, 2),
            "raid5_rs" => parity(1, 3),
            "raid5_n" => parity(1, 5),
            "raid6" | "raid6_zr" => parity(2, 8),
            "raid6_nr" => parity(2, 9),
            "raid6_nc" => parity(2, 10),
            "raid6_n_6" => parity(2, 5),
            "raid6_la_6" => parity(2, 16),
            "raid6_ra_6" => parity(2, 17),
            "raid6_ls_6" => parity(2, 18),
            "raid6_rs_6" => parity(2, 19),
            other => return Err(Error::unsupported(STRUCTURE, format!("the type {other}"))),
        };
        if legs > LEGS_MAX {
            let feature = format!("an array of {legs} devices");
            return Err(Error::unsupported(STRUCTURE, feature));
        }
        Ok(shape)
    }

    /// Bytes on each image for so many bytes of the array.
    pub(super) fn image_bytes(self, length: u64, legs: usize) -> u64 {
        match self {
            Self::Copies(copies) => length / (legs / copies.max(1)).max(1) as u64,
            Self::Parity(algorithm) => {
                length / legs.saturating_sub(algorithm.parity_count).max(1) as u64
            }
        }
    }

    /// An error where a leg's superblock is of another shape: the array is being changed into
    /// another.
    fn check(self, superblock: &Superblock, chunk_bytes: u64) -> Result<()> {
        let is_mine = match self {
            Self::Copies(_) => [0, 1, 10].contains(&superblock.level),
            Self::Parity(algorithm) => {
                let level = [5, 6][algorithm.parity_count - 1];
                (superblock.level, superblock.layout) == (level, algorithm.number)
            }
        };
        let chunk_fits = superblock.level == 1 || superblock.chunk_bytes == chunk_bytes;
        if is_mine && chunk_fits && !superblock.is_reshaped {
            return Ok(());
        }
        let feature = format!(
            "an array that is being changed (level {}, layout {}, chunks of {} bytes)",
            superblock.level, superblock.layout, superblock.chunk_bytes
        );
        Err(Error::unsupported(STRUCTURE, feature))
    }
}

/// Which legs hold what they should, by their superblocks. Of one that is absent the answer is
/// whether the others know that.
///
/// Where no leg has a superblock the array was never started, and nothing says that the legs
/// differ.
pub(super) fn states(shape: Shape, chunk_bytes: u64, legs: &[Found]) -> Result<Vec<State>> {
    let known = legs.iter().filter_map(Found::superblock);
    let Some(newest) = known.clone().max_by_key(|superblock| superblock.events) else {
        return Ok(vec![State::InSync; legs.len()]);
    };
    for superblock in known {
        shape.check(superblock, chunk_bytes)?;
    }
    let state = |(index, leg): (usize, &Found)| {
        let has_failed = newest.failed.checked_shr(index as u32).unwrap_or(0) & 1 != 0;
        let is_current = match leg {
            // md lets a device be one event behind, the last before a power cut.
            Found::Superblock(superblock) => {
                superblock.events.saturating_add(1) >= newest.events
                    && superblock.is_whole
                    && superblock.position == index as u64
            }
            Found::Nothing => false,
            Found::Absent => true,
        };
        match is_current && !has_failed {
            true => State::InSync,
            false => State::Stale,
        }
    };
    let states: Vec<_> = legs.iter().enumerate().map(state).collect();
    let is_degraded = states.contains(&State::Stale) || legs.contains(&Found::Absent);
    if matches!(shape, Shape::Parity(_)) && is_degraded && !newest.is_synchronised {
        let feature = "reading without all devices before the first synchronisation was finished";
        return Err(Error::unsupported(STRUCTURE, feature));
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(position: u64, events: u64) -> Superblock {
        let mut bytes = [0; 512];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = 1;
        bytes[12] = position as u8;
        bytes[16..24].copy_from_slice(&events.to_le_bytes());
        bytes[32..48].fill(0xff);
        bytes[48] = 1;
        bytes[64..72].fill(0xff);
        Superblock::from_bytes(&bytes).expect("it has the magic")
    }

    #[test]
    fn the_newest_superblock_says_which_legs_are_in_sync() {
        use State::{InSync, Stale};
        let shape = Shape::of("raid1", 4, 0).expect("it is known");
        let check = |legs: &[Found], expected: &[State]| {
            assert_eq!(states(shape, 0, legs).expect("it is sound"), expected);
        };
        let leg = |position, events| Found::Superblock(superblock(position, events));
        check(&[Found::Nothing, Found::Nothing], &[InSync, InSync]);
        check(&[Found::Nothing, leg(1, 1)], &[Stale, InSync]);
        check(&[Found::Absent, leg(1, 1)], &[InSync, InSync]);
        check(&[leg(0, 8), leg(1, 9)], &[InSync, InSync]);
        check(&[leg(0, 7), leg(1, 9)], &[Stale, InSync]);
        check(&[leg(1, 9), leg(1, 9)], &[Stale, InSync]);
        let mut rebuilt = superblock(0, 9);
        rebuilt.is_whole = false;
        check(&[Found::Superblock(rebuilt), leg(1, 9)], &[Stale, InSync]);
        let mut newest = superblock(1, 9);
        newest.failed = 1;
        check(
            &[Found::Absent, Found::Superblock(newest)],
            &[Stale, InSync],
        );
    }

    #[test]
    fn an_array_that_is_being_changed_is_not_read() {
        let shape = Shape::of("raid1", 2, 0).expect("it is known");
        let reshape = |superblock: &mut Superblock| superblock.is_reshaped = true;
        let other_level = |superblock: &mut Superblock| superblock.level = 5;
        for change in [reshape as fn(&mut Superblock), other_level] {
            let mut superblock = superblock(0, 1);
            change(&mut superblock);
            let error = states(shape, 0, &[Found::Superblock(superblock), Found::Absent])
                .expect_err("refused");
            assert!(error.to_string().contains("being changed"), "{error}");
        }
        let shape = Shape::of("raid5", 3, 0).expect("it is known");
        let mut fresh = superblock(0, 1);
        (fresh.level, fresh.layout, fresh.chunk_bytes) = (5, 2, 65536);
        fresh.is_synchronised = false;
        let error = states(
            shape,
            65536,
            &[Found::Superblock(fresh.clone()), Found::Absent],
        )
        .expect_err("refused");
        assert!(
            error.to_string().contains("first synchronisation"),
            "{error}"
        );
        fresh.is_synchronised = true;
        assert!(
            states(
                shape,
                65536,
                &[Found::Superblock(fresh.clone()), Found::Absent]
            )
            .is_ok()
        );
        assert!(states(shape, 32768, &[Found::Superblock(fresh), Found::Absent]).is_err());
    }

    #[test]
    fn unknown_types_and_too_many_legs_are_unsupported() {
        assert!(Shape::of("raid7", 3, 0).is_err());
        assert!(Shape::of("raid1", 65, 0).is_err());
        let raid10 = Shape::of("raid10", 4, 0).expect("it is known");
        assert_eq!(raid10.image_bytes(100, 4), 50);
        let raid6 = Shape::of("raid6", 5, 0).expect("it is known");
        assert_eq!(raid6.image_bytes(300, 5), 100);
    }
}
