// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was found in a guest: values only, so that a plan can be made from them without reading
//! the disks again, and so that they can be stored, compared and shown.
//!
//! Text files that a plan may change are kept whole, because the plan shows what it changes.

use std::fmt;

use disk::Finding;
use disk::filesystem::FilesystemKind;
use image_library::DiskIndex;
use image_library::machine::MachineDescription;
use serde::{Deserialize, Serialize};

use crate::guest::network::NetworkConfiguration;
use crate::vm::Firmware;

pub use super::device_files::{DeviceFiles, Mention, MentionKind};
pub use super::kernel_facts::{
    DriverFacts, DriverPlace, InitramfsFacts, InnerFile, Kernel, ModuleFacts, WritingFacts,
};
pub use super::system::{Labels, ServiceFacts};
pub use super::volume_facts::{
    AssembledFacts, AssembledKind, DiskFacts, PartitionPurpose, TableKind, VolumeContent,
    VolumeFacts, VolumeId,
};

/// A file of the guest, where it really is: symbolic links resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FilePlace {
    /// The volume that holds it.
    pub volume: VolumeId,
    /// Its path inside that volume's filesystem.
    pub path: String,
    /// Its path as the guest sees it.
    pub guest_path: String,
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.guest_path)
    }
}

/// How a text file's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// Anything else: each byte is kept as the character of the same number, so that old
    /// comments survive an edit.
    Latin1,
}

/// A text file of the guest with its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFile {
    /// Where it is.
    pub place: FilePlace,
    /// How its bytes became text.
    pub encoding: Encoding,
    /// The content.
    pub text: String,
}

/// A filesystem at its place in the guest's tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFacts {
    /// Where.
    pub mount_point: String,
    /// Which volume.
    pub volume: VolumeId,
    /// How the guest's fstab names it; `None` for a root that fstab does not list.
    pub spec: Option<String>,
    /// The directory of the volume's filesystem that is mounted: a subvolume of btrfs, as `/@home`;
    /// empty for all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub directory: String,
}

/// The operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// `ID` of os-release.
    pub id: String,
    /// `VERSION_ID`.
    pub version: Option<String>,
    /// `PRETTY_NAME`.
    pub name: String,
    /// `/etc/hostname`.
    pub hostname: Option<String>,
    /// `x86_64`, `i386`, `aarch64`, by the machine number of an ELF program.
    pub architecture: Option<String>,
    /// Whether systemd is the init system.
    pub systemd: bool,
    /// Whether its udev reads `.link` files.
    pub link_files: bool,
    /// Whether the hardware clock is in UTC.
    pub clock_utc: bool,
}

/// Which boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootloaderKind {
    /// GRUB 2.
    Grub2,
    /// GRUB 0.9x.
    GrubLegacy,
    /// LILO.
    Lilo,
    /// extlinux.
    Extlinux,
    /// systemd-boot.
    SystemdBoot,
    /// GRUB 2 that reads Boot Loader Specification entries.
    Bls,
    /// ELILO.
    Elilo,
}

impl fmt::Display for BootloaderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grub2 => "GRUB 2",
            Self::GrubLegacy => "GRUB legacy",
            Self::Lilo => "LILO",
            Self::Extlinux => "extlinux",
            Self::SystemdBoot => "systemd-boot",
            Self::Bls => "GRUB 2 with BLS entries",
            Self::Elilo => "ELILO",
        })
    }
}

/// The boot loader and its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootloader {
    /// Which.
    pub kind: BootloaderKind,
    /// The file with the entries or with what is said of them all; an entry where there is none.
    pub configuration: TextFile,
    /// Further files with entries: of the Boot Loader Specification, included ones, `custom.cfg`.
    #[serde(default)]
    pub entries: Vec<TextFile>,
    /// What the loader keeps itself: `grubenv`, or `default` of GRUB legacy.
    #[serde(default)]
    pub environment: Option<TextFile>,
    /// The kernels and initramfs images that its entries name.
    #[serde(default)]
    pub loaded: Vec<LoadedFile>,
    /// The roots that the command lines in LILO's map name.
    #[serde(default)]
    pub map_roots: Vec<String>,
}

impl Bootloader {
    /// All files with entries, the configuration first.
    pub fn files(&self) -> impl Iterator<Item = &TextFile> {
        std::iter::once(&self.configuration).chain(&self.entries)
    }

