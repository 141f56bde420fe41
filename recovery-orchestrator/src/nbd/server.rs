// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server: where it listens, its connections, and their end.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::budget::Budget;
use super::channel::Channel;
use super::negotiate::{Outcome, Session, Terms, greet, negotiate};
use super::protocol::{WRITE_TIMEOUT, broken};
use super::socket::{Listener, Socket, SocketFile, listen_tcp, listen_unix};
use super::transmit::transmit;
use super::{Export, uri};
use crate::error::{Error, Result};

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 32;
/// After an error of accepting (too many open files) nothing is accepted for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What replies that cannot be divided may take together, in bytes.
const WHOLE_REPLY_BYTES: u64 = 64 << 20;

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a negotiation as a whole, the TLS handshake in it.
    pub(super) negotiation: Duration,
    /// For a pause within a request.
    pub(super) stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            negotiation: Duration::from_secs(30),
            stall: Duration::from_secs(60),
        }
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// An address and port.
    Tcp {
        /// Both; the port is never 0.
        address: SocketAddr,
        /// Whether clients must speak TLS.
        tls: bool,
    },
}

impl Endpoint {
    /// The NBD URI of an export.
    #[must_use]
    pub fn uri(&self, export: &str) -> String {
        match self {
            Self::Unix(path) => uri::unix(path, export),
            Self::Tcp { address, tls } => uri::tcp(*address, *tls, export),
        }
    }
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
struct Shared {
    listener: Listener,
    exports: Vec<Export>,
    tls: Option<Arc<ServerConfig>>,
    patience: Patience,
    whole_replies: Budget,
    ending: AtomicBool,
    /// Each with its number, to cut them when the server ends.
    connections: Mutex<BTreeMap<u64, Socket>>,
}

impl Server {
    /// Serves on a unix socket. One that nobody listens on any more is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] with a hint when something else is in the way, [`Error::File`] when the
    /// socket cannot be made.
    pub fn start(socket: &Path, exports: Vec<Export>) -> Result<Self> {
        Self::start_with(socket, exports, Patience::default())
    }

    pub(super) fn start_with(
        socket: &Path,
        exports: Vec<Export>,
        patience: Patience,
    ) -> Result<Self> {
        let (listener, file) = listen_unix(socket)?;
        let endpoint = Endpoint::Unix(socket.to_owned());
        let shared = Shared::new(listener, exports, None, patience);
        Self::run(endpoint, shared, Some(file))
    }

    /// Serves on a TCP address, to clients that speak TLS; without `tls`, which is allowed on
    /// loopback addresses only, to those that do not. Port 0 is one that is free.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] with a hint.
    pub fn start_tcp(
        address: SocketAddr,
        tls: Option<ServerConfig>,
        exports: Vec<Export>,
    ) -> Result<Self> {
        if tls.is_none() && !address.ip().is_loopback() {
            return Err(Error::Request {
                problem: format!("without TLS a disk is not served on {address}"),
                hint: Some(
                    "give a certificate and its private key, or a loopback address".to_owned(),
                ),
            });
        }
        let (listener, address) = listen_tcp(address)?;
        let endpoint = Endpoint::Tcp {
            address,
            tls: tls.is_some(),
        };
        let shared = Shared::new(listener, exports, tls.map(Arc::new), Patience::default());
        Self::run(endpoint, shared, None)
    }

    fn run(endpoint: Endpoint, shared: Shared, file: Option<SocketFile>) -> Result<Self> {
        let shared = Arc::new(shared);
        let for_thread = Arc::clone(&shared);
        let handle = thread::Builder::new()
            .name("nbd".to_owned())
            .spawn(move || for_thread.listen())
            .map_err(|error| Error::Request {
                problem: format!("cannot start a thread to serve disks: {error}"),
                hint: None,
            })?;
        Ok(Self {
            endpoint,
            shared,
            thread: Some(handle),
            _file: file,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.listener.shut_down();
        for connection in self.shared.connections().values() {
            connection.cut();
        }
        if let Some(thread) = self.thread.take() {
            // An error is a panic, which has been told already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn new(
        listener: Listener,
        exports: Vec<Export>,
        tls: Option<Arc<ServerConfig>>,
        patience: Patience,
    ) -> Self {
        Self {
            listener,
            exports,
            tls,
            patience,
            whole_replies: Budget::new(WHOLE_REPLY_BYTES),
            ending: AtomicBool::new(false),
            connections: Mutex::default(),
        }
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, Socket>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self) {
        thread::scope(|scope| {
            while !self.ending.load(Ordering::SeqCst) {
                let socket = match self.listener.accept() {
                    Ok(socket) => socket,
                    Err(_) if self.ending.load(Ordering::SeqCst) => break,
                    Err(error) => {
                        tracing::debug!(%error, "an nbd connection could not be taken");
                        thread::sleep(ACCEPT_PAUSE);
                        continue;
                    }
                };
                let Some(place) = Place::take(self, &socket) else {
                    continue;
                };
                let serve = move || {
                    // A client that goes away or breaks the protocol is its own loss.
                    if let Err(error) = self.serve(socket) {
                        tracing::debug!(%error, "an nbd connection ended");
                    }
                    drop(place);
                };
                let thread = thread::Builder::new().name("nbd client".to_owned());
                if let Err(error) = thread.spawn_scoped(scope, serve) {
                    tracing::warn!(%error, "no thread for an nbd connection");
                }
            }
        });
    }

    fn serve(&self, mut socket: Socket) -> io::Result<()> {
        socket.set_deadline(Some(Instant::now() + self.patience.negotiation));
        socket.set_write_timeout(Some(self.patience.negotiation))?;
        let Some((session, mut channel)) = self.agree(socket)? else {
            return Ok(());
        };
        let socket = channel.receiver.socket();
        socket.set_deadline(None);
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        transmit(&session, &self.whole_replies, self.patience.stall, channel)
    }

    /// Talks until the client has chosen an export; `None` when it left.
    fn agree(&self, mut socket: Socket) -> io::Result<Option<(Session<'_>, Channel)>> {
        let mut terms = Terms::new(&self.exports, self.tls.is_some(), greet(&mut socket)?);
        match negotiate(&mut socket, terms)? {
            Outcome::Chosen(session) => return Ok(Some((session, Channel::plain(socket)?))),
            Outcome::Left => return Ok(None),
            Outcome::StartTls => {}
        }
        let config = self.tls.as_ref().ok_or_else(|| broken("there is no TLS"))?;
        let mut channel = Channel::tls(socket, Arc::clone(config))?;
        // Everything that was agreed on before is forgotten: this begins anew.
        terms = terms.within_tls();
        match negotiate(&mut channel, terms)? {
            Outcome::Chosen(session) => Ok(Some((session, channel))),
            Outcome::Left | Outcome::StartTls => Ok(None),
        }
    }
}

/// A place among the connections; free again when dropped.
struct Place<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Place<'a> {
    fn take(shared: &'a Shared, socket: &Socket) -> Option<Self> {
        let mut connections = shared.connections();
        if connections.len() >= CONNECTIONS_MAX || shared.ending.load(Ordering::SeqCst) {
            return None;
        }
        let number = connections.last_key_value().map_or(0, |(last, _)| last + 1);
        connections.insert(number, socket.try_clone().ok()?);
        Some(Self { shared, number })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.connections().remove(&self.number);
    }
}
