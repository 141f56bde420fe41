// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers as they stand in racks: bonds, teams and VLANs, controllers of their own, vendors' agents.
//! Each is a list of files over the same two partitions, with virtio built into its kernel, so that
//! a plan shows what this guest is about and nothing else.

use disk::filesystem::FilesystemKind::{Ext4, Lvm2Member, Swap};

use crate::phony::{PhonyGuest, PhonyKernel, SYSTEMD, VIRTIO, mbr, volume};

pub(crate) const ROOT: &str = "0e0e7c1e-52ab-4d1c-8a6b-1d2b7c3a0001";
const SWAP: &str = "0e0e7c1e-52ab-4d1c-8a6b-1d2b7c3a0002";
const DATA: &str = "vWUdUr-sX4c-0001";

/// A server with what tells of its udev, and these files; a root, swap space, and a physical volume
/// of LVM on one disk.
pub(crate) fn server(udev: &str, files: &str) -> PhonyGuest {
    let guest = mbr([
        volume(Ext4, ROOT).at("/"),
        volume(Swap, SWAP),
        volume(Lvm2Member, DATA),
    ]);
    let kernel = PhonyKernel {
        version: "4.0.0-phony",
        builtin: VIRTIO,
        ..PhonyKernel::default()
    };
    kernel.install(&guest);
    let base = "
== /boot/grub/grub.cfg
menuentry 'Linux' {
	linux /boot/vmlinuz-4.0.0-phony root=UUID={ROOT} ro
	initrd /boot/initrd.img-4.0.0-phony
}
== /etc/passwd
root:x:0:0::/root:/bin/sh
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
UUID={SWAP} none swap sw 0 0
";
    guest.tree(base, &[("ROOT", ROOT), ("SWAP", SWAP)]);
    guest.tree(udev, &[]);
    guest.tree(files, &[]);
    guest
}

/// RHEL 7: a team of two cards that biosdevname named, a VLAN over it, tuned, kdump.
pub(crate) fn rhel_7_with_teams() -> PhonyGuest {
    let files = r#"
== /usr/lib/systemd/systemd
== /etc/os-release
ID="rhel"
VERSION_ID="7.9"
PRETTY_NAME="Red Hat Enterprise Linux 7.9"
== /usr/lib/udev/rules.d/80-net-name-slot.rules
== /usr/lib/udev/rules.d/60-net.rules
== /usr/lib/udev/rename_device
== /etc/sysconfig/network-scripts/ifcfg-em1
DEVICE=em1
HWADDR=24:6E:96:01:02:03
ONBOOT=yes
DEVICETYPE=TeamPort
TEAM_MASTER=team0
== /etc/sysconfig/network-scripts/ifcfg-p1p1
DEVICE=p1p1
ONBOOT=yes
DEVICETYPE=TeamPort
TEAM_MASTER=team0
== /etc/sysconfig/network-scripts/ifcfg-team0
DEVICE=team0
DEVICETYPE=Team
ONBOOT=yes
BOOTPROTO=none
IPADDR=10.20.0.5
PREFIX=24
TEAM_CONFIG='{"runner": {"name": "lacp"}, "link_watch": {"name": "ethtool"}}'
== /etc/sysconfig/network-scripts/ifcfg-team0.30
DEVICE=team0.30
VLAN=yes
IPADDR=10.30.0.5
PREFIX=24
== /etc/sysconfig/network
GATEWAY=10.20.0.1
== /etc/sysconfig/network-scripts/ifcfg-ib0
DEVICE=ib0
TYPE=InfiniBand
IPADDR=10.99.0.5
PREFIX=24
== /etc/tuned/active_profile
throughput-performance
== /etc/selinux/config
SELINUX=enforcing
SELINUXTYPE=targeted
"#;
    server("", files)
}

