// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo keep`: the process that serves and watches the disks of one machine. Not for people: the
//! commands that start machines start it.

use std::path::PathBuf;

use image_library::program::Verdict;
use recovery_orchestrator::Result;
use recovery_orchestrator::keeper;

use super::context::Context;

#[derive(Debug, clap::Args)]
pub(super) struct KeepArguments {
    /// A file with what it is to do
    order: PathBuf,
}

pub(super) fn run(context: &Context, arguments: &KeepArguments) -> Result<Verdict> {
    let order = keeper::read_order(&arguments.order)?;
    keeper::run(&order, context.sources())?;
    Ok(Verdict::Done)
}
