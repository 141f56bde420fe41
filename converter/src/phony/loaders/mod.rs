// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers with every boot loader, as distributions lay them out. Their kernels have virtio built in:
//! only how they start is of interest here.

mod debian;
mod others;
mod red_hat;
mod suse;

use disk::filesystem::{Filesystem, FilesystemKind};

use super::servers::ELF;
use super::{MemoryFilesystem, PhonyGuest, PhonyKernel, PhonyVolume, link, volume};
use crate::guest::compression::Compression;
use crate::inspect::{PartitionPurpose, TableKind};

pub(crate) use debian::{alpine, debian_lilo, ubuntu_jammy};
pub(crate) use others::{arch, fedora_uki, fedora_uki_by_device};
pub(crate) use red_hat::{centos_6, centos_6_uefi, rhel_5, rhel_7, rhel_8, rhel_9, rhel_9_uefi};
pub(crate) use suse::{sles_11, sles_12, sles_15};

pub(crate) const ROOT: &str = "0f4a6b1c-5d2e-4c3f-8a9b-0c1d2e3f4a01";
pub(crate) const BOOT: &str = "0f4a6b1c-5d2e-4c3f-8a9b-0c1d2e3f4a02";
pub(crate) const SWAP: &str = "0f4a6b1c-5d2e-4c3f-8a9b-0c1d2e3f4a03";
const ESP: &str = "5A3C-91F0";

const BUILTIN: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "scsi_common",
    "scsi_mod",
    "sd_mod",
    "virtio_scsi",
];

/// `/boot`, root and swap on one disk with a master boot record.
fn bios() -> PhonyGuest {
    PhonyGuest::new(
        TableKind::Mbr,
        vec![
            volume(FilesystemKind::Ext4, BOOT),
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Swap, SWAP),
        ],
    )
}

/// EFI system partition, `/boot`, root and swap on one disk with a GUID partition table.
fn uefi() -> PhonyGuest {
    let esp = PhonyVolume {
        kind: FilesystemKind::Fat,
        uuid: ESP,
        purpose: PartitionPurpose::EfiSystem,
    };
    PhonyGuest::new(
        TableKind::Gpt,
        vec![
            esp,
            volume(FilesystemKind::Ext4, BOOT),
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Swap, SWAP),
        ],
    )
}

/// What every system has; `release` is `ID` and `VERSION_ID`, where it has an os-release.
fn base(root: &MemoryFilesystem, release: Option<(&str, &str)>, fstab: &str) {
    if let Some((id, version)) = release {
        let text =
            format!("ID=\"{id}\"\nVERSION_ID=\"{version}\"\nPRETTY_NAME=\"{id} {version}\"\n");
        root.file("/etc/os-release", text);
    }
    root.file("/bin/sh", ELF.to_vec());
    root.file("/sbin/init", ELF.to_vec());
    root.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    root.file("/etc/fstab", fstab);
}

/// Installs a kernel with its initramfs under that name.
pub(super) fn kernel(
    boot: &MemoryFilesystem,
    prefix: &str,
    root: &MemoryFilesystem,
    version: &str,
    initramfs: &str,
) {
    let kernel = PhonyKernel {
        version,
        usr: "",
        suffix: ".ko",
        builtin: BUILTIN,
        inside: &["ahci"],
        compression: Compression::Gzip,
        files: &[],
    };
    kernel.install(boot, prefix, root);
    let made = format!("{prefix}/initrd.img-{version}");
    let wanted = format!("{prefix}/{initramfs}");
    if made != wanted {
        let bytes = boot.read(&made, u64::MAX).expect("it was just made");
        boot.take(&made);
        boot.file(&wanted, bytes);
    }
}

/// GRUB's environment block with these records.
pub(super) fn grubenv(records: &str) -> String {
    let text = format!("# GRUB Environment Block\n{records}");
    format!("{text}{}", "#".repeat(1024 - text.len()))
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
