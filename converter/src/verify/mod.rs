// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads again what was written, with a fresh reader through the overlay, and compares hashes.
//!
//! Its cost follows the edits, not the disk. [`checker`] runs the filesystems' own checkers on top of
//! that, where somebody asks for it.

pub mod checker;

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::filesystem::Filesystem;
use disk::volume::ReadOnly;
use disk::{ReadAt, WriteAt};
use image_library::DiskIndex;

use crate::apply::{Applied, hash};
use crate::error::{Error, Result};
use crate::guest_disk::{GuestDisk, secrets_of};
use crate::inspect::VolumeId;
use crate::stack::{Devices, Part};

const FILE_BYTES_MAX: u64 = 2 << 30;

/// Compares every file that was written with what is read; a difference is an error.
pub fn verify(applied: &Applied, disks: &[GuestDisk]) -> Result<()> {
    let devices = merged_volumes(applied, disks)?;
    let mut open: BTreeMap<VolumeId, Box<dyn Filesystem>> = BTreeMap::new();
    for file in &applied.summary.files {
        let id = file.place.volume;
        if let std::collections::btree_map::Entry::Vacant(entry) = open.entry(id) {
            entry.insert(devices.filesystem(id)?);
        }
        let Some(filesystem) = open.get(&id) else {
            continue;
        };
        let bytes = filesystem
            .read(&file.place.path, FILE_BYTES_MAX)
            .map_err(Error::guest(&file.place.guest_path))?;
        let found = hash(&bytes);
        if found != file.after {
            return Err(Error::NotVerified {
                place: file.place.guest_path.clone(),
                expected: file.after.clone(),
                found,
            });
        }
    }
    Ok(())
}

/// The volumes as they are after the conversion.
pub(crate) fn merged_volumes(applied: &Applied, disks: &[GuestDisk]) -> Result<Devices> {
    let whole = disks.iter().map(|disk| {
        let merged = merged_disk(applied, disk.index);
        let device = merged.unwrap_or_else(|| Arc::clone(&disk.device));
        Part {
            id: VolumeId::on_disk(disk.index, None),
            device: Arc::new(ReadOnly::new(device)),
            sector_size: disk.sector_size,
        }
    });
    let mut files = applied.summary.files.iter();
    let is_stacked = files.any(|file| file.place.volume.disk().is_none());
    Devices::new(whole.collect(), &secrets_of(disks), is_stacked)
}

/// A disk as it is after the conversion; `None` where nothing was changed on it.
fn merged_disk(applied: &Applied, index: DiskIndex) -> Option<Arc<dyn ReadAt>> {
    let (_, overlay) = applied.overlays.iter().find(|(disk, _)| *disk == index)?;
    let device: Arc<dyn WriteAt> = Arc::clone(overlay) as Arc<dyn WriteAt>;
    Some(device)
}
