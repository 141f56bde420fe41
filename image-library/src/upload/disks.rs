// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disks of an upload: their manifests, leaf by leaf, each checked before it is stored.
//!
//! What is kept of a disk until it is whole is a few words for each leaf that was put, so memory
//! does not grow with the hashes of the disk: 64 bytes for 128 MiB of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use super::LocalUpload;
use crate::chunk::CheckedChunk;
use crate::document::{DiskDraft, ImageDisk};
use crate::error::{Error, Result};
use crate::id::{ContentHash, DiskIndex};
use crate::manifest::{
    CHUNKS_MAX, LEAF_CHUNKS, Root, chunk_count, chunk_length, leaf_count, leaf_entries,
    leaf_to_bytes,
};
use crate::pack::BlobKind;

/// The most disks of one image.
const DISKS_MAX: usize = 1024;
/// The most leaves that are remembered before their disks are whole: those of the largest disk.
const NOTED_MAX: usize = leaf_count(CHUNKS_MAX) as usize;

/// The leaves that were put of disks that are not whole yet, by the disk's name and number.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    disks: HashMap<(String, u64), BTreeMap<u64, Leaf>>,
    count: usize,
}

/// A leaf that was checked and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaf {
    hash: ContentHash,
    /// Chunks that are not zeros.
    data_chunks: u64,
    /// The bytes of these.
    data_bytes: u64,
}

impl Leaves {
    fn add(&mut self, disk: &DiskDraft, number: u64, leaf: Leaf) -> Result<()> {
        if self.count >= NOTED_MAX {
            return Err(Error::Limit {
                what: "the number of leaves of disks that are not whole yet",
                limit: NOTED_MAX as u64,
            });
        }
        let key = (disk.name.clone(), disk.size_bytes);
        if self
            .disks
            .entry(key)
            .or_default()
            .insert(number, leaf)
            .is_none()
        {
            self.count += 1;
        }
        Ok(())
    }

    /// What was put of a disk; nothing is left of it here.
    fn take(&mut self, disk: &DiskDraft) -> BTreeMap<u64, Leaf> {
        let leaves = self.disks.remove(&(disk.name.clone(), disk.size_bytes));
        let leaves = leaves.unwrap_or_default();
        self.count -= leaves.len();
        leaves
    }
}

impl LocalUpload {
    pub(super) fn add_leaf(
        &self,
        disk: &DiskDraft,
        number: u64,
        chunks: &[Option<ContentHash>],
    ) -> Result<()> {
        let expected = leaf_entries(self.check_disk(disk)?, number);
        if chunks.len() != expected || chunks.iter().all(Option::is_none) {
            let found = chunks.len();
            let data = chunks.iter().flatten().count();
            return Err(refused(format!(
                "leaf {number} of disk {:?}: expected {expected} hashes that are not all zeros, \
                 found {found}, {data} of them not zeros",
                disk.name
            )));
        }
        let previous = match self.previous_root_of(disk)? {
            Some(root) => self.previous_leaf(&root, number)?,
            None => Vec::new(),
        };
        let leaf = self.store_leaf(disk, number, chunks, &previous)?;
        self.state().leaves.add(disk, number, leaf)
    }

    /// Checks a leaf and stores it unless the library has it.
    fn store_leaf(
        &self,
        disk: &DiskDraft,
        number: u64,
        chunks: &[Option<ContentHash>],
        previous: &[Option<ContentHash>],
    ) -> Result<Leaf> {
        let first = number * LEAF_CHUNKS as u64;
        let data_bytes = self.check_leaf(disk, first, chunks, previous)?;
        let blob = CheckedChunk::of(leaf_to_bytes(chunks))?;
        self.store(BlobKind::Leaf, &blob)?;
        Ok(Leaf {
            hash: blob.hash,
            data_chunks: chunks.iter().flatten().count() as u64,
            data_bytes,
        })
    }

    /// Checks the entries of a leaf: each chunk is one that this upload may name, is there, and
    /// has the length that its place on the disk asks for. Gives the bytes of all of them.
    fn check_leaf(
        &self,
        disk: &DiskDraft,
        first: u64,
        entries: &[Option<ContentHash>],
        previous: &[Option<ContentHash>],
    ) -> Result<u64> {
        let chunk_size = self.core.config.chunk_size_bytes;
        let mut data_bytes = 0;
        for (position, hash) in entries.iter().enumerate() {
            let Some(hash) = hash else { continue };
            let chunk = first + position as u64;
            let was_there = previous.get(position) == Some(&Some(*hash));
            let id = self.core.key.chunk_id(hash);
            let length = chunk_length(disk.size_bytes, chunk_size, chunk);
            // A chunk is in the index before it stops being pending: this order misses none.
            let is_there = match self.pending_length(&id) {
                Some(found) => found == length,
                None => match self.find(&id)? {
                    Some(found) if found.extent.plain_length == length => {
                        was_there || self.may_name_at(&id, &found)?
                    }
                    _ => false,
                },
            };
            if !is_there {
                let offset = chunk * u64::from(chunk_size);
                return Err(refused(format!(
                    "the chunk at byte {offset:#x} of disk {:?} was not put in this upload, or \
                     has not {length} bytes",
                    disk.name
                )));
            }
            data_bytes += u64::from(length);
        }
        Ok(data_bytes)
    }

