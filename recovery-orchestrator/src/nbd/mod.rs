// SPDX-License-Identifier: MIT OR Apache-2.0
//! A read-only NBD server on a unix socket: how a hypervisor reads an image without copying it.
//!
//! Fixed newstyle negotiation (`NBD_OPT_EXPORT_NAME`, `ABORT`, `LIST`, `INFO`, `GO`,
//! `STRUCTURED_REPLY`, `LIST_META_CONTEXT`, `SET_META_CONTEXT`), `READ`, `FLUSH`, `CACHE`,
//! `BLOCK_STATUS` with `base:allocation`, `DISC`. Everything that writes is refused. No TLS: the
//! socket is in a directory that only its owner may enter.
//!
//! Limits: [`CONNECTIONS_MAX`] connections, options and strings of a few KiB, reads of
//! `READ_BYTES_MAX`, `WORKER_COUNT` requests of a connection in work at a time. A client
//! that breaks the protocol gets an error, or loses its connection; never more.

mod meter;
mod negotiate;
mod protocol;
mod transmit;

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use disk::ReadAt;

use crate::error::{Error, Result};

pub use meter::{Meter, Reads};

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 32;
/// Requests of one connection in work at a time.
pub const WORKER_COUNT: usize = 4;

/// One disk that is served.
#[derive(Debug, Clone)]
pub struct Export {
    /// What the client calls it.
    pub name: String,
    /// What it reads.
    pub device: Arc<dyn ReadAt>,
    /// The smallest unit that the client should ask for, in bytes.
    pub block_size_bytes: u32,
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    exports: Vec<Export>,
    ending: AtomicBool,
    /// Each with its number, to cut them when the server ends.
    connections: Mutex<BTreeMap<u64, UnixStream>>,
}

impl Server {
    /// Listens on a socket that must not exist yet.
    pub fn start(socket: &Path, exports: Vec<Export>) -> Result<Self> {
        let listener = UnixListener::bind(socket).map_err(Error::file("listen on", socket))?;
        let shared = Arc::new(Shared {
            exports,
            ending: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        let handle = thread::Builder::new()
            .name("nbd".to_owned())
            .spawn(move || listen(&listener, &for_thread))
            .map_err(Error::file("start a thread for", socket))?;
        Ok(Self {
            socket: socket.to_owned(),
            shared,
            listener: Some(handle),
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is to end. Nothing to be done if it cannot.
        let _ = UnixStream::connect(&self.socket);
        let connections = self.shared.connections.lock();
        for connection in connections.unwrap_or_else(PoisonError::into_inner).values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn listen(listener: &UnixListener, shared: &Arc<Shared>) {
    thread::scope(|scope| {
        for stream in listener.incoming() {
            if shared.ending.load(Ordering::SeqCst) {
                break;
            }
            let Ok(stream) = stream else { continue };
            if let Some(guard) = Connection::open(shared, &stream) {
                scope.spawn(move || {
                    // A client that goes away or breaks the protocol is its own loss.
                    if let Err(error) = serve(guard.shared, stream) {
                        tracing::debug!(%error, "nbd connection ended");
                    }
                    drop(guard);
                });
            }
        }
    });
}

/// A connection that the server knows of, so that it can be cut when the server ends.
struct Connection<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Connection<'a> {
    fn open(shared: &'a Shared, stream: &UnixStream) -> Option<Self> {
        let mut connections = shared
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if connections.len() >= CONNECTIONS_MAX || shared.ending.load(Ordering::SeqCst) {
            return None;
        }
        let number = connections.last_key_value().map_or(0, |(last, _)| last + 1);
        connections.insert(number, stream.try_clone().ok()?);
        Some(Self { shared, number })
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        let connections = self.shared.connections.lock();
        connections
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

fn serve(shared: &Shared, mut stream: UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(protocol::WRITE_TIMEOUT))?;
    stream.set_read_timeout(Some(protocol::NEGOTIATION_TIMEOUT))?;
    let Some(session) = negotiate::negotiate(&mut stream, &shared.exports)? else {
        return Ok(());
    };
    stream.set_read_timeout(None)?;
    transmit::transmit(&session, stream)
}

#[cfg(test)]
mod tests;
