// SPDX-License-Identifier: MIT OR Apache-2.0
//! The XFS superblock: sector 0, big-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `XFSB` |
//! | 4 | 4 | block size |
//! | 8 | 8 | data blocks |
//! | 32 | 16 | UUID |
//! | 108 | 12 | label |

use super::{Fields, read_block, text, uuid};
use crate::block::ReadAt;
use crate::error::Result;
use crate::filesystem::{FilesystemKind, Identity};

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    let Some(bytes) = read_block(device, 0, 512)? else {
        return Ok(None);
    };
    Ok(from_bytes(&bytes, device.length_bytes()))
}

fn from_bytes(bytes: &[u8], device_bytes: u64) -> Option<Identity> {
    let fields = Fields(bytes);
    if fields.bytes(0, 4) != b"XFSB" {
        return None;
    }
    let size_bytes = u64::from(fields.u32_be(4)).checked_mul(fields.u64_be(8));
    Some(Identity {
        kind: FilesystemKind::Xfs,
        uuid: uuid(fields.bytes(32, 16)),
        label: text(fields.bytes(108, 12)),
        size_bytes: size_bytes.map(|size| size.min(device_bytes)),
    })
}
