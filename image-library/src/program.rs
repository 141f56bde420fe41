// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the three programs end: data on standard output, one error with its hint on standard error,
//! and the exit code.

use std::error::Error;
use std::process::ExitCode;

use serde::Serialize;

use crate::terminal::{report_error, take_print_error, write_data};

/// The exit codes in words, for `--help`.
pub const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 done and problems were found, 2 could not be done.";

/// How a command that was done ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// All is well.
    Done,
    /// Done, and problems were found.
    Problems,
}

impl Verdict {
    /// [`Self::Done`] when all is well.
    pub const fn of(good: bool) -> Self {
        if good { Self::Done } else { Self::Problems }
    }
}

/// Reports what went wrong, also with what was printed, and gives the exit code. `hint` is what an
/// error knows about its remedy.
#[must_use]
pub fn end<E: Error + 'static>(
    result: Result<Verdict, E>,
    hint: impl FnOnce(&E) -> Option<String>,
) -> ExitCode {
    let could_not = ExitCode::from(2);
    match result {
        Err(error) => {
            report_error(&error, hint(&error).as_deref());
            could_not
        }
        Ok(verdict) => match take_print_error() {
            Some(error) => {
                report_error(&error, error.hint().as_deref());
                could_not
            }
            None => ExitCode::from(u8::from(verdict == Verdict::Problems)),
        },
    }
}

/// Data to standard output as it is. An error there is kept for [`end`].
pub fn print(data: impl AsRef<[u8]>) {
    write_data(data.as_ref());
}

/// A line of data.
pub fn print_line(text: &str) {
    print(format!("{text}\n"));
}

/// A value as JSON.
pub fn print_json(value: &impl Serialize) {
    // What we print are structs with names for keys, which always can be written.
    print_line(&serde_json::to_string_pretty(value).unwrap_or_default());
}
