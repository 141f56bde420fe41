// SPDX-License-Identifier: MIT OR Apache-2.0
//! btrfs may lie on several devices, so it is opened when all volumes are known: by the first of its
//! devices, which is where its files are told to be.

use std::sync::Arc;

use disk::ReadAt;
use disk::filesystem::FilesystemKind;
use disk::filesystem::btrfs::{Btrfs, SubvolumeChoice};
use image_library::DiskIndex;

use super::{Place, add, unreadable};
use crate::error::Result;
use crate::inspect::Storage;
use crate::inspect::inspection::{VolumeContent, VolumeId, Volumes};
use crate::stack::Part;

/// Its top level, with all subvolumes in it.
const TOP_LEVEL: SubvolumeChoice<'static> = SubvolumeChoice::Id(0);

/// Opens every btrfs.
pub(super) fn open(parts: &[Part], storage: &mut Storage) -> Result<()> {
    let mut firsts = Vec::new();
    for part in parts {
        let volumes = volumes(storage);
        let mut contents = volumes.contents();
        let is_btrfs =
            contents.any(|(id, content)| id == part.id && content.kind == FilesystemKind::Btrfs);
        if is_btrfs && volumes.first_of(part.id) == part.id {
            firsts.push(part.id);
        }
    }
    for first in firsts {
        let volumes = volumes(storage);
        let place = Place {
            id: first,
            name: volumes.name(first),
            disk: volumes
                .disks_of(first)
                .first()
                .copied()
                .unwrap_or(DiskIndex(0)),
        };
        // The first is that of the place; what does not belong to it is left alone.
        let same = |part: &&Part| part.id != first && volumes.first_of(part.id) == first;
        let own = parts.iter().filter(|part| part.id == first);
        let devices = own.chain(parts.iter().filter(same));
        let devices: Vec<Arc<dyn ReadAt>> =
            devices.map(|part| Arc::clone(&part.device) as _).collect();
        open_one(&place, &devices, storage)?;
    }
    Ok(())
}

fn open_one(place: &Place, devices: &[Arc<dyn ReadAt>], storage: &mut Storage) -> Result<()> {
    let opened = Btrfs::open_devices(devices)
        .and_then(|btrfs| Ok((btrfs.open_subvolume(TOP_LEVEL)?, btrfs.findings())));
    let (opened, findings) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let found = unreadable(place, error)?;
            storage.note(place.disk, found);
            return Ok(());
        }
    };
    for finding in findings {
        storage.note(place.disk, finding);
    }
    let Some(mut content) = content_mut(storage, place.id).cloned() else {
        return Ok(());
    };
    add(place, Box::new(opened), &mut content, storage)?;
    if let Some(known) = content_mut(storage, place.id) {
        *known = content;
    }
    Ok(())
}

fn volumes(storage: &Storage) -> Volumes<'_> {
    Volumes {
        disks: &storage.disks,
        assembled: &storage.assembled,
    }
}

fn content_mut(storage: &mut Storage, id: VolumeId) -> Option<&mut VolumeContent> {
    let on_disks = storage.disks.iter_mut().flat_map(|disk| &mut disk.volumes);
    let on_disks = on_disks.map(|volume| (volume.id, &mut volume.content));
    let assembled = storage.assembled.iter_mut();
    let assembled = assembled.map(|volume| (volume.id, &mut volume.content));
    let mut all = on_disks.chain(assembled);
    all.find(|(known, _)| *known == id)?.1.as_mut()
}
