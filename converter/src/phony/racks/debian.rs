// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian and what is built from it.

use disk::filesystem::FilesystemKind;
use image_library::DiskIndex;

use super::{
    BOOT, DATA, ESP, GENERATOR, I386, LINKS, MACHINE_ID, MEMBER, REMOVABLE, ROOT, SWAP, SYSTEMD,
    X86_64, esp_and_root, grub_entry, install, plain, put, systemd_boot, uefi_with,
};
use crate::guest::compression::Compression;
use crate::inspect::{AssembledKind, PartitionPurpose, TableKind, VolumeId};
use crate::phony::image::PhonyImage;
use crate::phony::loaders::kernel;
use crate::phony::{Node, PhonyGuest, PhonyVolume, link, volume};

/// Debian 6 for i386: GRUB legacy with the comments that `update-grub` reads, disks on IDE.
pub(crate) fn debian_6_i386_on_ide() -> PhonyGuest {
    let guest = plain(FilesystemKind::Ext3);
    let root = guest.partition(1);
    PhonyImage {
        version: "2.6.32-5-686",
        kernel: "vmlinuz-2.6.32-5-686",
        initramfs: "initrd.img-2.6.32-5-686",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "libata"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("conf/initramfs.conf", "MODULES=dep\n"),
            ("conf/modules", "ide-generic\n"),
            ("conf/conf.d/resume", "RESUME=/dev/hda2\n"),
        ],
        has_builtin_list: false,
        config: "CONFIG_X86_32=y\n",
        ..PhonyImage::default()
    }
    .put(root, "/boot", root);
    install(
        root,
        I386,
        &[
            GENERATOR,
            ("/etc/debian_version", "6.0.10\n"),
            (
                "/etc/fstab",
                "proc /proc proc defaults 0 0\n/dev/hda1 / ext3 errors=remount-ro 0 1\n\
                 /dev/hda2 none swap sw 0 0\n/dev/hdc /media/cdrom0 udf,iso9660 user,noauto 0 0\n",
            ),
            (
                "/boot/grub/menu.lst",
                "default\t\t0\ntimeout\t\t5\n### BEGIN AUTOMAGIC KERNELS LIST\n# kopt=root=/dev/hda1 ro\n\
                 # groot=(hd0,0)\n# defoptions=quiet\n## ## End Default Options ##\n\n\
                 title\t\tDebian GNU/Linux, kernel 2.6.32-5-686\nroot\t\t(hd0,0)\n\
                 kernel\t\t/boot/vmlinuz-2.6.32-5-686 root=/dev/hda1 ro quiet\n\
                 initrd\t\t/boot/initrd.img-2.6.32-5-686\n\n### END DEBIAN AUTOMAGIC KERNELS LIST\n",
            ),
            ("/boot/grub/device.map", "(hd0)\t/dev/hda\n"),
            ("/etc/initramfs-tools/modules", "ide-generic\n"),
            ("/etc/initramfs-tools/conf.d/resume", "RESUME=/dev/hda2\n"),
            (
                "/etc/network/interfaces",
                "auto lo eth0\niface lo inet loopback\niface eth0 inet static\n\taddress 10.9.1.6\n\
                 \tnetmask 255.255.255.0\n\tgateway 10.9.1.1\n",
            ),
            ("/etc/hdparm.conf", "/dev/hda {\n\tdma = on\n}\n"),
        ],
    );
    guest
}

/// Debian 7 on an array with metadata 0.90, whose initramfs names its members.
pub(crate) fn debian_7_on_md() -> PhonyGuest {
    let members = || vec![volume(FilesystemKind::MdMember, MEMBER)];
    let mut guest = PhonyGuest::new(TableKind::Mbr, members());
    guest.add_disk(None, TableKind::Mbr, members());
    let parts = [0, 1].map(|disk| VolumeId::on_disk(DiskIndex(disk), Some(1)));
    let content = volume(FilesystemKind::Ext4, ROOT);
    let root = &guest.assemble(AssembledKind::MdArray, &["md0"], &parts, &content);
    PhonyImage {
        version: "3.2.0-6-amd64",
        kernel: "vmlinuz-3.2.0-6-amd64",
        initramfs: "initrd.img-3.2.0-6-amd64",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "libata", "libahci", "ahci"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("conf/initramfs.conf", "MODULES=most\n"),
            (
                "etc/mdadm/mdadm.conf",
                "DEVICE /dev/sda1 /dev/sdb1\nARRAY /dev/md0 UUID=11223344:55667788:99aabbcc:ddeeff00\n",
            ),
        ],
        ..PhonyImage::default()
    }
    .put(root, "/boot", root);
    install(
        root,
        X86_64,
        &[
            GENERATOR,
            ("/etc/debian_version", "7.11\n"),
            (
                "/etc/fstab",
                "/dev/md0 / ext4 errors=remount-ro 0 1\n/dev/sdc1 /backup ext4 noauto 0 0\n",
            ),
            (
                "/etc/mdadm/mdadm.conf",
                "DEVICE /dev/sda1 /dev/sdb1\nARRAY /dev/md0 UUID=11223344:55667788:99aabbcc:ddeeff00\n",
            ),
            (
                "/boot/grub/grub.cfg",
                "menuentry 'Debian GNU/Linux' {\n\tinsmod raid\n\tinsmod mdraid09\n\
                 \tset root='(mduuid/112233445566778899aabbccddeeff00)'\n\
                 \tlinux /boot/vmlinuz-3.2.0-6-amd64 root=/dev/md0 ro quiet\n\
                 \tinitrd /boot/initrd.img-3.2.0-6-amd64\n}\n",
            ),
            ("/etc/rc2.d/S02mdadm", ""),
            ("/etc/rc2.d/S18mpt-statusd", ""),
        ],
    );
    guest
}

