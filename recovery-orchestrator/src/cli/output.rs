// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data on standard output, messages on standard error.
//!
//! Whoever closes standard output early (`head`) wants no more of it, so such errors are ignored.

use std::io::{self, Write as _};
use std::path::Path;

use recovery_orchestrator::{Error, Result};
use serde::Serialize;

use super::context::create_directory;

/// `--json`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Format {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `--dry-run`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct DryRun {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// A line of data.
pub(super) fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Data as it is.
pub(super) fn bytes(bytes: &[u8]) {
    let _ = io::stdout().lock().write_all(bytes);
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// A message.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Rows in columns; the first is the heading.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

pub(super) fn completions(shell: clap_complete::Shell, command: &mut clap::Command) {
    clap_complete::generate(shell, command, "relevo", &mut io::stdout());
}

/// One page for the program and one for each command.
pub(super) fn manual(directory: &Path, command: clap::Command) -> Result<()> {
    create_directory(directory)?;
    clap_mangen::generate_to(command, directory).map_err(|source| Error::File {
        action: "write manual pages into",
        path: directory.to_owned(),
        source,
    })
}
