// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a cache was good for.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// What became of the chunks that were wanted of one disk. Holes count nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCounters {
    /// Chunks that were in memory, or that another read was fetching.
    pub memory_hit_count: u64,
    /// Chunks that were in a file and whole.
    pub disk_hit_count: u64,
    /// Requests to the image, those for what is fetched ahead included.
    pub fetch_count: u64,
    /// Bytes that came from the image.
    pub fetched_bytes: u64,
    /// Files of the cache that did not have the bytes of their hash, and were removed.
    pub damaged_file_count: u64,
    /// Chunks that came from the image with other bytes than those of their hash.
    pub damaged_fetch_count: u64,
}

impl Add for CacheCounters {
    type Output = Self;

    /// For several disks together.
    fn add(self, other: Self) -> Self {
        Self {
            memory_hit_count: self.memory_hit_count + other.memory_hit_count,
            disk_hit_count: self.disk_hit_count + other.disk_hit_count,
            fetch_count: self.fetch_count + other.fetch_count,
            fetched_bytes: self.fetched_bytes + other.fetched_bytes,
            damaged_file_count: self.damaged_file_count + other.damaged_file_count,
            damaged_fetch_count: self.damaged_fetch_count + other.damaged_fetch_count,
        }
    }
}

/// The same while it is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) memory_hits: Counter,
    pub(super) disk_hits: Counter,
    pub(super) fetches: Counter,
    pub(super) fetched_bytes: Counter,
    pub(super) damaged_files: Counter,
    pub(super) damaged_fetches: Counter,
}

/// One figure.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn now(&self) -> CacheCounters {
        CacheCounters {
            memory_hit_count: self.memory_hits.get(),
            disk_hit_count: self.disk_hits.get(),
            fetch_count: self.fetches.get(),
            fetched_bytes: self.fetched_bytes.get(),
            damaged_file_count: self.damaged_files.get(),
            damaged_fetch_count: self.damaged_fetches.get(),
        }
    }
}
