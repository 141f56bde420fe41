// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workers: each claims the next batch of neighbouring chunks and takes it all the way.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::plan::parts_to_read;
use super::turn::{StopOnPanic, Turn};
use super::{Ingest, IngestDisk, IngestStats, NoteHashes};
use crate::access::{ChunkState, ChunkUpload};
use crate::chunk::compress;
use crate::disk_writer::{DiskWriter, RecentLeaves};
use crate::error::{Error, Result};
use crate::id::ContentHash;
use crate::manifest::{LEAF_CHUNKS, chunk_length};

/// Bytes of a batch; at least one chunk.
const BATCH_LENGTH: u64 = 2 << 20;

/// What the workers of one disk share.
pub(super) struct Batches<'a> {
    pub(super) ingest: Ingest<'a>,
    pub(super) disk: &'a IngestDisk,
    pub(super) chunk_count: u64,
    /// The hashes of the server's latest image; where a chunk has the same, it is not sent.
    pub(super) previous: Option<Arc<RecentLeaves>>,
}

/// What putting batches changes; the turn says who may.
struct Progress<'a> {
    writer: DiskWriter<'a>,
    note: &'a mut NoteHashes<'a>,
    stats: IngestStats,
}

/// A batch that is ready to be put.
struct Batch {
    hashes: Vec<Option<ContentHash>>,
    uploads: Vec<ChunkUpload>,
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
        let next = AtomicU64::new(0);
        let turn = Turn::default();
        let progress = Mutex::new(Progress {
            writer,
            note,
            stats: IngestStats::default(),
        });
        std::thread::scope(|scope| -> Result<()> {
            let work = || {
                let _guard = StopOnPanic(&turn);
                self.work(&next, &turn, &progress)
                    .inspect_err(|_| turn.stop())
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

    fn work(&self, next: &AtomicU64, turn: &Turn, progress: &Mutex<Progress<'_>>) -> Result<()> {
        let chunks_per_batch = (BATCH_LENGTH / u64::from(self.ingest.chunk_size_bytes)).max(1);
        let mut buffer = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let first = number.saturating_mul(chunks_per_batch);
            if first >= self.chunk_count || turn.is_stopped() {
                return Ok(());
            }
            if self.ingest.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let last = (first + chunks_per_batch).min(self.chunk_count);
            let batch = self.make(first..last, &mut buffer);
            if !turn.wait(number) {
                return Ok(());
            }
            // A batch that cannot be read ends the work at its turn: those before it are kept.
            self.put(batch?, progress)?;
            turn.pass();
        }
    }

    /// Reads, hashes and compresses the chunks of one batch.
    fn make(&self, chunks: Range<u64>, buffer: &mut Vec<u8>) -> Result<Batch> {
        let size = self.disk.draft.size_bytes;
        let start = chunks.start * u64::from(self.ingest.chunk_size_bytes);
        let end = (chunks
            .end
            .saturating_mul(u64::from(self.ingest.chunk_size_bytes)))
        .min(size);
        let parts = parts_to_read(&*self.disk.device, self.disk.used.as_deref(), start..end)?;
        let mut batch = Batch {
            hashes: vec![None; (chunks.end - chunks.start) as usize],
            uploads: Vec::new(),
            stats: IngestStats {
                disk_bytes: end - start,
                ..IngestStats::default()
            },
            used_bytes: self.disk.used_bytes(&(start..end)),
        };
        batch.stats.zero_chunks = chunks.end - chunks.start;
        if parts.is_empty() {
            return Ok(batch);
        }
        buffer.clear();
        buffer.resize((end - start) as usize, 0);
        for part in parts {
            let target = &mut buffer[(part.start - start) as usize..(part.end - start) as usize];
            self.disk.device.read_exact_at(part.start, target)?;
            batch.stats.read_bytes += part.end - part.start;
        }
        let asked = self.hash(&chunks, buffer, &mut batch)?;
        self.compress_missing(&chunks, buffer, asked, &mut batch)?;
        Ok(batch)
    }

    fn plain<'b>(&self, chunks: &Range<u64>, chunk: u64, buffer: &'b [u8]) -> &'b [u8] {
        let from = ((chunk - chunks.start) * u64::from(self.ingest.chunk_size_bytes)) as usize;
        let length = chunk_length(
            self.disk.draft.size_bytes,
            self.ingest.chunk_size_bytes,
            chunk,
        ) as usize;
        &buffer[from..from + length]
    }