/// Debian 11 on LVM with UEFI, whose loader only the firmware's memory names.
pub(crate) fn debian_11_on_lvm() -> PhonyGuest {
    let mut guest = uefi_with(FilesystemKind::Lvm2Member, MEMBER);
    let member = [VolumeId::on_disk(DiskIndex(0), Some(3))];
    let kind = AssembledKind::LogicalVolume;
    let nodes = ["vg-db/root", "mapper/vg--db-root"];
    let root = &guest.assemble(kind, &nodes, &member, &volume(FilesystemKind::Ext4, ROOT));
    let nodes = ["vg-db/swap_1", "mapper/vg--db-swap_1"];
    guest.assemble(kind, &nodes, &member, &volume(FilesystemKind::Swap, SWAP));
    let (esp, boot) = (guest.partition(1), guest.partition(2));
    root.put("/boot", Node::Directory);
    boot.put("/efi", Node::Directory);
    PhonyImage {
        version: "5.10.0-33-amd64",
        kernel: "vmlinuz-5.10.0-33-amd64",
        initramfs: "initrd.img-5.10.0-33-amd64",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("conf/initramfs.conf", "MODULES=dep\n"),
            ("conf/conf.d/resume", "RESUME=/dev/mapper/vg--db-swap_1\n"),
        ],
        compression: Compression::Zstd,
        microcode: true,
        ..PhonyImage::default()
    }
    .put(boot, "", root);
    link(root, "/lib", "usr/lib");
    put(
        esp,
        &[
            ("/EFI/debian/shimx64.efi", "shimx64.efi"),
            ("/EFI/debian/grubx64.efi", "grubx64.efi"),
            ("/EFI/debian/mmx64.efi", "mmx64.efi"),
            (
                "/EFI/debian/grub.cfg",
                "search.fs_uuid b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c01 root hd0,gpt2\n\
                 set prefix=($root)'/grub'\nconfigfile $prefix/grub.cfg\n",
            ),
        ],
    );
    put(
        boot,
        &[(
            "/grub/grub.cfg",
            "menuentry 'Debian GNU/Linux' {\n\
             \tlinux /vmlinuz-5.10.0-33-amd64 root=/dev/mapper/vg--db-root ro quiet\n\
             \tinitrd /initrd.img-5.10.0-33-amd64\n}\n",
        )],
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=debian\nVERSION_ID=\"11\"\n"),
            (
                "/etc/fstab",
                "/dev/mapper/vg--db-root / ext4 errors=remount-ro 0 1\n/dev/sda2 /boot ext4 defaults 0 2\n\
                 /dev/sda1 /boot/efi vfat umask=0077 0 1\n/dev/mapper/vg--db-swap_1 none swap sw 0 0\n",
            ),
            (
                "/etc/initramfs-tools/conf.d/resume",
                "RESUME=/dev/mapper/vg--db-swap_1\n",
            ),
            ("/etc/initramfs-tools/modules", ""),
        ],
    );
    guest
}

/// Debian 12 with systemd-boot: kernels where kernel-install puts them, arguments in a file.
pub(crate) fn debian_12_with_systemd_boot() -> PhonyGuest {
    let guest = esp_and_root();
    let (esp, root) = (guest.partition(1), guest.partition(2));
    root.put("/boot/efi", Node::Directory);
    let version = "6.1.0-28-amd64";
    PhonyImage {
        version,
        kernel: &format!("{MACHINE_ID}/{version}/linux"),
        initramfs: &format!("{MACHINE_ID}/{version}/initrd.img-{version}"),
        inside: &["scsi_mod", "sd_mod", "libata", "libahci", "ahci"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("conf/initramfs.conf", "MODULES=most\n"),
        ],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(esp, "", root);
    link(root, "/lib", "usr/lib");
    put(esp, &[REMOVABLE]);
    systemd_boot(
        esp,
        &format!("{MACHINE_ID}-{version}"),
        &format!("root=/dev/sda2 ro quiet systemd.machine_id={MACHINE_ID}"),
        [
            &format!("{version}/linux"),
            &format!("{version}/initrd.img-{version}"),
        ],
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
            ("/etc/kernel/cmdline", "root=/dev/sda2 ro quiet\n"),
            ("/etc/initramfs-tools/modules", ""),
        ],
    );
    root.file(
        "/etc/fstab",
        format!(
            "/dev/sda2 / ext4 errors=remount-ro 0 1\nUUID={ESP} /boot/efi vfat umask=0077 0 1\n"
        ),
    );
    guest
}

