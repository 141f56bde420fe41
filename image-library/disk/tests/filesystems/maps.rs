// SPDX-License-Identifier: MIT OR Apache-2.0
//! A filesystem reduced to the extents that are in use is whole, says the filesystem's own checker.

use std::path::Path;

use disk::ReadAt;
use disk::WriteAt;
use disk::filesystem::{Attributes, WriteOptions, open, open_writable, used_extents};

use crate::outside::have;
use crate::volume::{ImageFile, assert_clean, attempt};
use crate::{assert_tree, make, tree};

const EXT_SETS: &[&[&str]] = &[
    &["-t", "ext2", "-b", "1024"],
    &["-t", "ext3", "-b", "4096"],
    &["-t", "ext4", "-b", "4096"],
    &["-t", "ext4", "-b", "1024"],
    &[
        "-t",
        "ext4",
        "-b",
        "1024",
        "-O",
        "metadata_csum_seed,orphan_file",
    ],
    &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg"],
    &["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"],
    &[
        "-t",
        "ext4",
        "-b",
        "1024",
        "-O",
        "sparse_super2,^resize_inode",
    ],
    &["-t", "ext4", "-b", "1024", "-O", "^flex_bg"],
    &["-t", "ext4", "-b", "4096", "-O", "bigalloc", "-C", "16384"],
    &["-t", "ext4", "-b", "4096", "-I", "128"],
];

/// Everything outside the map becomes zeros.
pub(crate) fn keep_only_used(image: &Path) -> u64 {
    let device = ImageFile::open(image);
    let used = used_extents(&*device).expect("readable").expect("known");
    let length = device.length_bytes();
    let mut kept = 0;
    let mut end = 0;
    for range in used.iter().chain(std::iter::once(&(length..length))) {
        assert!(range.start >= end, "ascending and apart");
        let mut at = end;
        while at < range.start {
            let length = (range.start - at).min(1 << 20);
            device
                .write_all_at(at, &vec![0; length as usize])
                .expect("inside");
            at += length;
        }
        kept += range.end - range.start;
        end = range.end;
    }
    kept
}

/// A field of `dumpe2fs -h`.
pub(crate) fn field(image: &Path, name: &str) -> u64 {
    let (_, output) = attempt("dumpe2fs", &["-h", &image.to_string_lossy()]);
    let line = output.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    let value = value.unwrap_or_else(|| panic!("no {name} in\n{output}"));
    value.parse().expect("a number")
}

#[test]
fn what_an_ext_filesystem_uses_is_what_dumpe2fs_counts() {
    if !have(&["dumpe2fs"]) {
        return;
    }
    // Without "uninitialised" groups and inode tables every used block is one to keep.
    for arguments in [
        &["-t", "ext2", "-b", "1024"][..],
        &["-t", "ext2", "-b", "4096"],
        &["-t", "ext3", "-b", "1024"],
        &["-t", "ext3", "-b", "4096"],
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tree = tree(folder.path()).to_string_lossy().into_owned();
        let all = [&["-qF", "-d", &tree][..], arguments].concat();
        let Some(image) = make(folder.path(), 96, "mke2fs", &all) else {
            return;
        };
        let block_size = field(&image, "Block size");
        let in_use = field(&image, "Block count") - field(&image, "Free blocks");
        let used = used_extents(&*ImageFile::open(&image)).expect("readable");
        let kept: u64 = used.expect("known").iter().map(|r| r.end - r.start).sum();
        assert_eq!(kept, in_use * block_size, "{arguments:?}");
    }
}

#[test]
fn an_ext_filesystem_reduced_to_its_used_extents_is_whole() {
    if !have(&["e2fsck"]) {
        return;
    }
    for arguments in EXT_SETS {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tree = tree(folder.path()).to_string_lossy().into_owned();
        let mut all = vec!["-qF", "-d", &tree];
        all.extend(*arguments);
        let Some(image) = make(folder.path(), 96, "mke2fs", &all) else {
            return;
        };
        // What lies in free space is not zeros on a used disk.
        let kept = keep_only_used(&image);
        assert!(kept < 40 << 20, "{arguments:?}: {kept} bytes are in use");
        assert_clean(&image, &format!("{arguments:?}"));
        assert_tree(&image, &format!("{arguments:?}"));
    }
}

#[test]
fn a_fat_filesystem_is_written_mapped_and_checked() {
    if !have(&["fsck.vfat"]) {
        return;
    }
    for (bits, size_mib) in [("12", 4), ("16", 32), ("32", 64)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let Some(image) = make(folder.path(), size_mib, "mkfs.vfat", &["-F", bits]) else {
            return;
        };
        let options = WriteOptions {
            now_unix_seconds: 1_760_000_000,
        };
        let opened = open_writable(ImageFile::open(&image), options).expect("it opens");
        let mut writer = opened.filesystem;
        let root = Attributes {
            mode: 0o755,
            uid: 0,
            gid: 0,
            selinux: None,
        };
        writer.create_directory("/EFI", &root).expect("room");
        writer
            .create_directory("/EFI/a long name", &root)
            .expect("room");
        writer
            .write("/EFI/a long name/BOOTX64.EFI", &[7; 300_000], None)
            .expect("room");
        writer.write("/old", b"old", None).expect("room");
        writer.write("/new", b"new", None).expect("room");
        writer.rename("/new", "/OLD").expect("replaces");
        writer
            .append("/efi/A LONG NAME/bootx64.efi", &[8; 100_000])
            .expect("room");
        assert!(writer.create_symlink("/link", "old").is_err());
        assert!(writer.write("/missing/file", b"", None).is_err());
        writer.finish().expect("durable");
        keep_only_used(&image);
        let (code, output) = attempt("fsck.vfat", &["-n", &image.to_string_lossy()]);
        assert_eq!(code, 0, "FAT{bits}: {output}");
        let reader = open(ImageFile::open(&image)).expect("it opens");
        let names: Vec<String> = reader
            .read_directory("/")
            .expect("a directory")
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names, ["EFI", "OLD"]);
        assert_eq!(reader.read("/old", 10).expect("any case"), b"new");
        let loader = reader
            .read("/EFI/A long NAME/bootx64.efi", 1 << 20)
            .expect("it is there");
        assert_eq!(loader.len(), 400_000);
        assert_eq!((loader[299_999], loader[300_000]), (7, 8));
    }
}
