// SPDX-License-Identifier: MIT OR Apache-2.0
//! SUSE Linux Enterprise Server: GRUB legacy with names by-id, GRUB 2, its own names of loaders.

use super::{WORDS, base, bios, kernel, uefi};
use crate::phony::PhonyGuest;

/// SLES 11: everything is named by-id.
pub(crate) fn sles_11() -> PhonyGuest {
    let guest = bios();
    kernel(&guest, "3.0.101-63-default", "initrd-{}");
    let files = r#"
== /etc/fstab
/dev/disk/by-id/scsi-3600508b1001c3ac1a7e5d1c9f4e2b6a7-part2 / ext3 acl 1 1
/dev/disk/by-id/scsi-3600508b1001c3ac1a7e5d1c9f4e2b6a7-part1 /boot ext3 acl 1 2
/dev/disk/by-id/scsi-3600508b1001c3ac1a7e5d1c9f4e2b6a7-part3 swap swap defaults 0 0
== /etc/sysconfig/bootloader
LOADER_TYPE="grub"
DEFAULT_APPEND="resume=/dev/disk/by-id/scsi-3600508b1001c3ac1a7e5d1c9f4e2b6a7-part3 splash=silent quiet showopts"
FAILSAFE_APPEND="showopts noresume nomodeset"
== /etc/sysconfig/kernel
INITRD_MODULES="cciss"
== /boot/grub/menu.lst
# Modified by YaST2.
default 0
timeout 8
gfxmenu (hd0,0)/message

###Don't change this comment - YaST2 identifier: Original name: linux###
title SUSE Linux Enterprise Server 11 SP4 - 3.0.101-63-default
    root (hd0,0)
    kernel /vmlinuz-3.0.101-63-default root=/dev/disk/by-id/scsi-3600508b1001c3ac1a7e5d1c9f4e2b6a7-part2 resume=/dev/disk/by-id/scsi-3600508b1001c3ac1a7e5d1c9f4e2b6a7-part3 splash=silent showopts
    initrd /initrd-3.0.101-63-default

title Failsafe
    root (hd0,0)
    kernel /vmlinuz-3.0.101-63-default root=/dev/disk/by-id/scsi-3600508b1001c3ac1a7e5d1c9f4e2b6a7-part2 showopts noresume console=ttyS0,9600
    initrd /initrd-3.0.101-63-default
== /boot/grub/device.map
(hd0)	/dev/disk/by-id/scsi-3600508b1001c3ac1a7e5d1c9f4e2b6a7
"#;
    base(guest, files)
}

/// A configuration of GRUB 2 for a kernel, its root and where it resumes from.
fn grub_cfg(guest: &PhonyGuest, version: &str, root: &str, resume: &str) {
    let text = r#"
== /boot/grub2/grub.cfg
if [ "${next_entry}" ]; then
   set default="${next_entry}"
else
   set default="${saved_entry}"
fi
menuentry 'SLES'  --class sles $menuentry_id_option 'gnulinux-simple-{ROOT}' {
	set root='hd0,msdos1'
	search --no-floppy --fs-uuid --set=root {BOOT}
	linux	/vmlinuz-{VERSION} root={DEVICE}  ${extra_cmdline} resume={RESUME} splash=silent quiet showopts
	initrd	/initrd-{VERSION}
}
submenu 'Advanced options for SLES' {
	menuentry 'SLES (recovery mode)' {
		linux	/vmlinuz-{VERSION} root={DEVICE} single
		initrd	/initrd-{VERSION}
	}
}
"#;
    let words = [("VERSION", version), ("DEVICE", root), ("RESUME", resume)];
    guest.tree(text, &[&words[..], &WORDS[..]].concat());
}

/// SLES 12 with a BIOS.
pub(crate) fn sles_12() -> PhonyGuest {
    let guest = bios();
    let version = "4.12.14-122.37-default";
    let resume = "/dev/disk/by-id/ata-WDC_WD10EZEX_WD-WCC3F-part3";
    grub_cfg(&guest, version, "/dev/sda2", resume);
    kernel(&guest, version, "initrd-{}");
    let files = r#"
== /etc/os-release
ID="sles"
VERSION_ID="12.5"
PRETTY_NAME="sles 12.5"
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
UUID={BOOT} /boot ext4 defaults 0 2
== /etc/default/grub
GRUB_DISTRIBUTOR="SLES12"
GRUB_DEFAULT=saved
GRUB_CMDLINE_LINUX_DEFAULT=" resume=/dev/disk/by-id/ata-WDC_WD10EZEX_WD-WCC3F-part3 splash=silent quiet showopts"
GRUB_CMDLINE_LINUX=""
GRUB_CMDLINE_LINUX_RECOVERY=single
== /etc/grub.d/40_custom
#!/bin/sh
exec tail -n +3 $0
menuentry 'rescue' {
	linux /vmlinuz-rescue root=/dev/sda2 ro
	initrd /initrd-rescue
}
== /boot/grub2/custom.cfg
menuentry old {
 linux /vmlinuz-old root=/dev/sda2
}
== /boot/grub2/device.map
(hd0) /dev/disk/by-id/ata-WDC
"#;
    base(guest, files)
}

/// SLES 15 with UEFI, its loader known to the firmware's memory only.
pub(crate) fn sles_15() -> PhonyGuest {
    let guest = uefi();
    let version = "6.4.0-150600.21-default";
    grub_cfg(&guest, version, "UUID={ROOT}", "/dev/disk/by-uuid/{SWAP}");
    kernel(&guest, version, "initrd-{}");
    let files = r#"
== /etc/os-release
ID="sles"
VERSION_ID="15.6"
PRETTY_NAME="sles 15.6"
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
UUID={BOOT} /boot ext4 defaults 0 2
UUID={ESP} /boot/efi vfat umask=0002 0 2
== /etc/default/grub
GRUB_CMDLINE_LINUX_DEFAULT="splash=silent quiet security=apparmor"
== /boot/efi/EFI/sles/shim.efi shim.efi
== /boot/efi/EFI/sles/grub.efi grub.efi
== /boot/efi/EFI/sles/MokManager.efi MokManager.efi
== /boot/efi/EFI/sles/grub.cfg
set btrfs_relative_path="yes"
search --fs-uuid --set=root {BOOT}
set prefix=(${root})/grub2
source "${prefix}/grub.cfg"
"#;
    base(guest, files)
}
