// SPDX-License-Identifier: MIT OR Apache-2.0
//! One disk on its way into an upload: read in order, hash, leave out what the library has,
//! compress and send the rest.
//!
//! One thread reads batches of a few MiB; two hash, ask, compress and send them. Memory is
//! bounded by the batches under way (six at most) and by 33 bytes per chunk of the disk for its
//! list of hashes.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use disk::block::ExtentKind;
use disk::{Monitor, ReadAt, Unit};
use image_library::{ChunkState, ChunkUpload, ContentHash, Upload};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::snapshot::known::Known;

/// Bytes of a batch.
const BATCH_BYTES: u64 = 4 << 20;
/// Threads that hash, compress and send.
const SENDERS: usize = 2;
/// Fast, and within a few per cent of what more effort would save.
const COMPRESSION_LEVEL: i32 = 3;

/// What is read and where it goes.
#[derive(Clone, Copy)]
pub(super) struct Capture<'a> {
    pub(super) device: &'a dyn ReadAt,
    /// Runs of chunks worth reading.
    pub(super) runs: &'a [Range<u64>],
    pub(super) chunk_bytes: u64,
    pub(super) upload: &'a dyn Upload,
    pub(super) monitor: &'a dyn Monitor,
    pub(super) stop: &'a AtomicBool,
}

/// What was done with one disk, in bytes of the disk unless it says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DiskCounts {
    /// Read from the disk.
    pub read_bytes: u64,
    /// Different from the last image.
    pub changed_bytes: u64,
    /// Of these, sent by this run: the library did not have them from an interrupted one.
    pub sent_bytes: u64,
    /// What that was after compression: the bytes on the network.
    pub sent_compressed_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    read: AtomicU64,
    changed: AtomicU64,
    sent: AtomicU64,
    compressed: AtomicU64,
}

/// Chunks that follow each other, with their hashes in the last image.
struct Batch {
    first_chunk: u64,
    bytes: Vec<u8>,
    known: Vec<Option<ContentHash>>,
}

/// Captures the disk; gives the hash of each chunk, `None` for zeros and for what is not in use.
pub(super) fn capture(
    capture: Capture<'_>,
    known: Known,
) -> Result<(Vec<Option<ContentHash>>, DiskCounts)> {
    let hashes = Mutex::new(empty_hashes(
        capture.device.length_bytes(),
        capture.chunk_bytes,
    )?);
    let counters = Counters::default();
    let failed = AtomicBool::new(false);
    let (to_senders, from_reader) = sync_channel::<Batch>(SENDERS);
    let from_reader = Arc::new(Mutex::new(from_reader));
    let total: u64 = capture
        .runs
        .iter()
        .map(|run| (run.end - run.start).saturating_mul(capture.chunk_bytes))
        .sum();
    capture.monitor.expect(total, Unit::Bytes);
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let from_reader = Arc::clone(&from_reader);
                let (counters, hashes, failed) = (&counters, &hashes, &failed);
                scope.spawn(move || send_batches(capture, &from_reader, counters, hashes, failed))
            })
            .collect();
        // Only the senders hold it: when none is left, the reader is told.
        drop(from_reader);
        let read = read_batches(capture, known, &to_senders, &counters, &failed);
        drop(to_senders);
        let sent: Vec<Result<()>> = senders
            .into_iter()
            .map(|sender| {
                sender
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect();
        sent.into_iter().collect::<Result<()>>().and(read)
    })?;
    let counts = DiskCounts {
        read_bytes: counters.read.into_inner(),
        changed_bytes: counters.changed.into_inner(),
        sent_bytes: counters.sent.into_inner(),
        sent_compressed_bytes: counters.compressed.into_inner(),
    };
    let hashes = hashes.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((hashes, counts))
}

/// A list for so many chunks; a size that memory does not hold is an error, not an abort.
fn empty_hashes(disk_bytes: u64, chunk_bytes: u64) -> Result<Vec<Option<ContentHash>>> {
    let limit = || disk::Error::Limit {
        what: "the list of a disk's chunks, in chunks",
        limit: u64::from(u32::MAX),
    };
    let count = u32::try_from(disk_bytes.div_ceil(chunk_bytes)).map_err(|_| limit())?;
    let count = usize::try_from(count).map_err(|_| limit())?;
    let mut hashes = Vec::new();
    hashes.try_reserve_exact(count).map_err(|_| limit())?;
    hashes.resize(count, None);
    Ok(hashes)
}

/// Reads the runs in order, without the holes in them.
fn read_batches(
    capture: Capture<'_>,
    mut known: Known,
    to_senders: &SyncSender<Batch>,
    counters: &Counters,
    failed: &AtomicBool,
) -> Result<()> {
    let chunk_bytes = capture.chunk_bytes;
    let chunks_per_batch = (BATCH_BYTES / chunk_bytes).max(1);
    // The chunk whose known hash comes next.
    let mut known_at = 0;
    for run in capture.runs {
        let mut chunk = run.start;
        while chunk < run.end {
            if capture.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            if failed.load(Ordering::Relaxed) {
                // The sender that failed says why.
                return Ok(());
            }
            let (count, is_hole) = stretch(capture, chunk, run.end, chunks_per_batch)?;
            if !is_hole {
                known.skip(chunk - known_at);
                // At most a batch.
                let known_hashes = known.next(usize::try_from(count).unwrap_or_default());
                known_at = chunk + count;
                let bytes = read_chunks(capture, chunk, count)?;
                counters
                    .read
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let batch = Batch {
                    first_chunk: chunk,
                    bytes,
                    known: known_hashes,
                };
                if to_senders.send(batch).is_err() {
                    return Ok(());
                }
            }
            chunk += count;
            capture.monitor.advance(count.saturating_mul(chunk_bytes));
        }
    }
    Ok(())
}

