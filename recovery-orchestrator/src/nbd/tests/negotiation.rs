// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options: what is told of exports, and what an option that fails leaves behind.

use std::io::{self, Read, Write};
use std::sync::Arc;

use disk::block::MemoryDevice;
use proptest::prelude::{any, proptest};

use super::client::{
    ACK, ERR_INVALID, ERR_UNKNOWN, ERR_UNSUP, INFO, context_data, info_data, option,
};
use super::{MIB, export, overlay, pattern, serve, writable};
use crate::nbd::negotiate::{Terms, greet, negotiate};
use crate::nbd::{Export, Server};

#[test]
fn an_unknown_export_is_told_and_the_next_option_still_works() {
    let fixture = serve(pattern());
    let mut client = fixture.connect();
    assert_eq!(
        client.option(7, &info_data("disk7")),
        (ERR_UNKNOWN, b"no such export".to_vec())
    );
    assert_eq!(client.option(3, &[]), (2, b"\0\0\0\x05disk0".to_vec()));
    assert_eq!(client.reply(), (ACK, vec![]));
    assert_eq!(client.option(77, &[]).0, ERR_UNSUP);
    assert_eq!(client.option(5, &[]).0, ERR_UNSUP, "there is no TLS here");
    assert_eq!(client.option(8, b"?").0, ERR_INVALID);
    assert_eq!(client.option(6, &info_data("")).0, INFO);
    client.reply();
    assert_eq!(client.reply().0, ACK);
    assert_eq!(client.option(2, &[]).0, ACK);
    assert!(client.is_cut());
}

#[test]
fn the_flags_say_what_an_export_can_do() {
    // Flags, flush, several connections, cache.
    let always = 1 | 1 << 2 | 1 << 8 | 1 << 10;
    let read_only = serve(pattern());
    assert_eq!(
        read_only.connect().go("disk0"),
        (4 * MIB, always | 1 << 1, [512, 64 << 10, 32 << 20])
    );
    let structured = read_only.connect().go_structured("disk0");
    assert_eq!(structured, always | 1 << 1 | 1 << 7);
    let fixture = serve(writable(overlay(u64::MAX)));
    // FUA, trim, zeroes, fast zeroes.
    let writes = 1 << 3 | 1 << 5 | 1 << 6 | 1 << 11;
    assert_eq!(fixture.connect().go("disk0").1, always | writes);
}

#[test]
fn a_block_size_that_does_not_fit_the_disk_is_not_demanded() {
    let directory = tempfile::tempdir().unwrap();
    let of = |name: &str, length, block_size_bytes| Export {
        name: name.to_owned(),
        block_size_bytes,
        ..export(writable(Arc::new(MemoryDevice::from(vec![0; length]))))
    };
    let exports = vec![
        of("4k", 8192, 4096),
        of("odd", 8192 + 512, 4096),
        of("wrong", 8192, 3),
        of("zero", 8192, 0),
    ];
    let path = directory.path().join("nbd");
    let _server = Server::start(&path, exports).unwrap();
    for (name, smallest) in [("4k", 4096), ("odd", 1), ("wrong", 1), ("zero", 1)] {
        let mut client = super::Client::new(super::client::unix(&path));
        assert_eq!(client.go(name).2[0], smallest, "{name}");
    }
}

#[test]
fn the_old_way_to_choose_an_export_works() {
    let fixture = serve(pattern());
    let mut client = fixture.connect();
    client.send(&option(1, b"disk0"));
    let mut told = [0; 10];
    client.stream.read_exact(&mut told).unwrap();
    assert_eq!(told[..8], (4 * MIB).to_be_bytes());
    assert_eq!(client.reads(0, 1), [1]);
}

#[test]
fn contexts_are_listed_chosen_and_forgotten() {
    let fixture = serve(pattern());
    let mut client = fixture.connect();
    let all = context_data("disk0", &["base:allocation"]);
    assert_eq!(client.option(10, &all).0, ERR_INVALID, "not structured");
    assert_eq!(client.option(8, &[]).0, ACK);
    for queries in [&[][..], &["base:"], &["qemu:x", "base:allocation"]] {
        let listed = client.option(9, &context_data("disk0", queries));
        assert_eq!(listed, (4, b"\0\0\0\0base:allocation".to_vec()));
        assert_eq!(client.reply().0, ACK);
    }
    assert_eq!(client.option(10, &context_data("disk0", &["base:"])).0, ACK);
    assert_eq!(client.option(10, &all).0, 4);
    assert_eq!(client.reply().0, ACK);
    // An option that fails forgets what was chosen.
    let wrong = [context_data("disk0", &[]), vec![0]].concat();
    assert_eq!(client.option(10, &wrong).0, ERR_INVALID);
    client.go("disk0");
    client.request(0, super::client::BLOCK_STATUS, 0, 512);
    let chunks = client.chunks();
    assert_eq!(
        (chunks[0].kind, &chunks[0].data[..4]),
        (0x8001, &[0, 0, 0, 22][..])
    );
}

/// What a client sends, and nothing to answer.
struct Pipe<'a>(&'a [u8], Vec<u8>);

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn answer(bytes: &[u8], exports: &[Export], tls: bool) {
    let mut pipe = Pipe(bytes, Vec::new());
    if let Ok(flags) = greet(&mut pipe) {
        let terms = Terms::new(exports, tls, flags);
        let _ = negotiate(&mut pipe, terms);
        let _ = negotiate(&mut pipe, terms.within_tls());
    }
}

proptest! {
    #[test]
    fn no_sequence_of_bytes_panics_the_negotiation(
        bytes in proptest::collection::vec(any::<u8>(), 0..512),
        tls in any::<bool>(),
    ) {
        let exports = [export(pattern())];
        let mut framed = vec![0, 0, 0, 3];
        for piece in bytes.chunks(40) {
            framed.extend(option(u32::from(piece[0] % 12), &piece[1..]));
        }
        answer(&framed, &exports, tls);
        answer(&bytes, &exports, tls);
    }
}
