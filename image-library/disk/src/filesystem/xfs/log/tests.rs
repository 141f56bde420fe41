// SPDX-License-Identifier: MIT OR Apache-2.0
//! Logs laid out by hand: what a crash leaves, which no tool makes to order.

use rstest::rstest;

use super::super::super::superblock::xfs::{Superblock, crc32c};
use super::record::Log;
use super::replay::Replay;
use super::transaction::Transactions;
use super::{BTreeMap, Unfinished};
use crate::block::MemoryDevice;
use crate::error::Error;

const SECTORS: usize = 64;
const START: u8 = 1;
const COMMIT: u8 = 2;
const GOES_ON: u8 = 4;
const CONTINUES: u8 = 8;
const UNMOUNT: u8 = 32;

/// A ring of sectors, and where the next record goes.
struct Ring {
    bytes: Vec<u8>,
    round: u32,
    sector: usize,
    /// The record that all later ones call the oldest needed.
    oldest: (u32, usize),
}

type Operation = (u32, u8, Vec<u8>);

impl Ring {
    fn new(round: u32, sector: usize) -> Self {
        let mut bytes = vec![0; SECTORS * 512];
        for (index, bytes) in bytes.chunks_exact_mut(512).enumerate() {
            let round = if index < sector { round } else { round - 1 };
            bytes[..4].copy_from_slice(&round.to_be_bytes());
        }
        Self {
            bytes,
            round,
            sector,
            oldest: (round, sector),
        }
    }

    fn put(&mut self, sector: usize, bytes: &[u8]) {
        self.bytes[sector % SECTORS * 512..][..512].copy_from_slice(bytes);
    }

    /// Writes a record of `sectors` sectors of data; gives where it begins.
    fn write(&mut self, sectors: usize, operations: &[Operation]) -> usize {
        let at = self.sector;
        let mut data = Vec::new();
        for (number, flags, content) in operations {
            data.extend(number.to_be_bytes());
            data.extend((content.len() as u32).to_be_bytes());
            data.extend([0x69, *flags, 0, 0]);
            data.extend(content);
        }
        assert!(data.len() <= sectors * 512, "the data fits");
        data.resize(sectors * 512, 0);
        let mut header = vec![0; 512];
        let numbers = [
            0xfeed_babe,
            self.round,
            2,
            data.len() as u32,
            self.round,
            at as u32,
            self.oldest.0,
            self.oldest.1 as u32,
            0,
            0,
            operations.len() as u32,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            header[index * 4..][..4].copy_from_slice(&number.to_be_bytes());
        }
        header[303] = 1;
        for (index, sector) in data.chunks_exact_mut(512).enumerate() {
            let round = self.round + u32::from(at + 1 + index >= SECTORS);
            header[44 + index * 4..][..4].copy_from_slice(&sector[..4]);
            sector[..4].copy_from_slice(&round.to_be_bytes());
        }
        let checksum = !crc32c(crc32c(!0, &header[..328]), &data);
        header[32..36].copy_from_slice(&checksum.to_le_bytes());
        self.put(at, &header);
        for (index, sector) in data.chunks_exact(512).enumerate() {
            self.put(at + 1 + index, sector);
        }
        self.sector += 1 + sectors;
        if self.sector >= SECTORS {
            self.sector -= SECTORS;
            self.round += 1;
        }
        at
    }

    /// The operations of the newest record, and how many records are needed; `None`: no record.
    fn read(self) -> Result<Option<(u32, usize)>, Error> {
        let device = MemoryDevice::from(self.bytes);
        let device = &device;
        let log = Log::open(&device, 0..SECTORS as u64 * 512);
        let Some(newest) = log.newest()? else {
            return Ok(None);
        };
        let operations = newest.operations;
        let needed = log.needed(newest)?;
        Ok(Some((operations, needed.len())))
    }
}

/// Operations that do nothing, to tell records apart by their count.
fn idle(count: usize) -> Vec<Operation> {
    vec![(9, 0, Vec::new()); count]
}

