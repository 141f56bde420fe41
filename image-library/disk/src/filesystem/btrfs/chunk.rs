// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunks: which logical addresses lie where on which devices.
//!
//! | offset | field | | offset, in each stripe | field |
//! |---|---|---|---|---|
//! | 0 | length | | 0 | device |
//! | 16 | stripe length: 64 KiB | | 8 | byte on the device |
//! | 24 | type and profile | | 16 | UUID of the device |
//! | 44, 46 | stripes, sub-stripes | | | |
//! | 48 | stripes, 32 bytes each | | | |
//!
//! | profile | columns | copies |
//! |---|---|---|
//! | single, DUP, RAID1, RAID1C3, RAID1C4 | 1 | 1, 2, 2, 3, 4 |
//! | RAID0 | stripes | 1 |
//! | RAID10 | stripes / 2 | 2 |
//!
//! Pieces of 64 KiB go from column to column; copy `k` of column `c` is stripe `c * copies + k`. RAID5
//! and RAID6 are known as space that is taken, and not read.
//!
//! Source: Linux, include/uapi/linux/btrfs_tree.h (`btrfs_chunk`), fs/btrfs/volumes.c
//! (`btrfs_map_block`), tree-checker.c (`btrfs_check_chunk_valid`).

use std::collections::BTreeMap;
use std::ops::Range;

use super::key::{Key, kind};
use crate::block::array_at;
use crate::error::{Error, Result};
use crate::fields::Fields;

const STRUCTURE: &str = "btrfs chunk";
const HEADER_BYTES: usize = 48;
const STRIPE_BYTES: usize = 32;
/// The length of a piece that stays on one device.
const PIECE_BYTES: u64 = 65536;
/// 16 PiB in chunks of 1 GiB.
const CHUNKS_MAX: usize = 1 << 24;

const TYPE_DATA: u64 = 0x1;
const PROFILES: u64 = 0x7f8;
const PROFILE_DUP: u64 = 0x20;

/// The part of a chunk that is on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stripe {
    pub(super) device: u64,
    pub(super) device_uuid: [u8; 16],
    pub(super) offset: u64,
}

/// A run of logical addresses, and its stripes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) logical: u64,
    pub(super) length: u64,
    pub(super) stripes: Vec<Stripe>,
    flags: u64,
    columns: u64,
    copies: usize,
    /// RAID5 or RAID6.
    parity: Option<&'static str>,
}

/// Where a logical address is.
#[derive(Debug)]
pub(super) struct Place<'c> {
    pub(super) stripe: &'c Stripe,
    pub(super) physical: u64,
    /// As far as what follows it follows it on the device too.
    pub(super) run_bytes: u64,
}

impl Chunk {
    pub(super) fn from_bytes(key: Key, bytes: &[u8]) -> Result<Self> {
        let fields = Fields(bytes);
        let logical = key.offset;
        let corrupt = |problem: &str| Error::corrupt(STRUCTURE, logical, problem);
        let count = usize::from(fields.u16(44));
        if bytes.len() != HEADER_BYTES + count * STRIPE_BYTES {
            return Err(corrupt("its length is not that of its stripes"));
        }
        if fields.u64(16) != PIECE_BYTES {
            return Err(corrupt("its stripe length is not 64 KiB"));
        }
        let flags = fields.u64(24);
        let (columns, copies, parity) = layout(flags, count, fields.u16(46))
            .ok_or_else(|| corrupt("its profile and its number of stripes do not fit"))?;
        let stripe = |index| {
            let at = HEADER_BYTES + index * STRIPE_BYTES;
            Stripe {
                device: fields.u64(at),
                offset: fields.u64(at + 8),
                device_uuid: array_at(fields.bytes(at + 16, 16), 0),
            }
        };
        let chunk = Self {
            logical,
            length: fields.u64(0),
            stripes: (0..count).map(stripe).collect(),
            flags,
            columns,
            copies,
            parity,
        };
        let ends = [logical]
            .into_iter()
            .chain(chunk.stripes.iter().map(|stripe| stripe.offset));
        if chunk.length == 0
            || ends
                .into_iter()
                .any(|at| at.checked_add(chunk.length).is_none())
        {
            return Err(corrupt("its length is not possible"));
        }
        Ok(chunk)
    }

