// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inodes: a fixed part, then a fork with what the file is, then one with its attributes.
//!
//! | byte | field, big-endian | byte | field |
//! |---|---|---|---|
//! | 0 | magic `IN` | 56 | size |
//! | 2 | mode | 76, 80 | extents of data and attributes |
//! | 4, 5 | version, format of the data fork | 82, 83 | where the attribute fork begins, in 8 bytes; its format |
//! | 8, 12 | owner, group | 90 | flags |
//! | 24, 76 | extents of data and attributes, in large counters | 100, 120, 152, 160 | version 3: CRC-32C, flags, own number, UUID |
//!
//! The forks begin at byte 100, in version 3 at 176. Facts: Linux, `fs/xfs/libxfs/xfs_format.h`.

use std::ops::Deref;

use super::super::superblock::xfs::{BIG_COUNTS, checksum};
use super::super::{FileType, Metadata};
use super::fork::{Fork, Format};
use super::volume::Volume;
use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::Fields;

const STRUCTURE: &str = "XFS inode";
const CHECKSUM_AT: usize = 100;
const FLAG_REALTIME: u16 = 1;

/// An inode that is in use.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) metadata: Metadata,
    pub(super) is_realtime: bool,
    pub(super) data: Fork,
    pub(super) attributes: Option<Fork>,
}

impl Inode {
    pub(super) fn read<D: Deref<Target: ReadAt>>(volume: &Volume<D>, number: u64) -> Result<Self> {
        let offset = volume.superblock.byte_of_inode(number)?;
        let block = volume.read(offset, volume.superblock.inode_size as usize)?;
        let broken =
            |problem: &str| Error::corrupt(STRUCTURE, offset, format!("inode {number}: {problem}"));
        let fields = block.fields();
        let has_checksums = volume.superblock.has_checksums;
        let version_fits = match fields.u8(4) {
            1 | 2 => !has_checksums,
            3 => has_checksums,
            _ => false,
        };
        if fields.bytes(0, 2) != b"IN" || !version_fits {
            return Err(broken("expected its magic and version"));
        }
        if has_checksums {
            if fields.u64_be(152) != number
                || fields.bytes(160, 16) != volume.superblock.metadata_uuid
            {
                return Err(broken("it says that it is another"));
            }
            let (expected, found) = (checksum(&block.bytes, CHECKSUM_AT), fields.u32(CHECKSUM_AT));
            if !block.replayed && expected != found {
                let problem = format!("expected checksum {expected:#010x}, found {found:#010x}");
                return Err(broken(&problem));
            }
        }
        let Some(file_type) = file_type(fields.u16_be(2)) else {
            return Err(broken("it is not in use"));
        };
        let (data, attributes) = forks(&block.bytes, number, offset, file_type)?;
        Ok(Self {
            number,
            metadata: metadata(fields, file_type),
            is_realtime: fields.u16_be(90) & FLAG_REALTIME != 0,
            data,
            attributes,
        })
    }
}

fn file_type(mode: u16) -> Option<FileType> {
    Some(match mode & 0o170_000 {
        0o100_000 => FileType::File,
        0o040_000 => FileType::Directory,
        0o120_000 => FileType::Symlink,
        0o010_000 | 0o020_000 | 0o060_000 | 0o140_000 => FileType::Special,
        _ => return None,
    })
}

fn metadata(fields: Fields<'_>, file_type: FileType) -> Metadata {
    Metadata {
        file_type,
        size_bytes: fields.u64_be(56),
        mode: u32::from(fields.u16_be(2)) & 0o7777,
        uid: fields.u32_be(8),
        gid: fields.u32_be(12),
    }
}

fn forks(
    bytes: &[u8],
    owner: u64,
    offset: u64,
    file_type: FileType,
) -> Result<(Fork, Option<Fork>)> {
    let fields = Fields(bytes);
    let broken =
        |problem: &str| Error::corrupt(STRUCTURE, offset, format!("inode {owner}: {problem}"));
    let room = match fields.u8(4) {
        3 => bytes.get(176..),
        _ => bytes.get(100..),
    }
    .unwrap_or_default();
    let attributes_at = usize::from(fields.u8(82)) * 8;
    let (data, attributes) = match attributes_at {
        0 => (room, None),
        at => match room.split_at_checked(at) {
            Some((data, attributes)) => (data, Some(attributes)),
            None => return Err(broken("its attributes begin behind its end")),
        },
    };
    let (data_extents, attribute_extents) = match fields.u64_be(120) & BIG_COUNTS {
        // What stands at 120 in earlier versions is data.
        big if big != 0 && fields.u8(4) == 3 => (fields.u64_be(24), fields.u32_be(76).into()),
        _ => (fields.u32_be(76).into(), fields.u16_be(80).into()),
    };
    let fork = |format: u8, bytes: &[u8], extents: u64| {
        let format = Format::of(format).ok_or_else(|| broken("a fork of an unknown format"))?;
        let fork = Fork {
            owner,
            offset,
            format,
            bytes: bytes.to_vec(),
            extents,
        };
        Ok(fork)
    };
    let data = match file_type {
        FileType::Special => fork(Format::LOCAL, &[], 0)?,
        _ => fork(fields.u8(5), data, data_extents)?,
    };
    let attributes = attributes.map(|bytes| fork(fields.u8(83), bytes, attribute_extents));
    Ok((data, attributes.transpose()?))
}
