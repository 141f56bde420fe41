// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes disks into a library: read, skip what is empty or unused, hash, ask, compress, put.
//!
//! ```text
//! worker: claim the next batch of chunks -> read -> hash -> compare -> ask -> compress -> hand in
//!                                                                                          |
//!            whoever hands in the batch whose turn it is, in disk order: put <-------------+
//! ```
//!
//! Several workers do all of it, each with one batch in hand, and one more for each waits for its
//! turn, so memory is bounded whatever the disk's size, and packs are filled in disk order. The manifest goes up leaf by leaf beside the chunks. A worker that fails
//! stops the others; the upload is then dropped, and the next one need not send again what was put.

mod batch;
mod in_order;
mod plan;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use disk::{Monitor, ReadAt, Unit};

use crate::access::{DiskHashes, ImageWriter, Upload, UploadTarget};
use crate::disk_writer::{DiskWriter, RecentLeaves};
use crate::document::{DiskDraft, Image, ImageDraft};
use crate::error::{Error, Result};
use crate::id::ContentHash;
use crate::manifest::chunk_count;
use batch::Batches;

/// The most threads that work on one disk; together they have up to 48 MiB, most of it when nothing
/// shrinks.
const WORKERS_MAX: usize = 8;

/// Told the hashes of a disk's chunks, in order and once each.
pub type NoteHashes<'a> = dyn FnMut(&[Option<ContentHash>]) + Send + 'a;

/// A disk to be taken in.
#[derive(Debug, Clone)]
pub struct IngestDisk {
    /// How the image will call it.
    pub draft: DiskDraft,
    /// Its bytes.
    pub device: Arc<dyn ReadAt>,
    /// The bytes that are in use, sorted; what is outside is stored as zeros unread. `None`: all.
    pub used: Option<Vec<Range<u64>>>,
    /// The hashes of its chunks, of the library's size, where they are known: only what the
    /// library lacks is read then.
    pub known: Option<Arc<dyn DiskHashes>>,
}

impl IngestDisk {
    /// How many bytes of a stretch are in use.
    fn used_bytes(&self, range: &Range<u64>) -> u64 {
        let Some(used) = &self.used else {
            return range.end - range.start;
        };
        let first = used.partition_point(|extent| extent.end <= range.start);
        let inside = used[first..]
            .iter()
            .take_while(|extent| extent.start < range.end);
        inside
            .map(|extent| extent.end.min(range.end) - extent.start.max(range.start))
            .sum()
    }
}

/// What an ingest did with its disks, in bytes of the disk unless it says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct IngestStats {
    /// Bytes of all disks.
    pub disk_bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes of chunks that are not what the server's last image has at their place.
    pub changed_bytes: u64,
    /// Of these, bytes of chunks that the library did not have, before compression.
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

impl IngestStats {
    /// Adds what was done with another disk.
    pub(crate) fn add(&mut self, other: &Self) {
        self.disk_bytes += other.disk_bytes;
        self.read_bytes += other.read_bytes;
        self.changed_bytes += other.changed_bytes;
        self.new_bytes += other.new_bytes;
        self.sent_bytes += other.sent_bytes;
        self.new_chunks += other.new_chunks;
        self.same_chunks += other.same_chunks;
        self.zero_chunks += other.zero_chunks;
        self.seconds += other.seconds;
    }
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
    let ingest = Ingest {
        upload: &*upload,
        chunk_size_bytes: writer.chunk_size_bytes(),
        monitor,
        stop: &AtomicBool::new(false),
    };
    for disk in disks {
        monitor.stage(&format!("Reading disk {}", disk.draft.name));
        let previous = upload.latest_hashes(&disk.draft.name)?;
        stats.add(&ingest.disk(disk, previous, &mut |_| ())?);
    }
    monitor.stage("Committing the image");
    let image = upload.commit(draft)?;
    stats.seconds = begun.elapsed().as_secs_f64();
    Ok((image, stats))
}

/// How disks get into an upload that its caller began and will commit.
#[derive(Clone, Copy)]
#[expect(
    missing_debug_implementations,
    reason = "a monitor shows nothing of itself"
)]
pub struct Ingest<'a> {
    /// Into which upload.
    pub upload: &'a dyn Upload,
    /// Size of a chunk of its library.
    pub chunk_size_bytes: u32,
    /// Told how far it is, in bytes that are in use.
    pub monitor: &'a dyn Monitor,
    /// Set when it is to end early.
    pub stop: &'a AtomicBool,
}

impl Ingest<'_> {
    /// Takes one disk in. `previous` is what the library has of it (chunks that are the same are not
    /// sent), `note` is told the hashes that the disk has now.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] when it was asked to end; what was sent need not be sent again.
    pub fn disk(
        &self,
        disk: &IngestDisk,
        previous: Option<Arc<dyn DiskHashes>>,
        note: &mut NoteHashes<'_>,
    ) -> Result<IngestStats> {
        let begun = Instant::now();
        let size = disk.draft.size_bytes;
        if size != disk.device.length_bytes() {
            let found = disk.device.length_bytes();
            return Err(Error::Refused {
                what: "a disk",
                problem: format!("expected a device of {size} bytes, found {found}"),
            });
        }
        self.monitor
            .expect(disk.used_bytes(&(0..size)), Unit::Bytes);
        let previous = previous.map(|hashes| Arc::new(RecentLeaves::new(hashes)));
        let batches = Batches {
            ingest: *self,
            disk,
            chunk_count: chunk_count(size, self.chunk_size_bytes)?,
            previous: previous.clone(),
            known: disk.known.clone().map(RecentLeaves::new),
        };
        let writer = DiskWriter::with_previous(self.upload, &disk.draft, previous);
        let mut stats = batches.run(workers(), writer, note)?;
        stats.seconds = begun.elapsed().as_secs_f64();
        Ok(stats)
    }
}

/// One more than there are processors: while one waits for its turn, the others work.
fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors + 1).min(WORKERS_MAX)
}

#[cfg(test)]
mod tests;
