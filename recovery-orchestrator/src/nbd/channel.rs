// SPDX-License-Identifier: MIT OR Apache-2.0
//! A connection in two halves, plain or within TLS: one thread reads while others write.
//!
//! TLS is one state for both directions. It is locked only while bytes are sealed or opened, never
//! while a socket is waited for: a client that does not read can still be heard. What is sealed
//! goes out in order because whoever writes has the only writing half.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::{ServerConfig, ServerConnection};

use super::protocol::broken;
use super::socket::Socket;

/// What is taken from a socket at a time: one TLS record and its head.
const RECEIVE_BYTES: usize = 17 << 10;
/// What is sealed at a time; rustls holds no more than 64 KiB.
const SEAL_BYTES: usize = 48 << 10;

/// The reading half.
#[derive(Debug)]
pub(super) enum Receiver {
    Plain(Socket),
    Tls(TlsReceiver),
}

impl Receiver {
    /// Below everything: to set times.
    pub(super) fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(half) => &mut half.socket,
        }
    }
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(half) => half.read(buffer),
        }
    }
}

/// The writing half.
#[derive(Debug)]
pub(super) enum Sender {
    Plain(Socket),
    Tls(TlsSender),
}

impl Sender {
    /// Says goodbye where TLS has a word for it, and ends the connection.
    pub(super) fn finish(&mut self) {
        if let Self::Tls(half) = self {
            // Whoever has gone already does not hear it.
            let _ = half.say_goodbye();
        }
        self.cut();
    }

    /// Ends the connection at once.
    pub(super) fn cut(&self) {
        match self {
            Self::Plain(socket) => socket.cut(),
            Self::Tls(half) => half.socket.cut(),
        }
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(half) => half.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both halves, for the negotiation, in which one thread does everything.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
}

impl Channel {
    pub(super) fn plain(socket: Socket) -> io::Result<Self> {
        Ok(Self {
            sender: Sender::Plain(socket.try_clone()?),
            receiver: Receiver::Plain(socket),
        })
    }

    /// The TLS handshake, on a socket of which nothing has been read ahead: what a client sent
    /// together with its wish for TLS is taken for a part of the handshake, and fails it.
    pub(super) fn tls(mut socket: Socket, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let connection = Arc::new(Mutex::new(connection));
        Ok(Self {
            sender: Sender::Tls(TlsSender {
                socket: socket.try_clone()?,
                connection: Arc::clone(&connection),
            }),
            receiver: Receiver::Tls(TlsReceiver {
                socket,
                connection,
                sealed: vec![0; RECEIVE_BYTES].into_boxed_slice(),
                pending: 0..0,
            }),
        })
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receiver.read(buffer)
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sender.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading half within TLS.
#[derive(Debug)]
pub(super) struct TlsReceiver {
    socket: Socket,
    connection: Arc<Mutex<ServerConnection>>,
    /// What came from the socket; `pending` is the part of it that has not been opened yet.
    sealed: Box<[u8]>,
    pending: std::ops::Range<usize>,
}

impl Read for TlsReceiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match locked(&self.connection).reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Bytes, a goodbye (0), or an end without one.
                known => return known,
            }
            if self.pending.is_empty() {
                let count = self.socket.read(&mut self.sealed)?;
                self.pending = 0..count;
            }
            self.open_pending()?;
        }
    }
}

impl TlsReceiver {
    /// Hands over what is pending; when that is nothing, rustls is told that nothing more comes.
    fn open_pending(&mut self) -> io::Result<()> {
        let mut bytes = self.sealed.get(self.pending.clone()).unwrap_or_default();
        let mut connection = locked(&self.connection);
        let taken = connection.read_tls(&mut bytes)?;
        self.pending.start = self.pending.end.min(self.pending.start + taken);
        connection
            .process_new_packets()
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(())
    }
}

/// The writing half within TLS.
#[derive(Debug)]
pub(super) struct TlsSender {
    socket: Socket,
    connection: Arc<Mutex<ServerConnection>>,
}

impl TlsSender {
    fn say_goodbye(&mut self) -> io::Result<()> {
        let mut connection = locked(&self.connection);
        connection.send_close_notify();
        let sealed = take_sealed(&mut connection)?;
        drop(connection);
        self.socket.write_all(&sealed)
    }
}

impl Write for TlsSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..SEAL_BYTES).unwrap_or(bytes);
        let mut connection = locked(&self.connection);
        let count = connection.writer().write(piece)?;
        let sealed = take_sealed(&mut connection)?;
        drop(connection);
        if count == 0 && !piece.is_empty() {
            return Err(broken("TLS takes nothing more"));
        }
        self.socket.write_all(&sealed)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn locked(connection: &Mutex<ServerConnection>) -> MutexGuard<'_, ServerConnection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_sealed(connection: &mut ServerConnection) -> io::Result<Vec<u8>> {
    let mut sealed = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut sealed)?;
    }
    Ok(sealed)
}
