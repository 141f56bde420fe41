// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which entries of the index are in use: one bit each, set for everything that an image reaches.
//!
//! Memory: 2 MiB of bits and 256 KiB of visited leaves for each TiB of different data.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use disk::Monitor;

use crate::core::Core;
use crate::document::{Image, ImageDisk};
use crate::error::Result;
use crate::id::ContentHash;
use crate::index::{Numbered, View};
use crate::pack::PackId;
use crate::wanted::Wanted;

/// How much of a pack is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) live_records: u64,
    pub(super) live_bytes: u64,
}

/// What is in use.
#[derive(Debug)]
pub(super) struct Marks<'a> {
    core: &'a Core,
    view: &'a View,
    /// Copies in these are used only when there is no other.
    condemned: &'a HashSet<PackId>,
    /// Copies that are known to be damaged: only when there is no whole one at all.
    wanted: Arc<Wanted>,
    bits: Vec<u64>,
    leaves: HashSet<[u8; 16]>,
    /// Chunks that an image names and no pack has.
    pub(super) missing: u64,
}

impl<'a> Marks<'a> {
    pub(super) fn new(
        core: &'a Core,
        view: &'a View,
        condemned: &'a HashSet<PackId>,
    ) -> Result<Self> {
        Ok(Self {
            core,
            view,
            condemned,
            wanted: core.wanted()?,
            bits: vec![0; view.numbers().div_ceil(64) as usize],
            leaves: HashSet::new(),
            missing: 0,
        })
    }

    /// Marks everything that these images reach. A damaged manifest is an error: what it names
    /// would be taken for unused.
    pub(super) fn mark(&mut self, images: &[Image], monitor: &dyn Monitor) -> Result<()> {
        for image in images {
            for disk in &image.disks {
                self.mark_disk(image, disk)?;
            }
            monitor.advance(1);
        }
        Ok(())
    }

    fn mark_disk(&mut self, image: &Image, disk: &ImageDisk) -> Result<()> {
        let place = format!("image {}, disk {:?}", image.id, disk.name);
        let root = self.core.read_root(&disk.manifest, &place)?;
        if let Ok(hash) = blake3::Hash::from_hex(&disk.manifest) {
            self.mark_chunk(&ContentHash::from_bytes(*hash.as_bytes()))?;
        }
        for (number, leaf) in root.leaves.iter().enumerate() {
            let Some(leaf) = leaf else { continue };
            // Half a hash: two leaves that agree in it do not occur, and it is half the memory.
            let mut key = [0; 16];
            key.copy_from_slice(&leaf.as_bytes()[..16]);
            if !self.leaves.insert(key) {
                continue;
            }
            self.mark_chunk(leaf)?;
            for hash in self.core.read_leaf(&root, number, &place)?.iter().flatten() {
                self.mark_chunk(hash)?;
            }
        }
        Ok(())
    }

    fn mark_chunk(&mut self, hash: &ContentHash) -> Result<()> {
        let id = self.core.key.chunk_id(hash);
        let found = self.view.find(&id)?;
        // A whole copy that is condemned is spared rather than a damaged one kept.
        let rank = |numbered: &&Numbered| {
            let copy = &numbered.location;
            let is_damaged = !self.core.is_sound(&id, copy) || self.wanted.covers(&copy.pack, &id);
            (is_damaged, self.condemned.contains(&copy.pack))
        };
        let Some(chosen) = found.iter().min_by_key(rank) else {
            self.missing += 1;
            return Ok(());
        };
        // The same record may stand in two runs of the index.
        for same in found
            .iter()
            .filter(|other| other.location == chosen.location)
        {
            self.bits[(same.number / 64) as usize] |= 1 << (same.number % 64);
        }
        Ok(())
    }

    /// How much of each pack is in use.
    pub(super) fn packs(&self) -> Result<HashMap<PackId, Use>> {
        let mut packs: HashMap<PackId, Use> = HashMap::new();
        self.view.each(|_, numbered| {
            let length = u64::from(numbered.location.extent.length);
            let found = packs.entry(numbered.location.pack).or_default();
            found.records += 1;
            found.bytes += length;
            if self.is_marked(numbered.number) {
                found.live_records += 1;
                found.live_bytes += length;
            }
            Ok(())
        })?;
        Ok(packs)
    }

    fn is_marked(&self, number: u64) -> bool {
        self.bits[(number / 64) as usize] >> (number % 64) & 1 == 1
    }
}
