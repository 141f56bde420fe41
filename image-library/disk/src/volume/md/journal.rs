// SPDX-License-Identifier: MIT OR Apache-2.0
//! Journals of RAID5 and RAID6: what the members do not have yet.
//!
//! The write journal is a ring of blocks of 4 KiB on a device of its own. From its tail on, blocks
//! of entries and the data they tell of follow each other:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0, 8 | 4, 1 | magic 0x6433c509, version 1 |
//! | 12 | 4 | bytes of this block that are used |
//! | 16, 24 | 8 | number, position in sectors |
//! | 32 | | entries: type (2), flags (2), size (4), where (8), a checksum (4) for each 4 KiB |
//!
//! An entry of type 0 is data, with its sector of the array; 1 is parity; 2 says what was written
//! to the members, with its size in bytes and no blocks. The kernel leaves entries behind when it
//! stops an array, and writes them once more when it starts it. So an array may be read when its
//! members have all of the journal's data, and must not be written as long as the journal has any.
//!
//! The partial parity log (PPL) is on the members; its header counts its entries at byte 528.
//! Source: Linux, `include/uapi/linux/raid/md_p.h`, `drivers/md/raid5-cache.c`.

use std::collections::HashMap;

use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::{Fields, read_block};

use super::superblock::SECTOR_BYTES;

const BLOCK_BYTES: usize = 4096;
const MAGIC: u32 = 0x6433_c509;
const HEADER_BYTES: usize = 32;
const DATA: u16 = 0;
const PARITY: u16 = 1;
const FLUSH: u16 = 2;
/// Entries of 4 GiB: what is longer is no rest of a stop.
const BLOCKS_MAX: u64 = 1 << 20;

/// A write journal: the device, and where on it the ring is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journal<'a> {
    pub(super) device: &'a dyn ReadAt,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) tail: u64,
}

/// What a journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Where in the ring the youngest data of an offset in the array are.
    data: HashMap<u64, u64>,
    pub(super) is_empty: bool,
}

impl Journal<'_> {
    /// The data from the tail on; `None` where it is not understood.
    pub(super) fn contents(&self) -> Result<Option<Contents>> {
        let ring = self.length / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let mut contents = Contents {
            is_empty: true,
            ..Contents::default()
        };
        let (mut position, mut number, mut blocks) = (self.tail, None, 0);
        while blocks < BLOCKS_MAX && position < ring {
            let Some(block) = self.block(position)? else {
                return Ok(None);
            };
            let fields = Fields(&block);
            let is_next = fields.u32(0) == MAGIC
                && fields.u8(8) == 1
                && fields.u64(24) == position / SECTOR_BYTES
                && number.is_none_or(|number| fields.u64(16) == number);
            if !is_next {
                return Ok(Some(contents));
            }
            let next = (position + BLOCK_BYTES as u64) % ring;
            let Some(taken) = contents.add(fields, next, ring) else {
                return Ok(None);
            };
            number = Some(fields.u64(16).wrapping_add(1));
            blocks += 1 + taken;
            position = (next + taken * BLOCK_BYTES as u64) % ring;
        }
        Ok(None)
    }

    /// Whether the array has all of the data already.
    pub(super) fn is_in(&self, contents: &Contents, array: &dyn ReadAt) -> Result<bool> {
        for (offset, position) in &contents.data {
            let (Some(block), Some(found)) = (
                self.block(*position)?,
                read_block(array, *offset, BLOCK_BYTES)?,
            ) else {
                return Ok(false);
            };
            if block != found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn block(&self, position: u64) -> Result<Option<Vec<u8>>> {
        match self.start.checked_add(position) {
            Some(place) => read_block(self.device, place, BLOCK_BYTES),
            None => Ok(None),
        }
    }
}

impl Contents {
    /// Adds the entries of a block whose data begin at `position`; gives how many blocks those are.
    fn add(&mut self, fields: Fields<'_>, position: u64, ring: u64) -> Option<u64> {
        let used = (fields.u32(12) as usize).min(BLOCK_BYTES);
        let (mut at, mut taken) = (HEADER_BYTES, 0);
        while at + 8 <= used {
            let size = fields.u32(at + 4);
            let blocks = u64::from(size) * SECTOR_BYTES / BLOCK_BYTES as u64;
            match fields.u16(at) {
                FLUSH => {
                    at = at.checked_add(8)?.checked_add(size as usize)?;
                    continue;
                }
                // One block of data, one or two of parity.
                DATA if blocks == 1 => {
                    let offset = fields.u64(at + 8).checked_mul(SECTOR_BYTES)?;
                    let place = (position + taken * BLOCK_BYTES as u64) % ring;
                    self.data.insert(offset, place);
                }
                PARITY if matches!(blocks, 1 | 2) => {}
                _ => return None,
            }
            self.is_empty = false;
            taken += blocks;
            at += 16 + 4 * blocks as usize;
        }
        Some(taken)
    }
}

/// Whether a partial parity log has entries.
pub(super) fn ppl_has_entries(device: &dyn ReadAt, offset: u64) -> Result<bool> {
    let header = read_block(device, offset, BLOCK_BYTES)?;
    Ok(header.is_none_or(|header| Fields(&header).u32(528) != 0))
}
