// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole servers as they stand in racks: each combines a distribution, a boot loader, an initramfs and
//! storage as found together, with names of the hardware wherever such a server has them.
//!
//! Facts: the configuration that installers and administrators of these systems write, as the manuals
//! of the distributions show it. The texts are our own.

pub(super) mod debian;
pub(super) mod others;
pub(super) mod red_hat;
pub(super) mod refused;
pub(super) mod suse;
pub(super) mod ubuntu;

use disk::filesystem::FilesystemKind;

use super::servers::ELF;
use super::{MemoryFilesystem, PhonyGuest, PhonyVolume, volume};
use crate::inspect::{PartitionPurpose, TableKind};

const BOOT: &str = "b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c01";
const ROOT: &str = "b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c02";
const SWAP: &str = "b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c03";
const DATA: &str = "b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c04";
const MEMBER: &str = "q8Jx2b-Vd0c-0001";
const ESP: &str = "7C11-20AF";
const MACHINE_ID: &str = "5be0c1d2a3f44f6e8b7a9c0d1e2f3a4b";

/// Numbers of processors in ELF programs.
const X86_64: u8 = 62;
const I386: u8 = 3;
const AARCH64: u8 = 183;

/// What tells that systemd is there, with an udev that reads `.link` files.
const SYSTEMD: (&str, &str) = ("/usr/lib/systemd/systemd", "");
const LINKS: (&str, &str) = ("/usr/lib/udev/rules.d/80-net-setup-link.rules", "");
/// What tells that udev writes rules for cards by itself.
const GENERATOR: (&str, &str) = ("/lib/udev/rules.d/75-persistent-net-generator.rules", "");

/// Programs for a processor, and these files.
fn install(root: &MemoryFilesystem, machine: u8, files: &[(&str, &str)]) {
    let mut program = ELF.to_vec();
    program[18] = machine;
    root.file("/bin/sh", program.clone());
    root.file("/sbin/init", program);
    root.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    put(root, files);
}

fn put(filesystem: &MemoryFilesystem, files: &[(&str, &str)]) {
    for (path, text) in files {
        filesystem.file(path, *text);
    }
}

fn esp() -> PhonyVolume {
    PhonyVolume {
        kind: FilesystemKind::Fat,
        uuid: ESP,
        purpose: PartitionPurpose::EfiSystem,
    }
}

/// `/boot` and one more partition, on a disk with a master boot record.
fn bios_with(kind: FilesystemKind, uuid: &'static str) -> PhonyGuest {
    PhonyGuest::new(
        TableKind::Mbr,
        vec![volume(FilesystemKind::Ext4, BOOT), volume(kind, uuid)],
    )
}

/// Root and swap on a disk with a master boot record.
fn plain(kind: FilesystemKind) -> PhonyGuest {
    PhonyGuest::new(
        TableKind::Mbr,
        vec![volume(kind, ROOT), volume(FilesystemKind::Swap, SWAP)],
    )
}

/// EFI system partition, `/boot`, and one more partition.
fn uefi_with(kind: FilesystemKind, uuid: &'static str) -> PhonyGuest {
    PhonyGuest::new(
        TableKind::Gpt,
        vec![
            esp(),
            volume(FilesystemKind::Ext4, BOOT),
            volume(kind, uuid),
        ],
    )
}
