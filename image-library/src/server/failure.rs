// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request that is not done: status, stable code, message and hint.

use std::io;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::error::Error;
use crate::protocol::{DAMAGED, Failure, NOT_FOUND, UNKNOWN_UPLOAD};
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

    /// The server is about to end.
    pub(super) fn stopping() -> Self {
        let message = "the library server is being stopped";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message)
    }

    /// The request shows no token.
    pub(super) fn no_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "no-token", "a token is needed").with_hint(
            "an administrator makes one with `image-library token add`; name its file with \
             --token-file or RELEVO_TOKEN_FILE",
        )
    }

    /// No such token; the same whether its id or its secret is wrong.
    pub(super) fn unknown_token() -> Self {
        let message = "the token is not one of this library";
        Self::new(StatusCode::UNAUTHORIZED, "unknown-token", message)
            .with_hint("use the token that was made for this library")
    }

    /// A token that was good once.
    pub(super) fn token_is_over(is_revoked: bool) -> Self {
        let message = if is_revoked {
            "the token was revoked"
        } else {
            "the token has expired"
        };
        Self::new(StatusCode::UNAUTHORIZED, "token-over", message)
            .with_hint("ask an administrator of the library for a new one")
    }

    /// Tokens of this address are not looked at for now.
    pub(super) fn too_many_failures() -> Self {
        let message = "too many wrong tokens came from this address";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-failures", message)
            .with_hint("wait a minute, then use a good token")
    }

    /// Too often in a while.
    pub(super) fn too_often(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-often", message)
    }

    /// The token is good, but not for this.
    pub(super) fn forbidden(message: String, hint: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message).with_hint(hint)
    }

    /// What the framework refused in its own words. How it failed itself is nobody's business.
    pub(super) fn in_other_words(status: StatusCode, message: String) -> Self {
        let code = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "too-large",
            status if status.is_client_error() => "invalid",
            _ => return Self::internal(),
        };
        Self::new(status, code, message)
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.failure.hint = Some(hint.into());
        self
    }

    /// The reason, for the audit trail.
    pub(super) fn message(&self) -> &str {
        &self.failure.message
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
            Error::File { source, .. } if is_no_space(source) => {
                (StatusCode::INSUFFICIENT_STORAGE, "no-space")
            }
            error if error.proves_damage() => (StatusCode::INTERNAL_SERVER_ERROR, DAMAGED),
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

fn is_no_space(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

impl IntoResponse for RequestFailure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.failure)).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
            }
            _ => {}
        }
        response
    }
}
