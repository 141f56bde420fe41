// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers whose initramfs was made by something other than initramfs-tools, each as its
//! distribution leaves it.

use crate::guest::compression::Compression;
use crate::phony::PhonyGuest;
use crate::phony::image::{LINUX_2_6_9, PhonyImage, server};

const ROOT: &str = "root=UUID=6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01 ro";

/// `/init` as mkinitrd 5.1.19 of RHEL 5 writes it.
const NASH_5: &str = "#!/bin/nash

mount -t proc /proc /proc
setquiet
echo Mounting proc filesystem
echo Creating block device nodes.
hotplug
mkblkdevs
echo \"Loading ext3.ko module\"
insmod /lib/ext3.ko 
echo \"Loading scsi_mod.ko module\"
insmod /lib/scsi_mod.ko 
echo \"Loading sd_mod.ko module\"
insmod /lib/sd_mod.ko 
echo \"Loading megaraid_sas.ko module\"
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
";

/// RHEL 5.3: its kernel is the first with virtio.
pub(crate) fn rhel_5() -> PhonyGuest {
    let image = PhonyImage {
        version: "2.6.18-128.el5",
        kernel: "vmlinuz-2.6.18-128.el5",
        initramfs: "initrd-2.6.18-128.el5.img",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[("bin/nash", ""), ("init", NASH_5), ("lib/ext3.ko", "ext3")],
        has_builtin_list: false,
        config: "CONFIG_IDE=y\nCONFIG_BLK_DEV_IDEDISK=y\nCONFIG_BLK_DEV_PIIX=y\nCONFIG_VIRTIO=m\n",
        ..PhonyImage::default()
    };
    let guest = server("rhel", "5.3", &image, "ro root=/dev/sda1");
    guest.partition(1).file(
        "/etc/modprobe.conf",
        "alias eth0 bnx2\nalias scsi_hostadapter megaraid_sas\noptions bonding mode=1\n",
    );
    guest
}

/// RHEL 4: no virtio in the kernel at all.
pub(crate) fn rhel_4() -> PhonyGuest {
    let init = "#!/bin/nash\nmount -t proc /proc /proc\n/sbin/udevstart\n\
        echo \"Loading scsi_mod.ko module\"\ninsmod /lib/scsi_mod.ko \n\
        echo \"Loading sd_mod.ko module\"\ninsmod /lib/sd_mod.ko \n/sbin/udevstart\n\
        echo Creating root device\nmkrootdev /dev/root\numount /sys\n\
        mount -o defaults --ro -t ext3 /dev/root /sysroot\nswitchroot /sysroot\n";
    let image = PhonyImage {
        version: "2.6.9-42.ELsmp",
        kernel: "vmlinuz-2.6.9-42.ELsmp",
        initramfs: "initrd-2.6.9-42.ELsmp.img",
        usr: "",
        modules: LINUX_2_6_9,
        inside: &["scsi_mod", "sd_mod"],
        files: &[("bin/nash", ""), ("init", init)],
        has_builtin_list: false,
        config: "CONFIG_IDE=y\nCONFIG_BLK_DEV_IDEDISK=y\nCONFIG_BLK_DEV_PIIX=y\n\
                 CONFIG_SCSI_ATA_PIIX=m\n",
        ..PhonyImage::default()
    };
    let guest = server("rhel", "4", &image, "ro root=LABEL=/");
    guest
        .partition(1)
        .file("/etc/modprobe.conf", "alias eth0 tg3\n");
    guest
}

/// CentOS 6: dracut 004, whose hooks are at the root.
pub(crate) fn centos_6() -> PhonyGuest {
    let image = PhonyImage {
        version: "2.6.32-754.el6.x86_64",
        kernel: "vmlinuz-2.6.32-754.el6.x86_64",
        initramfs: "initramfs-2.6.32-754.el6.x86_64.img",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("lib/dracut-lib.sh", ""),
            ("dracut-004-411.el6", ""),
            ("etc/cmdline", "resume=/dev/sda2\n"),
            (
                r"initqueue-finished/devexists-\x2fdev\x2fsda1.sh",
                "[ -e \"/dev/sda1\" ]\n",
            ),
        ],
        ..PhonyImage::default()
    };
    server("centos", "6.10", &image, "ro root=/dev/sda1 rd_NO_LVM")
}

