// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local directory that an open library works in. Nothing in it is truth: it can be deleted
//! whenever no program has the library open. A library in a directory works in that directory.
//!
//! ```text
//! uploads/<owner>.<uuid>/   uploads that are going on or were interrupted
//! index/                    a cache of where chunks stand
//! locks/                    files that are locked and never read
//! tmp/                      files that have no name yet
//! ```

use std::path::{Path, PathBuf};

use super::file;
use crate::error::Result;

/// The paths of a workspace.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Creates what is missing of its directories.
    pub(crate) fn create(&self) -> Result<()> {
        for name in ["uploads", "index", "locks", "tmp"] {
            file::create_directory(&self.root.join(name))?;
        }
        Ok(())
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    pub(crate) fn temporary_directory(&self) -> PathBuf {
        self.root.join("tmp")
    }
}
