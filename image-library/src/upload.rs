// SPDX-License-Identifier: MIT OR Apache-2.0
//! The upload of one image into a library directory.
//!
//! Chunks are checked and sealed into a pack in the order in which they come; full packs are made
//! durable and named by a thread of their own while the next one fills. The commit waits for
//! them, then creates the image's document.
//!
//! What an upload may name without sending it: chunks in packs that this server's uploads wrote
//! (so also those of an interrupted one), chunks that this upload or an interrupted one sent and
//! that stood in another server's pack already, and what the server's latest image has at the
//! same place or anywhere. Another server's chunks cannot be probed for.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use uuid::{NoContext, Uuid};

use crate::access::{ChunkState, ChunkUpload, Upload, UploadTarget};
use crate::chunk::{CheckedChunk, ChunkId, check_upload};
use crate::core::Core;
use crate::crypto::OwnerTag;
use crate::document::{DiskDraft, Image, ImageDisk, ImageDraft};
use crate::error::{Error, Result};
use crate::id::{ContentHash, DiskIndex, ImageId, ServerName};
use crate::index::{Adopted, Location, PackRecord};
use crate::manifest::{LEAF_ENTRIES, Root, chunk_count, chunk_length, leaf_count, leaf_to_bytes};
use crate::pack::{BlobKind, FinishedPack, PackOrigin, PackWriter};
use crate::prune::Pruned;
use crate::session::Session;
use crate::store::lock::FileLock;
use crate::store::names;

/// The most disks of one image.
const DISKS_MAX: usize = 1024;

/// Chunks that are in a pack which the index does not know yet, with their plain lengths.
type Pending = HashMap<ChunkId, u32>;

/// An upload into a library directory.
#[derive(Debug)]
pub(crate) struct LocalUpload {
    core: Arc<Core>,
    server: ServerName,
    owner: OwnerTag,
    previous: Option<Image>,
    /// What had been pruned when it began.
    pruned: Pruned,
    /// Held by every upload; whoever removes packs must hold it alone.
    _writers: FileLock,
    session: Session,
    state: Mutex<State>,
    finisher: Mutex<Option<Finisher>>,
    /// Shared with the finishing thread.
    pending: Arc<Mutex<Pending>>,
}

#[derive(Debug, Default)]
struct State {
    pack: Option<PackWriter>,
    pack_number: u64,
    /// Something could not be stored: what this upload holds is not whole any more.
    has_failed: bool,
    disks: Vec<ImageDisk>,
    stored_bytes: u64,
}

/// The thread that makes packs durable.
#[derive(Debug)]
struct Finisher {
    packs: SyncSender<PackWriter>,
    thread: JoinHandle<Result<()>>,
}

impl LocalUpload {
    pub(crate) fn begin(core: Arc<Core>, target: &UploadTarget) -> Result<Self> {
        let writers = FileLock::shared(&core.workspace.lock("writers"))?;
        // Before the packs are listed: those of a list that is dealt with are gone by then.
        let pruned = core.pruned()?;
        core.sync_index()?;
        let owner = core.key.owner(&target.server);
        let session = Session::begin(&core.workspace, owner)?;
        let previous = core.latest_image(&target.server)?;
        Ok(Self {
            server: target.server.clone(),
            owner,
            previous,
            pruned,
            _writers: writers,
            session,
            state: Mutex::new(State::default()),
            finisher: Mutex::new(None),
            pending: Arc::default(),
            core,
        })
    }

