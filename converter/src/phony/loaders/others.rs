// SPDX-License-Identifier: MIT OR Apache-2.0
//! systemd-boot: Arch with entries in files, Fedora with a unified kernel image.

use disk::filesystem::Filesystem;

use super::{ESP, base, kernel, root, swap};
use crate::guest::compression::Compression;
use crate::guest::uki;
use crate::phony::{PhonyGuest, PhonyKernel, VIRTIO, esp, gpt, mbr};

/// Arch: the EFI system partition is `/boot`; the loader was never put onto the removable path.
pub(crate) fn arch() -> PhonyGuest {
    let guest = gpt([esp(ESP).at("/boot"), root(), swap()]);
    guest.file("/boot/loader/random-seed", vec![7; 32]);
    for (name, version) in [("arch", "linux"), ("arch-lts", "linux-lts")] {
        let entry = "
== /boot/loader/entries/{NAME}.conf
title   Arch Linux
linux   /vmlinuz-{VERSION}
initrd  /intel-ucode.img
initrd  /initramfs-{VERSION}.img
options root=/dev/nvme0n1p2 rw
options resume=/dev/nvme0n1p3
";
        guest.tree(entry, &[("NAME", name), ("VERSION", version)]);
        kernel(&guest, version, "initramfs-{}.img");
    }
    let files = r#"
== /etc/os-release
ID="arch"
VERSION_ID="rolling"
PRETTY_NAME="arch rolling"
== /etc/fstab
/dev/nvme0n1p2 / ext4 rw 0 1
UUID={ESP} /boot vfat rw 0 2
== /boot/EFI/systemd/systemd-bootx64.efi systemd-boot
== /boot/loader/loader.conf
default arch-lts*
timeout 3
"#;
    base(guest, files)
}

/// Fedora with a unified image, whose EFI system partition systemd mounts by itself.
fn fedora(command_line: &str, inside: &[&str]) -> PhonyGuest {
    let version = "6.11.4-301.fc41.x86_64";
    let made = mbr([root()]);
    let kernel = PhonyKernel {
        version,
        builtin: if inside.is_empty() { VIRTIO } else { &[] },
        inside,
        compression: Compression::Zstd,
        ..PhonyKernel::default()
    };
    kernel.install(&made);
    let made = made.partition(1);
    let initramfs = made.read(&format!("/boot/initrd.img-{version}"), u64::MAX);
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
    // systemd mounts the EFI system partition where nothing says so.
    let guest = gpt([esp(ESP).at("/efi"), root(), swap()]);
    guest.file(&format!("/efi/EFI/Linux/fedora-{version}.efi"), image);
    for (path, node) in made.entries() {
        if path.starts_with("/lib") {
            guest.put(&path, node);
        }
    }
    let files = r#"
== /etc/os-release
ID="fedora"
VERSION_ID="41"
PRETTY_NAME="fedora 41"
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
== /efi/EFI/BOOT/BOOTX64.EFI systemd-boot
== /efi/EFI/systemd/systemd-bootx64.efi systemd-boot
"#;
    base(guest, files)
}

/// One in which nothing must change.
pub(crate) fn fedora_uki() -> PhonyGuest {
    fedora("console=tty0 console=ttyS0\0", &[])
}

/// One that names its root by device and has no driver of a virtual disk inside.
pub(crate) fn fedora_uki_by_device() -> PhonyGuest {
    fedora("root=/dev/sda2 ro quiet", &["e1000e"])
}
