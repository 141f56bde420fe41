// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that is far away: a relay whose answers arrive later than they were sent.
//!
//! What the server sends arrives so much later, however much of it is on its way: a round trip takes
//! that much longer, bandwidth stays what it was. A new connection's handshake is a round trip too, so
//! what a client sends first is passed on after the same delay.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

/// Pieces that are on their way at a time, for each connection: 64 MiB.
const PIECES_MAX: usize = 256;
const PIECE_BYTES: usize = 256 << 10;

/// A relay to one port of this machine. Its threads end with the process.
#[derive(Debug)]
pub struct Distance {
    port: u16,
}

impl Distance {
    /// Starts one before a port.
    ///
    /// # Panics
    /// When this machine has no loopback address.
    #[must_use]
    pub fn to(target: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a loopback address");
        let port = listener.local_addr().expect("it is bound").port();
        thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                // A server that is gone: the client sees its connection end.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", target)) {
                    join(client, server, delay);
                }
            }
        });
        Self { port }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn join(client: TcpStream, server: TcpStream, delay: Duration) {
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    // Only speed depends on it.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    thread::spawn(move || {
        thread::sleep(delay);
        pass(client, server, Duration::ZERO);
    });
    thread::spawn(move || pass(server_too, client_too, delay));
}

/// Passes bytes on, each piece when it is due.
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, pieces) = sync_channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let writer = thread::spawn(move || {
        for (due, bytes) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // A connection that breaks ends as one that is closed.
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let due = Instant::now() + delay;
        if sender.send((due, buffer[..count].to_vec())).is_err() {
            break;
        }
    }
    drop(sender);
    // It does not panic.
    let _ = writer.join();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_later_by_the_delay_and_whole() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut asked = [0; 4];
            client.read_exact(&mut asked).unwrap();
            client.write_all(&vec![7; 3 << 20]).unwrap();
        });
        let delay = Duration::from_millis(40);
        let distance = Distance::to(port, delay);
        let mut stream = TcpStream::connect(("127.0.0.1", distance.port())).unwrap();
        let began = Instant::now();
        stream.write_all(b"more").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, vec![7; 3 << 20]);
        // Once for the connection, once for the answer.
        assert!(began.elapsed() >= 2 * delay, "{:?}", began.elapsed());
    }
}
