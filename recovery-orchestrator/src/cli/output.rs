// SPDX-License-Identifier: MIT OR Apache-2.0
//! What several commands take and print alike.

use std::path::Path;

use disk::block::Reads;
use image_library::FileError;
use image_library::program::{print, print_line};
use image_library::terminal::bytes_text;
use recovery_orchestrator::Result;

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

/// What was read of an image.
pub(super) fn reads_text(reads: Reads) -> String {
    format!(
        "read {} of the image, from {} blocks of 64 KiB",
        bytes_text(reads.read_bytes),
        reads.block_count
    )
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
        print_line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

pub(super) fn completions(shell: clap_complete::Shell, command: &mut clap::Command) {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "relevo", &mut script);
    print(script);
}

/// One page for the program and one for each command.
pub(super) fn manual(directory: &Path, command: clap::Command) -> Result<()> {
    create_directory(directory)?;
    clap_mangen::generate_to(command, directory)
        .map_err(FileError::on("write manual pages into", directory))?;
    Ok(())
}
