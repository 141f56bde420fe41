// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real ext filesystems, made by `fixtures/build.sh`, read and written in memory.

use std::sync::Arc;

use rstest::rstest;

use super::super::superblock;
use super::super::{
    Attributes, FileType, Filesystem, FilesystemKind, WriteOptions, detect, open, open_writable,
    used_extents,
};
use super::journal;
use crate::block::{MemoryDevice, ReadAt, WriteAt};
use crate::error::Error;

const EXT2: &[u8] = include_bytes!("../../../fixtures/ext2.img.zst");
const EXT4_DIRTY: &[u8] = include_bytes!("../../../fixtures/ext4-dirty.img.zst");
const OPTIONS: WriteOptions = WriteOptions {
    now_unix_seconds: 1_760_000_000,
};
const LABELLED: &str = "system_u:object_r:etc_t:s0";

fn bytes(fixture: &[u8]) -> Vec<u8> {
    zstd::decode_all(fixture).expect("the fixture is sound")
}

fn device(fixture: &[u8]) -> Arc<MemoryDevice> {
    Arc::new(MemoryDevice::from(bytes(fixture)))
}

fn names(filesystem: &dyn Filesystem, path: &str) -> Vec<String> {
    let entries = filesystem.read_directory(path).expect("a directory");
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn identities_are_told() {
    let ext2 = detect(&*device(EXT2)).expect("readable").expect("known");
    assert_eq!(ext2.kind, FilesystemKind::Ext2);
    assert_eq!(ext2.label, None);
    let ext4 = detect(&*device(EXT4_DIRTY)).expect("readable");
    let ext4 = ext4.expect("known");
    assert_eq!(ext4.kind, FilesystemKind::Ext4);
    assert_eq!(ext4.label.as_deref(), Some("root"));
    assert_eq!(ext4.size_bytes, Some(6 << 20));
    let uuid = "3d1b0f5e-5d0c-4c5e-9f3a-0d6f6b1c2a77";
    assert_eq!(ext4.uuid.as_deref(), Some(uuid));
}

#[test]
fn ext2_with_small_inodes_is_read_through_its_pointers() {
    let ext2 = open(device(EXT2)).expect("it opens");
    assert_eq!(names(&*ext2, "/"), ["etc", "large", "lost+found"]);
    assert_eq!(names(&*ext2, "/etc"), ["empty", "hostname", "link", "old"]);
    assert_eq!(
        ext2.read("/large", 1 << 20).expect("a file"),
        [b'x'; 400_000]
    );
    assert_eq!(ext2.read_link("/etc/link").expect("a link"), "hostname");
    let metadata = ext2.metadata("/etc/empty").expect("it is there");
    assert_eq!(metadata.file_type, FileType::Directory);
}

#[test]
fn reading_a_dirty_journal_sees_what_was_finished_and_writes_nothing() {
    let image = device(EXT4_DIRTY);
    let ext4 = open(Arc::clone(&image) as Arc<dyn ReadAt>).expect("it opens");
    assert_eq!(names(&*ext4, "/etc"), ["empty", "hostname", "link", "new"]);
    assert_eq!(ext4.read("/etc/new", 10).expect("a file"), b"new\n");
    drop(ext4);
    let mut now = vec![0; image.length_bytes() as usize];
    image.read_exact_at(0, &mut now).expect("memory");
    assert!(now == bytes(EXT4_DIRTY));
}

#[test]
fn opening_for_writing_replays_a_dirty_journal_once_and_tells() {
    let image = device(EXT4_DIRTY);
    let opened = open_writable(Arc::clone(&image) as Arc<dyn WriteAt>, OPTIONS).expect("it opens");
    assert_eq!(opened.findings[0].code, "disk.ext.journal-replayed");
    assert_eq!(
        names(&*opened.filesystem, "/etc"),
        ["empty", "hostname", "link", "new"]
    );
    opened.filesystem.finish().expect("memory");
    let again = open_writable(image, OPTIONS).expect("it opens");
    assert_eq!(again.findings, []);
}

#[test]
fn a_copy_that_is_not_what_the_journal_says_is_an_error() {
    let image = device(EXT4_DIRTY);
    let superblock = superblock::ext::read(&*image).expect("readable");
    let superblock = superblock.expect("it is ext4");
    let replay = journal::replay(&*image, &superblock).expect("it is sound");
    let newest = *replay
        .newest
        .values()
        .next_back()
        .expect("there are copies");
    let sound = newest.read(&*image, 1024).expect("memory");
    let mut all = bytes(EXT4_DIRTY);
    // The same bytes may stand in several places; all of them are damaged.
    for block in all.chunks_exact_mut(1024).filter(|block| **block == *sound) {
        block[1000] ^= 1;
    }
    let damaged = MemoryDevice::from(all);
    let error = journal::replay(&damaged, &superblock).expect_err("it is damaged");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[rstest]
fn only_what_is_used_is_needed(#[values(EXT2, EXT4_DIRTY)] fixture: &[u8]) {
    let image = device(fixture);
    let used = used_extents(&*image).expect("readable").expect("known");
    let kept: u64 = used.iter().map(|range| range.end - range.start).sum();
    assert!(kept < image.length_bytes() / 2, "{kept} bytes");
    let mut reduced = vec![0; image.length_bytes() as usize];
    for range in used {
        let range = range.start as usize..range.end as usize;
        let start = range.start as u64;
        image
            .read_exact_at(start, &mut reduced[range])
            .expect("memory");
    }
    let reduced = open(Arc::new(MemoryDevice::from(reduced))).expect("it opens");
    let whole = open(image).expect("it opens");
    assert_eq!(names(&*reduced, "/etc"), names(&*whole, "/etc"));
    assert_eq!(
        reduced.read("/large", 1 << 20).expect("a file"),
        [b'x'; 400_000]
    );
}

/// What dumpe2fs tells of them, in blocks of 1 KiB: of a reader, of one through the other library, and of
/// a writer.
#[rstest]
#[case(EXT2, 1592)]
#[case(EXT4_DIRTY, 4275)]
fn free_bytes_are_told(#[case] fixture: &[u8], #[case] blocks: u64) {
    let image = device(fixture);
    let reader = open(Arc::clone(&image) as Arc<dyn ReadAt>).expect("it opens");
    assert_eq!(reader.free_bytes().expect("memory"), Some(blocks << 10));
    let opened = open_writable(Arc::clone(&image) as Arc<dyn WriteAt>, OPTIONS).expect("it opens");
    let mut writer = opened.filesystem;
    assert_eq!(writer.free_bytes().expect("memory"), Some(blocks << 10));
    writer.write("/made", &[1; 5000], None).expect("room");
    writer.finish().expect("memory");
    let reader = open(image).expect("it opens");
    assert_eq!(
        reader.free_bytes().expect("memory"),
        Some((blocks - 5) << 10)
    );
}

#[rstest]
fn edits_are_read_back(#[values(EXT2, EXT4_DIRTY)] fixture: &[u8]) {
    let image = device(fixture);
    let opened = open_writable(Arc::clone(&image) as Arc<dyn WriteAt>, OPTIONS).expect("it opens");
    let mut writer = opened.filesystem;
    let given = Attributes {
        mode: 0o4750,
        uid: 7,
        gid: 70_000,
        selinux: Some(LABELLED.to_owned()),
    };
    writer
        .write("/etc/made", &[1; 5000], Some(&given))
        .expect("room");
    writer
        .write("/etc/hostname", b"recovered", None)
        .expect("room");
    writer.append("/large", &[b'y'; 300_000]).expect("room");
    writer
        .create_directory("/etc/conf.d", &given)
        .expect("room");
    writer
        .create_symlink("/etc/conf.d/link", "../made")
        .expect("room");
    writer
        .rename("/etc/made", "/etc/conf.d/made")
        .expect("room");
    writer.remove("/etc/link").expect("it is there");
    let refused = writer.write("/none/file", b"", None);
    assert!(matches!(refused, Err(Error::NotFound { .. })));
    let full = writer.write("/etc/full", &vec![0; 8 << 20], None);
    assert!(matches!(full, Err(Error::Limit { .. })), "{full:?}");
    assert!(writer.remove("/etc").is_err(), "a directory");
    assert!(writer.read("/etc", 10).is_err(), "a directory");
    assert!(writer.read_link("/etc/hostname").is_err(), "a file");
    writer.finish().expect("memory");

    let found = open(image).expect("it opens");
    let listed = names(&*found, "/etc");
    assert!(listed.contains(&"conf.d".to_owned()) && !listed.contains(&"link".to_owned()));
    assert!(!listed.contains(&"full".to_owned()), "whole or absent");
    assert_eq!(names(&*found, "/etc/conf.d"), ["link", "made"]);
    assert_eq!(
        found.read("/etc/conf.d/made", 9000).expect("a file"),
        [1; 5000]
    );
    assert_eq!(
        found.read("/etc/hostname", 99).expect("a file"),
        b"recovered"
    );
    let large = found.read("/large", 1 << 20).expect("a file");
    assert_eq!(
        (large.len(), large[399_999], large[400_000]),
        (700_000, b'x', b'y')
    );
    let metadata = found.metadata("/etc/conf.d/made").expect("it is there");
    assert_eq!(
        (metadata.mode, metadata.uid, metadata.gid),
        (0o4750, 7, 70_000)
    );
    let context = |path: &str| found.selinux_context(path).expect("it is there");
    assert_eq!(context("/etc/conf.d/made").as_deref(), Some(LABELLED));
    assert_eq!(context("/etc/conf.d").as_deref(), Some(LABELLED));
    assert_eq!(context("/etc/conf.d/link"), None);
    assert_eq!(
        found.read_link("/etc/conf.d/link").expect("a link"),
        "../made"
    );
    assert!(matches!(
        found.metadata("/etc/link"),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(found.read("/large", 10), Err(Error::Limit { .. })));
}

#[rstest]
#[case(0x60, 0x10, "meta_bg")]
#[case(0x60, 0x8000, "inline_data")]
#[case(0x60, 0x20000, "casefold")]
fn features_that_are_not_written_are_refused_by_name(
    #[case] field: usize,
    #[case] bit: u32,
    #[case] name: &str,
) {
    let mut all = bytes(EXT2);
    let at = 1024 + field;
    let value = u32::from_le_bytes(all[at..at + 4].try_into().expect("four bytes")) | bit;
    all[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let refused = open_writable(Arc::new(MemoryDevice::from(all)), OPTIONS);
    let message = refused.expect_err("it is refused").to_string();
    assert!(message.contains(name), "{message}");
}
