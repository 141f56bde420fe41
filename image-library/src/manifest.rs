// SPDX-License-Identifier: MIT OR Apache-2.0
//! Manifests: which chunk stands where on a disk, as a tree of two levels.
//!
//! ```text
//! root  0   8  magic "RLVDISK1"          leaf  32 bytes per chunk: its content hash,
//!       8   4  chunk size                      all zero for a chunk of zeros;
//!       12  4  entries per leaf, 2048          2048 of them, fewer in a disk's last leaf
//!       16  8  disk size in bytes
//!       24  8  number of chunks that are not zeros
//!       32  n  32 bytes per leaf: its content hash, all zero for a leaf of zeros
//! ```
//!
//! Both are blobs in packs, so an unchanged leaf costs an incremental image nothing. They hold
//! content hashes, not keyed ids: a server's agent may be told the hashes of its own disks and
//! never learns a name in the store.
//!
//! Limits: a disk has at most [`CHUNKS_MAX`] chunks.

use crate::error::{Error, Result};
use crate::id::ContentHash;

/// How many chunks a full leaf of a manifest names.
pub const LEAF_CHUNKS: usize = 2048;
/// The most chunks that a disk has: 64 TiB in chunks of 64 KiB.
pub(crate) const CHUNKS_MAX: u64 = 1 << 30;
const MAGIC: &[u8; 8] = b"RLVDISK1";
const ROOT_HEADER_LENGTH: usize = 32;
const HASH_LENGTH: usize = 32;

/// The root of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) chunk_size: u32,
    pub(crate) disk_size: u64,
    pub(crate) data_chunks: u64,
    pub(crate) leaves: Vec<Option<ContentHash>>,
}

/// How many chunks a disk has; an error past the limit.
pub(crate) fn chunk_count(disk_size: u64, chunk_size: u32) -> Result<u64> {
    let count = disk_size.div_ceil(u64::from(chunk_size));
    if count > CHUNKS_MAX {
        return Err(Error::Limit {
            what: "the size of a disk in chunks",
            limit: CHUNKS_MAX,
        });
    }
    Ok(count)
}

/// Length of the chunk with this number; the disk's last one may be shorter.
pub(crate) fn chunk_length(disk_size: u64, chunk_size: u32, chunk: u64) -> u32 {
    let start = chunk.saturating_mul(u64::from(chunk_size));
    let length = disk_size.saturating_sub(start).min(u64::from(chunk_size));
    // At most the chunk size, which is an u32.
    length as u32
}

impl Root {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ROOT_HEADER_LENGTH + self.leaves.len() * HASH_LENGTH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.chunk_size.to_le_bytes());
        bytes.extend_from_slice(&(LEAF_CHUNKS as u32).to_le_bytes());
        bytes.extend_from_slice(&self.disk_size.to_le_bytes());
        bytes.extend_from_slice(&self.data_chunks.to_le_bytes());
        push_hashes(&mut bytes, &self.leaves);
        bytes
    }

    /// Parses a root of a library with this chunk size; `place` names the image and the disk.
    pub(crate) fn from_bytes(bytes: &[u8], chunk_size: u32, place: &str) -> Result<Self> {
        let corrupt =
            |offset: u64, problem: String| Error::corrupt("manifest root", place, offset, problem);
        if bytes.len() < ROOT_HEADER_LENGTH || &bytes[..8] != MAGIC {
            let length = bytes.len();
            return Err(corrupt(0, format!("no magic RLVDISK1 in {length} bytes")));
        }
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let sizes = number(8);
        let expected = u64::from(chunk_size) | (LEAF_CHUNKS as u64) << 32;
        if sizes != expected {
            let problem = format!(
                "expected chunks of {chunk_size} bytes and leaves of {LEAF_CHUNKS}, found {} and {}",
                sizes & 0xffff_ffff,
                sizes >> 32
            );
            return Err(corrupt(8, problem));
        }
        let disk_size = number(16);
        let count = chunk_count(disk_size, chunk_size)?;
        let leaves = leaf_count(count);
        let body = &bytes[ROOT_HEADER_LENGTH..];
        if body.len() as u64 != leaves * HASH_LENGTH as u64 {
            let problem = format!("expected {leaves} leaves, found {} bytes", body.len());
            return Err(corrupt(ROOT_HEADER_LENGTH as u64, problem));
        }
        Ok(Self {
            chunk_size,
            disk_size,
            data_chunks: number(24),
            leaves: hashes(body),
        })
    }

    /// How many chunks the disk has.
    pub(crate) fn chunk_count(&self) -> u64 {
        self.disk_size.div_ceil(u64::from(self.chunk_size))
    }

    /// How many entries the leaf with this number has.
    pub(crate) fn leaf_entries(&self, leaf: usize) -> usize {
        leaf_entries(self.chunk_count(), leaf as u64)
    }
}

