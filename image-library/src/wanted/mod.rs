// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the library wants again: copies of chunks that `verify` found damaged, and chunks that no
//! pack has any more. What is known of damage is kept in the library, so that every program heals
//! it, not only the one that found it.
//!
//! ```text
//! verify -> Losses -> records in wanted/ -> Wanted -> uploads do not deduplicate against it
//!                                                  -> ranges that an agent is asked for
//!                                                  -> prunes keep a whole copy, not that one
//! ```
//!
//! Who reads images does without: a reader tries every copy anyway, and finds out by itself.
//!
//! Limits: at most [`CHUNKS_IN_MEMORY_MAX`] chunks are told apart; beyond that a pack with damage is
//! not relied on at all.

mod losses;
mod ranges;
mod record;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chunk::ChunkId;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::index::Location;
use crate::pack::PackId;
use crate::store::{Stored, for_each_object, names};
pub(crate) use losses::Losses;
pub use ranges::{WantedRange, read_again};
pub(crate) use record::Place;
use record::{Lost, Record};

/// How many chunks are held in memory, 32 bytes each.
const CHUNKS_IN_MEMORY_MAX: usize = 1 << 20;
/// How many records are read before they are taken in: at most 32 MiB.
const RECORDS_AT_ONCE: usize = 32;

/// What the records of a library say.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    packs: HashMap<PackId, InPack>,
    /// Chunks that no pack had when they were looked for.
    nowhere: HashSet<ChunkId>,
    chunks: usize,
}

/// What of a pack is not to be relied on.
#[derive(Debug)]
enum InPack {
    All,
    Chunks(HashSet<ChunkId>),
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.nowhere.is_empty()
    }

    /// Whether the copy of a chunk in that pack is damaged.
    pub(crate) fn covers(&self, pack: &PackId, id: &ChunkId) -> bool {
        match self.packs.get(pack) {
            None => false,
            Some(InPack::All) => true,
            Some(InPack::Chunks(chunks)) => chunks.contains(id),
        }
    }

    fn add(&mut self, record: Record) {
        match (record.place, record.lost) {
            (Place::Pack(pack), Lost::All) => {
                self.packs.insert(pack, InPack::All);
            }
            (Place::Pack(pack), Lost::Chunks(chunks)) => {
                let room = CHUNKS_IN_MEMORY_MAX.saturating_sub(self.chunks);
                let is_too_much = chunks.len() > room;
                let empty = || InPack::Chunks(HashSet::new());
                let known = self.packs.entry(pack).or_insert_with(empty);
                if is_too_much {
                    *known = InPack::All;
                } else if let InPack::Chunks(known) = known {
                    self.chunks += chunks.len();
                    known.extend(chunks);
                }
            }
            (Place::Nowhere, Lost::Chunks(chunks)) => {
                let room = CHUNKS_IN_MEMORY_MAX.saturating_sub(self.chunks);
                let before = self.nowhere.len();
                // What does not fit is found missing when its server names it.
                self.nowhere.extend(chunks.into_iter().take(room));
                self.chunks += self.nowhere.len() - before;
            }
            (Place::Nowhere, Lost::All) => {}
        }
    }
}

/// Copies of chunks that nothing is deduplicated against.
#[derive(Debug, Clone, Default)]
pub(crate) struct Avoided {
    /// Packs that are about to be removed.
    pub(crate) condemned: HashSet<PackId>,
    /// Damage that is known.
    pub(crate) wanted: Arc<Wanted>,
}

impl Avoided {
    /// Whether that copy of a chunk is one of them.
    pub(crate) fn covers(&self, id: &ChunkId, copy: &Location) -> bool {
        self.condemned.contains(&copy.pack) || self.wanted.covers(&copy.pack, id)
    }
}

/// The records that were read last, as they were listed, and what they say.
#[derive(Debug, Default)]
pub(crate) struct ReadRecords(Mutex<(Vec<Stored>, Arc<Wanted>)>);

impl ReadRecords {
    /// Held for a moment, and never while the store is used.
    fn lock(&self) -> MutexGuard<'_, (Vec<Stored>, Arc<Wanted>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What these records say, if they are the ones that were read last.
    fn of(&self, listed: &[Stored]) -> Option<Arc<Wanted>> {
        let known = self.lock();
        (known.0 == listed).then(|| Arc::clone(&known.1))
    }
}

impl Core {
    /// What the records say now. They are read again only when others are there.
    pub(crate) fn wanted(&self) -> Result<Arc<Wanted>> {
        let listed = self.store.list(names::WANTED)?;
        if let Some(known) = self.read_records.of(&listed) {
            return Ok(known);
        }
        let mut wanted = Wanted::default();
        for some in listed.chunks(RECORDS_AT_ONCE) {
            let read = |stored: &Stored| self.readable_wanted(&stored.name);
            let records = for_each_object(&*self.store, some, read)?;
            records
                .into_iter()
                .flatten()
                .for_each(|record| wanted.add(record));
        }
        let wanted = Arc::new(wanted);
        *self.read_records.lock() = (listed, Arc::clone(&wanted));
        Ok(wanted)
    }

    /// One record. One that cannot be read keeps nobody from taking an image: nothing in its pack
    /// is relied on.
    fn readable_wanted(&self, name: &str) -> Result<Option<Record>> {
        let Some(place) = names::parse_wanted(name) else {
            return Ok(None);
        };
        match self.read_wanted(name, place) {
            Err(error) if is_unreadable(&error) => {
                tracing::warn!(%error, "nothing is deduplicated against the pack of a record");
                let lost = Lost::All;
                Ok(Some(Record { place, lost }))
            }
            record => record,
        }
    }
}

/// Whether a record is there and what it says is lost.
const fn is_unreadable(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupt { .. }
            | Error::Unsupported { .. }
            | Error::Limit { .. }
            | Error::File { .. }
    )
}

#[cfg(test)]
mod tests;
