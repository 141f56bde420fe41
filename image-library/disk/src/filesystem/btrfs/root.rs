// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roots of trees: items of the root tree, and of the log's.
//!
//! | offset | field | | offset | field |
//! |---|---|---|---|---|
//! | 160 | generation | | 216 | references: 0 when it is being deleted |
//! | 168 | inode of the root directory | | 238 | level |
//! | 176 | logical address | | 239 | generation, again: the rest is valid |
//! | 208 | flags: 1 is read-only | | 247, 263 | UUIDs: its own, of what it is a snapshot of |
//!
//! Source: Linux, include/uapi/linux/btrfs_tree.h (`btrfs_root_item`).

use super::block::Pointer;
use super::key::{Key, kind};
use super::tree::Item;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::fields::{Fields, uuid};

const STRUCTURE: &str = "btrfs root item";
/// Before Linux 3.6 the item ended here.
const BYTES_MIN: usize = 239;
const FLAG_READ_ONLY: u64 = 1;

/// A root.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) pointer: Pointer,
    pub(super) directory: u64,
    pub(super) read_only: bool,
    pub(super) deleted: bool,
    pub(super) uuid: Option<String>,
    pub(super) parent_uuid: Option<String>,
}

impl Root {
    pub(super) fn from_item(item: &Item) -> Result<Self> {
        let fields = Fields(item.data());
        let corrupt = |problem| Error::corrupt(STRUCTURE, item.key.object, problem);
        if item.data().len() < BYTES_MIN {
            return Err(corrupt("it is cut off"));
        }
        if fields.u8(238) > Pointer::LEVEL_MAX {
            return Err(corrupt("its tree is higher than 8 levels"));
        }
        let generation = fields.u64(160);
        let extended = fields.u64(239) == generation;
        let uuid_at = |at| uuid(fields.bytes(at, 16)).filter(|_| extended);
        Ok(Self {
            pointer: Pointer {
                logical: fields.u64(176),
                level: fields.u8(238),
                generation,
                first_key: None,
            },
            directory: fields.u64(168),
            read_only: fields.u64(208) & FLAG_READ_ONLY != 0,
            deleted: fields.u32(216) == 0,
            uuid: uuid_at(247),
            parent_uuid: uuid_at(263),
        })
    }
}

/// The newest root of this number.
pub(super) fn find(volume: &Volume<'_>, number: u64) -> Result<Option<Root>> {
    let (first, last) = Key::all(number, kind::ROOT);
    let mut newest = None;
    for item in volume.root_tree().range(first, last)? {
        newest = Some(item?);
    }
    newest.as_ref().map(Root::from_item).transpose()
}
