// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers whose initramfs was made by something other than initramfs-tools, each as its
//! distribution leaves it.

use crate::guest::compression::Compression;
use crate::phony::PhonyGuest;
use crate::phony::image::{LINUX_2_6_9, PhonyImage, server};

const ROOT: &str = "root=UUID=6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01 ro";

/// What mkinitrd 5.1.19 of RHEL 5 makes.
const NASH_5: &str = r#"
== bin/nash
== init
#!/bin/nash

mount -t proc /proc /proc
setquiet
echo Mounting proc filesystem
echo Creating block device nodes.
hotplug
mkblkdevs
echo "Loading ext3.ko module"
insmod /lib/ext3.ko 
echo "Loading scsi_mod.ko module"
insmod /lib/scsi_mod.ko 
echo "Loading sd_mod.ko module"
insmod /lib/sd_mod.ko 
echo "Loading megaraid_sas.ko module"
insmod /lib/megaraid_sas.ko 
echo Waiting for driver initialization.
stabilized --hash --interval 250 /proc/scsi/scsi
mkblkdevs
resume /dev/sda2
echo Creating root device.
mkrootdev -t ext3 -o defaults,ro sda1
echo Mounting root filesystem.
mount /sysroot
setuproot
switchroot
== lib/ext3.ko ext3
"#;

/// RHEL 5.3: its kernel is the first with virtio.
pub(crate) fn rhel_5() -> PhonyGuest {
    let image = PhonyImage {
        version: "2.6.18-128.el5",
        initramfs: "initrd-{}.img",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[NASH_5],
        has_builtin_list: false,
        config: "CONFIG_IDE=y\nCONFIG_BLK_DEV_IDEDISK=y\nCONFIG_BLK_DEV_PIIX=y\nCONFIG_VIRTIO=m\n",
        ..PhonyImage::default()
    };
    let guest = server("rhel", "5.3", &image, "ro root=/dev/sda1");
    let files = "
== /etc/modprobe.conf
alias eth0 bnx2
alias scsi_hostadapter megaraid_sas
options bonding mode=1
";
    guest.tree(files, &[]);
    guest
}

