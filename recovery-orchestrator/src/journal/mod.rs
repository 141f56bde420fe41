// SPDX-License-Identifier: MIT OR Apache-2.0
//! The journal: what a run did, so that what it started can be ended when the run cannot.
//!
//! One file per run, one JSON object per line: `{"at": TIME, "event": NAME, ...}`. A line is
//! durable (fsync) before what it announces is relied on: a process is journalled before its
//! processors run. A run that ended in order has a line `cleaned-up`; a file without one, whose
//! command does not run any more, is a leftover ([`leftovers`], [`clean_up`]).
//!
//! A last line that is cut off (the computer lost power) is ignored; any other line that cannot
//! be read is an error.

mod cleanup;
mod process;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file;
use crate::state::StateDirectory;

pub use cleanup::{CleanedUp, Leftover, Scope, clean_up, leftovers};
pub use process::{ProcessIdentity, boot_id};

const JOURNAL_LIMIT_BYTES: u64 = 64 << 20;

/// The name of a run: `drill-20261121-031500-1a2b3c`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// A new name: the kind of run, when it begins, and something random.
    #[must_use]
    pub fn new(kind: RunKind, at: Timestamp, random: u32) -> Self {
        let kind = match kind {
            RunKind::Drill => "drill",
            RunKind::Boot => "boot",
        };
        Self(format!(
            "{kind}-{}-{:06x}",
            at.strftime("%Y%m%d-%H%M%S"),
            random & 0x00ff_ffff
        ))
    }

    /// Takes a name, if it is one; it becomes part of file names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (!text.is_empty() && text.len() <= 64 && text.chars().all(legal))
            .then(|| Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// A drill of a runbook.
    Drill,
    /// One machine in the foreground.
    Boot,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// Everything passed.
    Passed,
    /// Something did not.
    Failed,
    /// Somebody ended it.
    Interrupted,
}

impl std::fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run begins.
    RunStarted {
        /// What kind.
        kind: RunKind,
        /// The runbook's name, or the server's.
        name: String,
        /// The command that does it.
        command: Option<ProcessIdentity>,
        /// Its scratch directory.
        directory: PathBuf,
        /// The directory of its sockets.
        sockets: PathBuf,
    },
    /// A step begins.
    Step {
        /// Which.
        title: String,
    },
    /// A virtual machine's process was started.
    MachineStarted {
        /// Whose.
        server: String,
        /// The process.
        process: ProcessIdentity,
    },
    /// The process that serves a virtual machine's disks was started.
    KeeperStarted {
        /// Whose.
        server: String,
        /// The process.
        process: ProcessIdentity,
    },
    /// Another command took over a machine whose command was gone.
    TakenOver {
        /// Which command.
        command: Option<ProcessIdentity>,
    },
    /// A virtual machine was ended.
    MachineEnded {
        /// Whose.
        server: String,
    },
    /// A run has its result.
    RunFinished {
        /// Which.
        outcome: RunOutcome,
        /// Where its report is.
        report: Option<PathBuf>,
    },
    /// Nothing of the run is left but this journal and its report.
    CleanedUp,
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// The journal of a run that is going on.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    clock: fn() -> Timestamp,
}

impl Journal {
    /// Begins a journal.
    pub fn create(path: &Path, clock: fn() -> Timestamp) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create_new(true).open(path);
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file.map_err(Error::file("create", path))?),
            clock,
        })
    }

    /// Goes on with an existing journal.
    pub fn open(path: &Path, clock: fn() -> Timestamp) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(Error::file("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            clock,
        })
    }

    /// Writes a line, durable when this returns.
    pub fn record(&self, event: Event) -> Result<()> {
        let entry = Entry {
            at: (self.clock)(),
            event,
        };
        let mut line = serde_json::to_vec(&entry).unwrap_or_default();
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)
            .and_then(|()| file.sync_data())
            .map_err(Error::file("write", &self.path))
    }
}

/// Reads a journal.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = file::read_text(path, JOURNAL_LIMIT_BYTES)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut entries = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            Err(_) if index + 1 == lines.len() && !text.ends_with('\n') => {}
            Err(error) => {
                return Err(Error::Journal {
                    path: path.to_owned(),
                    line: index + 1,
                    problem: error.to_string(),
                });
            }
        }
    }
    Ok(entries)
}

/// Every run of this computer, oldest first.
pub fn runs(state: &StateDirectory) -> Result<Vec<RunId>> {
    let directory = state.journals();
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(Error::file("read", &directory))? {
        let name = entry.map_err(Error::file("read", &directory))?.file_name();
        let run = name
            .to_str()
            .and_then(|name| name.strip_suffix(".jsonl"))
            .and_then(RunId::parse);
        runs.extend(run);
    }
    // By time: the names have it after their kind.
    runs.sort_by(|left, right| time_part(left).cmp(time_part(right)));
    Ok(runs)
}

fn time_part(run: &RunId) -> &str {
    run.as_str().split_once('-').map_or("", |(_, time)| time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Timestamp {
        Timestamp::from_second(1_795_000_000).unwrap()
    }

    #[test]
    fn what_was_recorded_is_read_back_and_a_cut_off_line_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.jsonl");
        let journal = Journal::create(&path, clock).unwrap();
        journal
            .record(Event::Step {
                title: "Starting".to_owned(),
            })
            .unwrap();
        journal.record(Event::CleanedUp).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let first = br#"{"at":"2026-11-18T11:06:40Z","event":"step","title":"Starting"}"#;
        assert!(
            bytes.starts_with(first),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        bytes.extend(b"{\"at\":\"2026");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap().len(), 2);
        bytes.extend(b"\n{}\n");
        std::fs::write(&path, &bytes).unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .ends_with("line 3: EOF while parsing a string at line 1 column 11")
        );
    }

    #[test]
    fn a_run_is_named_by_kind_and_time_and_nothing_else_is_a_name() {
        let run = RunId::new(RunKind::Drill, clock(), 0xabcd_ef01);
        assert_eq!(run.as_str(), "drill-20261118-110640-cdef01");
        assert_eq!(RunId::parse(run.as_str()), Some(run));
        assert_eq!(RunId::parse("../../etc"), None);
    }
}
