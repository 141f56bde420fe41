// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ubuntu.

use disk::filesystem::FilesystemKind::{Btrfs, Ext4, Luks, MdMember};

use super::{DATA, ROOT, X86_64, esp, member, root, swap, system};
use crate::guest::compression::Compression;
use crate::inspect::TableKind;
use crate::phony::image::{PhonyImage, with_btrfs};
use crate::phony::loaders::kernel;
use crate::phony::{PhonyGuest, SYSTEMD, gpt, mbr, volume};

/// Ubuntu 16.04 as a provider's image: settings of GRUB in pieces, VLANs of ifupdown, many tools.
pub(crate) fn ubuntu_16_of_a_provider() -> PhonyGuest {
    let guest = mbr([root(Ext4), swap()]);
    PhonyImage {
        version: "4.15.0-142-generic",
        usr: "",
        inside: &["scsi_mod", "sd_mod", "megaraid_sas"],
        files: &["
== init
#!/bin/sh
== conf/initramfs.conf
MODULES=most
== conf/modules
megaraid_sas
raid1
== etc/modprobe.d/blacklist.conf
blacklist virtio_pci
"],
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /etc/os-release
ID=ubuntu
VERSION_ID="16.04"
== /etc/fstab
/dev/disk/by-label/root / ext4 defaults 0 1
/dev/sda2 none swap sw 0 0
== /etc/default/grub
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
== /etc/default/grub.d/50-provider.cfg
GRUB_CMDLINE_LINUX_DEFAULT="net.ifnames=0 biosdevname=0 resume=/dev/sda2"
== /boot/grub/grub.cfg
menuentry 'Ubuntu' {
	linux /boot/vmlinuz-4.15.0-142-generic root=/dev/sda1 ro net.ifnames=0 biosdevname=0 resume=/dev/sda2
	initrd /boot/initrd.img-4.15.0-142-generic
}
== /etc/modprobe.d/blacklist.conf
blacklist virtio_pci
== /etc/initramfs-tools/modules
megaraid_sas
raid1
== /etc/network/interfaces
source /etc/network/interfaces.d/*.cfg
== /etc/network/interfaces.d/50-provider.cfg
auto lo eth0 vlan12
iface lo inet loopback
iface eth0 inet static
	address 10.9.16.4
	netmask 255.255.255.0
	gateway 10.9.16.1
iface vlan12 inet static
	vlan-raw-device eth0
	address 10.9.17.4
	netmask 255.255.255.0
== /etc/systemd/system/multi-user.target.wants/lm-sensors.service
== /etc/systemd/system/multi-user.target.wants/thermald.service
== /etc/rc2.d/S03loadcpufreq
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// Ubuntu 24.04 on two NVMe disks in a mirror, with an EFI system partition on each.
pub(crate) fn ubuntu_24_on_nvme_and_md() -> PhonyGuest {
    let mut guest = gpt([esp(), member(MdMember)]);
    guest.disks[0].name = Some("nvme0n1".to_owned());
    let second = vec![crate::phony::esp("7C11-20B0"), member(MdMember)];
    guest.add_disk(Some("nvme1n1"), TableKind::Gpt, second);
    guest.mirror(2, &["md0", "md/ubuntu-server:0"], &root(Ext4));
    PhonyImage {
        version: "6.8.0-48-generic",
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &["
== init
#!/bin/sh
== conf/initramfs.conf
MODULES=most
== etc/mdadm/mdadm.conf
HOMEHOST <system>
ARRAY /dev/md0 metadata=1.2 UUID=0f0e0d0c:0b0a0908:07060504:03020100
"],
        compression: Compression::Zstd,
        microcode: true,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /lib -> usr/lib
== /etc/os-release
ID=ubuntu
VERSION_ID="24.04"
== /etc/fstab
/dev/disk/by-id/md-uuid-0f0e0d0c:0b0a0908:07060504:03020100 / ext4 defaults 0 1
/dev/disk/by-uuid/{ESP} /boot/efi vfat defaults 0 1
/dev/nvme1n1p1 /boot/efi2 vfat defaults,nofail 0 0
/swap.img none swap sw 0 0
== /boot/grub/grub.cfg
menuentry 'Ubuntu' {
	linux /boot/vmlinuz-6.8.0-48-generic root=/dev/md0 ro
	initrd /boot/initrd.img-6.8.0-48-generic
}
== /etc/netplan/50-cloud-init.yaml
network:
  version: 2
  renderer: networkd
  ethernets:
    enp193s0f0np0:
      dhcp4: true
    all-mellanox:
      match: {driver: mlx5_core}
      mtu: 9000
  bridges:
    br0:
      interfaces: [enp193s0f0np0]
      addresses: [10.9.24.3/24]
      routes: [{to: default, via: 10.9.24.1}]
== /etc/initramfs-tools/modules
== /boot/efi/EFI/BOOT/BOOTX64.EFI shimx64.efi
== /boot/efi/EFI/ubuntu/shimx64.efi shimx64.efi
== /boot/efi/EFI/ubuntu/grubx64.efi grubx64.efi
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// Ubuntu on a root of btrfs in the subvolume `/@`, as its installer makes it.
pub(crate) fn ubuntu_22_on_btrfs() -> PhonyGuest {
    let inside = mbr([root(Btrfs), swap()]);
    PhonyImage {
        version: "5.15.0-91-generic",
        modules: &with_btrfs(),
        inside: &["scsi_mod", "sd_mod", "btrfs"],
        files: &["
== init
#!/bin/sh
== conf/initramfs.conf
MODULES=dep
== conf/modules
ahci
"],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(&inside, "/boot");
    let files = r#"
== /lib -> usr/lib
== /etc/os-release
ID=ubuntu
VERSION_ID="22.04"
== /etc/fstab
UUID={ROOT} / btrfs defaults,subvol=@ 0 1
UUID={ROOT} /home btrfs subvol=@home 0 2
== /boot/grub/grub.cfg
menuentry 'Ubuntu' {
	linux /@/boot/vmlinuz-5.15.0-91-generic root=UUID={ROOT} ro rootflags=subvol=@
	initrd /@/boot/initrd.img-5.15.0-91-generic
}
"#;
    let inside = system(inside, X86_64, SYSTEMD, files);
    // As it is on the disk: the root is one subvolume of several.
    let guest = mbr([volume(Btrfs, ROOT), swap()]);
    let top = guest.partition(1);
    for (id, path) in [(5, ""), (256, "@"), (257, "@home")] {
        top.subvolume(id, path, id == 5);
    }
    for (path, node) in inside.partition(1).entries() {
        top.put(&format!("/@{}", path.trim_end_matches('/')), node);
    }
    top.file("/@home/ana/notes", "");
    guest
}

/// Ubuntu 18.04 whose logs are on a disk that is not in the image.
pub(crate) fn ubuntu_18_without_a_disk() -> PhonyGuest {
    let guest = mbr([root(Ext4), volume(Luks, DATA)]);
    kernel(&guest, "4.15.0-213-generic", "initrd.img-{}");
    let files = r#"
== /boot/grub/grub.cfg
menuentry 'Ubuntu' {
	linux /boot/vmlinuz-4.15.0-213-generic root=/dev/sda1 resume=/dev/sdb3 ro
	initrd /boot/initrd.img-4.15.0-213-generic
}
== /etc/os-release
ID=ubuntu
VERSION_ID="18.04"
== /etc/fstab
/dev/sda1 / ext4 defaults 0 1
/dev/sdb1 /var/log ext4 defaults 0 2
== /etc/crypttab
safe /dev/sdb2 none luks
"#;
    system(guest, X86_64, SYSTEMD, files)
}
