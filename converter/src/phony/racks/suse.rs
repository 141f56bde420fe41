// SPDX-License-Identifier: MIT OR Apache-2.0
//! SUSE Linux Enterprise Server and openSUSE.

use disk::filesystem::FilesystemKind;
use image_library::DiskIndex;

use super::{
    BOOT, ESP, GENERATOR, LINKS, MACHINE_ID, MEMBER, ROOT, SWAP, SYSTEMD, X86_64, bios_with,
    dracut, grub_entry, install, put, systemd_boot,
};
use crate::guest::compression::Compression;
use crate::inspect::{AssembledKind, TableKind, VolumeId};
use crate::phony::image::{PhonyImage, with_btrfs};
use crate::phony::loaders::kernel;
use crate::phony::{Node, PhonyGuest, link, volume};

const DISK: &str = "/dev/disk/by-id/scsi-3600605b00a1b2c3d1f2e3d4c5b6a7988";

/// SLES 12 on LVM, whose filter and initramfs know the physical volume by-id only.
pub(crate) fn sles_12_on_lvm() -> PhonyGuest {
    let mut guest = bios_with(FilesystemKind::Lvm2Member, MEMBER);
    let member = [VolumeId::on_disk(DiskIndex(0), Some(2))];
    let kind = AssembledKind::LogicalVolume;
    let nodes = ["system/root", "mapper/system-root"];
    let root = &guest.assemble(kind, &nodes, &member, &volume(FilesystemKind::Ext4, ROOT));
    let nodes = ["system/swap", "mapper/system-swap"];
    guest.assemble(kind, &nodes, &member, &volume(FilesystemKind::Swap, SWAP));
    let boot = guest.partition(1);
    root.put("/boot", Node::Directory);
    let lvm_conf = format!("devices {{\n    filter = [ \"a|{DISK}-part2|\", \"r|.*|\" ]\n}}\n");
    let version = "4.12.14-122.189-default";
    PhonyImage {
        version,
        kernel: &format!("vmlinuz-{version}"),
        initramfs: &format!("initrd-{version}"),
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("lib/dracut/hostonly-kernel-modules.txt", "megaraid_sas\n"),
            ("etc/lvm/lvm.conf", &lvm_conf),
            ("etc/cmdline.d/95resume.conf", " resume=/dev/system/swap\n"),
            (
                r"etc/systemd/system/initrd.target.wants/dev-mapper-system\x2droot.device",
                r"-> ../dev-mapper-system\x2droot.device",
            ),
        ],
        compression: Compression::Xz,
        ..PhonyImage::default()
    }
    .put(boot, "", root);
    grub_entry(
        boot,
        "/grub2/grub.cfg",
        "SLES 12-SP5",
        &format!(
            "/vmlinuz-{version} root=/dev/mapper/system-root \
         resume=/dev/system/swap splash=silent quiet showopts"
        ),
        &format!("/initrd-{version}"),
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=\"sles\"\nVERSION_ID=\"12.5\"\n"),
            ("/etc/lvm/lvm.conf", &lvm_conf),
            (
                "/etc/default/grub_installdevice",
                "/dev/disk/by-id/scsi-3600605b00a1b2c3d1f2e3d4c5b6a7988\nactivate\n",
            ),
            (
                "/etc/sysconfig/network/ifcfg-em1",
                "BOOTPROTO='static'\nIPADDR='10.9.12.5/24'\nLLADDR='18:66:da:00:00:05'\nSTARTMODE='auto'\n",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/instsvcdrv.service",
                "",
            ),
        ],
    );
    root.file(
        "/etc/fstab",
        format!(
            "/dev/system/swap swap swap defaults 0 0\n/dev/system/root / ext4 acl,user_xattr 1 1\n\
             {DISK}-part1 /boot ext4 acl,user_xattr 1 2\n"
        ),
    );
    guest
}

/// SLES 11 with UEFI: ELILO, whose kernels are copies on the EFI system partition.
pub(crate) fn sles_11_with_elilo() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Gpt,
        vec![super::esp(), volume(FilesystemKind::Ext3, ROOT)],
    );
    let (esp, root) = (guest.partition(1), guest.partition(2));
    root.put("/boot/efi", Node::Directory);
    let version = "3.0.101-108-default";
    kernel(root, "/boot", root, version, &format!("initrd-{version}"));
    let elilo = "timeout = 80\nprompt\ndefault = linux\n\nimage = vmlinuz\n    label = linux\n    \
        initrd = initrd\n    root = /dev/sda2\n    append = \"splash=silent showopts\"\n    read-only\n";
    put(
        esp,
        &[
            ("/efi/SuSE/elilo.efi", "elilo"),
            ("/efi/SuSE/elilo.conf", elilo),
            ("/efi/SuSE/vmlinuz", "kernel"),
            ("/efi/SuSE/initrd", "initrd"),
        ],
    );
    install(
        root,
        X86_64,
        &[
            GENERATOR,
            (
                "/etc/SuSE-release",
                "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n",
            ),
            ("/etc/elilo.conf", elilo),
            ("/etc/sysconfig/bootloader", "LOADER_TYPE=\"elilo\"\n"),
        ],
    );
    root.file(
        "/etc/fstab",
        format!("/dev/sda2 / ext3 acl 1 1\nUUID={ESP} /boot/efi vfat umask=0002 0 0\n"),
    );
    guest
}

