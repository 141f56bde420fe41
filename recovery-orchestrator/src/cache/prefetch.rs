// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fetching ahead what a guest is known to read.

use std::iter::Peekable;
use std::ops::Range;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};

use super::Keep;
use super::cached_disk::CachedDisk;
use super::fetch::{Claimed, Fetched};

/// After so many units in a row that cannot be fetched no more are tried.
const FAILURES_MAX: u64 = 4;

/// What a fetch ahead did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefetchStats {
    /// Chunks that were fetched.
    pub chunk_count: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Chunks that were here already, or that somebody else was fetching.
    pub present_count: u64,
    /// Chunks that could not be fetched.
    pub failed_count: u64,
    /// Why it ended.
    pub end: PrefetchEnd,
}

/// Why a fetch ahead ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrefetchEnd {
    /// The list was at its end.
    Finished,
    /// It was told to.
    Stopped,
    /// More would push out what was fetched before.
    Full,
    /// Nothing can be fetched any more.
    Failed,
}

/// What the threads of a fetch ahead share.
struct Work<'a> {
    disk: &'a CachedDisk,
    list: Mutex<List<'a>>,
    stop: &'a AtomicBool,
    chunks: AtomicU64,
    bytes: AtomicU64,
    present: AtomicU64,
    failed: AtomicU64,
    /// Units in a row that failed.
    failures: AtomicU64,
    is_full: AtomicBool,
    has_panicked: AtomicBool,
}

/// What is left to do, in order.
struct List<'a> {
    ranges: Peekable<slice::Iter<'a, Range<u64>>>,
    /// What is left of the range, in chunks, that was begun last.
    begun: Range<u64>,
}

impl CachedDisk {
    /// Fetches what is not here of some ranges of bytes, in their order, with
    /// [`FetchOptions::prefetch_request_count`](super::FetchOptions) requests at a time; blocks until
    /// that is done or `stop` is set.
    ///
    /// Reads come first: while one waits for the image, hardly anything is fetched ahead. Half the
    /// memory of the cache is filled at most, then the disk only; without one that can be written
    /// it ends there, and with one at nine tenths of what its files may take. What cannot be
    /// fetched is left to who reads it.
    #[must_use]
    pub fn prefetch(&self, ranges: &[Range<u64>], stop: &AtomicBool) -> PrefetchStats {
        let work = Work {
            disk: self,
            list: Mutex::new(List {
                ranges: ranges.iter().peekable(),
                begun: 0..0,
            }),
            stop,
            chunks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            present: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            has_panicked: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.options.prefetch_request_count.max(1))
                .map_while(|_| {
                    thread::Builder::new()
                        .spawn_scoped(scope, || work.run())
                        .ok()
                })
                .collect();
            if threads.is_empty() {
                work.run();
            }
            for thread in threads {
                // A device that panics is one that fails.
                if thread.join().is_err() {
                    work.has_panicked.store(true, Ordering::Relaxed);
                }
            }
        });
        work.stats()
    }
}

