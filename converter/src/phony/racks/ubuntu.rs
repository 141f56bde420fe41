// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ubuntu.

use disk::filesystem::FilesystemKind;
use image_library::DiskIndex;

use super::{DATA, ESP, LINKS, MEMBER, ROOT, SYSTEMD, X86_64, grub_entry, install, plain, put};
use crate::guest::compression::Compression;
use crate::inspect::{AssembledKind, TableKind, VolumeId};
use crate::phony::image::{PhonyImage, with_btrfs};
use crate::phony::loaders::kernel;
use crate::phony::{Node, PhonyGuest, link, volume};

/// Ubuntu 16.04 as a provider's image: settings of GRUB in pieces, VLANs of ifupdown, many tools.
pub(crate) fn ubuntu_16_of_a_provider() -> PhonyGuest {
    let guest = plain(FilesystemKind::Ext4);
    let root = guest.partition(1);
    PhonyImage {
        version: "4.15.0-142-generic",
        kernel: "vmlinuz-4.15.0-142-generic",
        initramfs: "initrd.img-4.15.0-142-generic",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("conf/initramfs.conf", "MODULES=most\n"),
            ("conf/modules", "megaraid_sas\nraid1\n"),
            ("etc/modprobe.d/blacklist.conf", "blacklist virtio_pci\n"),
        ],
        ..PhonyImage::default()
    }
    .put(root, "/boot", root);
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=ubuntu\nVERSION_ID=\"16.04\"\n"),
            (
                "/etc/fstab",
                "/dev/disk/by-label/root / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\n",
            ),
            (
                "/etc/default/grub",
                "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n",
            ),
            (
                "/etc/default/grub.d/50-provider.cfg",
                "GRUB_CMDLINE_LINUX_DEFAULT=\"net.ifnames=0 biosdevname=0 resume=/dev/sda2\"\n",
            ),
            (
                "/boot/grub/grub.cfg",
                "menuentry 'Ubuntu' {\n\tlinux /boot/vmlinuz-4.15.0-142-generic root=/dev/sda1 ro \
                 net.ifnames=0 biosdevname=0 resume=/dev/sda2\n\
                 \tinitrd /boot/initrd.img-4.15.0-142-generic\n}\n",
            ),
            ("/etc/modprobe.d/blacklist.conf", "blacklist virtio_pci\n"),
            ("/etc/initramfs-tools/modules", "megaraid_sas\nraid1\n"),
            (
                "/etc/network/interfaces",
                "source /etc/network/interfaces.d/*.cfg\n",
            ),
            (
                "/etc/network/interfaces.d/50-provider.cfg",
                "auto lo eth0 vlan12\niface lo inet loopback\niface eth0 inet static\n\
                 \taddress 10.9.16.4\n\tnetmask 255.255.255.0\n\tgateway 10.9.16.1\n\
                 iface vlan12 inet static\n\tvlan-raw-device eth0\n\taddress 10.9.17.4\n\
                 \tnetmask 255.255.255.0\n",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/lm-sensors.service",
                "",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/thermald.service",
                "",
            ),
            ("/etc/rc2.d/S03loadcpufreq", ""),
        ],
    );
    guest
}

