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

/// EFI system partition and root.
fn esp_and_root() -> PhonyGuest {
    PhonyGuest::new(
        TableKind::Gpt,
        vec![esp(), volume(FilesystemKind::Ext4, ROOT)],
    )
}

/// A configuration of GRUB 2 with one entry: a kernel with its arguments, and its initramfs.
fn grub_entry(boot: &MemoryFilesystem, path: &str, title: &str, linux: &str, initrd: &str) {
    let text = format!("menuentry '{title}' {{\n\tlinux {linux}\n\tinitrd {initrd}\n}}\n");
    boot.file(path, text);
}

/// systemd-boot with an entry as kernel-install makes them.
fn systemd_boot(esp: &MemoryFilesystem, entry: &str, options: &str, files: [&str; 2]) {
    put(
        esp,
        &[
            ("/EFI/systemd/systemd-bootx64.efi", "systemd-boot"),
            ("/loader/loader.conf", "timeout 3\n"),
        ],
    );
    let [linux, initrd] = files;
    esp.file(
        &format!("/loader/entries/{entry}.conf"),
        format!(
            "title Linux\nmachine-id {MACHINE_ID}\noptions {options}\n\
             linux /{MACHINE_ID}/{linux}\ninitrd /{MACHINE_ID}/{initrd}\n"
        ),
    );
}

/// Where firmware without an entry for a loader looks for one.
const REMOVABLE: (&str, &str) = ("/EFI/BOOT/BOOTX64.EFI", "systemd-boot");

/// What dracut with systemd puts into an initramfs for a server whose disks have this driver.
fn dracut<'a>(driver: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut files = vec![
        ("lib", "-> usr/lib"),
        ("init", "-> usr/lib/systemd/systemd"),
        ("usr/lib/systemd/systemd", "elf"),
        ("usr/lib/dracut/hostonly-kernel-modules.txt", driver),
    ];
    files.extend(more);
    files
}
