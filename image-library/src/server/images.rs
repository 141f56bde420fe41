// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading images: documents, ranges of disks, what is a hole, side files.
//!
//! Limits: one answer holds at most 4 MiB of a disk or one page of extents; a fixed number of
//! disks is kept open, the one not used for longest is closed. Hashes are beside, in
//! [`super::hashes`].

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use disk::ReadAt;
use disk::block::ExtentKind;
use serde::Deserialize;

use crate::audit::{AuditAction, AuditEvent};
use crate::document::Image;
use crate::error::Result;
use crate::id::{DiskIndex, ImageId};
use crate::protocol::{
    ExtentPage, HASH_HEADER, PAGE_EXTENTS_MAX, READ_BYTES_MAX, SIDE_FILE_BYTES_MAX, WireExtent,
};
use crate::server::failure::RequestFailure;
use crate::server::gate::Principal;
use crate::server::{Shared, blocking};

/// How many disks, and the hashes of how many, are kept open.
const OPENED_MAX: usize = 32;
/// The most steps that one page of extents takes.
const PAGE_STEPS_MAX: usize = 65_536;

/// What was opened lately of disks, the last used last.
#[derive(Debug)]
pub(super) struct Opened<T: ?Sized>(Mutex<Vec<(DiskKey, Arc<T>)>>);

/// Which disk.
type DiskKey = (ImageId, DiskIndex);

impl<T: ?Sized> Default for Opened<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: ?Sized> Opened<T> {
    /// What is open, or what `open` opens: it may take its time, nobody waits for it.
    pub(super) fn get_or_open(
        &self,
        key: DiskKey,
        open: impl FnOnce() -> Result<Arc<T>>,
    ) -> Result<Arc<T>> {
        if let Some(known) = self.get(key) {
            return Ok(known);
        }
        let opened = open()?;
        self.put(key, Arc::clone(&opened));
        Ok(opened)
    }

    fn get(&self, key: DiskKey) -> Option<Arc<T>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = open.iter().position(|(known, _)| *known == key)?;
        let entry = open.remove(position);
        let found = Arc::clone(&entry.1);
        open.push(entry);
        Some(found)
    }

    fn put(&self, key: DiskKey, opened: Arc<T>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(known, _)| *known != key);
        if open.len() >= OPENED_MAX {
            open.remove(0);
        }
        open.push((key, opened));
    }
}

impl Shared {
    fn device(
        &self,
        id: ImageId,
        disk: DiskIndex,
        principal: &Principal,
    ) -> Result<Arc<dyn ReadAt>> {
        let open = || self.library.open_disk(id, disk);
        let device = self.devices.get_or_open((id, disk), open)?;
        self.note_reader(id, disk, principal);
        Ok(device)
    }

    /// Tells the audit trail who reads a disk or its hashes, once in a while.
    pub(super) fn note_reader(&self, id: ImageId, disk: DiskIndex, principal: &Principal) {
        if self.readers.count(&(principal.token, id, disk)) {
            self.audit(principal, AuditAction::OpenDisk, |event| AuditEvent {
                image: Some(id),
                disk: Some(disk),
                ..event
            });
        }
    }
}

pub(super) fn parse_image_id(text: &str) -> Result<ImageId, RequestFailure> {
    text.parse().map_err(|error| RequestFailure::from(&error))
}

pub(super) fn parse_disk(text: &str) -> Result<DiskIndex, RequestFailure> {
    text.parse()
        .map(DiskIndex)
        .map_err(|_| RequestFailure::invalid(format!("not the number of a disk: {text:?}")))
}

pub(super) async fn list(State(shared): State<Shared>) -> Result<Json<Vec<Image>>, RequestFailure> {
    blocking(move || shared.library.images()).await.map(Json)
}

pub(super) async fn image(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Image>, RequestFailure> {
    let id = parse_image_id(&id)?;
    blocking(move || shared.library.image(id)).await.map(Json)
}

/// `bytes=a-b`, both ends there; other forms are not needed by any client of ours.
fn parse_range(headers: &HeaderMap) -> Result<(u64, u64), RequestFailure> {
    let text = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| RequestFailure::invalid("a Range header of the form bytes=a-b is needed"))?;
    let parsed = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)))
        .filter(|(first, last): &(u64, u64)| first <= last);
    parsed.ok_or_else(|| {
        RequestFailure::invalid(format!(
            "expected a Range of the form bytes=a-b, found {text:?}"
        ))
    })
}

