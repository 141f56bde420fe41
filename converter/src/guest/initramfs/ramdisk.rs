// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was there before initramfs: an image of a filesystem, unpacked into a RAM disk.
//!
//! | filesystem | magic |
//! |---|---|
//! | ext2 (RHEL up to 3, SLES up to 9) | `53 ef` at byte 1080 |
//! | cramfs (Debian 3.0, 3.1) | `45 3d cd 28` |
//! | romfs | `-rom1fs-` |
//! | squashfs | `hsqs` |

use std::io::Read;

use crate::guest::compression::{Compression, Decoder};

/// As much as the magics need.
const START_LENGTH: u64 = 2048;
const EXT2_MAGIC: (usize, [u8; 2]) = (1080, [0x53, 0xef]);

/// The filesystem that the file holds, where it is no archive; it may be compressed.
#[must_use]
pub fn ramdisk_filesystem(file: &[u8]) -> Option<&'static str> {
    let mut start = Vec::new();
    Decoder::new(file, Compression::detect(file))
        .ok()?
        .take(START_LENGTH)
        .read_to_end(&mut start)
        .ok()?;
    let (offset, magic) = EXT2_MAGIC;
    if start.get(offset..offset + magic.len()) == Some(&magic) {
        return Some("ext2");
    }
    [
        (&[0x45, 0x3d, 0xcd, 0x28][..], "cramfs"),
        (b"-rom1fs-", "romfs"),
        (b"hsqs", "squashfs"),
    ]
    .into_iter()
    .find(|(magic, _)| start.starts_with(magic))
    .map(|(_, name)| name)
}
