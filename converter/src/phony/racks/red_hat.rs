// SPDX-License-Identifier: MIT OR Apache-2.0
//! Red Hat Enterprise Linux from 4 to 10, and what is built from it.

use disk::filesystem::FilesystemKind;
use image_library::DiskIndex;

use super::{
    BOOT, DATA, ESP, GENERATOR, I386, LINKS, MACHINE_ID, MEMBER, REMOVABLE, ROOT, SWAP, SYSTEMD,
    X86_64, bios_with, dracut, esp_and_root, grub_entry, install, plain, put, systemd_boot,
    uefi_with,
};
use crate::guest::compression::Compression;
use crate::inspect::{AssembledKind, TableKind, VolumeId};
use crate::phony::image::{LINUX_2_6_9, PhonyImage};
use crate::phony::loaders::{grubenv, kernel};
use crate::phony::{Node, PhonyGuest, link, volume};

/// RHEL 4 for i386 on a Smart Array 5i: no virtio, and every name is `cciss`.
pub(crate) fn rhel_4_i386_on_smart_array() -> PhonyGuest {
    let guest = plain(FilesystemKind::Ext3);
    let root = guest.partition(1);
    let init = "#!/bin/nash\nmount -t proc /proc /proc\n/sbin/udevstart\n\
        echo \"Loading cciss.ko module\"\ninsmod /lib/cciss.ko \n/sbin/udevstart\n\
        echo Creating root device\nmkrootdev /dev/root\numount /sys\n\
        mount -o defaults --ro -t ext3 /dev/root /sysroot\nswitchroot /sysroot\n";
    PhonyImage {
        version: "2.6.9-89.ELsmp",
        kernel: "vmlinuz-2.6.9-89.ELsmp",
        initramfs: "initrd-2.6.9-89.ELsmp.img",
        usr: "",
        modules: LINUX_2_6_9,
        files: &[("bin/nash", ""), ("lib/cciss.ko", "cciss"), ("init", init)],
        has_builtin_list: false,
        config: "CONFIG_IDE=y\nCONFIG_BLK_DEV_IDEDISK=y\nCONFIG_BLK_DEV_PIIX=y\n",
        ..PhonyImage::default()
    }
    .put(root, "/boot", root);
    install(
        root,
        I386,
        &[
            (
                "/etc/redhat-release",
                "Red Hat Enterprise Linux AS release 4 (Nahant Update 8)\n",
            ),
            (
                "/etc/fstab",
                "/dev/cciss/c0d0p1 / ext3 defaults 1 1\nnone /dev/pts devpts gid=5,mode=620 0 0\n\
                 /dev/cciss/c0d0p2 swap swap defaults 0 0\n",
            ),
            (
                "/etc/modprobe.conf",
                "alias eth0 tg3\nalias eth1 tg3\nalias scsi_hostadapter cciss\n",
            ),
            (
                "/etc/sysconfig/network-scripts/ifcfg-eth0",
                "DEVICE=eth0\nBOOTPROTO=static\nIPADDR=10.9.0.4\nNETMASK=255.255.255.0\nONBOOT=yes\n",
            ),
            ("/etc/sysconfig/hwconf", "class: HD\ndevice: cciss/c0d0\n"),
            ("/etc/rc3.d/S05kudzu", ""),
            ("/etc/rc3.d/S91smartd", ""),
            (
                "/boot/grub/grub.conf",
                "#boot=/dev/cciss/c0d0\ndefault=0\ntimeout=5\n\
                 title Red Hat Enterprise Linux AS (2.6.9-89.ELsmp)\n\troot (hd0,0)\n\
                 \tkernel /boot/vmlinuz-2.6.9-89.ELsmp ro root=/dev/cciss/c0d0p1\n\
                 \tinitrd /boot/initrd-2.6.9-89.ELsmp.img\n",
            ),
            ("/boot/grub/device.map", "(hd0)     /dev/cciss/c0d0\n"),
        ],
    );
    guest
}

