// SPDX-License-Identifier: MIT OR Apache-2.0
//! The superblock of a member of a Linux software RAID ("md").
//!
//! | version | where | UUID |
//! |---|---|---|
//! | 0.90 | last 64 KiB block that begins 64 KiB before an aligned end | four words, at 20 and 52 to 63 |
//! | 1.0 | 8 KiB before the end, aligned to 4 KiB | 16 bytes at 16 |
//! | 1.1 | at the start | as above |
//! | 1.2 | 4 KiB from the start | as above |
//!
//! All begin with the magic 0xa92b4efc and the major version; little-endian, but 0.90 is in the
//! byte order of the machine. Version 1 has the array's name at 32 and the used sectors at 80. A
//! damaged superblock still makes a member; whether it is one of an array, `volume::md` decides.

use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::{Fields, read_block, text, uuid};
use crate::filesystem::{FilesystemKind, Identity};
use crate::volume::md::superblock::{MAGIC, version0_offset, version1_offsets};

const SUPERBLOCK_BYTES: usize = 256;

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    let length = device.length_bytes();
    for offset in version1_offsets(length) {
        if let Some(bytes) = read_block(device, offset, SUPERBLOCK_BYTES)?
            && let Some(identity) = version1_from_bytes(&bytes, offset, length)
        {
            return Ok(Some(identity));
        }
    }
    let Some(offset) = version0_offset(length) else {
        return Ok(None);
    };
    let bytes = read_block(device, offset, SUPERBLOCK_BYTES)?;
    Ok(bytes.and_then(|bytes| version0_from_bytes(&bytes, length)))
}

fn version1_from_bytes(bytes: &[u8], offset: u64, device_bytes: u64) -> Option<Identity> {
    let fields = Fields(bytes);
    // The superblock knows its own place, which tells a stale copy from a real one.
    let mine = fields.u32(0) == MAGIC
        && fields.u32(4) == 1
        && fields.u64(144).checked_mul(512) == Some(offset);
    mine.then(|| Identity {
        kind: FilesystemKind::MdMember,
        uuid: uuid(fields.bytes(16, 16)),
        label: text(fields.bytes(32, 32)),
        size_bytes: Some(fields.u64(80).saturating_mul(512).min(device_bytes)),
    })
}

fn version0_from_bytes(bytes: &[u8], device_bytes: u64) -> Option<Identity> {
    let fields = Fields(bytes);
    let little = match (fields.u32(0), fields.u32_be(0)) {
        (MAGIC, _) => true,
        (_, MAGIC) => false,
        _ => return None,
    };
    let word = |offset| match little {
        true => fields.u32(offset),
        false => fields.u32_be(offset),
    };
    if word(4) != 0 {
        return None;
    }
    let words = [word(20), word(52), word(56), word(60)];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    Some(Identity {
        kind: FilesystemKind::MdMember,
        uuid: uuid(&bytes),
        label: None,
        size_bytes: Some((u64::from(word(32)) * 1024).min(device_bytes)),
    })
}
