// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adding images: chunks, then the manifests of the disks, then the commit.
//!
//! A session belongs to one server. Beginning another upload of the same server ends the one
//! before, so an agent that was killed goes on at once; what was stored stays stored. Every body
//! is bounded. Frames are taken apart as they arrive, so memory does not grow with the body.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use crate::access::{ChunkState, ChunkUpload, UploadTarget};
use crate::audit::{AuditAction, AuditEvent};
use crate::document::{DiskDraft, Image, ImageDraft};
use crate::id::{ContentHash, ServerName};
use crate::manifest::{chunk_count, leaf_count, leaf_entries};
use crate::protocol::{
    DISK_BYTES_MAX, FRAMES_BYTES_MAX, FrameDecoder, HASH_BYTES, PLAIN_BYTES_MAX, STATES_MAX,
    UploadOpened, UploadRequest, frame_length, hashes_from_bytes,
};
use crate::server::Shared;
use crate::server::failure::RequestFailure;
use crate::server::gate::Principal;
use crate::server::sessions::{Commit, Session};

/// Chunks are handed to the library in batches of at least so many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// Does work that blocks, and fails as a request does.
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
        let session = Session::new(request.server, principal.clone(), upload);
        let upload = shared.sessions.add(session)?;
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
    if !shared.commits.count(session.server()) {
        let message = "too many commits of this server were asked for in the last ten minutes";
        return Err(RequestFailure::too_often(message));
    }
    let image = blocking_request(move || {
        let committed = session.commit(&document);
        note_commit(&shared, &principal, session.server(), &committed);
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