    pub(super) fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }

    pub(super) fn copies(&self) -> usize {
        self.copies
    }

    pub(super) fn holds_data(&self) -> bool {
        self.flags & TYPE_DATA != 0
    }

    /// Whether what is where in the stripes is not known here.
    pub(super) fn has_parity(&self) -> bool {
        self.parity.is_some()
    }

    /// On how many devices each byte must be: on one, which has it twice, for DUP.
    pub(super) fn devices_per_byte(&self) -> u64 {
        match self.flags & PROFILES {
            PROFILE_DUP => 1,
            _ => self.copies as u64,
        }
    }

    /// How much of each device the chunk takes.
    pub(super) fn stripe_bytes(&self) -> u64 {
        self.length.div_ceil(self.columns)
    }

    /// Where an address of this chunk is, in one of its copies.
    pub(super) fn locate(&self, logical: u64, copy: usize) -> Result<Place<'_>> {
        if let Some(name) = self.parity {
            return Err(Error::unsupported(STRUCTURE, format!("reading {name}")));
        }
        let offset = logical.saturating_sub(self.logical);
        let piece = offset / PIECE_BYTES;
        let (column, within, run_bytes) = match self.columns {
            1 => (0, offset, self.length.saturating_sub(offset)),
            columns => {
                let within = offset % PIECE_BYTES;
                let row = piece / columns * PIECE_BYTES;
                (piece % columns, row + within, PIECE_BYTES - within)
            }
        };
        let index = column as usize * self.copies + copy;
        let stripe = self.stripes.get(index).filter(|_| copy < self.copies);
        let stripe = stripe.ok_or_else(|| {
            let problem = format!("it has no copy {copy}");
            Error::corrupt(STRUCTURE, self.logical, problem)
        })?;
        Ok(Place {
            stripe,
            physical: stripe.offset.saturating_add(within),
            run_bytes: run_bytes.min(self.length.saturating_sub(offset)),
        })
    }

    /// The part of a logical range that stripe number `index` holds, in bytes of its device.
    pub(super) fn on_stripe(&self, index: usize, logical: &Range<u64>) -> Range<u64> {
        let Some(stripe) = self.stripes.get(index) else {
            return 0..0;
        };
        let column = (index / self.copies.max(1)) as u64;
        let physical = |logical: u64| {
            let offset = logical.saturating_sub(self.logical);
            stripe.offset.saturating_add(match self.columns {
                1 => offset,
                columns => {
                    let row_bytes = columns * PIECE_BYTES;
                    let within = (offset % row_bytes).saturating_sub(column * PIECE_BYTES);
                    offset / row_bytes * PIECE_BYTES + within.min(PIECE_BYTES)
                }
            })
        };
        physical(logical.start)..physical(logical.end)
    }
}

/// Columns, copies and the name of a parity profile.
fn layout(
    flags: u64,
    count: usize,
    sub_stripes: u16,
) -> Option<(u64, usize, Option<&'static str>)> {
    let mirrored = |copies| (count == copies).then_some((1, copies, None));
    let parity = |stripes: usize, name| {
        let columns = count.checked_sub(stripes).filter(|&columns| columns > 0)?;
        Some((columns as u64, 1, Some(name)))
    };
    match flags & PROFILES {
        0 => mirrored(1),
        0x8 if count > 0 => Some((count as u64, 1, None)),
        0x10 | 0x20 => mirrored(2),
        0x40 if count >= 2 && count.is_multiple_of(2) && sub_stripes == 2 => {
            Some((count as u64 / 2, 2, None))
        }
        0x80 => parity(1, "RAID5"),
        0x100 => parity(2, "RAID6"),
        0x200 => mirrored(3),
        0x400 => mirrored(4),
        _ => None,
    }
}

/// All chunks, by logical address; none overlaps another.
#[derive(Debug, Default)]
pub(super) struct ChunkMap(BTreeMap<u64, Chunk>);

