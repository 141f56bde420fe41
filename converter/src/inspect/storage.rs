// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks, partitions, the volumes that are made of them, and the filesystems on all of these.
//!
//! Of an ext superblock, 1024 bytes into the volume, `s_feature_incompat` at 0x60 is read here: whether
//! the journal must be replayed (0x04). Whoever reads the filesystem sees it replayed.

mod btrfs;

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::filesystem::{self, Filesystem, FilesystemKind};
use disk::partition::{Partition, PartitionType, Scheme, read_partition_table};
use disk::volume::{ReadOnly, md};
use disk::{Finding, Level, ReadAt};
use image_library::DiskIndex;

use crate::error::{Error, Result};
use crate::guest::boot_sector::{BootCode, boot_code};
use crate::guest_disk::{GuestDisk, secrets_of};
use crate::inspect::Storage;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::inspection::{
    AssembledFacts, DiskFacts, PartitionPurpose, TableKind, VolumeContent, VolumeFacts, VolumeId,
    Volumes,
};
use crate::secrets::Secrets;
use crate::stack::{self, Part};

/// EFI system partition in a DOS partition table.
const MBR_EFI_SYSTEM: PartitionType = PartitionType::Mbr(0xef);

impl Storage {
    fn note(&mut self, disk: DiskIndex, finding: Finding) {
        self.findings.push((disk, finding));
    }

    /// The first of the disks that a volume lies on.
    fn first_disk_of(&self, volume: VolumeId) -> DiskIndex {
        let volumes = Volumes {
            disks: &self.disks,
            assembled: &self.assembled,
        };
        let disks = volumes.disks_of(volume);
        disks.first().copied().unwrap_or(DiskIndex(0))
    }
}

/// Opens every disk.
pub(crate) fn open(disks: &[GuestDisk]) -> Result<Storage> {
    let mut storage = Storage {
        disks: Vec::new(),
        assembled: Vec::new(),
        filesystems: BTreeMap::new(),
        findings: Vec::new(),
    };
    // Whatever may be a device of a btrfs, which can have several.
    let mut parts = Vec::new();
    for disk in disks {
        let facts = open_disk(disk, &mut parts, &mut storage)?;
        storage.disks.push(facts);
    }
    let assembled = open_assembled(&parts, &secrets_of(disks), &mut storage)?;
    parts.extend(assembled);
    btrfs::open(&parts, &mut storage)?;
    Ok(storage)
}

/// Opens what is made of partitions and disks.
fn open_assembled(parts: &[Part], secrets: &Secrets, storage: &mut Storage) -> Result<Vec<Part>> {
    let mut assembled = Vec::new();
    let stack = stack::assemble(parts, secrets)?;
    let before = storage.findings.len();
    for volume in stack.volumes {
        let mut facts = AssembledFacts {
            id: volume.part.id,
            kind: volume.kind,
            name: volume.name,
            nodes: volume.nodes,
            parts: volume.parts,
            size_bytes: volume.part.device.length_bytes(),
            content: None,
        };
        storage.assembled.push(facts.clone());
        let place = Place {
            id: facts.id,
            name: facts.name.clone(),
            disk: storage.first_disk_of(facts.id),
        };
        facts.content = content(&place, &volume.part, storage)?;
        storage.assembled.pop();
        storage.assembled.push(facts);
        assembled.push(volume.part);
    }
    // What is wrong with a volume stands before what is wrong with what is on it.
    let findings = stack.findings.into_iter();
    let findings = findings.map(|(about, found)| (storage.first_disk_of(about), found));
    let findings: Vec<_> = findings.collect();
    storage.findings.splice(before..before, findings);
    Ok(assembled)
}

/// A volume that is looked into.
struct Place {
    id: VolumeId,
    /// What people call it.
    name: String,
    /// A disk that it is on: what is wrong with it weighs less where the system starts without.
    disk: DiskIndex,
}

impl Place {
    fn on_disk(id: VolumeId, disk: &GuestDisk) -> Self {
        Self {
            id,
            name: id.to_string(),
            disk: disk.index,
        }
    }
}

fn open_disk(disk: &GuestDisk, parts: &mut Vec<Part>, storage: &mut Storage) -> Result<DiskFacts> {
    let place = format!("disk {}", disk.index);
    let table = match read_partition_table(&disk.device, disk.sector_size) {
        Ok(table) => table,
        Err(error @ (disk::Error::Corrupt { .. } | disk::Error::Unsupported { .. })) => {
            storage.note(disk.index, damaged_table(place, &error));
            return Ok(unknown_disk(disk));
        }
        Err(source) => return Err(Error::Guest { place, source }),
    };
    for found in &table.findings {
        let place = format!("{place}: {}", found.place);
        let found = found.clone();
        storage.note(disk.index, Finding { place, ..found });
    }
    let raid = md::firmware::detect(&disk.device).map_err(Error::guest(place.as_str()))?;
    if let Some(kind) = raid {
        storage.note(disk.index, md::firmware::finding(kind, &place));
    }
    let kind = match table.scheme {
        Scheme::Mbr { .. } => TableKind::Mbr,
        Scheme::Gpt { .. } => TableKind::Gpt,
        Scheme::None => TableKind::None,
    };
    let whole = Part {
        id: VolumeId::on_disk(disk.index, None),
        device: Arc::new(ReadOnly::new(Arc::clone(&disk.device))),
        sector_size: disk.sector_size,
    };
    let mut volumes = Vec::new();
    for entry in stack::entries(&table) {
        let mut facts = partition_facts(disk, entry);
        // What lies beyond the disk's end is a finding of the table already.
        if let Some(part) = stack::partition_of(&whole, entry) {
            facts.content = content(&Place::on_disk(part.id, disk), &part, storage)?;
            parts.push(part);
        }
        volumes.push(facts);
    }
    if volumes.is_empty() {
        volumes.push(VolumeFacts {
            id: whole.id,
            start_bytes: 0,
            size_bytes: disk.device.length_bytes(),
            purpose: PartitionPurpose::Other,
            partition_uuid: None,
            partition_label: None,
            content: content(&Place::on_disk(whole.id, disk), &whole, storage)?,
        });
        parts.push(whole);
    }
    Ok(DiskFacts {
        index: disk.index,
        name: disk.name.clone(),
        size_bytes: disk.device.length_bytes(),
        sector_size: disk.sector_size,
        table: kind,
        boot_code: table.boot_code,
        boot_code_of: boot_code_of(disk, &table.partitions).map_err(Error::guest(place))?,
        volumes,
    })
}

