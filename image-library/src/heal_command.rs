// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library heal`: takes what a library has lost from another one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use image_library::program::{Verdict, print_json, print_line};
use image_library::terminal::{
    AccessPaths, OtherLibrary, Terminal, bytes_text, other_library_access,
};
use image_library::{
    HealOptions, HealReport, LibraryAccess, LocalLibrary, Location, Result, open_library,
};

use crate::replicate_command::stop_on_signal;

#[derive(Debug, Args)]
pub(crate) struct HealArguments {
    /// The library that has lost something: a directory, or s3://BUCKET[/PREFIX].
    library: Location,
    /// The library that has copies of its images: a directory, s3://BUCKET[/PREFIX], or
    /// https://HOST:PORT with an operator's token. Its key or token come from the variables
    /// RELEVO_FROM_KEY_FILE, RELEVO_FROM_PASSPHRASE_FILE, RELEVO_FROM_TOKEN_FILE and so on.
    #[arg(long, value_name = "DIR|URL")]
    from: String,
    /// A file with the token for that server.
    #[arg(long, value_name = "FILE")]
    from_token_file: Option<PathBuf>,
    /// Trust the certificates of this PEM file instead of the authority that the token names.
    #[arg(long, value_name = "FILE")]
    from_ca_file: Option<PathBuf>,
    /// Read and check what would be taken, and store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl HealArguments {
    pub(crate) fn run(&self, access: &LibraryAccess, terminal: &Terminal) -> Result<Verdict> {
        let library = LocalLibrary::open_with_key(&self.library, access)?;
        let paths = AccessPaths {
            token_file: self.from_token_file.as_deref(),
            ca_file: self.from_ca_file.as_deref(),
            workspace: access.workspaces.as_deref(),
        };
        let other = other_library_access(OtherLibrary::From, paths)?;
        let from = open_library(&self.from, other)?;
        let options = HealOptions {
            dry_run: self.dry_run,
        };
        let stop = Arc::new(AtomicBool::new(false));
        stop_on_signal(&stop)?;
        let report = library.heal(&*from, &options, terminal, &stop)?;
        terminal.finish();
        if self.json {
            print_json(&report);
        } else {
            print_line(&report_text(&report, self.dry_run));
        }
        Ok(Verdict::of(report.left_count == 0))
    }
}

fn report_text(report: &HealReport, is_dry: bool) -> String {
    format!(
        "{} chunks, {} leaves and {} roots of manifests ({}) {}, of {} images; {} places are lost \
         still",
        report.chunks,
        report.leaves,
        report.roots,
        bytes_text(report.bytes),
        if is_dry { "to take" } else { "taken" },
        report.images,
        report.left_count
    )
}
