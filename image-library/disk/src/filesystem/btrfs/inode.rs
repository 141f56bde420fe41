// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inodes, and the names that lead to them.
//!
//! | item | offset | field |
//! |---|---|---|
//! | inode | 16 | size |
//! | | 44, 48, 52 | owner, group, mode |
//! | | 64 | flags: 1 is "no data checksums" |
//! | entry | 0 | key of what it names: an inode, or the root of a subvolume |
//! | | 25, 27, 29 | length of data, length of name, type |
//! | | 30 | name, data |
//!
//! A directory has each of its entries twice: under the hash of its name, where names with one hash
//! share an item, and under a number. Extended attributes are entries with data.
//!
//! Source: Linux, include/uapi/linux/btrfs_tree.h (`btrfs_inode_item`, `btrfs_dir_item`).

use super::super::{FileType, Metadata};
use super::key::{Key, kind, name_hash};
use super::tree::{Item, Tree};
use crate::error::{Error, Result};
use crate::fields::Fields;

const STRUCTURE: &str = "btrfs inode";
const ENTRY_STRUCTURE: &str = "btrfs directory entry";
const BYTES: usize = 160;
const ENTRY_BYTES: usize = 30;
const FLAG_NO_DATA_CHECKSUMS: u64 = 1;
const MODE_TYPE: u32 = 0o170_000;

/// What an inode says.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) metadata: Metadata,
    pub(super) has_checksums: bool,
}

impl Inode {
    pub(super) fn read(tree: &Tree<'_, '_>, number: u64) -> Result<Self> {
        let corrupt = |problem: &str| Error::corrupt(STRUCTURE, number, problem);
        let item = tree
            .get(Key::new(number, kind::INODE, 0))?
            .ok_or_else(|| corrupt("a name leads to it, and it is not there"))?;
        let fields = Fields(item.data());
        if item.data().len() < BYTES {
            return Err(corrupt("it is cut off"));
        }
        let mode = fields.u32(52);
        let file_type = match mode & MODE_TYPE {
            0o100_000 => FileType::File,
            0o040_000 => FileType::Directory,
            0o120_000 => FileType::Symlink,
            0o010_000 | 0o020_000 | 0o060_000 | 0o140_000 => FileType::Special,
            _ => return Err(corrupt(&format!("its mode {mode:o} is no type of file"))),
        };
        Ok(Self {
            metadata: Metadata {
                file_type,
                size_bytes: fields.u64(16),
                mode: mode & 0o7777,
                uid: fields.u32(44),
                gid: fields.u32(48),
            },
            has_checksums: fields.u64(64) & FLAG_NO_DATA_CHECKSUMS == 0,
        })
    }
}

/// A name, and what it leads to.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) target: Key,
    pub(super) name: Vec<u8>,
    pub(super) file_type: FileType,
    /// The value of an extended attribute.
    pub(super) data: Vec<u8>,
}

/// All entries of one item.
pub(super) fn entries(item: &Item) -> Result<Vec<Entry>> {
    let corrupt = |problem| Error::corrupt(ENTRY_STRUCTURE, item.key.object, problem);
    let mut found = Vec::new();
    let mut rest = item.data();
    while !rest.is_empty() {
        let fields = Fields(rest);
        let data_length = usize::from(fields.u16(25));
        let name_length = usize::from(fields.u16(27));
        let end = ENTRY_BYTES + name_length + data_length;
        if name_length == 0 || rest.len() < end {
            return Err(corrupt("it does not fit its item"));
        }
        // The highest bit marks an encrypted name, which nothing writes yet.
        let file_type = match fields.u8(29) & 0x7f {
            1 | 8 => FileType::File,
            2 => FileType::Directory,
            7 => FileType::Symlink,
            3..=6 => FileType::Special,
            _ => return Err(corrupt("its type is unknown")),
        };
        found.push(Entry {
            target: Key::from_bytes(fields, 0),
            name: fields.bytes(ENTRY_BYTES, name_length).to_vec(),
            file_type,
            data: fields
                .bytes(ENTRY_BYTES + name_length, data_length)
                .to_vec(),
        });
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(found)
}

/// The entry of a directory, or the extended attribute, with this name.
pub(super) fn look_up(
    tree: &Tree<'_, '_>,
    object: u64,
    kind: u8,
    name: &[u8],
) -> Result<Option<Entry>> {
    match tree.get(Key::new(object, kind, name_hash(name)))? {
        Some(item) => Ok(entries(&item)?.into_iter().find(|entry| entry.name == name)),
        None => Ok(None),
    }
}
