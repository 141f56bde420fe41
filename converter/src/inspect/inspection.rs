// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was found in a guest: values only, so that a plan can be made from them without reading
//! the disks again, and so that they can be stored, compared and shown.
//!
//! Text files that a plan may change are kept whole, because the plan shows what it changes.

use std::fmt;

use disk::filesystem::FilesystemKind;
use disk::{Finding, SectorSize};
use image_library::DiskIndex;
use image_library::machine::MachineDescription;
use serde::{Deserialize, Serialize};

use crate::guest::compression::Compression;
use crate::guest::initramfs::Generator;
use crate::guest::network::NetworkConfiguration;
use crate::vm::Firmware;

/// A place on the disks that can hold a filesystem: a partition, or a whole disk without table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeId {
    /// The disk.
    pub disk: DiskIndex,
    /// The partition's number, `None` for the whole disk.
    pub partition: Option<u32>,
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            Some(number) => write!(f, "disk {} partition {number}", self.disk),
            None => write!(f, "disk {}", self.disk),
        }
    }
}

/// The kind of a disk's partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Master boot record.
    Mbr,
    /// GUID partition table.
    Gpt,
    /// No table: the whole disk is one volume, or nothing known.
    None,
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
            Self::None => "no partition table",
        })
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Its place among the server's disks.
    pub index: DiskIndex,
    /// Its name on the server, where known.
    pub name: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size.
    pub sector_size: SectorSize,
    /// Its partition table.
    pub table: TableKind,
    /// Whether the first sector holds boot code.
    pub boot_code: bool,
    /// Its volumes: the partitions, or the disk itself.
    pub volumes: Vec<VolumeFacts>,
}

/// What a partition is for, as its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionPurpose {
    /// An EFI system partition.
    EfiSystem,
    /// Where GRUB keeps its core on GPT disks started by a BIOS.
    BiosBoot,
    /// Anything else.
    Other,
}

/// A partition, or a disk without table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFacts {
    /// Which.
    pub id: VolumeId,
    /// First byte on its disk.
    pub start_bytes: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What it is for.
    pub purpose: PartitionPurpose,
    /// `PARTUUID` as `blkid` prints it.
    pub partition_uuid: Option<String>,
    /// `PARTLABEL`, on GPT.
    pub partition_label: Option<String>,
    /// What it holds, `None` when that is not known.
    pub content: Option<VolumeContent>,
}

/// What a superblock says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeContent {
    /// Which filesystem, or container.
    pub kind: FilesystemKind,
    /// The UUID as `blkid` prints it.
    pub uuid: Option<String>,
    /// The label.
    pub label: Option<String>,
    /// Bytes free for files, where that was asked.
    pub free_bytes: Option<u64>,
    /// Whether a journal must be replayed before it can be written.
    pub journal_dirty: bool,
}

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

/// Where a kernel has a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverPlace {
    /// Built into the kernel.
    BuiltIn,
    /// A module that is inside the initramfs.
    InInitramfs,
    /// A module of the root filesystem only.
    Module,
    /// Nowhere.
    Absent,
}

/// A driver of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverFacts {
    /// The module's name (`virtio_blk`).
    pub name: String,
    /// Where it is.
    pub place: DriverPlace,
}

/// A module that a driver needs, itself included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleFacts {
    /// The module's name.
    pub name: String,
    /// Its path below `/lib/modules/<version>/`, as it is (`kernel/.../virtio_blk.ko.xz`).
    pub path: String,
    /// Where the file is.
    pub file: FilePlace,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// Whether it is inside the initramfs already.
    pub in_initramfs: bool,
}

/// A kernel with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The release (`6.1.0-28-amd64`).
    pub version: String,
    /// `/boot/vmlinuz-<version>`.
    pub image: FilePlace,
    /// `/lib/modules/<version>` as a place.
    pub modules: Option<FilePlace>,
    /// Its initramfs.
    pub initramfs: Option<InitramfsFacts>,
    /// The drivers that virtual hardware needs.
    pub drivers: Vec<DriverFacts>,
    /// What those drivers need that are modules, dependencies before dependants.
    pub closure: Vec<ModuleFacts>,
}

impl Kernel {
    /// Where it has a driver.
    #[must_use]
    pub fn driver(&self, name: &str) -> DriverPlace {
        self.drivers
            .iter()
            .find(|driver| driver.name == name)
            .map_or(DriverPlace::Absent, |driver| driver.place)
    }
}

/// An initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitramfsFacts {
    /// Where it is.
    pub file: FilePlace,
    /// Size in bytes.
    pub size_bytes: u64,
    /// BLAKE3 of the file, in hexadecimal.
    pub hash: String,
    /// How its last archive, the main one, is compressed.
    pub compression: Compression,
    /// What built it.
    pub generator: Generator,
    /// How many modules of its kernel are inside.
    pub module_count: usize,
    /// Small configuration files inside that a plan may override: path without leading slash,
    /// and content.
    pub files: Vec<InnerFile>,
}

impl InitramfsFacts {
    /// A configuration file inside, by its path without leading slash.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&InnerFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// A text file inside an initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerFile {
    /// Its path inside, without leading slash.
    pub path: String,
    /// Its content.
    pub text: String,
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
        })
    }
}

/// The boot loader and its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootloader {
    /// Which.
    pub kind: BootloaderKind,
    /// The file with the entries.
    pub configuration: TextFile,
}

/// What is on the EFI system partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EfiFacts {
    /// The volume.
    pub volume: VolumeId,
    /// Whether there is a loader that firmware finds without an entry in its NVRAM.
    pub removable_loader: bool,
    /// Loaders below `/EFI`, by path.
    pub loaders: Vec<String>,
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
    /// `/boot/grub/device.map`.
    pub device_map: Option<TextFile>,
    /// `/etc/initramfs-tools/modules`.
    pub initramfs_modules: Option<TextFile>,
    /// `/etc/initramfs-tools/conf.d/*`.
    pub initramfs_conf: Vec<TextFile>,
}

/// Everything that was found in a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The disks.
    pub disks: Vec<DiskFacts>,
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
    /// Text files that a plan may change.
    pub files: ConfigurationFiles,
    /// How the network is set up.
    pub network: NetworkConfiguration,
    /// Services of the guest that start by themselves.
    pub services: Vec<String>,
    /// The machine as its agent described it.
    pub machine: Option<MachineDescription>,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

impl Inspection {
    /// Every volume of every disk.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeFacts> {
        self.disks.iter().flat_map(|disk| &disk.volumes)
    }

    /// The facts of one volume.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<&VolumeFacts> {
        self.volumes().find(|volume| volume.id == id)
    }
}
