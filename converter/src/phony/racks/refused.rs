// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that are not converted, each for a reason with its code.

use disk::filesystem::Filesystem;
use disk::filesystem::FilesystemKind::{Ext4, Luks, Lvm2Member, MdMember, Ntfs};

use super::{AARCH64, DATA, X86_64, boot, esp, member, root, swap, system};
use crate::phony::image::PhonyImage;
use crate::phony::loaders::kernel;
use crate::phony::{PhonyGuest, PhonyVolume, SYSTEMD, gpt, mbr, volume};

const VERSION: &str = "5.15.0-91-generic";
const INITRAMFS: &str = "/boot/initrd.img-5.15.0-91-generic";

/// Debian's layout with this kernel, everything by UUID.
fn with_kernel(machine: u8, image: &PhonyImage<'_>) -> PhonyGuest {
    let guest = mbr([root(Ext4), swap()]);
    image.put(&guest, "/boot");
    let files = r#"
== /boot/grub/grub.cfg
menuentry 'Linux' {
	linux /boot/vmlinuz-5.15.0-91-generic root=UUID={ROOT} ro
	initrd /boot/initrd.img-5.15.0-91-generic
}
== /etc/os-release
ID=debian
VERSION_ID="12"
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
"#;
    system(guest, machine, SYSTEMD, files)
}

