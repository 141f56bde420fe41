// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual machine for platforms that we do not run ourselves: which disk files each wants, and
//! the documents that define the machine there.
//!
//! ```text
//! Target ─► disk_files() ─► Export ─► export() ─► Exported { hardware, documents, findings }
//! ```
//!
//! | target | disks | documents | for |
//! |---|---|---|---|
//! | `qcow2`, `raw` | qcow2, raw | - | whoever knows what to do with them |
//! | `vmdk`, `vhd`, `vdi` | stream-optimised VMDK, dynamic VHD, VDI | - | VMware; Hyper-V generation 1, Azure, XCP-ng; VirtualBox |
//! | `ova` | stream-optimised VMDK | OVF, inside the OVA | VMware, VirtualBox |
//! | `vmx` | sparse VMDK | VMX | VMware Workstation and Player; ESXi by `vmkfstools` |
//! | `vhdx` | VHDX | a PowerShell script | Hyper-V |
//! | `libvirt`, `proxmox`, `kubevirt` | qcow2 | domain XML, configuration, VirtualMachine | KVM |
//! | `xen` | raw | xl configuration | Xen, fully virtualised |
//!
//! A machine that is given its kernel from outside has the kernel's files beside its disks, for the few
//! targets that have a place for them.
//!
//! Everything here is a pure function: no file is read or written. A guest gets a disk controller
//! that the kernel which starts has a driver for when it looks for its root; where there is none on
//! that platform, an error among the findings says so. Values that come out of a guest (names of
//! cards, MAC addresses, serial numbers) are hostile and are checked or escaped for each document.

mod guest;
mod hardware;
mod hyperv;
mod kernel;
mod kubevirt;
mod libvirt;
mod network;
mod ovf;
mod proxmox;
mod system;
#[cfg(test)]
mod tests;
mod text;
mod vmx;
mod xen;
mod xml;

use disk::{Finding, SectorSize};
use image_library::DiskIndex;
use serde::Serialize;

use crate::vm::VmDefinition;

pub use guest::GuestFacts;
pub use hardware::{Card, Controller, Hardware};
pub use kernel::{KernelFile, kernel_files};
pub use network::Networks;
pub use ovf::{OvfFile, manifest as ovf_manifest};

/// What an image can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Disks as qcow2 images.
    Qcow2,
    /// Disks as raw files.
    Raw,
    /// Disks as VMDK files to be imported.
    Vmdk,
    /// One file with everything, for VMware and VirtualBox.
    Ova,
    /// A machine of VMware Workstation or Player.
    Vmx,
    /// A machine of Hyper-V.
    Vhdx,
    /// Disks as VHD files.
    Vhd,
    /// Disks as VDI files.
    Vdi,
    /// A domain of libvirt.
    Libvirt,
    /// A machine of Proxmox VE.
    Proxmox,
    /// A VirtualMachine of KubeVirt.
    Kubevirt,
    /// A domain of Xen.
    Xen,
}

/// The format of a disk file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's, compressed, to be read from its beginning to its end.
    VmdkStreamOptimized,
    /// VMware's, growing as it is written to.
    VmdkSparse,
    /// Hyper-V's.
    Vhdx,
    /// Virtual PC's.
    Vhd,
    /// VirtualBox's.
    Vdi,
}

/// The hypervisors that differ in the hardware that they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// QEMU and KVM under libvirt.
    Libvirt,
    /// QEMU and KVM under Proxmox VE.
    Proxmox,
    /// QEMU and KVM under KubeVirt.
    Kubevirt,
    /// Xen, fully virtualised.
    Xen,
    /// VMware.
    Vmware,
    /// What VMware and VirtualBox both have.
    VmwareOrVirtualBox,
    /// Hyper-V.
    HyperV,
    /// VirtualBox.
    VirtualBox,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Qcow2,
        Self::Raw,
        Self::Vmdk,
        Self::Ova,
        Self::Vmx,
        Self::Vhdx,
        Self::Vhd,
        Self::Vdi,
        Self::Libvirt,
        Self::Proxmox,
        Self::Kubevirt,
        Self::Xen,
    ];

    /// What a command line calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Ova => "ova",
            Self::Vmx => "vmx",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
            Self::Vdi => "vdi",
            Self::Libvirt => "libvirt",
            Self::Proxmox => "proxmox",
            Self::Kubevirt => "kubevirt",
            Self::Xen => "xen",
        }
    }

    /// The format of its disks.
    #[must_use]
    pub const fn disk_format(self) -> DiskFormat {
        match self {
            Self::Qcow2 | Self::Libvirt | Self::Proxmox | Self::Kubevirt => DiskFormat::Qcow2,
            Self::Raw | Self::Xen => DiskFormat::Raw,
            Self::Vmdk | Self::Ova => DiskFormat::VmdkStreamOptimized,
            Self::Vmx => DiskFormat::VmdkSparse,
            Self::Vhdx => DiskFormat::Vhdx,
            Self::Vhd => DiskFormat::Vhd,
            Self::Vdi => DiskFormat::Vdi,
        }
    }

    /// Whose hardware the guest must know; `None` where the files are for no one in particular.
    #[must_use]
    pub const fn platform(self) -> Option<Platform> {
        match self {
            Self::Qcow2 | Self::Raw => None,
            Self::Vmdk | Self::Vmx => Some(Platform::Vmware),
            Self::Ova => Some(Platform::VmwareOrVirtualBox),
            Self::Vhdx | Self::Vhd => Some(Platform::HyperV),
            Self::Vdi => Some(Platform::VirtualBox),
            Self::Libvirt => Some(Platform::Libvirt),
            Self::Proxmox => Some(Platform::Proxmox),
            Self::Kubevirt => Some(Platform::Kubevirt),
            Self::Xen => Some(Platform::Xen),
        }
    }

    /// How the name of the document that defines the machine ends, where there is one.
    #[must_use]
    pub const fn document_ending(self) -> Option<&'static str> {
        match self {
            Self::Qcow2 | Self::Raw | Self::Vmdk | Self::Vhd | Self::Vdi => None,
            Self::Ova => Some("ovf"),
            Self::Vmx => Some("vmx"),
            Self::Vhdx => Some("ps1"),
            Self::Libvirt => Some("xml"),
            Self::Proxmox => Some("conf"),
            Self::Kubevirt => Some("yaml"),
            Self::Xen => Some("cfg"),
        }
    }
}

