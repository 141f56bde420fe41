// SPDX-License-Identifier: MIT OR Apache-2.0
//! A relay before a server that counts what clients send: the bytes on the wire, whatever the
//! client says of itself.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A relay to one address of this machine. Its threads end with the process.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    sent: Arc<AtomicU64>,
}

impl Relay {
    /// Starts one to a port.
    ///
    /// # Panics
    /// When this machine has no loopback address.
    #[must_use]
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a loopback address");
        let port = listener.local_addr().expect("it is bound").port();
        let sent = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&sent);
        thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                // A server that is gone: the client sees its connection end.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", target)) {
                    join(client, server, &counter);
                }
            }
        });
        Self { port, sent }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes clients have sent so far.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Passes bytes on both ways until each side has ended.
fn join(client: TcpStream, server: TcpStream, sent: &Arc<AtomicU64>) {
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    // Only speed depends on it.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let sent = Arc::clone(sent);
    thread::spawn(move || pass(&client, &server, &sent));
    thread::spawn(move || pass(&server_too, &client_too, &AtomicU64::new(0)));
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 256 << 10];
    let mut one = || -> io::Result<bool> {
        let length = from.read(&mut buffer)?;
        to.write_all(&buffer[..length])?;
        count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length > 0)
    };
    // A connection that breaks ends as one that is closed.
    while matches!(one(), Ok(true)) {}
    let _ = to.shutdown(Shutdown::Write);
}