    /// Where a file is that an entry names so.
    #[must_use]
    pub fn loaded(&self, named: &str) -> Option<&FilePlace> {
        let mut loaded = self.loaded.iter();
        loaded
            .find(|file| file.named == named)
            .map(|file| &file.place)
    }
}

/// A file that a boot loader loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedFile {
    /// Its path as the loader reads it, below the root of some filesystem.
    pub named: String,
    /// Where it is.
    pub place: FilePlace,
}

/// A unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UkiFacts {
    /// Its kernel, of which the image is the file and the initramfs is inside.
    pub kernel: Kernel,
    /// The command line inside; without one, what the loader or the firmware passes counts.
    pub command_line: Option<String>,
    /// `PRETTY_NAME` of the os-release inside.
    pub name: Option<String>,
    /// `IMAGE_ID` or `ID` of the os-release inside, by which the menu is ordered.
    pub sort_key: Option<String>,
    /// `IMAGE_VERSION`, `VERSION_ID` or `BUILD_ID` of it.
    pub version: Option<String>,
    /// Whether it is signed.
    pub is_signed: bool,
}

/// What is on the EFI system partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EfiFacts {
    /// The volume.
    pub volume: VolumeId,
    /// Where the guest has it; what is said of its files begins with it.
    #[serde(default)]
    pub mount_point: String,
    /// Whether there is a loader that firmware finds without an entry in its NVRAM.
    pub removable_loader: bool,
    /// Loaders below `/EFI`, by path.
    pub loaders: Vec<String>,
    /// What stands in their directories, where firmware finds no loader by itself.
    #[serde(default)]
    pub files: Vec<EfiFile>,
    /// The loaders that shim's fallback program would make entries for, by path.
    #[serde(default)]
    pub fallback_entries: Vec<String>,
}

/// A file in a directory below `/EFI`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EfiFile {
    /// Its path on the partition.
    pub path: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// BLAKE3 of it, in hexadecimal.
    pub hash: String,
}

/// Text files that conversion may have to change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigurationFiles {
    /// `/etc/fstab`.
    pub fstab: Option<TextFile>,
    /// `/etc/crypttab`.
    pub crypttab: Option<TextFile>,
    /// `/etc/default/grub` and `/etc/default/grub.d/*.cfg`.
    pub grub_defaults: Vec<TextFile>,
    /// `/etc/grub.d/40_custom` and its like: entries that are copied into `grub.cfg`.
    #[serde(default)]
    pub grub_custom: Vec<TextFile>,
    /// Files of shell assignments that other boot loaders' entries are made from:
    /// `/etc/sysconfig/bootloader`, `/etc/default/extlinux` and their like.
    #[serde(default)]
    pub loader_defaults: Vec<TextFile>,
    /// `/etc/kernel/cmdline`, which `kernel-install` makes entries from.
    #[serde(default)]
    pub kernel_cmdline: Option<TextFile>,
    /// `/boot/grub/device.map`.
    pub device_map: Option<TextFile>,
    /// `/etc/initramfs-tools/modules`.
    pub initramfs_modules: Option<TextFile>,
    /// `/etc/initramfs-tools/conf.d/*`.
    pub initramfs_conf: Vec<TextFile>,
    /// What other programs make initramfs images from.
    #[serde(default)]
    pub modules: ModuleConfiguration,
}

/// Files that say which modules go into an initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModuleConfiguration {
    /// `/etc/dracut.conf.d/relevo.conf`, which is ours.
    pub dracut: Option<TextFile>,
    /// `/etc/mkinitcpio.conf`.
    pub mkinitcpio: Option<TextFile>,
    /// `/etc/mkinitfs/mkinitfs.conf`.
    pub mkinitfs: Option<TextFile>,
    /// `/etc/sysconfig/kernel` of SUSE.
    pub suse: Option<TextFile>,
}

/// Everything that was found in a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The disks.
    pub disks: Vec<DiskFacts>,
    /// The volumes that are made of others.
    pub assembled: Vec<AssembledFacts>,
    /// The volume with the root filesystem.
    pub root: Option<VolumeId>,
    /// The tree of filesystems, root first.
    pub mounts: Vec<MountFacts>,
    /// The operating system.
    pub system: Option<System>,
    /// How the machine started.
    pub firmware: Firmware,
    /// What told the firmware.
    pub firmware_evidence: String,
    /// The EFI system partition, where there is one.
    pub efi: Option<EfiFacts>,
    /// The kernels, newest first.
    pub kernels: Vec<Kernel>,
    /// The boot loaders whose files are there.
    pub bootloaders: Vec<Bootloader>,
    /// The unified kernel images, in the order of the menu.
    #[serde(default)]
    pub ukis: Vec<UkiFacts>,
    /// Text files that a plan may change.
    pub files: ConfigurationFiles,
    /// More text files, about disks and modules.
    pub device_files: DeviceFiles,
    /// How the network is set up.
    pub network: NetworkConfiguration,
    /// Services of the guest that start by themselves.
    pub services: Vec<String>,
    /// What was found about how services start.
    pub service_facts: ServiceFacts,
    /// Whether the guest labels its files.
    pub labels: Labels,
    /// The machine as its agent described it.
    pub machine: Option<MachineDescription>,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

