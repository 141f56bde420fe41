// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identities are what `blkid` prints.

use disk::filesystem::{FilesystemKind, detect};

use crate::make;
use crate::outside::have;
use crate::volume::{ImageFile, attempt};

#[test]
fn identities_are_what_blkid_prints() {
    if !have(&["blkid"]) {
        return;
    }
    let cases: &[(&str, u64, &str, &[&str])] = &[
        ("ext2", 8, "mke2fs", &["-qF", "-t", "ext2", "-L", "boot"]),
        ("ext3", 16, "mke2fs", &["-qF", "-t", "ext3"]),
        (
            "ext4",
            16,
            "mke2fs",
            &["-qF", "-t", "ext4", "-L", "root fs"],
        ),
        ("vfat", 2, "mkfs.vfat", &["-F", "12", "-n", "TINY"]),
        ("vfat", 16, "mkfs.vfat", &["-F", "16", "-n", "EFI"]),
        ("vfat", 40, "mkfs.vfat", &["-F", "32", "-n", "EFI SYSTEM"]),
        ("vfat", 40, "mkfs.vfat", &["-F", "32"]),
        ("swap", 4, "mkswap", &["-q", "-L", "swap0"]),
        ("swap", 4, "mkswap", &["-q", "-p", "65536"]),
        ("xfs", 300, "mkfs.xfs", &["-q", "-L", "data"]),
        ("btrfs", 120, "mkfs.btrfs", &["-q", "-L", "pool"]),
    ];
    for (kind, size_mib, program, arguments) in cases {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let Some(image) = make(folder.path(), *size_mib, program, arguments) else {
            continue;
        };
        let identity = detect(&*ImageFile::open(&image))
            .expect("readable")
            .expect("recognised");
        let printed = |field: &str| {
            let (_, text) = attempt(
                "blkid",
                &["-p", "-o", "value", "-s", field, &image.to_string_lossy()],
            );
            let text = text.trim_end();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let name = match identity.kind {
            FilesystemKind::Fat => "vfat".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        assert_eq!(&name, kind);
        assert_eq!(printed("TYPE").as_deref(), Some(*kind));
        assert_eq!(identity.uuid, printed("UUID"), "{kind}");
        assert_eq!(identity.label, printed("LABEL"), "{kind}");
    }
}
