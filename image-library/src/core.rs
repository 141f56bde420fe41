// SPDX-License-Identifier: MIT OR Apache-2.0
//! An open library: its key, its index, its packs; and how a blob is found and read.
//!
//! A chunk may stand in several packs (two servers sent it at the same time, or it was sent again
//! after damage): when one copy is damaged, the others are tried.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

use crate::cache::Cache;
use crate::chunk::ChunkId;
use crate::config::Config;
use crate::crypto::{LibraryKey, OwnerTag};
use crate::error::{Error, Result};
use crate::id::ContentHash;
use crate::index::{Adopted, Index, Location, PackRecord};
use crate::key_file::{self, KeyAccess};
use crate::manifest::{Root, leaf_from_bytes, leaf_length};
use crate::pack::{OpenPack, PackId};
use crate::store::{Conditional, ListedPack, Store, Workspace, for_each_object, list_packs, names};
use crate::surroundings::{Machine, Surroundings};
use crate::wanted::{Avoided, ReadRecords};

/// How many packs stay open.
const OPEN_PACKS_MAX: usize = 64;
/// Chunks that were read and may be wanted again, in bytes.
const CHUNK_CACHE_LENGTH: usize = 32 << 20;
/// Index entries that gather in memory: about 2 MiB, 2 GiB of disk.
const INDEX_FLUSH_AT: usize = 1 << 15;

/// The owner of a pack whose footer cannot be read.
const NOBODY: OwnerTag = OwnerTag([0; 16]);
/// Damaged records that are remembered; with more, the library is to be replaced, not healed.
const DAMAGED_MAX: usize = 1 << 20;

/// Copies of chunks that turned out to be damaged since the library was opened. Nothing is
/// deduplicated against them, so that what is sent again heals the library. What `verify` finds
/// is kept for other programs too: see [`Wanted`](crate::wanted::Wanted).
#[derive(Debug, Default)]
struct Damaged {
    records: HashSet<(PackId, ChunkId)>,
    packs: HashSet<PackId>,
}

/// What every part of an open library shares.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) workspace: Workspace,
    pub(crate) config: Config,
    pub(crate) key: LibraryKey,
    pub(crate) index: Index,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) surroundings: Arc<dyn Surroundings>,
    pub(crate) read_records: ReadRecords,
    packs: Cache<PackId, Arc<OpenPack>>,
    chunks: Cache<ChunkId, Arc<[u8]>>,
    damaged: RwLock<Damaged>,
}

impl Core {
    pub(crate) fn open(
        store: Arc<dyn Store>,
        workspace: Workspace,
        access: &KeyAccess,
        clock: fn() -> Timestamp,
    ) -> Result<Self> {
        let config = Config::read(&*store)?;
        let key = key_file::read(&config, &*store, access)?;
        // Copies of a library often come without its empty directories. A medium that cannot be
        // written is read all the same; what needs them says so.
        let _ = workspace.create();
        let index = Index::open(&workspace.index(), INDEX_FLUSH_AT)?;
        let core = Self {
            store,
            workspace,
            config,
            key,
            index,
            clock,
            surroundings: Arc::new(Machine),
            read_records: ReadRecords::default(),
            packs: Cache::new(OPEN_PACKS_MAX),
            chunks: Cache::new(CHUNK_CACHE_LENGTH),
            damaged: RwLock::default(),
        };
        core.sync_index()?;
        Ok(core)
    }

    /// Compare-and-swap, where this library's store has it and honours it.
    pub(crate) fn conditional(&self) -> Option<&dyn Conditional> {
        let is_honoured = self.config.conditional_writes == Some(true);
        self.store.conditional().filter(|_| is_honoured)
    }

    /// Brings the index in line with the packs that exist now.
    pub(crate) fn sync_index(&self) -> Result<()> {
        let packs = list_packs(&*self.store)?;
        self.index.sync(&packs, &|packs| {
            let adopted = for_each_object(&*self.store, packs, |pack| Ok(self.adopt(pack)));
            // The work of each gives its own error.
            adopted.unwrap_or_default()
        })
    }

