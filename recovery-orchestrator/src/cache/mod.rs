// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chunks of images that were read, kept beside the hypervisor: in memory and on disk.
//!
//! ```text
//!  VM ─► CachedDisk ─► holes, from the hashes: nothing is read
//!                  ├─► memory (bounded, last used)
//!                  ├─► files (bounded, shared by processes, survive restarts)
//!                  └─► the image's disk: neighbours at once, one fetch for all who wait
//! ```
//!
//! Invariants: every chunk is checked against its content hash before it is given out or kept,
//! wherever it comes from. The cache is never needed: what is wrong with it is told once, and
//! reads go to the image. No process breaks another's reads: files are replaced whole, and read by
//! who has them open also when they are removed.
//!
//! Limits: memory takes [`CacheOptions::memory_bytes_max`], 16 MiB that wait to be written, for each
//! disk [`FetchOptions::leaf_count_max`] leaves of 66 KiB, and what the reads and fetches under way
//! hold, at most 4 MiB (or one chunk) each. Files take [`CacheOptions::disk_bytes_max`].

mod cached_disk;
mod counters;
mod eviction;
mod fetch;
mod files;
mod flight;
mod leaves;
mod memory;
mod prefetch;
mod readers;
#[cfg(test)]
mod tests;
mod tree;
mod turns;
mod usage;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use disk::Monitor;
use image_library::ContentHash;

pub use cached_disk::{CachedDisk, FetchOptions};
pub use counters::CacheCounters;
pub use prefetch::{PrefetchEnd, PrefetchStats};

use crate::error::Result;
use files::{Bytes, FileOptions, FileRead, Files};
use memory::Recent;
use tree::WriteBytes;

/// Where a cache is and how much it may hold.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// Where its files are; without it, it is in memory only. The cache is in a directory `chunks`
    /// of its own below, which nobody but its owner may enter.
    pub directory: Option<PathBuf>,
    /// How many bytes the files may take; kept by all processes together that use the directory
    /// with the same bound.
    pub disk_bytes_max: u64,
    /// How many bytes of chunks may be in this process's memory.
    pub memory_bytes_max: u64,
    /// After how long writing is tried again when the directory could not be written.
    pub retry_after: Duration,
}

impl Default for CacheOptions {
    /// In memory only: 256 MiB.
    fn default() -> Self {
        Self {
            directory: None,
            disk_bytes_max: 64 << 30,
            memory_bytes_max: 256 << 20,
            retry_after: Duration::from_secs(60),
        }
    }
}

/// Chunks of any images, shared by all disks of a process.
#[derive(Debug)]
pub struct ChunkCache {
    memory: Recent<ContentHash, Bytes>,
    memory_bytes_max: u64,
    files: Option<Files>,
}

/// Where a chunk was found.
#[derive(Debug)]
enum Lookup {
    Memory(Bytes),
    File(Bytes),
    /// Nowhere; a file of its name had other bytes.
    Damaged,
    Nowhere,
}

/// How a fetched chunk is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// In memory, and on disk if that is quick.
    Now,
    /// In memory and on disk, which may take its time.
    Everywhere,
    /// On disk only.
    OnDisk,
}

impl ChunkCache {
    /// Opens a cache; its directory is created where it is not there. What is wrong with the
    /// directory is a finding (`cache.not-written`) of `monitor`, now or later, and no error.
    ///
    /// All files are looked at in the background: nothing waits for that.
    ///
    /// # Errors
    ///
    /// [`Error::File`](crate::Error::File) when no thread could be started.
    pub fn open(options: &CacheOptions, monitor: Arc<dyn Monitor>) -> Result<Self> {
        Self::open_writing(options, monitor, |file, bytes| file.write_all(bytes))
    }

    fn open_writing(
        options: &CacheOptions,
        monitor: Arc<dyn Monitor>,
        write: WriteBytes,
    ) -> Result<Self> {
        let open = |directory: &PathBuf| {
            Files::open(FileOptions {
                directory: directory.clone(),
                bytes_max: options.disk_bytes_max,
                retry_after: options.retry_after,
                write,
                monitor,
            })
        };
        Ok(Self {
            memory: Recent::new(options.memory_bytes_max),
            memory_bytes_max: options.memory_bytes_max,
            files: options.directory.as_ref().map(open).transpose()?,
        })
    }

    fn find(&self, hash: &ContentHash, length: usize) -> Lookup {
        if let Some(bytes) = self.memory.get(hash) {
            return Lookup::Memory(bytes);
        }
        let files = self.files.as_ref();
        match files.map(|files| files.read(hash, length)) {
            Some(FileRead::Whole(bytes)) => {
                self.remember(*hash, &bytes);
                Lookup::File(bytes)
            }
            Some(FileRead::Damaged) => Lookup::Damaged,
            Some(FileRead::Absent) | None => Lookup::Nowhere,
        }
    }

    /// Whether a chunk seems to be here, without reading it.
    fn has(&self, hash: &ContentHash) -> bool {
        let files = self.files.as_ref();
        self.memory.contains(hash) || files.is_some_and(|files| files.has(hash))
    }

    fn remember(&self, hash: ContentHash, bytes: &Bytes) {
        let weight = bytes.len() as u64;
        self.memory.insert(hash, Arc::clone(bytes), weight);
    }

    /// Keeps a chunk that was checked.
    fn keep_in_memory(&self, hash: ContentHash, bytes: &Bytes, keep: Keep) {
        if keep != Keep::OnDisk {
            self.remember(hash, bytes);
        }
    }

    /// Keeps a chunk that was checked.
    fn keep_on_disk(&self, hash: ContentHash, bytes: &Bytes, keep: Keep) {
        let Some(files) = &self.files else { return };
        match keep {
            Keep::Now => files.put(hash, bytes),
            Keep::Everywhere | Keep::OnDisk => files.put_waiting(hash, bytes),
        }
    }
}
