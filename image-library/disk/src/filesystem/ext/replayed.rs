// SPDX-License-Identifier: MIT OR Apache-2.0
//! A filesystem with a dirty journal, seen as it is after a replay; nothing is written.
//!
//! Ours and not that of the reading library (ext4-view 1.0.0), which knows journals with checksums
//! of version 3 only, takes the remains of an older round behind the log for damage, and does not
//! let a later transaction make copies in an earlier one void.

use std::fmt;
use std::sync::Arc;

use super::super::superblock::ext::{LENGTH, OFFSET, Superblock, feature};
use super::journal::{Replay, replay};
use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::Fields;

/// A device whose blocks are taken from the journal where it has newer ones.
pub(super) struct Replayed {
    device: Arc<dyn ReadAt>,
    block_size: u64,
    replay: Replay,
    /// Without the mark that the journal is needed.
    superblock: Vec<u8>,
}

impl Replayed {
    pub(super) fn new(device: Arc<dyn ReadAt>, superblock: &Superblock) -> Result<Self> {
        let mut replayed = Self {
            replay: replay(&*device, superblock)?,
            block_size: superblock.block_size,
            superblock: Vec::new(),
            device,
        };
        let mut bytes = vec![0; LENGTH];
        replayed.read_exact_at(OFFSET, &mut bytes)?;
        clear_recover(&mut bytes);
        replayed.superblock = bytes;
        Ok(replayed)
    }

    fn newer(&self, block: u64) -> Result<Option<Vec<u8>>> {
        let (journal, emptied) = &self.replay.journal;
        if block == *journal {
            return Ok(Some(emptied.clone()));
        }
        let copy = self.replay.newest.get(&block);
        copy.map(|copy| copy.read(&*self.device, self.block_size))
            .transpose()
    }
}

fn clear_recover(superblock: &mut [u8]) {
    let fields = Fields(superblock);
    let incompat = fields.u32(0x60) & !feature::INCOMPAT_RECOVER;
    let checked = fields.u32(0x64) & feature::RO_COMPAT_METADATA_CSUM != 0;
    superblock[0x60..0x64].copy_from_slice(&incompat.to_le_bytes());
    if checked {
        let checksum = fs_ext4::checksum::linux_crc32c(!0, &superblock[..0x3fc]);
        superblock[0x3fc..].copy_from_slice(&checksum.to_le_bytes());
    }
}

impl fmt::Debug for Replayed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.replay.newest.len();
        write!(formatter, "Replayed({count} blocks from the journal)")
    }
}

impl ReadAt for Replayed {
    fn length_bytes(&self) -> u64 {
        self.device.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.device.read_exact_at(offset, buffer)?;
        let end = offset + buffer.len() as u64;
        for block in offset / self.block_size..end.div_ceil(self.block_size) {
            if let Some(bytes) = self.newer(block)? {
                lay_over(buffer, offset, &bytes, block * self.block_size);
            }
        }
        lay_over(buffer, offset, &self.superblock, OFFSET);
        Ok(())
    }
}

/// Copies what two ranges of bytes share.
fn lay_over(buffer: &mut [u8], offset: u64, bytes: &[u8], bytes_offset: u64) {
    let start = offset.max(bytes_offset);
    let end = (offset + buffer.len() as u64).min(bytes_offset + bytes.len() as u64);
    if start < end {
        let length = (end - start) as usize;
        let (to, from) = ((start - offset) as usize, (start - bytes_offset) as usize);
        buffer[to..to + length].copy_from_slice(&bytes[from..from + length]);
    }
}

#[cfg(test)]
mod tests {
    use super::lay_over;

    #[test]
    fn only_what_is_shared_is_laid_over() {
        let mut buffer = *b"........";
        lay_over(&mut buffer, 10, b"ab", 8);
        lay_over(&mut buffer, 10, b"cdef", 8);
        lay_over(&mut buffer, 10, b"ghij", 16);
        lay_over(&mut buffer, 10, b"kl", 18);
        assert_eq!(&buffer, b"ef....gh");
        let mut inside = *b"..";
        lay_over(&mut inside, 5, b"0123456789", 0);
        assert_eq!(&inside, b"56");
    }
}
