// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ctrl-C and the signals that end a program: noticed, and acted on between two steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often a wait looks up.
const TICK: Duration = Duration::from_millis(50);

/// Signals closer together than this are one request.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// Whether the work is to end early. Clones share the answer.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens to SIGINT, SIGTERM and SIGHUP. The first asks for a clean end; one more, a second
    /// or more later, calls `impatient`, which ends the program at once (its virtual machines die
    /// with it, and the next command clears up). What comes sooner is the same request: `timeout` and some terminals
    /// send to the program and to its group.
    pub fn install(impatient: fn()) -> Result<Self> {
        let interrupt = Self::default();
        let for_handler = interrupt.clone();
        let mut first: Option<Instant> = None;
        ctrlc::set_handler(move || {
            for_handler.raise();
            let since = first.get_or_insert_with(Instant::now).elapsed();
            if since >= IMPATIENCE {
                impatient();
            }
        })
        .map_err(|error| Error::Request {
            problem: format!("cannot listen to signals: {error}"),
            hint: None,
        })?;
        Ok(interrupt)
    }

    /// Asks for the end, as a signal does.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error when the end was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_raised() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Sleeps, and returns early when the end is asked for.
    pub fn sleep(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.is_raised() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(TICK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_ends_when_the_end_is_asked_for() {
        let interrupt = Interrupt::default();
        interrupt.raise();
        let start = Instant::now();
        interrupt.sleep(Duration::from_secs(60));
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(matches!(interrupt.check(), Err(Error::Interrupted)));
    }
}