impl Inspection {
    /// Where a file is to be that belongs to the root filesystem.
    #[must_use]
    pub fn place_on_root(&self, guest_path: impl Into<String>) -> Option<FilePlace> {
        let volume = self.root?;
        let guest_path: String = guest_path.into();
        let mut mounts = self.mounts.iter();
        let root = mounts.find(|mount| mount.mount_point == "/");
        let directory = root.map_or("", |mount| mount.directory.as_str());
        Some(FilePlace {
            volume,
            path: format!("{directory}{guest_path}"),
            guest_path,
        })
    }

    /// Every volume, wherever it is.
    pub(crate) fn volumes(&self) -> Volumes<'_> {
        Volumes {
            disks: &self.disks,
            assembled: &self.assembled,
        }
    }
}

/// The disks and what is made of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volumes<'a> {
    pub(crate) disks: &'a [DiskFacts],
    pub(crate) assembled: &'a [AssembledFacts],
}

impl<'a> Volumes<'a> {
    /// Partitions, and disks without a table.
    pub(crate) fn on_disks(self) -> impl Iterator<Item = &'a VolumeFacts> {
        self.disks.iter().flat_map(|disk| &disk.volumes)
    }

    /// What each volume holds, as far as it is known.
    pub(crate) fn contents(self) -> impl Iterator<Item = (VolumeId, &'a VolumeContent)> {
        let on_disks = self.on_disks().map(|volume| (volume.id, &volume.content));
        let assembled = self
            .assembled
            .iter()
            .map(|volume| (volume.id, &volume.content));
        on_disks
            .chain(assembled)
            .filter_map(|(id, content)| Some((id, content.as_ref()?)))
    }

    /// Whether there is such a volume.
    pub(crate) fn has(self, id: VolumeId) -> bool {
        self.on_disks().any(|volume| volume.id == id)
            || self.assembled.iter().any(|volume| volume.id == id)
    }

    /// The volume that a filesystem goes by: of a btrfs on several, the first of them.
    pub(crate) fn first_of(self, id: VolumeId) -> VolumeId {
        let btrfs = || {
            let contents = self.contents();
            contents.filter(|(_, content)| content.kind == FilesystemKind::Btrfs)
        };
        let content = btrfs().find(|(volume, _)| *volume == id);
        let Some(uuid) = content.and_then(|(_, content)| content.uuid.as_ref()) else {
            return id;
        };
        let mut same = btrfs().filter(|(_, content)| content.uuid.as_ref() == Some(uuid));
        same.next().map_or(id, |(first, _)| first)
    }

    /// Whether another volume is made of it.
    pub(crate) fn is_part(self, id: VolumeId) -> bool {
        let mut assembled = self.assembled.iter();
        assembled.any(|volume| volume.parts.contains(&id))
    }

    /// What people call a volume.
    pub(crate) fn name(self, id: VolumeId) -> String {
        let mut assembled = self.assembled.iter();
        assembled
            .find(|volume| volume.id == id)
            .map_or_else(|| id.to_string(), |volume| volume.name.clone())
    }

    /// The disks that a volume is on, ascending. Volumes have a few layers at most; those that are
    /// made of themselves are not followed.
    pub(crate) fn disks_of(self, id: VolumeId) -> Vec<DiskIndex> {
        let mut pending = vec![id];
        let mut seen = Vec::new();
        while let Some(next) = pending.pop() {
            if !seen.contains(&next) {
                seen.push(next);
                let made_of = self.assembled.iter().filter(|volume| volume.id == next);
                pending.extend(made_of.flat_map(|volume| &volume.parts));
            }
        }
        let mut disks: Vec<DiskIndex> = seen.into_iter().filter_map(VolumeId::disk).collect();
        disks.sort_unstable();
        disks.dedup();
        disks
    }
}