#[test]
fn a_log_that_was_never_written_has_no_record() {
    assert_eq!(Ring::new(1, 0).read().expect("sound"), None);
}

#[rstest]
fn the_newest_record_is_found_wherever_the_ring_ends(
    #[values(0, 1, 20, 40, 55, 60, 63)] sector: usize,
) {
    let mut ring = Ring::new(7, sector);
    for count in 1..=4 {
        ring.write(2 * count, &idle(count));
    }
    assert_eq!(ring.read().expect("sound"), Some((4, 4)), "from {sector}");
}

#[test]
fn a_record_that_was_not_written_whole_does_not_count() {
    let mut ring = Ring::new(3, 10);
    ring.write(2, &idle(1));
    ring.write(2, &idle(2));
    let torn = ring.write(4, &idle(3));
    let old = [&2_u32.to_be_bytes()[..], &[0; 508]].concat();
    ring.put(torn + 4, &old);
    assert_eq!(ring.read().expect("sound"), Some((2, 2)));
}

#[test]
fn what_was_written_behind_a_gap_does_not_count() {
    let mut ring = Ring::new(3, 10);
    ring.write(2, &idle(1));
    ring.write(2, &idle(2));
    let gap = ring.write(1, &idle(3));
    ring.write(3, &idle(4));
    let old = [&2_u32.to_be_bytes()[..], &[0; 508]].concat();
    ring.put(gap, &old);
    ring.put(gap + 1, &old);
    let (_, needed) = ring.read().expect("sound").expect("there are records");
    assert_eq!(needed, 2);
}

#[test]
fn bytes_that_are_not_what_was_written_end_the_log() {
    let mut ring = Ring::new(3, 10);
    ring.write(2, &idle(1));
    let damaged = ring.write(2, &idle(2));
    ring.bytes[(damaged + 1) * 512 + 100] ^= 1;
    assert_eq!(ring.read().expect("sound"), Some((1, 1)));
}

#[test]
fn a_log_whose_oldest_record_is_gone_is_broken() {
    let mut ring = Ring::new(3, 10);
    ring.oldest = (3, 9);
    ring.write(2, &idle(1));
    assert!(matches!(ring.read(), Err(Error::Corrupt { .. })));
    let mut empty = Ring::new(3, 10);
    empty.put(11, &[0; 512]);
    assert!(matches!(empty.read(), Err(Error::Corrupt { .. })));
}

#[test]
fn the_log_of_a_big_endian_computer_is_refused() {
    let mut ring = Ring::new(3, 10);
    let at = ring.write(1, &idle(1));
    ring.bytes[at * 512 + 303] = 2;
    ring.bytes[at * 512 + 32..at * 512 + 36].fill(0);
    assert!(matches!(ring.read(), Err(Error::Unsupported { .. })));
}

#[test]
fn the_record_of_an_unmount_is_told() {
    for (flags, expected) in [(UNMOUNT, true), (COMMIT, false)] {
        let mut ring = Ring::new(3, 10);
        ring.write(1, &[(9, flags, vec![0x6e, 0x55, 0, 0, 0, 0, 0, 0])]);
        let device = MemoryDevice::from(ring.bytes);
        let device = &device;
        let log = Log::open(&device, 0..SECTORS as u64 * 512);
        let newest = log.newest().expect("sound").expect("a record");
        assert_eq!(newest.is_unmount(), expected);
    }
}

/// The header of a transaction.
fn header() -> Vec<u8> {
    let mut header = 0x5452_414e_u32.to_le_bytes().to_vec();
    header.resize(16, 0);
    header
}

/// An announced mapping of one extent of an inode, or that it is done.
fn mapping(kind: u16, number: u64, inode: u64) -> Vec<u8> {
    let mut item = [kind, 1].map(u16::to_le_bytes).concat();
    item.extend(1_u32.to_le_bytes());
    item.extend(number.to_le_bytes());
    item.extend(inode.to_le_bytes());
    item.resize(48, 0);
    item
}

