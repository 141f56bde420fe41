// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk's hashes on their way into an upload, in order, a leaf at a time.

use std::sync::{Arc, Mutex, PoisonError};

use crate::access::{DiskHashes, Upload};
use crate::document::DiskDraft;
use crate::error::Result;
use crate::id::ContentHash;
use crate::manifest::{LEAF_CHUNKS, leaf_to_bytes};

/// The entries of one leaf.
type Entries = Arc<Vec<Option<ContentHash>>>;

/// Leaves that are kept: workers that go through a disk together are never further apart.
const RECENT_MAX: usize = 4;

/// The hashes of a disk's last image, of which a few leaves are kept.
#[derive(Debug)]
pub(crate) struct RecentLeaves {
    hashes: Arc<dyn DiskHashes>,
    recent: Mutex<Vec<(u64, Entries)>>,
}

impl RecentLeaves {
    pub(crate) fn new(hashes: Arc<dyn DiskHashes>) -> Self {
        Self {
            hashes,
            recent: Mutex::default(),
        }
    }

    /// The entries of a leaf. Who asks for the same one meanwhile waits for it.
    pub(crate) fn leaf(&self, number: u64) -> Result<Entries> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, entries)) = recent.iter().find(|(known, _)| *known == number) {
            return Ok(Arc::clone(entries));
        }
        let entries = Arc::new(self.hashes.leaf(number)?);
        if recent.len() >= RECENT_MAX {
            recent.remove(0);
        }
        recent.push((number, Arc::clone(&entries)));
        Ok(entries)
    }
}

/// Puts the manifest of one disk into an upload, from the hashes of its chunks in order.
///
/// What it holds is one leaf and a hash for each leaf, 256 KiB for 1 TiB in chunks of 64 KiB. A
/// leaf that is as it was in the server's latest image is named, not sent.
#[derive(Debug)]
pub struct DiskWriter<'a> {
    upload: &'a dyn Upload,
    disk: &'a DiskDraft,
    previous: Option<Arc<RecentLeaves>>,
    entries: Vec<Option<ContentHash>>,
    leaves: Vec<Option<ContentHash>>,
}

impl<'a> DiskWriter<'a> {
    /// For a disk of an upload; every leaf is sent.
    #[must_use]
    pub fn new(upload: &'a dyn Upload, disk: &'a DiskDraft) -> Self {
        Self::with_previous(upload, disk, None)
    }

    pub(crate) fn with_previous(
        upload: &'a dyn Upload,
        disk: &'a DiskDraft,
        previous: Option<Arc<RecentLeaves>>,
    ) -> Self {
        Self {
            upload,
            disk,
            previous,
            entries: Vec::with_capacity(LEAF_CHUNKS),
            leaves: Vec::new(),
        }
    }

    /// Adds the hashes of the chunks that follow, `None` where a chunk is all zeros. The library
    /// has these chunks by now.
    pub fn push(&mut self, hashes: &[Option<ContentHash>]) -> Result<()> {
        let mut hashes = hashes;
        while !hashes.is_empty() {
            let room = LEAF_CHUNKS - self.entries.len();
            let (now, later) = hashes.split_at(room.min(hashes.len()));
            self.entries.extend_from_slice(now);
            hashes = later;
            if self.entries.len() == LEAF_CHUNKS {
                self.finish_leaf()?;
            }
        }
        Ok(())
    }

    /// Sets the disk, of which every chunk was named.
    pub fn finish(mut self) -> Result<()> {
        if !self.entries.is_empty() {
            self.finish_leaf()?;
        }
        self.upload.put_disk(self.disk, &self.leaves)
    }

    fn finish_leaf(&mut self) -> Result<()> {
        let number = self.leaves.len() as u64;
        if self.entries.iter().all(Option::is_none) {
            self.leaves.push(None);
        } else {
            let hash = ContentHash::of(&leaf_to_bytes(&self.entries));
            let is_known = match &self.previous {
                Some(previous) => *previous.leaf(number)? == self.entries,
                None => false,
            };
            if !is_known {
                self.upload.put_leaf(self.disk, number, &self.entries)?;
            }
            self.leaves.push(Some(hash));
        }
        self.entries.clear();
        Ok(())
    }
}