pub(super) async fn data(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path((id, disk)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, RequestFailure> {
    let (id, disk) = (parse_image_id(&id)?, parse_disk(&disk)?);
    let (first, last) = parse_range(&headers)?;
    let metrics = Arc::clone(&shared.metrics);
    let read = blocking(move || {
        let device = shared.device(id, disk, &principal)?;
        let disk_bytes = device.length_bytes();
        if first >= disk_bytes {
            return Ok((disk_bytes, Vec::new()));
        }
        let length = (last - first)
            .saturating_add(1)
            .min(disk_bytes - first)
            .min(READ_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        device.read_exact_at(first, &mut bytes)?;
        Ok((disk_bytes, bytes))
    });
    let (disk_bytes, bytes) = read.await?;
    if bytes.is_empty() {
        return Err(RequestFailure::out_of_range(format!(
            "byte {first} is past the end of a disk of {disk_bytes} bytes"
        )));
    }
    metrics.read_bytes.add(bytes.len() as u64);
    let end = first.saturating_add(bytes.len() as u64).saturating_sub(1);
    let range = format!("bytes {first}-{end}/{disk_bytes}");
    let mut response = bytes_response(bytes);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    if let Ok(value) = range.parse() {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

/// Bytes with their hash.
pub(super) fn bytes_response(bytes: Vec<u8>) -> Response {
    let hash = blake3::hash(&bytes).to_hex().to_string();
    let headers = [
        (HASH_HEADER, hash),
        ("content-type", "application/octet-stream".to_owned()),
    ];
    (headers, Body::from(bytes)).into_response()
}

#[derive(Debug, Deserialize)]
pub(super) struct From {
    from: u64,
}

pub(super) async fn extents(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path((id, disk)): Path<(String, String)>,
    Query(From { from }): Query<From>,
) -> Result<Json<ExtentPage>, RequestFailure> {
    let (id, disk) = (parse_image_id(&id)?, parse_disk(&disk)?);
    blocking(move || extent_page(&*shared.device(id, disk, &principal)?, from))
        .await
        .map(Json)
}

fn extent_page(device: &dyn ReadAt, from: u64) -> Result<ExtentPage> {
    let disk_bytes = device.length_bytes();
    let mut extents: Vec<WireExtent> = Vec::new();
    let mut offset = from;
    for _ in 0..PAGE_STEPS_MAX {
        if offset >= disk_bytes {
            break;
        }
        let extent = device.extent_at(offset)?;
        let length = extent.length.clamp(1, disk_bytes - offset);
        let zero = extent.kind == ExtentKind::Zero;
        let is_full = extents.len() >= PAGE_EXTENTS_MAX;
        match extents.last_mut() {
            Some(last) if last.zero == zero => last.length = last.length.saturating_add(length),
            Some(_) if is_full => break,
            _ => extents.push(WireExtent { length, zero }),
        }
        offset = offset.saturating_add(length);
    }
    Ok(ExtentPage {
        disk_bytes,
        extents,
    })
}

pub(super) async fn side_file(
    State(shared): State<Shared>,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, RequestFailure> {
    let id = parse_image_id(&id)?;
    let shown = name.clone();
    blocking(move || shared.library.side_file(id, &name))
        .await?
        .map(bytes_response)
        .ok_or_else(|| RequestFailure::not_found(format!("image {id} has no file {shown:?}")))
}

pub(super) async fn put_side_file(
    State(shared): State<Shared>,
    Path((id, name)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, RequestFailure> {
    let id = parse_image_id(&id)?;
    let content = axum::body::to_bytes(request.into_body(), SIDE_FILE_BYTES_MAX)
        .await
        .map_err(|_| RequestFailure::too_large("the side file", SIDE_FILE_BYTES_MAX))?;
    blocking(move || shared.library.put_side_file(id, &name, &content)).await?;
    Ok(StatusCode::NO_CONTENT)
}
