// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filesystems as a server leaves them that is imaged while it runs: with work in the journal, and
//! with files that are open and in no directory. `e2fsck` is the oracle.
//!
//! A dirty journal is made of two images: `before`, and `after`, which is `before` edited by
//! `debugfs`. As on a server, new data goes to its place at once, and what was in use before, which
//! is the metadata, goes into the journal only; `debugfs` writes it there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::filesystem::{
    FileType, Filesystem, Metadata, WriteOptions, open, open_writable, used_extents,
};
use disk::{Error, Level};

use rstest::rstest;

use crate::maps::{field, keep_only_used};
use crate::outside::have;
use crate::volume::{ImageFile, assert_clean, attempt};
use crate::{make, tree};

const OPTIONS: WriteOptions = WriteOptions {
    now_unix_seconds: 1_760_000_000,
};
/// What every block of a journal's own begins with, and now and then one of the filesystem.
const JOURNAL_MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

struct Case {
    /// For `mke2fs`.
    arguments: &'static [&'static str],
    /// For `journal_open`: none, or checksums of version 2 or 3.
    journal: &'static str,
}

const CASES: [Case; 7] = [
    Case {
        arguments: &["-t", "ext3", "-b", "1024"],
        journal: "",
    },
    Case {
        arguments: &["-t", "ext3", "-b", "4096", "-I", "128"],
        journal: "",
    },
    Case {
        arguments: &["-t", "ext4", "-b", "4096"],
        journal: "-c -v 3",
    },
    Case {
        arguments: &["-t", "ext4", "-b", "1024"],
        journal: "-c -v 2",
    },
    Case {
        arguments: &["-t", "ext4", "-b", "1024", "-O", "^64bit,^metadata_csum"],
        journal: "",
    },
    Case {
        arguments: &["-t", "ext4", "-b", "4096", "-O", "^64bit"],
        journal: "-c -v 3",
    },
    Case {
        arguments: &[
            "-t",
            "ext4",
            "-b",
            "4096",
            "-O",
            "metadata_csum_seed,orphan_file",
        ],
        journal: "-c -v 3",
    },
];

/// Runs commands of `debugfs` that write; it says errors and goes on, so those are looked for.
fn debugfs(image: &Path, commands: &str) {
    let script = image.with_extension("commands");
    fs::write(&script, commands).expect("a scratch file");
    let (script, image) = (script.to_string_lossy(), image.to_string_lossy());
    let (code, output) = attempt("debugfs", &["-w", "-f", &script, &image]);
    let answers = ["debugfs", "Filesystem features: ", "Allocated inode: "];
    let complaint = output
        .lines()
        .find(|line| line.contains(": ") && !answers.iter().any(|answer| line.starts_with(answer)));
    assert_eq!((code, complaint), (0, None), "debugfs {commands:.300}");
}

fn copy(image: &Path, name: &str) -> PathBuf {
    let copy = image.with_file_name(name);
    fs::copy(image, &copy).expect("room for an image");
    copy
}

/// Everything in a filesystem, by path.
fn contents(filesystem: &dyn Filesystem) -> BTreeMap<String, (Metadata, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let listed = if folder.is_empty() { "/" } else { &folder };
        for entry in filesystem.read_directory(listed).expect("a directory") {
            let path = format!("{folder}/{}", entry.name);
            let metadata = filesystem.metadata(&path).expect("it was listed");
            let content = match entry.file_type {
                FileType::File => filesystem.read(&path, 1 << 24).expect("a file"),
                FileType::Symlink => filesystem.read_link(&path).expect("a link").into_bytes(),
                FileType::Directory | FileType::Special => Vec::new(),
            };
            if entry.file_type == FileType::Directory {
                folders.push(path.clone());
            }
            // `e2fsck` packs directories in passing.
            let size_bytes = match entry.file_type {
                FileType::Directory => 0,
                _ => metadata.size_bytes,
            };
            let metadata = Metadata {
                size_bytes,
                ..metadata
            };
            found.insert(path, (metadata, content));
        }
    }
    found
}

fn contents_of(image: &Path) -> BTreeMap<String, (Metadata, Vec<u8>)> {
    contents(&*open(ImageFile::open(image)).expect("it opens"))
}

fn assert_same_contents(found: &Path, expected: &Path, context: &str) {
    let (found, expected) = (contents_of(found), contents_of(expected));
    let names = |of: &BTreeMap<String, _>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected), "{context}");
    for (path, node) in &expected {
        assert_eq!(found[path].0, node.0, "{context}: {path}");
        let (found, expected) = (&found[path].1, &node.1);
        let differs = found
            .iter()
            .zip(expected)
            .position(|(left, right)| left != right);
        assert_eq!(differs, None, "{context}: {path}");
        assert_eq!(found.len(), expected.len(), "{context}: {path}");
    }
}

