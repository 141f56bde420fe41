// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workers: each claims the next batch of neighbouring chunks and takes it all the way.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::in_order::{InOrder, StopOnPanic};
use super::plan::parts_to_read;
use super::{Ingest, IngestDisk, IngestStats, NoteHashes};
use crate::access::{ChunkState, PreparedChunk};
use crate::disk_writer::{DiskWriter, RecentLeaves};
use crate::error::{Error, Result};
use crate::id::ContentHash;
use crate::manifest::{LEAF_CHUNKS, chunk_length};

/// Bytes of a batch of few workers, and of many, who have less each; at least one chunk.
const BATCH_LENGTHS: [u64; 2] = [2 << 20, 1 << 20];
const FEW_WORKERS: usize = 4;
/// How many batches, for each worker, are begun and not put yet.
const BATCHES_AHEAD: u64 = 2;

/// What the workers of one disk share.
pub(super) struct Batches<'a> {
    pub(super) ingest: Ingest<'a>,
    pub(super) disk: &'a IngestDisk,
    pub(super) chunk_count: u64,
    /// The hashes of the server's latest image; where a chunk has the same, it is not sent.
    pub(super) previous: Option<Arc<RecentLeaves>>,
    /// The hashes of the disk itself, where they are known: then only what is missing is read.
    pub(super) known: Option<RecentLeaves>,
}

/// What putting batches changes.
struct Progress<'a> {
    writer: DiskWriter<'a>,
    note: &'a mut NoteHashes<'a>,
    stats: IngestStats,
}

/// A batch that is ready to be put.
struct Batch {
    hashes: Vec<Option<ContentHash>>,
    uploads: Vec<PreparedChunk>,
    stats: IngestStats,
    used_bytes: u64,
}

