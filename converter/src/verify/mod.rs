// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads again what was written, with a fresh reader through the overlay, and compares hashes.
//!
//! Its cost follows the edits, not the disk. [`checker`] runs the filesystems' own checkers on top of
//! that, where somebody asks for it.

pub mod checker;

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::block::Slice;
use disk::filesystem::{self, Filesystem};
use disk::{ReadAt, WriteAt};
use image_library::DiskIndex;

use crate::apply::{Applied, hash};
use crate::error::{Error, Result};
use crate::guest_disk::GuestDisk;
use crate::inspect::{VolumeId, volume_range};

const FILE_BYTES_MAX: u64 = 2 << 30;

/// Compares every file that was written with what is read; a difference is an error.
pub fn verify(applied: &Applied, disks: &[GuestDisk]) -> Result<()> {
    let mut open: BTreeMap<VolumeId, Box<dyn Filesystem>> = BTreeMap::new();
    for file in &applied.summary.files {
        let id = file.place.volume;
        if let std::collections::btree_map::Entry::Vacant(entry) = open.entry(id) {
            let device = merged_volume(applied, disks, id)?;
            let opened = filesystem::open(device).map_err(Error::guest(id.to_string()))?;
            entry.insert(opened);
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

/// A volume as it is after the conversion.
pub(crate) fn merged_volume(
    applied: &Applied,
    disks: &[GuestDisk],
    id: VolumeId,
) -> Result<Arc<dyn ReadAt>> {
    let changed = || Error::Changed {
        place: id.to_string(),
    };
    let disk = disks
        .iter()
        .find(|disk| disk.index == id.disk)
        .ok_or_else(changed)?;
    let (start, length) = volume_range(disk, id)?;
    let whole = merged_disk(applied, disk.index).unwrap_or_else(|| Arc::clone(&disk.device));
    let slice = Slice::new(whole, start, length).map_err(Error::guest(id.to_string()))?;
    Ok(Arc::new(slice))
}

/// A disk as it is after the conversion; `None` where nothing was changed on it.
fn merged_disk(applied: &Applied, index: DiskIndex) -> Option<Arc<dyn ReadAt>> {
    let (_, overlay) = applied.overlays.iter().find(|(disk, _)| *disk == index)?;
    let device: Arc<dyn WriteAt> = Arc::clone(overlay) as Arc<dyn WriteAt>;
    Some(device)
}
