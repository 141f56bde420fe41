// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that are not converted, each for a reason with its code.

use disk::filesystem::{Filesystem, FilesystemKind};

use super::{
    AARCH64, DATA, LINKS, MEMBER, ROOT, SYSTEMD, X86_64, bios_with, grub_entry, install, plain, put,
};
use crate::inspect::TableKind;
use crate::phony::image::PhonyImage;
use crate::phony::loaders::kernel;
use crate::phony::{MemoryFilesystem, Node, PhonyGuest, volume};

const VERSION: &str = "5.15.0-91-generic";

/// Debian's layout with this kernel, everything by UUID.
fn with_kernel(machine: u8, image: &PhonyImage<'_>) -> PhonyGuest {
    let guest = plain(FilesystemKind::Ext4);
    let root = guest.partition(1);
    image.put(root, "/boot", root);
    root.file(
        "/boot/grub/grub.cfg",
        format!(
            "menuentry 'Linux' {{\n\tlinux /boot/{} root=UUID={ROOT} ro\n\tinitrd /boot/{}\n}}\n",
            image.kernel, image.initramfs
        ),
    );
    install(
        root,
        machine,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
            (
                "/etc/fstab",
                "UUID=b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c02 / ext4 defaults 0 1\n",
            ),
        ],
    );
    guest
}

/// A kernel of Debian whose initramfs lacks virtio and holds these files.
fn debian<'a>(files: &'a [(&'a str, &'a str)]) -> PhonyImage<'a> {
    PhonyImage {
        version: VERSION,
        kernel: "vmlinuz-5.15.0-91-generic",
        initramfs: "initrd.img-5.15.0-91-generic",
        usr: "",
        inside: &["scsi_mod", "sd_mod"],
        files,
        ..PhonyImage::default()
    }
}

const INITRAMFS_TOOLS: [(&str, &str); 2] = [("init", "#!/bin/sh\n"), ("conf/initramfs.conf", "")];

/// RHEL 3, Linux 2.4: what the kernel starts with is an image of ext2.
pub(crate) fn rhel_3() -> PhonyGuest {
    let guest = with_kernel(X86_64, &debian(&INITRAMFS_TOOLS));
    let root = guest.partition(1);
    let mut image = vec![0; 4096];
    image[1080..1082].copy_from_slice(&[0x53, 0xef]);
    root.file(&format!("/boot/initrd.img-{VERSION}"), image);
    guest
}

/// A server for another processor.
pub(crate) fn arm_server() -> PhonyGuest {
    with_kernel(AARCH64, &debian(&INITRAMFS_TOOLS))
}

/// An initramfs with a signature beside it.
pub(crate) fn signed_initramfs() -> PhonyGuest {
    let guest = with_kernel(X86_64, &debian(&INITRAMFS_TOOLS));
    let signature = format!("/boot/initrd.img-{VERSION}.sig");
    guest.partition(1).file(&signature, "signature");
    guest
}

/// Arch with an initramfs of booster, which loads what its own list names.
pub(crate) fn arch_with_booster() -> PhonyGuest {
    let files = [("init", "elf"), ("etc/booster.init.yaml", "modules: []\n")];
    with_kernel(X86_64, &debian(&files))
}

/// Gentoo with genkernel.
pub(crate) fn gentoo_with_genkernel() -> PhonyGuest {
    let files = [("init", "#!/bin/sh\n"), ("etc/initrd.defaults", "")];
    with_kernel(X86_64, &debian(&files))
}

/// RHEL 5 whose `/init` somebody wrote himself.
pub(crate) fn own_nash_script() -> PhonyGuest {
    let files = [
        ("bin/nash", ""),
        ("init", "#!/bin/nash\nexec /start-of-the-rescue-system\n"),
    ];
    let image = PhonyImage {
        has_builtin_list: false,
        ..debian(&files)
    };
    with_kernel(X86_64, &image)
}

/// An initramfs that was cut off.
pub(crate) fn damaged_initramfs() -> PhonyGuest {
    let guest = with_kernel(X86_64, &debian(&INITRAMFS_TOOLS));
    let path = format!("/boot/initrd.img-{VERSION}");
    let whole = guest.partition(1).read(&path, u64::MAX);
    let whole = whole.expect("it was just made");
    guest.partition(1).file(&path, &whole[..whole.len() / 2]);
    guest
}

/// A kernel whose modules were removed, as by an interrupted upgrade.
pub(crate) fn kernel_without_modules() -> PhonyGuest {
    let image = PhonyImage {
        modules: &[],
        inside: &[],
        ..debian(&INITRAMFS_TOOLS)
    };
    let guest = with_kernel(X86_64, &image);
    let root = guest.partition(1);
    for (path, _) in root.entries() {
        if path.starts_with("/lib/modules") {
            root.take(&path);
        }
    }
    guest
}

