// SPDX-License-Identifier: MIT OR Apache-2.0
//! Content hashes, page by page: of any image for who may read it, and what an agent may read back
//! of its own server's latest image, with what of that the library wants again.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::access::DiskHashes;
use crate::error::Result;
use crate::id::ServerName;
use crate::manifest::leaf_count;
use crate::protocol::{HashPage, PAGE_LEAVES_MAX, WantedList, wire_hash};
use crate::server::failure::RequestFailure;
use crate::server::gate::Principal;
use crate::server::images::{bytes_response, parse_disk, parse_image_id};
use crate::server::{Shared, blocking};

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
    // Who has an upload under way is told what that was begun with: it relies on nothing else.
    let session = shared.sessions.of_server(&server, &principal);
    let page = blocking(move || {
        let of_upload = session.and_then(|session| session.latest_hashes(&disk));
        let found = of_upload.unwrap_or_else(|| shared.library.latest_hashes(&server, &disk))?;
        found
            .map(|found| hash_page(&*found, leaf, PAGE_LEAVES_MAX))
            .transpose()
    })
    .await?;
    Ok(page.map_or_else(
        || StatusCode::NO_CONTENT.into_response(),
        |page| Body::from(page.to_bytes()).into_response(),
    ))
}

#[derive(Debug, Deserialize)]
pub(super) struct Leaves {
    leaf: u64,
    /// How many; as many as a page holds where it is not said.
    leaves: Option<u64>,
}

pub(super) async fn disk_hashes(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path((id, disk)): Path<(String, String)>,
    Query(Leaves { leaf, leaves }): Query<Leaves>,
) -> Result<Response, RequestFailure> {
    let (id, disk) = (parse_image_id(&id)?, parse_disk(&disk)?);
    let page = blocking(move || {
        let open = || shared.library.disk_hashes(id, disk);
        let found = shared.hashes.get_or_open((id, disk), open)?;
        shared.note_reader(id, disk, &principal);
        hash_page(&*found, leaf, leaves.unwrap_or(PAGE_LEAVES_MAX))
    })
    .await?;
    Ok(bytes_response(page.to_bytes()))
}

pub(super) async fn wanted(
    State(shared): State<Shared>,
    Extension(principal): Extension<Principal>,
    Path(server): Path<String>,
) -> Result<Json<WantedList>, RequestFailure> {
    let server: ServerName = server
        .parse()
        .map_err(|error| RequestFailure::from(&error))?;
    principal.check_server(&server)?;
    let ranges = blocking(move || shared.library.wanted(&server)).await?;
    Ok(Json(WantedList { ranges }))
}

/// The hashes of a disk from a leaf on, of so many leaves or as many as a page holds.
fn hash_page(found: &dyn DiskHashes, first_leaf: u64, count: u64) -> Result<HashPage> {
    let leaves = leaf_count(found.chunk_count());
    let count = count.min(PAGE_LEAVES_MAX);
    let last = first_leaf.saturating_add(count).min(leaves);
    let mut hashes = Vec::new();
    for number in first_leaf..last {
        for hash in found.leaf(number)? {
            hashes.extend_from_slice(&wire_hash(hash.as_ref()));
        }
    }
    Ok(HashPage {
        image: found.image(),
        chunk_count: found.chunk_count(),
        hashes,
    })
}
