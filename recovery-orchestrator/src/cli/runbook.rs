// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo runbook`: a new one, whether it is right, and as a document.

use std::path::PathBuf;

use clap::Subcommand;
use disk::Level;
use image_library::program::{Verdict, print, print_json, print_line};
use image_library::terminal::finding_text;
use jiff::Timestamp;
use recovery_orchestrator::Result;
use recovery_orchestrator::{drill, runbook};
use serde_json::json;

use super::context::Context;
use super::output::Format;

#[derive(Debug, Subcommand)]
pub(super) enum RunbookCommand {
    /// Print a commented runbook with every key
    New,
    /// Check a runbook: its text, the images that it needs, and the memory of this computer
    Check {
        /// The runbook
        file: PathBuf,
        #[command(flatten)]
        format: Format,
    },
    /// Print a runbook as a document (Markdown)
    Render {
        /// The runbook
        file: PathBuf,
    },
}

pub(super) fn run(context: &Context, command: RunbookCommand) -> Result<Verdict> {
    match command {
        RunbookCommand::New => print(runbook::template().as_bytes()),
        RunbookCommand::Render { file } => {
            print(runbook::render(&runbook::load(&file)?).as_bytes());
        }
        RunbookCommand::Check { file, format } => return check(context, &file, format),
    }
    Ok(Verdict::Done)
}

fn check(context: &Context, file: &std::path::Path, format: Format) -> Result<Verdict> {
    let loaded = runbook::load(file)?;
    let findings = if context.library_is_new() && !context.library_is_named {
        context.say("There is no library: only the text was checked");
        drill::notes(&loaded.runbook)
    } else {
        drill::check(&loaded.runbook, &*context.open_library()?, Timestamp::now())?
    };
    let good = findings.iter().all(|finding| finding.level != Level::Error);
    if format.json {
        print_json(&json!({"file": file, "hash": loaded.hash(), "ok": good, "findings": findings}));
        return Ok(Verdict::of(good));
    }
    for finding in &findings {
        print_line(&finding_text(finding));
    }
    let result = if good {
        "the runbook can be run"
    } else {
        "the runbook cannot be run as it is"
    };
    print_line(&format!("{}: {result}", file.display()));
    Ok(Verdict::of(good))
}