impl DiskFormat {
    /// How names of such files end.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::VmdkStreamOptimized | Self::VmdkSparse => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
            Self::Vdi => "vdi",
        }
    }

    /// The largest disk that fits, in bytes; `None`: larger than any that there is.
    ///
    /// VHD: its block allocation table and footer end at 2040 GiB. VHDX: the specification's limit.
    #[must_use]
    pub const fn size_bytes_max(self) -> Option<u64> {
        match self {
            Self::Vhd => Some(2040 << 30),
            Self::Vhdx => Some(64 << 40),
            Self::VmdkStreamOptimized | Self::VmdkSparse => Some(62 << 40),
            Self::Raw | Self::Qcow2 | Self::Vdi => None,
        }
    }
}

/// One disk of the machine and the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskFile {
    /// Which disk of the image.
    pub index: DiskIndex,
    /// The name of the file.
    pub name: String,
    /// Its format.
    pub format: DiskFormat,
    /// The disk's size in bytes.
    pub size_bytes: u64,
    /// Its logical sector size.
    pub sector_size: SectorSize,
    /// The serial number that the guest knows it by, where known.
    pub serial: Option<String>,
}

/// The files of a machine's disks for a target, the one that is started from first.
#[must_use]
pub fn disk_files(target: Target, vm: &VmDefinition, guest: &GuestFacts) -> Vec<DiskFile> {
    let format = target.disk_format();
    vm.disks
        .iter()
        .map(|disk| DiskFile {
            index: disk.index,
            // An OVA is taken apart in directories that hold other machines as well.
            name: match target {
                Target::Ova => format!("{}-disk{}.{}", vm.name, disk.index, format.ending()),
                _ => format!("disk{}.{}", disk.index, format.ending()),
            },
            format,
            size_bytes: disk.size_bytes,
            sector_size: disk.sector_size,
            serial: guest.serial(disk.index).and_then(text::serial),
        })
        .collect()
}

/// A machine to be written down.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// The machine.
    pub vm: &'a VmDefinition,
    /// What the guest has drivers for.
    pub guest: &'a GuestFacts,
    /// Its disks, the first to start from: [`disk_files`].
    pub disks: &'a [DiskFile],
    /// Which networks its cards are on.
    pub networks: &'a Networks,
    /// The directory in which the platform finds the disk files: an absolute path.
    pub directory: &'a str,
}

/// A text that defines the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// The name of its file.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// A machine as a platform wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The hardware that was chosen; `None` for disks without a platform.
    pub hardware: Option<Hardware>,
    /// The document that defines it. That of an OVA has no sizes of files yet: [`ovf()`].
    pub document: Option<Document>,
    /// What does not fit.
    pub findings: Vec<Finding>,
}

/// Chooses hardware that the guest can use, and writes the machine down.
#[must_use]
pub fn export(target: Target, export: &Export<'_>) -> Exported {
    let mut findings: Vec<Finding> = kernel::check(target, export.vm).into_iter().collect();
    let Some(platform) = target.platform() else {
        return Exported {
            hardware: None,
            document: None,
            findings,
        };
    };
    let hardware = hardware::choose(target, platform, export, &mut findings);
    network::check(platform, export, &mut findings);
    system::check(target, export, &mut findings);
    let text = match target {
        Target::Qcow2 | Target::Raw | Target::Vmdk | Target::Vhd | Target::Vdi => None,
        Target::Ova => Some(ovf::descriptor(export, &hardware, &[])),
        Target::Vmx => Some(vmx::configuration(export, &hardware)),
        Target::Vhdx => Some(hyperv::script(export, &hardware)),
        Target::Libvirt => Some(libvirt::domain_xml(export, &hardware)),
        Target::Proxmox => Some(proxmox::configuration(export, &hardware)),
        Target::Kubevirt => Some(kubevirt::yaml(export, &hardware)),
        Target::Xen => Some(xen::xl_cfg(export, &hardware)),
    };
    let name = |ending| format!("{}.{ending}", export.vm.name);
    Exported {
        hardware: Some(hardware),
        document: target
            .document_ending()
            .zip(text)
            .map(|(ending, text)| Document {
                name: name(ending),
                text,
            }),
        findings,
    }
}

/// The OVF descriptor of an OVA whose disk files are written.
#[must_use]
pub fn ovf(export: &Export<'_>, hardware: &Hardware, files: &[OvfFile]) -> String {
    ovf::descriptor(export, hardware, files)
}