/// RHEL 9: keyfiles with a bond whose members name it by UUID, a card that is known by its MAC
/// address alone, LVM's list of devices.
pub(crate) fn rhel_9() -> PhonyGuest {
    let files = r#"
== /etc/os-release
ID="rhel"
VERSION_ID="9.4"
PRETTY_NAME="Red Hat Enterprise Linux 9.4"
== /etc/NetworkManager/system-connections/bond0.nmconnection
[connection]
id=bond0
uuid=b0
type=bond
interface-name=bond0
[bond]
mode=active-backup
arp_interval=1000
arp_ip_target=10.20.0.1
[ipv4]
method=manual
address1=10.20.0.5/24,10.20.0.1
== /etc/NetworkManager/system-connections/eno1.nmconnection
[connection]
id=eno1
uuid=e1
type=ethernet
interface-name=eno1
master=b0
slave-type=bond
== /etc/NetworkManager/system-connections/ens2f0.nmconnection
[connection]
id=ens2f0
uuid=e2
type=ethernet
interface-name=ens2f0
controller=b0
== /etc/NetworkManager/system-connections/backup.nmconnection
[connection]
id=backup
uuid=e3
type=ethernet
[ethernet]
mac-address=3C:EC:EF:00:00:03
[ipv4]
method=manual
address1=10.40.0.5/24
== /etc/lvm/lvm.conf
devices {
	dir = "/dev"
	# use_devicesfile = 1
}
== /etc/lvm/devices/system.devices
VERSION=1.1.2
IDTYPE=sys_wwid IDNAME=naa.600508b1001c0a1b DEVNAME=/dev/sda3 PVID=x PART=3
"#;
    server(SYSTEMD, files)
}

/// SLES 15: wicked with a bond, a VLAN over it and a bridge over that.
pub(crate) fn sles_15() -> PhonyGuest {
    let files = r#"
== /etc/os-release
ID="sles"
VERSION_ID="15.5"
PRETTY_NAME="SUSE Linux Enterprise Server 15 SP5"
== /etc/sysconfig/network/ifcfg-bond0
BONDING_MASTER='yes'
BONDING_SLAVE0='eth0'
BONDING_SLAVE1='eth1'
BONDING_MODULE_OPTS='mode=802.3ad miimon=100 min_links=2'
IPADDR='10.20.0.5/24'
STARTMODE='auto'
== /etc/sysconfig/network/ifcfg-eth0
BOOTPROTO='none'
STARTMODE='hotplug'
== /etc/sysconfig/network/ifcfg-eth1
BOOTPROTO='none'
STARTMODE='hotplug'
== /etc/sysconfig/network/ifcfg-vlan40
ETHERDEVICE='bond0'
VLAN_ID='40'
BOOTPROTO='none'
== /etc/sysconfig/network/ifcfg-br40
BRIDGE='yes'
BRIDGE_PORTS='vlan40'
IPADDR='10.40.0.5/24'
== /etc/sysconfig/network/routes
default 10.20.0.1 - -
== /etc/udev/rules.d/70-persistent-net.rules
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="00:1e:67:00:00:01", ATTR{dev_id}=="0x0", ATTR{type}=="1", KERNEL=="eth*", NAME="eth0"
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", KERNELS=="0000:06:00.1", ATTR{type}=="1", KERNEL=="eth*", NAME="eth1"
"#;
    server(SYSTEMD, files)
}

/// Ubuntu 18.04: netplan with a bond and a VLAN.
pub(crate) fn ubuntu_bionic() -> PhonyGuest {
    let files = r#"
== /etc/os-release
ID=ubuntu
VERSION_ID="18.04"
PRETTY_NAME="Ubuntu 18.04.6 LTS"
== /etc/netplan/50-cloud-init.yaml
network:
  version: 2
  ethernets:
    eno1: {dhcp4: false}
    eno2: {}
  bonds:
    bond0:
      interfaces: [eno1, eno2]
      parameters: {mode: 802.3ad, lacp-rate: fast}
      addresses: [10.20.0.5/24]
      gateway4: 10.20.0.1
  vlans:
    bond0.30:
      id: 30
      link: bond0
      addresses: [10.30.0.5/24]
"#;
    server(SYSTEMD, files)
}

/// Ubuntu 22.04: netplan that chooses cards by their MAC addresses, with names given and not.
pub(crate) fn ubuntu_jammy() -> PhonyGuest {
    let files = r#"
== /etc/os-release
ID=ubuntu
VERSION_ID="22.04"
PRETTY_NAME="Ubuntu 22.04.4 LTS"
== /etc/netplan/00-installer-config.yaml
network:
  version: 2
  ethernets:
    lan:
      match: {macaddress: "00:16:3e:00:00:01"}
      set-name: lan
    storage:
      match: {macaddress: "00:16:3e:00:00:02"}
      addresses: [10.50.0.5/24]
    enp65s0f0:
      virtual-function-count: 8
  bonds:
    bond0:
      interfaces: [lan]
      parameters: {mode: active-backup}
  vlans:
    office:
      id: 7
      link: bond0
      addresses: [10.7.0.5/24]
"#;
    server(SYSTEMD, files)
}

