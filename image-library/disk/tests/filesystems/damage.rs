// SPDX-License-Identifier: MIT OR Apache-2.0
//! Damaged structures give errors and never panics.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use disk::ReadAt;
use disk::filesystem::{WriteOptions, detect, open, open_writable, used_extents};

use crate::volume::ImageFile;
use crate::{make, tree};

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
