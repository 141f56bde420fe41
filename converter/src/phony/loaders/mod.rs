// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers with every boot loader, as distributions lay them out. Their kernels have virtio built in:
//! only how they start is of interest here.

mod debian;
mod others;
mod red_hat;
mod suse;

use disk::filesystem::FilesystemKind;

use super::servers::ELF;
use super::{PhonyGuest, PhonyKernel, PhonyVolume, VIRTIO, esp, gpt, mbr, volume};

pub(crate) use debian::{alpine, debian_lilo, ubuntu_jammy};
pub(crate) use others::{arch, fedora_uki, fedora_uki_by_device};
pub(crate) use red_hat::{centos_6, centos_6_uefi, rhel_5, rhel_7, rhel_8, rhel_9, rhel_9_uefi};
pub(crate) use suse::{sles_11, sles_12, sles_15};

pub(crate) const ROOT: &str = "0f4a6b1c-5d2e-4c3f-8a9b-0c1d2e3f4a01";
pub(crate) const BOOT: &str = "0f4a6b1c-5d2e-4c3f-8a9b-0c1d2e3f4a02";
pub(crate) const SWAP: &str = "0f4a6b1c-5d2e-4c3f-8a9b-0c1d2e3f4a03";
const ESP: &str = "5A3C-91F0";
const MACHINE_ID: &str = "3d1f5c7e9b2a4f6081d3e5c7a9b0f2e4";

/// What texts call them.
const WORDS: [(&str, &str); 5] = [
    ("BOOT", BOOT),
    ("ROOT", ROOT),
    ("SWAP", SWAP),
    ("ESP", ESP),
    ("MACHINE_ID", MACHINE_ID),
];

fn boot() -> PhonyVolume {
    volume(FilesystemKind::Ext4, BOOT).at("/boot")
}

fn root() -> PhonyVolume {
    volume(FilesystemKind::Ext4, ROOT).at("/")
}

fn swap() -> PhonyVolume {
    volume(FilesystemKind::Swap, SWAP)
}

/// `/boot`, root and swap on one disk with a master boot record.
fn bios() -> PhonyGuest {
    mbr([boot(), root(), swap()])
}

/// EFI system partition, `/boot`, root and swap on one disk with a GUID partition table.
fn uefi() -> PhonyGuest {
    gpt([esp(ESP).at("/boot/efi"), boot(), root(), swap()])
}

/// A guest with what every system has, and its own files.
fn base(guest: PhonyGuest, files: &str) -> PhonyGuest {
    guest.file("/bin/sh", ELF.to_vec());
    guest.file("/sbin/init", ELF.to_vec());
    guest.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    guest.tree(files, &WORDS);
    guest
}

/// Installs a kernel, whose initramfs has that name.
pub(super) fn kernel(guest: &PhonyGuest, version: &str, initramfs: &str) {
    let kernel = PhonyKernel {
        version,
        builtin: VIRTIO,
        inside: &["ahci"],
        initramfs,
        ..PhonyKernel::default()
    };
    kernel.install(guest);
}

/// GRUB's environment block with these records.
pub(super) fn grubenv(records: &str) -> String {
    let text = format!("# GRUB Environment Block\n{records}");
    format!("{text}{}", "#".repeat(1024 - text.len()))
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
