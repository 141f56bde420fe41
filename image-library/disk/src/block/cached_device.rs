// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bounded read-through cache before a device whose every read is dear.
//!
//! The device below may be an image in a library, where a read costs a whole chunk: filesystem
//! parsers, which read in sectors, would fetch the same chunk again and again. The cache reads
//! aligned blocks of the default chunk's size and forgets the least recently used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Extent, ReadAt};
use crate::error::Result;

/// A chunk of the library at its default size.
const BLOCK_BYTES: u64 = 65536;

/// A device with its recently read blocks. The bytes below must not change, but as
/// `CachedDevice::forget` is told.
#[derive(Debug)]
pub struct CachedDevice {
    device: Arc<dyn ReadAt>,
    blocks: Mutex<Blocks>,
}

struct Blocks {
    by_index: BTreeMap<u64, Block>,
    count_max: usize,
    /// Counts accesses, to tell which block was used least recently.
    clock: u64,
}

struct Block {
    bytes: Arc<[u8]>,
    used: u64,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} blocks", self.by_index.len())
    }
}

impl CachedDevice {
    /// Keeps up to `capacity_bytes` of a device, and at least one block.
    #[must_use]
    pub fn new(device: Arc<dyn ReadAt>, capacity_bytes: u64) -> Self {
        Self {
            device,
            blocks: Mutex::new(Blocks {
                by_index: BTreeMap::new(),
                count_max: count_of(capacity_bytes),
                clock: 0,
            }),
        }
    }

    /// Keeps that much from now on, and no more of what was read so far.
    pub fn resize(&self, capacity_bytes: u64) {
        let mut blocks = self.lock();
        blocks.count_max = count_of(capacity_bytes);
        while blocks.by_index.len() > blocks.count_max {
            blocks.drop_oldest();
        }
    }

    /// Forgets the blocks that `length` bytes at `offset` touch: they were written below.
    pub(crate) fn forget(&self, offset: u64, length: u64) {
        let first = offset / BLOCK_BYTES;
        let last = offset.saturating_add(length) / BLOCK_BYTES;
        let mut blocks = self.lock();
        let touched: Vec<u64> = blocks
            .by_index
            .range(first..=last)
            .map(|(&i, _)| i)
            .collect();
        for index in touched {
            blocks.by_index.remove(&index);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn block(&self, index: u64) -> Result<Arc<[u8]>> {
        if let Some(bytes) = self.lock().get(index) {
            return Ok(bytes);
        }
        // Read without the lock: another thread may read the same block, which costs once more
        // but never waits.
        let offset = index * BLOCK_BYTES;
        let length = BLOCK_BYTES.min(self.device.length_bytes() - offset);
        let mut bytes = vec![0; length as usize];
        self.device.read_exact_at(offset, &mut bytes)?;
        let bytes: Arc<[u8]> = bytes.into();
        self.lock().put(index, Arc::clone(&bytes));
        Ok(bytes)
    }
}

impl Blocks {
    fn get(&mut self, index: u64) -> Option<Arc<[u8]>> {
        self.clock += 1;
        let block = self.by_index.get_mut(&index)?;
        block.used = self.clock;
        Some(Arc::clone(&block.bytes))
    }

    fn put(&mut self, index: u64, bytes: Arc<[u8]>) {
        if self.by_index.len() >= self.count_max {
            self.drop_oldest();
        }
        let used = self.clock;
        self.by_index.insert(index, Block { bytes, used });
    }

    fn drop_oldest(&mut self) {
        let oldest = self.by_index.iter().min_by_key(|(_, block)| block.used);
        if let Some((&oldest, _)) = oldest {
            self.by_index.remove(&oldest);
        }
    }
}

/// How many blocks that is; one at least.
fn count_of(capacity_bytes: u64) -> usize {
    let count = (capacity_bytes / BLOCK_BYTES).max(1);
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl ReadAt for CachedDevice {
    fn length_bytes(&self) -> u64 {
        self.device.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length_bytes()) {
            // The device says itself what is wrong.
            return self.device.read_exact_at(offset, buffer);
        }
        let mut done = 0;
        while done < buffer.len() {
            let position = offset + done as u64;
            let block = self.block(position / BLOCK_BYTES)?;
            let within = (position % BLOCK_BYTES) as usize;
            let count = (block.len() - within).min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&block[within..within + count]);
            done += count;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.device.extent_at(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{MemoryDevice, Meter};

    fn cached(length_bytes: usize) -> (Arc<Meter>, CachedDevice) {
        let device = Arc::new(MemoryDevice::from(vec![0; length_bytes]));
        let below = Arc::new(Meter::new(device));
        let cache = CachedDevice::new(Arc::clone(&below) as Arc<dyn ReadAt>, 16 << 20);
        (below, cache)
    }

    #[test]
    fn neighbouring_reads_cost_one_read_below() {
        let (below, cache) = cached(200_000);
        let mut buffer = [0; 512];
        for offset in (0..65_536).step_by(512) {
            cache.read_exact_at(offset, &mut buffer).expect("inside");
        }
        assert_eq!(below.reads().request_count, 1);
        cache
            .read_exact_at(199_488, &mut buffer)
            .expect("the short last block");
        assert_eq!(below.reads().request_count, 2);
        assert!(cache.read_exact_at(199_489, &mut buffer).is_err());
    }

    #[test]
    fn the_least_recently_used_block_goes_first() {
        let (below, cache) = cached(65_536 * 300);
        for block in (0..257).chain([256, 0]) {
            cache
                .read_exact_at(block * 65_536, &mut [0])
                .expect("inside");
        }
        assert_eq!(
            below.reads().request_count,
            258,
            "block 256 was kept, block 0 was not"
        );
    }

    #[test]
    fn a_smaller_one_keeps_what_was_used_last() {
        let (below, cache) = cached(65_536 * 8);
        let read = |block: u64| {
            cache
                .read_exact_at(block * 65_536, &mut [0])
                .expect("inside");
            below.reads().request_count
        };
        for block in 0..8 {
            read(block);
        }
        cache.resize(2 * 65_536);
        assert_eq!(read(6), 8);
        assert_eq!(read(7), 8);
        assert_eq!(read(5), 9);
        assert_eq!(read(6), 10, "5 took its place");
    }
}
