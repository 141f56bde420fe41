// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual machine, independent of the platform that runs it; a consequence of what the
//! guest can do.

mod direct_boot;

use std::fmt;

use disk::SectorSize;
use image_library::DiskIndex;
use serde::{Deserialize, Serialize};

pub use direct_boot::{DirectBoot, INITRAMFS_NAME, KERNEL_NAME, KernelFiles, check_command_line};

/// How the virtual machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI, without Secure Boot.
    Uefi,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
        })
    }
}

/// The virtual mainboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mainboard {
    /// i440FX, PCI.
    Pc,
    /// Q35, PCI Express.
    Q35,
}

impl fmt::Display for Mainboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pc => "PC board (i440FX)",
            Self::Q35 => "Q35 board",
        })
    }
}

/// What the disks hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskController {
    /// virtio-blk: `/dev/vda`.
    VirtioBlk,
    /// virtio-scsi: `/dev/sda`.
    VirtioScsi,
    /// AHCI: `/dev/sda`.
    Sata,
    /// IDE: `/dev/sda`, or `/dev/hda` on old kernels.
    Ide,
    /// LSI 53C895A.
    ScsiLsi,
}

impl fmt::Display for DiskController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VirtioBlk => "virtio-blk",
            Self::VirtioScsi => "virtio-scsi",
            Self::Sata => "SATA",
            Self::Ide => "IDE",
            Self::ScsiLsi => "LSI SCSI",
        })
    }
}

/// The model of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NicModel {
    /// virtio-net.
    Virtio,
    /// Intel 82574L.
    E1000e,
    /// Intel 82540EM.
    E1000,
    /// Realtek 8139.
    Rtl8139,
}

impl fmt::Display for NicModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Virtio => "virtio-net",
            Self::E1000e => "e1000e",
            Self::E1000 => "e1000",
            Self::Rtl8139 => "rtl8139",
        })
    }
}

/// The virtual hardware that a guest has drivers for: disks and network cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// What the disks hang on.
    pub disk: DiskController,
    /// The network cards.
    pub nic: NicModel,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmDefinition {
    /// A name safe for files and platforms: the server's.
    pub name: String,
    /// How it starts.
    pub firmware: Firmware,
    /// The mainboard.
    pub mainboard: Mainboard,
    /// Virtual processors, 1 or more.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The first profile to try, then the fallbacks, each known to have drivers in the guest.
    pub profiles: Vec<Profile>,
    /// Disks; the first one is booted from.
    pub disks: Vec<VmDisk>,
    /// Network cards, in the guest's order.
    pub nics: Vec<VmNic>,
    /// Whether the guest keeps its hardware clock in UTC (else local time).
    pub clock_utc: bool,
    /// The kernel that the machine is to be started with, where no boot loader on its disks can.
    #[serde(default)]
    pub direct_boot: Option<DirectBoot>,
}

/// A disk of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmDisk {
    /// Which disk of the image.
    pub index: DiskIndex,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size; the guest's partition table and filesystems count in it.
    pub sector_size: SectorSize,
}

/// A network card of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmNic {
    /// The interface's name in the guest (`enp3s0`).
    pub name: String,
    /// MAC address, lower case with colons.
    pub mac: String,
    /// Static addresses with prefix length that the guest gives it, for example
    /// `10.20.0.5/24`; empty where it asks DHCP.
    pub addresses: Vec<String>,
    /// The guest's default gateway through this card.
    pub gateway: Option<String>,
}