/// How many chunks from `chunk` are a hole, or may be read at once.
fn stretch(
    capture: Capture<'_>,
    chunk: u64,
    end: u64,
    chunks_per_batch: u64,
) -> Result<(u64, bool)> {
    let chunk_bytes = capture.chunk_bytes;
    let disk_bytes = capture.device.length_bytes();
    let extent = capture
        .device
        .extent_at(chunk.saturating_mul(chunk_bytes))?;
    let reaches_end = chunk
        .saturating_mul(chunk_bytes)
        .saturating_add(extent.length)
        >= disk_bytes;
    let whole = if reaches_end {
        extent.length.div_ceil(chunk_bytes)
    } else {
        extent.length / chunk_bytes
    };
    if extent.kind == ExtentKind::Zero && whole > 0 {
        return Ok((whole.min(end - chunk), true));
    }
    // A chunk that begins in a hole and ends in data is read; so is one that holds both ends of
    // a short stretch of data.
    let data = extent.length.div_ceil(chunk_bytes).max(1);
    Ok((data.min(chunks_per_batch).min(end - chunk), false))
}

fn read_chunks(capture: Capture<'_>, chunk: u64, count: u64) -> Result<Vec<u8>> {
    let start = chunk.saturating_mul(capture.chunk_bytes);
    let length = count
        .saturating_mul(capture.chunk_bytes)
        .min(capture.device.length_bytes().saturating_sub(start));
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    capture.device.read_exact_at(start, &mut bytes)?;
    Ok(bytes)
}

fn send_batches(
    capture: Capture<'_>,
    from_reader: &Mutex<Receiver<Batch>>,
    counters: &Counters,
    hashes: &Mutex<Vec<Option<ContentHash>>>,
    failed: &AtomicBool,
) -> Result<()> {
    let mut outcome = Ok(());
    loop {
        let next = from_reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(batch) = next else {
            return outcome;
        };
        // After a failure batches are only taken, so that the reader is not left waiting for a
        // place in the queue.
        if failed.load(Ordering::Relaxed) || capture.stop.load(Ordering::Relaxed) {
            continue;
        }
        match send_batch(capture, &batch, counters) {
            Ok(found) => {
                let mut hashes = hashes.lock().unwrap_or_else(PoisonError::into_inner);
                let start = usize::try_from(batch.first_chunk).unwrap_or(usize::MAX);
                for (slot, hash) in hashes.iter_mut().skip(start).zip(found) {
                    *slot = hash;
                }
            }
            Err(error) => {
                failed.store(true, Ordering::Relaxed);
                outcome = Err(error);
            }
        }
    }
}

/// Hashes the batch, sends what the library does not have, gives the hashes.
fn send_batch(
    capture: Capture<'_>,
    batch: &Batch,
    counters: &Counters,
) -> Result<Vec<Option<ContentHash>>> {
    let chunk_bytes = usize::try_from(capture.chunk_bytes).unwrap_or(usize::MAX);
    let chunks = || batch.bytes.chunks(chunk_bytes);
    let hashes: Vec<Option<ContentHash>> = chunks()
        .map(|bytes| (!is_zero(bytes)).then(|| ContentHash::of(bytes)))
        .collect();
    let mut changed: Vec<(ContentHash, &[u8])> = Vec::new();
    for ((bytes, hash), known) in chunks().zip(&hashes).zip(&batch.known) {
        if let Some(hash) = hash
            && known.as_ref() != Some(hash)
        {
            counters
                .changed
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            changed.push((*hash, bytes));
        }
    }
    // The same content twice in a batch is sent once.
    changed.sort_by_key(|(hash, _)| *hash);
    changed.dedup_by_key(|(hash, _)| *hash);
    if changed.is_empty() {
        return Ok(hashes);
    }
    // In the order of the disk, so that a restore reads long runs.
    changed.sort_by_key(|(_, bytes)| bytes.as_ptr());
    let asked: Vec<ContentHash> = changed.iter().map(|(hash, _)| *hash).collect();
    let states = capture.upload.states(&asked)?;
    let mut compressor =
        zstd::bulk::Compressor::new(COMPRESSION_LEVEL).map_err(Error::file("start", "zstd"))?;
    let mut missing = Vec::new();
    for ((hash, bytes), state) in changed.into_iter().zip(states) {
        if state == ChunkState::Missing {
            let compressed = compressor
                .compress(bytes)
                .map_err(Error::file("compress", "a chunk"))?;
            let length = bytes.len() as u64;
            counters.sent.fetch_add(length, Ordering::Relaxed);
            counters
                .compressed
                .fetch_add(compressed.len() as u64, Ordering::Relaxed);
            missing.push(ChunkUpload {
                hash,
                length: u32::try_from(length).unwrap_or(u32::MAX),
                compressed,
            });
        }
    }
    if !missing.is_empty() {
        capture.upload.put_chunks(missing)?;
    }
    Ok(hashes)
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