/// Two images of one filesystem.
struct Pair {
    /// Its journal is dirty.
    dirty: PathBuf,
    /// What `e2fsck` makes of it.
    replayed: PathBuf,
}

/// Blocks of an image, by number.
struct Blocks {
    bytes: Vec<u8>,
    size: usize,
}

impl Blocks {
    fn read(image: &Path, size: usize) -> Self {
        let bytes = fs::read(image).expect("readable");
        Self { bytes, size }
    }

    fn get(&self, block: usize) -> &[u8] {
        &self.bytes[block * self.size..][..self.size]
    }

    fn count(&self) -> usize {
        self.bytes.len() / self.size
    }
}

/// Edits that change bitmaps, descriptors, inodes and directories, and make and free blocks.
fn edit(after: &Path) {
    let large = after.with_file_name("large");
    fs::write(&large, [&JOURNAL_MAGIC[..], &[0x5a; 2_500_000]].concat()).expect("a file");
    let mut commands = format!(
        "write {} new\nmkdir etc/conf.d\ncd etc/conf.d\n",
        large.display()
    );
    for index in 0..150 {
        commands += &format!("symlink a-link-with-a-long-name-{index:03} target-{index}\n");
    }
    commands += "cd /etc\nrm 30\nrm 31\nrm 59\nln 12 other-name\nsif 12 links_count 2\nsif 7 mode 0100600\n";
    // As the kernel has it in every copy of the superblock that it writes.
    commands += "feature needs_recovery\n";
    debugfs(after, &commands);
}

/// The image of a server that runs; `None` where tools are missing.
fn dirty(folder: &Path, case: &Case) -> Option<Pair> {
    if !have(&["mke2fs", "e2fsck", "debugfs", "dumpe2fs"]) {
        return None;
    }
    let tree = tree(folder).to_string_lossy().into_owned();
    let mut all = vec!["-qF", "-d", &tree, "-J", "size=4"];
    all.extend(case.arguments);
    let before = make(folder, 64, "mke2fs", &all)?;
    let after = copy(&before, "after");
    edit(&after);
    let size = field(&before, "Block size") as usize;
    let dirty = copy(&before, "dirty");
    let free = free_blocks(&before);
    let (old, new) = (Blocks::read(&before, size), Blocks::read(&after, size));
    let mut bytes = old.bytes.clone();
    let mut logged = Vec::new();
    for block in (0..old.count()).filter(|&block| old.get(block) != new.get(block)) {
        // A block that becomes a directory's or an extent tree's is metadata, and logged too; here
        // that is one in 16 of those that were free.
        if free.contains(&block) && block % 16 != 0 {
            bytes[block * size..][..size].copy_from_slice(new.get(block));
        } else {
            logged.push(block);
        }
    }
    fs::write(&dirty, bytes).expect("room for an image");
    write_log(&dirty, case, &logged, &old, &new);
    let replayed = copy(&dirty, "replayed");
    let path = replayed.to_string_lossy();
    let (code, output) = attempt("e2fsck", &["-y", "-E", "journal_only", &path]);
    assert!(
        code <= 1 && output.contains("recovering journal"),
        "{code}: {output}"
    );
    assert_clean(&replayed, "the test makes a sound journal");
    Some(Pair { dirty, replayed })
}

fn free_blocks(image: &Path) -> std::collections::HashSet<usize> {
    let (_, output) = attempt("dumpe2fs", &[&image.to_string_lossy()]);
    let lists = output.lines().filter_map(|line| {
        let list = line.strip_prefix("  Free blocks: ")?;
        (!list.is_empty()).then_some(list)
    });
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let ranges = lists.flat_map(|list| list.split(", ")).map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        number(first)..=number(last)
    });
    ranges.flatten().collect()
}

/// Three transactions: older copies, which the second makes void or overwrites, and one that was
/// not finished and must not count.
fn write_log(dirty: &Path, case: &Case, logged: &[usize], old: &Blocks, new: &Blocks) {
    let file = |name: &str, blocks: Vec<u8>| {
        let path = dirty.with_file_name(name);
        fs::write(&path, blocks).expect("a scratch file");
        path.display().to_string()
    };
    let list = |blocks: &[usize]| {
        let texts: Vec<String> = blocks.iter().map(ToString::to_string).collect();
        texts.join(",")
    };
    let of = |from: &Blocks| {
        let blocks = logged.iter().map(|&block| from.get(block));
        blocks.collect::<Vec<_>>().concat()
    };
    // Data that was metadata until it was freed: written in place by now.
    let data = (0..new.count())
        .find(|block| !logged.contains(block) && new.get(*block) != old.get(*block))
        .expect("the large file");
    let all = list(logged);
    // An older round of the log, put into place long ago; its remains stand behind the new one.
    let rounds = format!("jw -b {all} {}\n", file("done", of(old))).repeat(5);
    debugfs(dirty, &format!("jo {}\n{rounds}jr\njc\n", case.journal));
    let commands = format!(
        "jo {journal}\njw -b {all} {older}\njw -b {data} {void}\njw -r {data}\n\
         jw -b {all} {newer}\njw -c -b {all} {unfinished}\njc\n",
        journal = case.journal,
        older = file("older", of(old)),
        void = file("void", vec![0xbb; old.size]),
        newer = file("newer", of(new)),
        unfinished = file("unfinished", of(old)),
    );
    debugfs(dirty, &commands);
}

