// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server says about itself: its description, its authority, its interface, its figures.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::protocol::{API_VERSION, SERVICE, ServiceDescription};
use crate::server::Shared;
use crate::server::failure::RequestFailure;

/// The description of the interface, also a file for those who write clients.
const OPEN_API: &str = include_str!("../../openapi.json");

pub(super) async fn describe(State(shared): State<Shared>) -> Json<ServiceDescription> {
    Json(ServiceDescription {
        service: SERVICE.to_owned(),
        api: API_VERSION,
        chunk_size_bytes: shared.library.chunk_size_bytes(),
    })
}

/// For `--ca-file`. Nothing is given away: the handshake shows it to everybody.
pub(super) async fn authority(
    State(shared): State<Shared>,
) -> Result<impl IntoResponse, RequestFailure> {
    let pem = shared.authority_pem.as_deref().ok_or_else(|| {
        RequestFailure::not_found("this server does not show a certificate of the library's own")
    })?;
    let headers = [(CONTENT_TYPE, "application/pem-certificate-chain")];
    Ok((headers, pem.to_owned()))
}

pub(super) async fn open_api() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPEN_API)
}

pub(super) async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let text = shared.metrics.to_text(shared.sessions.count());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
