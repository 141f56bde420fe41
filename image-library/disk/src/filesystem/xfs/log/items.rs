// SPDX-License-Identifier: MIT OR Apache-2.0
//! Items of a transaction, parsed: all numbers are the logging computer's, little-endian, but for
//! those of the creation of inodes.
//!
//! | item | fields of its first region |
//! |---|---|
//! | buffer `0x123c` | flags at 4, length at 6 and address at 8 in sectors, words of the map at 16, map at 20: a bit for each 128 bytes that a region holds |
//! | inode `0x123b` | what was logged at 4, inode at 16, device number at 24, address at 40, its byte in the buffer at 52; on 32-bit computers all behind 12 is four bytes earlier |
//! | inodes `0x123f` | group at 4, block at 8, count at 12, size at 16, blocks at 20, generation at 24 |

use super::transaction::Item;
use crate::error::{Error, Result};
use crate::fields::Fields;

const CHUNK: usize = 128;
/// The largest buffer that is ever logged: 64 KiB, in sectors.
const BUFFER_SECTORS_MAX: u16 = 128;

/// Kinds of items.
pub(super) mod kind {
    pub(in super::super) const INODE: u16 = 0x123b;
    pub(in super::super) const BUFFER: u16 = 0x123c;
    pub(in super::super) const CREATE_INODES: u16 = 0x123f;
    pub(in super::super) const MAPPING: u16 = 0x1244;
    pub(in super::super) const MAPPING_DONE: u16 = 0x1245;
    pub(in super::super) const ATTRIBUTE: u16 = 0x1246;
    pub(in super::super) const ATTRIBUTE_DONE: u16 = 0x1247;
    pub(in super::super) const EXCHANGE: u16 = 0x1248;
    pub(in super::super) const EXCHANGE_DONE: u16 = 0x1249;
}

/// A buffer: some sectors, parts of which were changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffer {
    pub(super) address: u64,
    pub(super) sectors: u16,
    flags: u16,
}

impl Buffer {
    pub(super) fn parse(item: &Item) -> Result<Self> {
        let fields = item.format();
        let buffer = Self {
            address: fields.u64(8),
            sectors: fields.u16(6),
            flags: fields.u16(4),
        };
        match (1..=BUFFER_SECTORS_MAX).contains(&buffer.sectors) && buffer.address < 1 << 50 {
            true => Ok(buffer),
            false => Err(Error::corrupt(
                "XFS log item of a buffer",
                buffer.address.saturating_mul(512),
                format!("{} sectors are no buffer", buffer.sectors),
            )),
        }
    }

    pub(super) fn offset(self) -> u64 {
        self.address * 512
    }

    /// Only links of a list of deleted inodes, which no reader follows.
    pub(super) fn is_list_of_deleted(self) -> bool {
        self.flags & 1 != 0
    }

    /// The buffer was freed: older changes of it count for nothing.
    pub(super) fn is_cancelled(self) -> bool {
        self.flags & 2 != 0
    }

    /// Copies the logged parts into the buffer's bytes.
    pub(super) fn lay_over(self, item: &Item, bytes: &mut [u8]) -> Result<()> {
        let fields = item.format();
        let bits = (fields.u32(16) as usize)
            .saturating_mul(32)
            .min(bytes.len() / CHUNK);
        let is_set = |bit: usize| fields.u32(20 + bit / 32 * 4) >> (bit % 32) & 1 != 0;
        let mut bit = 0;
        let mut index = 1;
        while let Some(start) = (bit..bits).find(|&bit| is_set(bit)) {
            let run = (start..bits).take_while(|&bit| is_set(bit)).count();
            let region = item.region(index);
            // One that lay on two pages of memory comes as two regions.
            let chunks = run.min(region.len() / CHUNK);
            if chunks == 0 {
                let problem = "a part of it is not in the log";
                return Err(Error::corrupt(
                    "XFS log item of a buffer",
                    self.offset(),
                    problem,
                ));
            }
            bytes[start * CHUNK..][..chunks * CHUNK].copy_from_slice(&region[..chunks * CHUNK]);
            bit = start + chunks;
            index += 1;
        }
        Ok(())
    }
}

/// What of an inode was logged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    pub(super) fields: u32,
    pub(super) number: u64,
    pub(super) device: u32,
    /// The buffer that it is in.
    pub(super) address: u64,
    pub(super) sectors: u32,
    /// Where it stands, in bytes.
    pub(super) offset: u64,
}

impl Inode {
    pub(super) const DATA: u32 = 0x002 | 0x004;
    pub(super) const DATA_ROOT: u32 = 0x008;
    pub(super) const DEVICE: u32 = 0x010;
    pub(super) const ATTRIBUTES: u32 = 0x040 | 0x080;
    pub(super) const ATTRIBUTES_ROOT: u32 = 0x100;

    pub(super) fn parse(item: &Item) -> Result<Self> {
        let fields = item.format();
        let shift = match fields.0.len() {
            52 => 4,
            _ => 0,
        };
        let (address, within) = (fields.u64(40 - shift), fields.u32(52 - shift));
        let number = fields.u64(16 - shift);
        if address >= 1 << 50 || within > 1 << 20 {
            let problem = format!("inode {number} stands nowhere");
            return Err(Error::corrupt("XFS log item of an inode", 0, problem));
        }
        Ok(Self {
            fields: fields.u32(4),
            number,
            device: fields.u32(24 - shift),
            address,
            sectors: fields.u32(48 - shift),
            offset: address * 512 + u64::from(within),
        })
    }

    pub(super) fn has(self, bits: u32) -> bool {
        self.fields & bits != 0
    }
}

/// Inodes that were made, all empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewInodes {
    pub(super) group: u64,
    pub(super) block: u64,
    pub(super) count: u32,
    pub(super) inode_size: u32,
    pub(super) generation: u32,
}

impl NewInodes {
    pub(super) fn parse(item: &Item) -> Self {
        let fields = item.format();
        Self {
            group: fields.u32_be(4).into(),
            block: fields.u32_be(8).into(),
            count: fields.u32_be(12),
            inode_size: fields.u32_be(16),
            generation: fields.u32_be(24),
        }
    }
}

/// What an announced change is about: its number, and inodes.
pub(super) fn announced(fields: Fields<'_>, kind: u16) -> (u64, Vec<u64>) {
    let inodes = match kind {
        kind::MAPPING => {
            let extents = fields.u32(4).min(16) as usize;
            (0..extents)
                .map(|index| fields.u64(16 + index * 32))
                .collect()
        }
        kind::EXCHANGE => vec![fields.u64(16), fields.u64(24)],
        _ => vec![fields.u64(16)],
    };
    (fields.u64(8), inodes)
}
