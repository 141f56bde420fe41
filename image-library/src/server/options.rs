// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server is started with: whom it lets in, how it speaks, what it bears.

use std::time::Duration;

use crate::local::LocalLibrary;
use crate::server::tls::TlsIdentity;

/// Whom a server lets in.
#[derive(Debug, Clone)]
pub enum Access {
    /// Holders of this library's tokens; what they do is written to its audit trail.
    Tokens(LocalLibrary),
    /// Everybody, as an administrator: for tests in one process. The program `image-library` has
    /// no way to ask for it, and [`super::Server::bind`] takes it on loopback addresses only.
    Everybody,
}

/// How a server speaks.
#[derive(Debug)]
pub enum Transport {
    /// HTTPS.
    Tls(Box<TlsIdentity>),
    /// HTTP; on loopback addresses only.
    Plain,
}

/// What a server bears at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once of one address (of IPv6: of one network of 64 bits).
    pub connections_per_peer: usize,
    /// Requests being answered at once; more are asked to come again.
    pub requests: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the head of a request may take, and a connection be without a request.
    pub head: Duration,
    /// How long a body may stand still while it is received, and an answer while it is sent.
    pub stall: Duration,
    /// From this time on a body must have come at [`Limits::bytes_per_second`] or more.
    pub slow_after: Duration,
    /// The slowest sender that is borne, in bytes per second on average.
    pub bytes_per_second: u64,
    /// Failed authentications of one address in a minute; further ones are not looked at.
    pub failed_authentications: u32,
    /// Uploads that may begin for one server in ten minutes, and commits that may be asked for.
    pub uploads_per_server: u32,
    /// For how long a token that was found good is not looked up again: a revoked one is refused
    /// on every server after this time at the latest.
    pub token_lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_peer: 256,
            requests: 256,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            slow_after: Duration::from_secs(60),
            bytes_per_second: 1024,
            failed_authentications: 10,
            uploads_per_server: 60,
            token_lifetime: Duration::from_secs(2),
        }
    }
}

/// All of it.
#[derive(Debug)]
pub struct ServerOptions {
    /// Whom it lets in.
    pub access: Access,
    /// How it speaks.
    pub transport: Transport,
    /// What it bears.
    pub limits: Limits,
}
