// SPDX-License-Identifier: MIT OR Apache-2.0
//! Walking a tree in the order of its keys.
//!
//! **Invariants:** a level below is always lower, and every block begins with the key that its parent
//! has for it, so no walk visits a block twice: keys that do not ascend end it with an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::block::{Block, Pointer};
use super::key::Key;
use super::volume::Volume;
use crate::error::{Error, Result};

/// 1 GiB of the usual 16 KiB.
const BLOCKS_MAX: usize = 1 << 16;

/// A tree of a filesystem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'v, 'd> {
    volume: &'v Volume<'d>,
    root: Pointer,
}

/// An item, with the leaf that it is in.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) key: Key,
    leaf: Arc<Block>,
    slot: usize,
}

impl Item {
    pub(super) fn data(&self) -> &[u8] {
        self.leaf.data(self.slot)
    }
}

impl<'v, 'd> Tree<'v, 'd> {
    pub(super) fn new(volume: &'v Volume<'d>, root: Pointer) -> Self {
        Self { volume, root }
    }

    /// The item with this key.
    pub(super) fn get(&self, key: Key) -> Result<Option<Item>> {
        self.range(key, key)?.next().transpose()
    }

    /// The items from `first` to `last`, both included.
    pub(super) fn range(&self, first: Key, last: Key) -> Result<Items<'v, 'd>> {
        let path = self.path(&first)?;
        Ok(Items {
            volume: self.volume,
            path,
            previous: None,
            last,
        })
    }

    /// The same, and the item before `first`, where the first's own is not there.
    pub(super) fn range_from_before(&self, first: Key, last: Key) -> Result<Items<'v, 'd>> {
        let mut items = self.range(first, last)?;
        if let Some((leaf, slot)) = items.path.last_mut()
            && leaf.key(*slot) != Some(first)
        {
            *slot = slot.saturating_sub(1);
        }
        Ok(items)
    }

    /// The addresses of all its blocks, as long as they are not too many.
    pub(super) fn blocks(&self) -> Result<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        // The deepest first: this holds the siblings on one way down, and no more.
        let mut pending = vec![self.root];
        while let Some(pointer) = pending.pop() {
            let block = self.volume.block(&pointer)?;
            if !found.insert(pointer.logical) {
                continue;
            }
            if found.len() > BLOCKS_MAX {
                return Err(Error::Limit {
                    what: "the blocks of a small tree of btrfs",
                    limit: BLOCKS_MAX as u64,
                });
            }
            pending.extend((0..).map_while(|slot| block.child(slot)));
        }
        Ok(found)
    }

    /// The way to the first item that is not below `key`: blocks, and what is next in each.
    fn path(&self, key: &Key) -> Result<Vec<(Arc<Block>, usize)>> {
        let mut path = Vec::new();
        let mut pointer = self.root;
        loop {
            let block = self.volume.block(&pointer)?;
            let below = block.count_below(key);
            if block.is_leaf() {
                path.push((block, below));
                return Ok(path);
            }
            // The last child that begins at the key or before it.
            let slot = match block.key(below) {
                Some(found) if found == *key => below,
                _ => below.saturating_sub(1),
            };
            let child = block.child(slot);
            path.push((block, slot + 1));
            match child {
                Some(child) => pointer = child,
                None => return Ok(path),
            }
        }
    }
}

/// Items in the order of their keys.
#[derive(Debug)]
pub(super) struct Items<'v, 'd> {
    volume: &'v Volume<'d>,
    path: Vec<(Arc<Block>, usize)>,
    previous: Option<Key>,
    last: Key,
}

impl Items<'_, '_> {
    fn step(&mut self) -> Result<Option<Item>> {
        while let Some((block, next)) = self.path.last_mut() {
            let slot = *next;
            let Some(key) = block.key(slot).filter(|key| *key <= self.last) else {
                self.path.pop();
                continue;
            };
            *next += 1;
            if block.is_leaf() {
                let leaf = Arc::clone(block);
                if self.previous.is_some_and(|previous| previous >= key) {
                    let problem = format!("{key:?} does not follow {:?}", self.previous);
                    return Err(Error::corrupt("btrfs tree", 0, problem));
                }
                self.previous = Some(key);
                return Ok(Some(Item { key, leaf, slot }));
            }
            if let Some(child) = block.child(slot) {
                let child = self.volume.block(&child)?;
                self.path.push((child, 0));
            }
        }
        Ok(None)
    }
}

impl Iterator for Items<'_, '_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.path.clear();
        }
        step.transpose()
    }
}