/// Proxmox VE 8: a bridge that knows VLANs over a bond, a watchdog, filters of LVM for its guests.
pub(crate) fn proxmox_8() -> PhonyGuest {
    let mut guest = PhonyGuest::new(
        TableKind::Gpt,
        vec![
            PhonyVolume {
                kind: FilesystemKind::Ext2,
                uuid: BOOT,
                purpose: PartitionPurpose::BiosBoot,
            },
            volume(FilesystemKind::Ext4, DATA),
            volume(FilesystemKind::Lvm2Member, MEMBER),
        ],
    );
    let member = [VolumeId::on_disk(DiskIndex(0), Some(3))];
    let kind = AssembledKind::LogicalVolume;
    let nodes = ["pve/root", "mapper/pve-root"];
    let root = &guest.assemble(kind, &nodes, &member, &volume(FilesystemKind::Ext4, ROOT));
    let version = "6.8.12-4-pve";
    kernel(
        root,
        "/boot",
        root,
        version,
        &format!("initrd.img-{version}"),
    );
    grub_entry(
        root,
        "/boot/grub/grub.cfg",
        "Proxmox VE GNU/Linux",
        &format!(
            "/boot/vmlinuz-{version} root=/dev/mapper/pve-root ro \
         quiet intel_iommu=on"
        ),
        &format!("/boot/initrd.img-{version}"),
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
            (
                "/etc/fstab",
                "/dev/pve/root / ext4 errors=remount-ro 0 1\n\
                 /dev/disk/by-path/pci-0000:41:00.0-nvme-1-part2 /var/lib/vz ext4 defaults 0 2\n",
            ),
            (
                "/etc/lvm/lvm.conf",
                "devices {\n     global_filter=[\"r|/dev/zd.*|\",\"r|/dev/rbd.*|\",\"a|/dev/nvme0n1p3|\",\"r|.*|\"]\n}\n",
            ),
            (
                "/etc/network/interfaces",
                "auto lo\niface lo inet loopback\niface eno1np0 inet manual\niface eno2np1 inet manual\n\
                 auto bond0\niface bond0 inet manual\n\tbond-slaves eno1np0 eno2np1\n\tbond-mode 802.3ad\n\
                 auto vmbr0\niface vmbr0 inet static\n\taddress 10.9.30.2/24\n\tgateway 10.9.30.1\n\
                 \tbridge-ports bond0\n\tbridge-stp off\n\tbridge-vlan-aware yes\n\tbridge-vids 2-4094\n\
                 auto vmbr0.40\niface vmbr0.40 inet static\n\taddress 10.9.40.2/24\n",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/watchdog-mux.service",
                "",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/smartmontools.service",
                "",
            ),
            (
                "/etc/default/grub.d/iommu.cfg",
                "GRUB_CMDLINE_LINUX=\"intel_iommu=on\"\n",
            ),
        ],
    );
    guest
}

/// Debian 10 whose data is encrypted with a key beside the system, and with one on a stick.
pub(crate) fn debian_10_with_encrypted_data() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Mbr,
        vec![
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Luks, DATA),
            volume(FilesystemKind::Luks, SWAP),
        ],
    );
    let root = guest.partition(1);
    let version = "4.19.0-27-amd64";
    kernel(
        root,
        "/boot",
        root,
        version,
        &format!("initrd.img-{version}"),
    );
    grub_entry(
        root,
        "/boot/grub/grub.cfg",
        "Debian",
        &format!("/boot/vmlinuz-{version} root=UUID={ROOT} ro"),
        &format!("/boot/initrd.img-{version}"),
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=debian\nVERSION_ID=\"10\"\n"),
            (
                "/etc/fstab",
                "UUID=b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c02 / ext4 defaults 0 1\n\
                 /dev/mapper/data /srv ext4 defaults 0 2\n/dev/mapper/vault /vault ext4 nofail 0 2\n",
            ),
            (
                "/etc/crypttab",
                "# name device key options\ndata /dev/sda2 /etc/keys/data luks,discard\n\
                 vault /dev/disk/by-id/ata-ST4000NM0035_ZC1-part3 /dev/disk/by-id/usb-Key_1-0:0-part1:/vault luks,nofail\n",
            ),
        ],
    );
    guest
}
