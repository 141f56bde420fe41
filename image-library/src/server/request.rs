// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every request goes through: its id, the limits of how many and how slow, the log.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::timeout;
use uuid::Uuid;

use crate::server::Shared;
use crate::server::connections::Peer;
use crate::server::failure::RequestFailure;
use crate::server::gate::Principal;
use crate::server::metrics::Metrics;
use crate::server::options::Limits;

/// Tells which lines of the log belong to an answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest refusal of the framework that is handed on, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

/// A body that was refused is taken for so long, and so many bytes of it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 64 << 20;

/// Around every request, also those to addresses that do not exist.
pub(super) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let id = Uuid::new_v4();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let started = Instant::now();
    let mut response = answer(&shared, request, next).await;
    let status = response.status().as_u16();
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    shared.metrics.answered(status);
    shared.metrics.request_milliseconds.add(milliseconds);
    let token = response
        .extensions()
        .get::<Principal>()
        .and_then(|who| who.token);
    let token = token.map(|id| id.to_string());
    if status >= 500 {
        tracing::error!(request = %id, %method, path, status, milliseconds, ?peer, token);
    } else if status >= 400 {
        tracing::warn!(request = %id, %method, path, status, milliseconds, ?peer, token);
    } else {
        tracing::debug!(request = %id, %method, path, status, milliseconds, ?peer, token);
    }
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

async fn answer(shared: &Shared, request: Request, next: Next) -> Response {
    if shared.stopping.load(Ordering::Relaxed) {
        return RequestFailure::stopping().into_response();
    }
    let Ok(_permit) = Arc::clone(&shared.requests).try_acquire_owned() else {
        return RequestFailure::busy("too many requests are being answered").into_response();
    };
    let left = Left::default();
    let request = request.map(|body| {
        let watched = Watched {
            body: Some(body.into_data_stream()),
            left: Arc::clone(&left),
            limits: shared.limits,
            metrics: Arc::clone(&shared.metrics),
            started: Instant::now(),
            received: 0,
        };
        Body::from_stream(watched.into_stream())
    });
    shared.metrics.requests_under_way.increment();
    // Counted down also when the client goes away and this future is dropped.
    let _under_way = UnderWay(&shared.metrics);
    let response = in_our_words(next.run(request).await).await;
    let unread = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(unread) = unread {
        // However long it is, this is over in time; then the connection is closed.
        let _ = timeout(LINGER, discard(unread)).await;
    }
    response
}

/// What is left of a body that was refused: whoever is still sending it would otherwise see his
/// connection break and never the answer.
async fn discard(mut body: BodyDataStream) {
    let mut discarded = 0_usize;
    while let Some(Ok(piece)) = body.next().await {
        discarded = discarded.saturating_add(piece.len());
        if discarded > LINGER_BYTES_MAX {
            break;
        }
    }
}

struct UnderWay<'a>(&'a Metrics);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.requests_under_way.decrement();
    }
}

/// What the framework itself refuses (JSON that does not fit, a query) it says as text.
async fn in_our_words(response: Response) -> Response {
    let status = response.status();
    let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
    let content_type = response.headers().get(CONTENT_TYPE);
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || content_type.is_some_and(is_json) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let mut response =
        RequestFailure::in_other_words(status, beginning(body).await).into_response();
    response.extensions_mut().extend(parts.extensions);
    response
}

/// The beginning of a text: the framework repeats what it was sent, however long that is.
async fn beginning(body: Body) -> String {
    let mut pieces = body.into_data_stream();
    let mut text = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        let room = MESSAGE_BYTES_MAX - text.len();
        text.extend_from_slice(&piece[..room.min(piece.len())]);
        if text.len() == MESSAGE_BYTES_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Where the rest of a body is put that a handler did not want.
type Left = Arc<Mutex<Option<BodyDataStream>>>;

/// A body as it comes in, cut off when its sender is too slow.
struct Watched {
    /// `None` when it is over.
    body: Option<BodyDataStream>,
    left: Left,
    limits: Limits,
    metrics: Arc<Metrics>,
    started: Instant,
    received: u64,
}

impl Watched {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send {
        stream::unfold(self, |mut watched| async {
            let piece = watched.next().await?;
            if piece.is_err() {
                watched.body = None;
            }
            Some((piece, watched))
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        let body = self.body.as_mut()?;
        let Ok(piece) = timeout(self.limits.stall, body.next()).await else {
            let stall = self.limits.stall;
            return Some(Err(too_slow(&format!("nothing came for {stall:?}"))));
        };
        let Some(piece) = piece else {
            self.body = None;
            return None;
        };
        if let Ok(piece) = &piece {
            self.received = self.received.saturating_add(piece.len() as u64);
            self.metrics.received_bytes.add(piece.len() as u64);
        }
        let milliseconds = self.received.saturating_mul(1000);
        let least = Duration::from_millis(milliseconds / self.limits.bytes_per_second.max(1));
        if self.started.elapsed() > self.limits.slow_after.saturating_add(least) {
            let received = self.received;
            return Some(Err(too_slow(&format!("{received} bytes came so far"))));
        }
        Some(piece)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = self.body.take();
    }
}

fn too_slow(problem: &str) -> axum::Error {
    axum::Error::new(format!("it came too slowly: {problem}"))
}
