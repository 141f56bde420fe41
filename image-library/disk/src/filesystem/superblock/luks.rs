// SPDX-License-Identifier: MIT OR Apache-2.0
//! The LUKS header, versions 1 and 2: sector 0, big-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 6 | magic `LUKS` 0xba 0xbe |
//! | 6 | 2 | version |
//! | 24 | 48 | label (version 2) |
//! | 168 | 40 | UUID as text |

use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::{Fields, read_block, text};
use crate::filesystem::{FilesystemKind, Identity};

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    let Some(bytes) = read_block(device, 0, 512)? else {
        return Ok(None);
    };
    Ok(from_bytes(&bytes, device.length_bytes()))
}

fn from_bytes(bytes: &[u8], device_bytes: u64) -> Option<Identity> {
    let fields = Fields(bytes);
    if fields.bytes(0, 6) != b"LUKS\xba\xbe" {
        return None;
    }
    let label = match fields.u16_be(6) {
        2 => text(fields.bytes(24, 48)),
        _ => None,
    };
    Some(Identity {
        kind: FilesystemKind::Luks,
        uuid: text(fields.bytes(168, 40)),
        label,
        size_bytes: Some(device_bytes),
    })
}