#[rstest]
fn a_dirty_journal_is_read_mapped_and_replayed_as_e2fsck_does(
    #[values(0, 1, 2, 3, 4, 5, 6)] case: usize,
) {
    let case = &CASES[case];
    let context = format!("{:?}", case.arguments);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(pair) = dirty(folder.path(), case) else {
        return;
    };
    check_reading(&pair, &context);
    check_replay(&pair, &context);
    check_edits(&pair, &context);
    check_map(&pair, &context);
}

/// What is read is what the journal holds, and nothing is written.
fn check_reading(pair: &Pair, context: &str) {
    let before = fs::read(&pair.dirty).expect("readable");
    assert_same_contents(&pair.dirty, &pair.replayed, context);
    let after = fs::read(&pair.dirty).expect("readable");
    assert!(after == before, "{context}: written to");
}

/// Opening for writing replays, and says so once.
fn check_replay(pair: &Pair, context: &str) {
    let ours = copy(&pair.dirty, "ours");
    let opened = open_writable(ImageFile::open(&ours), OPTIONS);
    let opened = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = opened.findings.iter();
    let found: Vec<_> = found.map(|found| (found.level, &*found.code)).collect();
    assert_eq!(found, [(Level::Note, "disk.ext.journal-replayed")]);
    opened.filesystem.finish().expect("durable");
    assert_clean(&ours, context);
    assert_same_contents(&ours, &pair.replayed, context);
    for name in ["Free blocks", "Free inodes"] {
        let expected = field(&pair.replayed, name);
        assert_eq!(field(&ours, name), expected, "{context}: {name}");
    }
    let again = open_writable(ImageFile::open(&ours), OPTIONS).expect("it opens");
    assert_eq!(again.findings, [], "{context}");
}

/// Edits after a replay leave a sound filesystem.
fn check_edits(pair: &Pair, context: &str) {
    let edited = copy(&pair.dirty, "edited");
    let opened = open_writable(ImageFile::open(&edited), OPTIONS).expect("it opens");
    let mut writer = opened.filesystem;
    writer
        .write("/etc/9", &[1; 70_000], None)
        .expect("there is room");
    writer.append("/new", &[2; 300_000]).expect("there is room");
    writer
        .remove("/etc/conf.d/a-link-with-a-long-name-149")
        .expect("it is there");
    writer.finish().expect("durable");
    assert_clean(&edited, context);
    let found = contents_of(&edited);
    assert!(found["/etc/9"].1 == vec![1; 70_000], "{context}");
    assert_eq!(found["/new"].1.len(), 2_800_004, "{context}");
    assert_eq!(found["/new"].1[..4], JOURNAL_MAGIC, "{context}");
    assert!(!found.contains_key("/etc/30"), "{context}");
}

/// What a map made with a dirty journal leaves out is needed neither before nor after a replay.
fn check_map(pair: &Pair, context: &str) {
    let kept = keep_only_used(&pair.dirty);
    assert!(kept < 40 << 20, "{context}: {kept} bytes are in use");
    assert_same_contents(&pair.dirty, &pair.replayed, context);
    let (code, output) = attempt("e2fsck", &["-fy", &pair.dirty.to_string_lossy()]);
    assert!(code <= 1 && !output.contains("Fix?"), "{context}: {output}");
    assert_clean(&pair.dirty, context);
    assert_same_contents(&pair.dirty, &pair.replayed, context);
}

#[test]
fn a_dirty_journal_of_damaged_bytes_gives_errors_and_never_panics() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(pair) = dirty(folder.path(), &CASES[0]) else {
        return;
    };
    let first = fs::read(&pair.dirty).expect("readable");
    let log: Vec<usize> = (0..first.len())
        .step_by(1024)
        .filter(|&at| first[at..at + 4] == JOURNAL_MAGIC)
        .collect();
    assert!(log.len() > 8, "{} blocks of the log", log.len());
    let mut state = 0x2545_f491_u64;
    for _ in 0..60 {
        let mut bytes = first.clone();
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let block = log[state as usize % log.len()];
            bytes[block + (state >> 16) as usize % 64] = (state >> 32) as u8;
        }
        let _ = used_extents(&MemoryDevice::from(bytes.clone()));
        let _ = open(Arc::new(MemoryDevice::from(bytes.clone())));
        let _ = open_writable(Arc::new(MemoryDevice::from(bytes)), OPTIONS);
    }
}

