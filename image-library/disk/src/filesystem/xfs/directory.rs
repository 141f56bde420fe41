// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories: within the inode, in one block, or in blocks with an index by hash.
//!
//! | where | layout |
//! |---|---|
//! | inode | count at 0; count of large numbers at 1: where not 0, inode numbers are of 8 bytes, else of 4; parent; entries: length of the name, place (2 bytes), name, type, inode |
//! | `XD2B`, `XDB3` | header of 16 or 64, entries, records by hash, count of those (the last 8 bytes) |
//! | `XD2D`, `XDD3` | header likewise, entries |
//!
//! An entry of a block is inode (8 bytes), length of the name, name, type, and its own place in the
//! last 2 bytes, rounded up to 8; unused space begins with `0xffff` and its length. The type is
//! there where the superblock says so. Blocks of entries begin at 0 of the fork, the index at 32
//! GiB.
//!
//! Facts: Linux, `fs/xfs/libxfs/xfs_da_format.h`, `xfs_dir2_data.c`, `xfs_dir2_sf.c`.

use std::ops::Deref;

use super::super::path::directory_too_large;
use super::super::superblock::xfs::Superblock;
use super::super::{DirectoryEntry, FileType};
use super::fork::{Format, Mapping};
use super::hash_tree::{HashTree, hash};
use super::inode::Inode;
use super::volume::{Block, Volume};
use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::Fields;

const STRUCTURE: &str = "XFS directory";
/// A directory may be far larger; no guest directory that conversion lists is.
const ENTRIES_MAX: usize = 1 << 20;
/// Some of them may be empty, but not nearly all.
const BLOCKS_MAX: usize = 1 << 18;
const INDEX_BYTE: u64 = 32 << 30;
const LEAVES: [u16; 4] = [0xd2f1, 0xd2ff, 0x3df1, 0x3dff];
const UNUSED: u16 = 0xffff;

/// One name.
#[derive(Debug, Clone, Copy)]
struct Entry<'e> {
    name: &'e [u8],
    inode: u64,
    /// 0 where it is not told.
    file_type: u8,
}

/// The inode that a name in a directory means.
pub(super) fn find<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    directory: &Inode,
    name: &[u8],
) -> Result<Option<u64>> {
    if directory.data.format != Format::Local {
        let index = INDEX_BYTE / volume.superblock.block_size;
        let indexed = directory.data.mapping(volume, index..index + 1)?;
        if !indexed.0.is_empty() {
            return find_by_hash(volume, directory, name, index);
        }
    }
    let mut found = None;
    each(volume, directory, |entry| {
        if entry.name == name {
            found = Some(entry.inode);
        }
        Ok(())
    })?;
    Ok(found)
}

/// All names of a directory but `.` and `..`, sorted.
pub(super) fn list<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    directory: &Inode,
) -> Result<Vec<DirectoryEntry>> {
    let mut entries = Vec::new();
    each(volume, directory, |entry| {
        if matches!(entry.name, b"." | b"..") {
            return Ok(());
        }
        if entries.len() >= ENTRIES_MAX {
            return Err(directory_too_large(ENTRIES_MAX));
        }
        let file_type = match entry.file_type {
            1 => FileType::File,
            2 => FileType::Directory,
            3..=6 | 8 => FileType::Special,
            7 => FileType::Symlink,
            _ => Inode::read(volume, entry.inode)?.metadata.file_type,
        };
        entries.push(DirectoryEntry {
            name: String::from_utf8_lossy(entry.name).into_owned(),
            file_type,
        });
        Ok(())
    })?;
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(entries)
}

fn each<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    directory: &Inode,
    mut visit: impl FnMut(Entry<'_>) -> Result<()>,
) -> Result<()> {
    let superblock = &volume.superblock;
    if directory.data.format == Format::Local {
        return each_in_inode(superblock, directory, visit);
    }
    let index = INDEX_BYTE / superblock.block_size;
    let blocks = superblock.directory_block_size / superblock.block_size;
    let mapping = directory.data.mapping(volume, 0..index)?;
    let (mut next, mut count) = (0, 0);
    for extent in &mapping.0 {
        // A block of a directory may have more than one extent, and an extent more than one block.
        let mut first = (extent.first / blocks * blocks).max(next);
        while first < extent.end() {
            let block = data_block(volume, directory, &mapping, first)?;
            each_in_block(superblock, &block, &mut visit)?;
            first += blocks;
            count += 1;
            if count > BLOCKS_MAX {
                return Err(directory_too_large(ENTRIES_MAX));
            }
        }
        next = first;
    }
    Ok(())
}

fn data_block<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    directory: &Inode,
    mapping: &Mapping,
    first: u64,
) -> Result<Block> {
    let superblock = &volume.superblock;
    let blocks = superblock.directory_block_size / superblock.block_size;
    let block = mapping.read(volume, first, blocks)?.ok_or_else(|| {
        let problem = format!("inode {}: block {first:#x} is a hole", directory.number);
        Error::corrupt(STRUCTURE, directory.data.offset, problem)
    })?;
    let magic = block.fields().bytes(0, 4);
    let has_magic = match superblock.has_checksums {
        true => matches!(magic, b"XDB3" | b"XDD3"),
        false => matches!(magic, b"XD2B" | b"XD2D"),
    };
    block.check(STRUCTURE, has_magic, Some(directory.number), superblock)?;
    Ok(block)
}