/// RHEL 4: no virtio in the kernel at all.
pub(crate) fn rhel_4() -> PhonyGuest {
    let image = PhonyImage {
        version: "2.6.9-42.ELsmp",
        initramfs: "initrd-{}.img",
        usr: "",
        modules: LINUX_2_6_9,
        inside: &["scsi_mod", "sd_mod"],
        files: &[r#"
== bin/nash
== init
#!/bin/nash
mount -t proc /proc /proc
/sbin/udevstart
echo "Loading scsi_mod.ko module"
insmod /lib/scsi_mod.ko 
echo "Loading sd_mod.ko module"
insmod /lib/sd_mod.ko 
/sbin/udevstart
echo Creating root device
mkrootdev /dev/root
umount /sys
mount -o defaults --ro -t ext3 /dev/root /sysroot
switchroot /sysroot
"#],
        has_builtin_list: false,
        config: "CONFIG_IDE=y\nCONFIG_BLK_DEV_IDEDISK=y\nCONFIG_BLK_DEV_PIIX=y\n\
                 CONFIG_SCSI_ATA_PIIX=m\n",
        ..PhonyImage::default()
    };
    let guest = server("rhel", "4", &image, "ro root=LABEL=/");
    let files = "
== /etc/modprobe.conf
alias eth0 tg3
";
    guest.tree(files, &[]);
    guest
}

/// CentOS 6: dracut 004, whose hooks are at the root.
pub(crate) fn centos_6() -> PhonyGuest {
    let image = PhonyImage {
        version: "2.6.32-754.el6.x86_64",
        initramfs: "initramfs-{}.img",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[r#"
== init
#!/bin/sh
== lib/dracut-lib.sh
== dracut-004-411.el6
== etc/cmdline
resume=/dev/sda2
== initqueue-finished/devexists-\x2fdev\x2fsda1.sh
[ -e "/dev/sda1" ]
"#],
        ..PhonyImage::default()
    };
    server("centos", "6.10", &image, "ro root=/dev/sda1 rd_NO_LVM")
}

/// RHEL 7: dracut 033 with systemd, made for this server only.
pub(crate) fn rhel_7() -> PhonyGuest {
    let image = PhonyImage {
        version: "3.10.0-1160.el7.x86_64",
        initramfs: "initramfs-{}.img",
        suffix: ".ko.xz",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[DRACUT, WAITED_FOR, OLD_HARDWARE],
        microcode: true,
        ..PhonyImage::default()
    };
    let guest = server("rhel", "7.9", &image, ROOT);
    let files = "
== /boot/vmlinuz-0-rescue-0123456789abcdef kernel
== /boot/initramfs-0-rescue-0123456789abcdef.img rescue
== /boot/initramfs-3.10.0-1160.el7.x86_64kdump.img kdump
== /etc/modprobe.d/hardening.conf
blacklist virtio_net
install cramfs /bin/true
";
    guest.tree(files, &[]);
    guest
}

/// What dracut puts into an initramfs for one server.
const DRACUT: &str = "
== lib -> usr/lib
== init -> usr/lib/systemd/systemd
== usr/lib/systemd/systemd elf
== usr/lib/dracut/hostonly-kernel-modules.txt
megaraid_sas
";

/// What names its old hardware there: the disks that are waited for, and the rest.
const WAITED_FOR: &str = r#"
== usr/lib/dracut/hooks/initqueue/finished/devexists-\x2fdev\x2fdisk\x2fby-path\x2fpci-part1.sh
[ -e "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:2:0:0-part1" ]
== usr/lib/dracut/hooks/initqueue/finished/devexists-\x2fdev\x2fmapper\x2fmpatha.sh
[ -e "/dev/mapper/mpatha" ]
"#;
const OLD_HARDWARE: &str = r#"
== etc/systemd/system/initrd.target.wants/dev-disk-by\x2dpath-pci\x2d0000:03:00.0\x2dscsi\x2d0:2:0:0\x2dpart1.device -> ../dev-disk-by\x2dpath-pci\x2d0000:03:00.0\x2dscsi\x2d0:2:0:0\x2dpart1.device
== etc/systemd/system/dev-disk-by\x2dpath-pci\x2d0000:03:00.0\x2dscsi\x2d0:2:0:0\x2dpart1.device.d/timeout.conf
[Unit]
JobTimeoutSec=0
== etc/cmdline.d/95resume.conf
resume=/dev/disk/by-id/wwn-0x600508b1001c-part2
== etc/cmdline.d/95root-dev.conf
root=/dev/sda1 rootfstype=ext3 rootflags=rw,relatime
== etc/lvm/lvm.conf
devices {
	filter = [ "a|/dev/sda|", "r|.*|" ]
}
== etc/lvm/devices/system.devices
IDTYPE=sys_wwid IDNAME=naa.600508b1001c DEVNAME=/dev/sda3 PVID=abc
== etc/modprobe.d/hardening.conf
blacklist virtio_blk
"#;

/// RHEL 9: dracut 057 with systemd, microcode before it, xz inside and out.
pub(crate) fn rhel_9() -> PhonyGuest {
    let image = PhonyImage {
        version: "5.14.0-362.el9.x86_64",
        initramfs: "initramfs-{}.img",
        suffix: ".ko.xz",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[DRACUT],
        compression: Compression::Xz,
        microcode: true,
        ..PhonyImage::default()
    };
    server("rhel", "9.3", &image, ROOT)
}

/// Fedora: zstd, and a directory per kernel as kernel-install makes them.
pub(crate) fn fedora() -> PhonyGuest {
    let image = PhonyImage {
        version: "6.8.5-301.fc40.x86_64",
        kernel: "0123456789abcdef0123456789abcdef/{}/linux",
        initramfs: "0123456789abcdef0123456789abcdef/{}/initrd",
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &[DRACUT],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    };
    server("fedora", "40", &image, ROOT)
}

/// SLES 15: dracut with names of its own.
pub(crate) fn sles_15() -> PhonyGuest {
    let image = PhonyImage {
        version: "5.14.21-150500.53-default",
        initramfs: "initrd-{}",
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[DRACUT, WAITED_FOR],
        compression: Compression::Xz,
        ..PhonyImage::default()
    };
    let guest = server("sles", "15.5", &image, ROOT);
    let files = "
== /boot/vmlinuz -> vmlinuz-5.14.21-150500.53-default
== /boot/vmlinux-5.14.21-150500.53-default.gz for debuggers
";
    guest.tree(files, &[]);
    guest
}

/// SLES 11: SUSE's own mkinitrd.
pub(crate) fn sles_11() -> PhonyGuest {
    let image = PhonyImage {
        version: "3.0.101-63-default",
        initramfs: "initrd-{}",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[r#"
== init
#!/bin/bash
== run_all.sh
[ "$debug" ] && echo running 01-devfunctions.sh
source boot/01-devfunctions.sh
[ "$modules" ] && load_modules
[ "$rootdev" ] || rootdev='/dev/disk/by-id/ata-ST3500-part1'
[ "$resumedev" ] || resumedev='/dev/sda2'
modules="$RESOLVED_INITRD_MODULES"
source boot/02-start.sh
[ "$modules" ] && load_modules
source boot/04-udev.sh
source boot/83-mount.sh
== mkinitrd.config
-k vmlinuz
== config/mount.sh
[ "$rootdev" ] || rootdev='/dev/disk/by-id/ata-ST3500-part1'
"#],
        ..PhonyImage::default()
    };
    let guest = server(
        "sles",
        "11.4",
        &image,
        "root=/dev/disk/by-id/ata-ST3500-part1",
    );
    let files = r#"
== /etc/sysconfig/kernel
# modules
INITRD_MODULES="megaraid_sas"
DOMU_INITRD_MODULES="xennet"
"#;
    guest.tree(files, &[]);
    guest
}

/// Arch Linux: names without versions, indexes only in their binary form.
pub(crate) fn arch() -> PhonyGuest {
    let image = PhonyImage {
        version: "6.9.1-arch1-1",
        kernel: "vmlinuz-linux",
        initramfs: "initramfs-linux.img",
        suffix: ".ko.zst",
        inside: &["libata", "libahci", "ahci", "scsi_mod", "sd_mod"],
        files: &[r#"
== lib -> usr/lib
== init
#!/usr/bin/ash
== init_functions
== buildconfig
== config
MODULES="ext4"
EARLYHOOKS="udev"
HOOKS="udev"
"#],
        compression: Compression::Zstd,
        microcode: true,
        ..PhonyImage::default()
    };
    let guest = server("arch", "rolling", &image, ROOT);
    let files = "
== /usr/lib/modules/6.9.1-arch1-1/pkgbase
linux
== /usr/lib/modules/6.6.1-1-lts/pkgbase
linux-lts
== /etc/mkinitcpio.conf
MODULES=(ext4)
HOOKS=(base udev autodetect block filesystems)
";
    guest.tree(files, &[]);
    guest
}

/// Alpine: mkinitfs, with lists of features.
pub(crate) fn alpine() -> PhonyGuest {
    let image = PhonyImage {
        version: "6.6.31-0-lts",
        kernel: "vmlinuz-lts",
        initramfs: "initramfs-lts",
        usr: "",
        suffix: ".ko.gz",
        inside: &["scsi_mod", "sd_mod"],
        files: &["
== init
#!/bin/sh
== sbin/nlplug-findfs elf
"],
        ..PhonyImage::default()
    };
    let guest = server("alpine", "3.20", &image, ROOT);
    let files = r#"
== /lib/modules/6.6.31-0-lts/kernel-suffix
lts
== /etc/mkinitfs/mkinitfs.conf
features="base ext4 scsi keymap"
"#;
    guest.tree(files, &[]);
    guest
}

/// Gentoo: genkernel, which we do not extend.
pub(crate) fn gentoo(inside: &[&str]) -> PhonyGuest {
    let image = PhonyImage {
        version: "5.4.97-gentoo",
        kernel: "kernel-genkernel-x86_64-{}",
        initramfs: "initramfs-genkernel-x86_64-{}",
        inside,
        files: &["
== init
#!/bin/sh
== etc/initrd.defaults
"],
        ..PhonyImage::default()
    };
    server("gentoo", "2.17", &image, ROOT)
}

/// Ubuntu and Debian of several years, which differ in how they compress and where `lib` is.
pub(crate) fn initramfs_tools(
    version: &str,
    kernel: &str,
    usr: &str,
    compression: Compression,
) -> PhonyGuest {
    let image = PhonyImage {
        version: kernel,
        usr,
        inside: &["scsi_mod", "sd_mod", "libata", "libahci", "ahci"],
        files: &["
== init
#!/bin/sh
== conf/initramfs.conf
"],
        compression,
        microcode: usr == "/usr",
        ..PhonyImage::default()
    };
    server("ubuntu", version, &image, ROOT)
}
