// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in memory before something is measured: the content of files, or what was in use just now.

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

/// Many times what is measured: not all of it is given to the next process.
const WARM_BYTES: u64 = 4 << 30;

/// Uses memory for a file's content and frees it, so that what is measured next is given that.
///
/// Where this computer is a virtual machine, its host may have taken back what was idle, and gives it
/// again page by page, as CPU time of whoever touches it first: of who writes 387 MiB, 1.2 s more than
/// the 0.15 s that they take otherwise (measured, on a machine whose kernel runs `kdamond`).
///
/// # Panics
/// When the folder cannot be written to.
pub fn warm_memory(folder: &Path) {
    let path = folder.join("warm");
    let hole = File::create(&path).expect("the folder can be written to");
    hole.set_len(WARM_BYTES).expect("a hole takes no room");
    read_into_memory(&path);
    fs::remove_file(path).expect("the file is ours");
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
