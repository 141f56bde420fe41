// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs leave in a folder.

use std::fs;
use std::path::{Path, PathBuf};

/// The one disk file that a program wrote into a folder.
///
/// # Panics
/// When there is none, or more than one.
#[must_use]
pub fn the_only_disk(folder: &Path) -> PathBuf {
    let mut disks = disks_in(folder);
    assert_eq!(
        disks.len(),
        1,
        "one disk expected in {}: {disks:?}",
        folder.display()
    );
    disks.remove(0)
}

/// The disk files that a program wrote into a folder, by name.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn disks_in(folder: &Path) -> Vec<PathBuf> {
    let mut disks = files_ending(folder, ".qcow2");
    disks.extend(files_ending(folder, ".raw"));
    disks.sort();
    disks
}

/// The files of a folder whose name ends so.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn files_ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

/// The files of this name in a folder and below; what is removed meanwhile is not among them.
#[must_use]
pub fn files_called(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ if entry.file_name() == name => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

/// Bytes of all files in a folder and below.
#[must_use]
pub fn bytes_below(folder: &Path) -> u64 {
    // A file may vanish while it is counted: the program is at work.
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes_below(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}
