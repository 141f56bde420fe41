// SPDX-License-Identifier: MIT OR Apache-2.0
//! The index: which pack holds a chunk, and where in it. A cache: it can be deleted at any time
//! and is made again from the packs' footers.
//!
//! New entries gather in memory; from time to time they are written as a *run*, an immutable
//! sorted file ([`run`]), and runs of like size are merged into one ([`merge`]). The set of run
//! files is the whole state: each lists the packs that it covers, and a pack that none lists is
//! adopted from its footer. So nothing is lost when a process dies, and several processes may
//! write runs beside each other: an entry that stands in two runs is the same entry.
//!
//! Memory: 8 bytes for each 84 entries, a byte for each entry in the filters ([`filter`]), 56 bytes for
//! each pack, and the entries not yet in a run; about 20 MiB for each TiB in chunks of 64 KiB. Runs
//! that are being merged have no filter.

mod filter;
mod merge;
mod run;
mod view;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use uuid::Uuid;

use crate::chunk::ChunkId;
use crate::crypto::OwnerTag;
use crate::error::{Error, Result};
use crate::pack::{Extent, PackId};
use crate::store::lock::FileLock;
use crate::store::{ListedPack, file};
use run::{Run, RunWriter};
pub(crate) use view::{Numbered, View};

/// More runs than this are merged.
const RUNS_MAX: usize = 8;

/// One entry: a chunk and where it stands; `pack` is a number in a list of packs beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) id: ChunkId,
    pub(crate) pack: u32,
    pub(crate) extent: Extent,
}

/// A pack that the index covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackRecord {
    pub(crate) id: PackId,
    pub(crate) length: u64,
    pub(crate) owner: OwnerTag,
}

/// Where a chunk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: PackId,
    pub(crate) owner: OwnerTag,
    pub(crate) extent: Extent,
}

/// What a pack's footer tells the index.
pub(crate) struct Adopted {
    pub(crate) record: PackRecord,
    pub(crate) entries: Vec<(ChunkId, Extent)>,
}

/// Reads the footers of packs, a result for each.
pub(crate) type AdoptAll<'a> = dyn Fn(&[ListedPack]) -> Vec<Result<Adopted>> + 'a;

/// How many footers are read before they are taken in: at most 24 MiB.
const ADOPTED_AT_ONCE: usize = 32;

/// Entries that are not in a run yet.
#[derive(Debug, Default)]
struct Memory {
    packs: Vec<PackRecord>,
    entries: BTreeSet<Entry>,
}

impl Memory {
    fn add(&mut self, adopted: &Adopted) {
        let known = self.packs.iter().position(|p| p.id == adopted.record.id);
        let pack = known.unwrap_or_else(|| {
            self.packs.push(adopted.record);
            self.packs.len() - 1
        });
        for &(id, extent) in &adopted.entries {
            self.entries.insert(Entry {
                id,
                // Packs are far fewer than entries, and a run has fewer than 2^32 of them.
                pack: pack as u32,
                extent,
            });
        }
    }

    fn find(&self, id: &ChunkId) -> impl Iterator<Item = (PackRecord, Extent)> {
        let first = Entry {
            id: *id,
            pack: 0,
            extent: Extent {
                offset: 0,
                length: 0,
                plain_length: 0,
            },
        };
        let id = *id;
        self.entries
            .range(first..)
            .take_while(move |entry| entry.id == id)
            .map(|entry| (self.packs[entry.pack as usize], entry.extent))
    }
}

#[derive(Debug, Default)]
struct State {
    memory: Memory,
    /// What is being written to a run at this moment.
    flushing: Option<Arc<Memory>>,
    /// Largest first: most of what is looked for is in the first one.
    runs: Vec<Arc<Run>>,
    /// Packs that runs list and the directory does not.
    gone: HashSet<PackId>,
    /// Packs whose footer cannot be read, with their length; not tried again.
    unreadable: HashSet<ListedPack>,
}

impl State {
    fn sort_runs(&mut self) {
        self.runs.sort_by_key(|run| Reverse(run.entry_count()));
    }

    fn covered(&self) -> HashSet<PackId> {
        let in_memory = self.memory.packs.iter().map(|pack| pack.id);
        let flushing = self.flushing.iter().flat_map(|memory| &memory.packs);
        let in_runs = self.runs.iter().flat_map(|run| run.packs());
        let written = flushing.chain(in_runs).map(|pack| pack.id);
        in_memory.chain(written).collect()
    }
}

