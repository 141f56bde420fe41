// SPDX-License-Identifier: MIT OR Apache-2.0
//! Damaged structures give errors, or another tree, and never a panic or a hang.

use std::fs;

use disk::filesystem::{Xfs, detect, used_extents};

use crate::images::{DIRTY, USED, unpack};
use crate::made::Made;
use crate::{line, listing, memory};

/// xorshift64*: the damage depends on the seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % end
    }
}

fn rounds(usual: usize) -> usize {
    std::env::var("DAMAGE_ROUNDS").map_or(usual, |text| text.parse().expect("a number"))
}

/// Everything is asked; answers and errors are both fine, panics are not.
fn ask_everything(bytes: Vec<u8>) {
    let device = memory(bytes);
    let _ = detect(&*device);
    let _ = used_extents(&*device);
    let Ok(xfs) = Xfs::open(device) else {
        return;
    };
    let _ = xfs.free_bytes();
    let _ = listing(&xfs);
    for path in [
        "/leaf",
        "/node",
        "/etc/long",
        "/tree",
        "/remote-attribute",
        "/node/none",
        "/etc/39",
    ] {
        let _ = line(&xfs, path);
    }
}

/// The sectors that hold anything: damage elsewhere says nothing.
fn used_sectors(bytes: &[u8]) -> Vec<usize> {
    let sectors = bytes.chunks_exact(512).enumerate();
    let used = sectors.filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
    used.map(|(index, _)| index * 512).collect()
}

fn damage(bytes: &mut [u8], sectors: &[usize], random: &mut Random) {
    for _ in 0..1 + random.below(12) {
        let at = sectors[random.below(sectors.len())];
        // Most of what is counted and named stands in front.
        let reach = [16, 64, 512][random.below(3)];
        let within = random.below(reach);
        bytes[at + within] = match random.below(3) {
            0 => 0xff,
            1 => bytes[at + within] ^ 1 << random.below(8),
            _ => random.below(256) as u8,
        };
    }
}

#[test]
fn a_flipped_byte_in_metadata_is_seen() {
    let whole = unpack(USED);
    // Superblock and header of free space; the label and the count of free blocks are in between.
    for at in [33, 110, 151, 230, 512 + 3, 512 + 55, 512 + 100] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        assert!(used_extents(&*memory(bytes)).is_err(), "byte {at}");
    }
}

#[test]
fn damage_under_checksums_gives_errors_and_never_panics() {
    let whole = unpack(USED);
    let sectors = used_sectors(&whole);
    let mut random = Random(0x9e37_79b9);
    for _ in 0..rounds(6) {
        let mut bytes = whole.clone();
        damage(&mut bytes, &sectors, &mut random);
        ask_everything(bytes);
    }
}

#[test]
fn damage_in_a_log_without_checksums_gives_errors_and_never_panics() {
    let mut whole = unpack(DIRTY);
    let mut log = Vec::new();
    for at in (0..whole.len()).step_by(512) {
        if whole[at..].starts_with(&[0xfe, 0xed, 0xba, 0xbe]) {
            // Says that there is no checksum.
            whole[at + 32..at + 36].fill(0);
            let length = u32::from_be_bytes(whole[at + 12..at + 16].try_into().expect("four"));
            log.extend((at..at + length as usize).step_by(512));
        }
    }
    let mut random = Random(0x1234_5678);
    for _ in 0..rounds(8) {
        let mut bytes = whole.clone();
        damage(&mut bytes, &log, &mut random);
        ask_everything(bytes);
    }
}

#[test]
fn damage_without_checksums_gives_errors_and_never_panics() {
    for options in [
        &["-m", "crc=0"][..],
        &["-m", "crc=0", "-b", "size=1024", "-n", "ftype=0"],
    ] {
        let Some(made) = Made::new(options) else {
            return;
        };
        let whole = fs::read(&made.image).expect("an image");
        let mut sectors = used_sectors(&whole);
        // Content is no metadata, and most of the image.
        sectors.retain(|&at| whole[at..at + 16] != [whole[at]; 16]);
        let mut random = Random(0x0bad_cafe);
        for _ in 0..rounds(12) {
            let mut bytes = whole.clone();
            damage(&mut bytes, &sectors, &mut random);
            ask_everything(bytes);
        }
    }
}

#[test]
fn what_is_cut_off_is_an_error() {
    for fixture in [USED, DIRTY] {
        let whole = unpack(fixture);
        for length in [
            0,
            100,
            512,
            1024,
            70_000,
            1 << 20,
            9 << 20,
            21 << 20,
            39 << 20,
        ] {
            ask_everything(whole[..length].to_vec());
            let device = memory(whole[..length].to_vec());
            // Without a superblock there is nothing to map; the end of the last group is free.
            let is_mapped = (512..39 << 20).contains(&length);
            assert!(!is_mapped || used_extents(&*device).is_err(), "{length}");
        }
    }
}
