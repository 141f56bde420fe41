// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo cleanup`: end and remove what killed runs left behind.

use image_library::program::{Verdict, print_json, print_line};
use jiff::Timestamp;
use recovery_orchestrator::Result;
use recovery_orchestrator::drill::clean_up_leftovers;
use recovery_orchestrator::journal::{Leftover, Scope, leftovers};

use super::context::Context;
use super::output::{DryRun, Format};

#[derive(Debug, clap::Args)]
pub(super) struct CleanupArguments {
    /// Also end the runs that are going on
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(context: &Context, arguments: &CleanupArguments) -> Result<Verdict> {
    let state = context.state()?;
    let scope = if arguments.all {
        Scope::All
    } else {
        Scope::Killed
    };
    if arguments.dry_run.dry_run {
        let found = leftovers(&state, scope)?;
        if arguments.format.json {
            print_json(&found);
        } else {
            found
                .iter()
                .for_each(|leftover| tell("would clean up", leftover));
        }
        return Ok(Verdict::Done);
    }
    let cleaned = clean_up_leftovers(&state, scope, Timestamp::now)?;
    if arguments.format.json {
        print_json(&cleaned);
    } else {
        for done in &cleaned {
            tell(
                if done.complete {
                    "cleaned up"
                } else {
                    "could not end"
                },
                &done.leftover,
            );
        }
        if cleaned.is_empty() {
            context.say("Nothing was left.");
        }
    }
    Ok(Verdict::of(cleaned.iter().all(|done| done.complete)))
}

fn tell(what: &str, leftover: &Leftover) {
    print_line(&format!("{what} {}", leftover.run));
    for (server, process) in &leftover.machines {
        print_line(&format!("  machine of {server}, process {}", process.pid));
    }
    for directory in &leftover.directories {
        print_line(&format!("  {}", directory.display()));
    }
}
