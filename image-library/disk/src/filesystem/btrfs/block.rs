// SPDX-License-Identifier: MIT OR Apache-2.0
//! A block of a tree: a node, which leads to other blocks, or a leaf with items.
//!
//! | offset | field | | offset | field |
//! |---|---|---|---|---|
//! | 0x00 | checksum of all that follows it | | 0x58 | tree that made it |
//! | 0x20 | UUID of the filesystem | | 0x60 | entries |
//! | 0x30 | logical address of this block | | 0x64 | level: 0 for a leaf |
//! | 0x50 | generation | | 0x65 | entries |
//!
//! | entry | bytes | fields |
//! |---|---|---|
//! | of a node | 33 | key, logical address, generation |
//! | of a leaf | 25 | key, where the item's data are (behind the header), their length |
//!
//! **Invariants** of a block that was parsed: it is the one that the pointer to it means (address,
//! level, generation, first key), keys ascend, and all data lie within it.
//!
//! Source: Linux, include/uapi/linux/btrfs_tree.h (`btrfs_header`), fs/btrfs/tree-checker.c.

use super::key::Key;
use super::superblock::Superblock;
use crate::error::{Error, Result};
use crate::fields::Fields;

const STRUCTURE: &str = "btrfs tree block";
const HEADER_BYTES: usize = 0x65;
const ITEM_BYTES: usize = 25;
const CHILD_BYTES: usize = 33;

/// What leads to a block, and says which one it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) logical: u64,
    pub(super) level: u8,
    pub(super) generation: u64,
    /// Unknown for the root of a tree.
    pub(super) first_key: Option<Key>,
}

impl Pointer {
    /// The kernel's `BTRFS_MAX_LEVEL` is 8.
    pub(super) const LEVEL_MAX: u8 = 7;
}

/// A block whose checksum and place are right.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Vec<u8>,
    level: u8,
    count: usize,
    generation: u64,
}

impl Block {
    pub(super) fn from_bytes(
        bytes: Vec<u8>,
        pointer: &Pointer,
        superblock: &Superblock,
    ) -> Result<Self> {
        let corrupt = |problem: String| Error::corrupt(STRUCTURE, pointer.logical, problem);
        if !superblock.checksum.matches_structure(&bytes) {
            return Err(corrupt("its checksum does not match".to_owned()));
        }
        let fields = Fields(&bytes);
        if fields.bytes(0x20, 16) != superblock.metadata_uuid {
            return Err(corrupt("it belongs to another filesystem".to_owned()));
        }
        if fields.u64(0x30) != pointer.logical {
            let found = fields.u64(0x30);
            return Err(corrupt(format!("expected its own place, found {found:#x}")));
        }
        let block = Self {
            level: fields.u8(0x64),
            count: fields.u32(0x60) as usize,
            generation: fields.u64(0x50),
            bytes,
        };
        block.check(pointer)?;
        block.check_entries(pointer.logical)?;
        Ok(block)
    }

    /// Whether this is the block that `pointer` means.
    pub(super) fn check(&self, pointer: &Pointer) -> Result<()> {
        let require = |what: &str, expected: u64, found: u64| match expected == found {
            true => Ok(()),
            false => Err(Error::corrupt(
                STRUCTURE,
                pointer.logical,
                format!("expected {what} {expected}, found {found}"),
            )),
        };
        require("level", pointer.level.into(), self.level.into())?;
        require("generation", pointer.generation, self.generation)?;
        match pointer.first_key {
            Some(key) if self.key(0) != Some(key) => Err(Error::corrupt(
                STRUCTURE,
                pointer.logical,
                format!("expected the first key {key:?}, found {:?}", self.key(0)),
            )),
            _ => Ok(()),
        }
    }

    fn check_entries(&self, logical: u64) -> Result<()> {
        let room = self.bytes.len().saturating_sub(HEADER_BYTES);
        let corrupt = |problem: &str| Error::corrupt(STRUCTURE, logical, problem);
        if self.count > room / self.entry_bytes() {
            return Err(corrupt("it has more entries than fit"));
        }
        if self.count == 0 && self.level > 0 {
            return Err(corrupt("a node leads nowhere"));
        }
        for slot in 1..self.count {
            if self.key(slot - 1) >= self.key(slot) {
                return Err(corrupt("its keys do not ascend"));
            }
        }
        if self.level > 0 {
            return Ok(());
        }
        let content = (self.count * ITEM_BYTES) as u64..=room as u64;
        for slot in 0..self.count {
            let (start, length) = self.data_range(slot);
            let end = u64::from(start) + u64::from(length);
            if !content.contains(&u64::from(start)) || !content.contains(&end) {
                return Err(corrupt("an item's data are not in it"));
            }
        }
        Ok(())
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.level == 0
    }

    fn entry_bytes(&self) -> usize {
        match self.level {
            0 => ITEM_BYTES,
            _ => CHILD_BYTES,
        }
    }

    fn entry(&self, slot: usize) -> Option<Fields<'_>> {
        let length = self.entry_bytes();
        let bytes = match slot < self.count {
            true => self
                .bytes
                .get(HEADER_BYTES + slot * length..)?
                .get(..length)?,
            false => return None,
        };
        Some(Fields(bytes))
    }

    /// The key of an entry; `None` behind the last.
    pub(super) fn key(&self, slot: usize) -> Option<Key> {
        Some(Key::from_bytes(self.entry(slot)?, 0))
    }

    /// How many entries have keys below `key`.
    pub(super) fn count_below(&self, key: &Key) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle) {
                Some(found) if found < *key => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// Where a node's entry leads; `None` behind the last.
    pub(super) fn child(&self, slot: usize) -> Option<Pointer> {
        let entry = self.entry(slot)?;
        Some(Pointer {
            logical: entry.u64(Key::BYTES),
            level: self.level.checked_sub(1)?,
            generation: entry.u64(Key::BYTES + 8),
            first_key: Some(Key::from_bytes(entry, 0)),
        })
    }

    fn data_range(&self, slot: usize) -> (u32, u32) {
        match self.entry(slot) {
            Some(entry) => (entry.u32(Key::BYTES), entry.u32(Key::BYTES + 4)),
            None => (0, 0),
        }
    }

    /// The data of a leaf's item.
    pub(super) fn data(&self, slot: usize) -> &[u8] {
        let (start, length) = self.data_range(slot);
        Fields(&self.bytes).bytes(HEADER_BYTES + start as usize, length as usize)
    }
}
