// SPDX-License-Identifier: MIT OR Apache-2.0
//! The write-intent bitmap: which parts of an array a member that comes back has to copy.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `bitm` |
//! | 40 | 8 | sectors that the bitmap covers |
//! | 52 | 4 | bytes that a bit stands for |
//! | 64 | 4 | sectors that the bitmap has, where known |
//! | 256 | | the bits |
//!
//! Source: Linux, `drivers/md/md-bitmap.h`. Here all bits are set at once, before the first write
//! to an array that lacks members.

use std::sync::Arc;

use crate::block::WriteAt;
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block};

use super::superblock::SECTOR_BYTES;

const HEADER_BYTES: usize = 256;
/// A bit for each 4 KiB of 4 TiB: no bitmap of the kernel is larger than a few MiB.
const BITS_BYTES_MAX: u64 = 128 << 20;
const PIECE_BYTES: u64 = 1 << 20;

/// The bitmap of one member.
#[derive(Debug)]
pub(super) struct Bitmap {
    pub(super) device: Arc<dyn WriteAt>,
    pub(super) offset: u64,
}

impl Bitmap {
    /// Says of everything that it has to be copied.
    pub(super) fn mark_all(&self) -> Result<()> {
        let Some(header) = read_block(&*self.device, self.offset, HEADER_BYTES)? else {
            return Err(self.corrupt("expected it on the device"));
        };
        let fields = Fields(&header);
        if fields.bytes(0, 4) != b"bitm" {
            return Err(self.corrupt("expected the magic `bitm`"));
        }
        let sectors_per_bit = u64::from(fields.u32(52)) / SECTOR_BYTES;
        if sectors_per_bit == 0 {
            return Err(self.corrupt("expected bits that stand for sectors"));
        }
        let length = fields.u64(40).div_ceil(sectors_per_bit).div_ceil(8);
        let reserved = u64::from(fields.u32(64)) * SECTOR_BYTES;
        if length > BITS_BYTES_MAX || reserved > 0 && length + HEADER_BYTES as u64 > reserved {
            return Err(self.corrupt(format!("expected fewer than {length} bytes of bits")));
        }
        let ones = vec![0xff; length.min(PIECE_BYTES) as usize];
        let start = self.offset + HEADER_BYTES as u64;
        let mut done = 0;
        while done < length {
            let piece = PIECE_BYTES.min(length - done);
            self.device
                .write_all_at(start + done, &ones[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }

    fn corrupt(&self, problem: impl Into<String>) -> Error {
        Error::corrupt("md write-intent bitmap", self.offset, problem)
    }
}
