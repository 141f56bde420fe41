// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending what runs left behind whose command was killed.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{Event, Journal, ProcessIdentity, RunId, RunKind, read, runs};
use crate::error::Result;
use crate::file;
use crate::state::StateDirectory;

/// How long a command may take to end its machines and write its report.
const COMMAND_PATIENCE: Duration = Duration::from_secs(30);

/// How long a keeper may take to end when its machine has.
const KEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// Which runs are cleaned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those whose command does not run any more, but for machines that somebody may work with.
    Forgotten,
    /// Those whose command does not run any more.
    Killed,
    /// Also those that are going on.
    All,
}

/// A run that was not cleaned up by its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// Which.
    pub run: RunId,
    /// Its command, when that still runs.
    pub command: Option<ProcessIdentity>,
    /// What kind of run.
    pub kind: RunKind,
    /// Virtual machines that still run: server and process.
    pub machines: Vec<(String, ProcessIdentity)>,
    /// Their keepers that still run.
    pub keepers: Vec<(String, ProcessIdentity)>,
    /// Directories that still exist.
    pub directories: Vec<PathBuf>,
}

/// What was done about a leftover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CleanedUp {
    /// What was there.
    #[serde(flatten)]
    pub leftover: Leftover,
    /// Whether nothing of it is left.
    pub complete: bool,
}

/// The runs that were not cleaned up.
pub fn leftovers(state: &StateDirectory, scope: Scope) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for run in runs(state)? {
        let leftover = leftover(state, &run)?;
        found.extend(leftover.filter(|left| match scope {
            Scope::Forgotten => left.command.is_none() && !left.is_in_use(),
            Scope::Killed => left.command.is_none(),
            Scope::All => true,
        }));
    }
    Ok(found)
}

impl Leftover {
    /// Whether somebody may still work with it: a machine that was not started for a rehearsal. It
    /// is ended only when somebody asks for that.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.kind == RunKind::Boot && !self.machines.is_empty()
    }
}

/// Ends the machines of one leftover and removes its directories.
pub fn clean_up(
    state: &StateDirectory,
    leftover: Leftover,
    clock: fn() -> Timestamp,
) -> Result<CleanedUp> {
    let command_gone = leftover
        .command
        .as_ref()
        .is_none_or(|command| command.end(COMMAND_PATIENCE));
    // A command that was asked to end may have done all of this itself.
    let machines_gone = leftover
        .machines
        .iter()
        .all(|(_, process)| process.end(Duration::ZERO));
    // A keeper ends when its machine has, and may still write down what it knows.
    let keepers_gone = leftover
        .keepers
        .iter()
        .all(|(_, process)| process.gone_within(KEEPER_PATIENCE) || process.end(Duration::ZERO));
    for directory in &leftover.directories {
        file::remove_directory(directory)?;
    }
    let complete = command_gone && machines_gone && keepers_gone;
    if complete {
        Journal::open(&state.journal(&leftover.run), clock)?.record(Event::CleanedUp)?;
    }
    Ok(CleanedUp { leftover, complete })
}

fn leftover(state: &StateDirectory, run: &RunId) -> Result<Option<Leftover>> {
    let entries = read(&state.journal(run))?;
    let mut leftover = Leftover {
        run: run.clone(),
        command: None,
        kind: RunKind::Boot,
        machines: Vec::new(),
        keepers: Vec::new(),
        directories: Vec::new(),
    };
    for entry in entries {
        match entry.event {
            Event::CleanedUp => return Ok(None),
            Event::RunStarted {
                kind,
                command,
                directory,
                sockets,
                ..
            } => {
                leftover.kind = kind;
                leftover.command = command.filter(ProcessIdentity::is_alive);
                let existing = [directory, sockets]
                    .into_iter()
                    .filter(|path| path.exists());
                leftover.directories.extend(existing);
            }
            Event::MachineStarted { server, process } if process.is_alive() => {
                leftover.machines.push((server, process));
            }
            Event::KeeperStarted { server, process } if process.is_alive() => {
                leftover.keepers.push((server, process));
            }
            Event::TakenOver { command } => {
                leftover.command = command.filter(ProcessIdentity::is_alive);
            }
            Event::MachineStarted { .. }
            | Event::KeeperStarted { .. }
            | Event::MachineEnded { .. }
            | Event::Step { .. }
            | Event::RunFinished { .. } => {}
        }
    }
    Ok(Some(leftover))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::journal::RunKind;

    #[test]
    fn the_machine_and_the_files_of_a_killed_run_are_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path(), directory.path()).unwrap();
        let run = RunId::new(RunKind::Drill, Timestamp::now(), 1);
        std::fs::create_dir_all(state.run(&run).join("web01")).unwrap();
        let mut machine = Command::new("sleep").arg("600").spawn().unwrap();
        let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
        let mut gone = ProcessIdentity::own().unwrap();
        gone.start_ticks += 1;
        let journal = Journal::create(&state.journal(&run), Timestamp::now).unwrap();
        journal
            .record(Event::RunStarted {
                kind: RunKind::Drill,
                name: "erp".to_owned(),
                command: Some(gone),
                directory: state.run(&run),
                sockets: directory.path().join("no-such"),
            })
            .unwrap();
        let process = ProcessIdentity::of(machine.id()).unwrap();
        journal
            .record(Event::MachineStarted {
                server: "web01".to_owned(),
                process,
            })
            .unwrap();

        let found = leftovers(&state, Scope::Killed).unwrap();
        assert_eq!((found.len(), found[0].machines.len()), (1, 1));
        let done = clean_up(&state, found[0].clone(), Timestamp::now).unwrap();
        assert!(done.complete);
        assert!(!state.run(&run).exists());
        assert!(!machine.wait().unwrap().success());
        assert!(bystander.try_wait().unwrap().is_none());
        assert_eq!(leftovers(&state, Scope::All).unwrap(), []);
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }

    #[test]
    fn a_run_whose_command_is_still_there_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path(), directory.path()).unwrap();
        let run = RunId::new(RunKind::Boot, Timestamp::now(), 2);
        let journal = Journal::create(&state.journal(&run), Timestamp::now).unwrap();
        journal
            .record(Event::RunStarted {
                kind: RunKind::Boot,
                name: "web01".to_owned(),
                command: ProcessIdentity::own(),
                directory: state.run(&run),
                sockets: state.run(&run),
            })
            .unwrap();
        assert_eq!(leftovers(&state, Scope::Killed).unwrap(), []);
        assert_eq!(leftovers(&state, Scope::All).unwrap().len(), 1);
    }
}