/// A kernel that has drivers for no disk of a virtual machine: a storage appliance's own.
pub(crate) fn kernel_without_drivers() -> PhonyGuest {
    let image = PhonyImage {
        modules: &[("drivers/scsi/scsi_mod", &[], "")],
        inside: &["scsi_mod"],
        ..debian(&INITRAMFS_TOOLS)
    };
    with_kernel(X86_64, &image)
}

/// `modules.dep` names files that are not there.
pub(crate) fn missing_module() -> PhonyGuest {
    let guest = with_kernel(X86_64, &debian(&INITRAMFS_TOOLS));
    let directory = format!("/lib/modules/{VERSION}/kernel/drivers");
    guest
        .partition(1)
        .take(&format!("{directory}/block/virtio_blk.ko"));
    guest
}

/// A disk of Windows, or of a server that shares its data with it.
pub(crate) fn windows_disk() -> PhonyGuest {
    PhonyGuest::new(
        TableKind::Mbr,
        vec![volume(FilesystemKind::Ntfs, "01D5A3B2C4E6F708")],
    )
}

/// Ubuntu on ZFS: the only filesystem that is known is the one of its firmware.
pub(crate) fn ubuntu_on_zfs() -> PhonyGuest {
    let guest = PhonyGuest::new(TableKind::Gpt, vec![super::esp()]);
    guest.partition(1).file("/EFI/ubuntu/shimx64.efi", "shim");
    guest
}

/// Fedora CoreOS: its system is in deployments of ostree, not at the root of a filesystem.
pub(crate) fn fedora_coreos() -> PhonyGuest {
    let guest = bios_with(FilesystemKind::Ext4, ROOT);
    put(
        guest.partition(2),
        &[(
            "/ostree/deploy/fedora-coreos/deploy/0a1b.0/etc/os-release",
            "ID=fedora\nVARIANT_ID=coreos\n",
        )],
    );
    put(
        guest.partition(1),
        &[(
            "/loader/entries/ostree-1.conf",
            "options ostree=/ostree/boot.1/x\n",
        )],
    );
    guest
}

/// The root is encrypted, nothing opens it.
pub(crate) fn encrypted_root() -> PhonyGuest {
    let guest = bios_with(FilesystemKind::Luks, DATA);
    boot_files(guest.partition(1));
    guest
}

/// The root is on a volume group of which a disk is missing.
pub(crate) fn lvm_without_its_disk() -> PhonyGuest {
    let guest = bios_with(FilesystemKind::Lvm2Member, MEMBER);
    boot_files(guest.partition(1));
    guest
}

/// The root is on an array that cannot be put together.
pub(crate) fn md_without_its_disks() -> PhonyGuest {
    let guest = bios_with(FilesystemKind::MdMember, MEMBER);
    boot_files(guest.partition(1));
    guest
}

fn boot_files(boot: &MemoryFilesystem) {
    put(
        boot,
        &[("/grub/grub.cfg", "menuentry 'x' {\n\tlinux /vmlinuz\n}\n")],
    );
}

/// `/usr` of its own on LVM that cannot be put together.
pub(crate) fn usr_elsewhere() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Mbr,
        vec![
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Lvm2Member, MEMBER),
        ],
    );
    let root = guest.partition(1);
    root.put("/usr", Node::Directory);
    kernel(
        root,
        "/boot",
        root,
        VERSION,
        &format!("initrd.img-{VERSION}"),
    );
    grub_entry(
        root,
        "/boot/grub/grub.cfg",
        "Linux",
        &format!("/boot/vmlinuz-{VERSION} root=UUID={ROOT} ro"),
        &format!("/boot/initrd.img-{VERSION}"),
    );
    install(
        root,
        X86_64,
        &[
            ("/etc/debian_version", "7.11\n"),
            (
                "/etc/fstab",
                "UUID=b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c02 / ext4 defaults 0 1\n\
                 /dev/mapper/vg-usr /usr ext4 defaults 0 2\n",
            ),
        ],
    );
    guest
}

/// A loader of a boot disk that is not in the image.
pub(crate) fn boot_elsewhere() -> PhonyGuest {
    let guest = plain(FilesystemKind::Ext4);
    install(
        guest.partition(1),
        X86_64,
        &[
            SYSTEMD,
            ("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
        ],
    );
    guest.partition(1).file(
        "/etc/fstab",
        format!("UUID={ROOT} / ext4 defaults 0 1\n/dev/sdb1 /boot ext4 defaults 0 2\n"),
    );
    guest
}
