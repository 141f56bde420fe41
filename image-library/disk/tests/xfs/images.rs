// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filesystems that a kernel wrote, beside what a kernel showed of them after its replay of the
//! log.

use disk::filesystem::{Filesystem, FilesystemKind, LogState, Xfs, detect, used_extents};
use disk::{Error, ReadAt};

use rstest::rstest;

use crate::outside::have;
use crate::testdata::testdata;
use crate::volume::attempt;
use crate::{listing, memory, reduced};

pub(crate) const USED: &[u8] = include_bytes!("../../fixtures/xfs-used.img.zst");
pub(crate) const DIRTY: &[u8] = include_bytes!("../../fixtures/xfs-dirty.img.zst");
const FROZEN: &[u8] = include_bytes!("../../fixtures/xfs-frozen.img.zst");
const USED_LIST: &[u8] = include_bytes!("../../fixtures/xfs-used.list.zst");
const DIRTY_LIST: &[u8] = include_bytes!("../../fixtures/xfs-dirty.list.zst");
const FROZEN_LIST: &[u8] = include_bytes!("../../fixtures/xfs-frozen.list.zst");

pub(crate) fn unpack(fixture: &[u8]) -> Vec<u8> {
    zstd::decode_all(fixture).expect("the fixture is sound")
}

fn lines(fixture: &[u8]) -> Vec<String> {
    let text = String::from_utf8(unpack(fixture)).expect("a list is text");
    text.lines().map(str::to_owned).collect()
}

fn assert_same(found: &[String], expected: &[String]) {
    let missing: Vec<_> = expected
        .iter()
        .filter(|line| !found.contains(line))
        .take(9)
        .collect();
    let surplus: Vec<_> = found
        .iter()
        .filter(|line| !expected.contains(line))
        .take(9)
        .collect();
    assert_eq!((missing, surplus), (vec![], vec![]));
    assert_eq!(found.len(), expected.len());
}

#[rstest]
#[case::unmounted(USED, USED_LIST, LogState::Clean)]
#[case::crashed(DIRTY, DIRTY_LIST, LogState::Replayed)]
#[case::frozen(FROZEN, FROZEN_LIST, LogState::Replayed)]
fn a_tree_is_what_the_kernel_shows(
    #[case] image: &[u8],
    #[case] list: &[u8],
    #[case] log: LogState,
) {
    let device = memory(unpack(image));
    let xfs = Xfs::open(device.clone()).expect("it opens");
    assert_eq!(xfs.log(), log);
    let expected = lines(list);
    assert_same(&listing(&xfs).expect("it is sound"), &expected);
    let (bytes, kept) = reduced(&*device);
    assert!(
        kept < device.length_bytes() * 3 / 4,
        "{kept} bytes are in use"
    );
    assert_eq!(
        device.length_bytes() - kept,
        device.length_bytes() - used(&*device)
    );
    let xfs = Xfs::open(memory(bytes)).expect("it opens");
    assert_same(&listing(&xfs).expect("it is sound"), &expected);
}

