// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library token`: who may use a library's servers.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use image_library::program::{Verdict, print_json, print_line};
use image_library::terminal::say;
use image_library::{
    AuditAction, AuditEvent, Authority, Error, Grant, LibraryAccess, LocalLibrary, Location,
    Result, Role, ServerName, Token, TokenId, TokenRecord,
};
use jiff::Timestamp;
use serde_json::json;

use crate::prune_command::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, this once.
    ///
    /// An agent adds images of its one server and reads none; an operator reads all; an
    /// administrator may do everything. The token also says whom its holder trusts: the library's
    /// own authority.
    Add(AddArguments),
    /// List the tokens, without their secrets.
    List {
        /// The library: a directory, or s3://BUCKET[/PREFIX].
        library: Location,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Refuse a token from now on, on every server within seconds.
    Revoke {
        /// The library: a directory, or s3://BUCKET[/PREFIX].
        library: Location,
        /// The token's id, as `token list` shows it.
        id: TokenId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// The library: a directory, or s3://BUCKET[/PREFIX].
    library: Location,
    /// What its holder may do: agent, operator or administrator.
    #[arg(long)]
    role: Role,
    /// Whose images an agent adds.
    #[arg(long, value_name = "NAME", required_if_eq("role", "agent"))]
    server: Option<ServerName>,
    /// For how long it is good: 90d, 12h. Without it: until it is revoked.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires: Option<Duration>,
    /// Write it into a new file that nobody else may read, rather than to standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Let its holder trust the authorities of its system: for servers with --certificate.
    #[arg(long)]
    system_authorities: bool,
}

impl TokenCommand {
    pub(crate) fn run(&self, access: &LibraryAccess) -> Result<Verdict> {
        match self {
            Self::Add(chosen) => chosen.run(access),
            Self::List { library, json } => list(library, access, *json),
            Self::Revoke { library, id } => revoke(library, access, *id),
        }
    }
}

impl AddArguments {
    fn run(&self, access: &LibraryAccess) -> Result<Verdict> {
        let grant = self.grant()?;
        let server = grant.server().cloned();
        let library = LocalLibrary::open_with_key(&self.library, access)?;
        let authority = if self.system_authorities {
            None
        } else {
            Some(Authority::of(&library)?.fingerprint())
        };
        let expires_at = self
            .expires
            .map(|time| Timestamp::now().saturating_add(time));
        let expires_at = expires_at.transpose().unwrap_or(Some(Timestamp::MAX));
        let token = library.add_token(grant, expires_at, authority)?;
        library.audit_local(AuditAction::AddToken, |event| AuditEvent {
            token: Some(token.id()),
            server,
            ..event
        })?;
        match &self.output {
            Some(path) => write_token(path, &token)?,
            None => print_line(&token.reveal()),
        }
        say(&format!("made token {}; it is not shown again", token.id()));
        Ok(Verdict::Done)
    }

    fn grant(&self) -> Result<Grant> {
        match (self.role, &self.server) {
            (Role::Agent, Some(server)) => Ok(Grant::Agent {
                server: server.clone(),
            }),
            (Role::Operator, None) => Ok(Grant::Operator),
            (Role::Administrator, None) => Ok(Grant::Administrator),
            (Role::Agent, None) => Err(Error::Token {
                problem: "an agent's token needs --server".to_owned(),
            }),
            (role, Some(_)) => Err(Error::Token {
                problem: format!("--server is for agents; the role {role} has none"),
            }),
        }
    }
}

fn write_token(path: &Path, token: &Token) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| {
            file.write_all(token.reveal().as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        })
        .map_err(|source| Error::File {
            action: "write the token into",
            path: path.to_owned(),
            source,
        })
}

fn list(library: &Location, access: &LibraryAccess, as_json: bool) -> Result<Verdict> {
    let library = LocalLibrary::open_with_key(library, access)?;
    let now = Timestamp::now();
    let tokens = library.tokens()?;
    if as_json {
        let rows: Vec<_> = tokens.iter().map(|token| row(token, now)).collect();
        print_json(&rows);
        return Ok(Verdict::Done);
    }
    for token in &tokens {
        let whose = token.grant.server().map(|server| format!(" of {server}"));
        print_line(&format!(
            "{}  {}{}  made {:.0}  {}",
            token.id,
            token.grant.role(),
            whose.unwrap_or_default(),
            token.created_at,
            state_text(token, now)
        ));
    }
    Ok(Verdict::Done)
}

fn state_text(token: &TokenRecord, now: Timestamp) -> String {
    match (token.revoked_at, token.expires_at) {
        (Some(time), _) => format!("revoked {time:.0}"),
        (None, Some(time)) if time <= now => format!("expired {time:.0}"),
        (None, Some(time)) => format!("good until {time:.0}"),
        (None, None) => "good".to_owned(),
    }
}

/// Without the hash of the secret: nobody needs it.
fn row(token: &TokenRecord, now: Timestamp) -> serde_json::Value {
    json!({
        "id": token.id,
        "role": token.grant.role(),
        "server": token.grant.server(),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
        "is_valid": token.is_valid_at(now),
    })
}

fn revoke(library: &Location, access: &LibraryAccess, id: TokenId) -> Result<Verdict> {
    let library = LocalLibrary::open_with_key(library, access)?;
    let revoked = library.revoke_token(id)?;
    library.audit_local(AuditAction::RevokeToken, |event| AuditEvent {
        token: Some(id),
        server: revoked.grant.server().cloned(),
        ..event
    })?;
    print_line(&format!("token {id} is refused from now on"));
    Ok(Verdict::Done)
}
