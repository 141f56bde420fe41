// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library replicate`: copies of images in another library.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use image_library::program::{Verdict, print, print_json};
use image_library::terminal::{
    AccessPaths, OtherLibrary, Terminal, bytes_text, other_library_access,
};
use image_library::{
    Error, LibraryAccess, LocalLibrary, Location, ReplicateOptions, ReplicateReport, Result,
    ServerName, open_library,
};

#[derive(Debug, Args)]
pub(crate) struct ReplicateArguments {
    /// The library whose images are copied: a directory, or s3://BUCKET[/PREFIX].
    library: Location,
    /// Only images of these servers.
    servers: Vec<ServerName>,
    /// Where they are copied: a directory, s3://BUCKET[/PREFIX], or https://HOST:PORT with an
    /// administrator's token. Its key or token come from the variables RELEVO_TO_KEY_FILE,
    /// RELEVO_TO_PASSPHRASE_FILE, RELEVO_TO_TOKEN_FILE and so on.
    #[arg(long, value_name = "DIR|URL")]
    to: String,
    /// A file with the token for that server.
    #[arg(long, value_name = "FILE")]
    to_token_file: Option<PathBuf>,
    /// Trust the certificates of this PEM file instead of the authority that the token names.
    #[arg(long, value_name = "FILE")]
    to_ca_file: Option<PathBuf>,
    /// Also copy what is older than the newest image of its server over there: without it, what
    /// was pruned there does not come back.
    #[arg(long)]
    older_too: bool,
    /// Say what would be copied, and copy nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ReplicateArguments {
    pub(crate) fn run(&self, access: &LibraryAccess, terminal: &Terminal) -> Result<Verdict> {
        let library = LocalLibrary::open_with_key(&self.library, access)?;
        let paths = AccessPaths {
            token_file: self.to_token_file.as_deref(),
            ca_file: self.to_ca_file.as_deref(),
            workspace: access.workspaces.as_deref(),
        };
        let other = other_library_access(OtherLibrary::To, paths)?;
        let to = open_library(&self.to, other)?;
        let options = ReplicateOptions {
            servers: self.servers.clone(),
            older_too: self.older_too,
            dry_run: self.dry_run,
        };
        let stop = Arc::new(AtomicBool::new(false));
        stop_on_signal(&stop)?;
        let report = library.replicate(&*to, &options, terminal, &stop)?;
        terminal.finish();
        if self.json {
            print_json(&report);
        } else {
            print(report_text(&report, self.dry_run));
        }
        Ok(Verdict::of(report.failed.is_empty()))
    }
}

/// From now on a signal sets `stop`.
pub(crate) fn stop_on_signal(stop: &Arc<AtomicBool>) -> Result<()> {
    let stop = Arc::clone(stop);
    ctrlc::set_handler(move || stop.store(true, Ordering::Relaxed)).map_err(|error| Error::File {
        action: "wait for",
        path: "a signal".into(),
        source: std::io::Error::other(error),
    })
}

fn report_text(report: &ReplicateReport, is_dry: bool) -> String {
    let mut text = String::new();
    for image in &report.copied {
        let done = if is_dry { "would copy" } else { "copied" };
        let sent = if is_dry {
            String::new()
        } else {
            let (new, sent) = (bytes_text(image.new_bytes), bytes_text(image.sent_bytes));
            format!(", {new} new there, {sent} sent")
        };
        text.push_str(&format!(
            "{done} {}@{} of {} ({}{sent})\n",
            image.server,
            image.id,
            image.received_at,
            bytes_text(image.disk_bytes)
        ));
    }
    text.push_str(&format!(
        "{} images {}, {} were there, {} older ones left out, {} damaged here\n",
        report.copied.len(),
        if is_dry { "to copy" } else { "copied" },
        report.present,
        report.left_out,
        report.failed.len()
    ));
    text
}