impl ChunkMap {
    /// The chunks of the chunk tree, which the superblock has: keys and chunks, one after the other.
    pub(super) fn from_superblock(bytes: &[u8]) -> Result<Self> {
        let mut map = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let fields = Fields(rest);
            let key = Key::from_bytes(fields, 0);
            let stripes = usize::from(fields.u16(Key::BYTES + 44));
            let length = HEADER_BYTES + stripes * STRIPE_BYTES;
            let item = fields.bytes(Key::BYTES, length);
            if key.kind != kind::CHUNK || item.is_empty() {
                return Err(Error::corrupt(
                    STRUCTURE,
                    key.offset,
                    "the superblock's list is broken",
                ));
            }
            map.insert(Chunk::from_bytes(key, item)?)?;
            rest = rest.get(Key::BYTES + length..).unwrap_or_default();
        }
        Ok(map)
    }

    pub(super) fn insert(&mut self, chunk: Chunk) -> Result<()> {
        let before = self.0.range(..chunk.end()).next_back();
        let overlaps = before.is_some_and(|(_, other)| {
            other.end() > chunk.logical && other.logical != chunk.logical
        });
        if overlaps {
            let problem = "it overlaps another";
            return Err(Error::corrupt(STRUCTURE, chunk.logical, problem));
        }
        if self.0.len() >= CHUNKS_MAX {
            return Err(Error::Limit {
                what: "the chunks of a btrfs filesystem",
                limit: CHUNKS_MAX as u64,
            });
        }
        self.0.insert(chunk.logical, chunk);
        Ok(())
    }

    pub(super) fn find(&self, logical: u64) -> Result<&Chunk> {
        let before = self.0.range(..=logical).next_back();
        before
            .map(|(_, chunk)| chunk)
            .filter(|chunk| logical < chunk.end())
            .ok_or_else(|| Error::corrupt(STRUCTURE, logical, "no chunk has this address"))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.0.values()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rstest::rstest;

    use super::{Chunk, ChunkMap};
    use crate::filesystem::btrfs::key::Key;

    const KIB: u64 = 1024;

    /// A chunk at 1 MiB of 1 MiB, whose stripe `n` is on device `n` from `n` MiB.
    pub(crate) fn chunk(flags: u64, stripes: u16) -> Chunk {
        let key = Key::new(256, 228, 1024 * KIB);
        Chunk::from_bytes(key, &item(flags, stripes, 1024 * KIB)).expect("it is sound")
    }

    fn item(flags: u64, stripes: u16, length: u64) -> Vec<u8> {
        let mut item = Vec::new();
        for field in [length, 2, 64 * KIB, flags] {
            item.extend(field.to_le_bytes());
        }
        item.extend([0; 12]);
        item.extend(stripes.to_le_bytes());
        item.extend(2_u16.to_le_bytes());
        for stripe in 0..u64::from(stripes) {
            item.extend(stripe.to_le_bytes());
            item.extend((stripe * 1024 * KIB).to_le_bytes());
            item.extend([stripe as u8; 16]);
        }
        item
    }

    #[rstest]
    #[case::single(0, 1, 0, 0, 300 * KIB, 724 * KIB)]
    #[case::dup(0x20, 2, 1, 1, 300 * KIB, 724 * KIB)]
    #[case::raid1c4(0x400, 4, 3, 3, 300 * KIB, 724 * KIB)]
    // Piece 4 and 44 KiB: column 1 of 3, row 1.
    #[case::raid0(0x8, 3, 0, 1, 64 * KIB + 44 * KIB, 20 * KIB)]
    // Column 0 of 2, row 2; its second copy is stripe 1.
    #[case::raid10(0x40, 4, 1, 1, 128 * KIB + 44 * KIB, 20 * KIB)]
    fn addresses_are_where_the_profile_puts_them(
        #[case] flags: u64,
        #[case] stripes: u16,
        #[case] copy: usize,
        #[case] device: u64,
        #[case] within: u64,
        #[case] run_bytes: u64,
    ) {
        let chunk = chunk(flags, stripes);
        let place = chunk.locate((1024 + 300) * KIB, copy).expect("inside");
        assert_eq!(place.stripe.device, device);
        assert_eq!(place.physical, device * 1024 * KIB + within);
        assert_eq!(place.run_bytes, run_bytes);
    }

    #[rstest]
    fn the_part_on_a_stripe_is_every_address_that_is_located_there(
        #[values((0, 1), (0x20, 2), (0x8, 3), (0x40, 4))] (flags, stripes): (u64, u16),
    ) {
        let chunk = chunk(flags, stripes);
        let range = (1024 + 100) * KIB..(1024 + 700) * KIB;
        for index in 0..usize::from(stripes) {
            let expected: Vec<u64> = range
                .clone()
                .step_by(4096)
                .flat_map(|at| (0..chunk.copies()).map(move |copy| (at, copy)))
                .map(|(at, copy)| chunk.locate(at, copy).expect("inside"))
                .filter(|place| place.stripe.device == index as u64)
                .map(|place| place.physical)
                .collect();
            let found: Vec<u64> = chunk.on_stripe(index, &range).step_by(4096).collect();
            assert_eq!(found, expected, "stripe {index}");
        }
    }

    #[rstest]
    #[case::two_profiles(0x18, 2)]
    #[case::dup_without_its_copy(0x20, 1)]
    #[case::single_twice(0, 2)]
    #[case::nothing(0x8, 0)]
    #[case::odd(0x40, 3)]
    #[case::parity_alone(0x100, 2)]
    fn a_profile_that_does_not_fit_its_stripes_is_refused(#[case] flags: u64, #[case] count: u16) {
        let key = Key::new(256, 228, 0);
        assert!(Chunk::from_bytes(key, &item(flags, count, KIB)).is_err());
    }

    #[test]
    fn chunks_that_overlap_end_nowhere_or_have_parity_are_refused() {
        let mut map = ChunkMap::default();
        map.insert(chunk(0, 1)).expect("the first");
        map.insert(chunk(0, 1)).expect("the same");
        let key = Key::new(256, 228, 1536 * KIB);
        let other = Chunk::from_bytes(key, &item(0, 1, KIB)).expect("it is sound");
        assert!(map.insert(other).is_err());
        assert!(Chunk::from_bytes(key, &item(0, 1, u64::MAX)).is_err());
        assert!(Chunk::from_bytes(key, &item(0, 1, 0)).is_err());
        assert!(map.find(1023 * KIB).is_err());
        assert!(map.find(2048 * KIB).is_err());
        map.find(2047 * KIB).expect("the last");
        let raid5 = chunk(0x80, 3);
        let refused = raid5.locate(1024 * KIB, 0).expect_err("parity").to_string();
        assert_eq!(refused, "btrfs chunk: reading RAID5 is not supported");
        assert_eq!(raid5.stripe_bytes(), 512 * KIB);
    }
}
