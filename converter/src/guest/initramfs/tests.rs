// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading initramfs files: made here, and real ones.

use proptest::prelude::{any, proptest};

use super::*;
use crate::guest::compression::compress;
use crate::guest::cpio::Writer;
use crate::guest::samples::run;

const VERSION: &str = "6.1.0-9-amd64";

fn microcode() -> Vec<u8> {
    let mut writer = Writer::new(0);
    for directory in ["kernel", "kernel/x86", "kernel/x86/microcode"] {
        writer.directory(directory, 0o755).unwrap();
    }
    writer
        .file("kernel/x86/microcode/GenuineIntel.bin", 0o644, &[7; 1000])
        .unwrap();
    let mut bytes = writer.finish();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// As initramfs-tools makes it on a system with a merged /usr.
fn main_archive() -> Vec<u8> {
    let mut writer = Writer::new(0);
    for directory in ["conf", "usr", "usr/lib", "usr/lib/modules"] {
        writer.directory(directory, 0o755).unwrap();
    }
    let modules = format!("usr/lib/modules/{VERSION}");
    for directory in ["", "/kernel", "/kernel/drivers"] {
        writer
            .directory(&format!("{modules}{directory}"), 0o755)
            .unwrap();
    }
    writer.symlink("lib", "usr/lib").unwrap();
    writer.file("init", 0o755, b"#!/bin/sh\n").unwrap();
    writer
        .file("conf/arch.conf", 0o644, b"DPKG_ARCH=amd64\n")
        .unwrap();
    writer.file("conf/modules", 0o644, b"ahci\n").unwrap();
    writer
        .file(
            &format!("{modules}/kernel/drivers/ahci.ko.xz"),
            0o644,
            b"elf",
        )
        .unwrap();
    writer.finish()
}

fn wanted(path: &str) -> bool {
    path.starts_with("conf/")
}

fn read(file: &[u8]) -> Result<Initramfs> {
    Initramfs::read(file, &wanted, Limits::default())
}

fn additions() -> Additions {
    let mut additions = Additions::default();
    additions.file(
        format!("lib/modules/{VERSION}/kernel/drivers/block/virtio_blk.ko"),
        0o644,
        b"virtio".to_vec(),
    );
    additions.file("conf/modules", 0o644, b"ahci\nvirtio_blk\n".to_vec());
    additions
}

const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Xz,
    Compression::Zstd,
    Compression::Lz4Legacy,
];

#[test]
fn a_file_with_microcode_and_a_compressed_archive_is_read() {
    for compression in ALL {
        let packed = compress(&main_archive(), compression).unwrap();
        let file = [microcode(), packed.clone(), vec![0; 3]].concat();
        let initramfs = read(&file).unwrap();
        let [early, main] = initramfs.archives() else {
            panic!("{:?}", initramfs.archives());
        };
        assert_eq!((early.offset, early.compression), (0, Compression::None));
        assert_eq!((early.entry_count, main.entry_count), (4, 12));
        assert_eq!(main.offset, microcode().len() as u64);
        assert_eq!(main.length, packed.len() as u64);
        assert_eq!(main.compression, compression);
        assert_eq!(initramfs.generator(), Generator::InitramfsTools);
        assert!(initramfs.has_init());
        assert_eq!(initramfs.contents("/conf/modules"), Some(&b"ahci\n"[..]));
        assert_eq!(initramfs.contents("init"), None);
        assert_eq!(initramfs.kernel_versions(), [VERSION]);
        assert_eq!(
            initramfs.module_directory(VERSION),
            format!("usr/lib/modules/{VERSION}")
        );
        assert_eq!(
            initramfs.modules(),
            [ModuleFile {
                path: format!("usr/lib/modules/{VERSION}/kernel/drivers/ahci.ko.xz"),
                version: Some(VERSION.to_owned()),
                relative: "kernel/drivers/ahci.ko.xz".to_owned(),
                name: ModuleName::new("ahci"),
            }]
        );
    }
}

