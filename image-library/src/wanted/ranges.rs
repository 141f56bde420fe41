// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which parts of a server's disks are wanted again: those of its latest image whose chunks have no
//! copy that is whole.
//!
//! As long as there are no records, nothing of the image is read. Where there are, the manifests of
//! the image are looked through, and no chunk is.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Avoided, InPack};
use crate::access::DiskHashes;
use crate::chunk::ChunkId;
use crate::core::Core;
use crate::document::ImageDisk;
use crate::error::Result;
use crate::id::{ContentHash, ImageId, ServerName};
use crate::manifest::{LEAF_CHUNKS, chunk_count};
use crate::stored_hashes::LOST;

/// The most ranges of one answer but for one more of each disk. With more, the last one of a disk
/// reaches over what lies between: what is there already is not sent, it is only asked for.
const RANGES_MAX: usize = 8192;

/// Neighbouring chunks of a disk that a library wants again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedRange {
    /// The disk's name.
    pub disk: String,
    /// The first chunk.
    pub first_chunk: u64,
    /// How many.
    pub chunk_count: u64,
}

/// Which chunks are wanted.
struct Missing<'a> {
    core: &'a Core,
    avoided: Avoided,
    /// `None`: each chunk is looked up, because of some pack it is not known what is in it.
    chunks: Option<HashSet<ChunkId>>,
}

impl Core {
    /// What the library wants again of a server's disks, in order.
    pub(crate) fn wanted_ranges(&self, server: &ServerName) -> Result<Vec<WantedRange>> {
        let wanted = self.wanted()?;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        self.sync_index()?;
        let condemned = self.pruned()?.condemned;
        let missing = Missing::new(self, Avoided { condemned, wanted })?;
        let mut ranges = Vec::new();
        if missing.chunks.as_ref().is_some_and(HashSet::is_empty) {
            return Ok(ranges);
        }
        for disk in self
            .latest_image(server)?
            .iter()
            .flat_map(|image| &image.disks)
        {
            missing.of_disk(disk, &mut ranges)?;
        }
        Ok(ranges)
    }
}

impl<'a> Missing<'a> {
    fn new(core: &'a Core, avoided: Avoided) -> Result<Self> {
        let mut missing = Self {
            core,
            avoided,
            chunks: None,
        };
        let wanted = Arc::clone(&missing.avoided.wanted);
        let mut chunks = HashSet::new();
        for pack in wanted.packs.values() {
            let InPack::Chunks(lost) = pack else {
                return Ok(missing);
            };
            missing.retain(lost, &mut chunks)?;
        }
        missing.retain(&wanted.nowhere, &mut chunks)?;
        missing.chunks = Some(chunks);
        Ok(missing)
    }

    /// Takes those that have no whole copy.
    fn retain(&self, lost: &HashSet<ChunkId>, chunks: &mut HashSet<ChunkId>) -> Result<()> {
        for id in lost {
            if self.core.find_outside(id, &self.avoided)?.is_none() {
                chunks.insert(*id);
            }
        }
        Ok(())
    }

    fn is_wanted(&self, hash: &ContentHash) -> Result<bool> {
        let id = self.core.key.chunk_id(hash);
        match &self.chunks {
            Some(chunks) => Ok(chunks.contains(&id)),
            None => Ok(self.core.find_outside(&id, &self.avoided)?.is_none()),
        }
    }

    fn of_disk(&self, disk: &ImageDisk, ranges: &mut Vec<WantedRange>) -> Result<()> {
        let count = chunk_count(disk.size_bytes, self.core.config.chunk_size_bytes)?;
        let root = match self.core.read_root(&disk.manifest, &disk.name) {
            Ok(root) => root,
            Err(error) if error.is_damage() => {
                push(ranges, &disk.name, 0..count);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for (number, hash) in root.leaves.iter().enumerate() {
            let Some(hash) = hash else { continue };
            let first = number as u64 * LEAF_CHUNKS as u64;
            let leaf = match self.core.read_leaf(&root, number, &disk.name) {
                Ok(entries) => (!self.is_wanted(hash)?).then_some(entries),
                Err(error) if error.is_damage() => None,
                Err(error) => return Err(error),
            };
            let Some(entries) = leaf else {
                // Who puts a leaf again names all its chunks.
                let end = first + root.leaf_entries(number) as u64;
                push(ranges, &disk.name, first..end);
                continue;
            };
            for (chunk, hash) in (first..).zip(&entries) {
                if let Some(hash) = hash
                    && self.is_wanted(hash)?
                {
                    push(ranges, &disk.name, chunk..chunk + 1);
                }
            }
        }
        Ok(())
    }
}

fn push(ranges: &mut Vec<WantedRange>, disk: &str, chunks: Range<u64>) {
    let is_full = ranges.len() >= RANGES_MAX;
    if let Some(last) = ranges.last_mut().filter(|last| last.disk == disk) {
        let end = last.first_chunk + last.chunk_count;
        if end == chunks.start || is_full {
            last.chunk_count = chunks.end - last.first_chunk;
            return;
        }
    }
    ranges.push(WantedRange {
        disk: disk.to_owned(),
        first_chunk: chunks.start,
        chunk_count: chunks.end - chunks.start,
    });
}

/// Hashes that somebody kept of a disk, but for the chunks that the library wants again: those are
/// told as lost, so that they are sent although nothing changed.
#[must_use]
pub fn read_again(
    hashes: Arc<dyn DiskHashes>,
    disk: &str,
    wanted: &[WantedRange],
) -> Arc<dyn DiskHashes> {
    let wanted = wanted.iter().filter(|range| range.disk == disk);
    let ranges: Vec<Range<u64>> = wanted
        .map(|range| range.first_chunk..range.first_chunk.saturating_add(range.chunk_count))
        .collect();
    if ranges.is_empty() {
        return hashes;
    }
    Arc::new(ReadAgain { hashes, ranges })
}

/// Hashes of which some are not believed.
#[derive(Debug)]
struct ReadAgain {
    hashes: Arc<dyn DiskHashes>,
    ranges: Vec<Range<u64>>,
}

impl DiskHashes for ReadAgain {
    fn image(&self) -> ImageId {
        self.hashes.image()
    }

    fn chunk_size_bytes(&self) -> u32 {
        self.hashes.chunk_size_bytes()
    }

    fn chunk_count(&self) -> u64 {
        self.hashes.chunk_count()
    }

    fn leaf(&self, number: u64) -> Result<Vec<Option<ContentHash>>> {
        let mut hashes = self.hashes.leaf(number)?;
        let first = number.saturating_mul(LEAF_CHUNKS as u64);
        let end = first.saturating_add(hashes.len() as u64);
        for range in &self.ranges {
            let (from, to) = (range.start.max(first), range.end.min(end));
            if from < to {
                let inside = &mut hashes[(from - first) as usize..(to - first) as usize];
                inside.iter_mut().flatten().for_each(|hash| *hash = LOST);
            }
        }
        Ok(hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_ranges_than_fit_become_one_that_reaches_over_the_rest() {
        let chunks = 3 * RANGES_MAX as u64;
        let mut ranges = Vec::new();
        for chunk in (0..chunks).filter(|chunk| chunk % 2 == 0) {
            push(&mut ranges, "sda", chunk..chunk + 1);
        }
        push(&mut ranges, "sdb", 7..9);
        assert_eq!(ranges.len(), RANGES_MAX + 1);
        let last = &ranges[RANGES_MAX - 1];
        assert_eq!(last.first_chunk, 2 * (RANGES_MAX as u64 - 1));
        assert_eq!(last.first_chunk + last.chunk_count, chunks - 1);
    }
}
