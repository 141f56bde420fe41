// SPDX-License-Identifier: MIT OR Apache-2.0
//! How programs use a library, wherever it is: a directory opened with its key, or a server.

use std::fmt::Debug;
use std::sync::Arc;

use disk::ReadAt;

use crate::chunk::{CheckedChunk, check_upload, compress, length_of};
use crate::document::{DiskDraft, Image, ImageDraft};
use crate::error::{Error, Result};
use crate::id::{ContentHash, DiskIndex, ImageId, ServerName};
use crate::wanted::WantedRange;

/// Reads images. Implemented by the local library and by the client of a server.
pub trait ImageReader: Debug + Send + Sync {
    /// Every committed image, oldest first.
    fn images(&self) -> Result<Vec<Image>>;

    /// One image.
    fn image(&self, id: ImageId) -> Result<Image>;

    /// One disk of an image, as a device of its original size.
    fn open_disk(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn ReadAt>>;

    /// The same for a reader that keeps what it has read and knows the holes: nothing is kept
    /// below it, and nothing is read that was not asked for.
    fn open_disk_direct(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        self.open_disk(id, disk)
    }

    /// The content hashes of one disk of an image, as they were put: what is kept of the disk
    /// elsewhere is checked against them.
    ///
    /// # Errors
    ///
    /// Those of [`ImageReader::open_disk`]; [`Error::Refused`] from a reader that does not know
    /// them, which all but libraries and their clients are.
    fn disk_hashes(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn DiskHashes>> {
        Err(Error::Refused {
            what: "the hashes of a disk",
            problem: format!("they are not known here of disk {disk} of image {id}"),
        })
    }

    /// A side file of an image (readiness, prepared overlay), `None` when there is none.
    ///
    /// `name` is 1 to 100 of `a-z 0-9 . -`.
    fn side_file(&self, id: ImageId, name: &str) -> Result<Option<Vec<u8>>>;

    /// Writes or replaces a side file; the image itself never changes.
    fn put_side_file(&self, id: ImageId, name: &str, content: &[u8]) -> Result<()>;
}

/// Adds images. Implemented by the local library and by the client of a server.
pub trait ImageWriter: Debug + Send + Sync {
    /// Size of a chunk in bytes, a power of two.
    fn chunk_size_bytes(&self) -> u32;

    /// Begins, or takes up again, the upload of one image.
    fn begin(&self, target: &UploadTarget) -> Result<Box<dyn Upload>>;

    /// The content hashes of one disk of this server's latest image; `None` when there is no such
    /// image or disk.
    fn latest_hashes(
        &self,
        server: &ServerName,
        disk_name: &str,
    ) -> Result<Option<Arc<dyn DiskHashes>>>;

    /// What of the disks of this server's latest image the library has lost and wants again; nothing
    /// in the usual case, which costs next to nothing. Who keeps hashes of that image believes them
    /// for the rest only: see [`read_again`](crate::read_again).
    fn wanted(&self, server: &ServerName) -> Result<Vec<WantedRange>>;
}

/// The content hashes of a disk's chunks, read leaf by leaf: those of 1 TiB would take 512 MiB.
pub trait DiskHashes: Debug + Send + Sync {
    /// The image that they are of.
    fn image(&self) -> ImageId;

    /// Size of a chunk in bytes, a power of two; the disk's last one may be shorter.
    fn chunk_size_bytes(&self) -> u32;

    /// How many chunks the disk has.
    fn chunk_count(&self) -> u64;

    /// The hashes of the chunks from `number * LEAF_CHUNKS` on, `None` where a chunk is all zeros:
    /// [`LEAF_CHUNKS`](crate::LEAF_CHUNKS) of them, fewer at the disk's end, none beyond it. A
    /// chunk that the library has lost has a hash that no bytes have.
    fn leaf(&self, number: u64) -> Result<Vec<Option<ContentHash>>>;
}

/// A library, wherever it is: reads and adds images.
pub trait Library: ImageReader + ImageWriter {}

impl<T: ImageReader + ImageWriter + ?Sized> Library for T {}

/// What an upload is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadTarget {
    /// Whose image.
    pub server: ServerName,
}

/// One chunk on its way to the library.
#[derive(Debug, Clone)]
pub struct ChunkUpload {
    /// BLAKE3 of the plain bytes.
    pub hash: ContentHash,
    /// Length of the plain bytes.
    pub length: u32,
    /// The bytes, as one zstd frame.
    pub compressed: Vec<u8>,
}

/// A chunk that [`Upload::prepare`] made ready to be put.
#[derive(Debug)]
pub struct PreparedChunk(Prepared);

#[derive(Debug)]
enum Prepared {
    Upload(ChunkUpload),
    Checked(CheckedChunk),
}

impl PreparedChunk {
    /// Bytes that are sent or stored of it.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        match &self.0 {
            Prepared::Upload(chunk) => chunk.compressed.len() as u64,
            Prepared::Checked(chunk) => chunk.body.len() as u64,
        }
    }

    pub(crate) const fn checked(chunk: CheckedChunk) -> Self {
        Self(Prepared::Checked(chunk))
    }

    /// As a library stores it, checked here unless it was before.
    pub(crate) fn into_checked(self, chunk_size: u32) -> Result<CheckedChunk> {
        match self.0 {
            Prepared::Upload(chunk) => check_upload(chunk, chunk_size),
            Prepared::Checked(chunk) => Ok(chunk),
        }
    }

    fn into_upload(self) -> Result<ChunkUpload> {
        match self.0 {
            Prepared::Upload(chunk) => Ok(chunk),
            Prepared::Checked(chunk) => chunk.into_upload(),
        }
    }
}

