// SPDX-License-Identifier: MIT OR Apache-2.0
//! Damaged filesystems give errors, other content, or, where there is another copy, the same content;
//! never a panic, and never an end that does not come.
//!
//! Checksums catch nearly everything, so they are made to match again: what is behind them is meant.

use std::sync::Arc;

use disk::ReadAt;
use disk::filesystem::btrfs::{Btrfs, SubvolumeChoice, SubvolumeReader};
use disk::filesystem::{FileType, Filesystem, used_extents};

use super::fixture::{Sparse, devices};

const SUPERBLOCK: u64 = 0x10000;
const NODE: u64 = 16384;

/// How many of the bytes are changed: every so-manieth, another one in every block.
fn step() -> usize {
    std::env::var("DAMAGE_STEP").map_or(41, |text| text.parse().expect("a number"))
}

/// Everything is asked of the filesystem.
fn ask_everything(device: &Arc<dyn ReadAt>) {
    let _ = used_extents(&**device);
    let Ok(filesystem) = Btrfs::open_devices(&[Arc::clone(device)]) else {
        return;
    };
    let _ = filesystem.subvolumes();
    let _ = filesystem.free_bytes();
    let _ = filesystem.findings();
    let _ = filesystem.open_subvolume(SubvolumeChoice::Default);
    if let Ok(top) = filesystem.open_subvolume(SubvolumeChoice::Id(5)) {
        let mut left = 100;
        ask_below(&top, "", &mut left);
    }
}

fn ask_below(reader: &SubvolumeReader, folder: &str, left: &mut u32) {
    let listed = if folder.is_empty() { "/" } else { folder };
    for entry in reader.read_directory(listed).unwrap_or_default() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = format!("{folder}/{}", entry.name);
        let _ = reader.metadata(&path);
        let _ = reader.read(&path, 1 << 20);
        let _ = reader.read_link(&path);
        let _ = reader.extended_attribute(&path, "security.selinux");
        if entry.file_type == FileType::Directory {
            ask_below(reader, &path, left);
        }
    }
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32c::crc32c(&bytes[32..]).to_le_bytes();
    bytes[..4].copy_from_slice(&sum);
    bytes
}

/// Where the tree blocks are, both copies.
fn tree_blocks(device: &Sparse) -> Vec<u64> {
    let uuid = device.get(SUPERBLOCK + 0x20, 16);
    let places = device.pages.keys().map(|page| page * 4096);
    let blocks = places.filter(|&at| {
        at + NODE <= device.length
            && at != SUPERBLOCK
            && device.get(at + 0x20, 16) == uuid
            && with_checksum(device.get(at, NODE as usize)) == device.get(at, NODE as usize)
    });
    blocks.collect()
}

#[test]
fn structures_that_lie_behind_right_checksums_give_errors_and_never_panics() {
    let device = devices("log", 1).remove(0);
    let blocks = tree_blocks(&device);
    assert!(blocks.len() > 10, "{}", blocks.len());
    for (index, &at) in blocks.iter().enumerate() {
        let first = device.get(at, NODE as usize);
        let copies: Vec<u64> = blocks
            .iter()
            .copied()
            .filter(|&other| device.get(other, NODE as usize) == first)
            .collect();
        // Of two copies only the first is changed here, and the other with it.
        if copies[0] != at {
            continue;
        }
        let bytes = (32..first.len()).filter(|&byte| first[byte] != 0 || byte < 400);
        for (turn, byte) in bytes.skip(index % step()).step_by(step()).enumerate() {
            let mut changed = first.clone();
            changed[byte] = match turn % 3 {
                0 => changed[byte] ^ 1 << (turn % 8),
                1 => 0xff,
                _ => changed[byte].wrapping_add(1),
            };
            let changed = with_checksum(changed);
            let mut damaged = device.clone();
            for copy in &copies {
                damaged.write(*copy, &changed);
            }
            ask_everything(&damaged.shared());
        }
    }
}

#[test]
fn superblocks_that_lie_give_errors_and_never_panics() {
    let device = devices("log", 1).remove(0);
    let first = device.get(SUPERBLOCK, 4096);
    // The fields, and the chunks with what follows them.
    for byte in (32..0x130).chain(0x22b..0x260).chain(0x32b..0x400) {
        for value in [first[byte] ^ 1, first[byte] ^ 0x80, 0xff] {
            let mut changed = first.clone();
            changed[byte] = value;
            let mut damaged = device.clone();
            damaged.write(SUPERBLOCK, &with_checksum(changed));
            ask_everything(&damaged.shared());
        }
    }
}

#[test]
fn a_byte_that_flips_is_repaired_from_the_other_copy_or_noticed() {
    let device = devices("log", 1).remove(0);
    let blocks = tree_blocks(&device);
    let sound = Btrfs::open_devices(&[device.shared()]).expect("it opens");
    let top = sound
        .open_subvolume(SubvolumeChoice::Id(5))
        .expect("it opens");
    let content = top.read("/committed", 1 << 20).expect("a file");
    for (turn, at) in blocks.iter().enumerate() {
        let mut damaged = device.clone();
        let byte = at + (turn as u64 * 977) % NODE;
        let old = damaged.get(byte, 1)[0];
        damaged.write(byte, &[old ^ 0x10]);
        let filesystem = Btrfs::open_devices(&[damaged.shared()]).expect("there are two copies");
        let top = filesystem
            .open_subvolume(SubvolumeChoice::Id(5))
            .expect("it opens");
        assert!(top.read("/committed", 1 << 20).expect("a file") == content);
        used_extents(&damaged).expect("there are two copies");
    }
}

#[test]
fn features_that_change_what_trees_mean_are_refused_by_name() {
    let device = devices("log", 1).remove(0);
    for (field, bit, name) in [
        (0xbc, 1_u64 << 12, "zoned"),
        (0xbc, 1 << 13, "extent-tree-v2"),
        (0xbc, 1 << 14, "raid-stripe-tree"),
        (0xbc, 1 << 40, "0x10000000000"),
        (0x38, 1 << 33, "metadata dump"),
        (0x38, 1 << 35, "change of its UUID"),
    ] {
        let mut changed = device.get(SUPERBLOCK, 4096);
        let old = u64::from_le_bytes(changed[field..field + 8].try_into().expect("eight"));
        changed[field..field + 8].copy_from_slice(&(old | bit).to_le_bytes());
        let mut other = device.clone();
        other.write(SUPERBLOCK, &with_checksum(changed));
        let error = Btrfs::open_devices(&[other.shared()])
            .expect_err("refused")
            .to_string();
        assert!(error.contains(name), "{error}");
        assert!(used_extents(&other).is_err());
    }
    // A read-only feature may say that free space is elsewhere, and hides no file.
    let mut changed = device.get(SUPERBLOCK, 4096);
    changed[0xb4 + 5] |= 1;
    let mut other = device;
    other.write(SUPERBLOCK, &with_checksum(changed));
    Btrfs::open_devices(&[other.shared()]).expect("it opens");
    assert!(used_extents(&other).is_err());
}

#[test]
fn a_device_that_is_cut_off_gives_errors_and_never_panics() {
    let device = devices("log", 1).remove(0);
    let mut length = device.length;
    while length > 0 {
        let mut cut = device.clone();
        cut.length = length;
        cut.pages.retain(|page, _| (page + 1) * 4096 <= length);
        ask_everything(&cut.shared());
        length = length * 9 / 10;
    }
}
