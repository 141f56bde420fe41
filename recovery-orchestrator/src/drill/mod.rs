// SPDX-License-Identifier: MIT OR Apache-2.0
//! A drill: a runbook rehearsed on machines that are cut off, and cleaned up whatever happens.
//!
//! ```text
//! clean up what killed runs left -> choose images -> prepare -> capacity -> for each wave:
//!   start -> checks (the next profile, if the first does not boot) -> end -> digests -> report
//! ```
//!
//! Images are chosen and prepared before anything starts, so what can go wrong without a machine
//! goes wrong first, as an error. From then on there is always a report.

mod advice;
mod run;
mod scratch;
mod wave;

use std::path::PathBuf;
use std::time::Instant;

use disk::Monitor;
use image_library::ImageReader;
use jiff::Timestamp;

use crate::error::Result;
use crate::guest::GuestSource;
use crate::interrupt::Interrupt;
use crate::keeper::Keepers;
use crate::platform::Platform;
use crate::report::Report;
use crate::runbook::LoadedRunbook;
use crate::state::StateDirectory;

pub use advice::{check, notes};
pub use scratch::{Scratch, begin, clean_up_leftovers, take_over};

/// What a drill needs.
#[derive(Clone, Copy)]
pub struct Drill<'a> {
    /// The runbook.
    pub runbook: &'a LoadedRunbook,
    /// The library.
    pub reader: &'a dyn ImageReader,
    /// What makes guests of images.
    pub guests: &'a dyn GuestSource,
    /// What serves their disks.
    pub keepers: &'a dyn Keepers,
    /// Where machines run.
    pub platform: &'a dyn Platform,
    /// The journal, scratch files and reports.
    pub state: &'a StateDirectory,
    /// The time.
    pub clock: fn() -> Timestamp,
    /// When the command began.
    pub command_started: Instant,
    /// Told what goes on.
    pub monitor: &'a dyn Monitor,
    /// Whether to end early.
    pub interrupt: &'a Interrupt,
}

impl std::fmt::Debug for Drill<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drill")
            .field("runbook", &self.runbook.file)
            .finish_non_exhaustive()
    }
}

/// A drill that has ended.
#[derive(Debug)]
pub struct Drilled {
    /// What happened.
    pub report: Report,
    /// Where its page is.
    pub page: PathBuf,
}

impl Drill<'_> {
    /// Runs it. The report goes into `directory`, or into the state directory.
    pub fn run(&self, directory: Option<PathBuf>) -> Result<Drilled> {
        run::run(self, directory)
    }
}

#[cfg(test)]
mod tests;
