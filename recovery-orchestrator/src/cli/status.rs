// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo status`: which servers could be recovered now.

use std::time::Duration;

use image_library::program::{Verdict, print_json, print_line};
use image_library::terminal::finding_text;
use jiff::Timestamp;
use recovery_orchestrator::Result;
use recovery_orchestrator::readiness::{Readiness, status};
use recovery_orchestrator::runbook::duration_text;

use super::context::Context;
use super::output::{Format, table};
use super::service::outcome;

const NOTES: &str = "\
Shows what is known from earlier preparations (`relevo serve`, or any command that converts), and
prepares nothing. Exit code 1 says that the newest image of a server cannot be started as it is.";

#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(context: &Context, arguments: &StatusArguments) -> Result<Verdict> {
    let servers = status(&*context.open_library()?, Timestamp::now())?;
    if arguments.format.json {
        print_json(&servers);
    } else {
        show(&servers);
    }
    Ok(Verdict::of(
        servers.iter().all(|server| server.problem.is_none()),
    ))
}

fn show(servers: &[Readiness]) {
    let mut rows = vec![["SERVER", "NEWEST IMAGE", "TAKEN", "AGE", "PREPARED"].map(str::to_owned)];
    for server in servers {
        rows.push([
            server.server.to_string(),
            server.image.to_string(),
            server.taken_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            age(server.age_seconds),
            outcome(server),
        ]);
    }
    table(&rows);
    for finding in servers.iter().filter_map(|server| server.problem.as_ref()) {
        print_line(&finding_text(finding));
    }
}

/// An age without what does not matter in it: `3d4h`.
fn age(seconds: u64) -> String {
    let unit = match seconds {
        0..60 => 1,
        60..86_400 => 60,
        _ => 3600,
    };
    duration_text(Duration::from_secs(seconds - seconds % unit))
}
