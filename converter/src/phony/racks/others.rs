// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arch, Slackware, Alpine, appliances, and servers whose vendors left much on them.

use disk::filesystem::FilesystemKind;

use super::{
    BOOT, DATA, GENERATOR, LINKS, ROOT, SWAP, SYSTEMD, X86_64, bios_with, grub_entry, install,
    plain, put,
};
use crate::guest::compression::Compression;
use crate::inspect::TableKind;
use crate::phony::image::PhonyImage;
use crate::phony::loaders::kernel;
use crate::phony::{MemoryFilesystem, Node, PhonyGuest, link, volume};

/// Arch with Syslinux on a BIOS, its initramfs made for this server with systemd inside.
pub(crate) fn arch_with_syslinux() -> PhonyGuest {
    let guest = bios_with(FilesystemKind::Ext4, ROOT);
    let (boot, root) = (guest.partition(1), guest.partition(2));
    root.put("/boot", Node::Directory);
    PhonyImage {
        version: "6.6.63-1-lts",
        kernel: "vmlinuz-linux-lts",
        initramfs: "initramfs-linux-lts.img",
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &[
            ("lib", "-> usr/lib"),
            ("init", "-> usr/lib/systemd/systemd"),
            ("usr/lib/systemd/systemd", "elf"),
            ("buildconfig", ""),
            ("config", "MODULES=\"mpt3sas\"\n"),
        ],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(boot, "", root);
    link(root, "/lib", "usr/lib");
    put(
        boot,
        &[(
            "/syslinux/syslinux.cfg",
            "DEFAULT arch\nPROMPT 0\nTIMEOUT 50\nUI menu.c32\nLABEL arch\n    MENU LABEL Arch Linux LTS\n    \
             LINUX ../vmlinuz-linux-lts\n    APPEND root=/dev/sda2 rw\n    INITRD ../initramfs-linux-lts.img\n\
             LABEL hdt\n    COM32 hdt.c32\n",
        )],
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=arch\nBUILD_ID=rolling\n"),
            (
                "/etc/fstab",
                "/dev/sda2 / ext4 rw,relatime 0 1\n/dev/sda1 /boot ext4 rw 0 2\n",
            ),
            (
                "/etc/mkinitcpio.conf",
                "MODULES=(mpt3sas)\nHOOKS=(base systemd autodetect modconf block filesystems)\n",
            ),
            ("/usr/lib/modules/6.6.63-1-lts/pkgbase", "linux-lts\n"),
            (
                "/etc/systemd/network/20-wired.network",
                "[Match]\nName=enp5s0f0\n[Network]\nAddress=10.9.50.4/24\nGateway=10.9.50.1\nVLAN=dmz\n",
            ),
            (
                "/etc/systemd/network/21-dmz.netdev",
                "[NetDev]\nName=dmz\nKind=vlan\n[VLAN]\nId=51\n",
            ),
        ],
    );
    guest
}

/// Slackware: LILO, and a kernel with everything built in that starts without an initramfs.
pub(crate) fn slackware_with_lilo() -> PhonyGuest {
    let guest = plain(FilesystemKind::Ext4);
    let root = guest.partition(1);
    let version = "huge-4.4.14";
    kernel(root, "/boot", root, version, "unused.img");
    root.take("/boot/unused.img");
    link(root, "/boot/vmlinuz", "vmlinuz-huge-4.4.14");
    install(
        root,
        X86_64,
        &[
            ("/etc/os-release", "ID=slackware\nVERSION_ID=14.2\n"),
            (
                "/etc/fstab",
                "/dev/sda2 swap swap defaults 0 0\n/dev/sda1 / ext4 defaults 1 1\n",
            ),
            (
                "/etc/lilo.conf",
                "append=\" vt.default_utf8=1\"\nboot = /dev/sda\nlba32\ncompact\ntimeout = 50\n\
                 image = /boot/vmlinuz\n  root = /dev/sda1\n  label = Linux\n  read-only\n",
            ),
            ("/etc/rc.d/rc.inet1.conf", "IPADDR[0]=\"10.9.44.2\"\n"),
        ],
    );
    guest
}

/// Alpine with GRUB on NVMe, whose arguments list the modules that its initramfs loads.
pub(crate) fn alpine_with_grub() -> PhonyGuest {
    let guest = plain(FilesystemKind::Ext4);
    let root = guest.partition(1);
    PhonyImage {
        version: "6.6.58-0-lts",
        kernel: "vmlinuz-lts",
        initramfs: "initramfs-lts",
        usr: "",
        suffix: ".ko.gz",
        inside: &["scsi_mod", "sd_mod"],
        files: &[("init", "#!/bin/sh\n"), ("sbin/nlplug-findfs", "elf")],
        ..PhonyImage::default()
    }
    .put(root, "/boot", root);
    install(
        root,
        X86_64,
        &[
            ("/etc/os-release", "ID=alpine\nVERSION_ID=3.20.3\n"),
            (
                "/etc/fstab",
                "/dev/nvme0n1p1 / ext4 rw,relatime 0 1\n/dev/nvme0n1p2 swap swap defaults 0 0\n",
            ),
            (
                "/boot/grub/grub.cfg",
                "menuentry 'Alpine' {\n\tlinux /boot/vmlinuz-lts root=/dev/nvme0n1p1 \
                 modules=sd-mod,usb-storage,ext4,nvme rootfstype=ext4 quiet\n\tinitrd /boot/initramfs-lts\n}\n",
            ),
            (
                "/etc/default/grub",
                "GRUB_CMDLINE_LINUX_DEFAULT=\"modules=sd-mod,usb-storage,ext4,nvme quiet rootfstype=ext4\"\n",
            ),
            ("/lib/modules/6.6.58-0-lts/kernel-suffix", "lts\n"),
            (
                "/etc/mkinitfs/mkinitfs.conf",
                "features=\"base ext4 nvme\"\n",
            ),
            (
                "/etc/network/interfaces",
                "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet static\n\
                 \taddress 10.9.60.2/24\n\tgateway 10.9.60.1\n",
            ),
        ],
    );
    guest
}

