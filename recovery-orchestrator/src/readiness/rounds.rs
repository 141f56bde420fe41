// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rounds through a library: each looks for images that nobody has prepared yet.
//!
//! What was found about an image is told once. What failed is not tried again, unless it was the way
//! to the image that failed: then after 1, 2, 4 .. rounds.

use std::collections::{BTreeMap, BTreeSet};

use converter::Secrets;
use converter::apply::Work;
use converter::prepare::{Kept, PrepareOptions, Summary, kept, may_unlock, prepare};
use disk::{Finding, Level};
use image_library::{Image, ImageId, ImageReader, chain_text};
use jiff::Timestamp;
use serde::Serialize;

use super::Readiness;
use crate::error::{Error, Result};
use crate::guest::prepare_options;
use crate::interrupt::Interrupt;

/// An image is left alone for so many rounds at most before it is tried again.
const ROUNDS_LEFT_OUT_MAX: u32 = 64;

/// Which images are to be prepared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Older images too, after the newest of each server.
    pub all: bool,
    /// Those that failed before too, once.
    pub again: bool,
}

/// What a round has to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum News {
    /// An image was prepared, or cannot be.
    Prepared(Readiness),
    /// A problem of an image that was found earlier, and stands.
    Known(Readiness),
    /// An image could not be prepared now, and is tried again.
    Postponed {
        /// What hindered it: `prepare.postponed`.
        finding: Finding,
    },
    /// The library is away, and waited for.
    LibraryAway {
        /// Why: `prepare.library.away`.
        finding: Finding,
    },
    /// The library is back.
    LibraryBack {
        /// Which.
        library: String,
    },
}

impl News {
    /// What is wrong, if something is.
    #[must_use]
    pub const fn problem(&self) -> Option<&Finding> {
        match self {
            Self::Prepared(readiness) | Self::Known(readiness) => readiness.problem.as_ref(),
            Self::Postponed { finding } | Self::LibraryAway { finding } => Some(finding),
            Self::LibraryBack { .. } => None,
        }
    }
}

/// Goes through a library, again and again.
#[derive(Debug, Default)]
pub struct Rounds {
    wanted: Wanted,
    secrets: Secrets,
    /// Images about which everything is known and told.
    settled: BTreeSet<ImageId>,
    postponed: BTreeMap<ImageId, Postponed>,
}

#[derive(Debug, Clone, Copy)]
struct Postponed {
    /// How many rounds it is still left out.
    rounds: u32,
    /// And how many after the next failure.
    next: u32,
}

