// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extended attributes by name.
//!
//! | where | layout |
//! |---|---|
//! | inode | header of 4 bytes, count at 2; entries: length of name and of value, flags, name, value |
//! | leaf | records: hash, place (2 bytes), flags; at the place: length of the value (2 bytes), of the name, name, value |
//! | leaf, flag 1 not set | at the place: block of the value, its length (4 bytes each), length of the name, name |
//! | value's blocks | in version 5 each begins with a header of 56 bytes: magic `XARM`, place, length |
//!
//! Facts: Linux, `fs/xfs/libxfs/xfs_da_format.h`, `xfs_attr_leaf.c`, `xfs_attr_remote.c`.

use std::ops::Deref;

use super::file::REMOTE_HEADER;
use super::fork::{Fork, Format};
use super::hash_tree::{HashTree, hash};
use super::volume::{Block, Volume};
use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::Fields;

const STRUCTURE: &str = "XFS attributes";
const VALUE_BYTES_MAX: usize = 64 << 10;
const LEAVES: [u16; 2] = [0xfbee, 0x3bee];

const FLAG_LOCAL: u8 = 0x01;
/// `security.`
const FLAG_SECURE: u8 = 0x04;
/// Root's, of the system's security, of parents, or not made yet: all that tell names apart.
const FLAGS_OF_NAMESPACE: u8 = 0x02 | FLAG_SECURE | 0x08 | 0x80;

/// The value of an attribute `security.NAME`.
pub(super) fn security<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    fork: &Fork,
    name: &[u8],
) -> Result<Option<Vec<u8>>> {
    if fork.format == Format::Local {
        return in_inode(fork, name);
    }
    // A fork may have nothing left.
    if fork.mapping(volume, 0..1)?.0.is_empty() {
        return Ok(None);
    }
    let tree = HashTree {
        volume,
        fork,
        root: 0,
        blocks: 1,
        leaves: &LEAVES,
        header_lengths: [80, 32],
    };
    tree.find(hash(name), |leaf, record| {
        in_leaf(volume, fork, name, leaf, record)
    })
}

fn is_secure(flags: u8) -> bool {
    flags & FLAGS_OF_NAMESPACE == FLAG_SECURE
}

fn in_inode(fork: &Fork, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let fields = Fields(&fork.bytes);
    let mut at = 4;
    for _ in 0..fields.u8(2) {
        let (name_length, length) = (usize::from(fields.u8(at)), usize::from(fields.u8(at + 1)));
        let value = fields.bytes(at + 3 + name_length, length);
        if name_length == 0 || value.len() != length {
            let problem = format!("inode {}: an entry is cut off", fork.owner);
            return Err(Error::corrupt(STRUCTURE, fork.offset, problem));
        }
        if is_secure(fields.u8(at + 2)) && fields.bytes(at + 3, name_length) == name {
            return Ok(Some(value.to_vec()));
        }
        at += 3 + name_length + length;
    }
    Ok(None)
}

fn in_leaf<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    fork: &Fork,
    name: &[u8],
    leaf: &Block,
    record: &[u8],
) -> Result<Option<Vec<u8>>> {
    let (at, flags) = (usize::from(Fields(record).u16_be(4)), Fields(record).u8(6));
    if !is_secure(flags) {
        return Ok(None);
    }
    let fields = leaf.fields();
    let (name_length, name_at) = match flags & FLAG_LOCAL {
        0 => (fields.u8(at + 8), at + 9),
        _ => (fields.u8(at + 2), at + 3),
    };
    if fields.bytes(name_at, name_length.into()) != name {
        return Ok(None);
    }
    if flags & FLAG_LOCAL == 0 {
        let (first, length) = (fields.u32_be(at), fields.u32_be(at + 4));
        return remote(volume, fork, first.into(), length as usize).map(Some);
    }
    let length = usize::from(fields.u16_be(at));
    let value = fields.bytes(name_at + name.len(), length);
    match value.len() == length {
        true => Ok(Some(value.to_vec())),
        false => Err(Error::corrupt(STRUCTURE, leaf.offset, "a value is cut off")),
    }
}

/// A value in blocks of its own.
fn remote<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    fork: &Fork,
    first: u64,
    length: usize,
) -> Result<Vec<u8>> {
    let superblock = &volume.superblock;
    let broken = |problem: &str| {
        let problem = format!("inode {}: a value {problem}", fork.owner);
        Error::corrupt(STRUCTURE, fork.offset, problem)
    };
    if length > VALUE_BYTES_MAX {
        return Err(broken(&format!("of {length} bytes")));
    }
    let header = if superblock.has_checksums {
        REMOTE_HEADER
    } else {
        0
    };
    let blocks = length.div_ceil(superblock.block_size as usize - header) as u64;
    let mapping = fork.mapping(volume, first..first + blocks)?;
    let mut value = Vec::new();
    for number in first..first + blocks {
        let block = mapping.read(volume, number, 1)?;
        let block = block.ok_or_else(|| broken("has a hole"))?;
        if superblock.has_checksums {
            let magic = block.bytes.starts_with(b"XARM");
            block.check(STRUCTURE, magic, Some(fork.owner), superblock)?;
            if block.fields().u32_be(4) as usize != value.len() {
                return Err(broken("has a part at another place"));
            }
        }
        let rest = length - value.len();
        let part = block.bytes.get(header..).unwrap_or_default();
        value.extend_from_slice(part.get(..rest.min(part.len())).unwrap_or_default());
    }
    Ok(value)
}
