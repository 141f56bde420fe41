// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is exported of a kept disk: read through the chunk cache, its first reads noted, and told to
//! nobody as an error but what is lost.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use disk::ReadAt;
use disk::block::Extent;

use super::source::{KeptDisk, KeptHashes};
use super::trace::Recorder;
use crate::cache::{CacheCounters, CachedDisk, ChunkCache, FetchOptions};

/// A kept disk behind the cache.
#[derive(Debug)]
pub(super) struct Exported {
    kept: Arc<KeptDisk>,
    cache: Arc<ChunkCache>,
    options: FetchOptions,
    /// Made with the first read: its hashes come from the library, which may be away.
    cached: Mutex<Option<Arc<CachedDisk>>>,
    /// The disk's place in the machine.
    number: usize,
    recorder: Arc<Recorder>,
}

impl Exported {
    pub(super) fn new(
        kept: KeptDisk,
        number: usize,
        cache: Arc<ChunkCache>,
        options: FetchOptions,
        recorder: Arc<Recorder>,
    ) -> Self {
        Self {
            kept: Arc::new(kept),
            cache,
            options,
            cached: Mutex::default(),
            number,
            recorder,
        }
    }

    fn slot(&self) -> Option<Arc<CachedDisk>> {
        let slot = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
    }

    fn cached(&self) -> disk::Result<Arc<CachedDisk>> {
        if let Some(cached) = self.slot() {
            return Ok(cached);
        }
        // Not under the lock: each who reads waits for the library by itself.
        let hashes =
            KeptHashes::of(Arc::clone(&self.kept)).map_err(|error| disk::Error::Device {
                action: "read",
                offset: 0,
                length: 0,
                source: Box::new(error),
            })?;
        let (cache, kept) = (Arc::clone(&self.cache), Arc::clone(&self.kept));
        let made = CachedDisk::new(cache, kept, Arc::new(hashes), self.options)?;
        let mut slot = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(slot.get_or_insert_with(|| Arc::new(made))))
    }

    /// Fetches parts of the disk ahead, in order, until `stop` is set.
    pub(super) fn fetch_ahead(&self, ranges: &[Range<u64>], stop: &AtomicBool) {
        if let Ok(cached) = self.cached() {
            let stats = cached.prefetch(ranges, stop);
            tracing::debug!(?stats, disk = self.number, "fetched ahead");
        }
    }

    /// What the cache was good for.
    pub(super) fn counters(&self) -> CacheCounters {
        self.slot()
            .map(|cached| cached.counters())
            .unwrap_or_default()
    }
}

impl ReadAt for Exported {
    fn length_bytes(&self) -> u64 {
        self.kept.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        self.recorder.note(self.number, offset, length);
        self.cached()
            .and_then(|cached| cached.read_exact_at(offset, buffer))
            .inspect_err(|error| self.kept.note_damage(offset, error))
    }

    fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
        self.cached()?.extent_at(offset)
    }
}