/// CentOS 5 as its installer partitions: everything but `/boot` on LVM, found by nash.
pub(crate) fn centos_5_on_lvm() -> PhonyGuest {
    let mut guest = bios_with(FilesystemKind::Lvm2Member, MEMBER);
    let member = [VolumeId::on_disk(DiskIndex(0), Some(2))];
    let kind = AssembledKind::LogicalVolume;
    let nodes = ["VolGroup00/LogVol00", "mapper/VolGroup00-LogVol00"];
    let root = &guest.assemble(kind, &nodes, &member, &volume(FilesystemKind::Ext3, ROOT));
    let nodes = ["VolGroup00/LogVol01", "mapper/VolGroup00-LogVol01"];
    guest.assemble(kind, &nodes, &member, &volume(FilesystemKind::Swap, SWAP));
    let boot = guest.partition(1);
    root.put("/boot", Node::Directory);
    let init = "#!/bin/nash\n\nmount -t proc /proc /proc\nsetquiet\nhotplug\nmkblkdevs\n\
        echo \"Loading scsi_mod.ko module\"\ninsmod /lib/scsi_mod.ko \n\
        echo \"Loading sd_mod.ko module\"\ninsmod /lib/sd_mod.ko \n\
        echo Waiting for driver initialization.\n\
        stabilized --hash --interval 250 /proc/scsi/scsi\nmkblkdevs\n\
        echo Scanning logical volumes\nlvm vgscan --ignorelockingfailure\n\
        echo Activating logical volumes\n\
        lvm vgchange -ay --ignorelockingfailure  VolGroup00\n\
        resume /dev/VolGroup00/LogVol01\necho Creating root device.\n\
        mkrootdev -t ext3 -o defaults,ro /dev/VolGroup00/LogVol00\n\
        echo Mounting root filesystem.\nmount /sysroot\nsetuproot\nswitchroot\n";
    PhonyImage {
        version: "2.6.18-419.el5",
        kernel: "vmlinuz-2.6.18-419.el5",
        initramfs: "initrd-2.6.18-419.el5.img",
        usr: "",
        inside: &["scsi_mod", "sd_mod"],
        files: &[("bin/nash", ""), ("init", init)],
        has_builtin_list: false,
        ..PhonyImage::default()
    }
    .put(boot, "", root);
    put(
        boot,
        &[(
            "/grub/grub.conf",
            "default=0\ntimeout=5\nhiddenmenu\ntitle CentOS (2.6.18-419.el5)\n\troot (hd0,0)\n\
             \tkernel /vmlinuz-2.6.18-419.el5 ro root=/dev/VolGroup00/LogVol00 rhgb quiet\n\
             \tinitrd /initrd-2.6.18-419.el5.img\n",
        )],
    );
    install(
        root,
        X86_64,
        &[
            ("/etc/redhat-release", "CentOS release 5.11 (Final)\n"),
            (
                "/etc/fstab",
                "/dev/VolGroup00/LogVol00 / ext3 defaults 1 1\n/dev/sda1 /boot ext3 defaults 1 2\n\
                 /dev/VolGroup00/LogVol01 swap swap defaults 0 0\n",
            ),
            (
                "/etc/lvm/lvm.conf",
                "devices {\n    filter = [ \"a|/dev/cciss/|\", \"r|.*|\" ]\n}\n",
            ),
            (
                "/etc/blkid/blkid.tab",
                "<device TYPE=\"ext3\">/dev/sda1</device>\n",
            ),
            ("/etc/sysconfig/grub", "boot=/dev/sda\nforcelba=0\n"),
        ],
    );
    guest
}

