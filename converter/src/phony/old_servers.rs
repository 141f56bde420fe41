// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers of the years before systemd: their network scripts, their udev, their init.

use crate::phony::{PhonyGuest, server};

const OLD_UDEV: (&str, &str) = (
    "/etc/udev/rules.d/50-udev.rules",
    "KERNEL==\"sd*\", SYSFS{removable}==\"1\", SYMLINK+=\"x\"\n",
);

/// RHEL 5: `HWADDR` of one card, none of the other; a bond whose mode modprobe.conf says; kudzu.
pub(crate) fn rhel_5() -> PhonyGuest {
    server(&[
        OLD_UDEV,
        (
            "/etc/redhat-release",
            "Red Hat Enterprise Linux Server release 5.11 (Tikanga)\n",
        ),
        ("/lib/udev/rename_device", ""),
        (
            "/etc/sysconfig/network",
            "NETWORKING=yes\nHOSTNAME=erp01.example.com\nGATEWAY=10.20.0.1\n",
        ),
        (
            "/etc/sysconfig/clock",
            "ZONE=\"Europe/Berlin\"\nUTC=false\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-eth0",
            "# Broadcom Corporation NetXtreme II\nDEVICE=eth0\nHWADDR=00:1E:C9:00:00:01\nMASTER=bond0\nSLAVE=yes\nONBOOT=yes\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-eth1",
            "DEVICE=eth1\nMASTER=bond0\nSLAVE=yes\nONBOOT=yes\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-bond0",
            "DEVICE=bond0\nIPADDR=10.20.0.5\nNETMASK=255.255.255.0\nONBOOT=yes\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-eth1.bak",
            "DEVICE=eth9\n",
        ),
        (
            "/etc/modprobe.conf",
            "alias eth0 bnx2\nalias eth1 bnx2\nalias scsi_hostadapter megaraid_sas\n\
             alias bond0 bonding\noptions bond0 mode=4 miimon=100\n",
        ),
        ("/etc/rc3.d/S05kudzu", ""),
        ("/etc/rc3.d/S55sshd", ""),
    ])
}

/// CentOS 6: rules that udev's generator wrote, one for a card that was replaced.
pub(crate) fn centos_6() -> PhonyGuest {
    server(&[
        ("/etc/redhat-release", "CentOS release 6.10 (Final)\n"),
        ("/lib/udev/rename_device", ""),
        ("/lib/udev/rules.d/75-persistent-net-generator.rules", ""),
        (
            "/etc/udev/rules.d/70-persistent-net.rules",
            "# PCI device 0x8086:0x10c9 (igb)\n\
             SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:25:90:00:00:01\", \
             ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n\
             # the card that died\n\
             SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:25:90:00:00:02\", \
             ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth1\"\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-eth0",
            "DEVICE=eth0\nBOOTPROTO=none\nIPADDR=10.20.0.6\nPREFIX=24\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-eth2",
            "DEVICE=eth2\nHWADDR=\"00:25:90:00:00:03\"\nBOOTPROTO=none\nBRIDGE=br0\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-br0",
            "DEVICE=br0\nTYPE=Bridge\nIPADDR=10.30.0.6\nPREFIX=24\n",
        ),
        (
            "/etc/sysconfig/network-scripts/route-br0",
            "default via 10.30.0.1 dev br0\n",
        ),
    ])
}

/// SLES 10: files called after the card's MAC address, an udev that renames by a program.
pub(crate) fn sles_10() -> PhonyGuest {
    server(&[
        OLD_UDEV,
        (
            "/etc/SuSE-release",
            "SUSE Linux Enterprise Server 10 (x86_64)\nVERSION = 10\nPATCHLEVEL = 4\n",
        ),
        ("/lib/udev/rename_netiface", ""),
        (
            "/etc/udev/rules.d/30-net_persistent_names.rules",
            "SUBSYSTEM==\"net\", ACTION==\"add\", SYSFS{address}==\"00:0c:29:00:00:01\", \
             IMPORT=\"/lib/udev/rename_netiface %k eth0\"\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-eth-id-00:0c:29:00:00:01",
            "BOOTPROTO='static'\nIPADDR='10.20.0.7'\nNETMASK='255.255.255.0'\nSTARTMODE='auto'\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-eth-bus-pci-0000:02:01.0",
            "BOOTPROTO='dhcp'\n",
        ),
        ("/etc/sysconfig/network/ifcfg-eth1", "BOOTPROTO='dhcp'\n"),
        ("/etc/sysconfig/network/routes", "default 10.20.0.1 - -\n"),
    ])
}

/// SLES 11: a bond, a bridge and a VLAN; rules that udev's generator wrote.
pub(crate) fn sles_11() -> PhonyGuest {
    server(&[
        (
            "/etc/SuSE-release",
            "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n",
        ),
        ("/etc/HOSTNAME", "sap01.example.com\n"),
        ("/etc/sysconfig/clock", "HWCLOCK=\"-u\"\n"),
        ("/lib/udev/rules.d/75-persistent-net-generator.rules", ""),
        (
            "/etc/udev/rules.d/70-persistent-net.rules",
            "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:17:a4:00:00:01\", \
             ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-bond0",
            "BONDING_MASTER='yes'\nBONDING_MODULE_OPTS='mode=active-backup miimon=100'\n\
             BONDING_SLAVE0='eth0'\nBONDING_SLAVE1='eth1'\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-br0",
            "BRIDGE='yes'\nBRIDGE_PORTS='bond0'\nIPADDR='10.20.0.8/24'\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-vlan30",
            "ETHERDEVICE='bond0'\nIPADDR='10.30.0.8/24'\n",
        ),
        (
            "/etc/sysconfig/network/ifroute-br0",
            "default 10.20.0.1 - -\n",
        ),
        ("/etc/init.d/rc3.d/S12multipathd", ""),
    ])
}

/// Ubuntu 14.04: ifupdown, whose members name their bond; upstart.
pub(crate) fn ubuntu_trusty() -> PhonyGuest {
    server(&[
        (
            "/etc/os-release",
            "ID=ubuntu\nVERSION_ID=\"14.04\"\nPRETTY_NAME=\"Ubuntu 14.04.6 LTS\"\n",
        ),
        ("/sbin/initctl", ""),
        ("/lib/udev/rules.d/75-persistent-net-generator.rules", ""),
        (
            "/etc/network/interfaces",
            "auto lo\niface lo inet loopback\nauto em1\niface em1 inet manual\n  bond-master bond0\n\
             auto em2\niface em2 inet manual\n  bond-master bond0\n\
             auto bond0\niface bond0 inet static\n  address 10.20.0.9\n  netmask 255.255.255.0\n  \
             gateway 10.20.0.1\n  bond-mode 802.3ad\n  bond-slaves none\n",
        ),
        (
            "/etc/init/mcelog.conf",
            "description \"mcelog\"\nstart on runlevel [2345]\n",
        ),
        ("/etc/init/ssh.conf", "start on runlevel [2345]\n"),
        ("/etc/rc2.d/S20openipmi", ""),
    ])
}
