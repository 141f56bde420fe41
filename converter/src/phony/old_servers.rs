// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers of the years before systemd: their network scripts, their udev, their init.

use crate::phony::{PhonyGuest, server};

const OLD_UDEV: &str = r#"
== /etc/udev/rules.d/50-udev.rules
KERNEL=="sd*", SYSFS{removable}=="1", SYMLINK+="x"
"#;

/// RHEL 5: `HWADDR` of one card, none of the other; a bond whose mode modprobe.conf says; kudzu.
pub(crate) fn rhel_5() -> PhonyGuest {
    let files = r#"
== /etc/redhat-release
Red Hat Enterprise Linux Server release 5.11 (Tikanga)
== /lib/udev/rename_device
== /etc/sysconfig/network
NETWORKING=yes
HOSTNAME=erp01.example.com
GATEWAY=10.20.0.1
== /etc/sysconfig/clock
ZONE="Europe/Berlin"
UTC=false
== /etc/sysconfig/network-scripts/ifcfg-eth0
# Broadcom Corporation NetXtreme II
DEVICE=eth0
HWADDR=00:1E:C9:00:00:01
MASTER=bond0
SLAVE=yes
ONBOOT=yes
== /etc/sysconfig/network-scripts/ifcfg-eth1
DEVICE=eth1
MASTER=bond0
SLAVE=yes
ONBOOT=yes
== /etc/sysconfig/network-scripts/ifcfg-bond0
DEVICE=bond0
IPADDR=10.20.0.5
NETMASK=255.255.255.0
ONBOOT=yes
== /etc/sysconfig/network-scripts/ifcfg-eth1.bak
DEVICE=eth9
== /etc/modprobe.conf
alias eth0 bnx2
alias eth1 bnx2
alias scsi_hostadapter megaraid_sas
alias bond0 bonding
options bond0 mode=4 miimon=100
== /etc/rc3.d/S05kudzu
== /etc/rc3.d/S55sshd
"#;
    server(OLD_UDEV, files)
}

/// CentOS 6: rules that udev's generator wrote, one for a card that was replaced.
pub(crate) fn centos_6() -> PhonyGuest {
    let files = r#"
== /etc/redhat-release
CentOS release 6.10 (Final)
== /lib/udev/rename_device
== /lib/udev/rules.d/75-persistent-net-generator.rules
== /etc/udev/rules.d/70-persistent-net.rules
# PCI device 0x8086:0x10c9 (igb)
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="00:25:90:00:00:01", ATTR{type}=="1", KERNEL=="eth*", NAME="eth0"
# the card that died
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="00:25:90:00:00:02", ATTR{type}=="1", KERNEL=="eth*", NAME="eth1"
== /etc/sysconfig/network-scripts/ifcfg-eth0
DEVICE=eth0
BOOTPROTO=none
IPADDR=10.20.0.6
PREFIX=24
== /etc/sysconfig/network-scripts/ifcfg-eth2
DEVICE=eth2
HWADDR="00:25:90:00:00:03"
BOOTPROTO=none
BRIDGE=br0
== /etc/sysconfig/network-scripts/ifcfg-br0
DEVICE=br0
TYPE=Bridge
IPADDR=10.30.0.6
PREFIX=24
== /etc/sysconfig/network-scripts/route-br0
default via 10.30.0.1 dev br0
"#;
    server("", files)
}

/// SLES 10: files called after the card's MAC address, an udev that renames by a program.
pub(crate) fn sles_10() -> PhonyGuest {
    let files = r#"
== /etc/SuSE-release
SUSE Linux Enterprise Server 10 (x86_64)
VERSION = 10
PATCHLEVEL = 4
== /lib/udev/rename_netiface
== /etc/udev/rules.d/30-net_persistent_names.rules
SUBSYSTEM=="net", ACTION=="add", SYSFS{address}=="00:0c:29:00:00:01", IMPORT="/lib/udev/rename_netiface %k eth0"
== /etc/sysconfig/network/ifcfg-eth-id-00:0c:29:00:00:01
BOOTPROTO='static'
IPADDR='10.20.0.7'
NETMASK='255.255.255.0'
STARTMODE='auto'
== /etc/sysconfig/network/ifcfg-eth-bus-pci-0000:02:01.0
BOOTPROTO='dhcp'
== /etc/sysconfig/network/ifcfg-eth1
BOOTPROTO='dhcp'
== /etc/sysconfig/network/routes
default 10.20.0.1 - -
"#;
    server(OLD_UDEV, files)
}

/// SLES 11: a bond, a bridge and a VLAN; rules that udev's generator wrote.
pub(crate) fn sles_11() -> PhonyGuest {
    let files = r#"
== /etc/SuSE-release
SUSE Linux Enterprise Server 11 (x86_64)
VERSION = 11
PATCHLEVEL = 4
== /etc/HOSTNAME
sap01.example.com
== /etc/sysconfig/clock
HWCLOCK="-u"
== /lib/udev/rules.d/75-persistent-net-generator.rules
== /etc/udev/rules.d/70-persistent-net.rules
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="00:17:a4:00:00:01", ATTR{type}=="1", KERNEL=="eth*", NAME="eth0"
== /etc/sysconfig/network/ifcfg-bond0
BONDING_MASTER='yes'
BONDING_MODULE_OPTS='mode=active-backup miimon=100'
BONDING_SLAVE0='eth0'
BONDING_SLAVE1='eth1'
== /etc/sysconfig/network/ifcfg-br0
BRIDGE='yes'
BRIDGE_PORTS='bond0'
IPADDR='10.20.0.8/24'
== /etc/sysconfig/network/ifcfg-vlan30
ETHERDEVICE='bond0'
IPADDR='10.30.0.8/24'
== /etc/sysconfig/network/ifroute-br0
default 10.20.0.1 - -
== /etc/init.d/rc3.d/S12multipathd
"#;
    server("", files)
}

/// Ubuntu 14.04: ifupdown, whose members name their bond; upstart.
pub(crate) fn ubuntu_trusty() -> PhonyGuest {
    let files = r#"
== /etc/os-release
ID=ubuntu
VERSION_ID="14.04"
PRETTY_NAME="Ubuntu 14.04.6 LTS"
== /sbin/initctl
== /lib/udev/rules.d/75-persistent-net-generator.rules
== /etc/network/interfaces
auto lo
iface lo inet loopback
auto em1
iface em1 inet manual
  bond-master bond0
auto em2
iface em2 inet manual
  bond-master bond0
auto bond0
iface bond0 inet static
  address 10.20.0.9
  netmask 255.255.255.0
  gateway 10.20.0.1
  bond-mode 802.3ad
  bond-slaves none
== /etc/init/mcelog.conf
description "mcelog"
start on runlevel [2345]
== /etc/init/ssh.conf
start on runlevel [2345]
== /etc/rc2.d/S20openipmi
"#;
    server("", files)
}
