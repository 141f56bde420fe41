// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that mean no good: each gets an error or loses its own connection, and nothing else
//! happens.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use disk::ReadAt;

use super::client::{self, Client, READ, WRITE, request};
use super::{Access, MIB, SHORT, overlay, pattern, serve, serve_with, writable};
use crate::nbd::CONNECTIONS_MAX;

#[test]
fn who_breaks_the_negotiation_is_cut() {
    let fixture = serve(pattern());
    let hostile: [&[u8]; 6] = [
        &[0xff; 64],
        b"\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff",
        b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\x01\0\x01",
        b"\0\0\0\x03GARBAGE!GARBAGE!",
        b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x05wrong",
        b"",
    ];
    for bytes in hostile {
        let mut stream = client::unix(&fixture.socket());
        // The server may have cut the connection already.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 1024);
    }
    let mut endless = fixture.connect();
    for _ in 0..64 {
        assert_eq!(endless.option(77, &[]).0, client::ERR_UNSUP);
    }
    assert!(endless.is_cut(), "the 65th option is too many");
    fixture.open();
}

#[test]
fn lengths_inside_an_option_that_lie_are_invalid() {
    let fixture = serve(pattern());
    let mut client = fixture.connect();
    assert_eq!(client.option(8, &[]).0, client::ACK);
    for (number, data) in [
        (7, &b"\xff\xff\xff\xffdisk0\0\0"[..]),
        (7, b"\0\0\0\x05disk0\xff\xff"),
        (7, b"\0\0\0\x05disk0"),
        (7, b""),
        (9, b"\0\0\0\x05disk0\xff\xff\xff\xff"),
        (10, b"\0\0\0\x05disk0\0\0\0\x01\xff\xff\xff\xff"),
        (10, b"\0\0\0\x05disk0\0\0\0\0more"),
        (3, b"more"),
    ] {
        let (kind, _) = client.option(number, data);
        assert_eq!(kind, client::ERR_INVALID, "{number}: {data:?}");
    }
    client.go("disk0");
}

#[test]
fn who_sends_no_request_is_cut() {
    let fixture = serve(writable(overlay(u64::MAX)));
    let mut client = fixture.open();
    client.send(&[0xff; 28]);
    assert!(client.is_cut());
    let mut client = fixture.open();
    client.request(0, WRITE, 0, u32::MAX);
    assert!(client.is_cut());
    assert_eq!(fixture.open().reads(0, 1), [1]);
}

#[test]
fn silence_in_the_middle_of_something_is_not_waited_for() {
    let fixture = serve_with(writable(overlay(u64::MAX)), SHORT);
    // A connection that says nothing, one with half an option, one that trickles.
    assert!(Client::within(client::unix(&fixture.socket())).is_cut());
    let mut client = fixture.connect();
    client.send(b"IHAVEOPT\0\0");
    assert!(client.is_cut());
    let mut trickling = fixture.connect();
    let started = Instant::now();
    while trickling.stream.write_all(b"I").is_ok() && started.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(100));
    }
    assert!(started.elapsed() < Duration::from_secs(10), "it went on");

    for (bytes, what) in [
        (request(0, READ, 0, 1)[..27].to_vec(), "half a request"),
        (request(0, WRITE, 0, 4), "no payload"),
        (
            [request(0, WRITE, 0, 2 << 20), vec![2; MIB as usize + 1]].concat(),
            "half a payload",
        ),
    ] {
        let mut client = fixture.open();
        // Between two requests it may think as long as it likes.
        thread::sleep(SHORT.stall * 3);
        assert_eq!(client.reads(0, 1).len(), 1);
        client.send(&bytes);
        assert!(client.is_cut(), "{what}");
    }
}

#[test]
fn the_33rd_connection_is_closed_and_a_place_that_is_left_is_free_again() {
    let fixture = serve(pattern());
    let mut open: Vec<_> = (0..CONNECTIONS_MAX).map(|_| fixture.open()).collect();
    assert!(Client::within(client::unix(&fixture.socket())).is_cut());
    assert_eq!(open[7].reads(0, 1), [1]);
    open.pop();
    let started = Instant::now();
    loop {
        let mut greeting = [0; 18];
        let mut stream = client::unix(&fixture.socket());
        if stream.read_exact(&mut greeting).is_ok() {
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "it stays taken"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ten_thousand_requests_at_once_are_all_answered() {
    let fixture = serve(pattern());
    let mut stream = client::unix(&fixture.socket());
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).unwrap();
    stream.write_all(&[0, 0, 0, 3]).unwrap();
    let writer = stream.try_clone().unwrap();
    let mut client = Client::within(stream);
    client.go("disk0");
    let flood = thread::spawn(move || {
        let mut writer = writer;
        let requests = request(0, READ, 5, 1).repeat(10_000);
        writer.write_all(&requests).unwrap();
    });
    for _ in 0..10_000 {
        assert_eq!(client.simple(1), (0, vec![1]));
    }
    flood.join().unwrap();
}

#[test]
fn who_asks_without_listening_keeps_nobody_else_waiting() {
    let fixture = serve(pattern());
    let mut greedy = client::unix(&fixture.socket());
    let mut greeting = [0; 18];
    greedy.read_exact(&mut greeting).unwrap();
    greedy.write_all(&[0, 0, 0, 3]).unwrap();
    greedy.write_all(&client::option(1, b"disk0")).unwrap();
    greedy
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let flood = request(0, READ, 0, 4 << 20).repeat(100);
    let kind = loop {
        match greedy.write_all(&flood) {
            Ok(()) => {}
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(kind, ErrorKind::WouldBlock, "the server takes no more");
    let mut client = fixture.open();
    assert_eq!(client.reads(0, 1), [1]);
    let started = Instant::now();
    drop(fixture.server);
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Takes a while for every read, and counts them.
#[derive(Debug, Default)]
struct Slow(AtomicUsize);

impl ReadAt for Slow {
    fn length_bytes(&self) -> u64 {
        1 << 40
    }

    fn read_exact_at(&self, _offset: u64, _buffer: &mut [u8]) -> disk::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(50));
        Ok(())
    }
}

#[test]
fn what_is_in_work_for_somebody_who_left_is_given_up() {
    for structured in [false, true] {
        let device = Arc::new(Slow::default());
        let fixture = serve(Access::ReadOnly(device.clone()));
        let mut client = fixture.connect();
        if structured {
            client.go_structured("disk0");
        } else {
            client.go("disk0");
        }
        for _ in 0..4 {
            client.request(0, READ, 0, 32 << 20);
        }
        while device.0.load(Ordering::Relaxed) < 4 {
            thread::sleep(Duration::from_millis(5));
        }
        drop(client);
        let started = Instant::now();
        drop(fixture.server);
        assert!(started.elapsed() < Duration::from_secs(1), "{started:?}");
    }
}

#[test]
fn who_leaves_in_the_middle_of_a_write_has_not_harmed_the_server() {
    let fixture = serve(writable(overlay(u64::MAX)));
    let mut client = fixture.open();
    client.request(0, WRITE, 0, 8 << 20);
    let mut other = fixture.open();
    client.request(0, WRITE, 0, 3 << 20);
    client.send(&vec![3; 2 << 20]);
    drop(client);
    assert_eq!(other.reads(3 * MIB, 1), [1]);
}
