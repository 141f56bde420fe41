// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers as they stand in racks: bonds, teams and VLANs, controllers of their own, vendors' agents.
//! Each is a list of files over the same two partitions, with virtio built into its kernel, so that
//! a plan shows what this guest is about and nothing else.

use disk::filesystem::FilesystemKind;

use crate::guest::compression::Compression;
use crate::inspect::TableKind;
use crate::phony::{PhonyGuest, PhonyKernel, volume};

pub(crate) const ROOT: &str = "0e0e7c1e-52ab-4d1c-8a6b-1d2b7c3a0001";
const SWAP: &str = "0e0e7c1e-52ab-4d1c-8a6b-1d2b7c3a0002";
const DATA: &str = "vWUdUr-sX4c-0001";

/// Where an udev that reads `.link` files has its rules.
const LINKS: (&str, &str) = ("/usr/lib/udev/rules.d/80-net-setup-link.rules", "");
const SYSTEMD: (&str, &str) = ("/usr/lib/systemd/systemd", "");
const FSTAB: (&str, &str) = (
    "/etc/fstab",
    "UUID=0e0e7c1e-52ab-4d1c-8a6b-1d2b7c3a0001 / ext4 defaults 0 1\n\
     UUID=0e0e7c1e-52ab-4d1c-8a6b-1d2b7c3a0002 none swap sw 0 0\n",
);

/// A server with these files; a root, swap space, and a physical volume of LVM on one disk.
pub(crate) fn server(files: &[(&str, &str)]) -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Mbr,
        vec![
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Swap, SWAP),
            volume(FilesystemKind::Lvm2Member, DATA),
        ],
    );
    let root = guest.partition(1);
    let version = "4.0.0-phony";
    PhonyKernel {
        version,
        usr: "",
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
        inside: &[],
        compression: Compression::Gzip,
        files: &[],
    }
    .install(root, "/boot", root);
    root.file(
        "/boot/grub/grub.cfg",
        format!(
            "menuentry 'Linux' {{\n\tlinux /boot/vmlinuz-{version} root=UUID={ROOT} ro\n\
             \tinitrd /boot/initrd.img-{version}\n}}\n"
        ),
    );
    root.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    for (path, text) in [FSTAB].iter().chain(files) {
        root.file(path, *text);
    }
    guest
}

/// RHEL 7: a team of two cards that biosdevname named, a VLAN over it, tuned, kdump.
pub(crate) fn rhel_7_with_teams() -> PhonyGuest {
    server(&[
        SYSTEMD,
        (
            "/etc/os-release",
            "ID=\"rhel\"\nVERSION_ID=\"7.9\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 7.9\"\n",
        ),
        ("/usr/lib/udev/rules.d/80-net-name-slot.rules", ""),
        ("/usr/lib/udev/rules.d/60-net.rules", ""),
        ("/usr/lib/udev/rename_device", ""),
        (
            "/etc/sysconfig/network-scripts/ifcfg-em1",
            "DEVICE=em1\nHWADDR=24:6E:96:01:02:03\nONBOOT=yes\nDEVICETYPE=TeamPort\nTEAM_MASTER=team0\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-p1p1",
            "DEVICE=p1p1\nONBOOT=yes\nDEVICETYPE=TeamPort\nTEAM_MASTER=team0\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-team0",
            "DEVICE=team0\nDEVICETYPE=Team\nONBOOT=yes\nBOOTPROTO=none\nIPADDR=10.20.0.5\nPREFIX=24\n\
             TEAM_CONFIG='{\"runner\": {\"name\": \"lacp\"}, \"link_watch\": {\"name\": \"ethtool\"}}'\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-team0.30",
            "DEVICE=team0.30\nVLAN=yes\nIPADDR=10.30.0.5\nPREFIX=24\n",
        ),
        ("/etc/sysconfig/network", "GATEWAY=10.20.0.1\n"),
        (
            "/etc/sysconfig/network-scripts/ifcfg-ib0",
            "DEVICE=ib0\nTYPE=InfiniBand\nIPADDR=10.99.0.5\nPREFIX=24\n",
        ),
        ("/etc/tuned/active_profile", "throughput-performance\n"),
        (
            "/etc/selinux/config",
            "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
        ),
    ])
}

