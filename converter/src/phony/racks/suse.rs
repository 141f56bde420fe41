// SPDX-License-Identifier: MIT OR Apache-2.0
//! SUSE Linux Enterprise Server and openSUSE.

use disk::filesystem::FilesystemKind::{Btrfs, Ext3, Ext4, Lvm2Member};

use super::{DATA, DRACUT, LINUX, X86_64, boot, esp, member, root, swap, system};
use crate::guest::compression::Compression;
use crate::inspect::TableKind;
use crate::phony::image::{PhonyImage, with_btrfs};
use crate::phony::loaders::kernel;
use crate::phony::{GENERATOR, PhonyGuest, SYSTEMD, gpt, mbr, volume};

/// SLES 12 on LVM, whose filter and initramfs know the physical volume by-id only.
pub(crate) fn sles_12_on_lvm() -> PhonyGuest {
    let mut guest = mbr([boot(), member(Lvm2Member)]);
    guest.logical_volume(2, "system/root", &root(Ext4));
    guest.logical_volume(2, "system/swap", &swap());
    PhonyImage {
        version: "4.12.14-122.189-default",
        initramfs: "initrd-{}",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[r#"
== init
#!/bin/sh
== lib/dracut/hostonly-kernel-modules.txt
megaraid_sas
== etc/lvm/lvm.conf
devices {
    filter = [ "a|/dev/disk/by-id/scsi-3600605b00a1b2c3d1f2e3d4c5b6a7988-part2|", "r|.*|" ]
}
== etc/cmdline.d/95resume.conf
 resume=/dev/system/swap
== etc/systemd/system/initrd.target.wants/dev-mapper-system\x2droot.device -> ../dev-mapper-system\x2droot.device
"#],
        compression: Compression::Xz,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /etc/os-release
ID="sles"
VERSION_ID="12.5"
== /etc/lvm/lvm.conf
devices {
    filter = [ "a|/dev/disk/by-id/scsi-3600605b00a1b2c3d1f2e3d4c5b6a7988-part2|", "r|.*|" ]
}
== /etc/default/grub_installdevice
/dev/disk/by-id/scsi-3600605b00a1b2c3d1f2e3d4c5b6a7988
activate
== /etc/sysconfig/network/ifcfg-em1
BOOTPROTO='static'
IPADDR='10.9.12.5/24'
LLADDR='18:66:da:00:00:05'
STARTMODE='auto'
== /etc/systemd/system/multi-user.target.wants/instsvcdrv.service
== /etc/fstab
/dev/system/swap swap swap defaults 0 0
/dev/system/root / ext4 acl,user_xattr 1 1
/dev/disk/by-id/scsi-3600605b00a1b2c3d1f2e3d4c5b6a7988-part1 /boot ext4 acl,user_xattr 1 2
== /boot/grub2/grub.cfg
menuentry 'SLES 12-SP5' {
	linux /vmlinuz-4.12.14-122.189-default root=/dev/mapper/system-root resume=/dev/system/swap splash=silent quiet showopts
	initrd /initrd-4.12.14-122.189-default
}
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// SLES 11 with UEFI: ELILO, whose kernels are copies on the EFI system partition.
pub(crate) fn sles_11_with_elilo() -> PhonyGuest {
    let guest = gpt([esp(), root(Ext3)]);
    kernel(&guest, "3.0.101-108-default", "initrd-{}");
    let files = r#"
== /etc/SuSE-release
SUSE Linux Enterprise Server 11 (x86_64)
VERSION = 11
PATCHLEVEL = 4
== /etc/elilo.conf
timeout = 80
prompt
default = linux

image = vmlinuz
    label = linux
    initrd = initrd
    root = /dev/sda2
    append = "splash=silent showopts"
    read-only
== /etc/sysconfig/bootloader
LOADER_TYPE="elilo"
== /etc/fstab
/dev/sda2 / ext3 acl 1 1
UUID={ESP} /boot/efi vfat umask=0002 0 0
== /boot/efi/efi/SuSE/elilo.efi elilo
== /boot/efi/efi/SuSE/elilo.conf
timeout = 80
prompt
default = linux

image = vmlinuz
    label = linux
    initrd = initrd
    root = /dev/sda2
    append = "splash=silent showopts"
    read-only
== /boot/efi/efi/SuSE/vmlinuz kernel
== /boot/efi/efi/SuSE/initrd initrd
"#;
    system(guest, X86_64, GENERATOR, files)
}

/// Tumbleweed with systemd-boot, as its newer installers set it up.
pub(crate) fn tumbleweed_with_systemd_boot() -> PhonyGuest {
    let guest = gpt([esp(), root(Ext4), swap()]);
    PhonyImage {
        version: "6.11.8-1-default",
        kernel: LINUX,
        initramfs: "5be0c1d2a3f44f6e8b7a9c0d1e2f3a4b/{}/initrd",
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &[
            DRACUT,
            "
== usr/lib/dracut/hostonly-kernel-modules.txt
ahci
",
        ],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot/efi");
    let files = r#"
== /lib -> usr/lib
== /etc/os-release
ID="opensuse-tumbleweed"
VERSION_ID="20241115"
== /etc/kernel/cmdline
root=UUID={ROOT} resume=/dev/disk/by-path/pci-0000:00:17.0-ata-1-part3 quiet
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
UUID={ESP} /boot/efi vfat utf8 0 2
== /boot/efi/EFI/systemd/systemd-bootx64.efi systemd-boot
== /boot/efi/loader/loader.conf
timeout 3
== /boot/efi/loader/entries/opensuse-tumbleweed-6.11.8-1-default-1.conf
title Linux
machine-id {MACHINE_ID}
options root=UUID={ROOT} resume=/dev/disk/by-path/pci-0000:00:17.0-ata-1-part3 splash=silent quiet
linux /{MACHINE_ID}/6.11.8-1-default/linux
initrd /{MACHINE_ID}/6.11.8-1-default/initrd
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// Leap as its installer leaves it: the root is a snapshot of btrfs, everything named by UUID. What
/// must change is on btrfs alone.
pub(crate) fn leap_with_snapshots() -> PhonyGuest {
    let guest = gpt([root(Btrfs), swap()]);
    PhonyImage {
        version: "6.4.0-150600.23-default",
        initramfs: "initrd-{}",
        modules: &with_btrfs(),
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &[
            DRACUT,
            "
== usr/lib/dracut/hostonly-kernel-modules.txt
ahci
",
        ],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /lib -> usr/lib
== /boot/grub2/grub.cfg
set btrfs_relative_path="yes"
menuentry 'openSUSE Leap 15.6' {
	linux /boot/vmlinuz-6.4.0-150600.23-default root=UUID={ROOT} splash=silent quiet
	initrd /boot/initrd-6.4.0-150600.23-default
}
== /boot/grub2/i386-pc/normal.mod
== /etc/os-release
ID="opensuse-leap"
VERSION_ID="15.6"
== /etc/snapper/configs/root
SUBVOLUME="/"
FSTYPE="btrfs"
== /etc/fstab
UUID={ROOT} / btrfs defaults 0 0
UUID={SWAP} swap swap defaults 0 0
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// SLES 15 for a database whose data is on multipath: which of two disks that is, nothing tells
/// without a description of the machine.
pub(crate) fn sles_15_with_data_on_multipath() -> PhonyGuest {
    let mut guest = mbr([boot(), root(Ext4)]);
    guest.add_disk(None, TableKind::Gpt, vec![volume(Ext4, DATA)]);
    kernel(&guest, "5.14.21-150500.55.52-default", "initrd-{}");
    let files = r#"
== /etc/os-release
ID="sles"
VERSION_ID="15.5"
== /etc/multipath.conf
multipaths {
	multipath {
		wwid 3600507680c80811ad8000000000001b2
		alias hana_data
	}
}
== /etc/systemd/system/multi-user.target.wants/multipathd.service
== /etc/systemd/system/multi-user.target.wants/hp-asrd.service
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
UUID={BOOT} /boot ext4 defaults 0 2
/dev/mapper/hana_data-part1 /hana/data ext4 defaults 0 2
== /boot/grub2/grub.cfg
menuentry 'SLES 15-SP5' {
	linux /vmlinuz-5.14.21-150500.55.52-default root=/dev/disk/by-path/pci-0000:02:00.0-scsi-0:2:0:0-part2 quiet
	initrd /initrd-5.14.21-150500.55.52-default
}
"#;
    system(guest, X86_64, SYSTEMD, files)
}