/// The index of a library, or a set of chunk ids of an upload.
#[derive(Debug)]
pub(crate) struct Index {
    directory: PathBuf,
    flush_at: usize,
    is_writable: bool,
    state: RwLock<State>,
    /// Held while runs are written, so that is done once at a time.
    maintenance: Mutex<()>,
}

impl Index {
    /// Opens what is there; creates the directory where it can.
    ///
    /// `flush_at`: how many entries gather in memory before they are written.
    pub(crate) fn open(directory: &Path, flush_at: usize) -> Result<Self> {
        let is_writable = file::create_directory(directory)
            .and_then(|()| FileLock::try_exclusive(&directory.join("lock")))
            .is_ok();
        let index = Self {
            directory: directory.to_owned(),
            flush_at,
            is_writable,
            state: RwLock::new(State::default()),
            maintenance: Mutex::new(()),
        };
        index.load_runs()?;
        Ok(index)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        // Nothing panics while it holds the lock; the state is whole in any case.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in runs that other processes wrote and forgets those that were merged away.
    fn load_runs(&self) -> Result<()> {
        if !self.directory.is_dir() {
            return Ok(());
        }
        let known: HashSet<PathBuf> = {
            let state = self.read();
            state.runs.iter().map(|run| run.path().to_owned()).collect()
        };
        let mut present = HashSet::new();
        let mut opened = Vec::new();
        for listed in file::list(&self.directory)? {
            if !listed.name.ends_with(".run") {
                continue;
            }
            if !known.contains(&listed.path) {
                match Run::open(&listed.path) {
                    Ok(run) => opened.push(Arc::new(run)),
                    // Merged away since it was listed: the merged one is taken in next time.
                    Err(Error::File { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound => {}
                    Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => {
                        // A cache: what cannot be read is made again from the packs.
                        tracing::warn!(run = %listed.path.display(), "discarding a damaged index run");
                        file::remove(&listed.path)?;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            present.insert(listed.path);
        }
        let mut state = self.write();
        state.runs.retain(|run| present.contains(run.path()));
        for run in opened {
            if !state.runs.iter().any(|known| known.path() == run.path()) {
                state.runs.push(run);
            }
        }
        state.sort_runs();
        Ok(())
    }

    /// Brings the index in line with the packs that exist. `adopt` reads footers, in the same
    /// order; what it refuses is left out; `verify` says why.
    pub(crate) fn sync(&self, packs: &[ListedPack], adopt: &AdoptAll<'_>) -> Result<()> {
        self.load_runs()?;
        let mut new = self.compare(packs);
        new.retain(|pack| !self.read().unreadable.contains(pack));
        for packs in new.chunks(ADOPTED_AT_ONCE) {
            self.take_in(packs, adopt(packs))?;
        }
        Ok(())
    }

    fn take_in(&self, packs: &[ListedPack], adopted: Vec<Result<Adopted>>) -> Result<()> {
        for (&pack, adopted) in packs.iter().zip(adopted) {
            match adopted {
                Ok(adopted) => self.add(&adopted)?,
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                    tracing::warn!(pack = %pack.id, %error, "a pack cannot be indexed");
                    self.write().unreadable.insert(pack);
                }
                // Removed since it was listed.
                Err(Error::PackMissing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes which covered packs are gone or have another length; gives those not covered.
    fn compare(&self, packs: &[ListedPack]) -> Vec<ListedPack> {
        let mut state = self.write();
        let covered = state.covered();
        let present: HashSet<ListedPack> = packs.iter().copied().collect();
        let is_gone = |pack: &&PackRecord| {
            !present.contains(&ListedPack {
                id: pack.id,
                length: pack.length,
            })
        };
        let in_runs = state.runs.iter().flat_map(|run| run.packs());
        let records = state.memory.packs.iter().chain(in_runs);
        let gone = records.filter(is_gone).map(|pack| pack.id).collect();
        state.gone = gone;
        packs
            .iter()
            .filter(|pack| !covered.contains(&pack.id))
            .copied()
            .collect()
    }

    /// Takes in the entries of one pack.
    pub(crate) fn add(&self, adopted: &Adopted) -> Result<()> {
        let is_full = {
            let mut state = self.write();
            state.memory.add(adopted);
            state.memory.entries.len() >= self.flush_at
        };
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Everywhere that a chunk stands.
    pub(crate) fn find_all(&self, id: &ChunkId) -> Result<Vec<Location>> {
        self.search(id, false)
    }

    /// Somewhere that a chunk stands.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Option<Location>> {
        Ok(self.search(id, true)?.into_iter().next())
    }

    fn search(&self, id: &ChunkId, first_only: bool) -> Result<Vec<Location>> {
        let state = self.read();
        let mut found = Vec::new();
        let mut take = |record: PackRecord, extent: Extent| {
            if !state.gone.contains(&record.id) {
                found.push(Location {
                    pack: record.id,
                    owner: record.owner,
                    extent,
                });
            }
        };
        for (record, extent) in state.memory.find(id) {
            take(record, extent);
        }
        if let Some(memory) = &state.flushing {
            for (record, extent) in memory.find(id) {
                take(record, extent);
            }
        }
        for run in &state.runs {
            if first_only && !found.is_empty() {
                break;
            }
            for entry in run.find(id)? {
                let location = run.locate(&entry)?;
                if !state.gone.contains(&location.pack) && !found.contains(&location) {
                    found.push(location);
                }
            }
        }
        Ok(found)
    }

    /// Forgets every run, because one of them turned out to be damaged; the caller syncs.
    pub(crate) fn discard(&self) -> Result<()> {
        let _maintenance = self.maintenance();
        let runs = std::mem::take(&mut self.write().runs);
        for run in runs {
            file::remove(run.path())?;
        }
        Ok(())
    }

    fn maintenance(&self) -> MutexGuard<'_, ()> {
        // It guards no value.
        self.maintenance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is in memory as a run, and merges runs when there are many.
    pub(crate) fn flush(&self) -> Result<()> {
        if !self.is_writable {
            return Ok(());
        }
        let _maintenance = self.maintenance();
        let memory = {
            let mut state = self.write();
            if state.memory.entries.is_empty() {
                return Ok(());
            }
            let memory = Arc::new(std::mem::take(&mut state.memory));
            state.flushing = Some(Arc::clone(&memory));
            memory
        };
        let written = self.write_run(&memory);
        let mut state = self.write();
        state.flushing = None;
        match written {
            Ok(run) => {
                state.runs.push(run);
                state.sort_runs();
            }
            Err(error) => {
                // The entries stay findable; the next flush tries again.
                let newer = std::mem::take(&mut state.memory);
                state.memory = Arc::into_inner(memory).unwrap_or_default();
                let Memory { packs, entries } = newer;
                readd(&mut state.memory, &packs, &entries);
                return Err(error);
            }
        }
        drop(state);
        self.merge_when_many()
    }

    fn write_run(&self, memory: &Memory) -> Result<Arc<Run>> {
        let mut writer = RunWriter::create(&self.new_run_path(), memory.entries.len() as u64)?;
        for entry in &memory.entries {
            writer.append(entry)?;
        }
        Ok(Arc::new(writer.finish(&memory.packs)?))
    }

    fn new_run_path(&self) -> PathBuf {
        self.directory.join(format!("{}.run", Uuid::now_v7()))
    }

    fn merge_when_many(&self) -> Result<()> {
        let (inputs, gone) = {
            let state = self.read();
            if state.runs.len() <= RUNS_MAX {
                return Ok(());
            }
            (merge::choose(&state.runs), state.gone.clone())
        };
        // Another process merges: then it need not be done here.
        let Some(_lock) = FileLock::try_exclusive(&self.directory.join("lock"))? else {
            return Ok(());
        };
        let merged = match merge::merge(&inputs, &gone, &self.new_run_path()) {
            Err(error @ Error::Corrupt { .. }) => {
                // Whoever looks something up in the damaged run has the index made again.
                tracing::warn!(%error, "index runs are not merged");
                return Ok(());
            }
            merged => merged?,
        };
        let mut state = self.write();
        let is_input = |run: &Arc<Run>| inputs.iter().any(|input| Arc::ptr_eq(input, run));
        state.runs.retain(|run| !is_input(run));
        state.runs.extend(merged.map(Arc::new));
        state.sort_runs();
        drop(state);
        for input in &inputs {
            file::remove(input.path())?;
        }
        Ok(())
    }
}

fn readd(memory: &mut Memory, packs: &[PackRecord], entries: &BTreeSet<Entry>) {
    for entry in entries {
        memory.add(&Adopted {
            record: packs[entry.pack as usize],
            entries: vec![(entry.id, entry.extent)],
        });
    }
}

#[cfg(test)]
mod tests;
