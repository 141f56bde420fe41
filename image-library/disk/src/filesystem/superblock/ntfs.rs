// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NTFS boot sector, and the volume's name from the master file table.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 3 | 8 | `NTFS` and four spaces |
//! | 11 | 2 | bytes per sector |
//! | 13 | 1 | sectors per cluster; above 128: two to the power of 256 - n |
//! | 40 | 8 | sectors |
//! | 48 | 8 | first cluster of the master file table |
//! | 64 | 1 | clusters per file record; negative: two to the power of -n bytes |
//! | 72 | 8 | serial number |
//!
//! File record 3 is `$Volume`; its attribute 0x60 holds the name in UTF-16.

use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::{Fields, read_block};
use crate::filesystem::{FilesystemKind, Identity};

const VOLUME_RECORD: u64 = 3;
const VOLUME_NAME: u32 = 0x60;
const ATTRIBUTES_END: u32 = 0xffff_ffff;

#[derive(Debug, PartialEq, Eq)]
struct BootSector {
    serial: u64,
    size_bytes: u64,
    /// Where `$Volume` begins, and how long a file record is.
    volume_record: Option<(u64, usize)>,
}

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    let boot = read_block(device, 0, 512)?.and_then(|bytes| from_bytes(&bytes));
    let Some(boot) = boot else {
        return Ok(None);
    };
    let record = match boot.volume_record {
        Some((offset, length)) => read_block(device, offset, length)?,
        None => None,
    };
    Ok(Some(Identity {
        kind: FilesystemKind::Ntfs,
        uuid: Some(format!("{:016X}", boot.serial)),
        label: record.and_then(|bytes| volume_name(&bytes)),
        size_bytes: Some(boot.size_bytes.min(device.length_bytes())),
    }))
}

fn from_bytes(bytes: &[u8]) -> Option<BootSector> {
    let fields = Fields(bytes);
    if fields.bytes(3, 8) != b"NTFS    " {
        return None;
    }
    let sector_bytes = u64::from(fields.u16(11));
    let sectors_per_cluster = match fields.u8(13) {
        count @ 0..=128 => u64::from(count),
        shift @ 129..=255 => 1u64 << (256 - u32::from(shift)).min(31),
    };
    let cluster_bytes = sector_bytes * sectors_per_cluster;
    let record_bytes = match fields.u8(64) as i8 {
        clusters @ 0.. => clusters as u64 * cluster_bytes,
        shift => 1u64 << u32::from(shift.unsigned_abs()).min(31),
    };
    let table = fields.u64(48).checked_mul(cluster_bytes);
    let volume = table.and_then(|table| table.checked_add(VOLUME_RECORD * record_bytes));
    Some(BootSector {
        serial: fields.u64(72),
        size_bytes: sector_bytes.saturating_mul(fields.u64(40)),
        volume_record: volume
            .filter(|_| (512..=4096).contains(&record_bytes))
            .map(|offset| (offset, record_bytes as usize)),
    })
}

/// The name in the resident attribute 0x60 of a file record.
///
/// The record's update sequence is not applied: it replaces the last two bytes of each 512, which a
/// name in a `$Volume` record, right behind the header, does not reach.
fn volume_name(record: &[u8]) -> Option<String> {
    let fields = Fields(record);
    if fields.bytes(0, 4) != b"FILE" {
        return None;
    }
    let mut offset = usize::from(fields.u16(20));
    while offset + 24 <= record.len() {
        let length = fields.u32(offset + 4) as usize;
        match fields.u32(offset) {
            ATTRIBUTES_END => return None,
            VOLUME_NAME => {
                let value = offset + usize::from(fields.u16(offset + 20));
                let bytes = fields.bytes(value, fields.u32(offset + 16) as usize);
                let units: Vec<u16> = bytes
                    .chunks_exact(2)
                    .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
                    .collect();
                return (!units.is_empty()).then(|| String::from_utf16_lossy(&units));
            }
            _ => offset = offset.checked_add(length.max(8))?,
        }
    }
    None
}
