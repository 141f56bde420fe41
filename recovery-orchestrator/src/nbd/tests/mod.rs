// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server against a client written by hand; against real ones, see the package `e2e`.

mod client;
mod hostile;
mod negotiation;
mod reading;
mod tls;
mod writing;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use disk::block::{Extent, ExtentKind, MemoryDevice, Overlay, OverlayOptions};
use disk::{ReadAt, WriteAt};

use super::server::Patience;
use super::{Access, Endpoint, Export, Server};
use client::Client;

const MIB: u64 = 1 << 20;

/// Data but for 2 MiB of zeros from 1 MiB on; nothing of 64 KiB can be read.
#[derive(Debug, Clone, Copy)]
struct Pattern {
    length: u64,
    damaged_at: Option<u64>,
}

const PATTERN: Pattern = Pattern {
    length: 4 * MIB,
    damaged_at: None,
};

const HOLE: std::ops::Range<u64> = MIB..3 * MIB;

impl Pattern {
    fn bytes(&self, offset: u64, length: u64) -> Vec<u8> {
        let byte = |position: u64| {
            if HOLE.contains(&position) {
                0
            } else {
                u8::try_from(position / 512 % 251).unwrap() + 1
            }
        };
        (offset..offset + length).map(byte).collect()
    }
}

impl ReadAt for Pattern {
    fn length_bytes(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        let length = u64::try_from(buffer.len()).unwrap();
        assert!(length <= 32 * MIB, "no buffer is longer than a request");
        if let Some(damaged) = self.damaged_at
            && offset < damaged + (64 << 10)
            && offset + length > damaged
        {
            return Err(disk::Error::Device {
                action: "read",
                offset,
                length,
                source: "a chunk is lost".into(),
            });
        }
        buffer.copy_from_slice(&self.bytes(offset, length));
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
        let (end, kind) = if offset < HOLE.start {
            (HOLE.start, ExtentKind::Data)
        } else if offset < HOLE.end {
            (HOLE.end, ExtentKind::Zero)
        } else {
            (self.length, ExtentKind::Data)
        };
        Ok(Extent {
            length: end - offset,
            kind,
        })
    }
}

struct Fixture {
    server: Server,
    directory: tempfile::TempDir,
}

fn serve(access: Access) -> Fixture {
    serve_with(access, Patience::default())
}

fn serve_with(access: Access, patience: Patience) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(
        &directory.path().join("nbd"),
        vec![export(access)],
        patience,
    )
    .unwrap();
    Fixture { server, directory }
}

fn export(access: Access) -> Export {
    Export {
        name: "disk0".to_owned(),
        access,
        block_size_bytes: 512,
    }
}

fn pattern() -> Access {
    Access::ReadOnly(Arc::new(PATTERN))
}

/// An overlay of 4 MiB of ones.
fn overlay(limit_bytes: u64) -> Arc<Overlay> {
    let base = MemoryDevice::from(vec![1; 4 << 20]);
    Arc::new(Overlay::new(Arc::new(base), OverlayOptions { limit_bytes }))
}

fn writable(device: Arc<impl WriteAt + 'static>) -> Access {
    Access::Writable(device)
}

impl Fixture {
    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("nbd")
    }

    /// After the greetings.
    fn connect(&self) -> Client {
        Client::new(client::unix(&self.socket()))
    }

    /// In transmission, with simple replies.
    fn open(&self) -> Client {
        let mut client = self.connect();
        assert_eq!(client.go("disk0").0, 4 * MIB);
        client
    }

    /// In transmission, with structured replies.
    fn open_structured(&self) -> Client {
        let mut client = self.connect();
        client.go_structured("disk0");
        client
    }
}

#[test]
fn a_server_ends_while_clients_are_connected_and_its_socket_goes() {
    let fixture = serve(pattern());
    let _idle = fixture.connect();
    let _open = fixture.open();
    let socket = fixture.socket();
    drop(fixture.server);
    assert!(!socket.exists());
}

#[test]
fn a_server_whose_socket_was_removed_ends_and_leaves_the_next_ones_alone() {
    let fixture = serve(pattern());
    std::fs::remove_file(fixture.socket()).unwrap();
    let next = Server::start(&fixture.socket(), vec![export(pattern())]).unwrap();
    drop(fixture.server);
    assert!(fixture.directory.path().join("nbd").exists());
    drop(next);
    assert!(!fixture.directory.path().join("nbd").exists());
}

#[test]
fn only_a_dead_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd");
    let start = |path: &Path| Server::start(path, vec![export(pattern())]);

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = start(&path).unwrap();
    assert!(Client::new(client::unix(&path)).go("").0 > 0);

    let error = start(&path).unwrap_err();
    assert!(
        error.to_string().contains("another program listens"),
        "{error}"
    );
    assert!(error.hint().is_some());
    drop(server);

    std::fs::write(&path, "a file").unwrap();
    let error = start(&path).unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");

    let error = start(&directory.path().join("x".repeat(120))).unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn only_the_owner_may_connect() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = serve(pattern());
    let mode = std::fs::metadata(fixture.socket()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

const SHORT: Patience = Patience {
    negotiation: Duration::from_millis(300),
    stall: Duration::from_millis(300),
};