impl<'a> Batches<'a> {
    /// Takes the whole disk with so many workers.
    pub(super) fn run(
        &self,
        workers: usize,
        writer: DiskWriter<'a>,
        note: &mut NoteHashes<'_>,
    ) -> Result<IngestStats> {
        let order = InOrder::new(BATCHES_AHEAD * workers as u64);
        let batch_length = BATCH_LENGTHS[usize::from(workers > FEW_WORKERS)];
        let chunks_per_batch = (batch_length / u64::from(self.ingest.chunk_size_bytes)).max(1);
        let progress = Mutex::new(Progress {
            writer,
            note,
            stats: IngestStats::default(),
        });
        std::thread::scope(|scope| -> Result<()> {
            let work = || {
                let _guard = StopOnPanic(&order);
                self.work(&order, chunks_per_batch, &progress)
                    .inspect_err(|_| order.stop())
            };
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let mut outcome = Ok(());
            for thread in threads {
                match thread.join() {
                    Ok(result) => outcome = outcome.and(result),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            outcome
        })?;
        let Progress { writer, stats, .. } = progress
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        writer.finish()?;
        Ok(stats)
    }

    fn work(
        &self,
        order: &InOrder<Result<Batch>>,
        chunks_per_batch: u64,
        progress: &Mutex<Progress<'_>>,
    ) -> Result<()> {
        let mut buffer = Vec::new();
        while let Some(number) = order.claim() {
            let first = number.saturating_mul(chunks_per_batch);
            if first >= self.chunk_count {
                return Ok(());
            }
            let last = (first + chunks_per_batch).min(self.chunk_count);
            let batch = self.make(first..last, &mut buffer);
            // A batch that cannot be read ends the work at its turn: those before it are kept.
            order.hand_in(number, batch, |batch| self.put(batch?, progress))?;
        }
        Ok(())
    }

    /// Reads, hashes and compresses the chunks of one batch.
    fn make(&self, chunks: Range<u64>, buffer: &mut Vec<u8>) -> Result<Batch> {
        let size = self.disk.draft.size_bytes;
        let start = chunks.start * u64::from(self.ingest.chunk_size_bytes);
        let end = chunks
            .end
            .saturating_mul(u64::from(self.ingest.chunk_size_bytes))
            .min(size);
        let mut batch = Batch {
            hashes: vec![None; (chunks.end - chunks.start) as usize],
            uploads: Vec::new(),
            stats: IngestStats {
                disk_bytes: end - start,
                zero_chunks: chunks.end - chunks.start,
                ..IngestStats::default()
            },
            used_bytes: self.disk.used_bytes(&(start..end)),
        };
        if let Some(known) = &self.known {
            let changed = self.compare(&chunks, known, &mut batch)?;
            let missing = self.missing(changed, &mut batch)?;
            self.read_chunks(start..end, &missing, buffer, &mut batch)?;
            self.prepare(&chunks, buffer, missing, &mut batch)?;
        } else if self.read_used(start..end, buffer, &mut batch)? {
            let changed = self.hash(&chunks, buffer, &mut batch)?;
            let missing = self.missing(changed, &mut batch)?;
            self.prepare(&chunks, buffer, missing, &mut batch)?;
        }
        Ok(batch)
    }

    /// Reads what is in use of a stretch of the disk, zeros elsewhere; `false` when nothing is.
    fn read_used(
        &self,
        bytes: Range<u64>,
        buffer: &mut Vec<u8>,
        batch: &mut Batch,
    ) -> Result<bool> {
        let used = self.disk.used.as_deref();
        let parts = parts_to_read(&*self.disk.device, used, bytes.clone())?;
        if parts.is_empty() {
            return Ok(false);
        }
        buffer.resize((bytes.end - bytes.start) as usize, 0);
        // What an earlier batch left in the buffer is cleared only where nothing is read.
        let mut clear_from = bytes.start;
        for part in parts {
            let place = |at: u64| (at - bytes.start) as usize;
            buffer[place(clear_from)..place(part.start)].fill(0);
            clear_from = part.end;
            self.read(part, bytes.start, buffer, batch)?;
        }
        buffer[(clear_from - bytes.start) as usize..].fill(0);
        Ok(true)
    }

    /// Reads single chunks of a stretch of the disk, neighbours together.
    fn read_chunks(
        &self,
        bytes: Range<u64>,
        wanted: &[(u64, ContentHash)],
        buffer: &mut Vec<u8>,
        batch: &mut Batch,
    ) -> Result<()> {
        // Only what was read is looked at.
        buffer.resize((bytes.end - bytes.start) as usize, 0);
        let chunk_size = u64::from(self.ingest.chunk_size_bytes);
        let places = wanted.iter().map(|(chunk, _)| *chunk);
        for run in runs(places) {
            let part = run.start * chunk_size..(run.end * chunk_size).min(bytes.end);
            self.read(part, bytes.start, buffer, batch)?;
        }
        Ok(())
    }

    /// Reads a part of the disk into a buffer that begins at byte `first` of it.
    fn read(
        &self,
        part: Range<u64>,
        first: u64,
        buffer: &mut [u8],
        batch: &mut Batch,
    ) -> Result<()> {
        let target = &mut buffer[(part.start - first) as usize..(part.end - first) as usize];
        self.disk.device.read_exact_at(part.start, target)?;
        batch.stats.read_bytes += part.end - part.start;
        Ok(())
    }

    fn plain<'b>(&self, chunks: &Range<u64>, chunk: u64, buffer: &'b [u8]) -> &'b [u8] {
        let from = ((chunk - chunks.start) * u64::from(self.ingest.chunk_size_bytes)) as usize;
        &buffer[from..from + self.length_of(chunk) as usize]
    }

    fn length_of(&self, chunk: u64) -> u32 {
        let size = self.disk.draft.size_bytes;
        chunk_length(size, self.ingest.chunk_size_bytes, chunk)
    }

    /// Hashes what is not zeros; gives the chunks that the latest image has not at their place.
    fn hash(
        &self,
        chunks: &Range<u64>,
        buffer: &[u8],
        batch: &mut Batch,
    ) -> Result<Vec<(u64, ContentHash)>> {
        let mut found = Vec::new();
        for chunk in chunks.clone() {
            let plain = self.plain(chunks, chunk, buffer);
            if !is_zero(plain) {
                found.push((chunk, ContentHash::of(plain)));
            }
        }
        self.changed(chunks, found, batch)
    }

    /// The same where the hashes are known.
    fn compare(
        &self,
        chunks: &Range<u64>,
        known: &RecentLeaves,
        batch: &mut Batch,
    ) -> Result<Vec<(u64, ContentHash)>> {
        let (leaf, first) = place_of(chunks);
        let entries = known.leaf(leaf)?;
        let entries = entries.iter().skip(first).copied();
        let found = chunks.clone().zip(entries);
        let found = found
            .filter_map(|(chunk, hash)| Some((chunk, hash?)))
            .collect();
        self.changed(chunks, found, batch)
    }

