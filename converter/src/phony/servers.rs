// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers as distributions lay them out.

use disk::filesystem::FilesystemKind::{Ext2, Ext4, Swap};

use crate::guest::compression::Compression;
use crate::phony::{PhonyGuest, PhonyKernel, PhonyVolume, VIRTIO, esp, gpt, mbr, volume};

const ROOT: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01";
const SWAP: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c02";
const BOOT: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c03";

/// The first 20 bytes of a program for x86-64.
pub(super) const ELF: [u8; 20] = [
    0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 62, 0,
];

const WORDS: [(&str, &str); 2] = [("ROOT", ROOT), ("SWAP", SWAP)];

fn root() -> PhonyVolume {
    volume(Ext4, ROOT).at("/")
}

/// A guest with what every system has, its release and name, and its own files.
fn base(guest: PhonyGuest, release: [&str; 2], hostname: &str, files: &str) -> PhonyGuest {
    let [id, version] = release;
    let words = [("ID", id), ("VERSION", version), ("HOSTNAME", hostname)];
    guest.tree(BASE, &words);
    guest.file("/usr/bin/sh", ELF.to_vec());
    guest.file("/usr/lib/systemd/systemd", ELF.to_vec());
    guest.tree(files, &WORDS);
    guest
}

const BASE: &str = r#"
== /bin -> usr/bin
== /sbin -> usr/sbin
== /lib -> usr/lib
== /etc/os-release -> ../usr/lib/os-release
== /usr/lib/os-release
PRETTY_NAME="{ID} {VERSION}"
ID={ID}
VERSION_ID="{VERSION}"
== /usr/sbin/init -> /lib/systemd/systemd
== /usr/lib/udev/rules.d/80-net-setup-link.rules
== /etc/hostname
{HOSTNAME}
== /etc/passwd
root:x:0:0::/root:/bin/sh
== /etc/adjtime
0.0 0 0.0
0
UTC
== /etc/systemd/system/multi-user.target.wants/ssh.service
== /etc/systemd/network/.keep
"#;

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
    let guest = mbr([root(), volume(Swap, SWAP)]);
    let versions = ["6.1.0-28-amd64", "6.1.0-9-amd64"];
    let menu = grub_cfg(&versions, "/boot", "/dev/sda1", "quiet resume=/dev/sda2");
    guest.file("/boot/grub/grub.cfg", menu);
    for version in versions {
        PhonyKernel {
            version,
            usr: "/usr",
            inside: &["ahci", "scsi_mod", "scsi_common", "sd_mod", "e1000"],
            compression: Compression::Zstd,
            files: &[
                ("conf/modules", "megaraid_sas\n"),
                ("conf/conf.d/resume", "RESUME=/dev/sda2\n"),
            ],
            ..PhonyKernel::default()
        }
        .install(&guest);
    }
    let files = r#"
== /etc/fstab
# <file system> <mount point> <type> <options> <dump> <pass>
/dev/sda1	/	ext4	errors=remount-ro 0 1
/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part2 none swap sw 0 0
/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0
tmpfs /tmp tmpfs size=1G 0 0
== /etc/default/grub
GRUB_DEFAULT=0
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX=""
GRUB_DISABLE_LINUX_UUID=true
== /boot/grub/i386-pc/normal.mod
== /boot/grub/device.map
(hd0)	/dev/disk/by-id/ata-WDC_WD10
== /etc/initramfs-tools/modules
# List of modules

megaraid_sas
== /etc/initramfs-tools/conf.d/resume
RESUME=/dev/sda2
== /etc/network/interfaces
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

allow-hotplug enp2s0
iface enp2s0 inet static
	address 10.20.0.5/24
	gateway 10.20.0.1
"#;
    base(guest, ["debian", "12"], "web01", files)
}

