// SPDX-License-Identifier: MIT OR Apache-2.0
//! The btrfs superblock: 4096 bytes at 64 KiB, little-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0x20 | 16 | filesystem UUID |
//! | 0x40 | 8 | magic `_BHRfS_M` |
//! | 0x70 | 8 | total bytes, over all devices |
//! | 0x12b | 256 | label |

use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::{Fields, read_block, text, uuid};
use crate::filesystem::{FilesystemKind, Identity};

const OFFSET: u64 = 0x10000;

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    let Some(bytes) = read_block(device, OFFSET, 0x22b)? else {
        return Ok(None);
    };
    Ok(from_bytes(&bytes, device.length_bytes()))
}

fn from_bytes(bytes: &[u8], device_bytes: u64) -> Option<Identity> {
    let fields = Fields(bytes);
    (fields.bytes(0x40, 8) == b"_BHRfS_M").then(|| Identity {
        kind: FilesystemKind::Btrfs,
        uuid: uuid(fields.bytes(0x20, 16)),
        label: text(fields.bytes(0x12b, 256)),
        size_bytes: Some(fields.u64(0x70).min(device_bytes)),
    })
}
