// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers as distributions lay them out.

use disk::filesystem::FilesystemKind;

use crate::guest::compression::Compression;
use crate::inspect::{PartitionPurpose, TableKind};
use crate::phony::{MemoryFilesystem, PhonyGuest, PhonyKernel, PhonyVolume, link, volume};

const ROOT_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01";
const SWAP_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c02";
const BOOT_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c03";

/// The first 20 bytes of a program for x86-64.
pub(super) const ELF: [u8; 20] = [
    0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 62, 0,
];

fn base(root: &MemoryFilesystem, id: &str, version: &str, hostname: &str) {
    link(root, "/bin", "usr/bin");
    link(root, "/sbin", "usr/sbin");
    link(root, "/lib", "usr/lib");
    link(root, "/etc/os-release", "../usr/lib/os-release");
    root.file(
        "/usr/lib/os-release",
        format!("PRETTY_NAME=\"{id} {version}\"\nID={id}\nVERSION_ID=\"{version}\"\n"),
    );
    root.file("/usr/bin/sh", ELF.to_vec());
    root.file("/usr/lib/systemd/systemd", ELF.to_vec());
    link(root, "/usr/sbin/init", "/lib/systemd/systemd");
    root.file("/usr/lib/udev/rules.d/80-net-setup-link.rules", "");
    root.file("/etc/hostname", format!("{hostname}\n"));
    root.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    root.file("/etc/adjtime", "0.0 0 0.0\n0\nUTC\n");
    root.file(
        "/etc/systemd/system/multi-user.target.wants/ssh.service",
        "",
    );
    root.file("/etc/systemd/network/.keep", "");
}

/// A configuration of GRUB 2 with a submenu, as grub-mkconfig writes it.
fn grub_cfg(versions: &[&str], boot: &str, root: &str, more: &str) -> String {
    let mut text = String::from("set default=\"0\"\n");
    for (place, version) in versions.iter().enumerate() {
        let title = if place == 0 {
            "Debian GNU/Linux"
        } else {
            "Debian, with an older Linux"
        };
        text += &format!(
            "menuentry '{title}' --class debian $menuentry_id_option 'gnulinux-{version}' {{\n\
             \tset root='hd0,msdos1'\n\
             \techo\t'Loading Linux {version} ...'\n\
             \tlinux\t{boot}/vmlinuz-{version} root={root} ro {more}\n\
             \tinitrd\t{boot}/initrd.img-{version}\n}}\n"
        );
    }
    text
}

/// Debian 12 on BIOS and MBR, everything named by device: the hardest of the easy ones.
pub(crate) fn debian_bookworm() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Mbr,
        vec![
            volume(FilesystemKind::Ext4, ROOT_UUID),
            volume(FilesystemKind::Swap, SWAP_UUID),
        ],
    );
    let root = guest.partition(1);
    base(root, "debian", "12", "web01");
    root.file(
        "/etc/fstab",
        "# <file system> <mount point> <type> <options> <dump> <pass>\n\
         /dev/sda1\t/\text4\terrors=remount-ro 0 1\n\
         /dev/disk/by-path/pci-0000:00:1f.2-ata-1-part2 none swap sw 0 0\n\
         /dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n\
         tmpfs /tmp tmpfs size=1G 0 0\n",
    );
    root.file(
        "/etc/default/grub",
        "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"\"\n\
         GRUB_DISABLE_LINUX_UUID=true\n",
    );
    let versions = ["6.1.0-28-amd64", "6.1.0-9-amd64"];
    root.file(
        "/boot/grub/grub.cfg",
        grub_cfg(&versions, "/boot", "/dev/sda1", "quiet resume=/dev/sda2"),
    );
    root.file("/boot/grub/i386-pc/normal.mod", "");
    root.file(
        "/boot/grub/device.map",
        "(hd0)\t/dev/disk/by-id/ata-WDC_WD10\n",
    );
    root.file(
        "/etc/initramfs-tools/modules",
        "# List of modules\n\nmegaraid_sas\n",
    );
    root.file("/etc/initramfs-tools/conf.d/resume", "RESUME=/dev/sda2\n");
    root.file(
        "/etc/network/interfaces",
        "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n\
         allow-hotplug enp2s0\niface enp2s0 inet static\n\taddress 10.20.0.5/24\n\
         \tgateway 10.20.0.1\n",
    );
    for version in versions {
        PhonyKernel {
            version,
            usr: "/usr",
            suffix: ".ko",
            builtin: &[],
            inside: &["ahci", "scsi_mod", "scsi_common", "sd_mod", "e1000"],
            compression: Compression::Zstd,
            files: &[
                ("conf/modules", "megaraid_sas\n"),
                ("conf/conf.d/resume", "RESUME=/dev/sda2\n"),
            ],
        }
        .install(root, "/boot", root);
    }
    guest
}

