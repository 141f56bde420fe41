// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library behind [`super::writer`]: its device, its clock, its errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fs_ext4::block_io::BlockDevice;
use fs_ext4::runtime::Runtime;

use super::super::path;
use super::super::staging::Staging;
use super::STRUCTURE;
use crate::block::{ReadAt, WriteAt};
use crate::error::{Error, Result};

pub(super) type LibraryResult<T> = std::result::Result<T, fs_ext4::Error>;

/// Calls the library; a panic inside it, on bytes that lie, is an error.
pub(super) fn guard<T>(operation: impl FnOnce() -> LibraryResult<T>, path: &str) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(outcome) => outcome.map_err(|error| translate(error, path)),
        Err(_) => Err(Error::corrupt(
            STRUCTURE,
            0,
            "its structures contradict each other",
        )),
    }
}

pub(super) fn translate(error: fs_ext4::Error, path: &str) -> Error {
    use fs_ext4::Error as Library;
    match error {
        Library::Io(source) => path::device_error(source, STRUCTURE),
        Library::NotFound | Library::NotADirectory => path::not_found(path),
        Library::AlreadyExists => path::already_exists(STRUCTURE, path),
        Library::IsADirectory => path::not_a_file(STRUCTURE, path),
        Library::NoSpaceLeftOnDevice => path::no_space(),
        // How its allocator of single blocks says the same.
        Library::Corrupt(what) if what.contains("contiguous free run") => path::no_space(),
        Library::UnsupportedIncompat(bits) => {
            Error::unsupported(STRUCTURE, format!("the incompatible features {bits:#x}"))
        }
        Library::UnsupportedRoCompat(bits) => {
            Error::unsupported(STRUCTURE, format!("writing with the features {bits:#x}"))
        }
        Library::Unsupported(what) | Library::InvalidArgument(what) => {
            Error::unsupported(STRUCTURE, what)
        }
        other => Error::corrupt(STRUCTURE, 0, other.to_string()),
    }
}

/// The staging area as the library reads and writes it.
pub(super) struct Device {
    pub(super) staging: Arc<Staging>,
    pub(super) writable: bool,
}

impl BlockDevice for Device {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> LibraryResult<()> {
        let read = self.staging.read_exact_at(offset, buffer);
        read.map_err(|error| fs_ext4::Error::Io(std::io::Error::other(error)))
    }

    fn size_bytes(&self) -> u64 {
        self.staging.length_bytes()
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> LibraryResult<()> {
        let written = self.staging.write_all_at(offset, bytes);
        written.map_err(|error| fs_ext4::Error::Io(std::io::Error::other(error)))
    }

    fn is_writable(&self) -> bool {
        self.writable
    }
}

/// A device that refuses to be written.
#[derive(Debug)]
pub(super) struct ReadOnly(pub(super) Arc<dyn ReadAt>);

impl ReadAt for ReadOnly {
    fn length_bytes(&self) -> u64 {
        self.0.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(offset, buffer)
    }
}

impl WriteAt for ReadOnly {
    fn write_all_at(&self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(Error::unsupported(
            STRUCTURE,
            "writing to a device opened for reading",
        ))
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// The time that the caller gave.
pub(super) struct GivenTime(pub(super) i64);

impl Runtime for GivenTime {
    fn now_unix_seconds(&self) -> i64 {
        self.0
    }

    /// A generation tells a file from an earlier one with the same inode number to network
    /// clients; a conversion has none, and its result must not depend on chance.
    fn next_inode_generation(&self) -> u32 {
        self.0 as u32
    }
}