fn used(device: &dyn ReadAt) -> u64 {
    let ranges = used_extents(device).expect("readable").expect("known");
    assert!(ranges.is_sorted_by(|left, right| left.end < right.start));
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[test]
fn nothing_is_written_by_a_replay() {
    let bytes = unpack(DIRTY);
    let device = memory(bytes.clone());
    Xfs::open(device.clone()).expect("it opens");
    let mut now = vec![0; bytes.len()];
    device.read_exact_at(0, &mut now).expect("memory");
    assert!(now == bytes);
}

#[rstest]
#[case::unmounted(USED, 0)]
// The next mount tidies up what a copy on write had reserved, and the count of free blocks.
#[case::frozen(FROZEN, 1)]
fn what_is_in_use_is_enough_for_xfs_repair(#[case] image: &[u8], #[case] expected: i32) {
    if !have(&["xfs_repair"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("image");
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("room for an image");
        attempt("xfs_repair", &["-n", &path.to_string_lossy()])
    };
    let whole = unpack(image);
    let (code, output) = check(&whole);
    assert_eq!(code, expected, "{output}");
    let (reduced, _) = reduced(&*memory(whole));
    assert_eq!(check(&reduced), (code, output));
}

#[test]
fn paths_that_lead_nowhere_and_questions_of_the_wrong_kind_are_errors() {
    let xfs = Xfs::open(memory(unpack(USED))).expect("it opens");
    let missing = [
        "/none",
        "/etc/none",
        "/node/none",
        "/holes/none",
        "/block/none",
    ];
    for path in missing
        .into_iter()
        .chain(["/etc/hostname/x", "/etc/link/x"])
    {
        assert!(
            matches!(xfs.metadata(path), Err(Error::NotFound { .. })),
            "{path}"
        );
    }
    assert!(matches!(xfs.read("/large", 10), Err(Error::Limit { .. })));
    assert!(xfs.read("/etc", 10).is_err());
    assert!(xfs.read("/etc/null", 10).is_err());
    assert!(xfs.read_link("/etc/hostname").is_err());
    assert!(xfs.read_directory("/etc/hostname").is_err());
    assert_eq!(xfs.selinux_context("/etc").expect("sound"), None);
    let identity = xfs.identity();
    assert_eq!(identity.kind, FilesystemKind::Xfs);
    assert_eq!(identity.label.as_deref(), Some("used"));
    assert_eq!(identity.size_bytes, Some(40 << 20));
}

#[test]
fn a_sample_of_another_project_is_read() {
    let Some(bytes) = testdata("fs/dfvfs-xfs.raw.gz") else {
        return;
    };
    let device = memory(bytes);
    let identity = detect(&*device).expect("readable").expect("known");
    assert_eq!(identity.label.as_deref(), Some("xfs_test"));
    let xfs = Xfs::open(device).expect("it opens");
    assert_eq!(xfs.log(), LogState::Clean);
    let passwords = xfs.read("/passwords.txt", 1 << 20).expect("a file");
    assert!(passwords.starts_with(b"place,user,password"));
    assert_eq!(xfs.free_bytes().expect("known"), 2711 * 4096);
}

/// A bit of the features, by its byte in the superblock, which has a checksum to be made anew.
#[rstest]
#[case(219, 0x10, "xfs_repair")]
#[case(218, 0x02, "zoned")]
#[case(216, 0x80, "0x80000000")]
#[case(100, 0x40, "ascii-ci")]
fn features_that_are_not_known_are_refused_by_name(
    #[case] at: usize,
    #[case] bit: u8,
    #[case] name: &str,
) {
    let mut bytes = unpack(USED);
    bytes[at] |= bit;
    seal_superblock(&mut bytes);
    let refused = Xfs::open(memory(bytes)).expect_err("it is refused");
    assert!(refused.to_string().contains(name), "{refused}");
}

#[test]
fn known_features_that_change_nothing_for_a_reader_are_accepted() {
    let mut bytes = unpack(USED);
    // Exchange of ranges and parent pointers.
    bytes[219] |= 0x40 | 0x80;
    seal_superblock(&mut bytes);
    let xfs = Xfs::open(memory(bytes)).expect("it opens");
    assert_same(&listing(&xfs).expect("it is sound"), &lines(USED_LIST));
}

#[test]
fn a_read_only_feature_that_is_not_known_hides_what_is_free_and_no_file() {
    let mut bytes = unpack(USED);
    bytes[212] |= 0x80;
    seal_superblock(&mut bytes);
    let device = memory(bytes);
    assert!(matches!(
        used_extents(&*device),
        Err(Error::Unsupported { .. })
    ));
    let xfs = Xfs::open(device).expect("it opens");
    assert_eq!(xfs.read("/etc/hostname", 99).expect("a file"), b"guest\n");
}

#[test]
fn a_log_on_another_device_is_told() {
    let mut bytes = unpack(DIRTY);
    bytes[48..56].fill(0);
    seal_superblock(&mut bytes);
    let xfs = Xfs::open(memory(bytes)).expect("it opens");
    assert_eq!(xfs.log(), LogState::External);
}

pub(crate) fn seal_superblock(bytes: &mut [u8]) {
    bytes[224..228].fill(0);
    let checksum = !fs_ext4::checksum::linux_crc32c(!0, &bytes[..512]);
    bytes[224..228].copy_from_slice(&checksum.to_le_bytes());
}