fn each_in_inode(
    superblock: &Superblock,
    directory: &Inode,
    mut visit: impl FnMut(Entry<'_>) -> Result<()>,
) -> Result<()> {
    let fork = &directory.data;
    let fields = Fields(&fork.bytes);
    let width = if fields.u8(1) == 0 { 4 } else { 8 };
    let type_length = usize::from(superblock.has_file_types);
    let mut at = 2 + width;
    for _ in 0..fields.u8(0) {
        let length = usize::from(fields.u8(at));
        let name = fields.bytes(at + 3, length);
        let number_at = at + 3 + length + type_length;
        let number = fields.bytes(number_at, width);
        if name.is_empty() || number.len() != width {
            let problem = format!("inode {}: an entry is cut off", directory.number);
            return Err(Error::corrupt(STRUCTURE, fork.offset, problem));
        }
        visit(Entry {
            name,
            inode: number
                .iter()
                .fold(0, |all, &byte| all << 8 | u64::from(byte)),
            file_type: if type_length == 0 {
                0
            } else {
                fields.u8(number_at - 1)
            },
        })?;
        at = number_at + width;
    }
    Ok(())
}

fn header_length(superblock: &Superblock) -> usize {
    match superblock.has_checksums {
        true => 64,
        false => 16,
    }
}

/// Where the entries of a block end.
fn entries_end(block: &Block) -> Result<usize> {
    let length = block.bytes.len();
    if !matches!(block.fields().bytes(0, 4), b"XD2B" | b"XDB3") {
        return Ok(length);
    }
    let records = block.fields().u32_be(length - 8) as usize;
    let index = records
        .checked_mul(8)
        .and_then(|index| index.checked_add(8));
    let end = index.and_then(|index| length.checked_sub(index));
    end.ok_or_else(|| broken(block, length - 8, "more records than fit"))
}

fn broken(block: &Block, at: usize, problem: &str) -> Error {
    Error::corrupt(
        STRUCTURE,
        block.offset,
        format!("at its byte {at}: {problem}"),
    )
}

fn each_in_block(
    superblock: &Superblock,
    block: &Block,
    visit: &mut impl FnMut(Entry<'_>) -> Result<()>,
) -> Result<()> {
    let end = entries_end(block)?;
    let mut at = header_length(superblock);
    while at < end {
        if block.fields().u16_be(at) == UNUSED {
            let length = usize::from(block.fields().u16_be(at + 2));
            if length < 8 || !length.is_multiple_of(8) {
                return Err(broken(block, at, "unused space of an impossible length"));
            }
            at += length;
            continue;
        }
        let (entry, length) = entry_at(superblock, block, at, end)?;
        visit(entry)?;
        at += length;
    }
    Ok(())
}

/// The entry at a byte of a block, and its length.
fn entry_at<'b>(
    superblock: &Superblock,
    block: &'b Block,
    at: usize,
    end: usize,
) -> Result<(Entry<'b>, usize)> {
    let fields = block.fields();
    let length = usize::from(fields.u8(at + 8));
    let type_length = usize::from(superblock.has_file_types);
    let total = (8 + 1 + length + type_length + 2).next_multiple_of(8);
    if length == 0 || at + total > end {
        return Err(broken(block, at, "an entry without a name, or cut off"));
    }
    let entry = Entry {
        name: fields.bytes(at + 9, length),
        inode: fields.u64_be(at),
        file_type: if type_length == 0 {
            0
        } else {
            fields.u8(at + 9 + length)
        },
    };
    Ok((entry, total))
}

fn find_by_hash<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    directory: &Inode,
    name: &[u8],
    index: u64,
) -> Result<Option<u64>> {
    let superblock = &volume.superblock;
    let blocks = superblock.directory_block_size / superblock.block_size;
    let tree = HashTree {
        volume,
        fork: &directory.data,
        root: index,
        blocks,
        leaves: &LEAVES,
        header_lengths: [64, 16],
    };
    tree.find(hash(name), |leaf, record| {
        // In units of 8 bytes; 0: the entry was removed.
        let place = u64::from(Fields(record).u32_be(4)) * 8;
        if place == 0 {
            return Ok(None);
        }
        let first = place / superblock.directory_block_size * blocks;
        let at = (place % superblock.directory_block_size) as usize;
        let mapping = directory.data.mapping(volume, first..first + blocks)?;
        let block = data_block(volume, directory, &mapping, first)?;
        let end = entries_end(&block)?;
        if at < header_length(superblock) || block.fields().u16_be(at) == UNUSED {
            let problem = "a record that points to no entry";
            return Err(Error::corrupt(STRUCTURE, leaf.offset, problem));
        }
        let (entry, _) = entry_at(superblock, &block, at, end)?;
        Ok((entry.name == name).then_some(entry.inode))
    })
}