/// 64 MiB in one group of 4 KiB blocks; only what a replay asks for is right.
fn superblock() -> Superblock {
    let mut bytes = vec![0; 512];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"XFSB");
    put(4, &4096_u32.to_be_bytes());
    put(8, &16384_u64.to_be_bytes());
    put(84, &16384_u32.to_be_bytes());
    put(88, &1_u32.to_be_bytes());
    put(100, &0xb4a5_u16.to_be_bytes());
    put(102, &512_u16.to_be_bytes());
    put(104, &512_u16.to_be_bytes());
    put(120, &[12, 9, 9, 3, 14]);
    Superblock::from_bytes(&bytes, 64 << 20).expect("it is sound")
}

fn unfinished(records: &[Vec<Operation>]) -> Result<Unfinished, Error> {
    let mut ring = Ring::new(3, 10);
    for operations in records {
        ring.write(2, operations);
    }
    let device = MemoryDevice::from(ring.bytes);
    let device = &device;
    let log = Log::open(&device, 0..SECTORS as u64 * 512);
    let newest = log.newest()?.expect("a record");
    let superblock = superblock();
    let mut replay = Replay::new(device, &superblock, BTreeMap::new());
    let mut transactions = Transactions::default();
    for place in log.needed(newest)? {
        transactions.feed(&log.expect(place)?, |transaction| replay.apply(transaction))?;
    }
    Ok(replay.finish().unfinished)
}

fn transaction(number: u32, items: Vec<Vec<u8>>) -> Vec<Operation> {
    let mut operations = vec![(number, START, Vec::new()), (number, 0, header())];
    operations.extend(items.into_iter().map(|item| (number, 0, item)));
    operations.push((number, COMMIT, Vec::new()));
    operations
}

#[test]
fn announced_changes_that_nobody_finished_are_told() {
    let first = transaction(1, vec![mapping(0x1244, 77, 130), mapping(0x1244, 78, 131)]);
    let second = transaction(2, vec![mapping(0x1245, 77, 0), mapping(0x1246, 79, 132)]);
    let found = unfinished(&[first, second]).expect("sound");
    assert_eq!(found.contents.into_iter().collect::<Vec<_>>(), [131]);
    assert_eq!(found.attributes.into_iter().collect::<Vec<_>>(), [132]);
}

#[test]
fn a_transaction_without_its_end_did_not_happen() {
    let mut operations = transaction(1, vec![mapping(0x1244, 77, 130)]);
    operations.pop();
    let found = unfinished(&[operations]).expect("sound");
    assert!(found.contents.is_empty());
}

#[test]
fn a_region_goes_on_in_the_next_record() {
    let item = mapping(0x1244, 77, 130);
    let (front, back) = item.split_at(20);
    let mut operations = transaction(1, vec![front.to_vec()]);
    operations.pop();
    operations[2].1 = GOES_ON;
    let rest = vec![(1, CONTINUES, back.to_vec()), (1, COMMIT, Vec::new())];
    let found = unfinished(&[operations, rest]).expect("sound");
    assert_eq!(found.contents.into_iter().collect::<Vec<_>>(), [130]);
}

#[test]
fn items_that_are_not_known_and_ones_that_are_none_are_refused() {
    let unknown = unfinished(&[transaction(1, vec![mapping(0x4321, 0, 0)])]);
    assert!(matches!(unknown, Err(Error::Unsupported { .. })));
    let empty = unfinished(&[transaction(1, vec![vec![0x3c, 0x12, 0, 0]])]);
    assert!(matches!(empty, Err(Error::Corrupt { .. })));
    let mut operations = transaction(1, vec![]);
    operations[1].2 = vec![0; 16];
    assert!(matches!(
        unfinished(&[operations]),
        Err(Error::Corrupt { .. })
    ));
}
