// SPDX-License-Identifier: MIT OR Apache-2.0
//! The uploads under way: one session each, of one server and whoever began it.
//!
//! Sessions live in memory: after a restart agents begin again and send only what is missing.
//! Their number and their idle time are limited.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::access::{DiskHashes, Upload};
use crate::document::{DiskDraft, Image, ImageDraft};
use crate::error::Result;
use crate::id::{ContentHash, ServerName};
use crate::server::failure::RequestFailure;
use crate::server::gate::Principal;

/// The most uploads at once.
const SESSIONS_MAX: usize = 1024;
/// After so long without a request a session may be ended.
const IDLE_MAX: Duration = Duration::from_secs(6 * 3600);

/// The uploads under way.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<Uuid, Arc<Session>>>);

/// One upload. Requests share the read lock; begin, commit and end take the write lock, so none
/// of them overtakes chunks that are being stored.
#[derive(Debug)]
pub(super) struct Session {
    server: ServerName,
    /// Who began it: nobody else can use it.
    owner: Principal,
    stage: RwLock<Stage>,
    /// What was put: the answer to a disk may be lost, and the disk then be put again.
    disks: Mutex<Vec<(DiskDraft, blake3::Hash)>>,
    last_used: Mutex<Instant>,
}

#[derive(Debug)]
enum Stage {
    Open(Box<dyn Upload>),
    /// Kept so that a commit whose answer was lost can be asked for again.
    Committed(Box<Image>),
    Ended,
}

/// What is committed.
#[derive(Debug)]
pub(super) enum Commit {
    New(Box<ImageDraft>),
    Copy(Box<Image>),
}

impl Session {
    /// An upload of `server` that begins now.
    pub(super) fn new(server: ServerName, owner: Principal, upload: Box<dyn Upload>) -> Self {
        Self {
            server,
            owner,
            stage: RwLock::new(Stage::Open(upload)),
            disks: Mutex::default(),
            last_used: Mutex::new(Instant::now()),
        }
    }

    /// Whose upload it is.
    pub(super) fn server(&self) -> &ServerName {
        &self.server
    }

    pub(super) fn with_upload<T>(
        &self,
        work: impl FnOnce(&dyn Upload) -> Result<T>,
    ) -> Result<T, RequestFailure> {
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Open(upload) => work(&**upload).map_err(|error| RequestFailure::from(&error)),
            Stage::Committed(_) | Stage::Ended => Err(RequestFailure::unknown_upload()),
        }
    }

    /// The hashes of a disk as they were when the upload began; `None` when it is over.
    pub(super) fn latest_hashes(&self, disk: &str) -> Option<Result<Option<Arc<dyn DiskHashes>>>> {
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Open(upload) => Some(upload.latest_hashes(disk)),
            Stage::Committed(_) | Stage::Ended => None,
        }
    }

    /// Puts a disk; one that was put before with the same content is put already.
    pub(super) fn put_disk(
        &self,
        draft: &DiskDraft,
        leaves: &[Option<ContentHash>],
        content: blake3::Hash,
    ) -> Result<(), RequestFailure> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |(known, hash): &(DiskDraft, _)| known == draft && *hash == content;
        if disks.iter().any(is_same) {
            return Ok(());
        }
        self.with_upload(|upload| upload.put_disk(draft, leaves))?;
        disks.push((draft.clone(), content));
        Ok(())
    }

    pub(super) fn commit(&self, document: &Commit) -> Result<Image, RequestFailure> {
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *stage, Stage::Ended) {
            Stage::Open(upload) => {
                let image = match document {
                    Commit::New(draft) => upload.commit(draft),
                    Commit::Copy(original) => upload.commit_copy(original),
                };
                let image = image.map_err(|error| RequestFailure::from(&error))?;
                *stage = Stage::Committed(Box::new(image.clone()));
                Ok(image)
            }
            Stage::Committed(image) => {
                let answer = (*image).clone();
                *stage = Stage::Committed(image);
                Ok(answer)
            }
            Stage::Ended => Err(RequestFailure::unknown_upload()),
        }
    }

    pub(super) fn end(&self) {
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = Stage::Ended;
    }

    fn touch(&self) {
        *self
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_idle(&self) -> bool {
        let last_used = *self
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last_used.elapsed() > IDLE_MAX
    }
}

impl Sessions {
    /// An upload of this principal; those of others are as unknown as those that never were.
    pub(super) fn find(
        &self,
        upload: &str,
        principal: &Principal,
    ) -> Result<Arc<Session>, RequestFailure> {
        let id = Uuid::parse_str(upload).map_err(|_| RequestFailure::unknown_upload())?;
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions
            .get(&id)
            .filter(|session| session.owner.is_same(principal))
            .map(Arc::clone)
            .ok_or_else(RequestFailure::unknown_upload)?;
        session.touch();
        Ok(session)
    }

    /// The upload of a server that this principal began.
    pub(super) fn of_server(
        &self,
        server: &ServerName,
        principal: &Principal,
    ) -> Option<Arc<Session>> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own =
            |session: &&Arc<Session>| session.server == *server && session.owner.is_same(principal);
        let session = sessions.values().find(is_own).map(Arc::clone)?;
        session.touch();
        Some(session)
    }

    /// Takes out the sessions of `server` and those that nobody uses any more.
    pub(super) fn take_finished(&self, server: &ServerName) -> Vec<Arc<Session>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (finished, kept) = sessions
            .drain()
            .partition(|(_, session)| session.server == *server || session.is_idle());
        *sessions = kept;
        let finished: HashMap<Uuid, Arc<Session>> = finished;
        finished.into_values().collect()
    }

    pub(super) fn take(&self, upload: &str, principal: &Principal) -> Option<Arc<Session>> {
        let id = Uuid::parse_str(upload).ok()?;
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = |session: &Arc<Session>| session.owner.is_same(principal);
        sessions.get(&id).is_some_and(is_own).then_some(())?;
        sessions.remove(&id)
    }

    /// How many uploads are under way.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn add(&self, session: Session) -> Result<Uuid, RequestFailure> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX {
            return Err(RequestFailure::busy(format!(
                "{SESSIONS_MAX} uploads are under way already"
            )));
        }
        let id = Uuid::new_v4();
        sessions.insert(id, Arc::new(session));
        Ok(id)
    }
}
