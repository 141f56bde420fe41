// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is on the EFI system partition.
//!
//! Limits: 32 directories below `/EFI`, 64 files in each, loaders of 16 MiB.

use disk::filesystem::{FileType, FilesystemKind};

use super::child;
use crate::error::Result;
use crate::guest::boot_csv;
use crate::inspect::inspection::{
    DiskFacts, EfiFacts, EfiFile, PartitionPurpose, VolumeFacts, VolumeId,
};
use crate::inspect::tree::GuestTree;

/// The directories below `/EFI` that are looked into.
const DIRECTORIES_MAX: usize = 32;
const FILES_MAX: usize = 64;
const LOADER_BYTES_MAX: u64 = 16 << 20;
const CSV_BYTES_MAX: u64 = 64 << 10;
/// Where systemd mounts a partition that fstab does not name.
const AUTOMATIC_MOUNT: &str = "/efi";

/// The EFI system partition, and where it is in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Esp {
    pub(crate) volume: VolumeId,
    pub(crate) mount_point: String,
}

/// Finds the partition, and mounts it where fstab does not.
pub(crate) fn find_esp(tree: &mut GuestTree, disks: &[DiskFacts]) -> Result<Option<Esp>> {
    let volumes = || disks.iter().flat_map(|disk| &disk.volumes);
    let is_fat = |volume: &&VolumeFacts| {
        let content = volume.content.as_ref();
        content.is_some_and(|content| content.kind == FilesystemKind::Fat)
    };
    let fat: Vec<&VolumeFacts> = volumes().filter(is_fat).collect();
    for mount_point in ["/boot/efi", "/efi", "/boot"] {
        let Some(place) = tree.resolve(mount_point)? else {
            continue;
        };
        let is_mounted = place.path == "/" && fat.iter().any(|v| v.id == place.volume);
        if is_mounted && child(tree, mount_point, "EFI")?.is_some() {
            return Ok(Some(Esp {
                volume: place.volume,
                mount_point: mount_point.to_owned(),
            }));
        }
    }
    let mut marked = fat
        .iter()
        .filter(|v| v.purpose == PartitionPurpose::EfiSystem);
    let Some(volume) = marked.next().map(|volume| volume.id) else {
        return Ok(None);
    };
    if tree.filesystem(volume).is_none() {
        return Ok(None);
    }
    // Without a Linux root, the partition is all that is looked at here.
    let mount_point = match tree.resolve("/")? {
        Some(_) => AUTOMATIC_MOUNT,
        None => "",
    };
    if mount_point.is_empty() {
        tree.set_root(volume);
    } else {
        tree.mount(mount_point, volume);
    }
    Ok(Some(Esp {
        volume,
        mount_point: mount_point.to_owned(),
    }))
}

/// What is on the partition.
pub(crate) fn efi(tree: &GuestTree, esp: Option<&Esp>) -> Result<Option<EfiFacts>> {
    let Some(esp) = esp else { return Ok(None) };
    let mut facts = EfiFacts {
        volume: esp.volume,
        mount_point: esp.mount_point.clone(),
        removable_loader: false,
        loaders: Vec::new(),
        files: Vec::new(),
        fallback_entries: Vec::new(),
    };
    let files = files(tree, esp)?;
    let loaders = files.iter().filter(|path| has_suffix(path, ".efi"));
    facts.loaders = loaders.cloned().collect();
    facts.removable_loader = facts.loaders.iter().any(|path| is_removable(path));
    if facts.removable_loader {
        return Ok(Some(facts));
    }
    for path in &files {
        let full = format!("{}{path}", esp.mount_point);
        if has_suffix(path, ".csv") {
            facts.fallback_entries.extend(named_by(tree, path, &full)?);
        }
        facts.files.extend(file(tree, path, &full)?);
    }
    Ok(Some(facts))
}

/// Whether firmware finds a loader here by itself.
pub(crate) fn is_removable(path: &str) -> bool {
    ["/efi/boot/bootx64.efi", "/efi/boot/bootia32.efi"]
        .iter()
        .any(|known| path.eq_ignore_ascii_case(known))
}

fn has_suffix(path: &str, suffix: &str) -> bool {
    path.to_ascii_lowercase().ends_with(suffix)
}

/// The files in the directories below `/EFI`, by their paths on the partition.
fn files(tree: &GuestTree, esp: &Esp) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let Some(efi) = child(tree, &esp.mount_point, "EFI")? else {
        return Ok(found);
    };
    for vendor in tree.list(&efi)?.into_iter().take(DIRECTORIES_MAX) {
        if vendor.file_type != FileType::Directory {
            continue;
        }
        let directory = format!("{efi}/{}", vendor.name);
        let inside = &directory[esp.mount_point.len()..];
        let entries = tree.list(&directory)?.into_iter();
        let files = entries.filter(|entry| entry.file_type == FileType::File);
        found.extend(
            files
                .take(FILES_MAX)
                .map(|file| format!("{inside}/{}", file.name)),
        );
    }
    Ok(found)
}

/// A loader, or a configuration beside it, with the hash that tells later that it is the same.
fn file(tree: &GuestTree, path: &str, full: &str) -> Result<Option<EfiFile>> {
    let Some((place, metadata)) = tree.metadata(full)? else {
        return Ok(None);
    };
    if metadata.size_bytes > LOADER_BYTES_MAX {
        return Ok(None);
    }
    let bytes = tree.read_place(&place, LOADER_BYTES_MAX)?;
    Ok(Some(EfiFile {
        path: path.to_owned(),
        size_bytes: metadata.size_bytes,
        hash: blake3::hash(&bytes).to_hex().to_string(),
    }))
}

/// The loaders that a file for shim's fallback program names. It does not read the one in `BOOT`.
fn named_by(tree: &GuestTree, path: &str, full: &str) -> Result<Vec<String>> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_read = ["bootx64.csv", "bootia32.csv", "boot.csv"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known));
    if !is_read || directory.eq_ignore_ascii_case("/efi/boot") {
        return Ok(Vec::new());
    }
    let Some((_, metadata)) = tree.metadata(full)? else {
        return Ok(Vec::new());
    };
    if metadata.size_bytes > CSV_BYTES_MAX {
        return Ok(Vec::new());
    }
    let bytes = tree.read(full, CSV_BYTES_MAX)?.map(|(_, bytes)| bytes);
    let programs = boot_csv::programs(&bytes.unwrap_or_default()).into_iter();
    Ok(programs
        .map(|program| format!("{directory}/{program}"))
        .collect())
}
