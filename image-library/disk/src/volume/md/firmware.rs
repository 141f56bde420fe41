// SPDX-License-Identifier: MIT OR Apache-2.0
//! RAID of a mainboard's firmware, whose metadata are not read: only that they are there.
//!
//! | format | where on the disk | what |
//! |---|---|---|
//! | SNIA DDF | last sector | 0xde11de11, big-endian |
//! | Intel (IMSM) | last but one sector | `Intel Raid ISM Cfg Sig. ` |
//!
//! Sources: SNIA, "Common RAID Disk Data Format" 2.0, 5.7; mdadm, `super-intel.c`. Sectors are of
//! 512 bytes, or of 4096 on disks of such.

use std::fmt;

use crate::block::{ReadAt, SectorSize};
use crate::error::Result;
use crate::fields::read_block;
use crate::finding::{Finding, Level};

const DDF_MAGIC: &[u8] = &[0xde, 0x11, 0xde, 0x11];
const INTEL_SIGNATURE: &[u8] = b"Intel Raid ISM Cfg Sig. ";

/// A format of firmware RAID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FirmwareRaid {
    /// Intel Rapid Storage Technology, Matrix Storage, VROC.
    Intel,
    /// The format of the SNIA, of many controllers.
    Ddf,
}

impl fmt::Display for FirmwareRaid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Intel => "Intel firmware RAID (IMSM)",
            Self::Ddf => "firmware RAID (DDF)",
        })
    }
}

/// Which firmware RAID a whole disk is a member of.
pub fn detect(disk: &dyn ReadAt) -> Result<Option<FirmwareRaid>> {
    for sector in [SectorSize::B512, SectorSize::B4096].map(SectorSize::bytes) {
        let from_end = |sectors: u64| {
            let back = sectors * u64::from(sector);
            disk.length_bytes().checked_sub(back)
        };
        for (place, magic, kind) in [
            (from_end(1), DDF_MAGIC, FirmwareRaid::Ddf),
            (from_end(2), INTEL_SIGNATURE, FirmwareRaid::Intel),
        ] {
            let Some(place) = place else {
                continue;
            };
            let bytes = read_block(disk, place, magic.len())?;
            if bytes.as_deref() == Some(magic) {
                return Ok(Some(kind));
            }
        }
    }
    Ok(None)
}

/// What to tell about a disk that is a member.
#[must_use]
pub fn finding(kind: FirmwareRaid, place: &str) -> Finding {
    Finding {
        level: Level::Error,
        code: "storage.firmware-raid".to_owned(),
        place: place.to_owned(),
        problem: format!("the disk is a member of a {kind}, which is not supported"),
        remedy: Some(
            "take the image of the assembled array (/dev/md126 or /dev/mapper/..) as one disk"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;

    #[test]
    fn signatures_are_found_by_sectors_of_both_sizes() {
        let detect_at = |place: usize, magic: &[u8]| {
            let mut bytes = vec![0; 1 << 16];
            bytes[place..place + magic.len()].copy_from_slice(magic);
            detect(&MemoryDevice::from(bytes)).expect("memory")
        };
        for sector in [512, 4096] {
            let end = 1 << 16;
            assert_eq!(
                detect_at(end - 2 * sector, INTEL_SIGNATURE),
                Some(FirmwareRaid::Intel)
            );
            assert_eq!(detect_at(end - sector, DDF_MAGIC), Some(FirmwareRaid::Ddf));
        }
        assert_eq!(detect_at(0, DDF_MAGIC), None);
        for length in [0, 3, 512, 1024] {
            let device = MemoryDevice::from(vec![0; length]);
            assert_eq!(detect(&device).expect("memory"), None);
        }
        assert_eq!(
            finding(FirmwareRaid::Intel, "sda").code,
            "storage.firmware-raid"
        );
    }
}
