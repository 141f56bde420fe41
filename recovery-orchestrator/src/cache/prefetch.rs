// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fetching ahead what a guest is known to read.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{thread, vec};

use serde::{Deserialize, Serialize};

use super::Keep;
use super::cached_disk::CachedDisk;
use super::fetch::{Claimed, Fetched};

/// After so many units in a row that cannot be fetched no more are tried.
const FAILURES_MAX: u64 = 4;
/// How far ahead, in bytes, the list is looked through for what can be fetched along. What is read
/// first must not wait long for what is read later.
const WINDOW_BYTES: u64 = 16 << 20;

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
    list: Mutex<List>,
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
struct List {
    /// In chunks.
    runs: vec::IntoIter<Range<u64>>,
    /// What is left of the run that was begun last.
    begun: Range<u64>,
}

impl CachedDisk {
    /// Fetches what is not here of some ranges of bytes, with
    /// [`FetchOptions::prefetch_request_count`](super::FetchOptions) requests at a time; blocks until
    /// that is done or `stop` is set. They are fetched in their order, but neighbours among the next
    /// 16 MiB with one request.
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
                runs: self.runs(ranges).into_iter(),
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

    /// The chunks of some ranges of bytes, neighbours as one.
    fn runs(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let inside = ranges
            .iter()
            .map(|range| range.start..range.end.min(self.length));
        let chunks: Vec<_> = inside
            .filter(|range| !range.is_empty())
            .map(|range| self.chunks_of(&range))
            .collect();
        joined(
            &chunks,
            (WINDOW_BYTES / self.chunk_size).max(1),
            self.options.gap_bytes / self.chunk_size,
        )
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
        list.next(count_max)
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

impl List {
    fn next(&mut self, count_max: u64) -> Option<Range<u64>> {
        while self.begun.is_empty() {
            self.begun = self.runs.next()?;
        }
        let end = self
            .begun
            .end
            .min(self.begun.start.saturating_add(count_max));
        let unit = self.begun.start..end;
        self.begun.start = end;
        Some(unit)
    }
}

/// Ranges that are at most `gap` apart as one, within windows of `window` that follow each other;
/// in each window in the order in which something of them came first.
fn joined(ranges: &[Range<u64>], window: u64, gap: u64) -> Vec<Range<u64>> {
    let mut all = Vec::new();
    let mut rest = ranges;
    while !rest.is_empty() {
        let mut left = window;
        let fits = |range: &&Range<u64>| {
            let is_begun = left > 0;
            left = left.saturating_sub(range.end.saturating_sub(range.start));
            is_begun
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (these, others) = rest.split_at(count);
        rest = others;
        all.extend(joined_window(these, gap));
    }
    all
}

fn joined_window(ranges: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut sorted: Vec<(usize, Range<u64>)> = ranges.iter().cloned().enumerate().collect();
    sorted.sort_unstable_by_key(|(_, range)| range.start);
    let mut joined: Vec<(usize, Range<u64>)> = Vec::new();
    for (place, range) in sorted {
        match joined.last_mut() {
            Some((first, last)) if range.start <= last.end.saturating_add(gap) => {
                *first = place.min(*first);
                last.end = last.end.max(range.end);
            }
            _ => joined.push((place, range)),
        }
    }
    joined.sort_unstable_by_key(|(place, _)| *place);
    joined.into_iter().map(|(_, range)| range).collect()
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn neighbours_are_joined_in_the_order_of_what_comes_first() {
        assert_eq!(
            joined(&[90..91, 10..12, 91..95, 12..20, 50..51, 9..10], 100, 0),
            [90..95, 9..20, 50..51]
        );
        assert_eq!(joined(&[10..11, 13..14, 20..21], 100, 2), [10..14, 20..21]);
        assert_eq!(
            joined(&[5..9, 5..6, 6..20, 7..8, 30..31], 100, 0),
            [5..20, 30..31]
        );
        assert_eq!(joined(&[], 100, 0), []);
    }

    #[test]
    fn what_is_read_much_later_is_not_fetched_along() {
        let ranges = [0..4, 100..104, 4..8, 104..108];
        assert_eq!(joined(&ranges, 1000, 0), [0..8, 100..108]);
        assert_eq!(joined(&ranges, 8, 0), ranges);
        assert_eq!(joined(&ranges, 1, 0), ranges);
    }
}