    /// Where a chunk stands that may be deduplicated against.
    fn find(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.core.find_outside(id, &self.pruned.condemned)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What panics in between leaves an upload that is not committed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The length of a chunk that this upload put and the index does not know yet.
    fn pending_length(&self, id: &ChunkId) -> Option<u32> {
        let pending = self.pending.lock();
        pending
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .copied()
    }

    /// Stores one checked blob unless the library has it.
    fn store(&self, kind: BlobKind, chunk: &CheckedChunk) -> Result<()> {
        let id = self.core.key.chunk_id(&chunk.hash);
        let mut state = self.state();
        if self.pending_length(&id).is_some() {
            return Ok(());
        }
        if let Some(location) = self.find(&id)? {
            if location.owner != self.owner {
                self.session.prove(&id)?;
            }
            return Ok(());
        }
        let pack = match &mut state.pack {
            Some(pack) => pack,
            None => {
                let number = state.pack_number;
                state.pack_number += 1;
                let path = self.session.pack_path(number);
                let config = &self.core.config;
                let origin = PackOrigin {
                    cipher: config.cipher,
                    library: *config.id.as_bytes(),
                    owner: self.owner,
                };
                let surroundings = &self.core.surroundings;
                let writer = PackWriter::create(&path, &self.core.key, origin, surroundings)?;
                state.pack.insert(writer)
            }
        };
        let length = pack.append(id, kind, chunk)?;
        let is_full = pack.is_full();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.insert(id, chunk.length);
        drop(pending);
        state.stored_bytes += u64::from(length);
        if is_full && let Some(pack) = state.pack.take() {
            self.finish_pack(pack)?;
        }
        Ok(())
    }

    /// Hands a full pack to the finishing thread; waits when that is one pack behind.
    fn finish_pack(&self, pack: PackWriter) -> Result<()> {
        let mut slot = self.finisher.lock().unwrap_or_else(PoisonError::into_inner);
        let finisher = match &mut *slot {
            Some(finisher) => finisher,
            None => slot.insert(Finisher::start(
                Arc::clone(&self.core),
                Arc::clone(&self.pending),
                self.session.pack_log(),
            )?),
        };
        let is_sent = finisher.packs.send(pack).is_ok();
        drop(slot);
        if is_sent && self.core.surroundings.packs_overlap() {
            return Ok(());
        }
        // Where it was not sent, the thread has ended, so it failed: that is the error to report.
        self.wait_for_packs()
    }

    /// Waits until every pack is durable and in the index.
    fn wait_for_packs(&self) -> Result<()> {
        let finisher = {
            let mut slot = self.finisher.lock().unwrap_or_else(PoisonError::into_inner);
            slot.take()
        };
        finisher.map_or(Ok(()), Finisher::finish)
    }

    fn finish_all(&self) -> Result<()> {
        let pack = self.state().pack.take();
        if let Some(pack) = pack.filter(|pack| !pack.is_empty()) {
            self.finish_pack(pack)?;
        }
        self.wait_for_packs()?;
        self.core.index.flush()
    }

    /// Whether this upload may name a chunk that stands in the library already.
    fn may_name(&self, hash: &ContentHash) -> Result<bool> {
        let id = self.core.key.chunk_id(hash);
        if self.pending_length(&id).is_some() {
            return Ok(true);
        }
        let Some(location) = self.find(&id)? else {
            return Ok(false);
        };
        if location.owner == self.owner
            || self.session.has_proved(&id)?
            || self.is_in_own_pack(&id)?
        {
            return Ok(true);
        }
        // Only for chunks that other servers have too: what the latest image named.
        self.session.latest_names(&id, &|add| self.each_latest(add))
    }

    /// Whether any copy of a chunk is in a pack of this server. Which copy the index names first
    /// changes while others upload: the answer to an agent must not.
    fn is_in_own_pack(&self, id: &ChunkId) -> Result<bool> {
        let copies = self.core.find_all(id)?;
        Ok(copies.iter().any(|copy| {
            copy.owner == self.owner
                && !self.pruned.condemned.contains(&copy.pack)
                && self.core.is_sound(id, copy)
        }))
    }

    fn each_latest(&self, add: &mut dyn FnMut(ChunkId) -> Result<()>) -> Result<()> {
        for disk in self.previous.iter().flat_map(|image| &image.disks) {
            let Some(root) = self.previous_root(disk)? else {
                continue;
            };
            for leaf in 0..root.leaves.len() {
                for hash in self.previous_leaf(&root, leaf)?.into_iter().flatten() {
                    add(self.core.key.chunk_id(&hash))?;
                }
            }
        }
        Ok(())
    }

    /// The root of a disk of the latest image, `None` when it is damaged: then nothing is left
    /// out on its account.
    fn previous_root(&self, disk: &ImageDisk) -> Result<Option<Root>> {
        match self.core.read_root(&disk.manifest, &disk.name) {
            Ok(root) => Ok(Some(root)),
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn previous_leaf(&self, root: &Root, leaf: usize) -> Result<Vec<Option<ContentHash>>> {
        match self.core.read_leaf(root, leaf, "the latest image") {
            Ok(entries) => Ok(entries),
            Err(error) if error.is_damage() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Checks the entries of a leaf: each chunk is one that this upload may name, is there, and
    /// has the length that its place on the disk asks for.
    fn check_leaf(
        &self,
        disk: &DiskDraft,
        first: u64,
        entries: &[Option<ContentHash>],
        previous: &[Option<ContentHash>],
    ) -> Result<()> {
        let chunk_size = self.core.config.chunk_size_bytes;
        for (position, hash) in entries.iter().enumerate() {
            let Some(hash) = hash else { continue };
            let chunk = first + position as u64;
            let was_there = previous.get(position) == Some(&Some(*hash));
            let id = self.core.key.chunk_id(hash);
            // A chunk is in the index before it stops being pending: this order misses none.
            let found = match self.pending_length(&id) {
                Some(length) => Some(length),
                None => self.find(&id)?.map(|found| found.extent.plain_length),
            };
            let length = chunk_length(disk.size_bytes, chunk_size, chunk);
            let fits = found == Some(length);
            if !(fits && (was_there || self.may_name(hash)?)) {
                let offset = chunk * u64::from(chunk_size);
                return Err(Error::Refused {
                    what: "a disk",
                    problem: format!(
                        "the chunk at byte {offset:#x} of disk {:?} was not put in this upload, \
                         or has not {length} bytes",
                        disk.name
                    ),
                });
            }
        }
        Ok(())
    }

    fn put_leaves(&self, disk: &DiskDraft, chunks: &[Option<ContentHash>]) -> Result<Root> {
        let chunk_size = self.core.config.chunk_size_bytes;
        let before = self.previous.iter().flat_map(|image| &image.disks);
        let before = before.into_iter().find(|before| before.name == disk.name);
        let before = match before {
            Some(before) => self.previous_root(before)?,
            None => None,
        };
        let mut root = Root {
            chunk_size,
            disk_size: disk.size_bytes,
            data_chunks: chunks.iter().flatten().count() as u64,
            leaves: Vec::with_capacity(leaf_count(chunks.len() as u64) as usize),
        };
        for (number, entries) in chunks.chunks(LEAF_ENTRIES).enumerate() {
            if entries.iter().all(Option::is_none) {
                root.leaves.push(None);
                continue;
            }
            let previous = match &before {
                Some(before) => self.previous_leaf(before, number)?,
                None => Vec::new(),
            };
            let first = number as u64 * LEAF_ENTRIES as u64;
            self.check_leaf(disk, first, entries, &previous)?;
            let leaf = CheckedChunk::of(leaf_to_bytes(entries))?;
            root.leaves.push(Some(leaf.hash));
            self.store(BlobKind::Leaf, &leaf)?;
        }
        Ok(root)
    }

    fn check_disk(&self, disk: &DiskDraft, chunks: &[Option<ContentHash>]) -> Result<()> {
        let refuse = |problem: String| Error::Refused {
            what: "a disk",
            problem,
        };
        let expected = chunk_count(disk.size_bytes, self.core.config.chunk_size_bytes)?;
        if chunks.len() as u64 != expected {
            let found = chunks.len();
            return Err(refuse(format!("expected {expected} chunks, found {found}")));
        }
        if disk.name.is_empty() || disk.name.len() > 255 {
            let found = disk.name.len();
            return Err(refuse(format!(
                "expected a name of 1 to 255 bytes, found {found}"
            )));
        }
        let state = self.state();
        if state.disks.iter().any(|known| known.name == disk.name) {
            return Err(refuse(format!("disk {:?} was put already", disk.name)));
        }
        if state.disks.len() >= DISKS_MAX {
            return Err(refuse(format!("an image has at most {DISKS_MAX} disks")));
        }
        Ok(())
    }

    /// Runs a step of the upload. After a step that failed (a full disk), packs may be incomplete
    /// that later steps would rely on: only a new upload can go on.
    fn step<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.state().has_failed {
            return Err(Error::Refused {
                what: "a part of an upload",
                problem: "an earlier part could not be stored; begin the upload again".to_owned(),
            });
        }
        let result = work();
        if matches!(&result, Err(error) if !matches!(error, Error::Refused { .. })) {
            let mut state = self.state();
            state.has_failed = true;
            state.pack = None;
        }
        result
    }

    fn add_disk(&self, disk: &DiskDraft, chunks: &[Option<ContentHash>]) -> Result<()> {
        self.check_disk(disk, chunks)?;
        let root = self.put_leaves(disk, chunks)?;
        let blob = CheckedChunk::of(root.to_bytes())?;
        self.store(BlobKind::Root, &blob)?;
        let chunk_size = self.core.config.chunk_size_bytes;
        let length_of = |(chunk, hash): (usize, &Option<ContentHash>)| {
            hash.map_or(0, |_| {
                u64::from(chunk_length(disk.size_bytes, chunk_size, chunk as u64))
            })
        };
        let mut state = self.state();
        // At most DISKS_MAX.
        let index = DiskIndex(state.disks.len() as u16);
        state.disks.push(ImageDisk {
            index,
            name: disk.name.clone(),
            size_bytes: disk.size_bytes,
            sector_size: disk.sector_size,
            manifest: blake3::Hash::from_bytes(*blob.hash.as_bytes())
                .to_hex()
                .to_string(),
            data_bytes: chunks.iter().enumerate().map(length_of).sum(),
        });
        Ok(())
    }

    fn new_image(&self, draft: &ImageDraft, state: &State) -> Result<Image> {
        // The order of images is the order of commits, whatever happens to the clock.
        let newest = self.core.images()?.last().map(|image| image.received_at);
        let now = (self.core.clock)();
        let received_at = newest.map_or(now, |newest| now.max(newest));
        let since_epoch = received_at.as_duration();
        let timestamp = uuid::Timestamp::from_unix(
            NoContext,
            u64::try_from(since_epoch.as_secs()).unwrap_or(0),
            u32::try_from(since_epoch.subsec_nanos()).unwrap_or(0),
        );
        Ok(Image {
            id: ImageId::from_uuid(Uuid::new_v7(timestamp)),
            server: self.server.clone(),
            taken_at: draft.taken_at,
            received_at,
            consistency: draft.consistency,
            machine: draft.machine.clone(),
            disks: state.disks.clone(),
            parent: self.previous.as_ref().map(|image| image.id),
            stored_bytes: state.stored_bytes,
            generation: self.pruned.generation,
        })
    }
}

impl Upload for LocalUpload {
    fn put_chunks(&self, chunks: Vec<ChunkUpload>) -> Result<()> {
        let chunk_size = self.core.config.chunk_size_bytes;
        self.step(|| {
            for chunk in chunks {
                let checked = check_upload(chunk, chunk_size)?;
                self.store(BlobKind::Data, &checked)?;
            }
            Ok(())
        })
    }

    fn states(&self, hashes: &[ContentHash]) -> Result<Vec<ChunkState>> {
        let state = |hash| {
            Ok(if self.may_name(hash)? {
                ChunkState::Stored
            } else {
                ChunkState::Missing
            })
        };
        hashes.iter().map(state).collect()
    }

    fn put_disk(&self, disk: &DiskDraft, chunks: &[Option<ContentHash>]) -> Result<()> {
        self.step(|| self.add_disk(disk, chunks))
    }

    fn commit(self: Box<Self>, draft: &ImageDraft) -> Result<Image> {
        if self.state().disks.is_empty() {
            return Err(Error::Refused {
                what: "the commit",
                problem: "the image has no disk".to_owned(),
            });
        }
        self.step(|| self.finish_all())?;
        let image = self.new_image(draft, &self.state())?;
        if !self.core.create_image(&image)? {
            return Err(Error::Refused {
                what: "the commit",
                problem: format!("there is an image {} already", image.id),
            });
        }
        // Whoever prunes meanwhile has either seen the image, or says so here.
        if !self.core.floor()?.admits(&image) {
            self.core.store.remove(&names::image(image.id))?;
            return Err(Error::Refused {
                what: "the commit",
                problem: "the library was pruned while the upload went on; begin it again, what \
                          was sent is not sent again"
                    .to_owned(),
            });
        }
        self.session.end();
        Ok(image)
    }
}

impl Drop for LocalUpload {
    fn drop(&mut self) {
        // What was sent need not be sent again: the last pack is finished even though it is
        // short. When that fails, it is sent again; there is nobody to tell.
        let _ = self.finish_all();
    }
}

impl Finisher {
    fn start(
        core: Arc<Core>,
        pending: Arc<Mutex<Pending>>,
        log: crate::session::PackLog,
    ) -> Result<Self> {
        let (packs, queue) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("pack-finisher".to_owned())
            .spawn(move || finish_packs(&core, &pending, &log, &queue))
            .map_err(|source| Error::File {
                action: "start",
                path: "a thread".into(),
                source,
            })?;
        Ok(Self { packs, thread })
    }

    fn finish(self) -> Result<()> {
        drop(self.packs);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn finish_packs(
    core: &Core,
    pending: &Mutex<Pending>,
    log: &crate::session::PackLog,
    queue: &Receiver<PackWriter>,
) -> Result<()> {
    for pack in queue {
        let FinishedPack {
            id,
            path,
            length,
            owner,
            entries,
        } = pack.finish()?;
        core.store.adopt(&names::pack(&id), &path)?;
        log.append(&id)?;
        let adopted = Adopted {
            record: PackRecord { id, length, owner },
            entries: entries.iter().map(|e| (e.id, e.extent)).collect(),
        };
        core.index.add(&adopted)?;
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &entries {
            pending.remove(&entry.id);
        }
    }
    Ok(())
}
