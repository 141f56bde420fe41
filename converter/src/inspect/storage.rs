// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks, partitions, and the filesystems on them.
//!
//! ext superblock fields read here, from byte 1024 of the volume:
//!
//! | byte | field |
//! |---|---|
//! | 0x0c, 0x158 | `s_free_blocks_count` low and high |
//! | 0x18 | `s_log_block_size` |
//! | 0x60 | `s_feature_incompat`: 0x04 the journal must be replayed, 0x80 64 bit |

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::filesystem::{self, FilesystemKind};
use disk::partition::{Partition, PartitionType, Scheme, partition, read_partition_table};
use disk::{Finding, Level, ReadAt};
use image_library::DiskIndex;

use crate::error::{Error, Result};
use crate::guest_disk::GuestDisk;
use crate::inspect::Storage;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::inspection::{
    DiskFacts, PartitionPurpose, TableKind, VolumeContent, VolumeFacts, VolumeId,
};

/// EFI system partition in a DOS partition table.
const MBR_EFI_SYSTEM: PartitionType = PartitionType::Mbr(0xef);

impl Storage {
    fn note(&mut self, disk: DiskIndex, finding: Finding) {
        self.findings.push((disk, finding));
    }
}

/// Opens every disk.
pub(crate) fn open(disks: &[GuestDisk]) -> Result<Storage> {
    let mut storage = Storage {
        disks: Vec::new(),
        filesystems: BTreeMap::new(),
        findings: Vec::new(),
    };
    for disk in disks {
        let facts = open_disk(disk, &mut storage)?;
        storage.disks.push(facts);
    }
    Ok(storage)
}

/// Where a volume lies on its disk: first byte and length.
pub(crate) fn volume_range(disk: &GuestDisk, id: VolumeId) -> Result<(u64, u64)> {
    let place = id.to_string();
    let Some(number) = id.partition else {
        return Ok((0, disk.device.length_bytes()));
    };
    let table =
        read_partition_table(&disk.device, disk.sector_size).map_err(Error::guest(&place))?;
    let mut partitions = table.partitions.iter();
    partitions
        .find(|entry| entry.number.get() == number)
        .map(|entry| (entry.start_bytes, entry.length_bytes))
        .ok_or(Error::Changed { place })
}

/// The bytes that an ext filesystem has free for files; `None` for any other.
pub(crate) fn free_bytes(device: &dyn ReadAt) -> disk::Result<Option<u64>> {
    let is_ext = filesystem::detect(device)?.is_some_and(|identity| is_ext(identity.kind));
    if !is_ext {
        return Ok(None);
    }
    Ok(Some(ext_free_bytes(&ext_superblock(device)?)))
}

fn open_disk(disk: &GuestDisk, storage: &mut Storage) -> Result<DiskFacts> {
    let place = format!("disk {}", disk.index);
    let table = match read_partition_table(&disk.device, disk.sector_size) {
        Ok(table) => table,
        Err(error @ (disk::Error::Corrupt { .. } | disk::Error::Unsupported { .. })) => {
            storage.note(disk.index, damaged_table(place, &error));
            return Ok(unknown_disk(disk));
        }
        Err(source) => return Err(Error::Guest { place, source }),
    };
    for found in table.findings {
        let place = format!("{place}: {}", found.place);
        storage.note(disk.index, Finding { place, ..found });
    }
    let kind = match table.scheme {
        Scheme::Mbr { .. } => TableKind::Mbr,
        Scheme::Gpt { .. } => TableKind::Gpt,
        Scheme::None => TableKind::None,
    };
    let mut volumes = Vec::new();
    for entry in &table.partitions {
        if entry.partition_type.is_extended() {
            continue;
        }
        let mut facts = partition_facts(disk, entry);
        // What lies beyond the disk's end is a finding of the table already.
        if let Ok(device) = partition(&disk.device, entry) {
            facts.content = content(facts.id, Arc::new(device), storage)?;
        }
        volumes.push(facts);
    }
    if volumes.is_empty() {
        let id = VolumeId {
            disk: disk.index,
            partition: None,
        };
        volumes.push(VolumeFacts {
            id,
            start_bytes: 0,
            size_bytes: disk.device.length_bytes(),
            purpose: PartitionPurpose::Other,
            partition_uuid: None,
            partition_label: None,
            content: content(id, Arc::clone(&disk.device), storage)?,
        });
    }
    Ok(DiskFacts {
        index: disk.index,
        name: disk.name.clone(),
        size_bytes: disk.device.length_bytes(),
        sector_size: disk.sector_size,
        table: kind,
        boot_code: table.boot_code,
        volumes,
    })
}