/// A kernel of Debian whose initramfs lacks virtio and holds these files.
fn debian<'a>(files: &'a [&'a str]) -> PhonyImage<'a> {
    PhonyImage {
        version: VERSION,
        usr: "",
        inside: &["scsi_mod", "sd_mod"],
        files,
        ..PhonyImage::default()
    }
}

const INITRAMFS_TOOLS: &[&str] = &["
== init
#!/bin/sh
== conf/initramfs.conf
"];

/// RHEL 3, Linux 2.4: what the kernel starts with is an image of ext2.
pub(crate) fn rhel_3() -> PhonyGuest {
    let guest = with_kernel(X86_64, &debian(INITRAMFS_TOOLS));
    let mut image = vec![0; 4096];
    image[1080..1082].copy_from_slice(&[0x53, 0xef]);
    guest.file(INITRAMFS, image);
    guest
}

/// A server for another processor.
pub(crate) fn arm_server() -> PhonyGuest {
    with_kernel(AARCH64, &debian(INITRAMFS_TOOLS))
}

/// An initramfs with a signature beside it.
pub(crate) fn signed_initramfs() -> PhonyGuest {
    let guest = with_kernel(X86_64, &debian(INITRAMFS_TOOLS));
    guest.file(&format!("{INITRAMFS}.sig"), "signature");
    guest
}

/// Arch with an initramfs of booster, which loads what its own list names.
pub(crate) fn arch_with_booster() -> PhonyGuest {
    let files = "
== init elf
== etc/booster.init.yaml
modules: []
";
    with_kernel(X86_64, &debian(&[files]))
}

/// Gentoo with genkernel.
pub(crate) fn gentoo_with_genkernel() -> PhonyGuest {
    let files = "
== init
#!/bin/sh
== etc/initrd.defaults
";
    with_kernel(X86_64, &debian(&[files]))
}

/// RHEL 5 whose `/init` somebody wrote himself.
pub(crate) fn own_nash_script() -> PhonyGuest {
    let image = PhonyImage {
        files: &["
== bin/nash
== init
#!/bin/nash
exec /start-of-the-rescue-system
"],
        has_builtin_list: false,
        ..debian(&[])
    };
    with_kernel(X86_64, &image)
}

/// An initramfs that was cut off.
pub(crate) fn damaged_initramfs() -> PhonyGuest {
    let guest = with_kernel(X86_64, &debian(INITRAMFS_TOOLS));
    let whole = guest.partition(1).read(INITRAMFS, u64::MAX);
    let whole = whole.expect("it was just made");
    guest.file(INITRAMFS, &whole[..whole.len() / 2]);
    guest
}

/// A kernel whose modules were removed, as by an interrupted upgrade.
pub(crate) fn kernel_without_modules() -> PhonyGuest {
    let image = PhonyImage {
        modules: &[],
        inside: &[],
        ..debian(INITRAMFS_TOOLS)
    };
    let guest = with_kernel(X86_64, &image);
    for (path, _) in guest.partition(1).entries() {
        if path.starts_with("/lib/modules") {
            guest.take(&path);
        }
    }
    guest
}

/// A kernel that has drivers for no disk of a virtual machine: a storage appliance's own.
pub(crate) fn kernel_without_drivers() -> PhonyGuest {
    let image = PhonyImage {
        modules: &[("drivers/scsi/scsi_mod", &[], "")],
        inside: &["scsi_mod"],
        ..debian(INITRAMFS_TOOLS)
    };
    with_kernel(X86_64, &image)
}

/// `modules.dep` names files that are not there.
pub(crate) fn missing_module() -> PhonyGuest {
    let guest = with_kernel(X86_64, &debian(INITRAMFS_TOOLS));
    let directory = format!("/lib/modules/{VERSION}/kernel/drivers");
    guest.take(&format!("{directory}/block/virtio_blk.ko"));
    guest
}

/// A disk of Windows, or of a server that shares its data with it.
pub(crate) fn windows_disk() -> PhonyGuest {
    mbr([volume(Ntfs, "01D5A3B2C4E6F708")])
}

/// Ubuntu on ZFS: the only filesystem that is known is the one of its firmware.
pub(crate) fn ubuntu_on_zfs() -> PhonyGuest {
    let guest = gpt([esp()]);
    guest.file("/boot/efi/EFI/ubuntu/shimx64.efi", "shim");
    guest
}

/// Fedora CoreOS: its system is in deployments of ostree, not at the root of a filesystem.
pub(crate) fn fedora_coreos() -> PhonyGuest {
    let guest = mbr([boot(), root(Ext4)]);
    let files = "
== /ostree/deploy/fedora-coreos/deploy/0a1b.0/etc/os-release
ID=fedora
VARIANT_ID=coreos
== /boot/loader/entries/ostree-1.conf
options ostree=/ostree/boot.1/x
";
    guest.tree(files, &[]);
    guest
}

/// The root is encrypted, nothing opens it.
pub(crate) fn encrypted_root() -> PhonyGuest {
    boot_and(volume(Luks, DATA))
}

/// The root is on a volume group of which a disk is missing.
pub(crate) fn lvm_without_its_disk() -> PhonyGuest {
    boot_and(member(Lvm2Member))
}

/// The root is on an array that cannot be put together.
pub(crate) fn md_without_its_disks() -> PhonyGuest {
    boot_and(member(MdMember))
}

/// A loader on a `/boot` of its own, and a partition of which nothing can be read.
fn boot_and(unknown: PhonyVolume) -> PhonyGuest {
    let guest = mbr([boot(), unknown]);
    let menu = "menuentry 'x' {\n\tlinux /vmlinuz\n}\n";
    guest.file("/boot/grub/grub.cfg", menu);
    guest
}

/// `/usr` of its own on LVM that cannot be put together.
pub(crate) fn usr_elsewhere() -> PhonyGuest {
    let guest = mbr([root(Ext4), member(Lvm2Member)]);
    kernel(&guest, VERSION, "initrd.img-{}");
    let files = "
== /usr/
== /boot/grub/grub.cfg
menuentry 'Linux' {
	linux /boot/vmlinuz-5.15.0-91-generic root=UUID={ROOT} ro
	initrd /boot/initrd.img-5.15.0-91-generic
}
== /etc/debian_version
7.11
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
/dev/mapper/vg-usr /usr ext4 defaults 0 2
";
    system(guest, X86_64, "", files)
}

/// A loader of a boot disk that is not in the image.
pub(crate) fn boot_elsewhere() -> PhonyGuest {
    let guest = mbr([root(Ext4), swap()]);
    let files = r#"
== /usr/lib/systemd/systemd
== /etc/os-release
ID=debian
VERSION_ID="12"
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
/dev/sdb1 /boot ext4 defaults 0 2
"#;
    system(guest, X86_64, "", files)
}