/// RHEL 6 that starts from a disk of the storage network by several paths.
pub(crate) fn rhel_6_on_multipath() -> PhonyGuest {
    let guest = plain(FilesystemKind::Ext4);
    let root = guest.partition(1);
    PhonyImage {
        version: "2.6.32-754.35.1.el6.x86_64",
        kernel: "vmlinuz-2.6.32-754.35.1.el6.x86_64",
        initramfs: "initramfs-2.6.32-754.35.1.el6.x86_64.img",
        usr: "",
        inside: &["scsi_mod", "sd_mod"],
        files: &[
            ("init", "#!/bin/sh\n"),
            ("lib/dracut-lib.sh", ""),
            (
                "etc/multipath.conf",
                "defaults {\n\tuser_friendly_names yes\n}\n",
            ),
            (
                "etc/multipath/bindings",
                "mpatha 360060e8007c3a4000030c3a400001b2f\n",
            ),
            (
                r"initqueue-finished/devexists-\x2fdev\x2fmapper\x2fmpathap1.sh",
                "[ -e \"/dev/mapper/mpathap1\" ]\n",
            ),
        ],
        ..PhonyImage::default()
    }
    .put(root, "/boot", root);
    install(
        root,
        X86_64,
        &[
            GENERATOR,
            (
                "/etc/redhat-release",
                "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n",
            ),
            (
                "/etc/fstab",
                "/dev/mapper/mpathap1 / ext4 defaults 1 1\n\
                 /dev/mapper/mpathap2 swap swap defaults 0 0\n",
            ),
            (
                "/etc/multipath.conf",
                "defaults {\n\tuser_friendly_names yes\n}\nblacklist {\n\tdevnode \"^cciss\"\n}\n",
            ),
            (
                "/etc/multipath/bindings",
                "mpatha 360060e8007c3a4000030c3a400001b2f\n",
            ),
            (
                "/boot/grub/grub.conf",
                "#boot=/dev/mapper/mpatha\ndefault=0\ntimeout=5\ntitle RHEL 6\n\troot (hd0,0)\n\
                 \tkernel /boot/vmlinuz-2.6.32-754.35.1.el6.x86_64 ro root=/dev/mapper/mpathap1 rd_NO_LUKS \
                 rd_NO_MD rd_NO_LVM crashkernel=128M@0M\n\
                 \tinitrd /boot/initramfs-2.6.32-754.35.1.el6.x86_64.img\n",
            ),
            (
                "/etc/udev/rules.d/70-persistent-net.rules",
                "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:21:5e:0a:00:01\", \
                 ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n",
            ),
            (
                "/etc/sysconfig/network-scripts/ifcfg-eth0",
                "DEVICE=\"eth0\"\nHWADDR=\"00:21:5E:0A:00:01\"\nNM_CONTROLLED=\"no\"\nONBOOT=\"yes\"\n\
                 IPADDR=10.9.6.4\nPREFIX=24\n",
            ),
            ("/etc/rc3.d/S06multipathd", ""),
        ],
    );
    guest
}