/// What the library has of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkState {
    /// Stored: it was in this server's latest image, or was put in this upload.
    Stored,
    /// Must be put.
    Missing,
}

/// The upload of one image: chunks first, then manifests, then the commit.
///
/// Nothing is visible to readers before [`Upload::commit`] returns, and everything is durable
/// after it. An upload that is dropped leaves chunks that the next one need not send again.
pub trait Upload: Debug + Send + Sync {
    /// Stores chunks; every one is decompressed and checked against its hash first.
    fn put_chunks(&self, chunks: Vec<ChunkUpload>) -> Result<()>;

    /// Makes a chunk ready for [`Upload::put_prepared`]: what costs time and needs no order.
    /// `hash` is that of `plain`; who has it from elsewhere has compared them.
    fn prepare(&self, hash: ContentHash, plain: &[u8]) -> Result<PreparedChunk> {
        Ok(PreparedChunk(Prepared::Upload(ChunkUpload {
            hash,
            length: length_of(plain)?,
            compressed: compress(plain)?,
        })))
    }

    /// [`Upload::put_chunks`] with chunks that this upload prepared.
    fn put_prepared(&self, chunks: Vec<PreparedChunk>) -> Result<()> {
        let chunks = chunks.into_iter().map(PreparedChunk::into_upload);
        self.put_chunks(chunks.collect::<Result<_>>()?)
    }

    /// The content hashes of one disk of the server's latest image, as it was when this upload began:
    /// what the upload may not rely on is told as lost. `None` when there is no such image or disk.
    fn latest_hashes(&self, disk_name: &str) -> Result<Option<Arc<dyn DiskHashes>>>;

    /// Which of these this upload may leave out. Asks only about what the same server's latest
    /// image or this or an interrupted upload of the same server holds.
    fn states(&self, hashes: &[ContentHash]) -> Result<Vec<ChunkState>>;

    /// Puts one leaf of a disk's manifest: the hashes of the chunks from `number * LEAF_CHUNKS` on,
    /// `None` where a chunk is all zeros. The library has each of these chunks by now.
    fn put_leaf(&self, disk: &DiskDraft, number: u64, chunks: &[Option<ContentHash>])
    -> Result<()>;

    /// Sets one whole disk: for each leaf its hash, `None` where all its chunks are zeros. A leaf
    /// was put in this upload, or is the one at the same place of the same disk in the server's
    /// latest image. [`DiskWriter`](crate::DiskWriter) does it in order.
    fn put_disk(&self, disk: &DiskDraft, leaves: &[Option<ContentHash>]) -> Result<()>;

    /// Commits: one atomic create after everything it names is durable.
    fn commit(self: Box<Self>, draft: &ImageDraft) -> Result<Image>;

    /// Commits the copy of another library's image: it keeps id, times and machine of the original.
    /// Its disks are those of this upload, which have the original's manifests. That it is there
    /// already, with the same disks, is no error.
    fn commit_copy(self: Box<Self>, original: &Image) -> Result<Image>;
}