/// RHEL 7: dracut 033 with systemd, made for this server only.
pub(crate) fn rhel_7() -> PhonyGuest {
    let image = PhonyImage {
        version: "3.10.0-1160.el7.x86_64",
        kernel: "vmlinuz-3.10.0-1160.el7.x86_64",
        initramfs: "initramfs-3.10.0-1160.el7.x86_64.img",
        suffix: ".ko.xz",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &HOST_ONLY,
        microcode: true,
        ..PhonyImage::default()
    };
    let guest = server("rhel", "7.9", &image, ROOT);
    let root = guest.partition(1);
    root.file("/boot/vmlinuz-0-rescue-0123456789abcdef", "kernel");
    root.file("/boot/initramfs-0-rescue-0123456789abcdef.img", "rescue");
    root.file("/boot/initramfs-3.10.0-1160.el7.x86_64kdump.img", "kdump");
    root.file(
        "/etc/modprobe.d/hardening.conf",
        "blacklist virtio_net\ninstall cramfs /bin/true\n",
    );
    guest
}

/// What dracut puts into an initramfs for one server; everything names the old hardware.
const HOST_ONLY: [(&str, &str); 13] = [
    ("lib", "-> usr/lib"),
    ("init", "-> usr/lib/systemd/systemd"),
    ("usr/lib/systemd/systemd", "elf"),
    (
        "usr/lib/dracut/hostonly-kernel-modules.txt",
        "megaraid_sas\n",
    ),
    (
        r"usr/lib/dracut/hooks/initqueue/finished/devexists-\x2fdev\x2fdisk\x2fby-path\x2fpci-part1.sh",
        "[ -e \"/dev/disk/by-path/pci-0000:03:00.0-scsi-0:2:0:0-part1\" ]\n",
    ),
    (
        r"usr/lib/dracut/hooks/initqueue/finished/devexists-\x2fdev\x2fmapper\x2fmpatha.sh",
        "[ -e \"/dev/mapper/mpatha\" ]\n",
    ),
    (
        r"etc/systemd/system/initrd.target.wants/dev-disk-by\x2dpath-pci\x2d0000:03:00.0\x2dscsi\x2d0:2:0:0\x2dpart1.device",
        r"-> ../dev-disk-by\x2dpath-pci\x2d0000:03:00.0\x2dscsi\x2d0:2:0:0\x2dpart1.device",
    ),
    (
        r"etc/systemd/system/dev-disk-by\x2dpath-pci\x2d0000:03:00.0\x2dscsi\x2d0:2:0:0\x2dpart1.device.d/timeout.conf",
        "[Unit]\nJobTimeoutSec=0\n",
    ),
    (
        "etc/cmdline.d/95resume.conf",
        "resume=/dev/disk/by-id/wwn-0x600508b1001c-part2\n",
    ),
    (
        "etc/cmdline.d/95root-dev.conf",
        "root=/dev/sda1 rootfstype=ext3 rootflags=rw,relatime\n",
    ),
    (
        "etc/lvm/lvm.conf",
        "devices {\n\tfilter = [ \"a|/dev/sda|\", \"r|.*|\" ]\n}\n",
    ),
    (
        "etc/lvm/devices/system.devices",
        "IDTYPE=sys_wwid IDNAME=naa.600508b1001c DEVNAME=/dev/sda3 PVID=abc\n",
    ),
    ("etc/modprobe.d/hardening.conf", "blacklist virtio_blk\n"),
];

/// RHEL 9: dracut 057 with systemd, microcode before it, xz inside and out.
pub(crate) fn rhel_9() -> PhonyGuest {
    let image = PhonyImage {
        version: "5.14.0-362.el9.x86_64",
        kernel: "vmlinuz-5.14.0-362.el9.x86_64",
        initramfs: "initramfs-5.14.0-362.el9.x86_64.img",
        suffix: ".ko.xz",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &HOST_ONLY[..4],
        compression: Compression::Xz,
        microcode: true,
        ..PhonyImage::default()
    };
    server("rhel", "9.3", &image, ROOT)
}

/// Fedora: zstd, and a directory per kernel as kernel-install makes them.
pub(crate) fn fedora() -> PhonyGuest {
    let directory = "0123456789abcdef0123456789abcdef/6.8.5-301.fc40.x86_64";
    let image = PhonyImage {
        version: "6.8.5-301.fc40.x86_64",
        kernel: &format!("{directory}/linux"),
        initramfs: &format!("{directory}/initrd"),
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &HOST_ONLY[..4],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    };
    server("fedora", "40", &image, ROOT)
}

