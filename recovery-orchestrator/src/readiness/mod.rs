// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which servers could be recovered now: their images are prepared as they come in, and what cannot
//! be prepared is told on the day it happens.
//!
//! ```text
//! library -> Rounds: newest image of each server -> prepared, or a finding -> News
//!               `--- Service: again and again, and with patience for a library that is away
//! ```
//!
//! What is known about an image is kept beside it by the converter; nothing is kept here. Any number
//! of these may run beside each other.

mod rounds;
mod service;

use converter::Secrets;
use converter::plan::Verdict;
use converter::prepare::{Kept, Summary};
use disk::block::Reads;
use disk::{Finding, Level};
use image_library::{Image, ImageId, ImageReader, ServerName};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::error::Result;
use crate::guest::prepare_options;

pub use rounds::{News, Rounds, Wanted};
pub use service::Service;

/// How ready an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whose image.
    pub server: ServerName,
    /// Which.
    pub image: ImageId,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// How old it is, in seconds.
    pub age_seconds: u64,
    /// Whether it is prepared, and how that went.
    #[serde(rename = "prepared", serialize_with = "state_text")]
    pub state: State,
    /// What it says, once it is known.
    pub verdict: Option<Verdict>,
    /// Why it cannot be started as it is: `prepare.failed`, `prepare.not-ready`.
    pub problem: Option<Finding>,
    /// All that was noticed.
    pub findings: Vec<Finding>,
    /// How many files are changed or made.
    pub edit_count: Option<usize>,
    /// What was read of the image's disks for it.
    pub reads: Option<Reads>,
}

/// Whether an image is prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody has tried yet.
    No,
    /// It is, or it was found that it cannot be started.
    Yes,
    /// It was tried and failed.
    Failed,
    /// By a later version than this, which alone knows what came of it.
    ByLater(String),
}

impl State {
    /// In one word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Failed => "failed",
            Self::ByLater(_) => "by-later-version",
        }
    }
}

fn state_text<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.word())
}

impl Readiness {
    /// What is kept beside an image says so much.
    #[must_use]
    pub fn of(image: &Image, kept: Kept, now: Timestamp) -> Self {
        let age = now.duration_since(image.taken_at).as_secs();
        let mut readiness = Self {
            server: image.server.clone(),
            image: image.id,
            taken_at: image.taken_at,
            // 0 when the clocks disagree.
            age_seconds: u64::try_from(age).unwrap_or(0),
            state: State::No,
            verdict: None,
            problem: None,
            findings: Vec::new(),
            edit_count: None,
            reads: None,
        };
        match kept {
            Kept::Nothing => {}
            Kept::ByLater { converter } => readiness.state = State::ByLater(converter),
            Kept::Failed(failure) => {
                readiness.state = State::Failed;
                readiness.problem = failure.findings.first().cloned();
                readiness.findings = failure.findings;
            }
            Kept::Prepared(summary) => {
                readiness.state = State::Yes;
                readiness.problem = not_ready(image, &summary);
                readiness.verdict = Some(summary.verdict);
                readiness.findings = summary.findings;
                readiness.edit_count = Some(summary.edit_count);
                readiness.reads = Some(summary.reads);
            }
        }
        readiness
    }

    /// The image's full name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}@{}", self.server, self.image)
    }
}

/// The finding that an image was looked at and cannot be started as it is.
fn not_ready(image: &Image, summary: &Summary) -> Option<Finding> {
    if summary.verdict.is_ready() {
        return None;
    }
    let errors = || {
        let all = summary.findings.iter();
        all.filter(|finding| finding.level == Level::Error)
    };
    let problems: Vec<String> = errors()
        .map(|finding| format!("{}: {} [{}]", finding.place, finding.problem, finding.code))
        .collect();
    let remedy = errors().find_map(|finding| finding.remedy.clone());
    Some(Finding {
        level: Level::Error,
        code: "prepare.not-ready".to_owned(),
        place: format!("{}@{}", image.server, image.id),
        problem: format!("{}: {}", summary.verdict, problems.join("; ")),
        remedy: remedy.or_else(|| Some(format!("`relevo inspect {}` says more", image.server))),
    })
}

/// How ready the newest image of each server is, by the servers' names.
pub fn status(reader: &dyn ImageReader, now: Timestamp) -> Result<Vec<Readiness>> {
    let mut newest = std::collections::BTreeMap::new();
    for image in reader.images()? {
        // Oldest first: the last one counts.
        newest.insert(image.server.to_string(), image);
    }
    newest
        .into_values()
        .map(|image| look(reader, &image, now))
        .collect()
}

fn look(reader: &dyn ImageReader, image: &Image, now: Timestamp) -> Result<Readiness> {
    let options = prepare_options(image, false, &Secrets::default()).plan;
    let kept = converter::prepare::kept(reader, image.id, &options)?;
    Ok(Readiness::of(image, kept, now))
}

#[cfg(test)]
mod tests;