/// RHEL 9: keyfiles with a bond whose members name it by UUID, a card that is known by its MAC
/// address alone, LVM's list of devices.
pub(crate) fn rhel_9() -> PhonyGuest {
    server(&[
        SYSTEMD,
        LINKS,
        (
            "/etc/os-release",
            "ID=\"rhel\"\nVERSION_ID=\"9.4\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.4\"\n",
        ),
        (
            "/etc/NetworkManager/system-connections/bond0.nmconnection",
            "[connection]\nid=bond0\nuuid=b0\ntype=bond\ninterface-name=bond0\n[bond]\nmode=active-backup\n\
             arp_interval=1000\narp_ip_target=10.20.0.1\n[ipv4]\nmethod=manual\naddress1=10.20.0.5/24,10.20.0.1\n",
        ),
        (
            "/etc/NetworkManager/system-connections/eno1.nmconnection",
            "[connection]\nid=eno1\nuuid=e1\ntype=ethernet\ninterface-name=eno1\nmaster=b0\nslave-type=bond\n",
        ),
        (
            "/etc/NetworkManager/system-connections/ens2f0.nmconnection",
            "[connection]\nid=ens2f0\nuuid=e2\ntype=ethernet\ninterface-name=ens2f0\ncontroller=b0\n",
        ),
        (
            "/etc/NetworkManager/system-connections/backup.nmconnection",
            "[connection]\nid=backup\nuuid=e3\ntype=ethernet\n[ethernet]\nmac-address=3C:EC:EF:00:00:03\n\
             [ipv4]\nmethod=manual\naddress1=10.40.0.5/24\n",
        ),
        (
            "/etc/lvm/lvm.conf",
            "devices {\n\tdir = \"/dev\"\n\t# use_devicesfile = 1\n}\n",
        ),
        (
            "/etc/lvm/devices/system.devices",
            "VERSION=1.1.2\nIDTYPE=sys_wwid IDNAME=naa.600508b1001c0a1b DEVNAME=/dev/sda3 PVID=x PART=3\n",
        ),
    ])
}

/// SLES 15: wicked with a bond, a VLAN over it and a bridge over that.
pub(crate) fn sles_15() -> PhonyGuest {
    server(&[
        SYSTEMD,
        LINKS,
        (
            "/etc/os-release",
            "ID=\"sles\"\nVERSION_ID=\"15.5\"\nPRETTY_NAME=\"SUSE Linux Enterprise Server 15 SP5\"\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-bond0",
            "BONDING_MASTER='yes'\nBONDING_SLAVE0='eth0'\nBONDING_SLAVE1='eth1'\n\
             BONDING_MODULE_OPTS='mode=802.3ad miimon=100 min_links=2'\nIPADDR='10.20.0.5/24'\nSTARTMODE='auto'\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-eth0",
            "BOOTPROTO='none'\nSTARTMODE='hotplug'\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-eth1",
            "BOOTPROTO='none'\nSTARTMODE='hotplug'\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-vlan40",
            "ETHERDEVICE='bond0'\nVLAN_ID='40'\nBOOTPROTO='none'\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-br40",
            "BRIDGE='yes'\nBRIDGE_PORTS='vlan40'\nIPADDR='10.40.0.5/24'\n",
        ),
        ("/etc/sysconfig/network/routes", "default 10.20.0.1 - -\n"),
        (
            "/etc/udev/rules.d/70-persistent-net.rules",
            "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:1e:67:00:00:01\", \
             ATTR{dev_id}==\"0x0\", ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n\
             SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", KERNELS==\"0000:06:00.1\", \
             ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth1\"\n",
        ),
    ])
}

/// Ubuntu 18.04: netplan with a bond and a VLAN.
pub(crate) fn ubuntu_bionic() -> PhonyGuest {
    server(&[
        SYSTEMD,
        LINKS,
        (
            "/etc/os-release",
            "ID=ubuntu\nVERSION_ID=\"18.04\"\nPRETTY_NAME=\"Ubuntu 18.04.6 LTS\"\n",
        ),
        (
            "/etc/netplan/50-cloud-init.yaml",
            "network:\n  version: 2\n  ethernets:\n    eno1: {dhcp4: false}\n    eno2: {}\n  bonds:\n    \
             bond0:\n      interfaces: [eno1, eno2]\n      parameters: {mode: 802.3ad, lacp-rate: fast}\n      \
             addresses: [10.20.0.5/24]\n      gateway4: 10.20.0.1\n  vlans:\n    bond0.30:\n      id: 30\n      \
             link: bond0\n      addresses: [10.30.0.5/24]\n",
        ),
    ])
}

/// Ubuntu 22.04: netplan that chooses cards by their MAC addresses, with names given and not.
pub(crate) fn ubuntu_jammy() -> PhonyGuest {
    server(&[
        SYSTEMD,
        LINKS,
        (
            "/etc/os-release",
            "ID=ubuntu\nVERSION_ID=\"22.04\"\nPRETTY_NAME=\"Ubuntu 22.04.4 LTS\"\n",
        ),
        (
            "/etc/netplan/00-installer-config.yaml",
            "network:\n  version: 2\n  ethernets:\n    lan:\n      match: {macaddress: \"00:16:3e:00:00:01\"}\n      \
             set-name: lan\n    storage:\n      match: {macaddress: \"00:16:3e:00:00:02\"}\n      \
             addresses: [10.50.0.5/24]\n    enp65s0f0:\n      virtual-function-count: 8\n  bonds:\n    \
             bond0:\n      interfaces: [lan]\n      parameters: {mode: active-backup}\n  vlans:\n    office:\n      \
             id: 7\n      link: bond0\n      addresses: [10.7.0.5/24]\n",
        ),
    ])
}

