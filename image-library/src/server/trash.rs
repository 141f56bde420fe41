// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deleting images and taking them back, for administrators. What is deleted stays in the trash for
//! the grace of the next prunes, which run beside the library and not through its server.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use crate::audit::{AuditAction, AuditEvent};
use crate::document::Image;
use crate::error::Result;
use crate::id::ImageId;
use crate::local::LocalLibrary;
use crate::server::failure::RequestFailure;
use crate::server::gate::Principal;
use crate::server::images::parse_image_id;
use crate::server::{Shared, blocking};

/// An image in the trash.
#[derive(Debug, Serialize)]
pub(super) struct TrashEntry {
    image: Image,
    deleted_at: Timestamp,
}

impl Shared {
    /// Only a library that this server opened itself can delete.
    fn local(&self) -> Result<LocalLibrary, RequestFailure> {
        let library = self.gate.library();
        library.cloned().ok_or_else(|| {
            RequestFailure::not_found("this server was not started for administration")
        })
    }
}

pub(super) async fn list(
    State(shared): State<Shared>,
) -> Result<Json<Vec<TrashEntry>>, RequestFailure> {
    let library = shared.local()?;
    let deleted = blocking(move || library.deleted_images()).await?;
    let entries = deleted.into_iter().map(|deleted| TrashEntry {
        image: deleted.image,
        deleted_at: deleted.deleted_at,
    });
    Ok(Json(entries.collect()))
}

pub(super) async fn delete(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<StatusCode, RequestFailure> {
    let id = parse_image_id(&id)?;
    let library = shared.local()?;
    let move_away = move || library.delete_image(id);
    change(shared, principal, AuditAction::DeleteImage, id, move_away).await
}

pub(super) async fn restore(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<StatusCode, RequestFailure> {
    let id = parse_image_id(&id)?;
    let library = shared.local()?;
    let take_back = move || library.undelete_image(id);
    change(shared, principal, AuditAction::UndeleteImage, id, take_back).await
}

/// Does it, and writes what became of it to the audit trail.
async fn change(
    shared: Shared,
    principal: Principal,
    action: AuditAction,
    id: ImageId,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<StatusCode, RequestFailure> {
    blocking(move || {
        let done = work();
        shared.audit(&principal, action, |event| {
            let event = AuditEvent {
                image: Some(id),
                ..event
            };
            match &done {
                Ok(()) => event,
                Err(error) => event.refused(&error.to_string()),
            }
        });
        done
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
