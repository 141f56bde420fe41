// SPDX-License-Identifier: MIT OR Apache-2.0
//! The label and the header of a physical volume: in one of the first four sectors, little-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `LABELONE` |
//! | 8 | 8 | this sector's number |
//! | 16 | 4 | checksum of everything from 20 to the sector's end |
//! | 20 | 4 | where the header begins, from the label |
//! | 24 | 8 | `LVM2 001` |
//!
//! | offset in the header | size | field |
//! |---|---|---|
//! | 0 | 32 | UUID |
//! | 32 | 8 | the device's size in bytes |
//! | 40 | 16 each | data areas, then metadata areas: offset, size; a zero offset ends each |
//! | behind them | 4, 4, 16 each | version and flags of an extension, and its boot loader areas |
//!
//! From lib/label/label.h and lib/format_text/layout.h of LVM2.

use std::ops::Range;

use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block};
use crate::filesystem::superblock::lvm2::dashed;

use super::checksum;

const SECTOR_BYTES: usize = 512;
/// Where labels are looked for.
const LABELLED_SECTORS: usize = 4;
const STRUCTURE: &str = "LVM2 label";

/// What the label of a physical volume says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// As LVM shows it, with dashes.
    pub(super) uuid: String,
    /// Where the metadata areas lie, in bytes.
    pub(super) metadata_areas: Vec<Range<u64>>,
    /// Where the boot loader areas lie, in bytes.
    pub(super) boot_areas: Vec<Range<u64>>,
}

/// Reads the label of a device; `None` where it is no physical volume.
pub(super) fn read(device: &dyn ReadAt) -> Result<Option<Label>> {
    let Some(bytes) = read_block(device, 0, LABELLED_SECTORS * SECTOR_BYTES)? else {
        return Ok(None);
    };
    let mut damaged = None;
    for (number, sector) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
        match from_bytes(sector, number as u64) {
            Ok(Some(label)) => return Ok(Some(label)),
            Ok(None) => {}
            // A damaged label may have a sound one behind it.
            Err(error) => damaged = damaged.or(Some(error)),
        }
    }
    damaged.map_or(Ok(None), Err)
}

fn from_bytes(sector: &[u8], number: u64) -> Result<Option<Label>> {
    let fields = Fields(sector);
    if fields.bytes(0, 8) != b"LABELONE" || fields.bytes(24, 8) != b"LVM2 001" {
        return Ok(None);
    }
    let corrupt = |problem| Error::corrupt(STRUCTURE, number * SECTOR_BYTES as u64, problem);
    if fields.u64(8) != number {
        let problem = format!(
            "expected it in sector {}, found it in {number}",
            fields.u64(8)
        );
        return Err(corrupt(problem));
    }
    let (expected, found) = (fields.u32(16), checksum::of_lvm(&sector[20..]));
    if expected != found {
        let problem = format!("expected checksum {expected:#x}, found {found:#x}");
        return Err(corrupt(problem));
    }
    let header = fields.u32(20) as usize;
    let Some(uuid) = dashed(fields.bytes(header, 32)) else {
        return Err(corrupt("expected a UUID of 32 characters".to_owned()));
    };
    let header = Fields(fields.bytes(header, SECTOR_BYTES.saturating_sub(header)));
    let (_, behind) = areas(header, 40);
    let (metadata_areas, behind) = areas(header, behind);
    let boot_areas = match header.u32(behind) {
        0 => Vec::new(),
        _ => areas(header, behind + 8).0,
    };
    Ok(Some(Label {
        uuid,
        metadata_areas,
        boot_areas,
    }))
}

/// A list of areas, and where the bytes behind it begin.
fn areas(header: Fields<'_>, mut at: usize) -> (Vec<Range<u64>>, usize) {
    let mut areas = Vec::new();
    // A field beyond the sector reads as zero, which ends the list.
    while header.u64(at) != 0 {
        let start = header.u64(at);
        areas.push(start..start.saturating_add(header.u64(at + 8)));
        at += 16;
    }
    (areas, at + 16)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Disk};
    use super::*;
    use crate::block::MemoryDevice;

    fn sample() -> Vec<u8> {
        Disk::new('a', 1 << 20).boot_area(8192..12288).bytes()
    }

    #[test]
    fn a_label_is_read_from_any_of_the_first_four_sectors() {
        let label = read(&MemoryDevice::from(sample())).expect("it is sound");
        let label = label.expect("it is there");
        assert_eq!(label.uuid, "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa");
        assert_eq!(label.metadata_areas, [sample::AREA]);
        let boot_area = 8192..12288;
        assert_eq!(label.boot_areas, [boot_area]);
        let mut third = sample();
        third.copy_within(512..1024, 1536);
        third[512..1024].fill(0);
        third[1536 + 8] = 3;
        sample::seal_label(&mut third[1536..2048]);
        let moved = read(&MemoryDevice::from(third)).expect("it is sound");
        assert_eq!(moved, Some(label));
    }

    #[test]
    fn a_damaged_label_is_an_error_unless_a_sound_one_follows() {
        let mut bytes = sample();
        bytes[700] ^= 1;
        let error = read(&MemoryDevice::from(bytes.clone())).expect_err("it is damaged");
        assert!(
            error
                .to_string()
                .starts_with("LVM2 label at byte 0x200: expected checksum")
        );
        let sound = sample()[512..1024].to_vec();
        bytes[1024..1536].copy_from_slice(&sound);
        bytes[1024 + 8] = 2;
        sample::seal_label(&mut bytes[1024..1536]);
        assert!(
            read(&MemoryDevice::from(bytes))
                .expect("it is sound")
                .is_some()
        );
        assert_eq!(
            read(&MemoryDevice::from(vec![0; 4096])).expect("readable"),
            None
        );
        assert_eq!(
            read(&MemoryDevice::from(vec![0; 100])).expect("readable"),
            None
        );
    }

    #[test]
    fn no_label_makes_the_parser_panic() {
        let sound = sample();
        for at in 512..1024 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = sound[..4096].to_vec();
                bytes[at] = value;
                sample::seal_label(&mut bytes[512..1024]);
                let _ = read(&MemoryDevice::from(bytes));
            }
        }
    }
}
