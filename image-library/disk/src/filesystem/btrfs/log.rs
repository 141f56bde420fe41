// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the log tree takes: files that were made durable after the last commit.
//!
//! The log is a tree of roots, one for each subvolume, whose trees hold items as the subvolume's own.
//! Neither its blocks nor the data that it leads to are in the extent tree before the kernel replays
//! it. It is not replayed here: what is read is the last commit.
//!
//! Source: Linux, fs/btrfs/tree-log.c.

use std::ops::Range;

use super::super::extents::merged;
use super::file::FileExtent;
use super::key::{Key, kind, object};
use super::root::Root;
use super::tree::Tree;
use super::volume::Volume;
use crate::error::{Error, Result};

const EXTENTS_MAX: usize = 1 << 20;
const ALL: (Key, Key) = (Key::new(0, 0, 0), Key::new(u64::MAX, u8::MAX, u64::MAX));

/// The logical ranges that only the log knows: ascending, apart.
pub(super) fn extents(volume: &Volume<'_>) -> Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    if let Some(pointer) = volume.superblock.log_tree {
        let log = Tree::new(volume, pointer);
        add_blocks(volume, &log, &mut found)?;
        for item in log.range(ALL.0, ALL.1)? {
            let item = item?;
            if (item.key.object, item.key.kind) == (object::TREE_LOG, kind::ROOT) {
                let root = Root::from_item(&item)?;
                add_tree(volume, &Tree::new(volume, root.pointer), &mut found)?;
            }
        }
    }
    Ok(merged(found, u64::MAX))
}

fn add_tree(volume: &Volume<'_>, tree: &Tree<'_, '_>, found: &mut Vec<Range<u64>>) -> Result<()> {
    add_blocks(volume, tree, found)?;
    for item in tree.range(ALL.0, ALL.1)? {
        let item = item?;
        if item.key.kind == kind::EXTENT_DATA
            && let Some((logical, length)) = FileExtent::stored(&item)
        {
            if found.len() >= EXTENTS_MAX {
                return Err(Error::Limit {
                    what: "the extents in the log of a btrfs filesystem",
                    limit: EXTENTS_MAX as u64,
                });
            }
            found.push(logical..logical.saturating_add(length));
        }
    }
    Ok(())
}

fn add_blocks(volume: &Volume<'_>, tree: &Tree<'_, '_>, found: &mut Vec<Range<u64>>) -> Result<()> {
    let length = volume.superblock.node_bytes as u64;
    let blocks = tree.blocks()?.into_iter();
    found.extend(blocks.map(|logical| logical..logical.saturating_add(length)));
    Ok(())
}
