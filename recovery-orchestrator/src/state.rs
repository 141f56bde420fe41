// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state directory of this computer.
//!
//! ```text
//! journal/<run>.jsonl     what a run did, one JSON object per line
//! runs/<run>/             its scratch files; gone when it has ended
//! reports/<run>/          report.json, report.html
//! host.json               what this computer's QEMU can do, until it is started again
//! ```

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::file;
use crate::journal::RunId;

/// The state directory.
#[derive(Debug, Clone)]
pub struct StateDirectory {
    root: PathBuf,
    temporary: PathBuf,
}

impl StateDirectory {
    /// Uses a directory, made when it is missing; sockets go below `temporary`, whose path is
    /// short (the path of a unix socket has at most 107 bytes).
    pub fn open(root: &Path, temporary: &Path) -> Result<Self> {
        let state = Self {
            root: root.to_owned(),
            temporary: temporary.to_owned(),
        };
        for directory in [state.journals(), state.runs(), state.reports()] {
            file::create_directories(&directory)?;
        }
        Ok(state)
    }

    /// Where the journals are.
    #[must_use]
    pub fn journals(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The journal of one run.
    #[must_use]
    pub fn journal(&self, run: &RunId) -> PathBuf {
        self.journals().join(format!("{run}.jsonl"))
    }

    /// Where the scratch directories are.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// The scratch directory of one run.
    #[must_use]
    pub fn run(&self, run: &RunId) -> PathBuf {
        self.runs().join(run.as_str())
    }

    /// The directory of one run's sockets.
    #[must_use]
    pub fn sockets(&self, run: &RunId) -> PathBuf {
        self.temporary.join(format!("relevo-{run}"))
    }

    /// Where reports are kept.
    #[must_use]
    pub fn reports(&self) -> PathBuf {
        self.root.join("reports")
    }

    /// What this computer can do.
    #[must_use]
    pub fn host(&self) -> PathBuf {
        self.root.join("host.json")
    }
}
