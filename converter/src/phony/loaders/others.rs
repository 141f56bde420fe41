// SPDX-License-Identifier: MIT OR Apache-2.0
//! systemd-boot: Arch with entries in files, Fedora with a unified kernel image.

use disk::filesystem::{Filesystem, FilesystemKind};

use super::{BUILTIN, ESP, ROOT, SWAP, base, kernel, volume};
use crate::guest::compression::Compression;
use crate::guest::uki;
use crate::inspect::{PartitionPurpose, TableKind};
use crate::phony::{MemoryFilesystem, Node, PhonyGuest, PhonyKernel, PhonyVolume};

fn disk() -> PhonyGuest {
    let esp = PhonyVolume {
        kind: FilesystemKind::Fat,
        uuid: ESP,
        purpose: PartitionPurpose::EfiSystem,
    };
    PhonyGuest::new(
        TableKind::Gpt,
        vec![
            esp,
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Swap, SWAP),
        ],
    )
}

/// Arch: the EFI system partition is `/boot`; the loader was never put onto the removable path.
pub(crate) fn arch() -> PhonyGuest {
    let guest = disk();
    let (esp, root) = (guest.partition(1), guest.partition(2));
    base(
        root,
        Some(("arch", "rolling")),
        &format!("/dev/nvme0n1p2 / ext4 rw 0 1\nUUID={ESP} /boot vfat rw 0 2\n"),
    );
    root.put("/boot", Node::Directory);
    esp.file("/EFI/systemd/systemd-bootx64.efi", "systemd-boot");
    esp.file("/loader/loader.conf", "default arch-lts*\ntimeout 3\n");
    esp.file("/loader/random-seed", vec![7; 32]);
    for (name, version) in [("arch", "linux"), ("arch-lts", "linux-lts")] {
        esp.file(
            &format!("/loader/entries/{name}.conf"),
            format!(
                "title   Arch Linux\nlinux   /vmlinuz-{version}\ninitrd  /intel-ucode.img\n\
                 initrd  /initramfs-{version}.img\noptions root=/dev/nvme0n1p2 rw\n\
                 options resume=/dev/nvme0n1p3\n"
            ),
        );
        kernel(esp, "", root, version, &format!("initramfs-{version}.img"));
    }
    guest
}

/// Fedora with a unified image, whose EFI system partition systemd mounts by itself.
fn fedora(command_line: &str, inside: &[&str]) -> PhonyGuest {
    let guest = disk();
    let (esp, root) = (guest.partition(1), guest.partition(2));
    base(
        root,
        Some(("fedora", "41")),
        &format!("UUID={ROOT} / ext4 defaults 0 1\n"),
    );
    let version = "6.11.4-301.fc41.x86_64";
    let made = MemoryFilesystem::new(FilesystemKind::Ext4);
    let builtin = if inside.is_empty() { BUILTIN } else { &[] };
    PhonyKernel {
        version,
        usr: "/usr",
        suffix: ".ko",
        builtin,
        inside,
        compression: Compression::Zstd,
        files: &[],
    }
    .install(&made, "", &made);
    for (path, node) in made.entries() {
        if let (true, Node::File(content, _)) = (path.starts_with("/usr/"), node) {
            root.file(&path["/usr".len()..], content);
        }
    }
    let initramfs = made.read(&format!("/initrd.img-{version}"), u64::MAX);
    let image = uki::build(
        &[
            (
                ".osrel",
                b"ID=fedora\nVERSION_ID=41\nPRETTY_NAME=\"Fedora Linux 41\"\n",
            ),
            (".uname", version.as_bytes()),
            (".cmdline", command_line.as_bytes()),
            (".linux", b"kernel"),
            (".initrd", &initramfs.expect("it was just made")),
        ],
        true,
    );
    esp.file(&format!("/EFI/Linux/fedora-{version}.efi"), image);
    esp.file("/EFI/BOOT/BOOTX64.EFI", "systemd-boot");
    esp.file("/EFI/systemd/systemd-bootx64.efi", "systemd-boot");
    guest
}

/// One in which nothing must change.
pub(crate) fn fedora_uki() -> PhonyGuest {
    fedora("console=tty0 console=ttyS0\0", &[])
}

/// One that names its root by device and has no driver of a virtual disk inside.
pub(crate) fn fedora_uki_by_device() -> PhonyGuest {
    fedora("root=/dev/sda2 ro quiet", &["e1000e"])
}
