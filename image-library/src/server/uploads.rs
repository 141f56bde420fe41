// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adding images: sessions of uploads, and what an agent may ask about its own server's image.
//!
//! A session belongs to one server. Beginning another upload of the same server ends the one
//! before, so an agent that was killed goes on at once; what was stored stays stored. Sessions
//! live in memory: after a restart agents begin again and send only what is missing.
//!
//! Limits: the number of sessions, their idle time, every body. Frames are taken apart as they
//! arrive, so memory does not grow with the body.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use uuid::Uuid;

use crate::access::{ChunkState, ChunkUpload, Library, Upload, UploadTarget};
use crate::audit::{AuditAction, AuditEvent};
use crate::document::{DiskDraft, Image, ImageDraft};
use crate::error::Result;
use crate::id::{ContentHash, ServerName};
use crate::manifest::{chunk_count, leaf_count, leaf_entries};
use crate::protocol::{
    DISK_BYTES_MAX, FRAMES_BYTES_MAX, FrameDecoder, HASH_BYTES, HashPage, PAGE_LEAVES_MAX,
    PLAIN_BYTES_MAX, STATES_MAX, UploadOpened, UploadRequest, frame_length, hashes_from_bytes,
    wire_hash,
};
use crate::server::failure::RequestFailure;
use crate::server::gate::Principal;
use crate::server::{Shared, blocking};

/// The most uploads at once.
const SESSIONS_MAX: usize = 1024;
/// After so long without a request a session may be ended.
const IDLE_MAX: Duration = Duration::from_secs(6 * 3600);
/// Chunks are handed to the library in batches of at least so many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// The uploads under way.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<Uuid, Arc<Session>>>);

/// One upload. Requests share the read lock; begin, commit and end take the write lock, so none
/// of them overtakes chunks that are being stored.
#[derive(Debug)]
struct Session {
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
enum Commit {
    New(Box<ImageDraft>),
    Copy(Box<Image>),
}

impl Session {
    fn with_upload<T>(
        &self,
        work: impl FnOnce(&dyn Upload) -> Result<T>,
    ) -> Result<T, RequestFailure> {
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Open(upload) => work(&**upload).map_err(|error| RequestFailure::from(&error)),
            Stage::Committed(_) | Stage::Ended => Err(RequestFailure::unknown_upload()),
        }
    }