impl Rounds {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// The same with what opens encrypted volumes.
    #[must_use]
    pub fn with_secrets(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// One round.
    ///
    /// # Errors
    ///
    /// Those of a library that is away, and [`Error::Interrupted`]; the next round goes on.
    pub fn round(
        &mut self,
        reader: &dyn ImageReader,
        interrupt: &Interrupt,
        work: Work<'_>,
        tell: &mut dyn FnMut(&News),
    ) -> Result<()> {
        let images = reader.images()?;
        let there: BTreeSet<ImageId> = images.iter().map(|image| image.id).collect();
        self.settled.retain(|id| there.contains(id));
        self.postponed.retain(|id, _| there.contains(id));
        for image in in_order(images, self.wanted.all) {
            interrupt.check()?;
            if self.settled.contains(&image.id) || self.is_left_out(image.id) {
                continue;
            }
            if let Some(news) = self.look(reader, &image, work)? {
                tracing::info!(image = %image.id, server = %image.server, problem = ?news.problem(),
                    "an image was looked at");
                tell(&news);
            }
        }
        Ok(())
    }

    fn is_left_out(&mut self, id: ImageId) -> bool {
        match self.postponed.get_mut(&id) {
            Some(Postponed { rounds, .. }) if *rounds > 0 => {
                *rounds -= 1;
                true
            }
            _ => false,
        }
    }

    fn look(
        &mut self,
        reader: &dyn ImageReader,
        image: &Image,
        work: Work<'_>,
    ) -> Result<Option<News>> {
        let options = prepare_options(image, false, &self.secrets);
        let known = match kept(reader, image.id, &options.plan) {
            Ok(known) => known,
            Err(error) => return self.hindered(reader, image, &error.into()),
        };
        let is_known = match &known {
            Kept::Nothing => false,
            Kept::Failed(_) => !self.wanted.again,
            // With the key that was missing then.
            Kept::Prepared(summary) => !may_unlock(&summary.findings, &self.secrets),
            Kept::ByLater { .. } => true,
        };
        if !is_known {
            return self.prepare(reader, image, &options, work);
        }
        self.settle(image.id);
        let readiness = Readiness::of(image, known, Timestamp::now());
        let stands = readiness.problem.is_some();
        Ok(stands.then_some(News::Known(readiness)))
    }

    fn prepare(
        &mut self,
        reader: &dyn ImageReader,
        image: &Image,
        options: &PrepareOptions,
        work: Work<'_>,
    ) -> Result<Option<News>> {
        let known = match prepare(reader, image, options, work) {
            Ok(prepared) => Kept::Prepared(Summary::of(&prepared.plan, prepared.reads)),
            Err(error) => match kept(reader, image.id, &options.plan) {
                Ok(known @ Kept::Failed(_)) if error.is_lasting() => known,
                _ => return self.hindered(reader, image, &error.into()),
            },
        };
        self.settle(image.id);
        let readiness = Readiness::of(image, known, Timestamp::now());
        Ok(Some(News::Prepared(readiness)))
    }

    /// Neither prepared nor the image's fault. An error where the library does not answer at all.
    fn hindered(
        &mut self,
        reader: &dyn ImageReader,
        image: &Image,
        error: &Error,
    ) -> Result<Option<News>> {
        match reader.image(image.id) {
            Ok(_) => Ok(self.postpone(image, error)),
            // Deleted since it was listed.
            Err(image_library::Error::NoSuchImage { .. }) => Ok(None),
            Err(away) => Err(away.into()),
        }
    }

    fn settle(&mut self, id: ImageId) {
        self.postponed.remove(&id);
        self.settled.insert(id);
    }

    /// Told at the first time only.
    fn postpone(&mut self, image: &Image, error: &Error) -> Option<News> {
        let before = self.postponed.get(&image.id);
        let rounds = before.map_or(0, |postponed| postponed.next);
        let is_new = before.is_none();
        let next = (rounds * 2).clamp(1, ROUNDS_LEFT_OUT_MAX);
        self.postponed.insert(image.id, Postponed { rounds, next });
        is_new.then(|| News::Postponed {
            finding: Finding {
                level: Level::Warning,
                code: "prepare.postponed".to_owned(),
                place: format!("{}@{}", image.server, image.id),
                problem: format!(
                    "could not be prepared now, and is tried again: {}",
                    chain_text(error)
                ),
                remedy: error.hint(),
            },
        })
    }
}

/// The newest images of each server; then, if they are wanted, the others, youngest first.
///
/// "Newest" has two meanings: `SERVER` is what was received last, a runbook's `latest` what was
/// taken last. They differ where an older image was brought in later; then it is both.
fn in_order(images: Vec<Image>, all: bool) -> Vec<Image> {
    let mut received: BTreeMap<String, ImageId> = BTreeMap::new();
    let mut taken: BTreeMap<String, (Timestamp, ImageId)> = BTreeMap::new();
    for image in &images {
        let server = image.server.to_string();
        let this = (image.taken_at, image.id);
        received.insert(server.clone(), image.id);
        let last = taken.entry(server).or_insert(this);
        *last = this.max(*last);
    }
    let taken = taken.into_values().map(|(_, id)| id);
    let newest: BTreeSet<ImageId> = received.into_values().chain(taken).collect();
    let (mut first, rest): (Vec<Image>, Vec<Image>) = images
        .into_iter()
        .rev()
        .partition(|image| newest.contains(&image.id));
    if all {
        first.extend(rest);
    }
    first
}