/// Tumbleweed with systemd-boot, as its newer installers set it up.
pub(crate) fn tumbleweed_with_systemd_boot() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Gpt,
        vec![
            super::esp(),
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Swap, SWAP),
        ],
    );
    let (esp, root) = (guest.partition(1), guest.partition(2));
    root.put("/boot/efi", Node::Directory);
    let version = "6.11.8-1-default";
    PhonyImage {
        version,
        kernel: &format!("{MACHINE_ID}/{version}/linux"),
        initramfs: &format!("{MACHINE_ID}/{version}/initrd"),
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &dracut("ahci\n", &[]),
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(esp, "", root);
    link(root, "/lib", "usr/lib");
    systemd_boot(
        esp,
        &format!("opensuse-tumbleweed-{version}-1"),
        &format!(
            "root=UUID={ROOT} resume=/dev/disk/by-path/pci-0000:00:17.0-ata-1-part3 splash=silent quiet"
        ),
        [&format!("{version}/linux"), &format!("{version}/initrd")],
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            (
                "/etc/os-release",
                "ID=\"opensuse-tumbleweed\"\nVERSION_ID=\"20241115\"\n",
            ),
            (
                "/etc/kernel/cmdline",
                "root=UUID=b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c02 \
                 resume=/dev/disk/by-path/pci-0000:00:17.0-ata-1-part3 quiet\n",
            ),
        ],
    );
    root.file(
        "/etc/fstab",
        format!("UUID={ROOT} / ext4 defaults 0 1\nUUID={ESP} /boot/efi vfat utf8 0 2\n"),
    );
    guest
}

/// Leap as its installer leaves it: the root is a snapshot of btrfs, everything named by UUID. What
/// must change is on btrfs alone.
pub(crate) fn leap_with_snapshots() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Gpt,
        vec![
            volume(FilesystemKind::Btrfs, ROOT),
            volume(FilesystemKind::Swap, SWAP),
        ],
    );
    let root = guest.partition(1);
    let version = "6.4.0-150600.23-default";
    PhonyImage {
        version,
        kernel: &format!("vmlinuz-{version}"),
        initramfs: &format!("initrd-{version}"),
        modules: &with_btrfs(),
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &dracut("ahci\n", &[]),
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(root, "/boot", root);
    link(root, "/lib", "usr/lib");
    root.file(
        "/boot/grub2/grub.cfg",
        format!(
            "set btrfs_relative_path=\"yes\"\nmenuentry 'openSUSE Leap 15.6' {{\n\
             \tlinux /boot/vmlinuz-{version} root=UUID={ROOT} splash=silent quiet\n\
             \tinitrd /boot/initrd-{version}\n}}\n"
        ),
    );
    put(root, &[("/boot/grub2/i386-pc/normal.mod", "")]);
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            (
                "/etc/os-release",
                "ID=\"opensuse-leap\"\nVERSION_ID=\"15.6\"\n",
            ),
            (
                "/etc/snapper/configs/root",
                "SUBVOLUME=\"/\"\nFSTYPE=\"btrfs\"\n",
            ),
        ],
    );
    root.file(
        "/etc/fstab",
        format!("UUID={ROOT} / btrfs defaults 0 0\nUUID={SWAP} swap swap defaults 0 0\n"),
    );
    guest
}

/// SLES 15 for a database whose data is on multipath: which of two disks that is, nothing tells
/// without a description of the machine.
pub(crate) fn sles_15_with_data_on_multipath() -> PhonyGuest {
    let mut guest = bios_with(FilesystemKind::Ext4, ROOT);
    guest.add_disk(
        None,
        TableKind::Gpt,
        vec![volume(FilesystemKind::Ext4, super::DATA)],
    );
    let (boot, root) = (guest.partition(1), guest.partition(2));
    root.put("/boot", Node::Directory);
    let version = "5.14.21-150500.55.52-default";
    kernel(boot, "", root, version, &format!("initrd-{version}"));
    grub_entry(
        boot,
        "/grub2/grub.cfg",
        "SLES 15-SP5",
        &format!(
            "/vmlinuz-{version} \
         root=/dev/disk/by-path/pci-0000:02:00.0-scsi-0:2:0:0-part2 quiet"
        ),
        &format!("/initrd-{version}"),
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=\"sles\"\nVERSION_ID=\"15.5\"\n"),
            (
                "/etc/multipath.conf",
                "multipaths {\n\tmultipath {\n\t\twwid 3600507680c80811ad8000000000001b2\n\
                 \t\talias hana_data\n\t}\n}\n",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/multipathd.service",
                "",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/hp-asrd.service",
                "",
            ),
        ],
    );
    root.file(
        "/etc/fstab",
        format!(
            "UUID={ROOT} / ext4 defaults 0 1\nUUID={BOOT} /boot ext4 defaults 0 2\n\
             /dev/mapper/hana_data-part1 /hana/data ext4 defaults 0 2\n"
        ),
    );
    guest
}
