// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers whose filesystems are in no good order, or whose files say what does not fit: each says codes
//! that no other phony guest does.

use super::ROOT;
use super::ubuntu::ubuntu_22_on_btrfs;
use crate::guest::uki;
use crate::phony::disks::{add, filesystem, group_disks, superblock_only, with_older_metadata};
use crate::phony::loaders::{debian_lilo, fedora_uki};
use crate::phony::{PhonyGuest, centos_6, lvm_filtered, servers};

const PAGE: usize = 4096;

/// A server that starts as it is, with more disks.
fn with_disks(disks: Vec<Vec<u8>>) -> PhonyGuest {
    let mut guest = servers::ubuntu();
    add(&mut guest, disks);
    guest
}

/// Data on an ext4 that was in use, on one whose superblock is all that is left, and on a LUKS2 volume
/// whose second header is gone.
pub(crate) fn data_in_disorder() -> PhonyGuest {
    let mut half_a_header = filesystem("luks2");
    half_a_header[16384..32768].fill(0);
    with_disks(vec![
        filesystem("ext4-dirty"),
        superblock_only(),
        half_a_header,
    ])
}

/// Data on btrfs: a mirror with one device as it was before and after, and one of four copies of which two
/// are left, one of these damaged.
pub(crate) fn btrfs_in_disorder() -> PhonyGuest {
    let mut damaged = filesystem("btrfs/raid1c4.1");
    // All but its superblock's second copy, and of the first one a byte.
    for (number, page) in damaged.chunks_exact_mut(PAGE).enumerate() {
        match number {
            16 => page[100] ^= 1,
            16384 => {}
            _ => page.fill(0),
        }
    }
    with_disks(vec![
        filesystem("btrfs/raid1.1-later"),
        filesystem("btrfs/raid1.1"),
        filesystem("btrfs/raid1.2"),
        damaged,
        filesystem("btrfs/raid1c4.2"),
    ])
}

/// Data on a volume group of which one disk was away when it was changed last.
pub(crate) fn volume_group_with_an_older_disk() -> PhonyGuest {
    let mut disks = group_disks();
    with_older_metadata(&mut disks[1]);
    with_disks(disks)
}

/// Ubuntu on btrfs that mounts a subvolume which was deleted.
pub(crate) fn ubuntu_22_without_a_subvolume() -> PhonyGuest {
    let guest = ubuntu_22_on_btrfs();
    let text = guest.text(1, "/@/etc/fstab");
    let line = format!("UUID={ROOT} /srv btrfs subvol=@srv,nofail 0 2\n");
    guest.partition(1).file("/@/etc/fstab", text + &line);
    guest
}

/// LILO, whose map already starts the kernel with the UUID of its root.
pub(crate) fn lilo_by_uuid() -> PhonyGuest {
    let guest = debian_lilo();
    let root = guest.disks[0].volumes[0].content.clone();
    let root = root.and_then(|content| content.uuid).expect("it has one");
    let text = guest.text(1, "/etc/lilo.conf");
    let text = text.replace("root=/dev/hda1", &format!("root=\"UUID={root}\""));
    guest.partition(1).file("/etc/lilo.conf", text);
    let map = format!("LILO\0\0ro root=UUID={root} \0");
    guest.partition(1).file("/boot/map", map);
    guest
}

/// Fedora with one more unified kernel image, whose initramfs is no archive.
pub(crate) fn fedora_with_a_broken_image() -> PhonyGuest {
    let guest = fedora_uki();
    let sections: [(&str, &[u8]); 3] = [
        (".linux", b"kernel"),
        (".uname", b"6.11.4-301.fc41.x86_64"),
        (".initrd", b"garbage"),
    ];
    let image = uki::build(&sections, false);
    guest.partition(1).file("/EFI/Linux/rescue.efi", image);
    guest
}

/// CentOS 6 where the file of one card was copied for another, its MAC address with it.
pub(crate) fn centos_6_with_a_copied_file() -> PhonyGuest {
    let guest = centos_6();
    let files = r#"
== /etc/sysconfig/network-scripts/ifcfg-eth3
DEVICE=eth3
HWADDR="00:25:90:00:00:03"
BOOTPROTO=none
IPADDR=10.40.0.6
PREFIX=24
"#;
    guest.tree(files, &[]);
    guest
}

/// CentOS 7 whose LVM leaves out, by its name, the disk that the volume is on.
pub(crate) fn lvm_that_rejects_its_disk() -> PhonyGuest {
    let mut guest = lvm_filtered();
    guest.disks[0].name = Some("sdb".to_owned());
    let files = r#"
== /etc/lvm/lvm.conf
devices { filter = [ "r|^/dev/sdb|", "a|/dev/md|", "r|.*|" ] }
"#;
    guest.tree(files, &[]);
    guest
}
