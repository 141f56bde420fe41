// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds out what a guest is: disks, filesystems, operating system, kernels, boot loader, network.
//!
//! Only reads, and only what it needs: directories on the way to some dozens of files, the kernels'
//! module indexes and each initramfs. What is odd about the guest becomes a finding; an error means
//! that the disks below could not be read.

pub(crate) mod boot;
mod device_files;
pub(crate) mod device_names;
pub(crate) mod findings;
mod guest_names;
mod inspection;
mod kernel_facts;
mod kernels;
mod key_devices;
mod map_name;
mod mounts;
mod network;
pub(crate) mod print;
mod root;
mod storage;
mod subvolumes;
mod system;
pub(crate) mod tree;
pub(crate) mod volume_facts;

use std::collections::BTreeMap;

use disk::filesystem::Filesystem;
use disk::{Finding, Level, Monitor};
use image_library::DiskIndex;
use image_library::machine::MachineDescription;

use crate::error::{Error, Result};
use crate::guest_disk::GuestDisk;
use crate::inspect::tree::GuestTree;

pub(crate) use findings::{LUKS_LOCKED, LUKS_TOKEN};
pub(crate) use inspection::Volumes;
pub use inspection::{
    AssembledFacts, AssembledKind, Bootloader, BootloaderKind, ConfigurationFiles, DeviceFiles,
    DiskFacts, DriverFacts, DriverPlace, EfiFacts, EfiFile, Encoding, FilePlace, InitramfsFacts,
    InnerFile, Inspection, Kernel, Labels, LoadedFile, Mention, MentionKind, ModuleConfiguration,
    ModuleFacts, MountFacts, PartitionPurpose, ServiceFacts, System, TableKind, TextFile, UkiFacts,
    VolumeContent, VolumeFacts, VolumeId, WritingFacts,
};
pub use kernels::{FALLBACK_DISKS, WANTED};
#[cfg(test)]
pub(crate) use storage::open as open_disks;

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
    pub(crate) assembled: Vec<AssembledFacts>,
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
        assembled,
        filesystems,
        findings: noticed,
    } = storage;
    let volumes = Volumes {
        disks: &disks,
        assembled: &assembled,
    };
    let mut findings = Vec::new();
    let mut tree = GuestTree::new(filesystems);
    let is_locked = noticed.iter().any(|(_, found)| found.code == LUKS_LOCKED);
    let root = root::find(&mut tree, volumes, is_locked, &mut findings)?;
    let named = guest_names::named(&tree, root.as_ref().map(|root| root.volume), volumes)?;
    let volumes = Volumes {
        disks: &disks,
        assembled: &named,
    };
    let mounts = match &root {
        Some(root) => mounts::compose(&mut tree, root, volumes, machine, &mut findings)?,
        None => Vec::new(),
    };
    let root = root.map(|root| root.volume);
    findings.splice(0..0, weigh(noticed, volumes, root, &mounts));
    key_devices::told(&tree, volumes, &mut findings)?;
    let esp = boot::find_esp(&mut tree, &disks)?;
    let efi = boot::efi(&tree, esp.as_ref())?;
    if root.is_none() {
        tree.clear_mounts();
    }
    let (firmware, firmware_evidence) = boot::firmware(&tree, &disks, efi.as_ref(), machine)?;
    let bootloaders = boot::bootloaders(&tree, efi.as_ref())?;
    let device_files = device_files::device_files(&tree)?;
    let command_lines = command_lines(&bootloaders, machine);
    Ok(Inspection {
        root,
        mounts,
        system: system::system(&tree)?,
        firmware,
        firmware_evidence,
        kernels: kernels::kernels(&tree, &mut findings)?,
        bootloaders,
        ukis: boot::ukis(&tree, efi.as_ref(), &mut findings)?,
        efi,
        files: configuration_files(&tree)?,
        network: network::network(&tree, &device_files.modprobe, &command_lines)?,
        device_files,
        services: system::services(&tree)?,
        service_facts: system::service_facts(&tree)?,
        labels: system::labels(&tree)?,
        machine: machine.cloned(),
        disks,
        assembled: named,
        findings,
    })
}

/// The command line of the kernel that ran, else all that boot loaders have.
fn command_lines(bootloaders: &[Bootloader], machine: Option<&MachineDescription>) -> String {
    let running = machine.map(|machine| machine.os.kernel_command_line.clone());
    running.filter(|line| !line.is_empty()).unwrap_or_else(|| {
        let texts = bootloaders.iter().map(|b| b.configuration.text.as_str());
        texts.collect::<Vec<_>>().join("\n")
    })
}

/// An error on a disk that the system starts without is a warning: the VM starts as well, and what
/// was on that disk is missing there as it would be here. A volume that is locked is an error where
/// the system may be on it.
fn weigh(
    noticed: Vec<(DiskIndex, Finding)>,
    volumes: Volumes<'_>,
    root: Option<VolumeId>,
    mounts: &[MountFacts],
) -> Vec<Finding> {
    let is_needed = |disk: DiskIndex| {
        // Firmware starts from the first disk, whatever is mounted from it.
        let mut mounted = mounts.iter().map(|mount| volumes.disks_of(mount.volume));
        let is_mounted = mounted.any(|disks| disks.contains(&disk));
        root.is_none() || disk == DiskIndex(0) || is_mounted
    };
    let weighed = noticed.into_iter().map(|(disk, mut finding)| {
        if finding.code == LUKS_LOCKED && root.is_none() {
            finding.level = Level::Error;
        }
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
    let device_map = match tree.text("/boot/grub/device.map")? {
        Some(file) => Some(file),
        None => tree.text("/boot/grub2/device.map")?,
    };
    Ok(ConfigurationFiles {
        grub_custom: boot::grub_custom(tree)?,
        loader_defaults: boot::loader_defaults(tree, &grub_defaults)?,
        kernel_cmdline: tree.text("/etc/kernel/cmdline")?,
        fstab: tree.text("/etc/fstab")?,
        crypttab: tree.text("/etc/crypttab")?,
        grub_defaults,
        device_map,
        initramfs_modules: tree.text("/etc/initramfs-tools/modules")?,
        initramfs_conf: tree.texts("/etc/initramfs-tools/conf.d", "")?,
        modules: module_configuration(tree)?,
    })
}

fn module_configuration(tree: &GuestTree) -> Result<ModuleConfiguration> {
    Ok(ModuleConfiguration {
        dracut: tree.text("/etc/dracut.conf.d/relevo.conf")?,
        mkinitcpio: tree.text("/etc/mkinitcpio.conf")?,
        mkinitfs: tree.text("/etc/mkinitfs/mkinitfs.conf")?,
        suse: tree.text("/etc/sysconfig/kernel")?,
    })
}
