// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scratch directories and the journal of a run, gone when it ends.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::file;
use crate::journal::{
    CleanedUp, Event, Journal, ProcessIdentity, RunId, RunKind, Scope, clean_up, leftovers,
};
use crate::state::StateDirectory;

/// The most that Linux takes as the path of a socket.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The scratch directories and the journal of a run; removed when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    /// Which run.
    pub run: RunId,
    /// Its journal.
    pub journal: Journal,
    /// Its files.
    pub directory: PathBuf,
    /// Its sockets, with a path short enough for them.
    pub sockets: PathBuf,
    /// What is in them is in use, whatever becomes of this command.
    pub is_in_use: bool,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.is_in_use {
            return;
        }
        let removed = file::remove_directory(&self.directory)
            .and_then(|()| file::remove_directory(&self.sockets));
        if let Err(error) = removed.and_then(|()| self.journal.record(Event::CleanedUp)) {
            // The journal keeps saying that there is something to clean up.
            tracing::warn!(%error, "could not clean up");
        }
    }
}

/// Begins a run: its journal first, then its directories.
pub fn begin(
    state: &StateDirectory,
    kind: RunKind,
    name: &str,
    clock: fn() -> Timestamp,
) -> Result<Scratch> {
    let [a, b, c, d, ..] = *uuid::Uuid::new_v4().as_bytes();
    let run = RunId::new(kind, clock(), u32::from_be_bytes([a, b, c, d]));
    let directory = state.run(&run);
    let sockets = state.sockets(&run);
    check_length(&sockets)?;
    let journal = Journal::create(&state.journal(&run), clock)?;
    journal.record(Event::RunStarted {
        kind,
        name: name.to_owned(),
        command: ProcessIdentity::own(),
        directory: directory.clone(),
        sockets: sockets.clone(),
    })?;
    let scratch = Scratch {
        run,
        journal,
        directory,
        sockets,
        is_in_use: false,
    };
    create_private(&scratch.directory)?;
    create_private(&scratch.sockets)?;
    Ok(scratch)
}

/// Goes on with the run of a command that is gone.
pub fn take_over(state: &StateDirectory, run: RunId, clock: fn() -> Timestamp) -> Result<Scratch> {
    let journal = Journal::open(&state.journal(&run), clock)?;
    journal.record(Event::TakenOver {
        command: ProcessIdentity::own(),
    })?;
    Ok(Scratch {
        directory: state.run(&run),
        sockets: state.sockets(&run),
        run,
        journal,
        is_in_use: true,
    })
}

/// The path of a socket has a limit, and a machine's are two levels down.
fn check_length(sockets: &Path) -> Result<()> {
    const LONGEST_BELOW: &str = "/9999/console";
    let length = sockets.as_os_str().len() + LONGEST_BELOW.len();
    if length <= SOCKET_PATH_BYTES_MAX {
        return Ok(());
    }
    Err(Error::Request {
        problem: format!(
            "{} is too long for the sockets of machines",
            sockets.display()
        ),
        hint: Some("let TMPDIR name a directory with a shorter path".to_owned()),
    })
}

/// A directory that must not exist yet and that only its owner may enter.
fn create_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder
        .mode(0o700)
        .create(path)
        .map_err(Error::file("create directory", path))
}

/// Cleans up after runs that were killed, or after all.
pub fn clean_up_leftovers(
    state: &StateDirectory,
    scope: Scope,
    clock: fn() -> Timestamp,
) -> Result<Vec<CleanedUp>> {
    let found = leftovers(state, scope)?;
    found
        .into_iter()
        .map(|leftover| clean_up(state, leftover, clock))
        .collect()
}
