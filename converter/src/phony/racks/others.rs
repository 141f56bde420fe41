// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arch, Slackware, Alpine, appliances, and servers whose vendors left much on them.

use disk::filesystem::FilesystemKind::Ext4;

use super::{DATA, X86_64, boot, root, swap, system};
use crate::guest::compression::Compression;
use crate::phony::image::PhonyImage;
use crate::phony::loaders::kernel;
use crate::phony::{GENERATOR, PhonyGuest, SYSTEMD, mbr, volume};

/// Arch with Syslinux on a BIOS, its initramfs made for this server with systemd inside.
pub(crate) fn arch_with_syslinux() -> PhonyGuest {
    let guest = mbr([boot(), root(Ext4)]);
    PhonyImage {
        version: "6.6.63-1-lts",
        kernel: "vmlinuz-linux-lts",
        initramfs: "initramfs-linux-lts.img",
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &[r#"
== lib -> usr/lib
== init -> usr/lib/systemd/systemd
== usr/lib/systemd/systemd elf
== buildconfig
== config
MODULES="mpt3sas"
"#],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = "
== /lib -> usr/lib
== /etc/os-release
ID=arch
BUILD_ID=rolling
== /etc/fstab
/dev/sda2 / ext4 rw,relatime 0 1
/dev/sda1 /boot ext4 rw 0 2
== /etc/mkinitcpio.conf
MODULES=(mpt3sas)
HOOKS=(base systemd autodetect modconf block filesystems)
== /usr/lib/modules/6.6.63-1-lts/pkgbase
linux-lts
== /etc/systemd/network/20-wired.network
[Match]
Name=enp5s0f0
[Network]
Address=10.9.50.4/24
Gateway=10.9.50.1
VLAN=dmz
== /etc/systemd/network/21-dmz.netdev
[NetDev]
Name=dmz
Kind=vlan
[VLAN]
Id=51
== /boot/syslinux/syslinux.cfg
DEFAULT arch
PROMPT 0
TIMEOUT 50
UI menu.c32
LABEL arch
    MENU LABEL Arch Linux LTS
    LINUX ../vmlinuz-linux-lts
    APPEND root=/dev/sda2 rw
    INITRD ../initramfs-linux-lts.img
LABEL hdt
    COM32 hdt.c32
";
    system(guest, X86_64, SYSTEMD, files)
}

/// Slackware: LILO, and a kernel with everything built in that starts without an initramfs.
pub(crate) fn slackware_with_lilo() -> PhonyGuest {
    let guest = mbr([root(Ext4), swap()]);
    kernel(&guest, "huge-4.4.14", "unused.img");
    guest.take("/boot/unused.img");
    let files = r#"
== /boot/vmlinuz -> vmlinuz-huge-4.4.14
== /etc/os-release
ID=slackware
VERSION_ID=14.2
== /etc/fstab
/dev/sda2 swap swap defaults 0 0
/dev/sda1 / ext4 defaults 1 1
== /etc/lilo.conf
append=" vt.default_utf8=1"
boot = /dev/sda
lba32
compact
timeout = 50
image = /boot/vmlinuz
  root = /dev/sda1
  label = Linux
  read-only
== /etc/rc.d/rc.inet1.conf
IPADDR[0]="10.9.44.2"
"#;
    system(guest, X86_64, "", files)
}

/// Alpine with GRUB on NVMe, whose arguments list the modules that its initramfs loads.
pub(crate) fn alpine_with_grub() -> PhonyGuest {
    let guest = mbr([root(Ext4), swap()]);
    PhonyImage {
        version: "6.6.58-0-lts",
        kernel: "vmlinuz-lts",
        initramfs: "initramfs-lts",
        usr: "",
        suffix: ".ko.gz",
        inside: &["scsi_mod", "sd_mod"],
        files: &["
== init
#!/bin/sh
== sbin/nlplug-findfs elf
"],
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = r#"
== /etc/os-release
ID=alpine
VERSION_ID=3.20.3
== /etc/fstab
/dev/nvme0n1p1 / ext4 rw,relatime 0 1
/dev/nvme0n1p2 swap swap defaults 0 0
== /boot/grub/grub.cfg
menuentry 'Alpine' {
	linux /boot/vmlinuz-lts root=/dev/nvme0n1p1 modules=sd-mod,usb-storage,ext4,nvme rootfstype=ext4 quiet
	initrd /boot/initramfs-lts
}
== /etc/default/grub
GRUB_CMDLINE_LINUX_DEFAULT="modules=sd-mod,usb-storage,ext4,nvme quiet rootfstype=ext4"
== /lib/modules/6.6.58-0-lts/kernel-suffix
lts
== /etc/mkinitfs/mkinitfs.conf
features="base ext4 nvme"
== /etc/network/interfaces
auto lo
iface lo inet loopback
auto eth0
iface eth0 inet static
	address 10.9.60.2/24
	gateway 10.9.60.1
"#;
    system(guest, X86_64, "", files)
}

/// A server with virtio built in and its root named by UUID, so that only these files matter.
fn plain_with(files: &str) -> PhonyGuest {
    plain_on(mbr([root(Ext4), swap()]), files)
}

fn plain_on(guest: PhonyGuest, files: &str) -> PhonyGuest {
    kernel(&guest, "5.10.0-33-amd64", "initrd.img-{}");
    guest.tree(files, &[]);
    let files = r#"
== /boot/grub/grub.cfg
menuentry 'Linux' {
	linux /boot/vmlinuz-5.10.0-33-amd64 root=UUID={ROOT} ro console=ttyS0
	initrd /boot/initrd.img-5.10.0-33-amd64
}
== /etc/os-release
ID=debian
VERSION_ID="11"
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
"#;
    system(guest, X86_64, SYSTEMD, files)
}

/// One that was a virtual machine already: tools of other hypervisors start.
pub(crate) fn moved_from_vmware() -> PhonyGuest {
    let files = "
== /etc/systemd/system/multi-user.target.wants/vmtoolsd.service
== /etc/systemd/system/multi-user.target.wants/open-vm-tools.service
== /etc/rc3.d/S30xe-daemon
";
    plain_with(files)
}

/// A firewall with more cards than a virtual machine has places, wireless and a modem on USB.
pub(crate) fn firewall_with_many_cards() -> PhonyGuest {
    let mut interfaces =
        String::from("source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n");
    for number in 0..18 {
        interfaces += &format!(
            "auto enp{number}s0\niface enp{number}s0 inet static\n\taddress 10.9.{number}.1/24\n"
        );
    }
    interfaces += "auto wlp9s0\niface wlp9s0 inet dhcp\nauto usb0\niface usb0 inet dhcp\n";
    let files = "
== /etc/network/interfaces.d/ipoib
auto ib0
iface ib0 inet static
	address 10.99.0.1/24
";
    let guest = plain_with(files);
    guest.file("/etc/network/interfaces", interfaces);
    guest
}

/// An HPE ProLiant with all of its vendor's agents, and a watchdog that would restart the machine.
pub(crate) fn proliant_with_agents() -> PhonyGuest {
    let files = "
== /etc/systemd/system/multi-user.target.wants/hp-health.service
== /etc/systemd/system/multi-user.target.wants/hp-snmp-agents.service
== /etc/systemd/system/multi-user.target.wants/hpsmhd.service
== /etc/systemd/system/multi-user.target.wants/hp-asrd.service
== /etc/systemd/system/multi-user.target.wants/amsd.service
== /etc/systemd/system/multi-user.target.wants/smad.service
== /etc/systemd/system/multi-user.target.wants/ahslog.service
== /etc/systemd/system/multi-user.target.wants/bmc-watchdog.service
== /etc/smartd.conf
/dev/sda -d cciss,0 -a -m root
== /etc/rc2.d/S20cpqFca
";
    plain_with(files)
}

/// IBM and Supermicro agents, sensors, RAID tools, InfiniBand: what an older cluster node has.
pub(crate) fn cluster_node() -> PhonyGuest {
    let files = "
== /etc/systemd/system/multi-user.target.wants/lm_sensors.service
== /etc/systemd/system/multi-user.target.wants/mcelog.service
== /etc/systemd/system/multi-user.target.wants/rdma.service
== /etc/systemd/system/multi-user.target.wants/opensmd.service
== /etc/systemd/system/multi-user.target.wants/cpupower.service
== /etc/rc3.d/S50superdoctord
== /etc/rc3.d/S50mrmonitor
== /etc/rc3.d/S50snmpagent_ibm
== /etc/tuned/active_profile
hpc-compute
";
    plain_with(files)
}

/// Two systems on one disk: the one that its own boot loader names is taken.
pub(crate) fn two_systems() -> PhonyGuest {
    let files = "
== /etc/debian_version
8.11
== /etc/fstab
/dev/sda1 / ext4 defaults 0 1
";
    let other = system(mbr([root(Ext4)]), X86_64, GENERATOR, files);
    let guest = plain_on(mbr([volume(Ext4, DATA), root(Ext4), swap()]), "");
    for (path, node) in other.partition(1).entries() {
        guest.partition(1).put(&path, node);
    }
    guest
}

/// A kernel of somebody's own that is named by its image alone, everything linked in.
pub(crate) fn own_kernel_linked_in() -> PhonyGuest {
    let guest = mbr([boot(), root(Ext4)]);
    kernel(&guest, "5.4.0-own", "initrd.img-5.4.0-own");
    guest.take("/boot/initrd.img-5.4.0-own");
    let files = "
== /etc/os-release
ID=lfs
VERSION_ID=9
== /etc/fstab
/dev/sda2 / ext4 defaults 0 1
UUID={BOOT} /boot ext4 defaults 0 2
== /boot/grub/grub.cfg
menuentry 'own' {
	linux /vmlinuz-5.4.0-own root=/dev/sda2 ro
}
";
    system(guest, X86_64, "", files)
}
