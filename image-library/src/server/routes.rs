// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every route of the server and who may use it, as one table. The router is made of the table, so
//! there is no route without a rule; `openapi.json` describes the same routes.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::server::Shared;
use crate::server::failure::RequestFailure;
use crate::server::{gate, hashes, images, request, service, trash, uploads};
use crate::tokens::Role;

/// The most bytes of a JSON body: an image draft with its machine description.
const JSON_BYTES_MAX: usize = 8 << 20;

const ANYBODY: &[Role] = &[];
const EVERY_ROLE: &[Role] = &[Role::Agent, Role::Operator, Role::Administrator];
const READERS: &[Role] = &[Role::Operator, Role::Administrator];
const ADMINISTRATORS: &[Role] = &[Role::Administrator];
/// An agent for its own server only, which the handlers see to.
const UPLOADERS: &[Role] = &[Role::Agent, Role::Administrator];

/// One method of one address.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: Name,
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    /// Who may use it; nobody means everybody, without a token.
    pub(super) roles: &'static [Role],
}

/// The methods that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Put,
    Post,
    Delete,
}

impl Verb {
    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Put => MethodFilter::PUT,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Describe,
    Authority,
    OpenApi,
    Metrics,
    ListImages,
    ShowImage,
    ReadDisk,
    ListExtents,
    ListDiskHashes,
    DeleteImage,
    ListTrash,
    Restore,
    ReadSideFile,
    WriteSideFile,
    ListHashes,
    ListWanted,
    BeginUpload,
    EndUpload,
    AskStates,
    PutChunks,
    PutLeaf,
    PutDisk,
    Commit,
    CommitCopy,
}

const fn route(name: Name, verb: Verb, path: &'static str, roles: &'static [Role]) -> Route {
    Route {
        name,
        verb,
        path,
        roles,
    }
}

const IMAGE: &str = "/v1/images/{id}";
const DATA: &str = "/v1/images/{id}/disks/{disk}/data";
const EXTENTS: &str = "/v1/images/{id}/disks/{disk}/extents";
const DISK_HASHES: &str = "/v1/images/{id}/disks/{disk}/hashes";
const SIDE_FILE: &str = "/v1/images/{id}/files/{name}";
const UPLOAD: &str = "/v1/uploads/{upload}";

/// The whole interface.
pub(super) const ROUTES: &[Route] = &[
    route(Name::Describe, Verb::Get, "/v1", EVERY_ROLE),
    route(Name::Authority, Verb::Get, "/v1/authority", ANYBODY),
    route(Name::OpenApi, Verb::Get, "/v1/openapi.json", ANYBODY),
    route(Name::Metrics, Verb::Get, "/metrics", READERS),
    route(Name::ListImages, Verb::Get, "/v1/images", READERS),
    route(Name::ShowImage, Verb::Get, IMAGE, READERS),
    route(Name::DeleteImage, Verb::Delete, IMAGE, ADMINISTRATORS),
    route(Name::ListTrash, Verb::Get, "/v1/trash", ADMINISTRATORS),
    route(
        Name::Restore,
        Verb::Post,
        "/v1/trash/{id}/restore",
        ADMINISTRATORS,
    ),
    route(Name::ReadDisk, Verb::Get, DATA, READERS),
    route(Name::ListExtents, Verb::Get, EXTENTS, READERS),
    route(Name::ListDiskHashes, Verb::Get, DISK_HASHES, READERS),
    route(Name::ReadSideFile, Verb::Get, SIDE_FILE, READERS),
    route(Name::WriteSideFile, Verb::Put, SIDE_FILE, READERS),
    route(
        Name::ListHashes,
        Verb::Get,
        "/v1/servers/{server}/hashes",
        EVERY_ROLE,
    ),
    route(
        Name::ListWanted,
        Verb::Get,
        "/v1/servers/{server}/wanted",
        UPLOADERS,
    ),
    route(Name::BeginUpload, Verb::Post, "/v1/uploads", UPLOADERS),
    route(Name::EndUpload, Verb::Delete, UPLOAD, UPLOADERS),
    route(
        Name::AskStates,
        Verb::Post,
        "/v1/uploads/{upload}/states",
        UPLOADERS,
    ),
    route(
        Name::PutChunks,
        Verb::Post,
        "/v1/uploads/{upload}/chunks",
        UPLOADERS,
    ),
    route(
        Name::PutLeaf,
        Verb::Put,
        "/v1/uploads/{upload}/leaves/{number}",
        UPLOADERS,
    ),
    route(
        Name::PutDisk,
        Verb::Put,
        "/v1/uploads/{upload}/disks",
        UPLOADERS,
    ),
    route(
        Name::Commit,
        Verb::Post,
        "/v1/uploads/{upload}/commit",
        UPLOADERS,
    ),
    route(
        Name::CommitCopy,
        Verb::Post,
        "/v1/uploads/{upload}/copy",
        ADMINISTRATORS,
    ),
];

fn handler(name: Name, verb: MethodFilter) -> MethodRouter<Shared> {
    match name {
        Name::Describe => on(verb, service::describe),
        Name::Authority => on(verb, service::authority),
        Name::OpenApi => on(verb, service::open_api),
        Name::Metrics => on(verb, service::metrics),
        Name::ListImages => on(verb, images::list),
        Name::ShowImage => on(verb, images::image),
        Name::ReadDisk => on(verb, images::data),
        Name::ListExtents => on(verb, images::extents),
        Name::ListDiskHashes => on(verb, hashes::disk_hashes),
        Name::DeleteImage => on(verb, trash::delete),
        Name::ListTrash => on(verb, trash::list),
        Name::Restore => on(verb, trash::restore),
        Name::ReadSideFile => on(verb, images::side_file),
        Name::WriteSideFile => on(verb, images::put_side_file),
        Name::ListHashes => on(verb, hashes::latest_hashes),
        Name::ListWanted => on(verb, hashes::wanted),
        Name::BeginUpload => on(verb, uploads::begin),
        Name::EndUpload => on(verb, uploads::end),
        Name::AskStates => on(verb, uploads::states),
        Name::PutChunks => on(verb, uploads::put_chunks),
        Name::PutLeaf => on(verb, uploads::put_leaf),
        Name::PutDisk => on(verb, uploads::put_disk),
        Name::Commit => on(verb, uploads::commit),
        Name::CommitCopy => on(verb, uploads::commit_copy),
    }
}

/// The router of the table, with what every request goes through around it.
pub(super) fn router(shared: &Shared) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let admit = middleware::from_fn_with_state((shared.clone(), route), gate::admit);
        router = router.route(
            route.path,
            handler(route.name, route.verb.filter()).route_layer(admit),
        );
    }
    router
        .fallback(|| async { RequestFailure::not_found("no such address on a library server") })
        .method_not_allowed_fallback(|| async {
            RequestFailure::invalid("this address does not take that method")
        })
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .layer(middleware::from_fn_with_state(
            shared.clone(),
            request::guard,
        ))
        .with_state(shared.clone())
}
