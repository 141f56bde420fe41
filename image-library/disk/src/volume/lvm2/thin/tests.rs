// SPDX-License-Identifier: MIT OR Apache-2.0
//! Thin pools made by hand: deep trees, and everything that may be wrong with them.

use std::sync::Arc;

use crate::block::{ExtentKind, MemoryDevice, ReadAt, WriteAt};
use crate::error::Result;

use super::super::checksum;
use super::{BLOCK_BYTES, Pool, SUPERBLOCK_SUM, ThinVolume};

const NODE_SUM: u32 = 121_107;
/// The smallest data block of dm-thin.
const DATA_BLOCK: usize = 65536;
const KEYS_IN_A_NODE: usize = 3;

/// Metadata that is being made.
struct Metadata {
    bytes: Vec<u8>,
}

impl Metadata {
    fn new() -> Self {
        Self {
            bytes: vec![0; BLOCK_BYTES],
        }
    }

    fn node(&mut self, is_leaf: bool, entries: &[(u64, Vec<u8>)]) -> u64 {
        let number = (self.bytes.len() / BLOCK_BYTES) as u64;
        let value_bytes = entries.first().map_or(8, |(_, value)| value.len());
        let room = (BLOCK_BYTES - 32) / (8 + value_bytes);
        let mut node = vec![0; BLOCK_BYTES];
        node[4] = if is_leaf { 2 } else { 1 };
        node[8..16].copy_from_slice(&number.to_le_bytes());
        node[16] = entries.len() as u8;
        node[20..24].copy_from_slice(&(room as u32).to_le_bytes());
        node[24] = value_bytes as u8;
        for (index, (key, value)) in entries.iter().enumerate() {
            node[32 + 8 * index..40 + 8 * index].copy_from_slice(&key.to_le_bytes());
            let at = 32 + 8 * room + value_bytes * index;
            node[at..at + value_bytes].copy_from_slice(value);
        }
        seal(&mut node, NODE_SUM);
        self.bytes.extend(node);
        number
    }

    /// A tree of small nodes, so that few entries make it deep.
    fn tree(&mut self, entries: &[(u64, Vec<u8>)]) -> u64 {
        let mut level: Vec<(u64, u64)> = entries
            .chunks(KEYS_IN_A_NODE)
            .map(|entries| (entries[0].0, self.node(true, entries)))
            .collect();
        if level.is_empty() {
            return self.node(true, &[]);
        }
        while level.len() > 1 {
            let above = level.chunks(KEYS_IN_A_NODE).map(|children| {
                let entries: Vec<_> = children
                    .iter()
                    .map(|(key, block)| (*key, block.to_le_bytes().to_vec()))
                    .collect();
                (children[0].0, self.node(false, &entries))
            });
            level = above.collect();
        }
        level[0].1
    }

    fn finish(mut self, mappings: u64, devices: u64) -> Vec<u8> {
        let block = &mut self.bytes[..BLOCK_BYTES];
        block[32..40].copy_from_slice(&27_022_010u64.to_le_bytes());
        block[40] = 2;
        block[320..328].copy_from_slice(&mappings.to_le_bytes());
        block[328..336].copy_from_slice(&devices.to_le_bytes());
        block[336] = 128;
        block[340] = 8;
        seal(block, SUPERBLOCK_SUM);
        self.bytes
    }
}

