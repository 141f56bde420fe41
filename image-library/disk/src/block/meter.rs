// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts what is read of a disk, and which parts of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{Extent, ReadAt};
use crate::error::Result;

/// The unit in which parts of a disk are counted, in bytes.
const BLOCK_SIZE_BYTES: u64 = 64 << 10;

/// What was read of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// How often.
    pub request_count: u64,
    /// How much, in bytes; what was read twice counts twice.
    pub read_bytes: u64,
    /// How many different blocks of 64 KiB.
    pub block_count: u64,
}

impl Reads {
    /// The reads of two disks together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            request_count: self.request_count.saturating_add(other.request_count),
            read_bytes: self.read_bytes.saturating_add(other.read_bytes),
            block_count: self.block_count.saturating_add(other.block_count),
        }
    }
}

/// A device that counts its reads. 2 MiB of memory for each TiB of disk.
#[derive(Debug)]
pub struct Meter {
    device: Arc<dyn ReadAt>,
    requests: AtomicU64,
    bytes: AtomicU64,
    blocks: Vec<AtomicU64>,
}

impl Meter {
    /// Counts the reads of a device.
    #[must_use]
    pub fn new(device: Arc<dyn ReadAt>) -> Self {
        let word_count = device
            .length_bytes()
            .div_ceil(BLOCK_SIZE_BYTES)
            .div_ceil(64);
        let words = (0..word_count).map(|_| AtomicU64::new(0)).collect();
        Self {
            device,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            blocks: words,
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn reads(&self) -> Reads {
        let ones = |word: &AtomicU64| u64::from(word.load(Ordering::Relaxed).count_ones());
        Reads {
            request_count: self.requests.load(Ordering::Relaxed),
            read_bytes: self.bytes.load(Ordering::Relaxed),
            block_count: self.blocks.iter().map(ones).sum(),
        }
    }

    fn mark(&self, offset: u64, length: u64) {
        let Some(last) = length.checked_sub(1) else {
            return;
        };
        for block in offset / BLOCK_SIZE_BYTES..=offset.saturating_add(last) / BLOCK_SIZE_BYTES {
            let word = usize::try_from(block / 64)
                .ok()
                .and_then(|index| self.blocks.get(index));
            if let Some(word) = word {
                word.fetch_or(1 << (block % 64), Ordering::Relaxed);
            }
        }
    }
}

impl ReadAt for Meter {
    fn length_bytes(&self) -> u64 {
        self.device.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.device.read_exact_at(offset, buffer)?;
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.mark(offset, length);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.device.extent_at(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;

    #[test]
    fn blocks_count_once_and_bytes_each_time() {
        let meter = Meter::new(Arc::new(MemoryDevice::from(vec![0; 3 << 16])));
        let mut buffer = [0; 1024];
        for offset in [0, 512, (1 << 16) - 512] {
            meter.read_exact_at(offset, &mut buffer).unwrap();
        }
        meter.read_exact_at(0, &mut []).unwrap();
        assert!(meter.read_exact_at(3 << 16, &mut buffer).is_err());
        let expected = Reads {
            request_count: 4,
            read_bytes: 3072,
            block_count: 2,
        };
        assert_eq!(meter.reads(), expected);
        assert_eq!(expected.plus(expected).block_count, 4);
    }
}
