// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian and what is built from it.

use disk::filesystem::FilesystemKind::{Ext2, Ext3, Ext4, Luks, Lvm2Member, MdMember};

use super::{BOOT, DATA, I386, LINUX, SWAP, X86_64, boot, esp, member, root, swap, system};
use crate::guest::compression::Compression;
use crate::inspect::{PartitionPurpose, TableKind};
use crate::phony::image::PhonyImage;
use crate::phony::loaders::kernel;
use crate::phony::{GENERATOR, PhonyGuest, PhonyVolume, SYSTEMD, gpt, mbr, volume};

/// Debian 6 for i386: GRUB legacy with the comments that `update-grub` reads, disks on IDE.
pub(crate) fn debian_6_i386_on_ide() -> PhonyGuest {
    let guest = mbr([root(Ext3), swap()]);
    PhonyImage {
        version: "2.6.32-5-686",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "libata"],
        files: &["
== init
#!/bin/sh
== conf/initramfs.conf
MODULES=dep
== conf/modules
ide-generic
== conf/conf.d/resume
RESUME=/dev/hda2
"],
        has_builtin_list: false,
        config: "CONFIG_X86_32=y\n",
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = "
== /etc/debian_version
6.0.10
== /etc/fstab
proc /proc proc defaults 0 0
/dev/hda1 / ext3 errors=remount-ro 0 1
/dev/hda2 none swap sw 0 0
/dev/hdc /media/cdrom0 udf,iso9660 user,noauto 0 0
== /boot/grub/menu.lst
default		0
timeout		5
### BEGIN AUTOMAGIC KERNELS LIST
# kopt=root=/dev/hda1 ro
# groot=(hd0,0)
# defoptions=quiet
## ## End Default Options ##

title		Debian GNU/Linux, kernel 2.6.32-5-686
root		(hd0,0)
kernel		/boot/vmlinuz-2.6.32-5-686 root=/dev/hda1 ro quiet
initrd		/boot/initrd.img-2.6.32-5-686

### END DEBIAN AUTOMAGIC KERNELS LIST
== /boot/grub/device.map
(hd0)	/dev/hda
== /etc/initramfs-tools/modules
ide-generic
== /etc/initramfs-tools/conf.d/resume
RESUME=/dev/hda2
== /etc/network/interfaces
auto lo eth0
iface lo inet loopback
iface eth0 inet static
	address 10.9.1.6
	netmask 255.255.255.0
	gateway 10.9.1.1
== /etc/hdparm.conf
/dev/hda {
	dma = on
}
";
    system(guest, I386, GENERATOR, files)
}

/// Debian 7 on an array with metadata 0.90, whose initramfs names its members.
pub(crate) fn debian_7_on_md() -> PhonyGuest {
    let mut guest = mbr([member(MdMember)]);
    guest.add_disk(None, TableKind::Mbr, vec![member(MdMember)]);
    guest.mirror(1, &["md0"], &root(Ext4));
    PhonyImage {
        version: "3.2.0-6-amd64",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "libata", "libahci", "ahci"],
        files: &["
== init
#!/bin/sh
== conf/initramfs.conf
MODULES=most
== etc/mdadm/mdadm.conf
DEVICE /dev/sda1 /dev/sdb1
ARRAY /dev/md0 UUID=11223344:55667788:99aabbcc:ddeeff00
"],
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = "
== /etc/debian_version
7.11
== /etc/fstab
/dev/md0 / ext4 errors=remount-ro 0 1
/dev/sdc1 /backup ext4 noauto 0 0
== /etc/mdadm/mdadm.conf
DEVICE /dev/sda1 /dev/sdb1
ARRAY /dev/md0 UUID=11223344:55667788:99aabbcc:ddeeff00
== /boot/grub/grub.cfg
menuentry 'Debian GNU/Linux' {
	insmod raid
	insmod mdraid09
	set root='(mduuid/112233445566778899aabbccddeeff00)'
	linux /boot/vmlinuz-3.2.0-6-amd64 root=/dev/md0 ro quiet
	initrd /boot/initrd.img-3.2.0-6-amd64
}
== /etc/rc2.d/S02mdadm
== /etc/rc2.d/S18mpt-statusd
";
    system(guest, X86_64, GENERATOR, files)
}

/// Debian 11 on LVM with UEFI, whose loader only the firmware's memory names.
pub(crate) fn debian_11_on_lvm() -> PhonyGuest {
    let mut guest = gpt([esp(), boot(), member(Lvm2Member)]);
    guest.logical_volume(3, "vg-db/root", &root(Ext4));
    guest.logical_volume(3, "vg-db/swap_1", &swap());
    PhonyImage {
        version: "5.10.0-33-amd64",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &["
== init
#!/bin/sh
== conf/initramfs.conf
MODULES=dep
== conf/conf.d/resume
RESUME=/dev/mapper/vg--db-swap_1
"],
        compression: Compression::Zstd,
        microcode: true,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /lib -> usr/lib
== /etc/os-release
ID=debian
VERSION_ID="11"
== /etc/fstab
/dev/mapper/vg--db-root / ext4 errors=remount-ro 0 1
/dev/sda2 /boot ext4 defaults 0 2
/dev/sda1 /boot/efi vfat umask=0077 0 1
/dev/mapper/vg--db-swap_1 none swap sw 0 0
== /etc/initramfs-tools/conf.d/resume
RESUME=/dev/mapper/vg--db-swap_1
== /etc/initramfs-tools/modules
== /boot/grub/grub.cfg
menuentry 'Debian GNU/Linux' {
	linux /vmlinuz-5.10.0-33-amd64 root=/dev/mapper/vg--db-root ro quiet
	initrd /initrd.img-5.10.0-33-amd64
}
== /boot/efi/EFI/debian/shimx64.efi shimx64.efi
== /boot/efi/EFI/debian/grubx64.efi grubx64.efi
== /boot/efi/EFI/debian/mmx64.efi mmx64.efi
== /boot/efi/EFI/debian/grub.cfg
search.fs_uuid {BOOT} root hd0,gpt2
set prefix=($root)'/grub'
configfile $prefix/grub.cfg
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// Debian 12 with systemd-boot: kernels where kernel-install puts them, arguments in a file.
pub(crate) fn debian_12_with_systemd_boot() -> PhonyGuest {
    let guest = gpt([esp(), root(Ext4)]);
    PhonyImage {
        version: "6.1.0-28-amd64",
        kernel: LINUX,
        initramfs: "5be0c1d2a3f44f6e8b7a9c0d1e2f3a4b/{}/initrd.img-{}",
        inside: &["scsi_mod", "sd_mod", "libata", "libahci", "ahci"],
        files: &["
== init
#!/bin/sh
== conf/initramfs.conf
MODULES=most
"],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot/efi");
    let files = r#"
== /lib -> usr/lib
== /etc/os-release
ID=debian
VERSION_ID="12"
== /etc/kernel/cmdline
root=/dev/sda2 ro quiet
== /etc/initramfs-tools/modules
== /etc/fstab
/dev/sda2 / ext4 errors=remount-ro 0 1
UUID={ESP} /boot/efi vfat umask=0077 0 1
== /boot/efi/EFI/BOOT/BOOTX64.EFI systemd-boot
== /boot/efi/EFI/systemd/systemd-bootx64.efi systemd-boot
== /boot/efi/loader/loader.conf
timeout 3
== /boot/efi/loader/entries/{MACHINE_ID}-6.1.0-28-amd64.conf
title Linux
machine-id {MACHINE_ID}
options root=/dev/sda2 ro quiet systemd.machine_id={MACHINE_ID}
linux /{MACHINE_ID}/6.1.0-28-amd64/linux
initrd /{MACHINE_ID}/6.1.0-28-amd64/initrd.img-6.1.0-28-amd64
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// Proxmox VE 8: a bridge that knows VLANs over a bond, a watchdog, filters of LVM for its guests.
pub(crate) fn proxmox_8() -> PhonyGuest {
    let bios_boot = PhonyVolume {
        purpose: PartitionPurpose::BiosBoot,
        ..volume(Ext2, BOOT)
    };
    let mut guest = gpt([bios_boot, volume(Ext4, DATA), member(Lvm2Member)]);
    guest.logical_volume(3, "pve/root", &root(Ext4));
    kernel(&guest, "6.8.12-4-pve", "initrd.img-{}");
    let files = r#"
== /boot/grub/grub.cfg
menuentry 'Proxmox VE GNU/Linux' {
	linux /boot/vmlinuz-6.8.12-4-pve root=/dev/mapper/pve-root ro quiet intel_iommu=on
	initrd /boot/initrd.img-6.8.12-4-pve
}
== /etc/os-release
ID=debian
VERSION_ID="12"
== /etc/fstab
/dev/pve/root / ext4 errors=remount-ro 0 1
/dev/disk/by-path/pci-0000:41:00.0-nvme-1-part2 /var/lib/vz ext4 defaults 0 2
== /etc/lvm/lvm.conf
devices {
     global_filter=["r|/dev/zd.*|","r|/dev/rbd.*|","a|/dev/nvme0n1p3|","r|.*|"]
}
== /etc/network/interfaces
auto lo
iface lo inet loopback
iface eno1np0 inet manual
iface eno2np1 inet manual
auto bond0
iface bond0 inet manual
	bond-slaves eno1np0 eno2np1
	bond-mode 802.3ad
auto vmbr0
iface vmbr0 inet static
	address 10.9.30.2/24
	gateway 10.9.30.1
	bridge-ports bond0
	bridge-stp off
	bridge-vlan-aware yes
	bridge-vids 2-4094
auto vmbr0.40
iface vmbr0.40 inet static
	address 10.9.40.2/24
== /etc/systemd/system/multi-user.target.wants/watchdog-mux.service
== /etc/systemd/system/multi-user.target.wants/smartmontools.service
== /etc/default/grub.d/iommu.cfg
GRUB_CMDLINE_LINUX="intel_iommu=on"
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// Debian 10 whose data is encrypted with a key beside the system, and with one on a stick.
pub(crate) fn debian_10_with_encrypted_data() -> PhonyGuest {
    let guest = mbr([root(Ext4), volume(Luks, DATA), volume(Luks, SWAP)]);
    kernel(&guest, "4.19.0-27-amd64", "initrd.img-{}");
    let files = r#"
== /boot/grub/grub.cfg
menuentry 'Debian' {
	linux /boot/vmlinuz-4.19.0-27-amd64 root=UUID={ROOT} ro
	initrd /boot/initrd.img-4.19.0-27-amd64
}
== /etc/os-release
ID=debian
VERSION_ID="10"
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
/dev/mapper/data /srv ext4 defaults 0 2
/dev/mapper/vault /vault ext4 nofail 0 2
== /etc/crypttab
# name device key options
data /dev/sda2 /etc/keys/data luks,discard
vault /dev/disk/by-id/ata-ST4000NM0035_ZC1-part3 /dev/disk/by-id/usb-Key_1-0:0-part1:/vault luks,nofail
"#;
    system(guest, X86_64, SYSTEMD, files)
}
