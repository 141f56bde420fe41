// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packs: files of about 16 MiB that hold many blobs (chunks, manifest leaves, manifest roots).
//!
//! ```text
//! 0     64  header   magic "RLVPACK1", version u16, cipher u8, 5 zero, salt [32], library id [16]
//! 64     n  records  masked length u32, then sealed: kind u8, encoding u8, 2 zero,
//!                    plain length u32, body; tag [16]
//! 64+n   f  footer   sealed: count u32, records' bytes u32, owner tag [16], then per record:
//!                    chunk id [32], offset u32, length u32, plain length u32, kind u8, 3 zero
//! -16   16  trailer  footer offset u32, footer length u32, magic "RLVPEND1"
//! ```
//!
//! Numbers are little-endian. The name of a pack is the BLAKE3 of the whole file, so damage is
//! seen without a key. Everything but header and trailer is sealed under a key of this pack; the
//! nonce of a part is the byte at which it stands. Records describe themselves, so a pack whose
//! footer is damaged can still be read from the front.
//!
//! Limits: [`PACK_LENGTH_MAX`], [`RECORDS_MAX`], [`BLOB_LENGTH_MAX`].

mod reader;
mod writer;

use std::fmt;

pub(crate) use reader::OpenPack;
pub(crate) use writer::{FinishedPack, PackOrigin, PackWriter};

use crate::chunk::ChunkId;
use crate::crypto::{Cipher, TAG_LENGTH};
use crate::error::{Error, Result};

/// A pack is finished once its records have this many bytes.
pub(crate) const PACK_LENGTH_TARGET: u32 = 16 << 20;
/// Longer files are not packs.
pub(crate) const PACK_LENGTH_MAX: u64 = 64 << 20;
/// A pack is finished once it has this many records.
pub(crate) const RECORDS_MAX: u32 = 16_384;
/// No blob is longer: the root of the largest disk.
pub(crate) const BLOB_LENGTH_MAX: u32 = (16 << 20) + (64 << 10);

pub(crate) const HEADER_LENGTH: usize = 64;
pub(crate) const TRAILER_LENGTH: usize = 16;
/// The masked length before each record.
pub(crate) const RECORD_LENGTH_FIELD: usize = 4;
/// What stands before the body inside the seal.
pub(crate) const PROLOGUE_LENGTH: usize = 8;
/// What a record is longer than its body.
pub(crate) const RECORD_OVERHEAD: usize = RECORD_LENGTH_FIELD + PROLOGUE_LENGTH + TAG_LENGTH;
const FOOTER_PREFIX_LENGTH: usize = 24;
const FOOTER_ENTRY_LENGTH: usize = 48;
const MAGIC: &[u8; 8] = b"RLVPACK1";
const TRAILER_MAGIC: &[u8; 8] = b"RLVPEND1";
const VERSION: u16 = 1;

/// The name of a pack: BLAKE3 of the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PackId([u8; 32]);

impl PackId {
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From 64 lower-case hexadecimal digits.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let hash = blake3::Hash::from_hex(text).ok().filter(|_| is_lower)?;
        Some(Self(*hash.as_bytes()))
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobKind {
    /// A chunk of a disk.
    Data,
    /// A leaf of a manifest.
    Leaf,
    /// The root of a manifest.
    Root,
}

impl BlobKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Leaf => 2,
            Self::Root => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Data),
            2 => Some(Self::Leaf),
            3 => Some(Self::Root),
            _ => None,
        }
    }
}

/// Where a record stands in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    /// First byte of the record, its length field.
    pub(crate) offset: u32,
    /// Length of the record with everything around the body.
    pub(crate) length: u32,
    /// Length of the blob that it holds.
    pub(crate) plain_length: u32,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}

/// One entry of a footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FooterEntry {
    pub(crate) id: ChunkId,
    pub(crate) extent: Extent,
    pub(crate) kind: BlobKind,
}

/// The first 64 bytes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) cipher: Cipher,
    pub(crate) salt: [u8; 32],
    pub(crate) library: [u8; 16],
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = self.cipher.to_byte();
        bytes[16..48].copy_from_slice(&self.salt);
        bytes[48..].copy_from_slice(&self.library);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; HEADER_LENGTH], place: &str) -> Result<Self> {
        if &bytes[..8] != MAGIC {
            let found = bytes[..8].escape_ascii();
            let problem = format!("expected the magic RLVPACK1, found {found}");
            return Err(Error::corrupt("pack header", place, 0, problem));
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        let unsupported = |feature| Error::Unsupported {
            structure: "pack header",
            place: place.to_owned(),
            feature,
        };
        if version != VERSION {
            return Err(unsupported(format!("version {version}")));
        }
        let cipher = Cipher::from_byte(bytes[10])
            .ok_or_else(|| unsupported(format!("cipher {}", bytes[10])))?;
        if bytes[11..16] != [0; 5] {
            return Err(unsupported("a feature in bytes 11 to 15".to_owned()));
        }
        let mut header = Self {
            cipher,
            salt: [0; 32],
            library: [0; 16],
        };
        header.salt.copy_from_slice(&bytes[16..48]);
        header.library.copy_from_slice(&bytes[48..]);
        Ok(header)
    }
}

/// The nonce of the part that stands at `offset`.
fn nonce(offset: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&offset.to_le_bytes());
    nonce
}

/// Reads a little-endian number; the caller has checked that four bytes are there.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

#[cfg(test)]
mod tests;
