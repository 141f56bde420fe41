// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine description: what conversion and sizing need to know about a physical server.
//!
//! Sizes are bytes, rates per second. Everything that a server may not tell is an `Option` or an
//! empty list. Unknown fields of a later version are ignored when read.

use serde::{Deserialize, Serialize};

/// How the machine starts its operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// A physical server as its agent found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineDescription {
    /// The host name.
    pub hostname: String,
    /// `/etc/machine-id`, where there is one.
    pub machine_id: Option<String>,
    /// Vendor and model of the hardware (DMI).
    pub hardware: Option<String>,
    /// How it starts.
    pub firmware: Firmware,
    /// Whether Secure Boot is on; `None` where firmware cannot tell.
    pub secure_boot: Option<bool>,
    /// TPM version (`"2.0"`), when it has one.
    pub tpm: Option<String>,
    /// Processors.
    pub cpu: Cpu,
    /// Main memory in bytes.
    pub memory_bytes: u64,
    /// Disks, in the order of their names.
    pub disks: Vec<Disk>,
    /// Network interfaces with hardware behind them, and bonds, bridges and VLANs over them.
    pub interfaces: Vec<Interface>,
    /// Routes of the main table.
    pub routes: Vec<Route>,
    /// Mounted filesystems with a device behind them.
    pub mounts: Vec<Mount>,
    /// Swap devices and files.
    pub swaps: Vec<String>,
    /// The operating system.
    pub os: OperatingSystem,
    /// Services that start by themselves.
    pub enabled_services: Vec<String>,
    /// Load while the inventory was taken.
    pub load: Option<Load>,
}

/// Processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Model name.
    pub model: String,
    /// `x86_64`.
    pub architecture: String,
    /// Sockets.
    pub sockets: u32,
    /// Cores over all sockets.
    pub cores: u32,
    /// Hardware threads over all cores.
    pub threads: u32,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Kernel name (`sda`, `nvme0n1`).
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size in bytes.
    pub sector_size_bytes: u32,
    /// Physical sector size in bytes.
    pub physical_sector_size_bytes: u32,
    /// Model, serial number, World Wide Name.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World Wide Name.
    pub wwn: Option<String>,
    /// `sata`, `scsi`, `nvme`, `virtio`, `usb`, `mmc`, or the driver's name.
    pub bus: Option<String>,
    /// Whether it spins.
    pub rotational: bool,
    /// Names under `/dev/disk/by-*` that point to it or to its partitions: link, kernel name.
    pub links: Vec<(String, String)>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// Block devices stacked on it or on its partitions (LVM, md, LUKS), by kernel name.
    pub holders: Vec<String>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Kernel name (`sda1`).
    pub name: String,
    /// Its number in the table.
    pub number: u32,
    /// First byte.
    pub start_bytes: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Filesystem type, UUID and label as the superblock says, where known.
    pub filesystem: Option<String>,
    /// UUID of the filesystem.
    pub uuid: Option<String>,
    /// Label of the filesystem.
    pub label: Option<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Kernel name (`enp3s0`).
    pub name: String,
    /// `ethernet`, `bond`, `bridge`, `vlan`, `team` or what the kernel calls it.
    pub kind: String,
    /// The permanent MAC address, lower case with colons.
    pub mac: Option<String>,
    /// Kernel driver.
    pub driver: Option<String>,
    /// Place on the bus (`0000:03:00.0`).
    pub bus_address: Option<String>,
    /// Whether it has a link.
    pub up: bool,
    /// Speed in Mbit/s.
    pub speed_mbps: Option<u32>,
    /// Addresses with prefix length (`10.20.0.5/24`).
    pub addresses: Vec<String>,
    /// The bond or bridge it belongs to.
    pub parent: Option<String>,
    /// The interfaces below a bond, bridge or VLAN.
    pub members: Vec<String>,
    /// VLAN number.
    pub vlan: Option<u16>,
    /// Maximum transmission unit in bytes.
    pub mtu: Option<u32>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// `default` or a network with prefix length.
    pub destination: String,
    /// Next hop.
    pub gateway: Option<String>,
    /// Through which interface.
    pub interface: String,
}

/// A mounted filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Device node.
    pub source: String,
    /// Where.
    pub target: String,
    /// Filesystem type.
    pub filesystem: String,
    /// Mount options.
    pub options: String,
    /// Size in bytes.
    pub size_bytes: Option<u64>,
    /// Bytes in use.
    pub used_bytes: Option<u64>,
}

/// The operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatingSystem {
    /// `ID` of os-release (`debian`).
    pub id: String,
    /// `VERSION_ID` of os-release.
    pub version: Option<String>,
    /// `PRETTY_NAME` of os-release.
    pub name: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Releases of all installed kernels.
    pub kernels: Vec<String>,
    /// `initramfs-tools`, `dracut`, `mkinitcpio`, `mkinitrd`.
    pub initramfs_generator: Option<String>,
    /// `grub2`, `grub-legacy`, `systemd-boot`, `lilo`, `extlinux`.
    pub bootloader: Option<String>,
    /// The command line of the running kernel.
    pub kernel_command_line: String,
}

/// Load over a short time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Over how long it was measured, in milliseconds.
    pub interval_ms: u64,
    /// Busy share of all processors, in tenths of a per cent.
    pub cpu_permille: u32,
    /// Memory in use, caches not counted.
    pub memory_used_bytes: u64,
    /// Read from disks, bytes per second.
    pub disk_read_bytes_per_second: u64,
    /// Written to disks, bytes per second.
    pub disk_write_bytes_per_second: u64,
    /// Received, bytes per second.
    pub network_receive_bytes_per_second: u64,
    /// Sent, bytes per second.
    pub network_send_bytes_per_second: u64,
}