/// Debian on a Smart Array and multipath: fstab, crypttab, LVM, md, and files that name disks.
pub(crate) fn debian_on_smart_array() -> PhonyGuest {
    server(&[
        SYSTEMD,
        LINKS,
        (
            "/etc/os-release",
            "ID=debian\nVERSION_ID=\"8\"\nPRETTY_NAME=\"Debian GNU/Linux 8\"\n",
        ),
        (
            "/etc/fstab",
            "/dev/mapper/mpatha-part1 / ext4 errors=remount-ro 0 1\n\
             /dev/mapper/cswap none swap sw 0 0\n/dev/vg0/data /srv ext4 nofail 0 2\n",
        ),
        (
            "/etc/crypttab",
            "cswap /dev/cciss/c0d0p2 /dev/urandom swap,cipher=aes-xts-plain64\n\
             backup /dev/cciss/c0d0p3 /dev/disk/by-id/usb-Stick-0:0-part1:/key luks,initramfs\n",
        ),
        (
            "/etc/multipath/bindings",
            "mpatha 3600508b1001c0a1b2c3d4e5f60718293\n",
        ),
        (
            "/etc/mdadm/mdadm.conf",
            "DEVICE /dev/cciss/c0d0p*\nARRAY /dev/md0 UUID=1:2:3:4 devices=/dev/cciss/c0d0p5,/dev/cciss/c0d1p5\n\
             ARRAY /dev/md1 devices=/dev/cciss/c0d0p6\n",
        ),
        (
            "/etc/blkid.tab",
            "<device DEVNO=\"0x6801\" UUID=\"x\">/dev/cciss/c0d0p1</device>\n",
        ),
        ("/etc/smartd.conf", "/dev/cciss/c0d0 -d cciss,0 -a\n"),
        (
            "/etc/drbd.d/r0.res",
            "resource r0 {\n  disk /dev/cciss/c0d0p7;\n}\n",
        ),
        (
            "/etc/systemd/system/var-spool.mount",
            "[Mount]\nWhat=/dev/disk/by-path/pci-0000:03:00.0-part1\nWhere=/var/spool\n",
        ),
        (
            "/etc/udev/rules.d/99-oracle.rules",
            "KERNEL==\"sd?1\", PROGRAM==\"/lib/udev/scsi_id -g -d %N\", RESULT==\"36000c29f01\", SYMLINK+=\"asm1\"\n",
        ),
        (
            "/etc/sysconfig/oracleasm",
            "ORACLEASM_SCANORDER=\"dm\"\nORACLEASM_SCANEXCLUDE=\"sd\"\n",
        ),
        (
            "/etc/network/interfaces",
            "auto eth0\niface eth0 inet dhcp\n",
        ),
    ])
}

/// LVM that looks at the one physical disk only, and remembers what it saw.
pub(crate) fn lvm_filtered() -> PhonyGuest {
    server(&[
        SYSTEMD,
        LINKS,
        (
            "/etc/os-release",
            "ID=centos\nVERSION_ID=\"7\"\nPRETTY_NAME=\"CentOS Linux 7\"\n",
        ),
        (
            "/etc/lvm/lvm.conf",
            "devices {\n    filter = [ \"r|/dev/cdrom|\", \"a|^/dev/sda[0-9]*$|\", \"r|.*|\" ]\n    \
             global_filter = [ \"a|.*|\" ]\n}\n",
        ),
        (
            "/etc/lvm/cache/.cache",
            "# made by lvm\npersistent_filter_cache {\n\tvalid_devices=[\"/dev/sda3\"]\n}\n",
        ),
    ])
}

/// A server with the agents of two vendors, IPMI, a watchdog, multipath, and disks of the network.
pub(crate) fn dell_with_agents() -> PhonyGuest {
    let guest = server(&[
        SYSTEMD,
        LINKS,
        (
            "/etc/os-release",
            "ID=\"rocky\"\nVERSION_ID=\"8.9\"\nPRETTY_NAME=\"Rocky Linux 8.9\"\n",
        ),
        (
            "/etc/multipath.conf",
            "defaults {\n\tuser_friendly_names yes\n}\n",
        ),
    ]);
    let root = guest.partition(1);
    for service in [
        "watchdog",
        "multipathd",
        "ipmievd",
        "hp-health",
        "iscsid",
        "sshd",
        "mcelog",
    ] {
        root.file(
            &format!("/etc/systemd/system/multi-user.target.wants/{service}.service"),
            "",
        );
    }
    // The agents of OpenManage are scripts of System V.
    root.file("/etc/rc3.d/S96dataeng", "");
    root.file("/etc/rc3.d/S97dsm_om_shrsvc", "");
    guest
}
