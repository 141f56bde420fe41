// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes disks into a library: read, skip what is empty or unused, hash, ask, compress, put.
//!
//! ```text
//! worker: claim the next batch of chunks -> read -> hash -> compare -> ask -> compress
//!                                                                              |
//!            wait until every earlier batch is put (disk order) <--------------+
//!                                                                -> put_chunks
//! ```
//!
//! Several workers do all of it, each with one batch of 2 MiB in hand, so memory is bounded by
//! their number whatever the disk's size, and packs are filled in disk order. A worker that
//! fails stops the others; the upload is then dropped, and the next one need not send again what
//! was put.

mod batch;
mod plan;
mod turn;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use disk::{Monitor, ReadAt, Unit};

use crate::access::{ImageWriter, Upload, UploadTarget};
use crate::document::{DiskDraft, Image, ImageDraft};
use crate::error::{Error, Result};
use crate::id::ContentHash;
use crate::manifest::chunk_count;
use batch::{Batches, Counters};

/// The most threads that work on one disk; each holds about 5 MiB.
const WORKERS_MAX: usize = 12;

/// A disk to be taken in.
#[derive(Debug, Clone)]
pub struct IngestDisk {
    /// How the image will call it.
    pub draft: DiskDraft,
    /// Its bytes.
    pub device: Arc<dyn ReadAt>,
    /// The bytes that are in use, sorted; what is outside is stored as zeros unread. `None`: all.
    pub used: Option<Vec<Range<u64>>>,
}

/// What an ingest did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct IngestStats {
    /// Bytes of all disks.
    pub disk_bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes of chunks that the library did not have, before compression.
    pub new_bytes: u64,
    /// The same as they were sent: compressed.
    pub sent_bytes: u64,
    /// Chunks that were sent.
    pub new_chunks: u64,
    /// Chunks that the library had.
    pub same_chunks: u64,
    /// Chunks of zeros, holes and unused space.
    pub zero_chunks: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Takes disks in as one image of `target`.
pub fn ingest(
    writer: &dyn ImageWriter,
    target: &UploadTarget,
    disks: &[IngestDisk],
    draft: &ImageDraft,
    monitor: &dyn Monitor,
) -> Result<(Image, IngestStats)> {
    let begun = Instant::now();
    let upload = writer.begin(target)?;
    let mut stats = IngestStats::default();
    for disk in disks {
        let chunks = disk_chunks(writer, &*upload, target, disk, monitor, &mut stats)?;
        upload.put_disk(&disk.draft, &chunks)?;
    }
    monitor.stage("Committing the image");
    let image = upload.commit(draft)?;
    stats.seconds = begun.elapsed().as_secs_f64();
    Ok((image, stats))
}

/// Puts the chunks of one disk; gives the hashes of all of them.
fn disk_chunks(
    writer: &dyn ImageWriter,
    upload: &dyn Upload,
    target: &UploadTarget,
    disk: &IngestDisk,
    monitor: &dyn Monitor,
    stats: &mut IngestStats,
) -> Result<Vec<Option<ContentHash>>> {
    let size = disk.draft.size_bytes;
    if size != disk.device.length_bytes() {
        let found = disk.device.length_bytes();
        return Err(Error::Refused {
            what: "a disk",
            problem: format!("expected a device of {size} bytes, found {found}"),
        });
    }
    monitor.stage(&format!("Reading disk {}", disk.draft.name));
    monitor.expect(size, Unit::Bytes);
    let chunk_size = writer.chunk_size_bytes();
    let previous = writer.latest_hashes(&target.server, &disk.draft.name)?;
    let batches = Batches {
        upload,
        disk,
        chunk_size,
        chunk_count: chunk_count(size, chunk_size)?,
        previous: previous.unwrap_or_default(),
        monitor,
    };
    let mut counters = Counters::default();
    let hashes = batches.run(workers(), &mut counters)?;
    stats.disk_bytes += size;
    stats.read_bytes += counters.read_bytes;
    stats.new_bytes += counters.new_bytes;
    stats.sent_bytes += counters.sent_bytes;
    stats.new_chunks += counters.new_chunks;
    stats.same_chunks += counters.same_chunks;
    stats.zero_chunks += counters.zero_chunks;
    Ok(hashes)
}

/// One more than there are processors: while one waits for its turn, the others work.
fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors + 1).min(WORKERS_MAX)
}

#[cfg(test)]
mod tests;
