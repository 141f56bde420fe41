// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that all trees of btrfs are sorted by, and the numbers in them.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | object: an inode, a tree, a place |
//! | 8 | 1 | kind of item |
//! | 9 | 8 | offset: what it means depends on the kind |
//!
//! Source: Linux, include/uapi/linux/btrfs_tree.h (`btrfs_disk_key`).

use crate::fields::Fields;

/// The kinds of items that are read here.
pub(super) mod kind {
    pub(crate) const INODE: u8 = 1;
    pub(crate) const INODE_REFERENCE: u8 = 12;
    pub(crate) const EXTENDED_ATTRIBUTE: u8 = 24;
    pub(crate) const DIRECTORY_ITEM: u8 = 84;
    pub(crate) const DIRECTORY_INDEX: u8 = 96;
    pub(crate) const EXTENT_DATA: u8 = 108;
    pub(crate) const EXTENT_CHECKSUM: u8 = 128;
    pub(crate) const ROOT: u8 = 132;
    pub(crate) const ROOT_BACK_REFERENCE: u8 = 144;
    pub(crate) const ROOT_REFERENCE: u8 = 156;
    pub(crate) const EXTENT: u8 = 168;
    pub(crate) const METADATA_EXTENT: u8 = 169;
    pub(crate) const BLOCK_GROUP: u8 = 192;
    pub(crate) const DEVICE: u8 = 216;
    pub(crate) const CHUNK: u8 = 228;
}

/// Objects with a fixed number; those in the root tree are trees.
pub(super) mod object {
    pub(crate) const DEVICES: u64 = 1;
    pub(crate) const EXTENT_TREE: u64 = 2;
    pub(crate) const TOP_LEVEL: u64 = 5;
    pub(crate) const CHECKSUM_TREE: u64 = 7;
    pub(crate) const BLOCK_GROUP_TREE: u64 = 11;
    /// Subvolumes have numbers from here, and so have chunks and inodes.
    pub(crate) const FIRST_FREE: u64 = 256;
    pub(crate) const LAST_FREE: u64 = -256_i64 as u64;
    pub(crate) const EXTENT_CHECKSUMS: u64 = -10_i64 as u64;
    pub(crate) const TREE_LOG: u64 = -6_i64 as u64;
}

/// What an item is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    // The order of the fields is the order of the keys.
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) const BYTES: usize = 17;

    pub(super) const fn new(object: u64, kind: u8, offset: u64) -> Self {
        Self {
            object,
            kind,
            offset,
        }
    }

    pub(super) fn from_bytes(fields: Fields<'_>, at: usize) -> Self {
        Self {
            object: fields.u64(at),
            kind: fields.u8(at + 8),
            offset: fields.u64(at + 9),
        }
    }

    /// The first and the last key of an object's items of one kind.
    pub(super) const fn all(object: u64, kind: u8) -> (Self, Self) {
        (
            Self::new(object, kind, 0),
            Self::new(object, kind, u64::MAX),
        )
    }
}

/// The hash that directory entries and extended attributes are found by: CRC-32C from the seed `~1`,
/// not inverted at the end.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    u64::from(!crc32c::crc32c_append(1, name))
}

#[cfg(test)]
mod tests {
    use super::{Key, name_hash};

    #[test]
    fn keys_are_sorted_by_object_kind_and_offset() {
        let mut keys = [
            Key::new(256, 96, 2),
            Key::new(257, 1, 0),
            Key::new(256, 1, 9),
            Key::new(256, 96, 1),
        ];
        keys.sort();
        assert_eq!(
            keys.map(|key| (key.object, key.kind)),
            [(256, 1), (256, 96), (256, 96), (257, 1)]
        );
    }

    #[test]
    fn the_entry_of_the_default_subvolume_has_the_hash_that_every_filesystem_shows() {
        // `btrfs inspect-internal dump-tree -t root`: key (ROOT_TREE_DIR DIR_ITEM 2378154706).
        assert_eq!(name_hash(b"default"), 2_378_154_706);
    }
}