/// Debian 11 as an installer leaves it: UUIDs, a gzip initramfs, a bridge over a bond.
pub(crate) fn debian_bullseye() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Mbr,
        vec![
            volume(FilesystemKind::Ext4, ROOT_UUID),
            volume(FilesystemKind::Swap, SWAP_UUID),
        ],
    );
    let root = guest.partition(1);
    base(root, "debian", "11", "node03");
    root.file(
        "/etc/fstab",
        format!(
            "UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n\
             UUID={SWAP_UUID} none swap sw 0 0\n\
             /dev/sdb1 /media/usb0 auto rw,user,noauto 0 0\n"
        ),
    );
    root.file("/etc/default/grub", "GRUB_CMDLINE_LINUX='console=tty1'\n");
    root.file(
        "/boot/grub/grub.cfg",
        grub_cfg(
            &["5.10.0-33-amd64"],
            "/boot",
            &format!("UUID={ROOT_UUID}"),
            "console=tty1",
        ),
    );
    root.file("/boot/grub/i386-pc/normal.mod", "");
    root.file("/etc/initramfs-tools/modules", "");
    root.file(
        "/etc/initramfs-tools/conf.d/resume",
        format!("RESUME=UUID={SWAP_UUID}\n"),
    );
    root.file(
        "/etc/network/interfaces",
        "auto vmbr0\niface vmbr0 inet static\n\taddress 192.0.2.9\n\tnetmask 255.255.255.0\n\
         \tgateway 192.0.2.1\n\tbridge_ports bond0\n\n\
         iface bond0 inet manual\n\tbond-slaves eno1 eno2\n\tbond-mode active-backup\n",
    );
    root.file(
        "/etc/systemd/network/10-eno1.link",
        "[Match]\nMACAddress=00:25:90:aa:bb:01\n[Link]\nName=eno1\n",
    );
    PhonyKernel {
        version: "5.10.0-33-amd64",
        usr: "/usr",
        suffix: ".ko",
        builtin: &[],
        inside: &["ahci", "scsi_mod", "scsi_common", "sd_mod"],
        compression: Compression::Gzip,
        files: &[],
    }
    .install(root, "/boot", root);
    guest
}

/// Debian 13: GPT, /boot of its own, modules compressed with xz, systemd-networkd.
pub(crate) fn debian_trixie() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Gpt,
        vec![
            PhonyVolume {
                kind: FilesystemKind::Ext2,
                uuid: BOOT_UUID,
                purpose: PartitionPurpose::Other,
            },
            volume(FilesystemKind::Ext4, ROOT_UUID),
        ],
    );
    let (boot, root) = (guest.partition(1), guest.partition(2));
    base(root, "debian", "13", "db02");
    root.put("/boot", crate::phony::Node::Directory);
    root.file(
        "/etc/fstab",
        "/dev/nvme0n1p2 / ext4 defaults 0 1\n/dev/nvme0n1p1 /boot ext2 defaults 0 2\n",
    );
    root.file(
        "/etc/default/grub",
        "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n",
    );
    boot.file(
        "/grub/grub.cfg",
        grub_cfg(&["6.12.48+deb13-amd64"], "", "/dev/nvme0n1p2", "quiet"),
    );
    boot.file("/grub/i386-pc/normal.mod", "");
    root.file("/etc/initramfs-tools/modules", "");
    root.file(
        "/etc/systemd/network/20-eth.network",
        "[Match]\nName=eth1\n[Network]\nAddress=10.7.0.5/24\nGateway=10.7.0.1\n",
    );
    PhonyKernel {
        version: "6.12.48+deb13-amd64",
        usr: "/usr",
        suffix: ".ko.xz",
        builtin: &[],
        inside: &["e1000e"],
        compression: Compression::Zstd,
        files: &[],
    }
    .install(boot, "", root);
    guest
}

/// Like Ubuntu: virtio built in, netplan with a match by MAC address, UUIDs, UEFI.
pub(crate) fn ubuntu() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Gpt,
        vec![
            PhonyVolume {
                kind: FilesystemKind::Fat,
                uuid: "1A2B-3C4D",
                purpose: PartitionPurpose::EfiSystem,
            },
            volume(FilesystemKind::Ext4, ROOT_UUID),
        ],
    );
    let (esp, root) = (guest.partition(1), guest.partition(2));
    base(root, "ubuntu", "22.04", "app01");
    esp.file("/EFI/ubuntu/shimx64.efi", "");
    esp.file("/EFI/BOOT/BOOTX64.EFI", "");
    root.file(
        "/etc/fstab",
        format!(
            "UUID={ROOT_UUID} / ext4 defaults 0 1\nUUID=1A2B-3C4D /boot/efi vfat umask=0077 0 1\n"
        ),
    );
    root.put("/boot/efi", crate::phony::Node::Directory);
    root.file(
        "/etc/default/grub",
        "GRUB_CMDLINE_LINUX=\"console=ttyS0,115200\"\n",
    );
    root.file(
        "/boot/grub/grub.cfg",
        grub_cfg(
            &["5.15.0-91-generic"],
            "/boot",
            &format!("UUID={ROOT_UUID}"),
            "console=tty0 console=ttyS0,115200",
        ),
    );
    root.file("/boot/grub/x86_64-efi/normal.mod", "");
    root.file("/etc/initramfs-tools/modules", "");
    root.file(
        "/etc/netplan/00-installer-config.yaml",
        "network:\n  version: 2\n  ethernets:\n    lan0:\n      match:\n        \
         macaddress: 00:16:3e:11:22:33\n      set-name: lan0\n      addresses: [172.16.5.9/16]\n      \
         routes:\n      - {to: default, via: 172.16.0.1}\n",
    );
    PhonyKernel {
        version: "5.15.0-91-generic",
        usr: "/usr",
        suffix: ".ko",
        builtin: &[
            "virtio",
            "virtio_ring",
            "virtio_pci",
            "virtio_blk",
            "virtio_net",
            "scsi_common",
            "scsi_mod",
            "sd_mod",
            "virtio_scsi",
        ],
        inside: &["ahci"],
        compression: Compression::Zstd,
        files: &[],
    }
    .install(root, "/boot", root);
    guest
}
