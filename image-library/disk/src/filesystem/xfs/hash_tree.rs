// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trees by the hash of a name: of large directories, and of attributes that do not fit the inode.
//!
//! | block | magic at 8 | header | records of 8 bytes |
//! |---|---|---|---|
//! | node | `0xfebe`, `0x3ebe` | count at 12 or 56, level behind it | largest hash below, block of the fork |
//! | leaf of a directory | `0xd2f1`, `0xd2ff`, `0x3df1`, `0x3dff` | count likewise | hash, place of the entry in 8 bytes |
//! | leaf of attributes | `0xfbee`, `0x3bee` | count likewise | hash, place of the entry, flags |
//!
//! The first magic and count are those of version 4. Leaves of one level are linked, because
//! entries of one hash may fill more than one. Facts: Linux, `fs/xfs/libxfs/xfs_da_format.h`,
//! `xfs_da_btree.c`.

use std::ops::Deref;

use super::fork::Fork;
use super::volume::{Block, Volume};
use crate::block::ReadAt;
use crate::error::{Error, Result};

const STRUCTURE: &str = "XFS hash tree";
const LEVELS_MAX: usize = 5;
/// So many leaves with one hash are no accident.
const LEAVES_MAX: usize = 256;
const NODES: [u16; 2] = [0xfebe, 0x3ebe];

/// The hash of a name: seven bits further for each byte.
pub(super) fn hash(name: &[u8]) -> u32 {
    name.iter()
        .fold(0, |hash: u32, &byte| u32::from(byte) ^ hash.rotate_left(7))
}

/// A tree in a fork.
#[derive(Debug)]
pub(super) struct HashTree<'t, D> {
    pub(super) volume: &'t Volume<D>,
    pub(super) fork: &'t Fork,
    /// Where its root is, in blocks of the fork.
    pub(super) root: u64,
    /// Blocks of the fork that make one of the tree.
    pub(super) blocks: u64,
    /// The magics of its leaves.
    pub(super) leaves: &'t [u16],
    /// Length of a leaf's header, with and without checksums.
    pub(super) header_lengths: [usize; 2],
}

impl<D: Deref<Target: ReadAt>> HashTree<'_, D> {
    /// Asks about every record with this hash, until there is an answer.
    pub(super) fn find<T>(
        &self,
        hash: u32,
        mut ask: impl FnMut(&Block, &[u8]) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let Some(mut leaf) = self.leaf(hash)? else {
            return Ok(None);
        };
        for _ in 0..LEAVES_MAX {
            let records = self.records(&leaf)?;
            let hash_of = |record: &[u8]| crate::fields::Fields(record).u32_be(0);
            let mut records = records.chunks_exact(8).skip_while(|r| hash_of(r) < hash);
            for record in records.by_ref().take_while(|r| hash_of(r) == hash) {
                if let Some(answer) = ask(&leaf, record)? {
                    return Ok(Some(answer));
                }
            }
            let ended = self.records(&leaf)?.chunks_exact(8).next_back();
            let next = leaf.fields().u32_be(0);
            if next == 0 || ended.is_some_and(|last| hash_of(last) > hash) {
                return Ok(None);
            }
            leaf = self.block(next.into())?;
        }
        Err(Error::corrupt(
            STRUCTURE,
            leaf.offset,
            "one hash fills too many leaves",
        ))
    }

    /// The first leaf that can have this hash.
    fn leaf(&self, hash: u32) -> Result<Option<Block>> {
        let mut block = self.block(self.root)?;
        for _ in 0..LEVELS_MAX {
            if !NODES.contains(&magic(&block)) {
                return Ok(Some(block));
            }
            let header = if self.volume.superblock.has_checksums {
                64
            } else {
                16
            };
            let records = self.records_behind(&block, header)?;
            let fields = |record| crate::fields::Fields(record);
            let mut records = records.chunks_exact(8).map(fields);
            let Some(child) = records.find(|record| record.u32_be(0) >= hash) else {
                return Ok(None);
            };
            block = self.block(child.u32_be(4).into())?;
        }
        match NODES.contains(&magic(&block)) {
            true => Err(Error::corrupt(STRUCTURE, block.offset, "too many levels")),
            false => Ok(Some(block)),
        }
    }

    fn block(&self, number: u64) -> Result<Block> {
        let mapping = self
            .fork
            .mapping(self.volume, number..number + self.blocks)?;
        let block = mapping
            .read(self.volume, number, self.blocks)?
            .ok_or_else(|| {
                let problem = format!("inode {}: block {number:#x} is a hole", self.fork.owner);
                Error::corrupt(STRUCTURE, self.fork.offset, problem)
            })?;
        let magic = magic(&block);
        let has_magic = NODES.contains(&magic) || self.leaves.contains(&magic);
        let owner = Some(self.fork.owner);
        block.check(STRUCTURE, has_magic, owner, &self.volume.superblock)?;
        Ok(block)
    }

    fn records<'b>(&self, leaf: &'b Block) -> Result<&'b [u8]> {
        if !self.leaves.contains(&magic(leaf)) {
            return Err(Error::corrupt(STRUCTURE, leaf.offset, "expected a leaf"));
        }
        let [checked, plain] = self.header_lengths;
        let header = if self.volume.superblock.has_checksums {
            checked
        } else {
            plain
        };
        self.records_behind(leaf, header)
    }

    fn records_behind<'b>(&self, block: &'b Block, header: usize) -> Result<&'b [u8]> {
        let count_at = if self.volume.superblock.has_checksums {
            56
        } else {
            12
        };
        let length = usize::from(block.fields().u16_be(count_at)) * 8;
        let records = block.bytes.get(header..header + length);
        records.ok_or_else(|| Error::corrupt(STRUCTURE, block.offset, "more records than fit"))
    }
}

fn magic(block: &Block) -> u16 {
    block.fields().u16_be(8)
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn names_hash_as_xfs_db_says() {
        // xfs_db -c 'hash NAME'.
        let cases: [(&str, u32); 5] = [
            ("a", 0x61),
            ("lost+found", 0x021a_a60c),
            ("SGI_ACL_FILE", 0x275b_19c4),
            ("selinux", 0xcd3a_75d6),
            ("modules.dep.bin", 0x88cb_9d44),
        ];
        for (name, expected) in cases {
            assert_eq!(hash(name.as_bytes()), expected, "{name}");
        }
    }
}
