// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request that is not done: status, stable code, message and hint.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::error::Error;
use crate::protocol::{Failure, NOT_FOUND, UNKNOWN_UPLOAD};
use crate::terminal::chain_text;

/// Why a request is not done.
#[derive(Debug)]
pub(super) struct RequestFailure {
    status: StatusCode,
    failure: Failure,
}

impl RequestFailure {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let failure = Failure {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
        };
        Self { status, failure }
    }

    /// The request breaks the protocol.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, NOT_FOUND, message)
    }

    /// The body is longer than a limit.
    pub(super) fn too_large(what: &str, limit: usize) -> Self {
        let message = format!("{what} would exceed the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    }

    /// A range that is not on the disk.
    pub(super) fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "out-of-range", message)
    }

    /// An upload that this server does not know.
    pub(super) fn unknown_upload() -> Self {
        let mut failed = Self::new(
            StatusCode::NOT_FOUND,
            UNKNOWN_UPLOAD,
            "the library server does not know this upload (any more)",
        );
        failed.failure.hint = Some(
            "the library server was restarted, or another upload of the same server took over; \
             begin again"
                .to_owned(),
        );
        failed
    }

    /// Too many of something at once.
    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    /// A bug of ours; the details are in the server's log.
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the library server failed; its log says more",
        )
    }
}

impl From<&Error> for RequestFailure {
    fn from(error: &Error) -> Self {
        let (status, code) = match error {
            Error::InvalidName { .. } => (StatusCode::BAD_REQUEST, "invalid"),
            Error::NoSuchImage { .. } => (StatusCode::NOT_FOUND, NOT_FOUND),
            Error::Refused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            Error::Limit { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Error::Locked { .. } => (StatusCode::SERVICE_UNAVAILABLE, "locked"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "library"),
        };
        if status.is_server_error() {
            tracing::error!(error = chain_text(error), "a request failed");
        }
        let mut failed = Self::new(status, code, chain_text(error));
        failed.failure.hint = error.hint();
        failed
    }
}

impl IntoResponse for RequestFailure {
    fn into_response(self) -> Response {
        (self.status, Json(self.failure)).into_response()
    }
}
