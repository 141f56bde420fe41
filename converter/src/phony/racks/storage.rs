// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers whose disks are in no good order, or are known by what stays behind with the server: each
//! says codes that no other phony guest does.

use disk::filesystem::FilesystemKind::{Btrfs, Ext4, Luks, Xfs};
use image_library::DiskIndex;

use super::{BOOT, DATA, ROOT, SWAP, X86_64, boot, root, swap, system};
use crate::guest::compression::Compression;
use crate::inspect::{TableKind, VolumeId};
use crate::phony::disks::{self, add, array_members, group_disks};
use crate::phony::encrypted::luks;
use crate::phony::image::{MODERN, Module, PhonyImage, with_btrfs};
use crate::phony::loaders::{debian_lilo, kernel, rhel_8};
use crate::phony::{PhonyGuest, SYSTEMD, mbr, servers, volume};

const VERSION: &str = "6.1.0-28-amd64";
const LUKS: &str = "0f3a7c52-9f0e-4a5b-8a53-5e2f3c1d7b21";

/// What initramfs-tools puts into every initramfs.
const INITRAMFS: &str = "
== init
#!/bin/sh
== conf/initramfs.conf
MODULES=dep
";

/// A server that starts as it is, with more disks.
fn with_disks(disks: Vec<Vec<u8>>) -> PhonyGuest {
    let mut guest = servers::ubuntu();
    add(&mut guest, disks);
    guest
}

/// Debian 12 with these files, and these arguments for its kernel.
fn debian_12(guest: PhonyGuest, arguments: &str, files: &str) -> PhonyGuest {
    let base = "
== /etc/os-release
ID=debian
VERSION_ID=\"12\"
== /boot/grub/grub.cfg
menuentry 'Debian' {
	linux /boot/vmlinuz-{VERSION} root=UUID={ROOT} ro {ARGUMENTS}
	initrd /boot/initrd.img-{VERSION}
}
";
    let words = [
        ("VERSION", VERSION),
        ("ROOT", ROOT),
        ("ARGUMENTS", arguments),
    ];
    guest.tree(base, &words);
    system(guest, X86_64, SYSTEMD, files)
}

/// Debian 12 whose data are opened by the TPM, a FIDO2 token and a smart card.
pub(crate) fn debian_12_with_keys_elsewhere() -> PhonyGuest {
    let [data, vault, safe] = [DATA, SWAP, BOOT].map(|uuid| volume(Luks, uuid));
    let guest = mbr([root(Ext4), data, vault, safe]);
    kernel(&guest, VERSION, "initrd.img-{}");
    let files = "
== /etc/fstab
UUID={ROOT} / ext4 defaults 0 1
== /etc/crypttab
data /dev/sda2 none luks,tpm2-device=auto
vault UUID={SWAP} - fido2-device=auto,headless=true,nofail
safe UUID={BOOT} /etc/keys/safe pkcs11-uri=pkcs11:token=ops,headless
";
    debian_12(guest, "quiet", files)
}

