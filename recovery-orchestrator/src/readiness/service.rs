// SPDX-License-Identifier: MIT OR Apache-2.0
//! Round after round, and with patience: a library that is away is told once and waited for, with
//! growing pauses.
//!
//! A library that never was there is waited for only if it may be the network: a wrong path, key or
//! token is an error at once.

use std::fmt;
use std::time::Duration;

use converter::apply::{Work, WriterMachine};
use disk::{Finding, Level, Monitor};
use image_library::{BucketFailure, ImageReader, chain_text};

use super::rounds::{News, Rounds};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::keeper::Open;

/// The first pause before a library is asked again; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After so many failures in a row it is opened anew: its directory may have been mounted again.
const FAILURES_BEFORE_REOPENING: u32 = 3;

/// Prepares what comes into a library.
pub struct Service {
    /// Where it is, as it is named to people.
    pub location: String,
    /// Opens it.
    pub open: Box<Open>,
    /// What is known so far.
    pub rounds: Rounds,
    /// The pause between two rounds; `None`: there is one round only, and no patience.
    pub interval: Option<Duration>,
    /// Writes what only a guest's own kernel can write.
    pub machine: Box<dyn WriterMachine>,
    /// When to end.
    pub interrupt: Interrupt,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("location", &self.location)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// How the library is.
#[derive(Default)]
struct Connection {
    library: Option<Box<dyn ImageReader>>,
    /// Whether it was there once.
    was_there: bool,
    failures: u32,
}

impl Service {
    /// Works until the end is asked for, or for one round.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] when one round was asked for and did not come to its end; what a
    /// library says that is not to be waited for.
    pub fn run(&mut self, monitor: &dyn Monitor, tell: &mut dyn FnMut(&News)) -> Result<()> {
        let mut connection = Connection::default();
        loop {
            let pause = match (self.attempt(&mut connection, monitor, tell), self.interval) {
                (Ok(()), Some(interval)) => interval,
                (Err(Error::Interrupted), Some(_)) => return Ok(()),
                (Err(error), Some(_)) if connection.was_there || may_come(&error) => {
                    self.note_away(&mut connection, &error, tell)
                }
                (result, _) => return result,
            };
            self.interrupt.sleep(pause);
            if self.interrupt.is_raised() {
                return Ok(());
            }
        }
    }

    fn attempt(
        &mut self,
        connection: &mut Connection,
        monitor: &dyn Monitor,
        tell: &mut dyn FnMut(&News),
    ) -> Result<()> {
        let library = match &connection.library {
            Some(library) => library,
            None => connection.library.insert((self.open)()?),
        };
        if connection.failures > 0 {
            library.images()?;
            connection.failures = 0;
            let library = self.location.clone();
            tell(&News::LibraryBack { library });
        }
        let interrupt = &self.interrupt;
        let work = Work {
            machine: &*self.machine,
            monitor,
        };
        self.rounds.round(&**library, interrupt, work, tell)?;
        connection.was_there = true;
        Ok(())
    }

    /// Tells it the first time, and gives the pause.
    fn note_away(
        &self,
        connection: &mut Connection,
        error: &Error,
        tell: &mut dyn FnMut(&News),
    ) -> Duration {
        tracing::info!(library = %self.location, %error, "the library is away");
        if connection.failures == 0 {
            tell(&News::LibraryAway {
                finding: Finding {
                    level: Level::Warning,
                    code: "prepare.library.away".to_owned(),
                    place: self.location.clone(),
                    problem: format!("cannot be used, and is waited for: {}", chain_text(error)),
                    remedy: error.hint(),
                },
            });
        }
        let pause = PAUSE_MIN * 2_u32.saturating_pow(connection.failures.min(16));
        connection.failures = connection.failures.saturating_add(1);
        if connection
            .failures
            .is_multiple_of(FAILURES_BEFORE_REOPENING)
        {
            connection.library = None;
        }
        pause.min(PAUSE_MAX)
    }
}

/// Whether a library that never was there may still come.
fn may_come(error: &Error) -> bool {
    let error = match error {
        Error::Library(error) => &**error,
        Error::Converter(error) => match &**error {
            converter::Error::Library(error) => error,
            _ => return false,
        },
        _ => return false,
    };
    match error {
        image_library::Error::Unreachable { .. } => true,
        image_library::Error::Bucket { failure, .. } => matches!(
            failure,
            BucketFailure::Unreachable | BucketFailure::TooSlow | BucketFailure::Answer
        ),
        _ => false,
    }
}
