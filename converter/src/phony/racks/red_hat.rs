// SPDX-License-Identifier: MIT OR Apache-2.0
//! Red Hat Enterprise Linux from 4 to 10, and what is built from it.

use disk::filesystem::FilesystemKind::{Ext3, Ext4, Lvm2Member, MdMember, Xfs};

use super::{DATA, DRACUT, I386, LINUX, MACHINE_ID, X86_64, boot, esp, member, root, swap, system};
use crate::guest::compression::Compression;
use crate::inspect::TableKind;
use crate::phony::image::{LINUX_2_6_9, PhonyImage};
use crate::phony::loaders::{grubenv, kernel};
use crate::phony::{GENERATOR, PhonyGuest, SYSTEMD, gpt, mbr, volume};

/// RHEL 4 for i386 on a Smart Array 5i: no virtio, and every name is `cciss`.
pub(crate) fn rhel_4_i386_on_smart_array() -> PhonyGuest {
    let guest = mbr([root(Ext3), swap()]);
    PhonyImage {
        version: "2.6.9-89.ELsmp",
        initramfs: "initrd-{}.img",
        usr: "",
        modules: LINUX_2_6_9,
        files: &[r#"
== bin/nash
== lib/cciss.ko cciss
== init
#!/bin/nash
mount -t proc /proc /proc
/sbin/udevstart
echo "Loading cciss.ko module"
insmod /lib/cciss.ko 
/sbin/udevstart
echo Creating root device
mkrootdev /dev/root
umount /sys
mount -o defaults --ro -t ext3 /dev/root /sysroot
switchroot /sysroot
"#],
        has_builtin_list: false,
        config: "CONFIG_IDE=y\nCONFIG_BLK_DEV_IDEDISK=y\nCONFIG_BLK_DEV_PIIX=y\n",
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = "
== /etc/redhat-release
Red Hat Enterprise Linux AS release 4 (Nahant Update 8)
== /etc/fstab
/dev/cciss/c0d0p1 / ext3 defaults 1 1
none /dev/pts devpts gid=5,mode=620 0 0
/dev/cciss/c0d0p2 swap swap defaults 0 0
== /etc/modprobe.conf
alias eth0 tg3
alias eth1 tg3
alias scsi_hostadapter cciss
== /etc/sysconfig/network-scripts/ifcfg-eth0
DEVICE=eth0
BOOTPROTO=static
IPADDR=10.9.0.4
NETMASK=255.255.255.0
ONBOOT=yes
== /etc/sysconfig/hwconf
class: HD
device: cciss/c0d0
== /etc/rc3.d/S05kudzu
== /etc/rc3.d/S91smartd
== /boot/grub/grub.conf
#boot=/dev/cciss/c0d0
default=0
timeout=5
title Red Hat Enterprise Linux AS (2.6.9-89.ELsmp)
	root (hd0,0)
	kernel /boot/vmlinuz-2.6.9-89.ELsmp ro root=/dev/cciss/c0d0p1
	initrd /boot/initrd-2.6.9-89.ELsmp.img
== /boot/grub/device.map
(hd0)     /dev/cciss/c0d0
";
    system(guest, I386, "", files)
}

/// CentOS 5 as its installer partitions: everything but `/boot` on LVM, found by nash.
pub(crate) fn centos_5_on_lvm() -> PhonyGuest {
    let mut guest = mbr([boot(), member(Lvm2Member)]);
    guest.logical_volume(2, "VolGroup00/LogVol00", &root(Ext3));
    guest.logical_volume(2, "VolGroup00/LogVol01", &swap());
    PhonyImage {
        version: "2.6.18-419.el5",
        initramfs: "initrd-{}.img",
        usr: "",
        inside: &["scsi_mod", "sd_mod"],
        files: &[r#"
== bin/nash
== init
#!/bin/nash

mount -t proc /proc /proc
setquiet
hotplug
mkblkdevs
echo "Loading scsi_mod.ko module"
insmod /lib/scsi_mod.ko 
echo "Loading sd_mod.ko module"
insmod /lib/sd_mod.ko 
echo Waiting for driver initialization.
stabilized --hash --interval 250 /proc/scsi/scsi
mkblkdevs
echo Scanning logical volumes
lvm vgscan --ignorelockingfailure
echo Activating logical volumes
lvm vgchange -ay --ignorelockingfailure  VolGroup00
resume /dev/VolGroup00/LogVol01
echo Creating root device.
mkrootdev -t ext3 -o defaults,ro /dev/VolGroup00/LogVol00
echo Mounting root filesystem.
mount /sysroot
setuproot
switchroot
"#],
        has_builtin_list: false,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /etc/redhat-release
CentOS release 5.11 (Final)
== /etc/fstab
/dev/VolGroup00/LogVol00 / ext3 defaults 1 1
/dev/sda1 /boot ext3 defaults 1 2
/dev/VolGroup00/LogVol01 swap swap defaults 0 0
== /etc/lvm/lvm.conf
devices {
    filter = [ "a|/dev/cciss/|", "r|.*|" ]
}
== /etc/blkid/blkid.tab
<device TYPE="ext3">/dev/sda1</device>
== /etc/sysconfig/grub
boot=/dev/sda
forcelba=0
== /boot/grub/grub.conf
default=0
timeout=5
hiddenmenu
title CentOS (2.6.18-419.el5)
	root (hd0,0)
	kernel /vmlinuz-2.6.18-419.el5 ro root=/dev/VolGroup00/LogVol00 rhgb quiet
	initrd /initrd-2.6.18-419.el5.img
"#;
    system(guest, X86_64, "", files)
}

/// RHEL 6 that starts from a disk of the storage network by several paths.
pub(crate) fn rhel_6_on_multipath() -> PhonyGuest {
    let guest = mbr([root(Ext4), swap()]);
    PhonyImage {
        version: "2.6.32-754.35.1.el6.x86_64",
        initramfs: "initramfs-{}.img",
        usr: "",
        inside: &["scsi_mod", "sd_mod"],
        files: &[r#"
== init
#!/bin/sh
== lib/dracut-lib.sh
== etc/multipath.conf
defaults {
	user_friendly_names yes
}
== etc/multipath/bindings
mpatha 360060e8007c3a4000030c3a400001b2f
== initqueue-finished/devexists-\x2fdev\x2fmapper\x2fmpathap1.sh
[ -e "/dev/mapper/mpathap1" ]
"#],
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /etc/redhat-release
Red Hat Enterprise Linux Server release 6.10 (Santiago)
== /etc/fstab
/dev/mapper/mpathap1 / ext4 defaults 1 1
/dev/mapper/mpathap2 swap swap defaults 0 0
== /etc/multipath.conf
defaults {
	user_friendly_names yes
}
blacklist {
	devnode "^cciss"
}
== /etc/multipath/bindings
mpatha 360060e8007c3a4000030c3a400001b2f
== /boot/grub/grub.conf
#boot=/dev/mapper/mpatha
default=0
timeout=5
title RHEL 6
	root (hd0,0)
	kernel /boot/vmlinuz-2.6.32-754.35.1.el6.x86_64 ro root=/dev/mapper/mpathap1 rd_NO_LUKS rd_NO_MD rd_NO_LVM crashkernel=128M@0M
	initrd /boot/initramfs-2.6.32-754.35.1.el6.x86_64.img
== /etc/udev/rules.d/70-persistent-net.rules
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="00:21:5e:0a:00:01", ATTR{type}=="1", KERNEL=="eth*", NAME="eth0"
== /etc/sysconfig/network-scripts/ifcfg-eth0
DEVICE="eth0"
HWADDR="00:21:5E:0A:00:01"
NM_CONTROLLED="no"
ONBOOT="yes"
IPADDR=10.9.6.4
PREFIX=24
== /etc/rc3.d/S06multipathd
"#;
    system(guest, X86_64, GENERATOR, files)
}

/// CentOS 7 with everything on mirrors of md, written for two disks that are named.
pub(crate) fn centos_7_on_md() -> PhonyGuest {
    let members = || [member(MdMember), volume(MdMember, DATA)];
    let mut guest = mbr(members());
    guest.add_disk(None, TableKind::Mbr, members().into());
    guest.mirror(1, &["md126", "md/boot"], &boot());
    guest.mirror(2, &["md127", "md/root"], &root(Ext4));
    PhonyImage {
        version: "3.10.0-1160.118.1.el7.x86_64",
        initramfs: "initramfs-{}.img",
        suffix: ".ko.xz",
        inside: &["scsi_mod", "sd_mod", "libata", "libahci", "ahci"],
        files: &[
            DRACUT,
            "
== usr/lib/dracut/hostonly-kernel-modules.txt
ahci
== etc/mdadm.conf
DEVICE /dev/sda2 /dev/sdb2
ARRAY /dev/md127 UUID=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9 devices=/dev/sda2,/dev/sdb2
== etc/cmdline.d/90mdraid.conf
 rd.md.uuid=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9
",
        ],
        microcode: true,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /lib -> usr/lib
== /etc/os-release
ID="centos"
VERSION_ID="7"
== /etc/fstab
/dev/md127 / ext4 defaults 0 0
/dev/md/boot /boot ext4 defaults 0 0
== /etc/mdadm.conf
MAILADDR root
DEVICE /dev/sda* /dev/sdb*
ARRAY /dev/md/root level=raid1 num-devices=2 UUID=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9
== /etc/systemd/system/multi-user.target.wants/mdmonitor.service
== /etc/default/grub
GRUB_CMDLINE_LINUX="rd.md.uuid=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9 rhgb quiet"
== /boot/grub2/grub.cfg
menuentry 'CentOS Linux (3.10.0-1160.118.1.el7.x86_64) 7 (Core)' {
	set root='mduuid/9f8e7d6c5b4a39281706f5e4d3c2b1a0'
	linux16 /vmlinuz-3.10.0-1160.118.1.el7.x86_64 root=/dev/md127 ro rd.md.uuid=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9 rhgb quiet
	initrd16 /initramfs-3.10.0-1160.118.1.el7.x86_64.img
}
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// Oracle Linux 8: its own kernel beside Red Hat's, the older one is the default; disks for ASM.
pub(crate) fn oracle_8_with_two_kernels() -> PhonyGuest {
    let guest = mbr([boot(), root(Ext4)]);
    let versions = ["5.15.0-206.153.7.el8uek.x86_64", "4.18.0-553.el8_10.x86_64"];
    for version in versions {
        kernel(&guest, version, "initramfs-{}.img");
        guest.file(
            &format!("/boot/loader/entries/{MACHINE_ID}-{version}.conf"),
            format!(
                "title Oracle Linux Server 8.10 ({version})\nversion {version}\n\
                 linux /vmlinuz-{version}\ninitrd /initramfs-{version}.img\n\
                 options root=/dev/sda2 ro crashkernel=auto transparent_hugepage=never\n\
                 id ol-{version}\ngrub_class kernel\n"
            ),
        );
    }
    guest.file(
        "/boot/grub2/grubenv",
        grubenv(&format!("saved_entry={MACHINE_ID}-{}\n", versions[1])),
    );
    let files = r#"
== /etc/os-release
ID="ol"
VERSION_ID="8.10"
== /etc/fstab
/dev/sda2 / ext4 defaults 0 0
/dev/sda1 /boot ext4 defaults 0 0
== /etc/sysconfig/oracleasm
ORACLEASM_ENABLED=true
ORACLEASM_SCANORDER="emcpower"
ORACLEASM_SCANEXCLUDE="sd"
== /etc/udev/rules.d/99-oracle-asmdevices.rules
KERNEL=="sd*", SUBSYSTEM=="block", ENV{ID_SERIAL}=="360000970000197", NAME="asm-data"
== /etc/sysconfig/kernel
UPDATEDEFAULT=yes
DEFAULTKERNEL=kernel-uek
== /etc/systemd/system/multi-user.target.wants/PowerPath.service
== /boot/grub2/grub.cfg
load_env
insmod blscfg
blscfg
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// AlmaLinux 9 on NVMe with UEFI: names of NVMe disks, LVM's list of devices, a card known by MAC.
pub(crate) fn alma_9_on_nvme() -> PhonyGuest {
    let mut guest = gpt([esp(), boot(), member(Lvm2Member)]);
    guest.logical_volume(3, "almalinux/root", &root(Ext4));
    PhonyImage {
        version: "5.14.0-427.13.1.el9_4.x86_64",
        initramfs: "initramfs-{}.img",
        suffix: ".ko.xz",
        inside: &["scsi_mod", "sd_mod"],
        files: &[
            DRACUT,
            "
== usr/lib/dracut/hostonly-kernel-modules.txt
nvme
== etc/lvm/devices/system.devices
IDTYPE=sys_wwid IDNAME=eui.0025388b01000001 DEVNAME=/dev/nvme0n1p3 PVID=q8Jx2b PART=3
",
        ],
        compression: Compression::Zstd,
        microcode: true,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /lib -> usr/lib
== /etc/os-release
ID="almalinux"
VERSION_ID="9.4"
== /etc/fstab
/dev/mapper/almalinux-root / ext4 defaults 0 0
/dev/nvme0n1p2 /boot ext4 defaults 0 0
/dev/nvme0n1p1 /boot/efi vfat umask=0077,shortname=winnt 0 2
/dev/nvme1n1p1 none swap nofail 0 0
== /etc/lvm/devices/system.devices
IDTYPE=sys_wwid IDNAME=eui.0025388b01000001 DEVNAME=/dev/nvme0n1p3 PVID=q8Jx2b PART=3
== /etc/NetworkManager/system-connections/lan.nmconnection
[connection]
id=lan
type=ethernet
[ethernet]
mac-address=0C:42:A1:00:00:07
[ipv4]
method=manual
address1=10.9.9.7/24,10.9.9.1
== /etc/systemd/system/sysinit.target.wants/nvmefc-boot-connections.service
== /boot/grub2/grub.cfg
load_env
insmod blscfg
blscfg
== /boot/loader/entries/{MACHINE_ID}-5.14.0-427.13.1.el9_4.x86_64.conf
title AlmaLinux (5.14.0-427.13.1.el9_4.x86_64) 9.4
version 5.14.0-427.13.1.el9_4.x86_64
linux /vmlinuz-5.14.0-427.13.1.el9_4.x86_64
initrd /initramfs-5.14.0-427.13.1.el9_4.x86_64.img
options root=/dev/mapper/almalinux-root ro rd.lvm.lv=almalinux/root nvme_core.default_ps_max_latency_us=0
== /boot/efi/EFI/BOOT/BOOTX64.EFI shimx64.efi
== /boot/efi/EFI/almalinux/shimx64.efi shimx64.efi
== /boot/efi/EFI/almalinux/grubx64.efi grubx64.efi
== /boot/efi/EFI/almalinux/grub.cfg
search --no-floppy --fs-uuid --set=dev {BOOT}
set prefix=($dev)/grub2
configfile $prefix/grub.cfg
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// Rocky Linux 9 whose data is on XFS, and nothing there must change; much memory for crash dumps.
pub(crate) fn rocky_9_with_xfs_data() -> PhonyGuest {
    let guest = gpt([boot(), root(Ext4), volume(Xfs, DATA).at("/srv")]);
    kernel(&guest, "5.14.0-503.el9.x86_64", "initramfs-{}.img");
    let files = r#"
== /etc/os-release
ID="rocky"
VERSION_ID="9.5"
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 0
UUID={BOOT} /boot ext4 defaults 0 0
/dev/disk/by-id/wwn-0x5000c500a1b2c3d4-part3 /srv xfs noatime 0 0
== /etc/kdump.conf
path /var/crash
core_collector makedumpfile -l -d 31
== /etc/systemd/system/multi-user.target.wants/kdump.service
== /boot/grub2/grub.cfg
menuentry 'Rocky Linux' {
	linux /vmlinuz-5.14.0-503.el9.x86_64 root=UUID={ROOT} ro crashkernel=1G-2G:192M,2G-:2G
	initrd /initramfs-5.14.0-503.el9.x86_64.img
}
== /srv/pgdata/PG_VERSION
15
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// RHEL 10: entries for kernels of kernel-install on a FAT `/boot`, zstd modules, keyfiles only.
pub(crate) fn rhel_10() -> PhonyGuest {
    let guest = gpt([esp().at("/boot"), root(Ext4)]);
    PhonyImage {
        version: "6.12.0-55.9.1.el10_0.x86_64",
        kernel: LINUX,
        initramfs: "5be0c1d2a3f44f6e8b7a9c0d1e2f3a4b/{}/initrd",
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &[
            DRACUT,
            "
== usr/lib/dracut/hostonly-kernel-modules.txt
nvme
== etc/cmdline.d/20-root-dev.conf
 root=/dev/nvme0n1p2 rootfstype=ext4
",
        ],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /lib -> usr/lib
== /etc/os-release
ID="rhel"
VERSION_ID="10.0"
== /etc/kernel/cmdline
root=/dev/nvme0n1p2 ro quiet
== /etc/NetworkManager/system-connections/enp129s0f1np1.nmconnection
[connection]
id=enp129s0f1np1
type=ethernet
interface-name=enp129s0f1np1
[ipv4]
method=manual
address1=10.9.10.4/24
== /etc/fstab
/dev/nvme0n1p2 / ext4 defaults 0 1
UUID={ESP} /boot vfat umask=0077 0 2
== /boot/EFI/BOOT/BOOTX64.EFI systemd-boot
== /boot/EFI/systemd/systemd-bootx64.efi systemd-boot
== /boot/loader/loader.conf
timeout 3
== /boot/loader/entries/{MACHINE_ID}-6.12.0-55.9.1.el10_0.x86_64.conf
title Linux
machine-id {MACHINE_ID}
options root=/dev/nvme0n1p2 ro quiet
linux /{MACHINE_ID}/6.12.0-55.9.1.el10_0.x86_64/linux
linux /{MACHINE_ID}/6.12.0-55.9.1.el10_0.x86_64/linux
initrd /{MACHINE_ID}/6.12.0-55.9.1.el10_0.x86_64/initrd
"#;
    system(guest, X86_64, SYSTEMD, files)
}