/// Debian on a Smart Array and multipath: fstab, crypttab, LVM, md, and files that name disks.
pub(crate) fn debian_on_smart_array() -> PhonyGuest {
    let files = r#"
== /etc/os-release
ID=debian
VERSION_ID="8"
PRETTY_NAME="Debian GNU/Linux 8"
== /etc/fstab
/dev/mapper/mpatha-part1 / ext4 errors=remount-ro 0 1
/dev/mapper/cswap none swap sw 0 0
/dev/vg0/data /srv ext4 nofail 0 2
== /etc/crypttab
cswap /dev/cciss/c0d0p2 /dev/urandom swap,cipher=aes-xts-plain64
backup /dev/cciss/c0d0p3 /dev/disk/by-id/usb-Stick-0:0-part1:/key luks,initramfs
== /etc/multipath/bindings
mpatha 3600508b1001c0a1b2c3d4e5f60718293
== /etc/mdadm/mdadm.conf
DEVICE /dev/cciss/c0d0p*
ARRAY /dev/md0 UUID=1:2:3:4 devices=/dev/cciss/c0d0p5,/dev/cciss/c0d1p5
ARRAY /dev/md1 devices=/dev/cciss/c0d0p6
== /etc/blkid.tab
<device DEVNO="0x6801" UUID="x">/dev/cciss/c0d0p1</device>
== /etc/smartd.conf
/dev/cciss/c0d0 -d cciss,0 -a
== /etc/drbd.d/r0.res
resource r0 {
  disk /dev/cciss/c0d0p7;
}
== /etc/systemd/system/var-spool.mount
[Mount]
What=/dev/disk/by-path/pci-0000:03:00.0-part1
Where=/var/spool
== /etc/udev/rules.d/99-oracle.rules
KERNEL=="sd?1", PROGRAM=="/lib/udev/scsi_id -g -d %N", RESULT=="36000c29f01", SYMLINK+="asm1"
== /etc/sysconfig/oracleasm
ORACLEASM_SCANORDER="dm"
ORACLEASM_SCANEXCLUDE="sd"
== /etc/network/interfaces
auto eth0
iface eth0 inet dhcp
"#;
    server(SYSTEMD, files)
}

/// LVM that looks at the one physical disk only, and remembers what it saw.
pub(crate) fn lvm_filtered() -> PhonyGuest {
    let files = r#"
== /etc/os-release
ID=centos
VERSION_ID="7"
PRETTY_NAME="CentOS Linux 7"
== /etc/lvm/lvm.conf
devices {
    filter = [ "r|/dev/cdrom|", "a|^/dev/sda[0-9]*$|", "r|.*|" ]
    global_filter = [ "a|.*|" ]
}
== /etc/lvm/cache/.cache
# made by lvm
persistent_filter_cache {
	valid_devices=["/dev/sda3"]
}
"#;
    server(SYSTEMD, files)
}

/// A server with the agents of two vendors (those of OpenManage are scripts of System V), IPMI, a
/// watchdog, multipath, and disks of the network.
pub(crate) fn dell_with_agents() -> PhonyGuest {
    let files = r#"
== /etc/os-release
ID="rocky"
VERSION_ID="8.9"
PRETTY_NAME="Rocky Linux 8.9"
== /etc/multipath.conf
defaults {
	user_friendly_names yes
}
== /etc/systemd/system/multi-user.target.wants/watchdog.service
== /etc/systemd/system/multi-user.target.wants/multipathd.service
== /etc/systemd/system/multi-user.target.wants/ipmievd.service
== /etc/systemd/system/multi-user.target.wants/hp-health.service
== /etc/systemd/system/multi-user.target.wants/iscsid.service
== /etc/systemd/system/multi-user.target.wants/sshd.service
== /etc/systemd/system/multi-user.target.wants/mcelog.service
== /etc/rc3.d/S96dataeng
== /etc/rc3.d/S97dsm_om_shrsvc
"#;
    server(SYSTEMD, files)
}
