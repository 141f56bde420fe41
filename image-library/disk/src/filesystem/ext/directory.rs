// SPDX-License-Identifier: MIT OR Apache-2.0
//! Listing a directory: the library lists those of ext4 only, not those of ext2 and ext3, whose
//! blocks are listed in pointers.
//!
//! **Limit:** 256 MiB of entries.

use fs_ext4::dir::{DirEntry, parse_block};
use fs_ext4::inode::Inode;

use super::library::LibraryResult;

/// An ext directory may be larger; no guest directory that conversion lists is.
const BYTES_MAX: u64 = 1 << 28;
const INCOMPAT_FILETYPE: u32 = 0x2;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;

/// The entries of a directory, `.` and `..` among them.
pub(super) fn entries(
    tree: &fs_ext4::Filesystem,
    number: u32,
    inode: &Inode,
) -> LibraryResult<Vec<DirEntry>> {
    if inode.has_extents() || inode.flags & FLAG_INLINE_DATA != 0 {
        return tree.read_dir_ino(number);
    }
    let size = tree.sb.block_size();
    let typed = tree.sb.feature_incompat & INCOMPAT_FILETYPE != 0;
    let mut entries = Vec::new();
    let mut block = vec![0; size as usize];
    if inode.size > BYTES_MAX {
        return Err(fs_ext4::Error::Corrupt("a directory of more than 256 MiB"));
    }
    for index in 0..inode.size.div_ceil(size.into()) {
        let place = fs_ext4::indirect::map_logical_any(
            &inode.block,
            inode.flags,
            tree.dev.as_ref(),
            size,
            index,
        )?;
        // A hole is no entry, as for the kernel.
        let Some(place) = place else { continue };
        tree.dev
            .read_at(place.saturating_mul(size.into()), &mut block)?;
        entries.extend(parse_block(&block, typed)?);
    }
    Ok(entries)
}