fn damaged_table(place: String, error: &disk::Error) -> Finding {
    let problem = error.to_string();
    finding(Level::Error, "disk.table.damaged", place, problem).remedy(
        "restore the partition table on the server from a backup (sgdisk --load-backup), and take \
         a new image",
    )
}

fn unknown_disk(disk: &GuestDisk) -> DiskFacts {
    DiskFacts {
        index: disk.index,
        name: disk.name.clone(),
        size_bytes: disk.device.length_bytes(),
        sector_size: disk.sector_size,
        table: TableKind::None,
        boot_code: false,
        volumes: Vec::new(),
    }
}

fn partition_facts(disk: &GuestDisk, entry: &Partition) -> VolumeFacts {
    let purpose = match entry.partition_type {
        PartitionType::EFI_SYSTEM | MBR_EFI_SYSTEM => PartitionPurpose::EfiSystem,
        PartitionType::BIOS_BOOT => PartitionPurpose::BiosBoot,
        _ => PartitionPurpose::Other,
    };
    VolumeFacts {
        id: VolumeId {
            disk: disk.index,
            partition: Some(entry.number.get()),
        },
        start_bytes: entry.start_bytes,
        size_bytes: entry.length_bytes,
        purpose,
        partition_uuid: Some(entry.partuuid.clone()).filter(|uuid| !uuid.is_empty()),
        partition_label: Some(entry.name.clone()).filter(|name| !name.is_empty()),
        content: None,
    }
}

/// What a volume holds; a filesystem that can be read is opened.
fn content(
    id: VolumeId,
    device: Arc<dyn ReadAt>,
    storage: &mut Storage,
) -> Result<Option<VolumeContent>> {
    let identity = match filesystem::detect(&device) {
        Ok(Some(identity)) => identity,
        Ok(None) => return Ok(None),
        Err(error) => {
            storage.note(id.disk, unreadable(id, error)?);
            return Ok(None);
        }
    };
    let mut found = VolumeContent {
        kind: identity.kind,
        uuid: identity.uuid,
        label: identity.label,
        free_bytes: None,
        journal_dirty: false,
    };
    if is_ext(found.kind) {
        let superblock = ext_superblock(&*device).map_err(Error::guest(id.to_string()))?;
        found.free_bytes = Some(ext_free_bytes(&superblock));
        found.journal_dirty = field(&superblock, 0x60) & 0x04 != 0;
        if found.journal_dirty {
            let noted = finding(
                Level::Note,
                "filesystem.journal-dirty",
                id.to_string(),
                "it was in use when the snapshot was taken; its journal is replayed first",
            );
            storage.note(id.disk, noted);
        }
    }
    if has_files(found.kind) {
        match filesystem::open(device) {
            Ok(opened) => {
                storage.filesystems.insert(id, opened);
            }
            Err(error) => storage.note(id.disk, unreadable(id, error)?),
        }
    }
    Ok(Some(found))
}

/// Broken or unknown structures are the guest's condition; a failing device is an error.
fn unreadable(id: VolumeId, error: disk::Error) -> Result<Finding> {
    match error {
        disk::Error::Corrupt { .. }
        | disk::Error::Unsupported { .. }
        | disk::Error::Limit { .. } => Ok(finding(
            Level::Warning,
            "filesystem.unreadable",
            id.to_string(),
            error.to_string(),
        )),
        source => Err(Error::Guest {
            place: id.to_string(),
            source,
        }),
    }
}

fn has_files(kind: FilesystemKind) -> bool {
    is_ext(kind) || kind == FilesystemKind::Fat
}

fn is_ext(kind: FilesystemKind) -> bool {
    matches!(
        kind,
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4
    )
}

fn ext_superblock(device: &dyn ReadAt) -> disk::Result<[u8; 1024]> {
    let mut superblock = [0; 1024];
    device.read_exact_at(1024, &mut superblock)?;
    Ok(superblock)
}

fn ext_free_bytes(superblock: &[u8; 1024]) -> u64 {
    let high = match field(superblock, 0x60) & 0x80 {
        0 => 0,
        _ => u64::from(field(superblock, 0x158)),
    };
    let blocks = high << 32 | u64::from(field(superblock, 0x0c));
    let shift = field(superblock, 0x18).min(6) + 10;
    blocks.saturating_mul(1 << shift)
}

fn field(superblock: &[u8; 1024], offset: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&superblock[offset..offset + 4]);
    u32::from_le_bytes(bytes)
}
