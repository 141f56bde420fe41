// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that writes: done where it may be, refused where not, and the connection goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use disk::block::{Extent, MemoryDevice};
use disk::{ReadAt, WriteAt};

use super::client::{FAST_ZERO, FLUSH, FUA, NO_HOLE, READ, TRIM, WRITE, WRITE_ZEROES};
use super::{MIB, overlay, pattern, serve, writable};

const CLUSTER: u32 = 64 << 10;

/// Counts flushes; the rest is plain.
#[derive(Debug)]
struct Flushed(MemoryDevice, AtomicU32);

impl ReadAt for Flushed {
    fn length_bytes(&self) -> u64 {
        self.0.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        self.0.read_exact_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
        self.0.extent_at(offset)
    }
}

impl WriteAt for Flushed {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> disk::Result<()> {
        assert!(bytes.len() <= 1 << 20, "writes come in pieces");
        self.0.write_all_at(offset, bytes)
    }

    fn flush(&self) -> disk::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn plain() -> Arc<Flushed> {
    let bytes = MemoryDevice::from(vec![1; 4 << 20]);
    Arc::new(Flushed(bytes, AtomicU32::new(0)))
}

#[test]
fn what_one_connection_writes_all_of_them_read() {
    let device = plain();
    let fixture = serve(writable(device.clone()));
    let (mut one, mut other) = (fixture.open(), fixture.open());
    assert_eq!(one.writes(0, 510, b"four"), 0);
    assert_eq!(other.reads(508, 8), b"\x01\x01four\x01\x01");
    let long: Vec<u8> = (0..3 * MIB + 5).map(|at| (at % 250) as u8).collect();
    assert_eq!(other.writes(0, 77, &long), 0);
    assert!(one.reads(77, (3 << 20) + 5) == long);
    assert_eq!(one.writes(0, 4 * MIB, &[]), 0);
    assert_eq!(device.1.load(Ordering::Relaxed), 0);
}

#[test]
fn a_flush_and_each_forced_write_reach_the_device() {
    let device = plain();
    let fixture = serve(writable(device.clone()));
    let mut client = fixture.open();
    assert_eq!(client.does(0, FLUSH, 0, 0), 0);
    assert_eq!(client.writes(FUA, 0, b"short"), 0);
    assert_eq!(client.writes(FUA, 0, &[7; 2 << 20]), 0);
    assert_eq!(client.does(FUA, TRIM, 0, 512), 0);
    assert_eq!(client.does(FUA, WRITE_ZEROES, 0, 512), 0);
    assert_eq!(device.1.load(Ordering::Relaxed), 5);
    client.request(FUA, READ, 0, 1);
    assert_eq!(client.simple(1), (0, vec![0]), "it means nothing here");
}

#[test]
fn zeros_are_fast_where_the_device_says_so() {
    let fixture = serve(writable(overlay(u64::MAX)));
    let mut client = fixture.open();
    let zeroes = |flags| flags | FAST_ZERO;
    assert_eq!(client.does(zeroes(0), WRITE_ZEROES, 0, 2 * CLUSTER), 0);
    assert_eq!(client.does(zeroes(0), WRITE_ZEROES, 512, CLUSTER), 95);
    assert_eq!(client.does(zeroes(NO_HOLE), WRITE_ZEROES, 0, CLUSTER), 95);
    assert_eq!(client.reads(2 * u64::from(CLUSTER) - 1, 2), [0, 1]);
    assert_eq!(client.does(NO_HOLE, WRITE_ZEROES, MIB + 1, 2 << 20), 0);
    assert_eq!(client.reads(MIB, 2), [1, 0]);
    assert_eq!(client.reads(3 * MIB, 2), [0, 1]);

    let slow = serve(writable(plain()));
    let mut client = slow.open();
    assert_eq!(client.does(FAST_ZERO, WRITE_ZEROES, 0, 4 << 20), 95);
    assert_eq!(client.reads(0, 1), [1]);
    assert_eq!(client.does(0, WRITE_ZEROES, 0, 4 << 20), 0);
    assert_eq!(client.reads(4 * MIB - 1, 1), [0]);
}

#[test]
fn what_is_discarded_becomes_a_hole() {
    let fixture = serve(writable(overlay(u64::MAX)));
    let mut client = fixture.open_structured();
    client.request(0, TRIM, 1, 2 << 20);
    assert_eq!(client.chunks()[0].kind, 0);
    client.request(0, READ, 0, 3 << 20);
    let kinds: Vec<_> = client
        .chunks()
        .iter()
        .map(|chunk| (chunk.kind, chunk.offset()))
        .collect();
    assert_eq!(kinds, [(1, 0), (2, u64::from(CLUSTER)), (1, 2 * MIB)]);
}

#[test]
fn a_read_only_export_refuses_and_skips_what_follows() {
    let fixture = serve(pattern());
    let mut client = fixture.open();
    assert_eq!(client.writes(0, 0, &[9; 512]), 1);
    assert_eq!(client.writes(FUA, 3, &vec![9; 32 << 20]), 1);
    assert_eq!(client.writes(0, u64::MAX, &[9; 512]), 1);
    assert_eq!(client.does(0, TRIM, 0, 512), 1);
    assert_eq!(client.does(NO_HOLE, WRITE_ZEROES, 0, 512), 1);
    assert_eq!(client.reads(0, 1), [1], "the connection goes on");
    client.request(0, WRITE, 0, (32 << 20) + 1);
    assert!(client.is_cut(), "that is too much to skip");
    assert_eq!(fixture.open().reads(0, 1), [1]);
}

#[test]
fn what_lies_outside_of_the_disk_is_not_written() {
    let fixture = serve(writable(plain()));
    let mut client = fixture.open();
    assert_eq!(client.writes(0, 4 * MIB - 1, b"xy"), 28);
    assert_eq!(client.writes(0, u64::MAX, b"xy"), 28);
    assert_eq!(client.writes(0, 2 * MIB + 1, &[9; 2 << 20]), 28);
    assert_eq!(client.does(0, WRITE_ZEROES, 4 * MIB, 1), 28);
    assert_eq!(client.does(0, TRIM, 4 * MIB, 1), 22);
    for flags in [FAST_ZERO, NO_HOLE, 1 << 8] {
        assert_eq!(client.writes(flags, 0, b"x"), 22);
        assert_eq!(client.does(flags, TRIM, 0, 1), 22);
    }
    assert!(client.reads(0, 4 << 20).iter().all(|byte| *byte == 1));
}

#[test]
fn a_full_overlay_says_so_and_still_reads() {
    let limit = 2 * u64::from(CLUSTER);
    let fixture = serve(writable(overlay(limit)));
    let mut client = fixture.open();
    assert_eq!(client.writes(0, 0, &[2; 2 * CLUSTER as usize]), 0);
    assert_eq!(client.writes(0, MIB, b"x"), 28);
    assert_eq!(client.writes(0, MIB, &[3; 2 << 20]), 28, "a long one");
    assert_eq!(client.reads(0, 1), [2]);
    assert_eq!(client.reads(MIB, 1), [1]);
}