/// SLES 15: dracut with names of its own.
pub(crate) fn sles_15() -> PhonyGuest {
    let image = PhonyImage {
        version: "5.14.21-150500.53-default",
        kernel: "vmlinuz-5.14.21-150500.53-default",
        initramfs: "initrd-5.14.21-150500.53-default",
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &HOST_ONLY[..6],
        compression: Compression::Xz,
        ..PhonyImage::default()
    };
    let guest = server("sles", "15.5", &image, ROOT);
    let root = guest.partition(1);
    crate::phony::link(root, "/boot/vmlinuz", "vmlinuz-5.14.21-150500.53-default");
    root.file(
        "/boot/vmlinux-5.14.21-150500.53-default.gz",
        "for debuggers",
    );
    guest
}

/// SLES 11: SUSE's own mkinitrd.
pub(crate) fn sles_11() -> PhonyGuest {
    let run_all = "[ \"$debug\" ] && echo running 01-devfunctions.sh\n\
        source boot/01-devfunctions.sh\n[ \"$modules\" ] && load_modules\n\
        [ \"$rootdev\" ] || rootdev='/dev/disk/by-id/ata-ST3500-part1'\n\
        [ \"$resumedev\" ] || resumedev='/dev/sda2'\n\
        modules=\"$RESOLVED_INITRD_MODULES\"\nsource boot/02-start.sh\n\
        [ \"$modules\" ] && load_modules\nsource boot/04-udev.sh\nsource boot/83-mount.sh\n";
    let image = PhonyImage {
        version: "3.0.101-63-default",
        kernel: "vmlinuz-3.0.101-63-default",
        initramfs: "initrd-3.0.101-63-default",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[
            ("init", "#!/bin/bash\n"),
            ("run_all.sh", run_all),
            ("mkinitrd.config", "-k vmlinuz\n"),
            (
                "config/mount.sh",
                "[ \"$rootdev\" ] || rootdev='/dev/disk/by-id/ata-ST3500-part1'\n",
            ),
        ],
        ..PhonyImage::default()
    };
    let guest = server(
        "sles",
        "11.4",
        &image,
        "root=/dev/disk/by-id/ata-ST3500-part1",
    );
    guest.partition(1).file(
        "/etc/sysconfig/kernel",
        "# modules\nINITRD_MODULES=\"megaraid_sas\"\nDOMU_INITRD_MODULES=\"xennet\"\n",
    );
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
        files: &[
            ("lib", "-> usr/lib"),
            ("init", "#!/usr/bin/ash\n"),
            ("init_functions", ""),
            ("buildconfig", ""),
            (
                "config",
                "MODULES=\"ext4\"\nEARLYHOOKS=\"udev\"\nHOOKS=\"udev\"\n",
            ),
        ],
        compression: Compression::Zstd,
        microcode: true,
        ..PhonyImage::default()
    };
    let guest = server("arch", "rolling", &image, ROOT);
    let root = guest.partition(1);
    root.file("/usr/lib/modules/6.9.1-arch1-1/pkgbase", "linux\n");
    root.file("/usr/lib/modules/6.6.1-1-lts/pkgbase", "linux-lts\n");
    root.file(
        "/etc/mkinitcpio.conf",
        "MODULES=(ext4)\nHOOKS=(base udev autodetect block filesystems)\n",
    );
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
        files: &[("init", "#!/bin/sh\n"), ("sbin/nlplug-findfs", "elf")],
        ..PhonyImage::default()
    };
    let guest = server("alpine", "3.20", &image, ROOT);
    let root = guest.partition(1);
    root.file("/lib/modules/6.6.31-0-lts/kernel-suffix", "lts\n");
    root.file(
        "/etc/mkinitfs/mkinitfs.conf",
        "features=\"base ext4 scsi keymap\"\n",
    );
    guest
}

/// Gentoo: genkernel, which we do not extend.
pub(crate) fn gentoo(inside: &[&str]) -> PhonyGuest {
    let image = PhonyImage {
        version: "5.4.97-gentoo",
        kernel: "kernel-genkernel-x86_64-5.4.97-gentoo",
        initramfs: "initramfs-genkernel-x86_64-5.4.97-gentoo",
        inside,
        files: &[("init", "#!/bin/sh\n"), ("etc/initrd.defaults", "")],
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
        kernel: &format!("vmlinuz-{kernel}"),
        initramfs: &format!("initrd.img-{kernel}"),
        usr,
        inside: &["scsi_mod", "sd_mod", "libata", "libahci", "ahci"],
        files: &[("init", "#!/bin/sh\n"), ("conf/initramfs.conf", "")],
        compression,
        microcode: usr == "/usr",
        ..PhonyImage::default()
    };
    server("ubuntu", version, &image, ROOT)
}
