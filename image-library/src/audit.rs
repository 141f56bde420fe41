// SPDX-License-Identifier: MIT OR Apache-2.0
//! The audit trail: who did what with a library, when, from where, and what became of it.
//!
//! One sealed record for each event, `audit/<day>/<UUID of version 7>`; records are created and
//! never written again. Only what holders of a token and local commands do stands here: whoever
//! has no token cannot fill the store.

use std::net::IpAddr;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::id::{DiskIndex, ImageId, ServerName};
use crate::local::LocalLibrary;
use crate::store::names;
use crate::token::TokenId;
use crate::tokens::Role;

/// Longest record of an event, in bytes.
const RECORD_LENGTH_MAX: u64 = 64 << 10;
/// The longest reason of a refusal that is kept, in characters.
const PROBLEM_LENGTH_MAX: usize = 500;

/// What was done, or tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditAction {
    /// An upload began.
    BeginUpload,
    /// An upload asked for its commit.
    Commit,
    /// A disk was opened for reading; the next reads of the same disk are not told.
    OpenDisk,
    /// An image went into the trash.
    DeleteImage,
    /// An image was taken back from the trash.
    UndeleteImage,
    /// A token was made.
    AddToken,
    /// A token was revoked.
    RevokeToken,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AuditActor {
    /// Whoever ran a command on the library's directory.
    Local,
    /// The holder of a token.
    Token {
        /// Which token.
        id: TokenId,
        /// What it allowed.
        role: Role,
        /// From which address.
        peer: IpAddr,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was not.
    Refused {
        /// Why not.
        problem: String,
    },
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When, by the library's clock.
    pub at: Timestamp,
    /// Who.
    pub actor: AuditActor,
    /// What.
    pub action: AuditAction,
    /// The server that it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// The image that it was about, or that came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageId>,
    /// The disk of that image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskIndex>,
    /// The token that it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: AuditOutcome,
}

impl AuditEvent {
    /// Something that was done, about nothing yet.
    #[must_use]
    pub const fn done(at: Timestamp, actor: AuditActor, action: AuditAction) -> Self {
        Self {
            at,
            actor,
            action,
            server: None,
            image: None,
            disk: None,
            token: None,
            outcome: AuditOutcome::Done,
        }
    }

    /// The same, but it was refused.
    #[must_use]
    pub fn refused(self, problem: &str) -> Self {
        let problem = problem.chars().take(PROBLEM_LENGTH_MAX).collect();
        Self {
            outcome: AuditOutcome::Refused { problem },
            ..self
        }
    }
}

impl LocalLibrary {
    /// Keeps an event for good.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the store cannot be written.
    pub fn audit(&self, event: &AuditEvent) -> Result<()> {
        let json = serde_json::to_vec(event).map_err(|source| Error::Encode {
            what: "audit event",
            source,
        })?;
        let day = day(event.at);
        let name = format!("{}{day}/{}", names::AUDIT, Uuid::now_v7());
        self.core().create_record(&name, &json)?;
        Ok(())
    }

    /// Keeps what a local command did.
    ///
    /// # Errors
    ///
    /// Those of [`LocalLibrary::audit`].
    pub fn audit_local(
        &self,
        action: AuditAction,
        about: impl FnOnce(AuditEvent) -> AuditEvent,
    ) -> Result<()> {
        let event = AuditEvent::done(self.now(), AuditActor::Local, action);
        self.audit(&about(event))
    }

    /// Shows every event since a time, in the order in which they were kept; gives the number of
    /// records that could not be read.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the store cannot be read.
    pub fn audit_events(
        &self,
        since: Option<Timestamp>,
        show: &mut dyn FnMut(&AuditEvent),
    ) -> Result<u64> {
        let core = self.core();
        let first_day = since.map(day);
        let mut damaged = 0;
        for stored in core.store.list(names::AUDIT)? {
            let name = &*stored.name;
            let Some((day, _)) = name[names::AUDIT.len()..].split_once('/') else {
                continue;
            };
            if first_day.as_deref().is_some_and(|first| day < first) {
                continue;
            }
            match self.audit_event(name) {
                Ok(Some(event)) if since.is_none_or(|since| event.at >= since) => show(&event),
                Ok(_) => {}
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                    tracing::warn!(name, %error, "an audit record cannot be read");
                    damaged += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    fn audit_event(&self, name: &str) -> Result<Option<AuditEvent>> {
        let Some(json) = self.core().record(name, RECORD_LENGTH_MAX)? else {
            return Ok(None);
        };
        let corrupt =
            |error: serde_json::Error| Error::corrupt("audit event", name, 64, error.to_string());
        serde_json::from_slice(&json).map(Some).map_err(corrupt)
    }
}

fn day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InitOptions;

    #[test]
    fn events_are_listed_from_a_time_on_and_a_damaged_one_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("library");
        let library = LocalLibrary::init(&path, &InitOptions::default()).unwrap();
        let event = |at: &str| {
            let actor = AuditActor::Local;
            AuditEvent::done(at.parse().unwrap(), actor, AuditAction::DeleteImage)
        };
        let old = event("2026-11-01T10:00:00Z");
        let new = event("2026-11-03T10:00:00Z").refused("it is protected");
        library.audit(&old).unwrap();
        library.audit(&new).unwrap();
        let listed = |since: Option<&str>| {
            let mut events = Vec::new();
            let since = since.map(|since| since.parse().unwrap());
            let mut keep = |event: &AuditEvent| events.push(event.clone());
            let damaged = library.audit_events(since, &mut keep).unwrap();
            (events, damaged)
        };
        assert_eq!(listed(None), (vec![old, new.clone()], 0));
        assert_eq!(listed(Some("2026-11-02T00:00:00Z")), (vec![new.clone()], 0));
        assert_eq!(listed(Some("2026-11-03T11:00:00Z")), (vec![], 0));

        let day = path.join("audit/2026-11-01");
        let record = day.read_dir().unwrap().next().unwrap().unwrap().path();
        std::fs::write(record, "garbage").unwrap();
        assert_eq!(listed(None), (vec![new], 1));
    }
}
