// SPDX-License-Identifier: MIT OR Apache-2.0
//! How programs use a library, wherever it is: a directory opened with its key, or a server.

use std::fmt::Debug;
use std::sync::Arc;

use disk::ReadAt;

use crate::document::{DiskDraft, Image, ImageDraft};
use crate::error::Result;
use crate::id::{ContentHash, DiskIndex, ImageId, ServerName};

/// Reads images. Implemented by the local library and by the client of a server.
pub trait ImageReader: Debug + Send + Sync {
    /// Every committed image, oldest first.
    fn images(&self) -> Result<Vec<Image>>;

    /// One image.
    fn image(&self, id: ImageId) -> Result<Image>;

    /// One disk of an image, as a device of its original size.
    fn open_disk(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn ReadAt>>;

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

    /// The content hashes of one disk of this server's latest image, in chunk order; `None` where
    /// the chunk is all zeros. `Ok(None)` when there is no such image or disk.
    fn latest_hashes(
        &self,
        server: &ServerName,
        disk_name: &str,
    ) -> Result<Option<Vec<Option<ContentHash>>>>;
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

    /// Which of these this upload may leave out. Asks only about what the same server's latest
    /// image or this or an interrupted upload of the same server holds.
    fn states(&self, hashes: &[ContentHash]) -> Result<Vec<ChunkState>>;

    /// Sets one whole disk: for each chunk its hash, `None` where it is all zeros.
    fn put_disk(&self, disk: &DiskDraft, chunks: &[Option<ContentHash>]) -> Result<()>;

    /// Commits: one atomic create after everything it names is durable.
    fn commit(self: Box<Self>, draft: &ImageDraft) -> Result<Image>;
}
