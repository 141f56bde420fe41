// SPDX-License-Identifier: MIT OR Apache-2.0
//! The upload of one image to a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use crate::access::{ChunkState, ChunkUpload, DiskHashes, Upload};
use crate::client::connection::{Answer, Connection, Method};
use crate::client::hashes::{HashesOf, RemoteHashes};
use crate::document::{DiskDraft, Image, ImageDraft};
use crate::error::{Error, Result};
use crate::id::{ContentHash, ServerName};
use crate::protocol::{
    PLAIN_BYTES_MAX, STATES_MAX, UNKNOWN_UPLOAD, append_frame, frame_length, wire_hash,
};

/// A request holds frames of about so many bytes.
const FRAMES_BYTES: usize = 8 << 20;

/// An upload to a server; dropping it without a commit gives it up.
#[derive(Debug)]
pub(super) struct RemoteUpload {
    connection: Arc<Connection>,
    server: ServerName,
    id: String,
    chunk_size_bytes: u32,
    committed: AtomicBool,
}

impl RemoteUpload {
    pub(super) fn new(
        connection: Arc<Connection>,
        server: ServerName,
        id: Uuid,
        chunk_size_bytes: u32,
    ) -> Self {
        Self {
            connection,
            server,
            id: id.to_string(),
            chunk_size_bytes,
            committed: AtomicBool::new(false),
        }
    }

    fn post(&self, action: &'static str, what: &str, body: &Bytes) -> Result<Answer> {
        let path = ["v1", "uploads", &self.id, what];
        self.connection
            .send_bytes(action, Method::Post, &path, &[], body)
            .map_err(|error| self.lost(error))
    }

    fn put_hashes(
        &self,
        action: &'static str,
        path: &[&str],
        disk: &DiskDraft,
        hashes: &[Option<ContentHash>],
    ) -> Result<()> {
        let size_bytes = disk.size_bytes.to_string();
        let sector_size = disk.sector_size.bytes().to_string();
        let query = [
            ("name", disk.name.as_str()),
            ("size_bytes", &size_bytes),
            ("sector_size", &sector_size),
        ];
        let body: Vec<u8> = hashes
            .iter()
            .flat_map(|hash| wire_hash(hash.as_ref()))
            .collect();
        self.connection
            .send_bytes(action, Method::Put, path, &query, &Bytes::from(body))
            .map_err(|error| self.lost(error))?;
        Ok(())
    }

    fn commit_as(&self, what: &str, document: &impl Serialize) -> Result<Image> {
        let path = ["v1", "uploads", &self.id, what];
        let image = self
            .connection
            .post_json("commit an image", &path, document)
            .map_err(|error| self.lost(error))?;
        self.committed.store(true, Ordering::Relaxed);
        Ok(image)
    }

    /// What a failed request means for the upload.
    fn lost(&self, error: Error) -> Error {
        let location = self.connection.location();
        match error {
            Error::Unreachable { source, .. } => Error::UploadLost { location, source },
            Error::ServerRefused { code, .. } if code == UNKNOWN_UPLOAD => {
                Error::UploadForgotten { location }
            }
            other => other,
        }
    }
}

impl Upload for RemoteUpload {
    fn put_chunks(&self, chunks: Vec<ChunkUpload>) -> Result<()> {
        let mut body = Vec::new();
        let mut plain = 0_usize;
        let mut chunks = chunks.into_iter().peekable();
        while let Some(chunk) = chunks.next() {
            append_frame(&mut body, &chunk);
            plain = plain.saturating_add(chunk.length as usize);
            let next = chunks.peek().map_or(usize::MAX, frame_length);
            if body.len().saturating_add(next) > FRAMES_BYTES || plain > PLAIN_BYTES_MAX / 4 {
                let full = Bytes::from(std::mem::take(&mut body));
                plain = 0;
                self.post("store chunks", "chunks", &full)?;
            }
        }
        Ok(())
    }

    fn latest_hashes(&self, disk_name: &str) -> Result<Option<Arc<dyn DiskHashes>>> {
        // The server answers who has an upload under way as of when that began.
        let connection = Arc::clone(&self.connection);
        let of = HashesOf::latest(&self.server, disk_name);
        let hashes = RemoteHashes::open(connection, of, self.chunk_size_bytes)?;
        Ok(hashes.map(|hashes| Arc::new(hashes) as Arc<dyn DiskHashes>))
    }

    fn states(&self, hashes: &[ContentHash]) -> Result<Vec<ChunkState>> {
        let mut states = Vec::with_capacity(hashes.len());
        for hashes in hashes.chunks(STATES_MAX) {
            let body: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
            let action = "say which chunks it has";
            let answer = self.post(action, "states", &Bytes::from(body))?;
            if answer.bytes.len() != hashes.len() {
                return Err(self.connection.protocol(format!(
                    "expected {} states of chunks, found {}",
                    hashes.len(),
                    answer.bytes.len()
                )));
            }
            states.extend(answer.bytes.iter().map(|state| match state {
                1 => ChunkState::Stored,
                _ => ChunkState::Missing,
            }));
        }
        Ok(states)
    }

    fn put_leaf(
        &self,
        disk: &DiskDraft,
        number: u64,
        chunks: &[Option<ContentHash>],
    ) -> Result<()> {
        let path = ["v1", "uploads", &self.id, "leaves", &number.to_string()];
        self.put_hashes("take a part of a disk", &path, disk, chunks)
    }

    fn put_disk(&self, disk: &DiskDraft, leaves: &[Option<ContentHash>]) -> Result<()> {
        let path = ["v1", "uploads", &self.id, "disks"];
        self.put_hashes("take a disk", &path, disk, leaves)
    }

    fn commit(self: Box<Self>, draft: &ImageDraft) -> Result<Image> {
        self.commit_as("commit", draft)
    }

    fn commit_copy(self: Box<Self>, original: &Image) -> Result<Image> {
        self.commit_as("copy", original)
    }
}

impl Drop for RemoteUpload {
    fn drop(&mut self) {
        if !self.committed.load(Ordering::Relaxed) {
            self.connection.delete_quietly(&["v1", "uploads", &self.id]);
        }
    }
}
