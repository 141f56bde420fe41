// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts the programs that machines need, away from the terminal.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How long a machine and its keeper live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifetime {
    /// They die with the command that started them: a rehearsal is nothing without it.
    WithCommand,
    /// They go on: somebody may work with the machine.
    OnTheirOwn,
}

/// Starts a program that does not hear this terminal's Ctrl-C; what it says goes into a new file.
///
/// One that is to die with the command dies with the calling thread, on Linux.
pub(crate) fn spawn(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    environment: Option<&(&'static str, String)>,
    log: &Path,
    lifetime: Lifetime,
) -> Result<Child> {
    let log_file = File::create(log).map_err(Error::file("create", log))?;
    let errors = log_file.try_clone().map_err(Error::file("open", log))?;
    let mut command = match (lifetime, death_signal_program()) {
        (Lifetime::WithCommand, Some(setpriv)) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        _ => Command::new(program),
    };
    command
        .args(arguments)
        .envs(environment.map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log_file)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(Error::file("run", program))
}

/// `setpriv` of util-linux replaces itself by what it starts, so the process stays the same one.
fn death_signal_program() -> Option<&'static str> {
    ["/usr/bin/setpriv", "/bin/setpriv"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}
