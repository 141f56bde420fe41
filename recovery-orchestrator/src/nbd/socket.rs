// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets of both kinds: where the server listens, and a client's connection.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::error::{Error, Result};

/// A TCP connection on which nothing comes for so long is asked whether anybody is there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The time between two of these questions, and how many may stay without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 6;

/// Where connections come in.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    pub(super) fn accept(&self) -> io::Result<Socket> {
        let stream = match self {
            Self::Unix(listener) => Stream::Unix(listener.accept()?.0),
            Self::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                // A client that lost its power would keep its place for ever.
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
                sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
                sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_COUNT)?;
                Stream::Tcp(stream)
            }
        };
        Ok(Socket {
            stream,
            deadline: None,
            cut: Arc::default(),
        })
    }

    /// Lets an `accept` that waits fail, and all later ones. Linux does that for a listening
    /// socket, and nobody needs to be able to connect for it.
    pub(super) fn shut_down(&self) {
        // An error says that it was shut down already.
        let _ = match self {
            Self::Unix(listener) => rustix::net::shutdown(listener, rustix::net::Shutdown::Both),
            Self::Tcp(listener) => rustix::net::shutdown(listener, rustix::net::Shutdown::Both),
        };
    }
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    /// When reading ends, whatever comes until then.
    deadline: Option<Instant>,
    /// Whether it was cut here, for all clones.
    cut: Arc<AtomicBool>,
}

impl Socket {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let stream = match &self.stream {
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
        };
        Ok(Self {
            stream,
            deadline: self.deadline,
            cut: Arc::clone(&self.cut),
        })
    }

    /// Ends the connection for whoever reads or writes it.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        // An error says that the other side was faster.
        let _ = match &self.stream {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Whether it was cut, here or through a clone: nobody takes what is being worked on.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// When reading of this one, not of its clones, is to fail; `None`: never.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// How long a read may wait for its first byte; also of the clones.
    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// How long a write may wait for room; also of the clones.
    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Unix(stream) => stream.set_write_timeout(timeout),
            Stream::Tcp(stream) => stream.set_write_timeout(timeout),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.set_read_timeout(Some(left))?;
        }
        match &mut self.stream {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file of a unix socket that was made here; gone when dropped, if it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.device_and_inode) {
            // Whatever keeps it: the next server replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on a unix socket that only its owner may connect to. A socket that nobody listens on
/// any more is replaced; anything else in the way is an error.
pub(super) fn listen_unix(path: &Path) -> Result<(Listener, SocketFile)> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Of two that find the same dead socket, the second would remove the first one's new one.
    let directory = File::open(parent).map_err(Error::file("open directory", parent))?;
    wait_for_turn(&directory);
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(|error| unbound(path, error))?;
    let device_and_inode = identity(path).map_err(Error::file("examine", path))?;
    let file = SocketFile {
        path: path.to_owned(),
        device_and_inode,
    };
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(Error::file("set the permissions of", path))?;
    Ok((Listener::Unix(listener), file))
}

/// Locks a directory. In one that everybody uses, anybody can hold the lock for ever: one of us
/// needs it for a moment, so nobody is waited for much longer than that.
fn wait_for_turn(directory: &File) {
    for _ in 0..20 {
        if directory.try_lock().is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn unbound(path: &Path, error: io::Error) -> Error {
    if error.kind() == ErrorKind::InvalidInput {
        return Error::Request {
            problem: format!("{} is too long for the path of a socket", path.display()),
            hint: Some("name a path of at most 107 bytes, or a relative one".to_owned()),
        };
    }
    Error::file("listen on", path)(error)
}

fn remove_stale(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::file("examine", path))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::Request {
            problem: format!("{} is in the way: it is not a socket", path.display()),
            hint: Some("name another path, or move it away".to_owned()),
        });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::Request {
            problem: format!("another program listens on {}", path.display()),
            hint: Some("end it, or name another path".to_owned()),
        }),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(Error::file("remove the old socket", path))
        }
        Err(error) => Err(Error::file("connect to", path)(error)),
    }
}

/// Listens on an address; port 0 is one that is free.
pub(super) fn listen_tcp(address: SocketAddr) -> Result<(Listener, SocketAddr)> {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => "end the program that listens there, or name another port",
            ErrorKind::AddrNotAvailable => "name an address of this computer",
            ErrorKind::PermissionDenied => "name a port above 1023, or run as root",
            _ => "name another address",
        };
        Error::Request {
            problem: format!("cannot listen on {address}: {error}"),
            hint: Some(hint.to_owned()),
        }
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((Listener::Tcp(listener), bound))
}
