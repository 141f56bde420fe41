// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one `verify` found to be lost, and how it becomes records.
//!
//! A record of a pack stays as long as the pack does. That everything it names has a whole copy
//! elsewhere is no reason to remove it: a prune that did not know of the damage might keep the
//! damaged copy and remove the whole one. So a record goes only when its pack is gone, or when a
//! verify that began after it has read the pack again and says itself what is damaged there.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::record::{CHUNKS_MAX, Lost, Place, Record};
use super::{CHUNKS_IN_MEMORY_MAX, is_unreadable};
use crate::chunk::ChunkId;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::pack::PackId;
use crate::store::names;

/// What was found, and what was known before.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    packs: BTreeMap<PackId, Lost>,
    nowhere: BTreeSet<ChunkId>,
    chunks: usize,
    /// The names of the records that were there at the beginning.
    before: BTreeMap<Place, Vec<String>>,
    /// Packs with records that were read again since.
    read: HashSet<PackId>,
    /// Every image was looked through since.
    has_seen_images: bool,
}

impl Losses {
    /// Begins, before anything is read.
    pub(crate) fn begin(core: &Core) -> Result<Self> {
        let mut losses = Self::default();
        for stored in core.store.list(names::WANTED)? {
            if let Some(place) = names::parse_wanted(&stored.name) {
                losses.before.entry(place).or_default().push(stored.name);
            }
        }
        Ok(losses)
    }

    /// Nothing in this pack is to be relied on.
    pub(crate) fn lose_pack(&mut self, pack: PackId) {
        self.packs.insert(pack, Lost::All);
    }

    /// The copy of a chunk in this pack is damaged.
    pub(crate) fn lose_copy(&mut self, pack: PackId, id: ChunkId) {
        let is_full = self.chunks >= CHUNKS_IN_MEMORY_MAX;
        let none = || Lost::Chunks(BTreeSet::new());
        let lost = self.packs.entry(pack).or_insert_with(none);
        let Lost::Chunks(chunks) = lost else { return };
        if is_full || chunks.len() >= CHUNKS_MAX {
            *lost = Lost::All;
        } else {
            self.chunks += usize::from(chunks.insert(id));
        }
    }

    /// A chunk cannot be given back: which copies are damaged is noted, or that there is none.
    pub(crate) fn lose(&mut self, core: &Core, id: &ChunkId) -> Result<()> {
        let has_copies = self.lose_copies(core, id)?;
        if !has_copies && self.chunks < CHUNKS_IN_MEMORY_MAX {
            self.chunks += usize::from(self.nowhere.insert(*id));
        }
        Ok(())
    }

    /// The same of a chunk that is given back by other means. `false` when it has no copy.
    pub(crate) fn lose_copies(&mut self, core: &Core, id: &ChunkId) -> Result<bool> {
        let copies = core.find_all(id)?;
        for copy in copies.iter().filter(|copy| !core.is_sound(id, copy)) {
            self.lose_copy(copy.pack, *id);
        }
        Ok(!copies.is_empty())
    }

    /// All of a pack was read again.
    pub(crate) fn note_read(&mut self, pack: PackId) {
        if self.before.contains_key(&Place::Pack(pack)) {
            self.read.insert(pack);
        }
    }

    /// Every image was looked through: what none of them lacks is not wanted any more.
    pub(crate) const fn note_images(&mut self) {
        self.has_seen_images = true;
    }

    /// The records that were there at the beginning and cannot be read.
    pub(crate) fn unreadable(&self, core: &Core) -> Result<Vec<(String, Error)>> {
        let mut found = Vec::new();
        for (place, names) in &self.before {
            for name in names {
                match core.read_wanted(name, *place) {
                    Err(error) if is_unreadable(&error) => found.push((name.clone(), error)),
                    other => drop(other?),
                }
            }
        }
        Ok(found)
    }

    /// Writes the records, then removes those that these replace or whose pack is gone.
    pub(crate) fn publish(&self, core: &Core) -> Result<()> {
        let mut written = HashSet::new();
        for record in self.records() {
            if !self.is_known(core, &record)? {
                written.insert(core.write_wanted(&record)?);
            }
        }
        for (place, names) in &self.before {
            let is_gone = match place {
                Place::Pack(pack) => !core.store.exists(&names::pack(pack))?,
                Place::Nowhere => false,
            };
            if !is_gone && !self.is_replaced(*place) {
                continue;
            }
            for name in names.iter().filter(|name| !written.contains(*name)) {
                core.store.remove(name)?;
            }
        }
        Ok(())
    }

    /// Whether all that can be said of a place was found again, or not any more.
    fn is_replaced(&self, place: Place) -> bool {
        match place {
            Place::Pack(pack) => self.read.contains(&pack),
            Place::Nowhere => self.has_seen_images,
        }
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        let in_packs = self.packs.iter().map(|(pack, lost)| Record {
            place: Place::Pack(*pack),
            lost: lost.clone(),
        });
        let nowhere: Vec<ChunkId> = self.nowhere.iter().copied().collect();
        let pieces = nowhere.chunks(CHUNKS_MAX).map(|piece| Record {
            place: Place::Nowhere,
            lost: Lost::Chunks(piece.iter().copied().collect()),
        });
        in_packs.chain(pieces.collect::<Vec<_>>())
    }

    /// Whether a record that stays says the same or more.
    fn is_known(&self, core: &Core, new: &Record) -> Result<bool> {
        if self.is_replaced(new.place) {
            return Ok(false);
        }
        for name in self.before.get(&new.place).into_iter().flatten() {
            match core.read_wanted(name, new.place) {
                Ok(Some(old)) if is_part(&new.lost, &old.lost) => return Ok(true),
                Err(error) if !is_unreadable(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(false)
    }
}

fn is_part(new: &Lost, old: &Lost) -> bool {
    match (new, old) {
        (_, Lost::All) => true,
        (Lost::All, Lost::Chunks(_)) => false,
        (Lost::Chunks(new), Lost::Chunks(old)) => new.is_subset(old),
    }
}

impl Core {
    /// Forgets what is known of packs that are gone for good.
    pub(crate) fn forget_wanted(&self, packs: &HashSet<PackId>) -> Result<()> {
        for stored in self.store.list(names::WANTED)? {
            if let Some(Place::Pack(pack)) = names::parse_wanted(&stored.name)
                && packs.contains(&pack)
            {
                self.store.remove(&stored.name)?;
            }
        }
        Ok(())
    }
}