    pub(super) fn add_disk(&self, disk: &DiskDraft, leaves: &[Option<ContentHash>]) -> Result<()> {
        let chunks = self.check_disk(disk)?;
        if leaves.len() as u64 != leaf_count(chunks) {
            return Err(refused(format!(
                "expected {} leaves for {chunks} chunks, found {}",
                leaf_count(chunks),
                leaves.len()
            )));
        }
        let mut put = self.state().leaves.take(disk);
        let previous = self.previous_root_of(disk)?;
        let mut root = Root {
            chunk_size: self.core.config.chunk_size_bytes,
            disk_size: disk.size_bytes,
            data_chunks: 0,
            leaves: leaves.to_vec(),
        };
        let mut data_bytes = 0;
        for (number, hash) in (0_u64..).zip(leaves) {
            let Some(hash) = hash else { continue };
            let leaf = match put.remove(&number).filter(|leaf| leaf.hash == *hash) {
                Some(leaf) => leaf,
                None => self.keep_leaf(disk, chunks, number, *hash, previous.as_deref())?,
            };
            root.data_chunks += leaf.data_chunks;
            data_bytes += leaf.data_bytes;
        }
        self.finish_disk(disk, &root, data_bytes)
    }

    /// Takes a leaf from the same place in the server's latest image. It is checked like one that
    /// was put: its chunks may be damaged or condemned by now.
    fn keep_leaf(
        &self,
        disk: &DiskDraft,
        chunks: u64,
        number: u64,
        hash: ContentHash,
        previous: Option<&Root>,
    ) -> Result<Leaf> {
        let not_put = || {
            refused(format!(
                "leaf {number} of disk {:?} was not put in this upload and is not that of the \
                 latest image",
                disk.name
            ))
        };
        let previous = previous.ok_or_else(not_put)?;
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        if previous.leaves.get(place) != Some(&Some(hash)) {
            return Err(not_put());
        }
        let entries = self.previous_leaf(previous, number)?;
        if entries.len() != leaf_entries(chunks, number) {
            return Err(not_put());
        }
        self.store_leaf(disk, number, &entries, &entries)
    }

    fn finish_disk(&self, disk: &DiskDraft, root: &Root, data_bytes: u64) -> Result<()> {
        let blob = CheckedChunk::of(root.to_bytes())?;
        self.store(BlobKind::Root, &blob)?;
        let manifest = blake3::Hash::from_bytes(*blob.hash.as_bytes());
        let mut state = self.state();
        // At most DISKS_MAX.
        let index = DiskIndex(state.disks.len() as u16);
        state.disks.push(ImageDisk {
            index,
            name: disk.name.clone(),
            size_bytes: disk.size_bytes,
            sector_size: disk.sector_size,
            manifest: manifest.to_hex().to_string(),
            data_bytes,
        });
        Ok(())
    }

    /// Checks what an upload says about a disk; gives the number of its chunks.
    fn check_disk(&self, disk: &DiskDraft) -> Result<u64> {
        if disk.name.is_empty() || disk.name.len() > 255 {
            let found = disk.name.len();
            return Err(refused(format!(
                "expected a name of 1 to 255 bytes, found {found}"
            )));
        }
        let state = self.state();
        if state.disks.iter().any(|known| known.name == disk.name) {
            return Err(refused(format!("disk {:?} was put already", disk.name)));
        }
        if state.disks.len() >= DISKS_MAX {
            return Err(refused(format!("an image has at most {DISKS_MAX} disks")));
        }
        chunk_count(disk.size_bytes, self.core.config.chunk_size_bytes)
    }

    /// The root of the same disk in the latest image, `None` when there is none that is whole.
    fn previous_root_of(&self, disk: &DiskDraft) -> Result<Option<Arc<Root>>> {
        let known = self.previous_root.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        if let Some((name, root)) = &*known
            && *name == disk.name
        {
            return Ok(root.clone());
        }
        let disks = self.previous.iter().flat_map(|image| &image.disks);
        let root = match disks.into_iter().find(|before| before.name == disk.name) {
            Some(before) => self.previous_root(before)?.map(Arc::new),
            None => None,
        };
        *known = Some((disk.name.clone(), root.clone()));
        Ok(root)
    }
}

const fn refused(problem: String) -> Error {
    Error::Refused {
        what: "a disk",
        problem,
    }
}