    /// Hashes what is not zeros; gives the chunks that the latest image has not at their place.
    fn hash(
        &self,
        chunks: &Range<u64>,
        buffer: &[u8],
        batch: &mut Batch,
    ) -> Result<Vec<(u64, ContentHash)>> {
        // A batch never reaches beyond a leaf: both have powers of two of chunks.
        let leaf = chunks.start / LEAF_CHUNKS as u64;
        let previous = match &self.previous {
            Some(previous) => Some(previous.leaf(leaf)?),
            None => None,
        };
        let before = |chunk: u64| {
            let entries = previous.as_deref()?;
            *entries.get((chunk % LEAF_CHUNKS as u64) as usize)?
        };
        let mut changed = Vec::new();
        for chunk in chunks.clone() {
            let plain = self.plain(chunks, chunk, buffer);
            if is_zero(plain) {
                continue;
            }
            batch.stats.zero_chunks -= 1;
            let hash = ContentHash::of(plain);
            batch.hashes[(chunk - chunks.start) as usize] = Some(hash);
            if before(chunk) == Some(hash) {
                batch.stats.same_chunks += 1;
            } else {
                batch.stats.changed_bytes += plain.len() as u64;
                changed.push((chunk, hash));
            }
        }
        Ok(changed)
    }

    fn compress_missing(
        &self,
        chunks: &Range<u64>,
        buffer: &[u8],
        changed: Vec<(u64, ContentHash)>,
        batch: &mut Batch,
    ) -> Result<()> {
        // The same content twice in a batch is sent once.
        let mut seen = HashSet::new();
        let (changed, repeated): (Vec<_>, Vec<_>) = changed
            .into_iter()
            .partition(|(_, hash)| seen.insert(*hash));
        batch.stats.same_chunks += repeated.len() as u64;
        if changed.is_empty() {
            return Ok(());
        }
        let hashes: Vec<ContentHash> = changed.iter().map(|(_, hash)| *hash).collect();
        let states = self.ingest.upload.states(&hashes)?;
        // A state that was not answered counts as missing.
        let states = states
            .into_iter()
            .chain(std::iter::repeat(ChunkState::Missing));
        for ((chunk, hash), state) in changed.into_iter().zip(states) {
            if state == ChunkState::Stored {
                batch.stats.same_chunks += 1;
                continue;
            }
            let plain = self.plain(chunks, chunk, buffer);
            let compressed = compress(plain)?;
            batch.stats.new_chunks += 1;
            batch.stats.new_bytes += plain.len() as u64;
            batch.stats.sent_bytes += compressed.len() as u64;
            batch.uploads.push(ChunkUpload {
                hash,
                // At most the chunk size, which is an u32.
                length: plain.len() as u32,
                compressed,
            });
        }
        Ok(())
    }

    fn put(&self, batch: Batch, progress: &Mutex<Progress<'_>>) -> Result<()> {
        if !batch.uploads.is_empty() {
            self.ingest.upload.put_chunks(batch.uploads)?;
        }
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.writer.push(&batch.hashes)?;
        (progress.note)(&batch.hashes);
        progress.stats.add(&batch.stats);
        self.ingest.monitor.advance(batch.used_bytes);
        Ok(())
    }
}

/// Whether all bytes are zero. Compared in words of 16 bytes, which the compiler makes wide.
fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(128);
    let is_clear = |word: &[u8]| word.iter().fold(0, |all, byte| all | byte) == 0;
    words.all(is_clear) && is_clear(words.remainder())
}