    fn adopt(&self, listed: &ListedPack) -> Result<Adopted> {
        let pack = self.open_pack(listed.id)?;
        let (owner, entries) = match pack.footer() {
            Ok(footer) => (footer.owner, footer.entries),
            Err(error @ Error::Corrupt { .. }) => {
                tracing::warn!(%error, "a pack's records are read from the front");
                (NOBODY, pack.scan(&self.key)?)
            }
            Err(error) => return Err(error),
        };
        Ok(Adopted {
            record: PackRecord {
                id: listed.id,
                length: pack.length(),
                owner,
            },
            entries: entries.iter().map(|e| (e.id, e.extent)).collect(),
        })
    }

    /// Opens a pack, or gives the one that is open.
    pub(crate) fn open_pack(&self, id: PackId) -> Result<Arc<OpenPack>> {
        if let Some(pack) = self.packs.get(&id) {
            return Ok(pack);
        }
        let name = names::pack(&id);
        let object = self.store.open(&name)?.ok_or_else(|| Error::PackMissing {
            place: self.store.place(&name),
        })?;
        let pack = OpenPack::open(object, id, &self.key, *self.config.id.as_bytes())?;
        let pack = Arc::new(pack);
        self.packs.insert(id, Arc::clone(&pack), 1);
        Ok(pack)
    }

    /// Where a chunk stands; looks for packs of other programs before it says `None`.
    pub(crate) fn locate(&self, id: &ChunkId) -> Result<Option<Location>> {
        if let Some(location) = self.find(id)? {
            return Ok(Some(location));
        }
        self.sync_index()?;
        let whole = self.find(id)?;
        // A damaged copy is better than none: reading it says what is wrong, and where.
        whole.map_or_else(
            || Ok(self.find_all(id)?.into_iter().next()),
            |whole| Ok(Some(whole)),
        )
    }