/// Ubuntu 24.04 on two NVMe disks in a mirror, with an EFI system partition on each.
pub(crate) fn ubuntu_24_on_nvme_and_md() -> PhonyGuest {
    let second = "7C11-20B0";
    let disk = |esp_uuid| {
        let mut esp = super::esp();
        esp.uuid = esp_uuid;
        vec![esp, volume(FilesystemKind::MdMember, MEMBER)]
    };
    let mut guest = PhonyGuest::new(TableKind::Gpt, disk(ESP));
    guest.disks[0].name = Some("nvme0n1".to_owned());
    guest.add_disk(Some("nvme1n1"), TableKind::Gpt, disk(second));
    let parts = [0, 1].map(|disk| VolumeId::on_disk(DiskIndex(disk), Some(2)));
    let content = volume(FilesystemKind::Ext4, ROOT);
    let nodes = ["md0", "md/ubuntu-server:0"];
    let root = &guest.assemble(AssembledKind::MdArray, &nodes, &parts, &content);
    let esp = guest.partition(1);
    root.put("/boot/efi", Node::Directory);
    PhonyImage {
        version: "6.8.0-48-generic",
        kernel: "vmlinuz-6.8.0-48-generic",
        initramfs: "initrd.img-6.8.0-48-generic",
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("conf/initramfs.conf", "MODULES=most\n"),
            (
                "etc/mdadm/mdadm.conf",
                "HOMEHOST <system>\nARRAY /dev/md0 metadata=1.2 UUID=0f0e0d0c:0b0a0908:07060504:03020100\n",
            ),
        ],
        compression: Compression::Zstd,
        microcode: true,
        ..PhonyImage::default()
    }
    .put(root, "/boot", root);
    link(root, "/lib", "usr/lib");
    put(
        esp,
        &[
            ("/EFI/BOOT/BOOTX64.EFI", "shimx64.efi"),
            ("/EFI/ubuntu/shimx64.efi", "shimx64.efi"),
            ("/EFI/ubuntu/grubx64.efi", "grubx64.efi"),
        ],
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=ubuntu\nVERSION_ID=\"24.04\"\n"),
            (
                "/etc/fstab",
                "/dev/disk/by-id/md-uuid-0f0e0d0c:0b0a0908:07060504:03020100 / ext4 defaults 0 1\n\
                 /dev/disk/by-uuid/7C11-20AF /boot/efi vfat defaults 0 1\n\
                 /dev/nvme1n1p1 /boot/efi2 vfat defaults,nofail 0 0\n/swap.img none swap sw 0 0\n",
            ),
            (
                "/boot/grub/grub.cfg",
                "menuentry 'Ubuntu' {\n\tlinux /boot/vmlinuz-6.8.0-48-generic root=/dev/md0 ro\n\
                 \tinitrd /boot/initrd.img-6.8.0-48-generic\n}\n",
            ),
            (
                "/etc/netplan/50-cloud-init.yaml",
                "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    enp193s0f0np0:\n      \
                 dhcp4: true\n    all-mellanox:\n      match: {driver: mlx5_core}\n      mtu: 9000\n  bridges:\n    \
                 br0:\n      interfaces: [enp193s0f0np0]\n      addresses: [10.9.24.3/24]\n      \
                 routes: [{to: default, via: 10.9.24.1}]\n",
            ),
            ("/etc/initramfs-tools/modules", ""),
        ],
    );
    guest
}

/// Ubuntu on a root of btrfs in the subvolume `/@`, as its installer makes it.
pub(crate) fn ubuntu_22_on_btrfs() -> PhonyGuest {
    let inside = plain(FilesystemKind::Btrfs);
    let root = inside.partition(1);
    let version = "5.15.0-91-generic";
    PhonyImage {
        version,
        kernel: &format!("vmlinuz-{version}"),
        initramfs: &format!("initrd.img-{version}"),
        modules: &with_btrfs(),
        inside: &["scsi_mod", "sd_mod", "btrfs"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("conf/initramfs.conf", "MODULES=dep\n"),
            ("conf/modules", "ahci\n"),
        ],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(root, "/boot", root);
    link(root, "/lib", "usr/lib");
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=ubuntu\nVERSION_ID=\"22.04\"\n"),
        ],
    );
    root.file(
        "/etc/fstab",
        format!(
            "UUID={ROOT} / btrfs defaults,subvol=@ 0 1\nUUID={ROOT} /home btrfs subvol=@home 0 2\n"
        ),
    );
    root.file(
        "/boot/grub/grub.cfg",
        format!(
            "menuentry 'Ubuntu' {{\n\tlinux /@/boot/vmlinuz-{version} root=UUID={ROOT} ro rootflags=subvol=@\n\
             \tinitrd /@/boot/initrd.img-{version}\n}}\n"
        ),
    );
    // As it is on the disk: the root is one subvolume of several.
    let guest = plain(FilesystemKind::Btrfs);
    let top = guest.partition(1);
    for (id, path) in [(5, ""), (256, "@"), (257, "@home")] {
        top.subvolume(id, path, id == 5);
    }
    for (path, node) in root.entries() {
        top.put(&format!("/@{}", path.trim_end_matches('/')), node);
    }
    top.file("/@home/ana/notes", "");
    guest
}

/// Ubuntu 18.04 whose logs are on a disk that is not in the image.
pub(crate) fn ubuntu_18_without_a_disk() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Mbr,
        vec![
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Luks, DATA),
        ],
    );
    let root = guest.partition(1);
    let version = "4.15.0-213-generic";
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
        "Ubuntu",
        &format!("/boot/vmlinuz-{version} root=/dev/sda1 resume=/dev/sdb3 ro"),
        &format!("/boot/initrd.img-{version}"),
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=ubuntu\nVERSION_ID=\"18.04\"\n"),
            (
                "/etc/fstab",
                "/dev/sda1 / ext4 defaults 0 1\n/dev/sdb1 /var/log ext4 defaults 0 2\n",
            ),
            ("/etc/crypttab", "safe /dev/sdb2 none luks\n"),
        ],
    );
    guest
}