/// A server with virtio built in and its root named by UUID, so that only these files matter.
fn plain_with(files: &[(&str, &str)]) -> PhonyGuest {
    let guest = plain(FilesystemKind::Ext4);
    bare(guest.partition(1), ROOT);
    put(guest.partition(1), files);
    guest
}

fn bare(root: &MemoryFilesystem, uuid: &str) {
    let version = "5.10.0-33-amd64";
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
        "Linux",
        &format!("/boot/vmlinuz-{version} root=UUID={uuid} ro console=ttyS0"),
        &format!("/boot/initrd.img-{version}"),
    );
    install(root, X86_64, &[SYSTEMD, LINKS]);
    root.file("/etc/os-release", "ID=debian\nVERSION_ID=\"11\"\n");
    root.file("/etc/fstab", format!("UUID={uuid} / ext4 defaults 0 1\n"));
}

/// One that was a virtual machine already: tools of other hypervisors start.
pub(crate) fn moved_from_vmware() -> PhonyGuest {
    plain_with(&[
        (
            "/etc/systemd/system/multi-user.target.wants/vmtoolsd.service",
            "",
        ),
        (
            "/etc/systemd/system/multi-user.target.wants/open-vm-tools.service",
            "",
        ),
        ("/etc/rc3.d/S30xe-daemon", ""),
    ])
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
    plain_with(&[
        ("/etc/network/interfaces", &interfaces),
        (
            "/etc/network/interfaces.d/ipoib",
            "auto ib0\niface ib0 inet static\n\taddress 10.99.0.1/24\n",
        ),
    ])
}

/// An HPE ProLiant with all of its vendor's agents, and a watchdog that would restart the machine.
pub(crate) fn proliant_with_agents() -> PhonyGuest {
    let services = [
        "hp-health",
        "hp-snmp-agents",
        "hpsmhd",
        "hp-asrd",
        "amsd",
        "smad",
        "ahslog",
        "bmc-watchdog",
    ];
    let units =
        services.map(|name| format!("/etc/systemd/system/multi-user.target.wants/{name}.service"));
    let files: Vec<(&str, &str)> = units.iter().map(|path| (path.as_str(), "")).collect();
    let guest = plain_with(&files);
    put(
        guest.partition(1),
        &[
            ("/etc/smartd.conf", "/dev/sda -d cciss,0 -a -m root\n"),
            ("/etc/rc2.d/S20cpqFca", ""),
        ],
    );
    guest
}

/// IBM and Supermicro agents, sensors, RAID tools, InfiniBand: what an older cluster node has.
pub(crate) fn cluster_node() -> PhonyGuest {
    plain_with(&[
        (
            "/etc/systemd/system/multi-user.target.wants/lm_sensors.service",
            "",
        ),
        (
            "/etc/systemd/system/multi-user.target.wants/mcelog.service",
            "",
        ),
        (
            "/etc/systemd/system/multi-user.target.wants/rdma.service",
            "",
        ),
        (
            "/etc/systemd/system/multi-user.target.wants/opensmd.service",
            "",
        ),
        (
            "/etc/systemd/system/multi-user.target.wants/cpupower.service",
            "",
        ),
        ("/etc/rc3.d/S50superdoctord", ""),
        ("/etc/rc3.d/S50mrmonitor", ""),
        ("/etc/rc3.d/S50snmpagent_ibm", ""),
        ("/etc/tuned/active_profile", "hpc-compute\n"),
    ])
}

/// Two systems on one disk: the one that its own boot loader names is taken.
pub(crate) fn two_systems() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Mbr,
        vec![
            volume(FilesystemKind::Ext4, DATA),
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Swap, SWAP),
        ],
    );
    install(
        guest.partition(1),
        X86_64,
        &[
            GENERATOR,
            ("/etc/debian_version", "8.11\n"),
            ("/etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n"),
        ],
    );
    bare(guest.partition(2), ROOT);
    guest
}

/// A kernel of somebody's own that is named by its image alone, everything linked in.
pub(crate) fn own_kernel_linked_in() -> PhonyGuest {
    let guest = bios_with(FilesystemKind::Ext4, ROOT);
    let (boot, root) = (guest.partition(1), guest.partition(2));
    root.put("/boot", Node::Directory);
    kernel(boot, "", root, "5.4.0-own", "initrd.img-5.4.0-own");
    boot.take("/initrd.img-5.4.0-own");
    put(
        boot,
        &[(
            "/grub/grub.cfg",
            "menuentry 'own' {\n\tlinux /vmlinuz-5.4.0-own root=/dev/sda2 ro\n}\n",
        )],
    );
    install(
        root,
        X86_64,
        &[("/etc/os-release", "ID=lfs\nVERSION_ID=9\n")],
    );
    root.file(
        "/etc/fstab",
        format!("/dev/sda2 / ext4 defaults 0 1\nUUID={BOOT} /boot ext4 defaults 0 2\n"),
    );
    guest
}