/// How many entries the leaf with this number has on a disk of so many chunks.
pub(crate) fn leaf_entries(chunks: u64, leaf: u64) -> usize {
    let before = leaf.saturating_mul(LEAF_CHUNKS as u64);
    // At most LEAF_CHUNKS.
    chunks.saturating_sub(before).min(LEAF_CHUNKS as u64) as usize
}

/// How many leaves name so many chunks.
pub(crate) const fn leaf_count(chunks: u64) -> u64 {
    chunks.div_ceil(LEAF_CHUNKS as u64)
}

/// The bytes of a leaf.
pub(crate) fn leaf_to_bytes(entries: &[Option<ContentHash>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * HASH_LENGTH);
    push_hashes(&mut bytes, entries);
    bytes
}

/// The entries of a leaf; its length was checked when it was read.
pub(crate) fn leaf_from_bytes(bytes: &[u8]) -> Vec<Option<ContentHash>> {
    hashes(bytes)
}

/// The length of a leaf in bytes.
pub(crate) const fn leaf_length(entries: usize) -> usize {
    entries * HASH_LENGTH
}

fn push_hashes(bytes: &mut Vec<u8>, hashes: &[Option<ContentHash>]) {
    for hash in hashes {
        let hash = hash
            .as_ref()
            .map_or(&[0; HASH_LENGTH], ContentHash::as_bytes);
        bytes.extend_from_slice(hash);
    }
}

fn hashes(bytes: &[u8]) -> Vec<Option<ContentHash>> {
    let parse = |bytes: &[u8]| {
        let mut hash = [0; HASH_LENGTH];
        hash.copy_from_slice(bytes);
        (hash != [0; HASH_LENGTH]).then(|| ContentHash::from_bytes(hash))
    };
    bytes.chunks_exact(HASH_LENGTH).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_reads_back_as_it_was_written() {
        let root = Root {
            chunk_size: 65536,
            disk_size: 65536 * 2048 + 1,
            data_chunks: 1,
            leaves: vec![None, Some(ContentHash::of(b"leaf"))],
        };
        let bytes = root.to_bytes();
        assert_eq!(bytes.len(), 32 + 2 * 32);
        assert_eq!(&bytes[..16], b"RLVDISK1\0\0\x01\0\0\x08\0\0");
        assert_eq!(
            Root::from_bytes(&bytes, 65536, "test").expect("parses"),
            root
        );
        assert_eq!(root.leaf_entries(0), 2048);
        assert_eq!(root.leaf_entries(1), 1);
    }

    #[test]
    fn a_hostile_root_is_refused() {
        let root = Root {
            chunk_size: 65536,
            disk_size: 65536,
            data_chunks: 1,
            leaves: vec![None],
        };
        let good = root.to_bytes();
        let mut huge = good.clone();
        huge[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        let cases = [vec![], good[..31].to_vec(), good[..63].to_vec(), huge];
        for bytes in cases {
            assert!(Root::from_bytes(&bytes, 65536, "test").is_err());
        }
        assert!(Root::from_bytes(&good, 16384, "test").is_err());
    }

    #[test]
    fn the_last_chunk_of_a_disk_is_as_long_as_what_is_left() {
        assert_eq!(chunk_length(100_000, 65536, 0), 65536);
        assert_eq!(chunk_length(100_000, 65536, 1), 34464);
        assert_eq!(chunk_length(100_000, 65536, 2), 0);
    }
}