/// Takes a file out of its directory and leaves it in use, as a process does that has it open.
fn unlink_but_keep(image: &Path, path: &str) -> u64 {
    let (_, output) = attempt(
        "debugfs",
        &["-R", &format!("stat {path}"), &image.to_string_lossy()],
    );
    let number = output.split_whitespace().nth(1).map(str::parse);
    let number = number.expect("it is there").expect("a number");
    debugfs(
        image,
        &format!("unlink {path}\nsif <{number}> links_count 0\n"),
    );
    number
}

fn edit_with_orphans(image: &Path, context: &str) {
    let opened = open_writable(ImageFile::open(image), OPTIONS);
    let opened = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut writer = opened.filesystem;
    writer
        .write("/etc/new", &[3; 500_000], None)
        .expect("there is room");
    writer
        .append("/etc/41", &[4; 100_000])
        .expect("there is room");
    writer.finish().expect("durable");
}

#[test]
fn files_on_the_list_of_orphans_are_freed_as_the_kernel_does() {
    if !have(&["e2fsck", "debugfs", "dumpe2fs"]) {
        return;
    }
    for arguments in [
        &["-t", "ext3", "-b", "1024"][..],
        &["-t", "ext4", "-b", "4096"],
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tree = tree(folder.path()).to_string_lossy().into_owned();
        let all = [&["-qF", "-d", &tree][..], arguments].concat();
        let Some(image) = make(folder.path(), 64, "mke2fs", &all) else {
            return;
        };
        let context = format!("{arguments:?}");
        let inodes = field(&image, "Free inodes");
        let number = unlink_but_keep(&image, "/etc/40");
        debugfs(
            &image,
            &format!("sif <{number}> dtime 0\nssv last_orphan {number}\n"),
        );
        let checked = copy(&image, "checked");
        let (_, output) = attempt("e2fsck", &["-fy", &checked.to_string_lossy()]);
        assert!(
            output.contains("orphaned inode"),
            "the test made one: {output}"
        );
        edit_with_orphans(&image, &context);
        assert_clean(&image, &context);
        assert_eq!(field(&image, "Free inodes"), inodes, "one freed, one made");
        let found = contents_of(&image);
        assert!(found["/etc/new"].1 == vec![3; 500_000], "{context}");
        assert_eq!(found["/etc/41"].1.len(), 41 * 7001 + 100_000, "{context}");
    }
}

#[test]
fn files_in_the_orphan_file_are_left_to_the_kernel() {
    if !have(&["e2fsck", "debugfs", "dumpe2fs"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tree = tree(folder.path()).to_string_lossy().into_owned();
    // Without checksums, so that an entry can be written here by hand.
    let features = "orphan_file,^metadata_csum";
    let arguments = [
        "-qF", "-d", &tree, "-t", "ext4", "-b", "4096", "-O", features,
    ];
    let Some(image) = make(folder.path(), 64, "mke2fs", &arguments) else {
        return;
    };
    let number = unlink_but_keep(&image, "/etc/40");
    let file = field(&image, "Orphan file inode");
    let question = format!("bmap <{file}> 0");
    let (_, output) = attempt("debugfs", &["-R", &question, &image.to_string_lossy()]);
    let block = output.lines().next().expect("its first block").trim();
    let block: usize = block.parse().expect("a number");
    let mut bytes = fs::read(&image).expect("readable");
    bytes[block * 4096..][..4].copy_from_slice(&(number as u32).to_le_bytes());
    fs::write(&image, bytes).expect("writable");
    debugfs(&image, "feature orphan_present\n");
    edit_with_orphans(&image, features);
    let expected = copy(&image, "expected");
    keep_only_used(&image);
    let (code, output) = attempt("e2fsck", &["-fy", &image.to_string_lossy()]);
    assert!(code <= 1 && !output.contains("Fix?"), "{output}");
    assert!(output.contains("orphaned inode"), "it was kept: {output}");
    assert_clean(&image, features);
    assert_same_contents(&image, &expected, features);
    assert!(contents_of(&image)["/etc/new"].1 == vec![3; 500_000]);
}

#[test]
fn a_dirty_journal_on_another_device_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(pair) = dirty(folder.path(), &CASES[0]) else {
        return;
    };
    debugfs(&pair.dirty, "ssv journal_inum 0\n");
    let refused = used_extents(&*ImageFile::open(&pair.dirty)).expect_err("there is no log");
    assert!(
        matches!(&refused, Error::Unsupported { .. }) && refused.to_string().contains("external"),
        "{refused}"
    );
    assert!(open_writable(ImageFile::open(&pair.dirty), OPTIONS).is_err());
}
