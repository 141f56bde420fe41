// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same server on larger disks: what depends on a disk's size shows there.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use crate::server::SampleServer;

/// A disk's size and what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSize {
    /// For people.
    pub name: &'static str,
    /// In bytes.
    pub bytes: u64,
}

/// The sample server's own disk, and larger ones.
pub const DISK_SIZES: [DiskSize; 3] = [
    DiskSize {
        name: "2 GiB",
        bytes: 2 << 30,
    },
    DiskSize {
        name: "64 GiB, sparse",
        bytes: 64 << 30,
    },
    DiskSize {
        name: "1 TiB, sparse",
        bytes: 1 << 40,
    },
];

/// A copy of a server's disk that is as large; its MBR stays valid, and what was added is a hole.
///
/// # Panics
/// When it cannot be made: the filesystem holds no file of that size.
#[must_use]
pub fn grown_disk(server: &SampleServer, folder: &Path, size: DiskSize) -> PathBuf {
    let copy = server.copy_disk(folder);
    let file = OpenOptions::new().write(true).open(&copy);
    file.and_then(|file| file.set_len(size.bytes))
        .unwrap_or_else(|error| panic!("a disk of {}: {error}", size.name));
    copy
}
