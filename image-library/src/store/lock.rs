// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks between processes: `flock` on files that are never read. A lock ends with its process,
//! however that ends. The table of operations and locks is in FORMAT.md.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the exclusive lock; only for what is held shortly.
    pub(crate) fn wait_exclusive(path: &Path) -> Result<Self> {
        let file = open(path)?;
        file.lock().map_err(Error::file("lock", path))?;
        Ok(Self { _file: file })
    }

    /// The exclusive lock, `None` when another holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::file("lock", path)(error)),
        }
    }

    /// The shared lock, or [`Error::Locked`].
    pub(crate) fn shared(path: &Path) -> Result<Self> {
        let file = open(path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(Error::file("lock", path)(error)),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Error::file("open", path))
}