/// Whose code a BIOS starts. Code that only starts the active partition is asked for further there.
fn boot_code_of(disk: &GuestDisk, partitions: &[Partition]) -> disk::Result<Option<BootCode>> {
    let code_at = |offset: u64| -> disk::Result<Option<BootCode>> {
        let mut sector = [0; 512];
        let fits = offset
            .checked_add(512)
            .is_some_and(|end| end <= disk.device.length_bytes());
        if !fits {
            return Ok(None);
        }
        disk.device.read_exact_at(offset, &mut sector)?;
        Ok(boot_code(&sector))
    };
    let own = code_at(0)?;
    if matches!(own, Some(BootCode::Grub | BootCode::Lilo)) {
        return Ok(own);
    }
    let active = partitions.iter().find(|partition| partition.bootable);
    let behind = match active {
        Some(partition) => code_at(partition.start_bytes)?,
        None => None,
    };
    Ok(behind.or(own))
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
        boot_code_of: None,
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
        id: VolumeId::on_disk(disk.index, Some(entry.number.get())),
        start_bytes: entry.start_bytes,
        size_bytes: entry.length_bytes,
        purpose,
        partition_uuid: Some(entry.partuuid.clone()).filter(|uuid| !uuid.is_empty()),
        partition_label: Some(entry.name.clone()).filter(|name| !name.is_empty()),
        content: None,
    }
}

/// What a volume holds; a filesystem that can be read is opened.
fn content(place: &Place, part: &Part, storage: &mut Storage) -> Result<Option<VolumeContent>> {
    let device: Arc<dyn ReadAt> = Arc::clone(&part.device) as _;
    let identity = match filesystem::detect(&device) {
        Ok(Some(identity)) => identity,
        Ok(None) => return Ok(None),
        Err(error) => {
            storage.note(place.disk, unreadable(place, error)?);
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
        found.journal_dirty = ext_journal_dirty(&*device).map_err(Error::guest(&place.name))?;
    }
    if has_files(found.kind) {
        match filesystem::open(device) {
            Ok(opened) => add(place, opened, &mut found, storage)?,
            Err(error) => storage.note(place.disk, unreadable(place, error)?),
        }
    }
    Ok(Some(found))
}

/// Keeps a filesystem that was opened, and what it says of itself.
fn add(
    place: &Place,
    opened: Box<dyn Filesystem>,
    found: &mut VolumeContent,
    storage: &mut Storage,
) -> Result<()> {
    found.journal_dirty |= opened.is_log_dirty();
    if found.journal_dirty {
        let noted = finding(
            Level::Note,
            "filesystem.journal-dirty",
            place.name.clone(),
            "it was in use when the snapshot was taken; its journal is replayed first",
        );
        storage.note(place.disk, noted);
    }
    match opened.free_bytes() {
        Ok(free) => found.free_bytes = free,
        Err(error) => storage.note(place.disk, unreadable(place, error)?),
    }
    storage.filesystems.insert(place.id, opened);
    Ok(())
}

/// Broken or unknown structures are the guest's condition; a failing device is an error.
fn unreadable(place: &Place, error: disk::Error) -> Result<Finding> {
    match error {
        disk::Error::Corrupt { .. }
        | disk::Error::Unsupported { .. }
        | disk::Error::Limit { .. } => Ok(finding(
            Level::Warning,
            "filesystem.unreadable",
            place.name.clone(),
            error.to_string(),
        )),
        source => Err(Error::Guest {
            place: place.name.clone(),
            source,
        }),
    }
}

/// Those of one device; see [`btrfs`] for what may have several.
fn has_files(kind: FilesystemKind) -> bool {
    is_ext(kind) || matches!(kind, FilesystemKind::Fat | FilesystemKind::Xfs)
}

fn is_ext(kind: FilesystemKind) -> bool {
    matches!(
        kind,
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4
    )
}

fn ext_journal_dirty(device: &dyn ReadAt) -> disk::Result<bool> {
    let mut incompat = [0; 4];
    device.read_exact_at(1024 + 0x60, &mut incompat)?;
    Ok(u32::from_le_bytes(incompat) & 0x04 != 0)
}

#[cfg(test)]
mod tests;
