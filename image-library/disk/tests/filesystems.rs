// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tools of each filesystem made, as this package sees it: identities against `blkid`, and
//! allocation maps against the filesystem's own checker.
#![expect(clippy::print_stderr, reason = "tests say what they skip")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use disk::filesystem::{Attributes, used_extents};
use disk::filesystem::{FilesystemKind, WriteOptions, detect, open, open_writable};
use disk::{Error, ReadAt, Result, WriteAt};

#[derive(Debug)]
struct ImageFile(fs::File, u64);

impl ImageFile {
    fn open(path: &Path) -> Arc<Self> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .expect("it opens");
        let length = file.metadata().expect("it has a size").len();
        Arc::new(Self(file, length))
    }
}

impl ReadAt for ImageFile {
    fn length_bytes(&self) -> u64 {
        self.1
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.0.read_exact_at(buffer, offset);
        read.map_err(|_| Error::corrupt("image", offset, "expected bytes, found its end"))
    }
}

impl WriteAt for ImageFile {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset.saturating_add(bytes.len() as u64) > self.1 {
            return Err(Error::corrupt(
                "image",
                offset,
                "expected room, found its end",
            ));
        }
        self.0
            .write_all_at(bytes, offset)
            .expect("the image is writable");
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

fn tool(name: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/sbin", "/usr/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
        assert!(
            std::env::var("E2E_REQUIRE").as_deref() != Ok("all"),
            "{name} is required"
        );
    }
    found
}

fn run(program: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

/// An empty image with a filesystem made by `program`.
fn make(folder: &Path, size_mib: u64, program: &str, arguments: &[&str]) -> Option<PathBuf> {
    let program = tool(program)?;
    let image = folder.join("image");
    let file = fs::File::create(&image).expect("a new file");
    file.set_len(size_mib << 20).expect("a sparse file");
    let mut all = arguments.to_vec();
    let text = image.to_string_lossy().into_owned();
    all.push(&text);
    let (code, output) = run(&program, &all);
    assert_eq!(code, 0, "{program:?}: {output}");
    Some(image)
}

#[test]
fn identities_are_what_blkid_prints() {
    let Some(blkid) = tool("blkid") else { return };
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
            let (_, text) = run(
                &blkid,
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
fn keep_only_used(image: &Path) -> u64 {
    let device = ImageFile::open(image);
    let used = used_extents(&*device).expect("readable").expect("known");
    let mut kept = 0;
    let mut end = 0;
    for range in used.iter().chain(std::iter::once(&(device.1..device.1))) {
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

fn tree(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("etc")).expect("a new folder");
    for index in 0..60usize {
        let content = vec![index as u8 | 1; index * 7001];
        fs::write(tree.join(format!("etc/{index}")), content).expect("a new file");
    }
    tree
}

fn assert_tree(image: &Path, what: &str) {
    let filesystem = open(ImageFile::open(image)).expect("it opens");
    for index in 0..60usize {
        let content = filesystem
            .read(&format!("/etc/{index}"), 1 << 20)
            .expect("it is there");
        assert!(
            content == vec![index as u8 | 1; index * 7001],
            "{what}: file {index}"
        );
    }
}

#[test]
fn an_ext_filesystem_reduced_to_its_used_extents_is_whole() {
    let Some(fsck) = tool("e2fsck") else { return };
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
        let (code, output) = run(&fsck, &["-fn", &image.to_string_lossy()]);
        assert_eq!(code, 0, "{arguments:?}: {output}");
        assert_tree(&image, &format!("{arguments:?}"));
    }
}

#[test]
fn a_fat_filesystem_is_written_mapped_and_checked() {
    let Some(fsck) = tool("fsck.vfat") else {
        return;
    };
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
        let (code, output) = run(&fsck, &["-n", &image.to_string_lossy()]);
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

/// xorshift64*: the damage depends on the seed alone.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// Everything is asked of the filesystem; answers and errors are both fine, panics are not.
fn ask_everything(image: &Path) {
    let device = ImageFile::open(image);
    let _ = detect(&*device);
    let _ = used_extents(&*device);
    if let Ok(filesystem) = open(Arc::clone(&device) as Arc<dyn ReadAt>) {
        for folder in ["/", "/etc"] {
            for entry in filesystem.read_directory(folder).unwrap_or_default() {
                let path = format!("{folder}/{}", entry.name);
                let _ = filesystem.metadata(&path);
                let _ = filesystem.read(&path, 1 << 20);
            }
        }
    }
    let options = WriteOptions {
        now_unix_seconds: 1_760_000_000,
    };
    if let Ok(opened) = open_writable(device, options) {
        let mut writer = opened.filesystem;
        let _ = writer.write("/etc/new", &[1; 50_000], None);
        let _ = writer.append("/etc/7", &[2; 9_000]);
        let _ = writer.remove("/etc/9");
        let _ = writer.finish();
    }
}

#[test]
fn damaged_structures_give_errors_and_never_panics() {
    let rounds = std::env::var("DAMAGE_ROUNDS").map_or(12, |text| text.parse().expect("a number"));
    let cases: [(&str, &[&str]); 3] = [
        ("mke2fs", &["-qF", "-t", "ext4", "-b", "1024"]),
        ("mke2fs", &["-qF", "-t", "ext2", "-b", "1024"]),
        ("mkfs.vfat", &["-F", "16"]),
    ];
    for (program, arguments) in cases {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tree = tree(folder.path()).to_string_lossy().into_owned();
        let mut all = arguments.to_vec();
        if program == "mke2fs" {
            all.extend(["-d", &tree]);
        }
        let Some(image) = make(folder.path(), 16, program, &all) else {
            return;
        };
        let first = fs::read(&image).expect("readable");
        let mut state = 0x9e37_79b9;
        for round in 0..rounds {
            let mut bytes = first.clone();
            // Superblock, descriptors, bitmaps and inodes stand in the first 128 KiB; every second
            // round only the superblock suffers.
            let range = if round % 2 == 0 { 2048 } else { 131_072 };
            for _ in 0..1 + next(&mut state) % 40 {
                let at = (next(&mut state) >> 8) as usize % range;
                bytes[at] = (next(&mut state) >> 16) as u8;
            }
            // The magics survive, or nothing would be read at all.
            bytes[..64].copy_from_slice(&first[..64]);
            bytes[510..512].copy_from_slice(&first[510..512]);
            bytes[1080..1082].copy_from_slice(&first[1080..1082]);
            fs::write(&image, &bytes).expect("writable");
            ask_everything(&image);
        }
    }
}
