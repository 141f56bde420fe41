// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds out what a guest is: disks, filesystems, operating system, kernels, boot loader, network.
//!
//! Only reads, and only what it needs: directories on the way to some dozens of files, the kernels'
//! module indexes and each initramfs. What is odd about the guest becomes a finding; an error means
//! that the disks below could not be read.

mod boot;
pub(crate) mod device_names;
pub(crate) mod findings;
mod inspection;
mod kernels;
mod mounts;
mod network;
pub(crate) mod print;
mod root;
mod storage;
mod system;
pub(crate) mod tree;

use std::collections::BTreeMap;

use disk::filesystem::Filesystem;
use disk::{Finding, Level, Monitor};
use image_library::DiskIndex;
use image_library::machine::MachineDescription;

use crate::error::{Error, Result};
use crate::guest_disk::GuestDisk;
use crate::inspect::tree::GuestTree;

pub use inspection::{
    Bootloader, BootloaderKind, ConfigurationFiles, DiskFacts, DriverFacts, DriverPlace, EfiFacts,
    Encoding, FilePlace, InitramfsFacts, InnerFile, Inspection, Kernel, ModuleFacts, MountFacts,
    PartitionPurpose, System, TableKind, TextFile, VolumeContent, VolumeFacts, VolumeId,
};
pub use kernels::WANTED;
pub(crate) use storage::{free_bytes, volume_range};

/// Inspects the guest on these disks, which must be all that it needs.
pub fn inspect(
    disks: &[GuestDisk],
    machine: Option<&MachineDescription>,
    monitor: &dyn Monitor,
) -> Result<Inspection> {
    if disks.is_empty() {
        return Err(Error::NoDisks);
    }
    monitor.stage("Reading partition tables and filesystems");
    let storage = storage::open(disks)?;
    monitor.stage("Inspecting the guest");
    inspect_filesystems(storage, machine)
}

/// Disks whose filesystems are open.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) disks: Vec<DiskFacts>,
    pub(crate) filesystems: BTreeMap<VolumeId, Box<dyn Filesystem>>,
    /// What was noticed on each disk.
    pub(crate) findings: Vec<(DiskIndex, Finding)>,
}

/// Inspects the guest on open filesystems.
pub(crate) fn inspect_filesystems(
    storage: Storage,
    machine: Option<&MachineDescription>,
) -> Result<Inspection> {
    let Storage {
        disks,
        filesystems,
        findings: noticed,
    } = storage;
    let mut findings = Vec::new();
    let mut tree = GuestTree::new(filesystems);
    let root = root::find(&mut tree, &disks, &mut findings)?;
    let mounts = match root {
        Some(root) => mounts::compose(&mut tree, root, &disks, machine, &mut findings)?,
        None => Vec::new(),
    };
    findings.splice(0..0, weigh(noticed, root, &mounts));
    let efi = boot::efi(&tree, &disks)?;
    let (firmware, firmware_evidence) = boot::firmware(&tree, &disks, efi.as_ref(), machine)?;
    Ok(Inspection {
        root,
        mounts,
        system: system::system(&tree)?,
        firmware,
        firmware_evidence,
        efi,
        kernels: kernels::kernels(&tree, &mut findings)?,
        bootloaders: boot::bootloaders(&tree)?,
        files: configuration_files(&tree)?,
        network: network::network(&tree)?,
        services: system::services(&tree)?,
        machine: machine.cloned(),
        disks,
        findings,
    })
}

/// An error on a disk that the system starts without is a warning: the VM starts as well, and what
/// was on that disk is missing there as it would be here.
fn weigh(
    noticed: Vec<(DiskIndex, Finding)>,
    root: Option<VolumeId>,
    mounts: &[MountFacts],
) -> Vec<Finding> {
    let is_needed = |disk: DiskIndex| {
        // Firmware starts from the first disk, whatever is mounted from it.
        let is_mounted = mounts.iter().any(|mount| mount.volume.disk == disk);
        root.is_none() || disk == DiskIndex(0) || is_mounted
    };
    let weighed = noticed.into_iter().map(|(disk, mut finding)| {
        if finding.level == Level::Error && !is_needed(disk) {
            finding.level = Level::Warning;
            finding
                .problem
                .push_str("; nothing that the system starts with is on this disk");
        }
        finding
    });
    weighed.collect()
}

fn configuration_files(tree: &GuestTree) -> Result<ConfigurationFiles> {
    let mut grub_defaults = tree.texts("/etc/default/grub.d", ".cfg")?;
    if let Some(main) = tree.text("/etc/default/grub")? {
        grub_defaults.insert(0, main);
    }
    Ok(ConfigurationFiles {
        fstab: tree.text("/etc/fstab")?,
        crypttab: tree.text("/etc/crypttab")?,
        grub_defaults,
        device_map: tree.text("/boot/grub/device.map")?,
        initramfs_modules: tree.text("/etc/initramfs-tools/modules")?,
        initramfs_conf: tree.texts("/etc/initramfs-tools/conf.d", "")?,
    })
}