impl Work<'_> {
    fn run(&self) {
        while self.end().is_none() {
            if !self.disk.turns.may_fetch_ahead() {
                continue;
            }
            let Some(unit) = self.next() else { break };
            self.fetch(unit);
        }
    }

    /// Why no more is to be fetched, but for the end of the list.
    fn end(&self) -> Option<PrefetchEnd> {
        if self.stop.load(Ordering::Relaxed) {
            Some(PrefetchEnd::Stopped)
        } else if self.has_failed() {
            Some(PrefetchEnd::Failed)
        } else if self.is_full.load(Ordering::Relaxed) {
            Some(PrefetchEnd::Full)
        } else {
            None
        }
    }

    fn has_failed(&self) -> bool {
        self.has_panicked.load(Ordering::Relaxed)
            || self.failures.load(Ordering::Relaxed) >= FAILURES_MAX
    }

    /// The next chunks that follow each other.
    fn next(&self) -> Option<Range<u64>> {
        let count_max = (self.disk.options.sequential_bytes / self.disk.chunk_size).max(1);
        // Nothing panics while it is held.
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.next(self.disk, count_max)
    }

    fn fetch(&self, unit: Range<u64>) {
        let mut chunk = unit.start;
        while chunk < unit.end && self.end().is_none() {
            chunk = self.fetch_from(chunk, &unit);
        }
    }

    /// Fetches a chunk with those after it; gives the one to go on with.
    fn fetch_from(&self, chunk: u64, unit: &Range<u64>) -> u64 {
        let disk = self.disk;
        let next = chunk.saturating_add(1);
        let hash = match disk.leaves.hash_of(chunk) {
            Ok(Some(hash)) => hash,
            Ok(None) => return next,
            Err(_) => {
                add(&self.failed, 1);
                add(&self.failures, 1);
                return unit.end;
            }
        };
        let claim = (!disk.cache.has(&hash)).then(|| disk.claim(hash));
        let Some(Claimed::Mine(claim)) = claim else {
            add(&self.present, 1);
            return next;
        };
        let Some(keep) = self.room() else {
            self.is_full.store(true, Ordering::Relaxed);
            return unit.end;
        };
        let bounds = chunk..unit.end;
        let missing = disk.unit(chunk, hash, claim, &bounds);
        let end = missing.end();
        self.count(&disk.fetch(missing, &bounds, keep));
        end
    }

    fn count(&self, fetched: &Fetched) {
        let whole = fetched.values().filter_map(|outcome| outcome.as_ref().ok());
        let count = whole.clone().count() as u64;
        add(&self.chunks, count);
        add(&self.bytes, whole.map(|bytes| bytes.len() as u64).sum());
        add(&self.failed, fetched.len() as u64 - count);
        if count > 0 {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            add(&self.failures, 1);
        }
    }

    /// Where there is room for more.
    fn room(&self) -> Option<Keep> {
        let cache = &self.disk.cache;
        let bytes = self.bytes.load(Ordering::Relaxed);
        let files = cache.files.as_ref().filter(|files| files.is_writable());
        let is_disk_free = files.is_some_and(|files| bytes < files.bytes_max() / 10 * 9);
        if bytes < cache.memory_bytes_max / 2 {
            Some(Keep::Everywhere)
        } else {
            is_disk_free.then_some(Keep::OnDisk)
        }
    }

    fn stats(&self) -> PrefetchStats {
        PrefetchStats {
            chunk_count: self.chunks.load(Ordering::Relaxed),
            fetched_bytes: self.bytes.load(Ordering::Relaxed),
            present_count: self.present.load(Ordering::Relaxed),
            failed_count: self.failed.load(Ordering::Relaxed),
            end: self.end().unwrap_or(PrefetchEnd::Finished),
        }
    }
}

fn add(figure: &AtomicU64, amount: u64) {
    figure.fetch_add(amount, Ordering::Relaxed);
}

impl List<'_> {
    fn next(&mut self, disk: &CachedDisk, count_max: u64) -> Option<Range<u64>> {
        let chunks = |range: &Range<u64>| {
            let range = range.start..range.end.min(disk.length);
            if range.is_empty() {
                0..0
            } else {
                disk.chunks_of(&range)
            }
        };
        while self.begun.is_empty() {
            self.begun = chunks(self.ranges.next()?);
        }
        // What was read in pieces is fetched as one.
        while self.begun.end - self.begun.start < count_max {
            let end = self.begun.end;
            let goes_on = |next: &&Range<u64>| {
                let next = chunks(next);
                !next.is_empty() && next.start <= end && next.start + 1 >= end && next.end >= end
            };
            let Some(next) = self.ranges.next_if(goes_on) else {
                break;
            };
            self.begun.end = chunks(next).end;
        }
        let end = self.begun.end.min(self.begun.start + count_max);
        let unit = self.begun.start..end;
        self.begun.start = end;
        Some(unit)
    }
}