    /// Notes the hashes of chunks that are not zeros; gives those that the latest image has not at
    /// their place.
    fn changed(
        &self,
        chunks: &Range<u64>,
        found: Vec<(u64, ContentHash)>,
        batch: &mut Batch,
    ) -> Result<Vec<(u64, ContentHash)>> {
        let (leaf, first) = place_of(chunks);
        let previous = match &self.previous {
            Some(previous) => Some(previous.leaf(leaf)?),
            None => None,
        };
        let mut changed = Vec::new();
        for (chunk, hash) in found {
            let place = (chunk - chunks.start) as usize;
            batch.hashes[place] = Some(hash);
            batch.stats.zero_chunks -= 1;
            let before = previous
                .as_deref()
                .and_then(|leaf| *leaf.get(first + place)?);
            if before == Some(hash) {
                batch.stats.same_chunks += 1;
            } else {
                batch.stats.changed_bytes += u64::from(self.length_of(chunk));
                changed.push((chunk, hash));
            }
        }
        Ok(changed)
    }

    /// Those that the library has not at all.
    fn missing(
        &self,
        changed: Vec<(u64, ContentHash)>,
        batch: &mut Batch,
    ) -> Result<Vec<(u64, ContentHash)>> {
        // The same content twice in a batch is sent once.
        let mut seen = HashSet::new();
        let all = changed.len() as u64;
        let mut missing = changed;
        missing.retain(|(_, hash)| seen.insert(*hash));
        if !missing.is_empty() {
            let hashes: Vec<ContentHash> = missing.iter().map(|(_, hash)| *hash).collect();
            // A state that was not answered counts as missing.
            let mut states = self.ingest.upload.states(&hashes)?.into_iter();
            missing.retain(|_| states.next() != Some(ChunkState::Stored));
        }
        batch.stats.same_chunks += all - missing.len() as u64;
        Ok(missing)
    }

    fn prepare(
        &self,
        chunks: &Range<u64>,
        buffer: &[u8],
        missing: Vec<(u64, ContentHash)>,
        batch: &mut Batch,
    ) -> Result<()> {
        for (chunk, hash) in missing {
            let plain = self.plain(chunks, chunk, buffer);
            if self.known.is_some() && ContentHash::of(plain) != hash {
                let offset = chunk * u64::from(self.ingest.chunk_size_bytes);
                return Err(Error::Refused {
                    what: "a disk",
                    problem: format!("what is read at byte {offset:#x} has not the known hash"),
                });
            }
            let prepared = self.ingest.upload.prepare(hash, plain)?;
            batch.stats.new_chunks += 1;
            batch.stats.new_bytes += plain.len() as u64;
            batch.stats.sent_bytes += prepared.length_bytes();
            batch.uploads.push(prepared);
        }
        Ok(())
    }

    fn put(&self, batch: Batch, progress: &Mutex<Progress<'_>>) -> Result<()> {
        if self.ingest.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        if !batch.uploads.is_empty() {
            self.ingest.upload.put_prepared(batch.uploads)?;
        }
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.writer.push(&batch.hashes)?;
        (progress.note)(&batch.hashes);
        progress.stats.add(&batch.stats);
        self.ingest.monitor.advance(batch.used_bytes);
        Ok(())
    }
}

/// The leaf that names these chunks, and the place of the first one in it. A batch never reaches
/// beyond a leaf: both have powers of two of chunks.
fn place_of(chunks: &Range<u64>) -> (u64, usize) {
    let leaf = LEAF_CHUNKS as u64;
    (chunks.start / leaf, (chunks.start % leaf) as usize)
}

/// Ascending numbers as runs of neighbours.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for number in numbers {
        match runs.last_mut().filter(|run| run.end == number) {
            Some(run) => run.end += 1,
            None => runs.push(number..number + 1),
        }
    }
    runs
}

/// Whether all bytes are zero. Compared in words of 16 bytes, which the compiler makes wide.
fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(128);
    let is_clear = |word: &[u8]| word.iter().fold(0, |all, byte| all | byte) == 0;
    words.all(is_clear) && is_clear(words.remainder())
}