    /// Puts a disk; one that was put before with the same content is put already.
    fn put_disk(
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

    fn commit(&self, document: &Commit) -> Result<Image, RequestFailure> {
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

    fn end(&self) {
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = Stage::Ended;
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
    fn find(&self, upload: &str, principal: &Principal) -> Result<Arc<Session>, RequestFailure> {
        let id = Uuid::parse_str(upload).map_err(|_| RequestFailure::unknown_upload())?;
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions
            .get(&id)
            .filter(|session| session.owner.is_same(principal))
            .map(Arc::clone)
            .ok_or_else(RequestFailure::unknown_upload)?;
        *session
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(session)
    }

    /// Takes out the sessions of `server` and those that nobody uses any more.
    fn take_finished(&self, server: &ServerName) -> Vec<Arc<Session>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (finished, kept) = sessions
            .drain()
            .partition(|(_, session)| session.server == *server || session.is_idle());
        *sessions = kept;
        let finished: HashMap<Uuid, Arc<Session>> = finished;
        finished.into_values().collect()
    }

    fn take(&self, upload: &str, principal: &Principal) -> Option<Arc<Session>> {
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

    fn add(&self, session: Session) -> Result<Uuid, RequestFailure> {
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

/// Like [`blocking`], for work that fails as a request.
async fn blocking_request<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RequestFailure> + Send + 'static,
) -> Result<T, RequestFailure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_panicked| Err(RequestFailure::internal()))
}

pub(super) async fn begin(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Json(request): Json<UploadRequest>,
) -> Result<Json<UploadOpened>, RequestFailure> {
    principal.check_server(&request.server)?;
    if !shared.begins.count(&request.server) {
        let message = "too many uploads of this server began in the last ten minutes";
        return Err(RequestFailure::too_often(message));
    }
    blocking_request(move || {
        for session in shared.sessions.take_finished(&request.server) {
            session.end();
        }
        let target = UploadTarget {
            server: request.server.clone(),
        };
        let upload = shared
            .library
            .begin(&target)
            .map_err(|error| RequestFailure::from(&error))?;
        let server = request.server.clone();
        let owner = principal.clone();
        let upload = shared.sessions.add(Session {
            server: request.server,
            owner,
            stage: RwLock::new(Stage::Open(upload)),
            disks: Mutex::default(),
            last_used: Mutex::new(Instant::now()),
        })?;
        shared.audit(&principal, AuditAction::BeginUpload, |event| AuditEvent {
            server: Some(server),
            ..event
        });
        Ok(Json(UploadOpened { upload }))
    })
    .await
}

pub(super) async fn end(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(upload): Path<String>,
) -> Result<StatusCode, RequestFailure> {
    blocking_request(move || {
        if let Some(session) = shared.sessions.take(&upload, &principal) {
            session.end();
        }
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

pub(super) async fn states(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(upload): Path<String>,
    request: Request,
) -> Result<Response, RequestFailure> {
    let session = shared.sessions.find(&upload, &principal)?;
    let limit = STATES_MAX * HASH_BYTES;
    let body = axum::body::to_bytes(request.into_body(), limit)
        .await
        .map_err(|_| RequestFailure::too_large("the list of hashes", limit))?;
    let hashes = whole_hashes(&body)?
        .into_iter()
        .map(|hash| hash.ok_or_else(|| RequestFailure::invalid("a chunk of zeros has no state")))
        .collect::<Result<Vec<ContentHash>, _>>()?;
    let states =
        blocking_request(move || session.with_upload(|upload| upload.states(&hashes))).await?;
    let bytes: Vec<u8> = states
        .into_iter()
        .map(|state| u8::from(state == ChunkState::Stored))
        .collect();
    Ok(Body::from(bytes).into_response())
}

fn whole_hashes(body: &[u8]) -> Result<Vec<Option<ContentHash>>, RequestFailure> {
    match hashes_from_bytes(body) {
        (hashes, []) => Ok(hashes),
        (_, rest) => Err(cut_off_hash(rest.len())),
    }
}

fn cut_off_hash(length: usize) -> RequestFailure {
    RequestFailure::invalid(format!("the last hash is cut off after {length} bytes"))
}

pub(super) async fn put_chunks(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(upload): Path<String>,
    request: Request,
) -> Result<StatusCode, RequestFailure> {
    let session = shared.sessions.find(&upload, &principal)?;
    let mut decoder = FrameDecoder::new(shared.library.chunk_size_bytes());
    let mut body = request.into_body().into_data_stream();
    let mut batch: Vec<ChunkUpload> = Vec::new();
    let (mut received, mut unpacked, mut batch_bytes) = (0_usize, 0_usize, 0_usize);
    while let Some(piece) = body.next().await {
        let piece = received_piece(piece)?;
        received = received.saturating_add(piece.len());
        if received > FRAMES_BYTES_MAX {
            return Err(RequestFailure::too_large("the chunks", FRAMES_BYTES_MAX));
        }
        for chunk in decoder.push(&piece).map_err(RequestFailure::invalid)? {
            unpacked = unpacked.saturating_add(chunk.length as usize);
            if unpacked > PLAIN_BYTES_MAX {
                let what = "the chunks, unpacked,";
                return Err(RequestFailure::too_large(what, PLAIN_BYTES_MAX));
            }
            batch_bytes = batch_bytes.saturating_add(frame_length(&chunk));
            batch.push(chunk);
        }
        if batch_bytes >= BATCH_BYTES {
            store(&session, std::mem::take(&mut batch)).await?;
            batch_bytes = 0;
        }
    }
    decoder.finish().map_err(RequestFailure::invalid)?;
    store(&session, batch).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn received_piece(piece: Result<Bytes, axum::Error>) -> Result<Bytes, RequestFailure> {
    piece.map_err(|error| RequestFailure::invalid(format!("the body broke off: {error}")))
}

async fn store(session: &Arc<Session>, batch: Vec<ChunkUpload>) -> Result<(), RequestFailure> {
    if batch.is_empty() {
        return Ok(());
    }
    let session = Arc::clone(session);
    blocking_request(move || session.with_upload(|upload| upload.put_chunks(batch))).await
}

pub(super) async fn put_leaf(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path((upload, number)): Path<(String, String)>,
    Query(draft): Query<DiskDraft>,
    request: Request,
) -> Result<StatusCode, RequestFailure> {
    let session = shared.sessions.find(&upload, &principal)?;
    let chunks = legal_chunk_count(&shared, &draft)?;
    let number: u64 = number
        .parse()
        .map_err(|_| RequestFailure::invalid("expected the number of a leaf"))?;
    let body = hashes_body(request, leaf_entries(chunks, number) as u64).await?;
    let chunks = whole_hashes(&body)?;
    blocking_request(move || {
        session.with_upload(|upload| upload.put_leaf(&draft, number, &chunks))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn put_disk(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(upload): Path<String>,
    Query(draft): Query<DiskDraft>,
    request: Request,
) -> Result<StatusCode, RequestFailure> {
    let session = shared.sessions.find(&upload, &principal)?;
    let chunks = legal_chunk_count(&shared, &draft)?;
    let body = hashes_body(request, leaf_count(chunks)).await?;
    let leaves = whole_hashes(&body)?;
    let content = blake3::hash(&body);
    blocking_request(move || session.put_disk(&draft, &leaves, content)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How many chunks a disk has, if it is one that is taken.
fn legal_chunk_count(shared: &Shared, draft: &DiskDraft) -> Result<u64, RequestFailure> {
    if draft.size_bytes == 0 || draft.size_bytes > DISK_BYTES_MAX {
        return Err(RequestFailure::invalid(format!(
            "a disk of {} bytes, expected 1 to {DISK_BYTES_MAX}",
            draft.size_bytes
        )));
    }
    chunk_count(draft.size_bytes, shared.library.chunk_size_bytes())
        .map_err(|error| RequestFailure::from(&error))
}

/// A body of so many hashes and no more.
async fn hashes_body(request: Request, expected: u64) -> Result<Bytes, RequestFailure> {
    let limit = usize::try_from(expected).unwrap_or(usize::MAX);
    let limit = limit.saturating_mul(HASH_BYTES);
    let body = axum::body::to_bytes(request.into_body(), limit).await;
    let body = body.map_err(|_| RequestFailure::too_large("the list of hashes", limit))?;
    let found = body.len() / HASH_BYTES;
    if body.len() < limit && body.len().is_multiple_of(HASH_BYTES) {
        return Err(RequestFailure::invalid(format!(
            "expected {expected} hashes, found {found}"
        )));
    }
    Ok(body)
}

pub(super) async fn commit(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(upload): Path<String>,
    Json(draft): Json<ImageDraft>,
) -> Result<Json<Image>, RequestFailure> {
    commit_as(shared, principal, upload, Commit::New(Box::new(draft))).await
}

/// For the copies of another library's images, which keep their ids and times.
pub(super) async fn commit_copy(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(upload): Path<String>,
    Json(original): Json<Image>,
) -> Result<Json<Image>, RequestFailure> {
    commit_as(shared, principal, upload, Commit::Copy(Box::new(original))).await
}

async fn commit_as(
    shared: Shared,
    principal: Principal,
    upload: String,
    document: Commit,
) -> Result<Json<Image>, RequestFailure> {
    let session = shared.sessions.find(&upload, &principal)?;
    if !shared.commits.count(&session.server) {
        let message = "too many commits of this server were asked for in the last ten minutes";
        return Err(RequestFailure::too_often(message));
    }
    let image = blocking_request(move || {
        let committed = session.commit(&document);
        note_commit(&shared, &principal, &session.server, &committed);
        committed
    })
    .await?;
    tracing::info!(server = %image.server, image = %image.id, "image committed");
    Ok(Json(image))
}

fn note_commit(
    shared: &Shared,
    principal: &Principal,
    server: &ServerName,
    committed: &Result<Image, RequestFailure>,
) {
    let count = match committed {
        Ok(_) => &shared.metrics.commits,
        Err(_) => &shared.metrics.refused_commits,
    };
    count.increment();
    shared.audit(principal, AuditAction::Commit, |event| {
        let event = AuditEvent {
            server: Some(server.clone()),
            image: committed.as_ref().ok().map(|image| image.id),
            ..event
        };
        match committed {
            Ok(_) => event,
            Err(failure) => event.refused(failure.message()),
        }
    });
}

#[derive(Debug, Deserialize)]
pub(super) struct HashesOf {
    disk: String,
    leaf: u64,
}

pub(super) async fn latest_hashes(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(server): Path<String>,
    Query(HashesOf { disk, leaf }): Query<HashesOf>,
) -> Result<Response, RequestFailure> {
    let server: ServerName = server
        .parse()
        .map_err(|error| RequestFailure::from(&error))?;
    principal.check_server(&server)?;
    let page = blocking(move || hash_page(&*shared.library, &server, &disk, leaf)).await?;
    Ok(page.map_or_else(
        || StatusCode::NO_CONTENT.into_response(),
        |page| Body::from(page.to_bytes()).into_response(),
    ))
}

/// The hashes of a disk of the latest image from a leaf on.
fn hash_page(
    library: &dyn Library,
    server: &ServerName,
    disk: &str,
    first_leaf: u64,
) -> Result<Option<HashPage>> {
    let Some(found) = library.latest_hashes(server, disk)? else {
        return Ok(None);
    };
    let leaves = leaf_count(found.chunk_count());
    let last = first_leaf.saturating_add(PAGE_LEAVES_MAX).min(leaves);
    let mut hashes = Vec::new();
    for number in first_leaf..last {
        for hash in found.leaf(number)? {
            hashes.extend_from_slice(&wire_hash(hash.as_ref()));
        }
    }
    Ok(Some(HashPage {
        image: found.image(),
        chunk_count: found.chunk_count(),
        hashes,
    }))
}