fn seal(block: &mut [u8], kind: u32) {
    let sum = checksum::of_block(&block[4..BLOCK_BYTES], kind);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

/// A pool with device 7: block, data block and time of each mapping, and when it was last a
/// snapshot's origin.
fn metadata(mappings: &[(u64, u64, u64)], shared_before: u8) -> Vec<u8> {
    let mut made = Metadata::new();
    let entries: Vec<_> = mappings
        .iter()
        .map(|(block, data, time)| (*block, (data << 24 | time).to_le_bytes().to_vec()))
        .collect();
    let root = made.tree(&entries);
    let roots = made.tree(&[(7, root.to_le_bytes().to_vec())]);
    let mut details = vec![0; 24];
    details[20] = shared_before;
    let devices = made.tree(&[(3, vec![0; 24]), (7, details)]);
    made.finish(roots, devices)
}

fn pool(metadata: Vec<u8>, data: &Arc<dyn WriteAt>) -> Result<Arc<Pool>> {
    let metadata = Arc::new(MemoryDevice::from(metadata));
    Pool::open(metadata, Arc::clone(data), DATA_BLOCK as u64).map(Arc::new)
}

/// Data blocks that are filled with their numbers.
fn data(blocks: usize) -> Arc<dyn WriteAt> {
    let bytes = (0..blocks * DATA_BLOCK).map(|at| (at / DATA_BLOCK) as u8);
    Arc::new(MemoryDevice::from(bytes.collect::<Vec<u8>>()))
}

fn volume(metadata: Vec<u8>, data: &Arc<dyn WriteAt>, blocks: usize) -> Result<ThinVolume> {
    let length = (blocks * DATA_BLOCK) as u64;
    ThinVolume::open(pool(metadata, data)?, 7, length, None)
}

fn block(device: &dyn ReadAt, number: usize) -> u8 {
    let mut bytes = vec![0; DATA_BLOCK];
    let at = (number * DATA_BLOCK) as u64;
    device.read_exact_at(at, &mut bytes).expect("inside");
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

#[test]
fn blocks_are_found_in_deep_trees_and_holes_are_told() {
    let mappings: Vec<_> = (0..200)
        .map(|index| (index * 3 + 5, index % 50, 1))
        .collect();
    let data = data(50);
    let thin = volume(metadata(&mappings, 0), &data, 700).expect("it is sound");
    for number in 0..620usize {
        let expected = match number.checked_sub(5) {
            Some(from) if from % 3 == 0 && from < 600 => (from / 3 % 50) as u8,
            _ => 0,
        };
        assert_eq!(block(&thin, number), expected, "block {number}");
    }
    let extent = |at: u64| {
        let extent = thin.extent_at(at).expect("inside");
        (extent.length, extent.kind)
    };
    let size = DATA_BLOCK as u64;
    assert_eq!(extent(10), (5 * size - 10, ExtentKind::Zero));
    assert_eq!(extent(5 * size + 1), (size - 1, ExtentKind::Data));
    assert_eq!(extent(6 * size), (2 * size, ExtentKind::Zero));
    assert_eq!(extent(603 * size), (97 * size, ExtentKind::Zero));
}

#[test]
fn only_blocks_of_its_own_are_written() {
    let data = data(3);
    let thin = volume(metadata(&[(0, 1, 5), (1, 2, 1)], 3), &data, 4).expect("it is sound");
    thin.write_all_at(0, &[9; 512]).expect("a block of its own");
    let mut read = [0; 2];
    data.read_exact_at(DATA_BLOCK as u64 + 511, &mut read)
        .expect("inside");
    assert_eq!(read, [9, 1]);
    let size = DATA_BLOCK as u64;
    let refused = |offset, bytes: &[u8]| {
        let error = thin.write_all_at(offset, bytes).expect_err("refused");
        error.to_string()
    };
    assert!(refused(size, &[1]).contains("a snapshot shares"));
    assert!(refused(2 * size, &[1]).contains("does not have yet"));
    // Nothing of a range is written where one part cannot be.
    assert!(refused(size - 2, &[8; 4]).contains("a snapshot shares"));
    assert_eq!(block(&thin, 1), 2);
    let mut last = [0];
    thin.read_exact_at(size - 1, &mut last).expect("inside");
    assert_eq!(last, [1]);
    thin.write_all_at(2 * size, &[0; 4096])
        .expect("zeros in a hole");
    thin.write_zeroes_at(2 * size, 2 * size)
        .expect("zeros in a hole");
    thin.write_zeroes_at(0, size).expect("a block of its own");
    assert_eq!(block(&thin, 0), 0);
    assert!(thin.write_zeroes_at(size, 1).is_err());
    thin.flush().expect("flush");
}

#[test]
fn holes_show_the_external_origin_as_far_as_it_goes() {
    let origin: Arc<dyn WriteAt> = Arc::new(MemoryDevice::from(vec![6; 2 * DATA_BLOCK]));
    let pool = pool(metadata(&[(0, 1, 0)], 0), &data(2)).expect("it is sound");
    let thin = ThinVolume::open(pool, 7, 4 * DATA_BLOCK as u64, Some(origin));
    let thin = thin.expect("it is there");
    assert_eq!([0, 1, 2].map(|number| block(&thin, number)), [1, 6, 0]);
    let mut across = [9; 2];
    thin.read_exact_at(2 * DATA_BLOCK as u64 - 1, &mut across)
        .expect("inside");
    assert_eq!(across, [6, 0]);
    assert!(thin.write_all_at(DATA_BLOCK as u64, &[0]).is_err());
    let extent = thin.extent_at(DATA_BLOCK as u64).expect("inside");
    assert_eq!(extent.kind, ExtentKind::Data);
}

#[test]
fn what_is_damaged_is_told() {
    let data = data(2);
    let sound = metadata(&[(0, 1, 0)], 0);
    let with = |at: usize, value: u8| {
        let mut bytes = sound.clone();
        bytes[at] = value;
        let number = at / BLOCK_BYTES;
        let kind = if number == 0 {
            SUPERBLOCK_SUM
        } else {
            NODE_SUM
        };
        seal(&mut bytes[number * BLOCK_BYTES..][..BLOCK_BYTES], kind);
        let thin = volume(bytes, &data, 2).and_then(|thin| thin.read_exact_at(0, &mut [0]));
        thin.expect_err("it is damaged").to_string()
    };
    let cases = [
        (32, 0, "expected its magic"),
        (40, 3, "version 3"),
        (336, 64, "expected data blocks of 65536 bytes, found 32768"),
        (340, 9, "expected metadata blocks of 8 sectors, found 9"),
        (360, 1, "incompatible features 0x1"),
        (325, 1, "expected a node, found the end"),
        (
            BLOCK_BYTES + 4,
            3,
            "expected an inner node or a leaf, found 3",
        ),
        (BLOCK_BYTES + 8, 9, "expected node 1, found 9"),
        (
            BLOCK_BYTES + 17,
            9,
            "expected at most 254 values of 8 bytes",
        ),
        (2 * BLOCK_BYTES + 32, 9, "expected a device 7 in the pool"),
        (
            BLOCK_BYTES + 32 + 254 * 8 + 3,
            7,
            "expected data block 7 within the pool",
        ),
    ];
    for (at, value, expected) in cases {
        let error = with(at, value);
        assert!(error.contains(expected), "{at}: {error}");
    }
    let mut flipped = sound.clone();
    flipped[BLOCK_BYTES + 100] ^= 1;
    let error = volume(flipped, &data, 2).and_then(|thin| thin.read_exact_at(0, &mut [0]));
    assert!(error.expect_err("damaged").to_string().contains("checksum"));
    assert!(pool(sound[..100].to_vec(), &data).is_err());
}

#[test]
fn trees_that_lead_in_circles_end() {
    let mut made = Metadata::new();
    let next = |block: u64| block.to_le_bytes().to_vec();
    let root = made.node(false, &[(0, next(1)), (1, next(1)), (2, next(1))]);
    assert_eq!(root, 1);
    let roots = made.tree(&[(7, next(root))]);
    let devices = made.tree(&[(7, vec![0; 24])]);
    let thin = volume(made.finish(roots, devices), &data(1), 4).expect("it opens");
    let error = thin.read_exact_at(0, &mut [0]).expect_err("no end");
    assert!(error.to_string().contains("within 64 nodes"), "{error}");
}

#[test]
fn no_changed_byte_makes_the_reader_panic() {
    let data = data(2);
    let sound = metadata(&[(0, 1, 0), (2, 0, 1), (3, 1, 1), (9, 0, 0)], 1);
    for at in 0..sound.len() {
        let within = at % BLOCK_BYTES;
        if !(4..120).contains(&within) && !(316..364).contains(&within) {
            continue;
        }
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = sound.clone();
            bytes[at] = value;
            let kind = if at < BLOCK_BYTES {
                SUPERBLOCK_SUM
            } else {
                NODE_SUM
            };
            seal(&mut bytes[at - within..][..BLOCK_BYTES], kind);
            let Ok(thin) = volume(bytes, &data, 12) else {
                continue;
            };
            let _ = thin.read_exact_at(0, &mut [0; 70000]);
            let _ = thin.extent_at(70000);
            let _ = thin.write_all_at(60000, &[1; 8000]);
        }
    }
}
