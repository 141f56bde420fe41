// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a file's content is in memory before it is measured how fast something reads it.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

/// Reads a file, so that who reads it next need not wait for the disk.
///
/// # Panics
/// When it cannot be read.
pub fn read_into_memory(file: &Path) {
    let mut file = File::open(file).expect("the file exists");
    io::copy(&mut file, &mut io::sink()).expect("the file can be read");
}

/// Makes the kernel forget the content of a file, or of all files in a folder and below: `dd` gives
/// it POSIX_FADV_DONTNEED, which takes no rights. What is not on the disk yet is written first.
///
/// # Panics
/// When a file cannot be read.
pub fn forget(path: &Path) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("the folder can be read") {
            forget(&entry.expect("the folder can be read").path());
        }
        return;
    }
    let file = File::open(path).expect("the file can be read");
    file.sync_all().expect("the file can be made durable");
    let status = Command::new("dd")
        .arg(format!("if={}", path.display()))
        .args(["iflag=nocache", "count=0", "status=none"])
        .status()
        .expect("dd can be run");
    assert!(status.success(), "{} cannot be forgotten", path.display());
}
