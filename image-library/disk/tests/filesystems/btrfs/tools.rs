// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `mkfs.btrfs` makes with its options is read, and whole when reduced to what is in use.

use std::path::Path;

use disk::filesystem::btrfs::{Btrfs, SubvolumeChoice};
use disk::filesystem::{Filesystem, open, used_extents};

use crate::maps::keep_only_used;
use crate::outside::{have, program_path, skip};
use crate::volume::{ImageFile, attempt};
use crate::{assert_tree, make, tree};

const SETS: &[&[&str]] = &[
    &["--csum", "crc32c"],
    &["--csum", "xxhash"],
    &["--csum", "sha256"],
    &["--csum", "blake2"],
    &["-n", "4096"],
    &["-n", "8192"],
    &["-n", "32768"],
    &["-n", "65536"],
    &["-m", "single", "-d", "single"],
    &["-m", "dup", "-d", "dup"],
    &["--mixed", "-n", "4096"],
    &["--mixed", "-n", "16384", "-s", "16384"],
    &["-s", "65536", "-n", "65536", "--csum", "sha256"],
    &[
        "-O",
        "^no-holes,^extref,^skinny-metadata",
        "-R",
        "^free-space-tree",
    ],
    &["-R", "quota"],
];
/// What older versions do not have.
const NEWER_SETS: &[(&str, &[&str])] = &[
    ("--compress", &["--compress", "zlib"]),
    (
        "--compress",
        &["--compress", "lzo", "-s", "16384", "-n", "16384"],
    ),
    ("--compress", &["--compress", "lzo"]),
    ("--compress", &["--compress", "zstd"]),
    ("block-group-tree", &["-O", "block-group-tree"]),
    ("squota", &["-O", "squota"]),
];

fn make_tree(folder: &Path, arguments: &[&str]) -> Option<std::path::PathBuf> {
    let tree = tree(folder).to_string_lossy().into_owned();
    let mut all = vec!["-q", "--rootdir", &tree];
    all.extend(arguments);
    make(folder, 256, "mkfs.btrfs", &all)
}

fn assert_checked(image: &Path, context: &str) {
    let path = image.to_string_lossy();
    let (code, output) = attempt(
        "btrfs",
        &["check", "--readonly", "--check-data-csum", &path],
    );
    assert_eq!(code, 0, "{context}: btrfs check\n{output}");
}

fn assert_set(arguments: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(image) = make_tree(folder.path(), arguments) else {
        return;
    };
    let context = format!("{arguments:?}");
    assert_tree(&image, &context);
    assert_checked(&image, &context);
    keep_only_used(&image);
    assert_checked(&image, &context);
    assert_tree(&image, &context);
}

#[test]
fn every_kind_of_btrfs_is_read_and_whole_when_reduced_to_what_is_in_use() {
    if !have(&["mkfs.btrfs", "btrfs"]) {
        return;
    }
    for arguments in SETS {
        assert_set(arguments);
    }
}

/// Whether this version of `mkfs.btrfs` has an option or a feature.
fn knows(what: &str) -> bool {
    let (_, help) = attempt("mkfs.btrfs", &["--help"]);
    let (_, features) = attempt("mkfs.btrfs", &["-O", "list-all"]);
    help.contains(what) || features.contains(what)
}

#[test]
fn what_newer_tools_make_is_read_too() {
    if !have(&["mkfs.btrfs", "btrfs"]) {
        return;
    }
    for (needed, arguments) in NEWER_SETS {
        match knows(needed) {
            true => assert_set(arguments),
            false => skip(&format!("this mkfs.btrfs does not know {needed}")),
        }
    }
}

/// A field of `btrfs inspect-internal dump-super`.
fn field(image: &Path, name: &str) -> u64 {
    let arguments = ["inspect-internal", "dump-super", &image.to_string_lossy()];
    let (_, output) = attempt("btrfs", &arguments);
    let mut words = output.lines().map(str::split_whitespace);
    let value = words.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()));
    value
        .flatten()
        .expect("it is printed")
        .parse()
        .expect("a number")
}

#[test]
fn what_is_in_use_is_what_the_superblock_counts() {
    if !have(&["mkfs.btrfs", "btrfs"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = ["-m", "single", "-d", "single"];
    let Some(image) = make_tree(folder.path(), &arguments) else {
        return;
    };
    let used = used_extents(&*ImageFile::open(&image)).expect("readable");
    let kept: u64 = used.expect("known").iter().map(|r| r.end - r.start).sum();
    // The first MiB, and the superblock at 64 MiB.
    let outside_extents = (1 << 20) + 4096;
    assert_eq!(kept, field(&image, "bytes_used") + outside_extents);
}

#[test]
fn identities_survive_a_change_of_the_uuid_in_the_superblock_only() {
    if !have(&["mkfs.btrfs", "btrfstune"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(image) = make_tree(folder.path(), &["--csum", "xxhash"]) else {
        return;
    };
    let uuid = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
    let path = image.to_string_lossy();
    let (code, output) = attempt("btrfstune", &["-f", "-M", uuid, &path]);
    assert_eq!(code, 0, "{}: {output}", program_path("btrfstune").display());
    assert_tree(&image, "btrfstune -M");
    let filesystem = open(ImageFile::open(&image)).expect("it opens");
    assert_eq!(filesystem.identity().uuid.as_deref(), Some(uuid));
    keep_only_used(&image);
    assert_checked(&image, "btrfstune -M");
}

#[test]
fn subvolumes_that_mkfs_made_are_opened() {
    if !have(&["mkfs.btrfs"]) {
        return;
    }
    if !knows("--subvol") {
        skip("this mkfs.btrfs does not know --subvol");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(image) = make_tree(folder.path(), &["--subvol", "default:etc"]) else {
        return;
    };
    let filesystem = Btrfs::open_devices(&[ImageFile::open(&image)]).expect("it opens");
    let listed = filesystem.subvolumes().expect("readable");
    let listed: Vec<_> = listed
        .iter()
        .map(|s| (s.path.as_str(), s.is_default))
        .collect();
    assert_eq!(listed, [("", false), ("etc", true)]);
    let default = open(ImageFile::open(&image)).expect("it opens");
    assert_eq!(default.read("/1", 1 << 20).expect("a file"), [1; 7001]);
    let top = filesystem
        .open_subvolume(SubvolumeChoice::Id(5))
        .expect("it opens");
    assert_eq!(top.read("/etc/1", 1 << 20).expect("a file"), [1; 7001]);
}