/// CentOS 7 with everything on mirrors of md, written for two disks that are named.
pub(crate) fn centos_7_on_md() -> PhonyGuest {
    let members = || {
        vec![
            volume(FilesystemKind::MdMember, MEMBER),
            volume(FilesystemKind::MdMember, DATA),
        ]
    };
    let mut guest = PhonyGuest::new(TableKind::Mbr, members());
    guest.add_disk(None, TableKind::Mbr, members());
    let parts = |number| [0, 1].map(|disk| VolumeId::on_disk(DiskIndex(disk), Some(number)));
    let kind = AssembledKind::MdArray;
    let nodes = ["md126", "md/boot"];
    let boot = &guest.assemble(kind, &nodes, &parts(1), &volume(FilesystemKind::Ext4, BOOT));
    let nodes = ["md127", "md/root"];
    let root = &guest.assemble(kind, &nodes, &parts(2), &volume(FilesystemKind::Ext4, ROOT));
    root.put("/boot", Node::Directory);
    PhonyImage {
        version: "3.10.0-1160.118.1.el7.x86_64",
        kernel: "vmlinuz-3.10.0-1160.118.1.el7.x86_64",
        initramfs: "initramfs-3.10.0-1160.118.1.el7.x86_64.img",
        suffix: ".ko.xz",
        inside: &["scsi_mod", "sd_mod", "libata", "libahci", "ahci"],
        files: &dracut("ahci\n", &[
            (
                "etc/mdadm.conf",
                "DEVICE /dev/sda2 /dev/sdb2\nARRAY /dev/md127 UUID=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9 \
                 devices=/dev/sda2,/dev/sdb2\n",
            ),
            (
                "etc/cmdline.d/90mdraid.conf",
                " rd.md.uuid=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9\n",
            ),
        ]),
        microcode: true,
        ..PhonyImage::default()
    }
    .put(boot, "", root);
    link(root, "/lib", "usr/lib");
    put(
        boot,
        &[(
            "/grub2/grub.cfg",
            "menuentry 'CentOS Linux (3.10.0-1160.118.1.el7.x86_64) 7 (Core)' {\n\
             \tset root='mduuid/9f8e7d6c5b4a39281706f5e4d3c2b1a0'\n\
             \tlinux16 /vmlinuz-3.10.0-1160.118.1.el7.x86_64 root=/dev/md127 ro \
             rd.md.uuid=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9 rhgb quiet\n\
             \tinitrd16 /initramfs-3.10.0-1160.118.1.el7.x86_64.img\n}\n",
        )],
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=\"centos\"\nVERSION_ID=\"7\"\n"),
            (
                "/etc/fstab",
                "/dev/md127 / ext4 defaults 0 0\n/dev/md/boot /boot ext4 defaults 0 0\n",
            ),
            (
                "/etc/mdadm.conf",
                "MAILADDR root\nDEVICE /dev/sda* /dev/sdb*\n\
                 ARRAY /dev/md/root level=raid1 num-devices=2 UUID=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9\n",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/mdmonitor.service",
                "",
            ),
            (
                "/etc/default/grub",
                "GRUB_CMDLINE_LINUX=\"rd.md.uuid=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9 rhgb quiet\"\n",
            ),
        ],
    );
    guest
}

/// Oracle Linux 8: its own kernel beside Red Hat's, the older one is the default; disks for ASM.
pub(crate) fn oracle_8_with_two_kernels() -> PhonyGuest {
    let guest = bios_with(FilesystemKind::Ext4, ROOT);
    let (boot, root) = (guest.partition(1), guest.partition(2));
    root.put("/boot", Node::Directory);
    let versions = ["5.15.0-206.153.7.el8uek.x86_64", "4.18.0-553.el8_10.x86_64"];
    for version in versions {
        kernel(boot, "", root, version, &format!("initramfs-{version}.img"));
        boot.file(
            &format!("/loader/entries/{MACHINE_ID}-{version}.conf"),
            format!(
                "title Oracle Linux Server 8.10 ({version})\nversion {version}\n\
                 linux /vmlinuz-{version}\ninitrd /initramfs-{version}.img\n\
                 options root=/dev/sda2 ro crashkernel=auto transparent_hugepage=never\n\
                 id ol-{version}\ngrub_class kernel\n"
            ),
        );
    }
    boot.file(
        "/grub2/grubenv",
        grubenv(&format!("saved_entry={MACHINE_ID}-{}\n", versions[1])),
    );
    put(
        boot,
        &[("/grub2/grub.cfg", "load_env\ninsmod blscfg\nblscfg\n")],
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=\"ol\"\nVERSION_ID=\"8.10\"\n"),
            (
                "/etc/fstab",
                "/dev/sda2 / ext4 defaults 0 0\n/dev/sda1 /boot ext4 defaults 0 0\n",
            ),
            (
                "/etc/sysconfig/oracleasm",
                "ORACLEASM_ENABLED=true\nORACLEASM_SCANORDER=\"emcpower\"\nORACLEASM_SCANEXCLUDE=\"sd\"\n",
            ),
            (
                "/etc/udev/rules.d/99-oracle-asmdevices.rules",
                "KERNEL==\"sd*\", SUBSYSTEM==\"block\", ENV{ID_SERIAL}==\"360000970000197\", NAME=\"asm-data\"\n",
            ),
            (
                "/etc/sysconfig/kernel",
                "UPDATEDEFAULT=yes\nDEFAULTKERNEL=kernel-uek\n",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/PowerPath.service",
                "",
            ),
        ],
    );
    guest
}

