// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes one pack: records as they come, then the footer; durable once it is named.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    BLOB_LENGTH_MAX, BlobKind, Extent, FOOTER_ENTRY_LENGTH, FOOTER_PREFIX_LENGTH, FooterEntry,
    HEADER_LENGTH, Header, PROLOGUE_LENGTH, PackId, RECORD_LENGTH_FIELD, RECORD_OVERHEAD,
    RECORDS_MAX, TRAILER_LENGTH, TRAILER_MAGIC, nonce,
};
use crate::chunk::{CheckedChunk, ChunkId, Encoding};
use crate::crypto::{Cipher, LibraryKey, OwnerTag, Seal, TAG_LENGTH};
use crate::error::{Error, Result};
use crate::surroundings::Surroundings;

/// Records are written to the file in runs of this many bytes.
const BUFFER_LENGTH: usize = 1 << 20;

/// A pack that is being written to a temporary file.
#[derive(Debug)]
pub(crate) struct PackWriter {
    path: PathBuf,
    file: File,
    seal: Seal,
    owner: OwnerTag,
    hasher: blake3::Hasher,
    /// Bytes that are sealed and not yet written.
    buffer: Vec<u8>,
    written: u64,
    entries: Vec<FooterEntry>,
    surroundings: Arc<dyn Surroundings>,
}

/// For whom a pack is written, and how it is sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackOrigin {
    pub(crate) cipher: Cipher,
    pub(crate) library: [u8; 16],
    pub(crate) owner: OwnerTag,
}

/// A pack whose bytes are complete and durable under its temporary name.
#[derive(Debug)]
pub(crate) struct FinishedPack {
    pub(crate) id: PackId,
    pub(crate) path: PathBuf,
    pub(crate) length: u64,
    pub(crate) owner: OwnerTag,
    pub(crate) entries: Vec<FooterEntry>,
}

impl PackWriter {
    /// Creates the temporary file, replacing one that an interrupted upload left.
    pub(crate) fn create(
        path: &Path,
        key: &LibraryKey,
        origin: PackOrigin,
        surroundings: &Arc<dyn Surroundings>,
    ) -> Result<Self> {
        let PackOrigin {
            cipher,
            library,
            owner,
        } = origin;
        let header = Header {
            cipher,
            salt: surroundings.salt()?,
            library,
        }
        .to_bytes();
        let file = File::create(path).map_err(Error::file("create", path))?;
        let mut buffer = Vec::with_capacity(BUFFER_LENGTH + (256 << 10));
        buffer.extend_from_slice(&header);
        Ok(Self {
            path: path.to_owned(),
            file,
            seal: key.pack_seal(cipher, &header)?,
            owner,
            hasher: blake3::Hasher::new(),
            buffer,
            written: 0,
            entries: Vec::new(),
            surroundings: Arc::clone(surroundings),
        })
    }

    /// Where the next byte goes.
    pub(crate) fn length(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether it should be finished now.
    pub(crate) fn is_full(&self) -> bool {
        self.length() >= self.surroundings.pack_length()
            || self.entries.len() >= RECORDS_MAX as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Seals and appends one blob. Gives the record's length in bytes.
    pub(crate) fn append(
        &mut self,
        id: ChunkId,
        kind: BlobKind,
        chunk: &CheckedChunk,
    ) -> Result<u32> {
        if chunk.length > BLOB_LENGTH_MAX || chunk.body.len() > BLOB_LENGTH_MAX as usize {
            return Err(Error::Limit {
                what: "the length in bytes of a blob",
                limit: u64::from(BLOB_LENGTH_MAX),
            });
        }
        let offset = self.length();
        let start = self.buffer.len();
        // Below 2^26: `is_full` and BLOB_LENGTH_MAX bound the pack.
        let length = (chunk.body.len() + RECORD_OVERHEAD) as u32;
        let sealed_length = length - RECORD_LENGTH_FIELD as u32;
        let masked = self.seal.mask_length(offset, sealed_length);
        self.buffer.extend_from_slice(&masked.to_le_bytes());
        let mut prologue = [0; PROLOGUE_LENGTH];
        prologue[0] = kind.to_byte();
        prologue[1] = encoding_byte(chunk.encoding);
        prologue[4..].copy_from_slice(&chunk.length.to_le_bytes());
        self.buffer.extend_from_slice(&prologue);
        self.buffer.extend_from_slice(&chunk.body);
        let from = start + RECORD_LENGTH_FIELD;
        self.seal.seal(nonce(offset), b"", &mut self.buffer, from)?;
        self.entries.push(FooterEntry {
            id,
            extent: Extent {
                offset: offset as u32,
                length,
                plain_length: chunk.length,
            },
            kind,
        });
        if self.buffer.len() >= BUFFER_LENGTH {
            self.write_buffer()?;
        }
        Ok(length)
    }

    fn write_buffer(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.file
            .write_all(&self.buffer)
            .map_err(Error::file("write", &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes footer and trailer and makes the file durable; naming it is the caller's.
    pub(crate) fn finish(mut self) -> Result<FinishedPack> {
        let footer_offset = self.length();
        let start = self.buffer.len();
        let footer = footer_to_bytes(&self.entries, footer_offset, self.owner);
        self.buffer.extend_from_slice(&footer);
        self.seal
            .seal(nonce(footer_offset), b"footer", &mut self.buffer, start)?;
        let footer_length = (footer.len() + TAG_LENGTH) as u32;
        let mut trailer = [0; TRAILER_LENGTH];
        trailer[..4].copy_from_slice(&(footer_offset as u32).to_le_bytes());
        trailer[4..8].copy_from_slice(&footer_length.to_le_bytes());
        trailer[8..].copy_from_slice(TRAILER_MAGIC);
        self.buffer.extend_from_slice(&trailer);
        self.write_buffer()?;
        self.surroundings
            .sync(&self.file, &self.path)
            .map_err(Error::file("make durable", &self.path))?;
        Ok(FinishedPack {
            id: PackId::from_bytes(*self.hasher.finalize().as_bytes()),
            path: self.path,
            length: self.written,
            owner: self.owner,
            entries: self.entries,
        })
    }
}

const fn encoding_byte(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Raw => 0,
        Encoding::Zstd => 1,
    }
}

fn footer_to_bytes(entries: &[FooterEntry], footer_offset: u64, owner: OwnerTag) -> Vec<u8> {
    let mut footer =
        Vec::with_capacity(FOOTER_PREFIX_LENGTH + entries.len() * FOOTER_ENTRY_LENGTH + TAG_LENGTH);
    footer.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    let records_length = footer_offset as u32 - HEADER_LENGTH as u32;
    footer.extend_from_slice(&records_length.to_le_bytes());
    footer.extend_from_slice(&owner.0);
    for entry in entries {
        footer.extend_from_slice(entry.id.as_bytes());
        footer.extend_from_slice(&entry.extent.offset.to_le_bytes());
        footer.extend_from_slice(&entry.extent.length.to_le_bytes());
        footer.extend_from_slice(&entry.extent.plain_length.to_le_bytes());
        footer.extend_from_slice(&[entry.kind.to_byte(), 0, 0, 0]);
    }
    footer
}
