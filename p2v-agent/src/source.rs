// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disks that a snapshot reads: block devices of this server, or disk image files.
//!
//! A block device that nobody uses is held exclusively while it is read (`O_EXCL`): nobody can
//! mount it meanwhile, which is what makes its image *cold*. One in use is refused, or read as it
//! is when the operator says so; its image is then *fuzzy*.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::block::{OpenOptions, open_disk};
use disk::{ReadAt, SectorSize};
use image_library::Consistency;
use image_library::machine::{Disk, MachineDescription};
use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::inventory::root::Root;
use crate::usage::{DiskUse, device_use, disk_use};

/// What to do with a disk in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUse {
    /// It is an error.
    Refuse,
    /// It is read while it changes, and the image says so.
    Accept,
}

/// A disk, opened for a snapshot.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its name in the image: the kernel's, or that of the file.
    pub name: String,
    /// The device node or file.
    pub path: PathBuf,
    /// Its bytes.
    pub device: Arc<dyn ReadAt>,
    /// Its logical sector size.
    pub sector_size: SectorSize,
    /// Whether it is a device of this machine; a disk image file may be of any machine.
    pub is_own_device: bool,
    /// What can be promised.
    pub consistency: Consistency,
    /// Numbers of the partitions that change while they are read; 0 for the disk itself.
    pub busy_partitions: Vec<u32>,
    /// Keeps others from using it meanwhile.
    _exclusive: Option<File>,
}

/// Opens what the operator named: a device node, a kernel name (`sda`) or a disk image file.
pub(crate) fn open_source(
    root: &Root,
    machine: &MachineDescription,
    named: &str,
    in_use: InUse,
) -> Result<Source> {
    let path = locate(root, machine, named);
    let metadata = fs::metadata(&path).map_err(Error::file("open", &path))?;
    if metadata.file_type().is_block_device() {
        open_block_device(root, machine, &path, in_use)
    } else {
        open_file(&path)
    }
}

/// A kernel name is a device, unless there is a file of that name.
fn locate(root: &Root, machine: &MachineDescription, named: &str) -> PathBuf {
    let path = Path::new(named);
    let is_disk = machine.disks.iter().any(|disk| disk.name == named);
    if is_disk && !path.exists() {
        root.path(&format!("/dev/{named}"))
    } else {
        path.to_owned()
    }
}

fn open_file(path: &Path) -> Result<Source> {
    let opened = open_disk(path, &OpenOptions::default()).map_err(|source| Error::DiskFile {
        path: path.to_owned(),
        source,
    })?;
    let name = path.file_name().map_or_else(
        || "disk".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    Ok(Source {
        name,
        path: path.to_owned(),
        device: opened.device,
        sector_size: opened.sector_size,
        is_own_device: false,
        consistency: Consistency::Cold,
        busy_partitions: Vec::new(),
        _exclusive: None,
    })
}

fn open_block_device(
    root: &Root,
    machine: &MachineDescription,
    path: &Path,
    in_use: InUse,
) -> Result<Source> {
    // /dev/disk/by-id/... and the like are links to the kernel's name.
    let node = path.canonicalize().map_err(Error::file("open", path))?;
    let name = node
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let disk = machine.disks.iter().find(|disk| disk.name == name);
    let usage = match disk {
        Some(disk) => disk_use(root, machine, disk),
        None => device_use(root, machine, &name),
    };
    let exclusive = open_exclusively(&node)?;
    let is_busy = !usage.findings.is_empty() || exclusive.is_none();
    if is_busy && in_use == InUse::Refuse {
        let uses = match usage.summary() {
            summary if summary.is_empty() => "the kernel holds it for another user".to_owned(),
            summary => summary,
        };
        return Err(Error::InUse { disk: name, uses });
    }
    let opened = open_disk(&node, &OpenOptions::default())?;
    Ok(Source {
        path: node,
        device: opened.device,
        sector_size: opened.sector_size,
        is_own_device: true,
        consistency: if is_busy {
            Consistency::Fuzzy
        } else {
            Consistency::Cold
        },
        busy_partitions: busy_partitions(disk, &usage, is_busy),
        _exclusive: exclusive,
        name,
    })
}

/// `None` when somebody uses it.
fn open_exclusively(node: &Path) -> Result<Option<File>> {
    let flags = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
    let opened = File::options().read(true).custom_flags(flags).open(node);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
            Ok(None)
        }
        Err(error) => Err(Error::file("open", node)(error)),
    }
}

/// A disk that is busy for a reason that nobody told counts as a whole.
fn busy_partitions(disk: Option<&Disk>, usage: &DiskUse, is_busy: bool) -> Vec<u32> {
    let known: Vec<u32> = disk
        .iter()
        .flat_map(|disk| &disk.partitions)
        .filter(|partition| usage.busy_parts.contains(&partition.name))
        .map(|partition| partition.number)
        .collect();
    if is_busy && known.len() < usage.busy_parts.len().max(1) {
        return vec![0];
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{InventoryOptions, take_inventory};

    fn open(named: &str) -> Result<Source> {
        let options = InventoryOptions {
            load_interval: std::time::Duration::ZERO,
            ..InventoryOptions::default()
        };
        open_source(
            &Root::new("/"),
            &take_inventory(&options),
            named,
            InUse::Refuse,
        )
    }

    #[test]
    fn a_disk_image_file_is_cold_and_named_after_the_file() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("web01.raw");
        fs::write(&path, vec![7; 4096]).unwrap();
        let source = open(path.to_str().unwrap()).unwrap();
        assert_eq!(source.name, "web01.raw");
        assert_eq!(source.device.length_bytes(), 4096);
        assert_eq!(source.consistency, Consistency::Cold);
    }

    #[test]
    fn a_disk_that_does_not_exist_is_named() {
        let error = open("/nowhere/sda").unwrap_err();
        assert_eq!(error.to_string(), "open /nowhere/sda");
    }
}
