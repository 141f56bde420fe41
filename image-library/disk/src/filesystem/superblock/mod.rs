// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device says about itself: one file per superblock, asked in a fixed order.
//!
//! Containers come before filesystems (a member of a RAID-1 with its superblock at the end begins
//! with the filesystem that the array holds), and magics in unusual places before the FAT boot
//! sector, whose signature is weak. A parser answers `None` for "not mine" and `Corrupt` for
//! "mine, but broken"; no answer of one parser hides the next one's.

pub(crate) mod btrfs;
pub(crate) mod ext;
pub(crate) mod fat;
pub(crate) mod luks;
pub(crate) mod lvm2;
pub(crate) mod md;
pub(crate) mod ntfs;
pub(crate) mod swap;
pub(crate) mod xfs;

use super::Identity;
use crate::block::ReadAt;
use crate::error::Result;

type Probe = fn(&dyn ReadAt) -> Result<Option<Identity>>;

const PROBES: [Probe; 9] = [
    md::detect,
    luks::detect,
    lvm2::detect,
    xfs::detect,
    ext::detect,
    btrfs::detect,
    swap::detect,
    ntfs::detect,
    fat::detect,
];

/// Which filesystem, swap space or container `device` holds; `None` when nothing is recognised.
pub fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    for probe in PROBES {
        if let Some(identity) = probe(device)? {
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    //! Superblocks laid out by hand from their documents; what has tools in Debian is also compared
    //! with `blkid`, in `tests/filesystems`.

    use rstest::rstest;

    use super::detect;
    use crate::block::MemoryDevice;
    use crate::filesystem::{FilesystemKind, Identity};

    const MIB: usize = 1 << 20;
    const UUID: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";
    const UUID_BYTES: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

    type Fields = Vec<(usize, Vec<u8>)>;

    /// Bytes by where they stand.
    macro_rules! fields {
        ($(($at:expr, $bytes:expr)),* $(,)?) => { vec![$(($at, $bytes.to_vec())),*] };
    }

    fn found(fields: Fields) -> Option<Identity> {
        let mut bytes = vec![0; MIB];
        for (offset, field) in fields {
            bytes[offset..offset + field.len()].copy_from_slice(&field);
        }
        detect(&MemoryDevice::from(bytes)).expect("memory")
    }

    #[rstest]
    // Linux, Documentation/filesystems/ntfs3.rst; Microsoft, "NTFS boot sector". `$Volume` is record 3
    // of the table at cluster 4; its attribute 0x60 is resident.
    #[case::ntfs(
        FilesystemKind::Ntfs, "1122334455667788", Some("C:"), 512 * 1024,
        fields![(3, b"NTFS    "), (11, &[0, 2]), (13, &[8]), (40, &1024_u64.to_le_bytes()),
          (48, &[4]), (64, &[0xf6]), (72, &0x1122_3344_5566_7788_u64.to_le_bytes()),
          (4 * 4096 + 3 * 1024, b"FILE"), (4 * 4096 + 3 * 1024 + 20, &[56]),
          (4 * 4096 + 3 * 1024 + 24, &[0, 1]),
          (4 * 4096 + 3 * 1024 + 56, &[0x60, 0, 0, 0, 32]),
          (4 * 4096 + 3 * 1024 + 56 + 16, &[4, 0, 0, 0, 24]),
          (4 * 4096 + 3 * 1024 + 56 + 24, b"C\0:\0"),
          (4 * 4096 + 3 * 1024 + 88, &[0xff; 4])],
    )]
    // LVM2, lib/format_text/layout.h: label_header, pv_header.
    #[case::lvm2(
        FilesystemKind::Lvm2Member, "abcdef-ghij-klmn-opqr-stuv-wxyz-012345", None, 65_536,
        fields![(512, b"LABELONE"), (512 + 20, &[32]), (512 + 24, b"LVM2 001"),
          (512 + 32, b"abcdefghijklmnopqrstuvwxyz012345"), (512 + 64, &65_536_u64.to_le_bytes())],
    )]
    // Linux, include/uapi/linux/raid/md_p.h: mdp_superblock_1, at 4 KiB (version 1.2).
    #[case::md_1_2(
        FilesystemKind::MdMember, UUID, Some("server:0"), 512 * 100,
        fields![(4096, &0xa92b_4efc_u32.to_le_bytes()), (4100, &[1]), (4096 + 16, &UUID_BYTES),
          (4096 + 32, b"server:0"), (4096 + 80, &[100]), (4096 + 144, &[8])],
    )]
    // The same, 8 KiB before the end (version 1.0).
    #[case::md_1_0(
        FilesystemKind::MdMember, UUID, None, 512 * 100,
        fields![(MIB - 8192, &0xa92b_4efc_u32.to_le_bytes()), (MIB - 8192 + 4, &[1]),
          (MIB - 8192 + 16, &UUID_BYTES), (MIB - 8192 + 80, &[100]),
          (MIB - 8192 + 144, &((MIB as u64 - 8192) / 512).to_le_bytes())],
    )]
    // The same file: mdp_super_t (version 0.90), by a big-endian machine.
    #[case::md_0_90(
        FilesystemKind::MdMember, UUID, None, 100 * 1024,
        fields![(MIB - 65536, &0xa92b_4efc_u32.to_be_bytes()), (MIB - 65536 + 20, &UUID_BYTES[..4]),
          (MIB - 65536 + 52, &UUID_BYTES[4..]), (MIB - 65536 + 32, &100_u32.to_be_bytes())],
    )]
    // cryptsetup, "LUKS On-Disk Format Specification" 1.2.3 and "LUKS2 On-Disk Format" 1.1.
    #[case::luks1(
        FilesystemKind::Luks, UUID, None, MIB as u64,
        fields![(0, b"LUKS\xba\xbe\0\x01"), (24, b"not a label"), (168, UUID.as_bytes())],
    )]
    #[case::luks2(
        FilesystemKind::Luks, UUID, Some("secret"), MIB as u64,
        fields![(0, b"LUKS\xba\xbe\0\x02"), (24, b"secret"), (168, UUID.as_bytes())],
    )]
    // Linux, fs/xfs/libxfs/xfs_format.h: xfs_dsb.
    #[case::xfs(
        FilesystemKind::Xfs, UUID, Some("data"), 4096 * 100,
        fields![(0, b"XFSB\0\0\x10\0"), (15, &[100]), (32, &UUID_BYTES), (108, b"data")],
    )]
    // Linux, fs/btrfs/ctree.h and its wiki, "On-disk format": the superblock at 64 KiB.
    #[case::btrfs(
        FilesystemKind::Btrfs, UUID, Some("pool"), 524_288,
        fields![(0x10020, &UUID_BYTES), (0x10040, b"_BHRfS_M"), (0x10070, &524_288_u64.to_le_bytes()),
          (0x1012b, b"pool")],
    )]
    // util-linux, include/swapheader.h; the pages of 64 KiB of an arm64 or ppc64 server.
    #[case::swap_of_64k_pages(
        FilesystemKind::Swap, UUID, Some("swap0"), 65_536 * 8,
        fields![(1024, &[1]), (1028, &[7]), (1036, &UUID_BYTES), (1052, b"swap0"),
          (65_526, b"SWAPSPACE2")],
    )]
    #[case::swap_of_a_hibernated_system(
        FilesystemKind::Swap, UUID, None, 4096 * 8,
        fields![(1024, &[1]), (1028, &[7]), (1036, &UUID_BYTES), (4086, b"S1SUSPEND\0")],
    )]
    fn a_superblock_laid_out_from_its_document_is_recognised(
        #[case] kind: FilesystemKind,
        #[case] uuid: &str,
        #[case] label: Option<&str>,
        #[case] size_bytes: u64,
        #[case] fields: Fields,
    ) {
        let expected = Identity {
            kind,
            uuid: Some(uuid.to_owned()),
            label: label.map(str::to_owned),
            size_bytes: Some(size_bytes),
        };
        assert_eq!(found(fields), Some(expected));
    }

    #[test]
    fn a_member_of_an_array_is_no_filesystem_although_it_begins_with_one() {
        let end = MIB - 8192;
        let place = (end as u64 / 512).to_le_bytes();
        let member = found(fields![
            (0, b"XFSB\0\0\x10\0"),
            (end, &0xa92b_4efc_u32.to_le_bytes()),
            (end + 4, &[1]),
            (end + 144, &place),
        ]);
        assert_eq!(member.expect("known").kind, FilesystemKind::MdMember);
        // One that says it belongs elsewhere is a leftover.
        let leftover = found(fields![
            (0, b"XFSB\0\0\x10\0"),
            (end, &0xa92b_4efc_u32.to_le_bytes()),
            (end + 4, &[1]),
        ]);
        assert_eq!(leftover.expect("known").kind, FilesystemKind::Xfs);
    }

    #[test]
    fn nothing_is_recognised_in_zeros_and_in_a_few_bytes() {
        assert_eq!(found(fields![]), None);
        for length in [0, 1, 511, 1024, 4096] {
            let detected = detect(&MemoryDevice::from(vec![0; length])).expect("memory");
            assert_eq!(detected, None);
        }
    }
}
