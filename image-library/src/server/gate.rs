// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is let in: every request to a route that is not for everybody shows a token, and the token's
//! role has to be one of the route's.
//!
//! Tokens are looked up in the library and remembered for a few seconds. Who fails too often is
//! not looked at for a minute; tokens of the same address that were good lately still are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use crate::audit::{AuditAction, AuditActor, AuditEvent};
use crate::id::ServerName;
use crate::local::LocalLibrary;
use crate::server::connections::Peer;
use crate::server::failure::RequestFailure;
use crate::server::metrics::Metrics;
use crate::server::options::{Access, Limits};
use crate::server::rate::{RateLimit, counted_as};
use crate::server::routes::Route;
use crate::server::{Shared, blocking};
use crate::token::{Token, TokenId};
use crate::tokens::{Grant, Role, TokenRecord};

/// Tokens that are remembered; with more, they are looked up more often.
const KNOWN_MAX: usize = 4096;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    /// `None` where everybody is let in.
    pub(super) token: Option<TokenId>,
    pub(super) grant: Grant,
    pub(super) peer: IpAddr,
}

impl Principal {
    /// An agent knows its own server only. The answer is the same whether or not the other exists.
    pub(super) fn check_server(&self, server: &ServerName) -> Result<(), RequestFailure> {
        match self.grant.server() {
            Some(own) if own != server => Err(RequestFailure::forbidden(
                "this token is for images of another server".to_owned(),
                format!("it is the token of the agent of {own}"),
            )),
            _ => Ok(()),
        }
    }

    /// Whether the uploads that `other` began may be gone on with: its own, or those of the same
    /// agent, which may have got another token meanwhile.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_same_agent = self.grant.server().is_some() && self.grant == other.grant;
        self.token == other.token || is_same_agent
    }

    /// An event of the audit trail; none where nobody is asked who he is.
    pub(super) fn event(&self, at: Timestamp, action: AuditAction) -> Option<AuditEvent> {
        let actor = AuditActor::Token {
            id: self.token?,
            role: self.grant.role(),
            peer: self.peer,
        };
        Some(AuditEvent::done(at, actor, action))
    }
}

/// Decides who is let in.
#[derive(Debug)]
pub(super) struct Gate {
    access: Access,
    lifetime: Duration,
    known: Mutex<HashMap<TokenId, (Instant, Arc<TokenRecord>)>>,
    failures: RateLimit<IpAddr>,
}

impl Gate {
    pub(super) fn new(access: Access, limits: &Limits) -> Self {
        Self {
            access,
            lifetime: limits.token_lifetime,
            known: Mutex::default(),
            failures: RateLimit::new(limits.failed_authentications, FAILURE_WINDOW),
        }
    }

    /// The library whose tokens these are, where there are tokens.
    pub(super) const fn library(&self) -> Option<&LocalLibrary> {
        match &self.access {
            Access::Tokens(library) => Some(library),
            Access::Everybody => None,
        }
    }

    /// Whose request it is.
    async fn identify(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        metrics: &Metrics,
    ) -> Result<Principal, RequestFailure> {
        let Some(library) = self.library() else {
            return Ok(Principal {
                token: None,
                grant: Grant::Administrator,
                peer,
            });
        };
        let failed = |failure| {
            metrics.failed_authentications.increment();
            self.failures.count(&counted_as(peer));
            failure
        };
        let token = shown_token(headers)?.ok_or_else(|| failed(RequestFailure::unknown_token()))?;
        let record = match self.remembered(&token.id()) {
            Some(record) => Some(record),
            None if self.failures.is_exhausted(&counted_as(peer)) => {
                metrics.failed_authentications.increment();
                return Err(RequestFailure::too_many_failures());
            }
            None => self.look_up(library.clone(), token.id()).await?,
        };
        let record = record
            .filter(|record| record.is_of(&token))
            .ok_or_else(|| failed(RequestFailure::unknown_token()))?;
        // Only who has the secret is told more than that it is no use.
        if !record.is_valid_at(library.now()) {
            return Err(failed(RequestFailure::token_is_over(
                record.revoked_at.is_some(),
            )));
        }
        Ok(Principal {
            token: Some(record.id),
            grant: record.grant.clone(),
            peer,
        })
    }

    fn remembered(&self, id: &TokenId) -> Option<Arc<TokenRecord>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, record) = known.get(id)?;
        (since.elapsed() < self.lifetime).then(|| Arc::clone(record))
    }

    async fn look_up(
        &self,
        library: LocalLibrary,
        id: TokenId,
    ) -> Result<Option<Arc<TokenRecord>>, RequestFailure> {
        let asked_at = Instant::now();
        let Some(record) = blocking(move || library.token(&id)).await?.map(Arc::new) else {
            return Ok(None);
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(id, (asked_at, Arc::clone(&record)));
        Ok(Some(record))
    }
}

/// The token of a request; `Ok(None)` when what it shows is none.
fn shown_token(headers: &HeaderMap) -> Result<Option<Token>, RequestFailure> {
    let shown = headers
        .get(AUTHORIZATION)
        .ok_or_else(RequestFailure::no_token)?;
    let text = shown.to_str().unwrap_or_default();
    let token = text.split_once(' ').and_then(|(scheme, token)| {
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.parse().ok())?
    });
    Ok(token)
}

/// Before each route: lets in who may, and tells the handler who it is.
pub(super) async fn admit(
    State((shared, route)): State<(Shared, &'static Route)>,
    mut request: Request,
    next: Next,
) -> Response {
    if route.roles.is_empty() {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>();
    let Some(peer) = peer.map(|peer| peer.0) else {
        return RequestFailure::internal().into_response();
    };
    let identified = shared
        .gate
        .identify(request.headers(), peer, &shared.metrics);
    let principal = match identified.await {
        Ok(principal) => principal,
        Err(failure) => return failure.into_response(),
    };
    let mut response = if route.roles.contains(&principal.grant.role()) {
        request.extensions_mut().insert(principal.clone());
        next.run(request).await
    } else {
        forbidden(principal.grant.role(), route.roles).into_response()
    };
    // For the log.
    response.extensions_mut().insert(principal);
    response
}

fn forbidden(role: Role, roles: &[Role]) -> RequestFailure {
    let needed: Vec<String> = roles.iter().map(ToString::to_string).collect();
    RequestFailure::forbidden(
        format!("a token with the role {role} may not do this"),
        format!("use a token with the role {}", needed.join(" or ")),
    )
}
