// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filesystems that mkfs made and filled, with every option that changes what is where.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use disk::block::MemoryDevice;
use disk::filesystem::{FileType, Filesystem, LogState, Xfs, open, used_extents};

use tempfile::TempDir;

use crate::memory;
use crate::outside::{have, run};
use crate::reduced;
use crate::volume::{ImageFile, attempt};

/// Enough for leaves of names of every block size, and for two levels of the smallest.
const MANY: usize = 4200;

const SETS: &[&[&str]] = &[
    &[],
    &["-m", "crc=0"],
    &["-m", "crc=0", "-b", "size=512"],
    &[
        "-m",
        "crc=0",
        "-n",
        "ftype=0",
        "-b",
        "size=1024",
        "-i",
        "size=256",
    ],
    &["-m", "crc=0", "-n", "size=16384"],
    &[
        "-m",
        "crc=0",
        "-l",
        "version=1",
        "-i",
        "attr=1,projid32bit=0",
    ],
    &[
        "-m",
        "bigtime=0,finobt=0,reflink=0,rmapbt=0",
        "-i",
        "sparse=0",
    ],
    &["-m", "bigtime=1,inobtcount=1,rmapbt=1,reflink=1"],
    &["-b", "size=1024"],
    &["-b", "size=1024", "-n", "size=8192"],
    &["-b", "size=4096", "-s", "size=2048", "-i", "size=2048"],
    &["-b", "size=2048", "-i", "size=1024,nrext64=1"],
    &["-n", "size=65536"],
    &["-s", "size=4096", "-l", "su=256k"],
    &["-d", "agcount=7"],
    &["-d", "su=64k,sw=4", "-l", "su=64k"],
    &["-b", "size=16384"],
    &["-b", "size=65536"],
];

/// A filesystem and the folder that it is in.
pub(crate) struct Made {
    folder: TempDir,
    pub(crate) image: PathBuf,
}

impl Made {
    /// Fills a new filesystem with the tree of these tests.
    pub(crate) fn new(options: &[&str]) -> Option<Self> {
        if !have(&["mkfs.xfs"]) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = folder.path().join("image");
        let prototype = prototype(folder.path(), &long_target(options));
        fs::write(folder.path().join("prototype"), prototype).expect("a file");
        let file = fs::File::create(&image).expect("a new file");
        // Groups of large blocks are larger.
        let large = options
            .iter()
            .any(|option| matches!(*option, "size=65536" | "size=16384"));
        file.set_len(if large { 512 } else { 128 } << 20)
            .expect("a sparse file");
        let mut all = vec!["-q", "--unsupported", "-L", "made", "-p", "prototype"];
        all.extend(options);
        all.push("image");
        run(folder.path(), "mkfs.xfs", &all);
        Some(Self { folder, image })
    }

    fn open(&self) -> Xfs {
        Xfs::open(ImageFile::open(&self.image)).expect("it opens")
    }

    /// What `xfs_db` prints.
    fn debugger(&self, commands: &[&str]) -> String {
        let mut all = vec!["-r"];
        commands
            .iter()
            .for_each(|command| all.extend(["-c", command]));
        all.push("image");
        run(self.folder.path(), "xfs_db", &all)
    }
}

fn content(index: usize) -> Vec<u8> {
    vec![index as u8 | 1; index * 7001]
}

/// The tree, in the words of mkfs.
fn prototype(folder: &Path, long_target: &str) -> String {
    let mut text = "/dev/null\n0 0\nd--755 0 0\netc d-g750 7 70000\n".to_owned();
    for index in 0..40 {
        let source = folder.join(format!("content{index}"));
        fs::write(&source, content(index)).expect("a scratch file");
        writeln!(
            text,
            "{index} -u-640 {index} {} {}",
            index * 3000,
            source.display()
        )
        .expect("text");
    }
    text += "link l--777 0 0 somewhere/else\n";
    writeln!(text, "long l--777 1 2 {long_target}").expect("text");
    text += "null c--666 0 0 1 3\nblock b--660 0 6 8 1\npipe p--600 0 0\n$\nmany d--755 0 0\n";
    for index in 0..MANY {
        writeln!(text, "{} ---644 0 0 /dev/null", name(index)).expect("text");
    }
    text += "$\nempty d--777 0 0\n$\n$\n";
    text
}

fn name(index: usize) -> String {
    format!("{index}-{}", "n".repeat(index % 50))
}

/// A target that does not fit the inode; but version 5 has checksums, and mkfs 6.1 forgets those of
/// links.
fn long_target(options: &[&str]) -> String {
    "long/".repeat(if options.contains(&"crc=0") { 190 } else { 60 })
}