#[test]
fn what_is_appended_is_found_and_nothing_else_changes() {
    for compression in ALL {
        let packed = compress(&main_archive(), compression).unwrap();
        let file = [microcode(), packed, vec![0; 3]].concat();
        let before = read(&file).unwrap();
        let appended = before.append(&additions(), 5).unwrap();
        let file = appended.apply_to(&file);
        let after = read(&file).unwrap();
        assert_eq!(
            after.contents("conf/modules"),
            Some(&b"ahci\nvirtio_blk\n"[..])
        );
        assert_eq!(after.entry("lib").unwrap().kind, FileKind::Directory);
        assert_eq!(
            after.entries().filter(|(path, _)| *path == "lib").count(),
            1
        );
        let new: Vec<&str> = after
            .entries()
            .map(|(path, _)| path)
            .filter(|path| before.tree.get(path).is_none())
            .collect();
        let directory = format!("usr/lib/modules/{VERSION}/kernel/drivers/block");
        assert_eq!(
            new,
            [directory.clone(), format!("{directory}/virtio_blk.ko")]
        );
        // The same once more is the same again.
        let again = after.append(&additions(), 5).unwrap().apply_to(&file);
        assert!(read(&again).unwrap().entries().eq(after.entries()));
    }
}

#[test]
fn an_lz4_stream_is_continued_without_padding_and_others_at_multiples_of_4() {
    let placement = |compression, extra: usize| {
        let packed = compress(&main_archive(), compression).unwrap();
        let file = [packed.clone(), vec![0; extra]].concat();
        let found = read(&file).unwrap().placement();
        assert_eq!(found.keep, packed.len() as u64);
        assert_eq!(
            found.padding,
            if compression == Compression::Lz4Legacy {
                0
            } else {
                packed.len().next_multiple_of(4) - packed.len()
            }
        );
        found.compression
    };
    for compression in ALL {
        assert_eq!(placement(compression, 0), compression);
        assert_eq!(placement(compression, 9), compression);
    }
    let file = compress(&main_archive(), Compression::Lz4Legacy).unwrap();
    let appended = read(&file).unwrap().append(&additions(), 0).unwrap();
    assert_eq!(appended.bytes[..4], [0x02, 0x21, 0x4c, 0x18]);
    assert_eq!(read(&appended.apply_to(&file)).unwrap().archives().len(), 1);
}

#[test]
fn behind_what_we_do_not_write_the_archive_is_stored() {
    let programs: [(Compression, &str, &[&str]); 3] = [
        (Compression::Bzip2, "bzip2", &["-c"]),
        (Compression::Lzo, "lzop", &["-c"]),
        (Compression::Lzma, "xz", &["--format=lzma", "-c"]),
    ];
    for (compression, program, arguments) in programs {
        let Some(packed) = run(program, arguments, main_archive()) else {
            continue;
        };
        let file = [microcode(), packed, vec![0; 3]].concat();
        let before = read(&file).unwrap();
        assert_eq!(before.archives()[1].compression, compression);
        let appended = before.append(&additions(), 5).unwrap();
        assert_eq!(before.placement().compression, Compression::None);
        let file = appended.apply_to(&file);
        let after = read(&file).unwrap();
        assert_eq!(after.archives()[1].compression, compression);
        assert_eq!(after.archives().len(), 3);
        assert_eq!(
            after.contents("conf/modules"),
            Some(&b"ahci\nvirtio_blk\n"[..])
        );
        assert!(after.has_init());
    }
}

#[test]
fn a_filesystem_instead_of_an_archive_is_named() {
    let mut ext2 = vec![0; 4096];
    ext2[1080..1082].copy_from_slice(&[0x53, 0xef]);
    let packed = compress(&ext2, Compression::Gzip).unwrap();
    assert_eq!(ramdisk_filesystem(&packed), Some("ext2"));
    assert_eq!(ramdisk_filesystem(&ext2), Some("ext2"));
    assert_eq!(ramdisk_filesystem(b"\x45\x3d\xcd\x28"), Some("cramfs"));
    assert_eq!(ramdisk_filesystem(&main_archive()), None);
    assert_eq!(ramdisk_filesystem(b""), None);
}