/// AlmaLinux 9 on NVMe with UEFI: names of NVMe disks, LVM's list of devices, a card known by MAC.
pub(crate) fn alma_9_on_nvme() -> PhonyGuest {
    let mut guest = uefi_with(FilesystemKind::Lvm2Member, MEMBER);
    let member = [VolumeId::on_disk(DiskIndex(0), Some(3))];
    let kind = AssembledKind::LogicalVolume;
    let nodes = ["almalinux/root", "mapper/almalinux-root"];
    let root = &guest.assemble(kind, &nodes, &member, &volume(FilesystemKind::Ext4, ROOT));
    let (esp, boot) = (guest.partition(1), guest.partition(2));
    root.put("/boot", Node::Directory);
    boot.put("/efi", Node::Directory);
    let version = "5.14.0-427.13.1.el9_4.x86_64";
    PhonyImage {
        version,
        kernel: &format!("vmlinuz-{version}"),
        initramfs: &format!("initramfs-{version}.img"),
        suffix: ".ko.xz",
        inside: &["scsi_mod", "sd_mod"],
        files: &dracut("nvme\n", &[
            (
                "etc/lvm/devices/system.devices",
                "IDTYPE=sys_wwid IDNAME=eui.0025388b01000001 DEVNAME=/dev/nvme0n1p3 PVID=q8Jx2b PART=3\n",
            ),
        ]),
        compression: Compression::Zstd,
        microcode: true,
        ..PhonyImage::default()
    }
    .put(boot, "", root);
    link(root, "/lib", "usr/lib");
    put(
        esp,
        &[
            ("/EFI/BOOT/BOOTX64.EFI", "shimx64.efi"),
            ("/EFI/almalinux/shimx64.efi", "shimx64.efi"),
            ("/EFI/almalinux/grubx64.efi", "grubx64.efi"),
            (
                "/EFI/almalinux/grub.cfg",
                "search --no-floppy --fs-uuid --set=dev b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c01\n\
                 set prefix=($dev)/grub2\nconfigfile $prefix/grub.cfg\n",
            ),
        ],
    );
    put(
        boot,
        &[("/grub2/grub.cfg", "load_env\ninsmod blscfg\nblscfg\n")],
    );
    boot.file(
        &format!("/loader/entries/{MACHINE_ID}-{version}.conf"),
        format!(
            "title AlmaLinux ({version}) 9.4\nversion {version}\nlinux /vmlinuz-{version}\n\
             initrd /initramfs-{version}.img\n\
             options root=/dev/mapper/almalinux-root ro rd.lvm.lv=almalinux/root \
             nvme_core.default_ps_max_latency_us=0\n"
        ),
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=\"almalinux\"\nVERSION_ID=\"9.4\"\n"),
            (
                "/etc/fstab",
                "/dev/mapper/almalinux-root / ext4 defaults 0 0\n/dev/nvme0n1p2 /boot ext4 defaults 0 0\n\
                 /dev/nvme0n1p1 /boot/efi vfat umask=0077,shortname=winnt 0 2\n\
                 /dev/nvme1n1p1 none swap nofail 0 0\n",
            ),
            (
                "/etc/lvm/devices/system.devices",
                "IDTYPE=sys_wwid IDNAME=eui.0025388b01000001 DEVNAME=/dev/nvme0n1p3 PVID=q8Jx2b PART=3\n",
            ),
            (
                "/etc/NetworkManager/system-connections/lan.nmconnection",
                "[connection]\nid=lan\ntype=ethernet\n[ethernet]\nmac-address=0C:42:A1:00:00:07\n\
                 [ipv4]\nmethod=manual\naddress1=10.9.9.7/24,10.9.9.1\n",
            ),
            (
                "/etc/systemd/system/sysinit.target.wants/nvmefc-boot-connections.service",
                "",
            ),
        ],
    );
    guest
}