/// Debian 11 as an installer leaves it: UUIDs, a gzip initramfs, a bridge over a bond.
pub(crate) fn debian_bullseye() -> PhonyGuest {
    let guest = mbr([root(), volume(Swap, SWAP)]);
    let device = format!("UUID={ROOT}");
    let menu = grub_cfg(&["5.10.0-33-amd64"], "/boot", &device, "console=tty1");
    guest.file("/boot/grub/grub.cfg", menu);
    PhonyKernel {
        version: "5.10.0-33-amd64",
        usr: "/usr",
        inside: &["ahci", "scsi_mod", "scsi_common", "sd_mod"],
        ..PhonyKernel::default()
    }
    .install(&guest);
    let files = "
== /etc/fstab
UUID={ROOT} / ext4 errors=remount-ro 0 1
UUID={SWAP} none swap sw 0 0
/dev/sdb1 /media/usb0 auto rw,user,noauto 0 0
== /etc/default/grub
GRUB_CMDLINE_LINUX='console=tty1'
== /boot/grub/i386-pc/normal.mod
== /etc/initramfs-tools/modules
== /etc/initramfs-tools/conf.d/resume
RESUME=UUID={SWAP}
== /etc/network/interfaces
auto vmbr0
iface vmbr0 inet static
	address 192.0.2.9
	netmask 255.255.255.0
	gateway 192.0.2.1
	bridge_ports bond0

iface bond0 inet manual
	bond-slaves eno1 eno2
	bond-mode active-backup
== /etc/systemd/network/10-eno1.link
[Match]
MACAddress=00:25:90:aa:bb:01
[Link]
Name=eno1
";
    base(guest, ["debian", "11"], "node03", files)
}

/// Debian 13: GPT, /boot of its own, modules compressed with xz, systemd-networkd.
pub(crate) fn debian_trixie() -> PhonyGuest {
    let guest = gpt([volume(Ext2, BOOT).at("/boot"), root()]);
    let menu = grub_cfg(&["6.12.48+deb13-amd64"], "", "/dev/nvme0n1p2", "quiet");
    guest.file("/boot/grub/grub.cfg", menu);
    PhonyKernel {
        version: "6.12.48+deb13-amd64",
        usr: "/usr",
        suffix: ".ko.xz",
        inside: &["e1000e"],
        compression: Compression::Zstd,
        ..PhonyKernel::default()
    }
    .install(&guest);
    let files = r#"
== /boot/
== /etc/fstab
/dev/nvme0n1p2 / ext4 defaults 0 1
/dev/nvme0n1p1 /boot ext2 defaults 0 2
== /etc/default/grub
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
== /etc/initramfs-tools/modules
== /etc/systemd/network/20-eth.network
[Match]
Name=eth1
[Network]
Address=10.7.0.5/24
Gateway=10.7.0.1
== /boot/grub/i386-pc/normal.mod
"#;
    base(guest, ["debian", "13"], "db02", files)
}

/// Like Ubuntu: virtio built in, netplan with a match by MAC address, UUIDs, UEFI.
pub(crate) fn ubuntu() -> PhonyGuest {
    let guest = gpt([esp("1A2B-3C4D").at("/boot/efi"), root()]);
    let (version, device) = ("5.15.0-91-generic", format!("UUID={ROOT}"));
    let arguments = "console=tty0 console=ttyS0,115200";
    let menu = grub_cfg(&[version], "/boot", &device, arguments);
    guest.file("/boot/grub/grub.cfg", menu);
    PhonyKernel {
        version: "5.15.0-91-generic",
        usr: "/usr",
        builtin: VIRTIO,
        inside: &["ahci"],
        compression: Compression::Zstd,
        ..PhonyKernel::default()
    }
    .install(&guest);
    let files = r#"
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
UUID=1A2B-3C4D /boot/efi vfat umask=0077 0 1
== /boot/efi/EFI/ubuntu/shimx64.efi
== /boot/efi/EFI/BOOT/BOOTX64.EFI
== /etc/default/grub
GRUB_CMDLINE_LINUX="console=ttyS0,115200"
== /boot/grub/x86_64-efi/normal.mod
== /etc/initramfs-tools/modules
== /etc/netplan/00-installer-config.yaml
network:
  version: 2
  ethernets:
    lan0:
      match:
        macaddress: 00:16:3e:11:22:33
      set-name: lan0
      addresses: [172.16.5.9/16]
      routes:
      - {to: default, via: 172.16.0.1}
"#;
    base(guest, ["ubuntu", "22.04"], "app01", files)
}