/// Debian 12 on a btrfs of two disks, each named where it is mounted.
pub(crate) fn debian_12_on_two_disks_of_btrfs() -> PhonyGuest {
    let mut guest = mbr([root(Btrfs), swap()]);
    guest.add_disk(None, TableKind::Mbr, vec![volume(Btrfs, ROOT)]);
    let second = VolumeId::on_disk(DiskIndex(1), Some(1));
    guest.filesystems.remove(&second);
    PhonyImage {
        version: VERSION,
        modules: &with_btrfs(),
        inside: &["scsi_mod", "sd_mod", "btrfs"],
        files: &[INITRAMFS],
        compression: Compression::Zstd,
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    let files = "
== /lib -> usr/lib
== /etc/fstab
/dev/sda1 / btrfs compress=zstd,device=/dev/sda1,device=/dev/sdb1 0 0
";
    let arguments = "rootflags=device=/dev/sda1,device=/dev/sdb1,degraded";
    debian_12(guest, arguments, files)
}

/// Partition tables of data disks in every kind of disorder.
pub(crate) fn damaged_partition_tables() -> PhonyGuest {
    let sound = || disks::gpt(&[(64, 127), (128, 255)]);
    let damaged = |offsets: &[usize]| {
        let mut bytes = sound();
        for offset in offsets {
            bytes[*offset] ^= 0xff;
        }
        bytes
    };
    let backup = sound().len() - 512;
    let mut without_mbr = sound();
    without_mbr[..512].fill(0);
    let mut with_mbr = sound();
    with_mbr[..512].copy_from_slice(&disks::mbr(&[(0x83, 64, 64)])[..512]);
    // Something else than a record where the logical partitions are to begin.
    let mut without_record = disks::mbr(&[(0x05, 64, 128)]);
    without_record[64 * 512] = 1;
    with_disks(vec![
        damaged(&[512]),
        damaged(&[backup]),
        damaged(&[512, backup]),
        without_mbr,
        with_mbr,
        disks::gpt(&[(64, 127), (255, 128)]),
        disks::mbr(&[(0x83, 64, 1 << 20)]),
        disks::mbr(&[(0x83, 64, 128), (0x83, 100, 128)]),
        without_record,
    ])
}

/// The only disk has a partition table that nothing can be read from.
pub(crate) fn damaged_table() -> PhonyGuest {
    let mut bytes = disks::gpt(&[(64, 127)]);
    let backup = bytes.len() - 512;
    bytes[512] = 0;
    bytes[backup] = 0;
    nothing_but(vec![bytes])
}

/// A disk on which there is nothing.
pub(crate) fn blank_disk() -> PhonyGuest {
    nothing_but(vec![vec![0; 1 << 20]])
}

/// The disk is a member of a RAID of the mainboard's firmware.
pub(crate) fn member_of_a_firmware_raid() -> PhonyGuest {
    let mut bytes = disks::mbr(&[(0x83, 64, 1024)]);
    let signature = bytes.len() - 1024;
    bytes[signature..signature + 24].copy_from_slice(b"Intel Raid ISM Cfg Sig. ");
    nothing_but(vec![bytes])
}

fn nothing_but(disks: Vec<Vec<u8>>) -> PhonyGuest {
    let mut guest = PhonyGuest::new(TableKind::None, Vec::new());
    guest.disks.clear();
    add(&mut guest, disks);
    guest
}

/// Data on mirrors in use, without a disk, with one that is behind, with one twice, and damaged.
pub(crate) fn mirrors_in_disorder() -> PhonyGuest {
    let mut disks = array_members("raid1-dirty");
    disks.truncate(2);
    disks.extend(array_members("raid1-stale"));
    let twice = array_members("raid1-1.2");
    disks.extend([&twice[0], &twice[0]].map(Clone::clone));
    let mut damaged = array_members("raid1-1.1").remove(0);
    damaged[100] ^= 1;
    disks.push(damaged);
    with_disks(disks)
}

/// Data on an array that lacks too many disks.
pub(crate) fn array_that_lacks_disks() -> PhonyGuest {
    let mut disks = array_members("raid5-left-symmetric");
    disks.truncate(1);
    with_disks(disks)
}

/// Data on a volume group with damage of every kind, and without one of its disks.
pub(crate) fn damaged_volume_group() -> PhonyGuest {
    let mut disks = group_disks();
    // A copy, a damaged label, damaged metadata, and one that is not there.
    disks.push(disks[1].clone());
    disks[3][512 + 40] ^= 1;
    disks[0][4096 + 300] ^= 1;
    disks.remove(5);
    with_disks(disks)
}

/// Data that nobody has the key of, and that no key opens.
pub(crate) fn locked_data() -> PhonyGuest {
    let mut unknown = luks("0f3a7c52-9f0e-4a5b-8a53-5e2f3c1d7b22", &[7; 4096]);
    unknown[8..11].copy_from_slice(b"rot");
    with_disks(vec![luks(LUKS, &[7; 4096]), unknown])
}

/// The system is on a volume that nobody has the key of.
pub(crate) fn locked_root() -> PhonyGuest {
    let mut guest = mbr([boot(), swap()]);
    let files = "
== /boot/grub/grub.cfg
menuentry 'x' {
	linux /vmlinuz
}
";
    guest.tree(files, &[]);
    add(&mut guest, vec![luks(LUKS, &[7; 4096])]);
    guest
}

/// Its root is on XFS, and no kernel of it has a driver of that among its modules.
pub(crate) fn xfs_without_its_driver() -> PhonyGuest {
    on_xfs(&[], &ELF_64)
}

/// Its root is on XFS, and its kernel is one of 32 bits.
pub(crate) fn xfs_on_32_bits() -> PhonyGuest {
    on_xfs(&[("fs/xfs/xfs", &[], "fs-xfs")], &ELF_32)
}

const ELF_64: [u8; 20] = [
    127, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 62, 0,
];
const ELF_32: [u8; 20] = [
    127, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3, 0,
];

fn on_xfs(more: &[Module], program: &[u8]) -> PhonyGuest {
    let guest = mbr([root(Xfs), swap()]);
    let modules: Vec<Module> = MODERN.iter().chain(more).copied().collect();
    PhonyImage {
        version: VERSION,
        usr: "",
        modules: &modules,
        inside: &["scsi_mod", "sd_mod"],
        files: &[INITRAMFS],
        ..PhonyImage::default()
    }
    .put(&guest, "/boot");
    for (path, _, _) in &modules {
        guest.file(&format!("/lib/modules/{VERSION}/kernel/{path}.ko"), program);
    }
    let files = "
== /etc/fstab
UUID={ROOT} / xfs defaults 0 1
";
    debian_12(guest, "quiet", files)
}

/// LILO, and the kernel that it starts is gone.
pub(crate) fn lilo_without_its_kernel() -> PhonyGuest {
    let guest = debian_lilo();
    guest.partition(1).take("/vmlinuz");
    guest
}

/// RHEL 8 whose environment block has no room for names of disks that stay.
pub(crate) fn rhel_8_without_room() -> PhonyGuest {
    let guest = rhel_8();
    let text = guest.text(1, "/grub2/grubenv");
    let records = text.trim_end_matches('#');
    let filler = "x".repeat(1024 - 20 - records.len() - "filler=\n".len());
    let text = format!("{records}filler={filler}\n{}", "#".repeat(20));
    guest.partition(1).file("/grub2/grubenv", text);
    guest
}