#[test]
fn a_directory_or_a_file_in_the_way_is_refused() {
    let initramfs = read(&main_archive()).unwrap();
    for path in ["conf", "init/x", "", "lib"] {
        let mut additions = Additions::default();
        additions.file(path, 0o644, b"x".to_vec());
        let result = initramfs.append(&additions, 0);
        // The link `lib` itself is replaced when it is named as a file: that is what was asked.
        assert_eq!(result.is_ok(), path == "lib", "{path}");
    }
}

#[test]
fn the_kernels_rules_decide_what_the_tree_is() {
    let mut writer = Writer::new(0);
    writer.symlink("loop", "loop/x").unwrap();
    writer.file("loop/y", 0o644, b"").unwrap();
    writer.directory("a", 0o755).unwrap();
    writer.file("./a//b", 0o644, b"1").unwrap();
    writer.symlink("link", "/a").unwrap();
    writer.file("link/c", 0o644, b"2").unwrap();
    writer.directory("a/b", 0o755).unwrap();
    writer.file("a", 0o644, b"a full directory stays").unwrap();
    writer.directory("link", 0o755).unwrap();
    let initramfs = read(&writer.finish()).unwrap();
    let paths: Vec<(&str, FileKind)> = initramfs
        .entries()
        .map(|(path, node)| (path, node.kind))
        .collect();
    assert_eq!(
        paths,
        [
            ("a", FileKind::Directory),
            ("a/b", FileKind::Directory),
            ("a/c", FileKind::File),
            ("link", FileKind::Directory),
            ("loop", FileKind::Symlink),
        ]
    );
    assert_eq!(initramfs.resolve("loop/z"), None);
}

#[test]
fn hard_links_share_the_contents_of_the_last() {
    let mut writer = Writer::new(0);
    writer.file("conf/one", 0o644, b"").unwrap();
    writer.file("other", 0o644, b"data").unwrap();
    let mut bytes = writer.finish();
    // Both get inode 1 and two links.
    let second = bytes
        .windows(6)
        .skip(1)
        .position(|magic| magic == b"070701")
        .unwrap()
        + 1;
    bytes[second + 13] = b'1';
    for header in [0, second] {
        bytes[header + 45] = b'2';
    }
    let initramfs = read(&bytes).unwrap();
    assert_eq!(initramfs.contents("conf/one"), Some(&b"data"[..]));
    assert_eq!(initramfs.contents("other"), None);
}

#[test]
fn limits_and_foreign_files_are_errors() {
    let file = compress(&main_archive(), Compression::Zstd).unwrap();
    let small = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        Initramfs::read(&file, &wanted, limits)
            .unwrap_err()
            .to_string()
    };
    assert!(small(|limits| limits.unpacked_bytes = 100).contains("limit of 100"));
    assert!(small(|limits| limits.entries = 3).contains("limit of 3"));
    assert!(small(|limits| limits.name_bytes = 3).contains("entries"));
    assert!(small(|limits| limits.kept_bytes = 3).contains("limit of 3"));
    assert_eq!(
        read(b"\0\0\0\0ext2 image").unwrap_err().to_string(),
        "initramfs at byte 0x4: expected a cpio archive, compressed or not, found \"ext2 ima\""
    );
    assert!(read(b"").is_err());
    let cut = &file[..file.len() - 20];
    assert!(
        read(cut)
            .unwrap_err()
            .to_string()
            .contains("zstd part: cpio archive")
    );
}

#[test]
fn foreign_bytes_after_the_last_archive_are_dropped_when_appending() {
    let packed = compress(&main_archive(), Compression::Gzip).unwrap();
    let file = [packed.as_slice(), b"\0\0\0signature"].concat();
    let appended = read(&file).unwrap().append(&additions(), 0).unwrap();
    assert_eq!(appended.keep, packed.len() as u64);
}

proptest! {
    #[test]
    fn damage_never_panics(
        form in 0..5_usize,
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
    ) {
        let mut file = [microcode(), compress(&main_archive(), ALL[form]).unwrap()].concat();
        for (position, value) in damage {
            let position = usize::from(position) % file.len();
            file[position] = value;
        }
        if let Ok(initramfs) = read(&file) {
            let _either = initramfs.append(&additions(), 0);
        }
    }
}
