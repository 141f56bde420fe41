// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads: whole, in pieces, over holes, outside of the disk and where it is damaged.

use std::sync::Arc;

use super::client::{BLOCK_STATUS, CACHE, DF, DISC, FLUSH, READ};
use super::{Access, MIB, PATTERN, Pattern, pattern, serve};

const DATA: u16 = 1;
const HOLE: u16 = 2;
const ERROR: u16 = 0x8001;
const ERROR_OFFSET: u16 = 0x8002;

const LONG: Pattern = Pattern {
    length: 16 * MIB,
    damaged_at: None,
};

fn damaged() -> Access {
    let damaged_at = Some(5 * MIB + (128 << 10));
    Access::ReadOnly(Arc::new(Pattern { damaged_at, ..LONG }))
}

#[test]
fn a_simple_reply_has_the_bytes() {
    let fixture = serve(pattern());
    let mut client = fixture.open();
    assert_eq!(client.reads(MIB - 2, 4), [40, 40, 0, 0]);
    assert!(client.reads(7, 0).is_empty());
    let all = client.reads(0, 4 << 20);
    assert!(all == PATTERN.bytes(0, 4 * MIB), "longer than a piece");
    client.request(0, DISC, 0, 0);
    assert!(client.is_cut());
}

#[test]
fn what_lies_outside_of_the_disk_is_refused() {
    let fixture = serve(pattern());
    let mut client = fixture.open();
    for (flags, command, offset, length, error) in [
        (0, READ, 4 * MIB - 1, 2, 22),
        (0, READ, u64::MAX, 1, 22),
        (0, READ, 1 << 63, 1, 22),
        (0, READ, 0, u32::MAX, 22),
        (DF, READ, 0, 512, 22),
        (1 << 9, READ, 0, 512, 22),
        (0, CACHE, 4 * MIB, 1, 22),
        (1, CACHE, 0, 1, 22),
        (0, CACHE, 0, 4 << 20, 0),
        (0, FLUSH, 0, 0, 0),
        (0, FLUSH, 1, 0, 22),
        (0, BLOCK_STATUS, 0, 512, 22),
        (0, 99, 0, 512, 22),
    ] {
        let told = client.does(flags, command, offset, length);
        assert_eq!(told, error, "{command} at {offset}, {length} bytes");
    }
    assert_eq!(client.reads(0, 1), [1]);
}

#[test]
fn the_zeros_of_a_hole_do_not_travel() {
    let fixture = serve(pattern());
    let mut client = fixture.open_structured();
    client.request(0, READ, MIB - 4096, (2 << 20) + 8192);
    let chunks = client.chunks();
    let kinds: Vec<_> = chunks
        .iter()
        .map(|chunk| (chunk.kind, chunk.offset(), chunk.data.len()))
        .collect();
    assert_eq!(
        kinds,
        [
            (DATA, MIB - 4096, 8 + 4096),
            (HOLE, MIB, 12),
            (DATA, 3 * MIB, 8 + 4096)
        ]
    );
    assert_eq!(chunks[1].data[8..], (2_u32 << 20).to_be_bytes());
    assert!(chunks[2].data[8..] == PATTERN.bytes(3 * MIB, 4096));
}

#[test]
fn who_does_not_want_fragments_gets_one_chunk() {
    let fixture = serve(pattern());
    let mut client = fixture.open_structured();
    client.request(DF, READ, 0, 4 << 20);
    let chunks = client.chunks();
    assert_eq!((chunks.len(), chunks[0].kind), (1, DATA));
    assert!(chunks[0].data[8..] == PATTERN.bytes(0, 4 * MIB));
    client.request(0, READ, 5, 0);
    let chunks = client.chunks();
    assert_eq!(
        (chunks.len(), chunks[0].kind, chunks[0].data.len()),
        (1, 0, 0)
    );
}

#[test]
fn a_long_read_comes_in_pieces_of_1_mib() {
    let fixture = serve(Access::ReadOnly(Arc::new(LONG)));
    let mut client = fixture.connect();
    client.go_structured("disk0");
    let (start, length) = (3 * MIB + 512, (12 << 20) + 7);
    client.request(0, READ, start, length);
    let mut read = Vec::new();
    for chunk in client.chunks() {
        assert_eq!(chunk.kind, DATA);
        assert!(chunk.data.len() <= 8 + (1 << 20), "{}", chunk.data.len());
        assert_eq!(chunk.offset(), start + u64::try_from(read.len()).unwrap());
        read.extend_from_slice(&chunk.data[8..]);
    }
    assert!(read == LONG.bytes(start, u64::from(length)));
}

#[test]
fn a_damaged_block_is_told_with_its_place_after_what_could_be_read() {
    let fixture = serve(damaged());
    let mut client = fixture.connect();
    client.go_structured("disk0");
    let start = 4 * MIB + 512;
    client.request(0, READ, start, 4 << 20);
    let mut chunks = client.chunks();
    let error = chunks.pop().unwrap();
    assert_eq!(error.kind, ERROR_OFFSET);
    assert_eq!(error.data[..4], 5_u32.to_be_bytes());
    let place = error.data.len() - 8;
    assert_eq!(error.data[place..], (5 * MIB + (128 << 10)).to_be_bytes());
    let read: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| chunk.data[8..].to_vec())
        .collect();
    assert!(read == LONG.bytes(start, MIB + (128 << 10) - 512));

    client.request(DF, READ, start, 4 << 20);
    assert_eq!(client.chunks()[0].kind, ERROR);
    client.request(0, READ, 6 * MIB, 1);
    assert_eq!(client.chunks()[0].kind, DATA);
}

#[test]
fn a_simple_read_of_a_damaged_block_is_an_error_and_the_next_one_works() {
    let fixture = serve(damaged());
    let mut client = fixture.connect();
    client.go("disk0");
    for length in [512, 4 << 20] {
        assert_eq!(client.does(0, READ, 5 * MIB + (128 << 10), length), 5);
    }
    assert_eq!(client.reads(0, 1), [1]);
}

#[test]
fn block_status_tells_the_holes() {
    let fixture = serve(pattern());
    let mut client = fixture.open_structured();
    client.request(0, BLOCK_STATUS, 512, 4 << 20);
    assert_eq!(client.chunks()[0].kind, ERROR, "past the end");
    client.request(0, BLOCK_STATUS, 512, (4 << 20) - 512);
    let chunks = client.chunks();
    let word = |at: usize| u32::from_be_bytes(chunks[0].data[at..at + 4].try_into().unwrap());
    let words: Vec<u32> = (0..chunks[0].data.len() / 4)
        .map(|at| word(4 * at))
        .collect();
    assert_eq!(
        (chunks[0].kind, words),
        (5, vec![1, (1 << 20) - 512, 0, 2 << 20, 3, 1 << 20, 0])
    );
    client.request(0, BLOCK_STATUS, 0, 0);
    assert_eq!(client.chunks()[0].kind, ERROR);
}
