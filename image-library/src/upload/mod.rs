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

mod disks;
mod finisher;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use uuid::{NoContext, Uuid};

use crate::access::{ChunkState, ChunkUpload, DiskHashes, PreparedChunk, Upload, UploadTarget};
use crate::chunk::{CheckedChunk, ChunkId, check_upload};
use crate::core::Core;
use crate::crypto::OwnerTag;
use crate::document::{DiskDraft, Image, ImageDisk, ImageDraft};
use crate::error::{Error, Result};
use crate::id::{ContentHash, ImageId, ServerName};
use crate::index::Location;
use crate::manifest::Root;
use crate::pack::{BlobKind, PackOrigin, PackWriter};
use crate::prune::Pruned;
use crate::session::Session;
use crate::store::lock::FileLock;
use crate::store::names;
use crate::stored_hashes::StoredHashes;
use crate::wanted::Avoided;
use disks::Leaves;
use finisher::{Finisher, Pending};

/// How far the clock of another library may be ahead.
const COPY_AHEAD_MAX: SignedDuration = SignedDuration::from_hours(24);

/// An upload into a library directory.
#[derive(Debug)]
pub(crate) struct LocalUpload {
    core: Arc<Core>,
    server: ServerName,
    owner: OwnerTag,
    previous: Option<Image>,
    /// The root of a disk of that image, by the disk's name: it is wanted once for each leaf.
    previous_root: Mutex<Option<(String, Option<Arc<Root>>)>>,
    /// To which generation it belongs: how much had been pruned when it began.
    generation: u64,
    /// What was condemned or known to be damaged when it began.
    avoided: Arc<Avoided>,
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
    leaves: Leaves,
    disks: Vec<ImageDisk>,
    stored_bytes: u64,
}