fn assert_tree(xfs: &Xfs, options: &[&str], what: &str) {
    let names = |path| -> Vec<String> {
        let entries = xfs.read_directory(path).expect("a directory");
        entries.into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names("/"), ["empty", "etc", "many"], "{what}");
    assert_eq!(names("/empty"), [""; 0], "{what}");
    for index in 0..40 {
        let path = format!("/etc/{index}");
        assert!(
            xfs.read(&path, 1 << 20).expect("a file") == content(index),
            "{what}: {path}"
        );
        let metadata = xfs.metadata(&path).expect("it is there");
        let owner = (metadata.mode, metadata.uid, metadata.gid);
        assert_eq!(owner, (0o4640, index as u32, index as u32 * 3000), "{what}");
    }
    assert_eq!(
        xfs.read_link("/etc/link").expect("a link"),
        "somewhere/else"
    );
    assert_eq!(
        xfs.read_link("/etc/long").expect("a link"),
        long_target(options),
        "{what}"
    );
    for path in ["/etc/null", "/etc/block", "/etc/pipe"] {
        let metadata = xfs.metadata(path).expect("it is there");
        assert_eq!(metadata.file_type, FileType::Special, "{what}");
    }
    let mut expected: Vec<String> = (0..MANY).map(name).collect();
    expected.sort();
    assert_eq!(names("/many"), expected, "{what}");
    for name in expected.iter().step_by(13) {
        let found = xfs.metadata(&format!("/many/{name}")).expect("it is there");
        assert_eq!((found.mode, found.size_bytes), (0o644, 0), "{what}");
    }
    assert!(xfs.metadata("/many/none").is_err());
    let types = xfs.read_directory("/etc").expect("a directory");
    let of_type = |wanted| {
        types
            .iter()
            .filter(|entry| entry.file_type == wanted)
            .count()
    };
    let counts = [FileType::File, FileType::Symlink, FileType::Special].map(of_type);
    assert_eq!(counts, [40, 2, 3], "{what}");
}

#[test]
fn a_tree_that_mkfs_made_is_read_whatever_its_options() {
    for options in SETS {
        let Some(made) = Made::new(options) else {
            return;
        };
        let what = format!("{options:?}");
        let xfs = made.open();
        assert_eq!(xfs.log(), LogState::Clean, "{what}");
        assert_tree(&xfs, options, &what);
        let printed = made.debugger(&["sb 0", "print fdblocks blocksize"]);
        let number = |name: &str| -> u64 {
            let line = printed.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.strip_prefix(" = "));
            value.expect("it is printed").parse().expect("a number")
        };
        let free = number("fdblocks") * number("blocksize");
        assert_eq!(xfs.free_bytes().expect("known"), free, "{what}");
    }
}

#[test]
fn what_is_in_use_is_a_whole_filesystem() {
    if !have(&["xfs_repair"]) {
        return;
    }
    for options in SETS {
        let Some(made) = Made::new(options) else {
            return;
        };
        let (bytes, kept) = reduced(&*ImageFile::open(&made.image));
        // What is free is not counted to the byte: some blocks are kept for the trees themselves.
        // Behind the last whole stripe the device has bytes that are no part of the filesystem.
        let xfs = made.open();
        let size = xfs.identity().size_bytes.expect("known");
        let sum = kept + xfs.free_bytes().expect("known");
        assert!(
            sum >= size && sum < size * 21 / 20,
            "{options:?}: {kept} of {size} kept, {sum} with what is free"
        );
        let path = made.folder.path().join("reduced");
        write_sparse(&path, &bytes);
        let (code, output) = attempt("xfs_repair", &["-n", &path.to_string_lossy()]);
        assert_eq!(code, 0, "{options:?}: {output}");
        let xfs = Xfs::open(memory(bytes)).expect("it opens");
        assert_tree(&xfs, options, &format!("{options:?}, reduced"));
    }
}

fn write_sparse(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(path).expect("a new file");
    file.set_len(bytes.len() as u64).expect("a sparse file");
    for (index, block) in (0_u64..).zip(bytes.chunks(65_536)) {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, index * 65_536).expect("room");
        }
    }
}

#[test]
fn inodes_are_what_xfs_db_prints() {
    let Some(made) = Made::new(&["-b", "size=1024"]) else {
        return;
    };
    let xfs = made.open();
    for path in [
        "/etc",
        "/etc/17",
        "/etc/null",
        "/etc/long",
        "/many",
        "/many/0-",
    ] {
        let go = format!("path {path}");
        let fields = "print core.mode core.uid core.gid core.size";
        let printed = made.debugger(&[&go, fields]);
        let metadata = xfs.metadata(path).expect("it is there");
        let kind = match metadata.file_type {
            FileType::File => 0o100_000,
            FileType::Directory => 0o040_000,
            FileType::Symlink => 0o120_000,
            FileType::Special => 0o020_000,
        };
        let expected = format!(
            "core.mode = 0{:o}\ncore.uid = {}\ncore.gid = {}\ncore.size = {}\n",
            kind | metadata.mode,
            metadata.uid,
            metadata.gid,
            metadata.size_bytes
        );
        assert_eq!(printed, expected, "{path}");
    }
}

#[test]
fn a_copy_by_the_tools_without_free_space_is_read() {
    if !have(&["xfs_metadump", "xfs_mdrestore"]) {
        return;
    }
    let Some(made) = Made::new(&[]) else {
        return;
    };
    let folder = made.folder.path();
    // Names as they are, and no zeros over what is stale.
    run(folder, "xfs_metadump", &["-o", "-a", "image", "dump"]);
    run(folder, "xfs_mdrestore", &["dump", "restored"]);
    let restored = Xfs::open(ImageFile::open(&folder.join("restored"))).expect("it opens");
    let listed = restored.read_directory("/many").expect("a directory");
    assert_eq!(listed.len(), MANY);
    assert_eq!(
        restored.metadata("/etc/17").expect("it is there"),
        made.open().metadata("/etc/17").expect("it is there")
    );
}

#[test]
fn a_filesystem_without_any_is_not_taken_for_one() {
    let device = memory(vec![0; 1 << 20]);
    assert!(Xfs::open(device.clone()).is_err());
    assert!(open(device.clone()).is_err());
    assert_eq!(used_extents(&*device).expect("memory"), None);
    let mut bytes = vec![0; 1 << 20];
    bytes[..4].copy_from_slice(b"XFSB");
    assert!(used_extents(&MemoryDevice::from(bytes)).is_err());
}
