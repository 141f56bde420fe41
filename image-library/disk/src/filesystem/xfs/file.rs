// SPDX-License-Identifier: MIT OR Apache-2.0
//! The content of files, and the targets of symbolic links.
//!
//! A target that does not fit the inode is in blocks of its own. In version 5 each extent of them
//! begins with a header of 56 bytes: magic `XSLM`, at 4 where in the target it begins, at 8 its
//! length. Facts: Linux, `fs/xfs/libxfs/xfs_symlink_remote.c`.

use std::ops::Deref;

use super::fork::Format;
use super::inode::Inode;
use super::volume::Volume;
use crate::block::ReadAt;
use crate::error::{Error, Result};

const LINK: &str = "XFS symbolic link";
const LINK_BYTES_MAX: u64 = 1024;
pub(super) const REMOTE_HEADER: usize = 56;

/// The whole content of a file, of which the caller has checked the size.
pub(super) fn content<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    inode: &Inode,
) -> Result<Vec<u8>> {
    let size = inode.metadata.size_bytes;
    let block_size = volume.superblock.block_size;
    let mapping = inode.data.mapping(volume, 0..size.div_ceil(block_size))?;
    let mut content = vec![0; size as usize];
    for extent in mapping.0.iter().filter(|extent| !extent.unwritten) {
        let start = extent.first.saturating_mul(block_size).min(size);
        let end = extent.end().saturating_mul(block_size).min(size);
        volume.read_into(extent.offset, &mut content[start as usize..end as usize])?;
    }
    Ok(content)
}

/// The target of a symbolic link.
pub(super) fn target<D: Deref<Target: ReadAt>>(
    volume: &Volume<D>,
    inode: &Inode,
) -> Result<Vec<u8>> {
    let size = inode.metadata.size_bytes;
    let broken = |problem: &str| {
        let problem = format!("inode {}: {problem}", inode.number);
        Error::corrupt(LINK, inode.data.offset, problem)
    };
    if size > LINK_BYTES_MAX {
        return Err(broken(&format!("a target of {size} bytes")));
    }
    let size = size as usize;
    if inode.data.format == Format::Local {
        let target = inode.data.bytes.get(..size);
        return Ok(target
            .ok_or_else(|| broken("a target behind its end"))?
            .to_vec());
    }
    let block_size = volume.superblock.block_size;
    let mapping = inode.data.mapping(volume, 0..u64::MAX)?;
    let mut target = Vec::new();
    // No link has more blocks than its target needs with a header in each of the smallest.
    for extent in mapping.0.iter().take(3) {
        let length = extent.blocks.min(8) * block_size;
        let block = volume.read(extent.offset, length as usize)?;
        if !volume.superblock.has_checksums {
            target.extend_from_slice(&block.bytes);
            continue;
        }
        let magic = block.bytes.starts_with(b"XSLM");
        block.check(LINK, magic, Some(inode.number), &volume.superblock)?;
        let part = block
            .fields()
            .bytes(REMOTE_HEADER, block.fields().u32_be(8) as usize);
        if block.fields().u32_be(4) as usize != target.len() || part.is_empty() {
            return Err(Error::corrupt(
                LINK,
                extent.offset,
                "a part at another place",
            ));
        }
        target.extend_from_slice(part);
    }
    match target.len() >= size {
        true => {
            target.truncate(size);
            Ok(target)
        }
        false => Err(broken("its target is cut off")),
    }
}
