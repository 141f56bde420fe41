// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device says about itself: one file per superblock, asked in a fixed order.
//!
//! Containers come before filesystems (a member of a RAID-1 with its superblock at the end begins
//! with the filesystem that the array holds), and magics in unusual places before the FAT boot
//! sector, whose signature is weak. A parser answers `None` for "not mine" and `Corrupt` for
//! "mine, but broken"; no answer of one parser hides the next one's.

pub(crate) mod btrfs;
pub(crate) mod ext;
pub(crate) mod fat;
mod field;
pub(crate) mod luks;
pub(crate) mod lvm2;
pub(crate) mod md;
pub(crate) mod ntfs;
pub(crate) mod swap;
pub(crate) mod xfs;

pub(crate) use field::Fields;

use super::Identity;
use crate::block::ReadAt;
use crate::error::Result;

type Probe = fn(&dyn ReadAt) -> Result<Option<Identity>>;

const PROBES: [Probe; 9] = [
    md::detect,
    luks::detect,
    lvm2::detect,
    xfs::detect,
    ext::detect,
    btrfs::detect,
    swap::detect,
    ntfs::detect,
    fat::detect,
];

/// Which filesystem, swap space or container `device` holds; `None` when nothing is recognised.
pub fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    for probe in PROBES {
        if let Some(identity) = probe(device)? {
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

/// Reads `length` bytes at `offset`, or `None` where the device ends before.
pub(crate) fn read_block(
    device: &dyn ReadAt,
    offset: u64,
    length: usize,
) -> Result<Option<Vec<u8>>> {
    let fits = offset
        .checked_add(length as u64)
        .is_some_and(|end| end <= device.length_bytes());
    if !fits {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    device.read_exact_at(offset, &mut bytes)?;
    Ok(Some(bytes))
}

/// A fixed-length text field: up to the first NUL, without trailing spaces; `None` when empty.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0);
    let text = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Sixteen bytes as `blkid` prints a UUID; `None` when all are zero.
pub(crate) fn uuid(bytes: &[u8]) -> Option<String> {
    let uuid = uuid::Uuid::from_slice(bytes).ok()?;
    (!uuid.is_nil()).then(|| uuid.hyphenated().to_string())
}
