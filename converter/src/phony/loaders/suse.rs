// SPDX-License-Identifier: MIT OR Apache-2.0
//! SUSE Linux Enterprise Server: GRUB legacy with names by-id, GRUB 2, its own names of loaders.

use super::{BOOT, ESP, ROOT, SWAP, base, bios, kernel, uefi};
use crate::phony::{Node, PhonyGuest};

const DISK: &str = "/dev/disk/by-id/scsi-3600508b1001c3ac1a7e5d1c9f4e2b6a7";

/// SLES 11: everything is named by-id.
pub(crate) fn sles_11() -> PhonyGuest {
    let guest = bios();
    let (boot, root) = (guest.partition(1), guest.partition(2));
    base(
        root,
        None,
        &format!(
            "{DISK}-part2 / ext3 acl 1 1\n{DISK}-part1 /boot ext3 acl 1 2\n{DISK}-part3 swap swap defaults 0 0\n"
        ),
    );
    root.put("/boot", Node::Directory);
    root.file(
        "/etc/sysconfig/bootloader",
        format!(
            "LOADER_TYPE=\"grub\"\nDEFAULT_APPEND=\"resume={DISK}-part3 splash=silent quiet showopts\"\n\
             FAILSAFE_APPEND=\"showopts noresume nomodeset\"\n"
        ),
    );
    root.file("/etc/sysconfig/kernel", "INITRD_MODULES=\"cciss\"\n");
    let version = "3.0.101-63-default";
    boot.file(
        "/grub/menu.lst",
        format!(
            "# Modified by YaST2.\ndefault 0\ntimeout 8\ngfxmenu (hd0,0)/message\n\n\
             ###Don't change this comment - YaST2 identifier: Original name: linux###\n\
             title SUSE Linux Enterprise Server 11 SP4 - {version}\n    root (hd0,0)\n\
             \x20   kernel /vmlinuz-{version} root={DISK}-part2 resume={DISK}-part3 splash=silent showopts\n\
             \x20   initrd /initrd-{version}\n\n\
             title Failsafe\n    root (hd0,0)\n\
             \x20   kernel /vmlinuz-{version} root={DISK}-part2 showopts noresume console=ttyS0,9600\n\
             \x20   initrd /initrd-{version}\n"
        ),
    );
    boot.file("/grub/device.map", format!("(hd0)\t{DISK}\n"));
    kernel(boot, "", root, version, &format!("initrd-{version}"));
    guest
}

fn grub_cfg(version: &str, root: &str, resume: &str) -> String {
    format!(
        "if [ \"${{next_entry}}\" ]; then\n   set default=\"${{next_entry}}\"\nelse\n\
         \x20  set default=\"${{saved_entry}}\"\nfi\n\
         menuentry 'SLES'  --class sles $menuentry_id_option 'gnulinux-simple-{ROOT}' {{\n\
         \tset root='hd0,msdos1'\n\tsearch --no-floppy --fs-uuid --set=root {BOOT}\n\
         \tlinux\t/vmlinuz-{version} root={root}  ${{extra_cmdline}} resume={resume} splash=silent quiet showopts\n\
         \tinitrd\t/initrd-{version}\n}}\n\
         submenu 'Advanced options for SLES' {{\n\
         \tmenuentry 'SLES (recovery mode)' {{\n\
         \t\tlinux\t/vmlinuz-{version} root={root} single\n\t\tinitrd\t/initrd-{version}\n\t}}\n}}\n"
    )
}

/// SLES 12 with a BIOS.
pub(crate) fn sles_12() -> PhonyGuest {
    let guest = bios();
    let (boot, root) = (guest.partition(1), guest.partition(2));
    base(
        root,
        Some(("sles", "12.5")),
        &format!("UUID={ROOT} / ext4 defaults 0 1\nUUID={BOOT} /boot ext4 defaults 0 2\n"),
    );
    root.put("/boot", Node::Directory);
    let version = "4.12.14-122.37-default";
    let resume = "/dev/disk/by-id/ata-WDC_WD10EZEX_WD-WCC3F-part3";
    boot.file("/grub2/grub.cfg", grub_cfg(version, "/dev/sda2", resume));
    boot.file(
        "/grub2/custom.cfg",
        "menuentry old {\n linux /vmlinuz-old root=/dev/sda2\n}\n",
    );
    boot.file("/grub2/device.map", "(hd0) /dev/disk/by-id/ata-WDC\n");
    root.file(
        "/etc/default/grub",
        format!(
            "GRUB_DISTRIBUTOR=\"SLES12\"\nGRUB_DEFAULT=saved\n\
             GRUB_CMDLINE_LINUX_DEFAULT=\" resume={resume} splash=silent quiet showopts\"\n\
             GRUB_CMDLINE_LINUX=\"\"\nGRUB_CMDLINE_LINUX_RECOVERY=single\n"
        ),
    );
    root.file(
        "/etc/grub.d/40_custom",
        "#!/bin/sh\nexec tail -n +3 $0\nmenuentry 'rescue' {\n\tlinux /vmlinuz-rescue root=/dev/sda2 ro\n\
         \tinitrd /initrd-rescue\n}\n",
    );
    kernel(boot, "", root, version, &format!("initrd-{version}"));
    guest
}

/// SLES 15 with UEFI, its loader known to the firmware's memory only.
pub(crate) fn sles_15() -> PhonyGuest {
    let guest = uefi();
    let (esp, boot, root) = (guest.partition(1), guest.partition(2), guest.partition(3));
    base(
        root,
        Some(("sles", "15.6")),
        &format!(
            "UUID={ROOT} / ext4 defaults 0 1\nUUID={BOOT} /boot ext4 defaults 0 2\n\
             UUID={ESP} /boot/efi vfat umask=0002 0 2\n"
        ),
    );
    root.put("/boot", Node::Directory);
    boot.put("/efi", Node::Directory);
    for name in ["shim.efi", "grub.efi", "MokManager.efi"] {
        esp.file(&format!("/EFI/sles/{name}"), name);
    }
    esp.file(
        "/EFI/sles/grub.cfg",
        format!(
            "set btrfs_relative_path=\"yes\"\nsearch --fs-uuid --set=root {BOOT}\n\
             set prefix=(${{root}})/grub2\nsource \"${{prefix}}/grub.cfg\"\n"
        ),
    );
    let version = "6.4.0-150600.21-default";
    let (root_name, swap) = (format!("UUID={ROOT}"), format!("/dev/disk/by-uuid/{SWAP}"));
    boot.file("/grub2/grub.cfg", grub_cfg(version, &root_name, &swap));
    root.file(
        "/etc/default/grub",
        "GRUB_CMDLINE_LINUX_DEFAULT=\"splash=silent quiet security=apparmor\"\n",
    );
    kernel(boot, "", root, version, &format!("initrd-{version}"));
    guest
}