/// Rocky Linux 9 whose data is on XFS, and nothing there must change; much memory for crash dumps.
pub(crate) fn rocky_9_with_xfs_data() -> PhonyGuest {
    let guest = PhonyGuest::new(
        TableKind::Gpt,
        vec![
            volume(FilesystemKind::Ext4, BOOT),
            volume(FilesystemKind::Ext4, ROOT),
            volume(FilesystemKind::Xfs, DATA),
        ],
    );
    let (boot, root, data) = (guest.partition(1), guest.partition(2), guest.partition(3));
    root.put("/boot", Node::Directory);
    root.put("/srv", Node::Directory);
    data.file("/pgdata/PG_VERSION", "15\n");
    let version = "5.14.0-503.el9.x86_64";
    kernel(boot, "", root, version, &format!("initramfs-{version}.img"));
    grub_entry(
        boot,
        "/grub2/grub.cfg",
        "Rocky Linux",
        &format!(
            "/vmlinuz-{version} root=UUID={ROOT} ro \
         crashkernel=1G-2G:192M,2G-:2G"
        ),
        &format!("/initramfs-{version}.img"),
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=\"rocky\"\nVERSION_ID=\"9.5\"\n"),
            (
                "/etc/fstab",
                "UUID=b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c02 / ext4 defaults 0 0\n\
                 UUID=b3a1c7d2-0f4e-4d7a-9c35-6e1f2a3b4c01 /boot ext4 defaults 0 0\n\
                 /dev/disk/by-id/wwn-0x5000c500a1b2c3d4-part3 /srv xfs noatime 0 0\n",
            ),
            (
                "/etc/kdump.conf",
                "path /var/crash\ncore_collector makedumpfile -l -d 31\n",
            ),
            (
                "/etc/systemd/system/multi-user.target.wants/kdump.service",
                "",
            ),
        ],
    );
    guest
}

/// RHEL 10: entries for kernels of kernel-install on a FAT `/boot`, zstd modules, keyfiles only.
pub(crate) fn rhel_10() -> PhonyGuest {
    let guest = esp_and_root();
    let (esp, root) = (guest.partition(1), guest.partition(2));
    root.put("/boot", Node::Directory);
    let version = "6.12.0-55.9.1.el10_0.x86_64";
    PhonyImage {
        version,
        kernel: &format!("{MACHINE_ID}/{version}/linux"),
        initramfs: &format!("{MACHINE_ID}/{version}/initrd"),
        suffix: ".ko.zst",
        inside: &["scsi_mod", "sd_mod"],
        files: &dracut(
            "nvme\n",
            &[(
                "etc/cmdline.d/20-root-dev.conf",
                " root=/dev/nvme0n1p2 rootfstype=ext4\n",
            )],
        ),
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(esp, "", root);
    link(root, "/lib", "usr/lib");
    put(esp, &[REMOVABLE]);
    systemd_boot(
        esp,
        &format!("{MACHINE_ID}-{version}"),
        &format!("root=/dev/nvme0n1p2 ro quiet\nlinux /{MACHINE_ID}/{version}/linux"),
        [&format!("{version}/linux"), &format!("{version}/initrd")],
    );
    install(
        root,
        X86_64,
        &[
            SYSTEMD,
            LINKS,
            ("/etc/os-release", "ID=\"rhel\"\nVERSION_ID=\"10.0\"\n"),
            ("/etc/kernel/cmdline", "root=/dev/nvme0n1p2 ro quiet\n"),
            (
                "/etc/NetworkManager/system-connections/enp129s0f1np1.nmconnection",
                "[connection]\nid=enp129s0f1np1\ntype=ethernet\ninterface-name=enp129s0f1np1\n\
                 [ipv4]\nmethod=manual\naddress1=10.9.10.4/24\n",
            ),
        ],
    );
    root.file(
        "/etc/fstab",
        format!("/dev/nvme0n1p2 / ext4 defaults 0 1\nUUID={ESP} /boot vfat umask=0077 0 2\n"),
    );
    guest
}
