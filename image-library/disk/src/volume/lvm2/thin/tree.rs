// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trees of device mapper's metadata: from numbers to values of one size.
//!
//! | offset in a node | size | field |
//! |---|---|---|
//! | 0 | 4 | checksum of the rest |
//! | 4 | 4 | 1: an inner node, 2: a leaf |
//! | 8 | 8 | this block's number |
//! | 16, 20 | 4 each | keys that there are, and that there is room for |
//! | 24 | 4 | bytes of a value; 8 in an inner node, whose values are blocks |
//! | 32 | 8 each | keys, ascending; behind the room for them the values |
//!
//! From drivers/md/persistent-data/dm-btree-internal.h of Linux.
//!
//! **Limit:** a look-up reads 64 nodes; a tree of all blocks that a device can have is 10 levels
//! deep.

use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block};

use super::super::checksum;
use super::BLOCK_BYTES;

const NODE_SUM: u32 = 121_107;
const INNER: u32 = 1;
const LEAF: u32 = 2;
const HEADER_BYTES: usize = 32;
const NODES_MAX: usize = 64;
const STRUCTURE: &str = "thin pool metadata";

/// A tree on a device.
pub(super) struct Tree<'a> {
    pub(super) device: &'a dyn ReadAt,
    pub(super) root: u64,
    pub(super) value_bytes: usize,
}

struct Node {
    bytes: Vec<u8>,
    is_leaf: bool,
    count: usize,
    room: usize,
}

impl Tree<'_> {
    /// The value of a key.
    pub(super) fn get(&self, key: u64) -> Result<Option<Vec<u8>>> {
        let found = self.at_or_after(key)?;
        Ok(found.and_then(|(found, value)| (found == key).then_some(value)))
    }

    /// The first key from `key` on, with its value.
    pub(super) fn at_or_after(&self, key: u64) -> Result<Option<(u64, Vec<u8>)>> {
        // The way down, and what was passed by on the right, nearest last.
        let mut ahead = vec![self.root];
        for _ in 0..NODES_MAX {
            let Some(block) = ahead.pop() else {
                return Ok(None);
            };
            let node = self.node(block)?;
            if node.is_leaf {
                let index = node.partition(|found| found < key);
                if index < node.count {
                    return Ok(Some((node.key(index), node.value(index, self.value_bytes))));
                }
                continue;
            }
            // The last child that does not begin behind the key, or else the first one.
            let index = node.partition(|found| found <= key).saturating_sub(1);
            let child = |index| (index < node.count).then(|| node.child(index));
            ahead.extend(child(index + 1));
            ahead.extend(child(index));
        }
        let problem = format!("expected the key {key:#x} within {NODES_MAX} nodes of its tree");
        Err(Error::corrupt(STRUCTURE, self.place(self.root), problem))
    }

    fn place(&self, block: u64) -> u64 {
        block.saturating_mul(BLOCK_BYTES as u64)
    }

    fn node(&self, block: u64) -> Result<Node> {
        let corrupt = |problem| Error::corrupt(STRUCTURE, self.place(block), problem);
        let Some(bytes) = read_block(self.device, self.place(block), BLOCK_BYTES)? else {
            return Err(corrupt("expected a node, found the end".to_owned()));
        };
        let fields = Fields(&bytes);
        let sum = checksum::of_block(fields.bytes(4, BLOCK_BYTES - 4), NODE_SUM);
        if fields.u32(0) != sum {
            let expected = fields.u32(0);
            return Err(corrupt(format!(
                "expected checksum {expected:#x}, found {sum:#x}"
            )));
        }
        if fields.u64(8) != block {
            return Err(corrupt(format!(
                "expected node {block}, found {}",
                fields.u64(8)
            )));
        }
        let (is_leaf, value_bytes) = match fields.u32(4) {
            INNER => (false, 8),
            LEAF => (true, self.value_bytes),
            other => {
                return Err(corrupt(format!(
                    "expected an inner node or a leaf, found {other}"
                )));
            }
        };
        let (count, room) = (fields.u32(16) as usize, fields.u32(20) as usize);
        let room_max = (BLOCK_BYTES - HEADER_BYTES) / (8 + value_bytes);
        if count > room || room > room_max || fields.u32(24) as usize != value_bytes {
            return Err(corrupt(format!(
                "expected at most {room_max} values of {value_bytes} bytes, found {count} of {room}, of {}",
                fields.u32(24)
            )));
        }
        Ok(Node {
            is_leaf,
            count,
            room,
            bytes,
        })
    }
}

impl Node {
    fn key(&self, index: usize) -> u64 {
        Fields(&self.bytes).u64(HEADER_BYTES + 8 * index)
    }

    fn child(&self, index: usize) -> u64 {
        Fields(&self.bytes).u64(HEADER_BYTES + 8 * self.room + 8 * index)
    }

    fn value(&self, index: usize, length: usize) -> Vec<u8> {
        let at = HEADER_BYTES + 8 * self.room + length * index;
        Fields(&self.bytes).bytes(at, length).to_vec()
    }

    /// How many keys from the first on are like that.
    fn partition(&self, is_before: impl Fn(u64) -> bool) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = (low + high) / 2;
            match is_before(self.key(middle)) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}