    /// Where a chunk stands, as far as the index knows now; copies known to be damaged do not
    /// count. A damaged index is made again.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Option<Location>> {
        let found = self.with_index(|index| index.find(id))?;
        match found {
            Some(location) if self.is_damaged(id, &location) => {
                let mut others = self.find_all(id)?.into_iter();
                Ok(others.find(|location| !self.is_damaged(id, location)))
            }
            found => Ok(found),
        }
    }

    /// The same, and copies that are avoided do not count either.
    pub(crate) fn find_outside(&self, id: &ChunkId, avoided: &Avoided) -> Result<Option<Location>> {
        match self.find(id)? {
            Some(location) if avoided.covers(id, &location) => {
                let mut others = self.find_all(id)?.into_iter();
                Ok(others.find(|other| !avoided.covers(id, other) && !self.is_damaged(id, other)))
            }
            found => Ok(found),
        }
    }

    /// Everywhere that a chunk stands, damaged or not.
    pub(crate) fn find_all(&self, id: &ChunkId) -> Result<Vec<Location>> {
        self.with_index(|index| index.find_all(id))
    }

    fn with_index<T>(&self, ask: impl Fn(&Index) -> Result<T>) -> Result<T> {
        match ask(&self.index) {
            Err(error @ Error::Corrupt { .. }) => {
                tracing::warn!(%error, "the index is damaged and is made again");
                self.index.discard()?;
                self.sync_index()?;
                ask(&self.index)
            }
            answer => answer,
        }
    }

    /// Whether nothing is known against a copy of a chunk.
    pub(crate) fn is_sound(&self, id: &ChunkId, location: &Location) -> bool {
        !self.is_damaged(id, location)
    }

    fn is_damaged(&self, id: &ChunkId, location: &Location) -> bool {
        let damaged = self.damaged.read().unwrap_or_else(PoisonError::into_inner);
        damaged.packs.contains(&location.pack) || damaged.records.contains(&(location.pack, *id))
    }

    /// Remembers that a copy of a chunk is damaged.
    pub(crate) fn note_damaged_record(&self, pack: PackId, id: ChunkId) {
        let mut damaged = self.damaged.write().unwrap_or_else(PoisonError::into_inner);
        if damaged.records.len() < DAMAGED_MAX {
            damaged.records.insert((pack, id));
        }
    }

    /// Remembers that a pack is damaged beyond single records.
    pub(crate) fn note_damaged_pack(&self, pack: PackId) {
        let mut damaged = self.damaged.write().unwrap_or_else(PoisonError::into_inner);
        damaged.packs.insert(pack);
    }

    /// Reads one record and checks it.
    pub(crate) fn read_at(&self, id: &ChunkId, location: &Location) -> Result<Vec<u8>> {
        let plain = self.try_read_at(id, location);
        if matches!(plain, Err(Error::Corrupt { .. })) {
            self.note_damaged_record(location.pack, *id);
        }
        plain
    }

    fn try_read_at(&self, id: &ChunkId, location: &Location) -> Result<Vec<u8>> {
        let pack = self.open_pack(location.pack).inspect_err(|error| {
            // Nothing in a pack whose header is damaged can be read.
            if matches!(error, Error::Corrupt { .. }) {
                self.note_damaged_pack(location.pack);
            }
        })?;
        let extent = &location.extent;
        let mut record = vec![0; extent.length as usize];
        pack.read_raw(u64::from(extent.offset), &mut record)?;
        let mut plain = vec![0; extent.plain_length as usize];
        pack.open_record(&self.key, id, extent, &mut record, &mut plain)?;
        Ok(plain)
    }

    /// Reads a blob from wherever it is whole.
    pub(crate) fn read_blob(&self, id: &ChunkId) -> Result<Vec<u8>> {
        let Some(first) = self.locate(id)? else {
            return Err(Error::ChunkMissing {
                chunk: id.to_string(),
            });
        };
        self.read_at(id, &first)
            .or_else(|error| self.read_other_copy(id, &first, error))
    }

    /// Tries the copies of a blob besides `damaged`; `error` when none is whole.
    pub(crate) fn read_other_copy(
        &self,
        id: &ChunkId,
        damaged: &Location,
        error: Error,
    ) -> Result<Vec<u8>> {
        if matches!(error, Error::PackMissing { .. }) {
            // Another machine pruned: what is in use of a pack was sent again before.
            self.sync_index()?;
        }
        for location in self.find_all(id)? {
            if location == *damaged {
                continue;
            }
            if let Ok(plain) = self.read_at(id, &location) {
                tracing::warn!(chunk = %id, %error, "another copy of a chunk was used");
                return Ok(plain);
            }
        }
        Err(error)
    }

    /// A chunk that was read before.
    pub(crate) fn cached(&self, id: &ChunkId) -> Option<Arc<[u8]>> {
        self.chunks.get(id)
    }

    /// Keeps a chunk for the next reader.
    pub(crate) fn cache(&self, id: ChunkId, plain: Arc<[u8]>) {
        let weight = plain.len();
        self.chunks.insert(id, plain, weight);
    }

    /// The root of a manifest; `place` names image and disk.
    pub(crate) fn read_root(&self, manifest: &str, place: &str) -> Result<Root> {
        let hash = blake3::Hash::from_hex(manifest).map_err(|_| {
            let problem = format!("expected a hash as the manifest, found {manifest:?}");
            Error::corrupt("image document", place, 0, problem)
        })?;
        let id = self
            .key
            .chunk_id(&ContentHash::from_bytes(*hash.as_bytes()));
        let bytes = self.read_blob(&id)?;
        Root::from_bytes(&bytes, self.config.chunk_size_bytes, place)
    }

    /// The entries of one leaf of a manifest.
    pub(crate) fn read_leaf(
        &self,
        root: &Root,
        leaf: usize,
        place: &str,
    ) -> Result<Vec<Option<ContentHash>>> {
        let entries = root.leaf_entries(leaf);
        let Some(hash) = root.leaves.get(leaf).copied().flatten() else {
            return Ok(vec![None; entries]);
        };
        let bytes = self.read_blob(&self.key.chunk_id(&hash))?;
        if bytes.len() != leaf_length(entries) {
            let expected = leaf_length(entries);
            let problem = format!("expected {expected} bytes, found {}", bytes.len());
            return Err(Error::corrupt("manifest leaf", place, 0, problem));
        }
        Ok(leaf_from_bytes(&bytes))
    }
}