impl LocalUpload {
    pub(crate) fn begin(core: Arc<Core>, target: &UploadTarget) -> Result<Self> {
        let writers = FileLock::shared(&core.workspace.lock("writers"))?;
        // Before the packs are listed: those of a list that is dealt with are gone by then.
        let Pruned {
            generation,
            condemned,
        } = core.pruned()?;
        let wanted = core.wanted()?;
        core.sync_index()?;
        let owner = core.key.owner(&target.server);
        let session = Session::begin(&core.workspace, owner)?;
        let previous = core.latest_image(&target.server)?;
        Ok(Self {
            server: target.server.clone(),
            owner,
            previous,
            previous_root: Mutex::default(),
            generation,
            avoided: Arc::new(Avoided { condemned, wanted }),
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
        self.core.find_outside(id, &self.avoided)
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
        let is_sent = finisher.send(pack);
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

    /// Stores a blob that an image of the server names and the library has lost.
    pub(crate) fn put_lost(&self, kind: BlobKind, blob: &CheckedChunk) -> Result<()> {
        self.step(|| self.store(kind, blob))
    }

    /// Makes what was stored durable, without an image. What interrupted uploads of the server had
    /// proved stays for the next one.
    pub(crate) fn finish_healing(self) -> Result<()> {
        self.step(|| self.finish_all())
    }

    /// Whether this upload may name a chunk that stands in the library already.
    fn may_name(&self, hash: &ContentHash) -> Result<bool> {
        let id = self.core.key.chunk_id(hash);
        if self.pending_length(&id).is_some() {
            return Ok(true);
        }
        match self.find(&id)? {
            Some(location) => self.may_name_at(&id, &location),
            None => Ok(false),
        }
    }

    /// The same for a chunk of which a copy stands there.
    fn may_name_at(&self, id: &ChunkId, location: &Location) -> Result<bool> {
        if location.owner == self.owner
            || self.session.has_proved(id)?
            || self.is_in_own_pack(id)?
        {
            return Ok(true);
        }
        // Only for chunks that other servers have too: what the latest image named.
        self.session.latest_names(id, &|add| self.each_latest(add))
    }

    /// Whether any copy of a chunk is in a pack of this server. Which copy the index names first
    /// changes while others upload: the answer to an agent must not.
    fn is_in_own_pack(&self, id: &ChunkId) -> Result<bool> {
        let copies = self.core.find_all(id)?;
        Ok(copies.iter().any(|copy| {
            copy.owner == self.owner
                && !self.avoided.covers(id, copy)
                && self.core.is_sound(id, copy)
        }))
    }

    fn each_latest(&self, add: &mut dyn FnMut(ChunkId) -> Result<()>) -> Result<()> {
        for disk in self.previous.iter().flat_map(|image| &image.disks) {
            let Some(root) = self.previous_root(disk)? else {
                continue;
            };
            for leaf in 0..root.leaves.len() as u64 {
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

    /// The entries of a leaf of the latest image, none when it is damaged.
    fn previous_leaf(&self, root: &Root, leaf: u64) -> Result<Vec<Option<ContentHash>>> {
        let leaf = usize::try_from(leaf).unwrap_or(usize::MAX);
        match self.core.read_leaf(root, leaf, "the latest image") {
            Ok(entries) => Ok(entries),
            Err(error) if error.is_damage() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
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

    fn finish_for_commit(&self) -> Result<()> {
        if self.state().disks.is_empty() {
            return Err(refused_commit("the image has no disk".to_owned()));
        }
        self.step(|| self.finish_all())
    }

    /// Creates the image; `false` when there is one of its id.
    fn publish(&self, image: &Image) -> Result<bool> {
        if !self.core.create_image(image)? {
            return Ok(false);
        }
        // Whoever prunes meanwhile has either seen the image, or says so here.
        if !self.core.floor()?.admits(image) {
            self.core.store.remove(&names::image(image.id))?;
            return Err(refused_commit(
                "the library was pruned while the upload went on; begin it again, what was sent \
                 is not sent again"
                    .to_owned(),
            ));
        }
        self.session.end();
        Ok(true)
    }

    /// The original with what belongs to this library.
    fn copy_of(&self, original: &Image, state: &State) -> Result<Image> {
        let ahead = original.received_at.duration_since((self.core.clock)());
        let problem = if original.server != self.server {
            Some(format!("the image is of server {}", original.server))
        } else if original.disks != state.disks {
            Some("the disks of the copy are not those of the image".to_owned())
        } else if ahead > COPY_AHEAD_MAX {
            // The times of later images would follow it.
            Some(format!(
                "the image was received at {}, which is yet to come",
                original.received_at
            ))
        } else {
            None
        };
        match problem {
            Some(problem) => Err(refused_commit(problem)),
            None => Ok(Image {
                stored_bytes: state.stored_bytes,
                generation: self.generation,
                ..original.clone()
            }),
        }
    }

    fn new_image(&self, draft: &ImageDraft, state: &State) -> Result<Image> {
        let newest = self.core.images()?.last().map(|image| image.received_at);
        let received_at = after((self.core.clock)(), newest);
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
            generation: self.generation,
        })
    }
}

/// When an image is received, now or later: the order of images is the order of commits, whatever
/// happens to the clock. Ids tell milliseconds apart, and are random below.
fn after(now: Timestamp, newest: Option<Timestamp>) -> Timestamp {
    let millisecond = SignedDuration::from_millis(1);
    match newest {
        Some(newest) if newest.as_millisecond() >= now.as_millisecond() => {
            newest.checked_add(millisecond).unwrap_or(newest)
        }
        _ => now,
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

    fn prepare(&self, hash: ContentHash, plain: &[u8]) -> Result<PreparedChunk> {
        let chunk_size = self.core.config.chunk_size_bytes;
        CheckedChunk::compress(hash, plain, chunk_size).map(PreparedChunk::checked)
    }

    fn put_prepared(&self, chunks: Vec<PreparedChunk>) -> Result<()> {
        let chunk_size = self.core.config.chunk_size_bytes;
        self.step(|| {
            for chunk in chunks {
                self.store(BlobKind::Data, &chunk.into_checked(chunk_size)?)?;
            }
            Ok(())
        })
    }

    fn latest_hashes(&self, disk_name: &str) -> Result<Option<Arc<dyn DiskHashes>>> {
        let Some(image) = &self.previous else {
            return Ok(None);
        };
        StoredHashes::for_upload(&self.core, image, disk_name, Arc::clone(&self.avoided))
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

    fn put_leaf(
        &self,
        disk: &DiskDraft,
        number: u64,
        chunks: &[Option<ContentHash>],
    ) -> Result<()> {
        self.step(|| self.add_leaf(disk, number, chunks))
    }

    fn put_disk(&self, disk: &DiskDraft, leaves: &[Option<ContentHash>]) -> Result<()> {
        self.step(|| self.add_disk(disk, leaves))
    }

    fn commit(self: Box<Self>, draft: &ImageDraft) -> Result<Image> {
        self.finish_for_commit()?;
        let image = self.new_image(draft, &self.state())?;
        if !self.publish(&image)? {
            return Err(refused_commit(format!(
                "there is an image {} already",
                image.id
            )));
        }
        Ok(image)
    }

    fn commit_copy(self: Box<Self>, original: &Image) -> Result<Image> {
        self.finish_for_commit()?;
        let image = self.copy_of(original, &self.state())?;
        if self.publish(&image)? {
            return Ok(image);
        }
        let there = self.core.image(image.id)?;
        if there.server == image.server && there.disks == image.disks {
            self.session.end();
            return Ok(there);
        }
        Err(refused_commit(format!(
            "there is another image {} already",
            image.id
        )))
    }
}

const fn refused_commit(problem: String) -> Error {
    Error::Refused {
        what: "the commit",
        problem,
    }
}

impl Drop for LocalUpload {
    fn drop(&mut self) {
        // What was sent need not be sent again: the last pack is finished even though it is
        // short. When that fails, it is sent again; there is nobody to tell.
        let _ = self.finish_all();
    }
}
