// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of an ext filesystem is not written, and the one mark that is set aside meanwhile.

use super::super::staging::Staging;
use super::super::superblock::ext::{LENGTH, OFFSET, Superblock, feature};
use super::STRUCTURE;
use crate::block::{ReadAt, WriteAt};
use crate::error::{Error, Result};
use crate::fields::Fields;

/// Incompatible features that the library behind [`super::reader`] does not read, so that what was
/// written could not be verified, or that the one here does not write.
const REFUSED: [(u32, &str); 9] = [
    (0x1, "compression"),
    (0x10, "meta_bg"),
    (0x100, "mmp"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x10000, "encrypt"),
    (0x20000, "casefold"),
];

pub(super) fn refuse_features(superblock: &Superblock) -> Result<()> {
    let refused = REFUSED
        .iter()
        .find(|(bit, _)| superblock.incompat & bit != 0);
    if let Some((_, name)) = refused {
        return Err(Error::unsupported(
            STRUCTURE,
            format!("writing with {name}"),
        ));
    }
    // The checksum of a block of extents stands behind its last possible entry. The library (0.8.0)
    // puts it into the last four bytes, which is the same place for 1, 4, 16 and 64 KiB only.
    let checked = superblock.ro_compat & feature::RO_COMPAT_METADATA_CSUM != 0;
    if checked && (superblock.block_size - 12) % 12 != 4 {
        let what = format!(
            "writing with metadata_csum and blocks of {}",
            superblock.block_size
        );
        return Err(Error::unsupported(STRUCTURE, what));
    }
    Ok(())
}

pub(super) fn set_orphans_present(device: &Staging, present: bool) -> Result<()> {
    let mut bytes = vec![0; LENGTH];
    device.read_exact_at(OFFSET, &mut bytes)?;
    let bit = feature::RO_COMPAT_ORPHAN_PRESENT;
    let features = Fields(&bytes).u32(0x64);
    let features = if present {
        features | bit
    } else {
        features & !bit
    };
    bytes[0x64..0x68].copy_from_slice(&features.to_le_bytes());
    if features & feature::RO_COMPAT_METADATA_CSUM != 0 {
        let checksum = fs_ext4::checksum::linux_crc32c(!0, &bytes[..0x3fc]);
        bytes[0x3fc..].copy_from_slice(&checksum.to_le_bytes());
    }
    device.write_all_at(OFFSET, &bytes)
}
