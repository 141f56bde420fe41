// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changing disk files on purpose: damage, and the writes of a working day.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK_BYTES: u64 = 4096;

/// Overwrites bytes at an offset.
///
/// # Panics
/// When the file cannot be written.
pub fn overwrite(file: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new()
        .write(true)
        .open(file)
        .expect("the file exists");
    file.write_all_at(bytes, offset)
        .expect("the file can be written");
}

/// Cuts a file in the middle, as an interrupted copy does.
///
/// # Panics
/// When the file cannot be written.
pub fn truncate_to_half(file: &Path) {
    let length = fs::metadata(file).expect("the file exists").len();
    let file = OpenOptions::new()
        .write(true)
        .open(file)
        .expect("the file exists");
    file.set_len(length / 2).expect("the file can be written");
}

/// Overwrites every `each`-th of the blocks of 4 KiB that hold data from an offset on, each with
/// content of its own; the same blocks for the same arguments. Gives how many.
///
/// # Panics
/// When the file cannot be read or written.
pub fn scatter_writes_over_data(file: &Path, from: u64, each: u64) -> u64 {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .expect("the file exists");
    let length = file.metadata().expect("it is open").len();
    let mut block = vec![0; BLOCK_BYTES as usize];
    let (mut seen, mut written) = (0, 0);
    for offset in (from..length).step_by(BLOCK_BYTES as usize) {
        let block = &mut block[..BLOCK_BYTES.min(length - offset) as usize];
        file.read_exact_at(block, offset)
            .expect("the file can be read");
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        // One of each group, not always the same of it.
        if seen % each == mixed(seen / each) % each {
            file.write_all_at(&block_of_its_own(written), offset)
                .expect("the file can be written");
            written += 1;
        }
        seen += 1;
    }
    written
}

/// Writes `count` blocks of 4 KiB, each with content of its own, scattered evenly between two
/// offsets; the same blocks for the same arguments.
///
/// # Panics
/// When the file cannot be written.
pub fn scatter_writes(file: &Path, range: std::ops::Range<u64>, count: u64) {
    let file = OpenOptions::new()
        .write(true)
        .open(file)
        .expect("the file exists");
    let blocks = (range.end - range.start) / BLOCK_BYTES;
    let stride = blocks / count;
    for index in 0..count {
        let offset = range.start + (index * stride + mixed(index) % stride) * BLOCK_BYTES;
        file.write_all_at(&block_of_its_own(index), offset)
            .expect("the file can be written");
    }
}

fn block_of_its_own(index: u64) -> Vec<u8> {
    (0..BLOCK_BYTES / 8)
        .flat_map(|word| mixed(index * BLOCK_BYTES + word).to_le_bytes())
        .collect()
}

/// A well-mixed number (the finaliser of SplitMix64): incompressible, and the same in every run.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
