// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who reads comes before what is fetched ahead.
//!
//! While somebody waits for the image, no fetch ahead begins, except one every [`PATIENCE`]: a
//! guest that always waits for something must not stop for ever what would spare it the waiting.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After how long one fetch ahead begins although somebody waits.
const PATIENCE: Duration = Duration::from_millis(20);

/// Counts who waits for the image of one disk.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    nobody_waits: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    /// When a fetch ahead began last.
    ahead: Option<Instant>,
}

/// Somebody waits for the image while this is there.
pub(super) struct Waiting<'a>(&'a Turns);

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody begins to wait for the image.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        self.lock().waiting += 1;
        Waiting(self)
    }

    /// Waits until a fetch ahead may begin, or a while: then `false`, to be asked again.
    pub(super) fn may_fetch_ahead(&self) -> bool {
        let mut state = self.lock();
        if state.waiting > 0 && !state.is_overdue() {
            let waited = self.nobody_waits.wait_timeout(state, PATIENCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let may = state.waiting == 0 || state.is_overdue();
        if may {
            state.ahead = Some(Instant::now());
        }
        may
    }
}

impl State {
    fn is_overdue(&self) -> bool {
        self.ahead.is_none_or(|began| began.elapsed() >= PATIENCE)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting = state.waiting.saturating_sub(1);
        let is_last = state.waiting == 0;
        drop(state);
        if is_last {
            self.0.nobody_waits.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_ahead_are_few_while_somebody_waits_and_free_afterwards() {
        let turns = Turns::default();
        let waiting = turns.waiting();
        let started = Instant::now();
        let began = (0..8).filter(|_| turns.may_fetch_ahead()).count();
        let periods = started.elapsed().as_millis() / PATIENCE.as_millis();
        assert!(began as u128 <= periods + 1, "{began} in {periods}");
        assert!(began > 1);
        drop(waiting);
        assert!((0..40).all(|_| turns.may_fetch_ahead()));
    }
}
