// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo attach`: takes over a machine whose command was killed.

use image_library::program::Verdict;
use jiff::Timestamp;
use recovery_orchestrator::boot::{BootHost, take_over};
use recovery_orchestrator::interrupt::Interrupt;
use recovery_orchestrator::journal::{Leftover, Scope, leftovers};
use recovery_orchestrator::{Error, Result};

use super::boot::stay;
use super::context::Context;

#[derive(Debug, clap::Args)]
#[command(after_help = "Ctrl-] ends the machine, as it does in `relevo boot`.")]
pub(super) struct AttachArguments {
    /// Which run, as `relevo cleanup --dry-run` shows it; the end of its name is enough [default: the
    /// only one]
    run: Option<String>,
}

pub(super) fn run(context: &Context, arguments: &AttachArguments) -> Result<Verdict> {
    let interrupt = Interrupt::install(super::end_at_once)?;
    let state = context.state()?;
    let wanted = arguments.run.as_deref().unwrap_or_default();
    let mut found = leftovers(&state, Scope::Killed)?;
    found.retain(|left| left.is_in_use() && left.run.as_str().ends_with(wanted));
    let leftover = match &*found {
        [leftover] => leftover,
        [] => return Err(none(wanted)),
        several => return Err(which(several)),
    };
    let qemu = context.qemu(&state)?;
    let keepers = context.keepers()?;
    let host = BootHost {
        keepers: &keepers,
        platform: &qemu,
        state: &state,
        clock: Timestamp::now,
    };
    let booted = take_over(leftover, &host)?;
    context.say(&format!("Took over {}", leftover.run));
    stay(context, booted, &interrupt, &host)
}

fn none(wanted: &str) -> Error {
    let problem = if wanted.is_empty() {
        "no machine runs whose command is gone".to_owned()
    } else {
        format!("no machine of a run {wanted} goes on without its command")
    };
    Error::Request {
        problem,
        hint: Some("`relevo cleanup --dry-run --all` shows what runs".to_owned()),
    }
}

fn which(several: &[Leftover]) -> Error {
    let names: Vec<&str> = several.iter().map(|left| left.run.as_str()).collect();
    Error::Request {
        problem: format!("several machines run: {}", names.join(", ")),
        hint: Some("name one: relevo attach RUN".to_owned()),
    }
}
