// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole servers as they stand in racks: each combines a distribution, a boot loader, an initramfs and
//! storage as found together, with names of the hardware wherever such a server has them.
//!
//! Facts: the configuration that installers and administrators of these systems write, as the manuals
//! of the distributions show it. The texts are our own.

pub(super) mod debian;
pub(super) mod disorder;
pub(super) mod others;
pub(super) mod red_hat;
pub(super) mod refused;
pub(super) mod storage;
pub(super) mod suse;
pub(super) mod ubuntu;

use disk::filesystem::FilesystemKind;

use super::servers::ELF;
use super::{PhonyGuest, PhonyVolume, volume};

const BOOT: &str = "b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c01";
const ROOT: &str = "b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c02";
const SWAP: &str = "b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c03";
const DATA: &str = "b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c04";
const MEMBER: &str = "q8Jx2b-Vd0c-0001";
const ESP: &str = "7C11-20AF";
const MACHINE_ID: &str = "5be0c1d2a3f44f6e8b7a9c0d1e2f3a4b";

/// What texts call them.
const WORDS: [(&str, &str); 5] = [
    ("BOOT", BOOT),
    ("ROOT", ROOT),
    ("SWAP", SWAP),
    ("ESP", ESP),
    ("MACHINE_ID", MACHINE_ID),
];

fn esp() -> PhonyVolume {
    super::esp(ESP).at("/boot/efi")
}

fn boot() -> PhonyVolume {
    volume(FilesystemKind::Ext4, BOOT).at("/boot")
}

fn root(kind: FilesystemKind) -> PhonyVolume {
    volume(kind, ROOT).at("/")
}

fn swap() -> PhonyVolume {
    volume(FilesystemKind::Swap, SWAP)
}

/// A part of something larger: LVM, md.
fn member(kind: FilesystemKind) -> PhonyVolume {
    volume(kind, MEMBER)
}

/// Numbers of processors in ELF programs.
const X86_64: u8 = 62;
const I386: u8 = 3;
const AARCH64: u8 = 183;

/// A guest with programs for a processor, what tells of its udev, and its own files.
fn system(guest: PhonyGuest, machine: u8, udev: &str, files: &str) -> PhonyGuest {
    let mut program = ELF.to_vec();
    program[18] = machine;
    guest.file("/bin/sh", program.clone());
    guest.file("/sbin/init", program);
    guest.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    guest.tree(udev, &[]);
    guest.tree(files, &WORDS);
    guest
}

/// What dracut with systemd puts into every initramfs.
const DRACUT: &str = "
== lib -> usr/lib
== init -> usr/lib/systemd/systemd
== usr/lib/systemd/systemd elf
";

/// Where kernel-install puts kernels.
const LINUX: &str = "5be0c1d2a3f44f6e8b7a9c0d1e2f3a4b/{}/linux";
