// SPDX-License-Identifier: MIT OR Apache-2.0
//! The label of an LVM2 physical volume: in one of the first four sectors, little-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `LABELONE` |
//! | 20 | 4 | where the physical volume header begins, from the label |
//! | 24 | 8 | `LVM2 001` |
//!
//! The header begins with the UUID (32 characters) and the device's size in bytes.

use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::{Fields, read_block};
use crate::filesystem::{FilesystemKind, Identity};

const SECTOR_BYTES: usize = 512;
/// How LVM groups the 32 characters of its identifiers.
const GROUPS: [usize; 7] = [6, 4, 4, 4, 4, 4, 6];

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    let Some(bytes) = read_block(device, 0, 4 * SECTOR_BYTES)? else {
        return Ok(None);
    };
    let label = bytes.chunks_exact(SECTOR_BYTES).find_map(from_bytes);
    Ok(label.map(|(uuid, size_bytes)| Identity {
        kind: FilesystemKind::Lvm2Member,
        uuid,
        label: None,
        size_bytes: Some(size_bytes.min(device.length_bytes())),
    }))
}

fn from_bytes(sector: &[u8]) -> Option<(Option<String>, u64)> {
    let fields = Fields(sector);
    if fields.bytes(0, 8) != b"LABELONE" || fields.bytes(24, 8) != b"LVM2 001" {
        return None;
    }
    let header = fields.u32(20) as usize;
    let uuid = dashed(fields.bytes(header, 32));
    Some((uuid, fields.u64(header.saturating_add(32))))
}

pub(crate) fn dashed(characters: &[u8]) -> Option<String> {
    if characters.len() != 32 || !characters.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut rest = characters;
    let groups = GROUPS.map(|length| {
        let (group, after) = rest.split_at(length);
        rest = after;
        String::from_utf8_lossy(group).into_owned()
    });
    Some(groups.join("-"))
}
