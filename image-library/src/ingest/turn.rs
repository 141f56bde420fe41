// SPDX-License-Identifier: MIT OR Apache-2.0
//! Batches are made by several workers at once and put one after the other, in disk order.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turn {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    is_stopped: bool,
}

impl Turn {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every batch below `number` is done; `false` when the work was stopped.
    pub(super) fn wait(&self, number: u64) -> bool {
        let mut state = self.lock();
        while state.next < number && !state.is_stopped {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        !state.is_stopped
    }

    /// The batch whose turn it was is done.
    pub(super) fn pass(&self) {
        self.lock().next += 1;
        self.changed.notify_all();
    }

    /// Nobody gets a turn any more.
    pub(super) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }
}

/// Stops the turns when its worker ends in a panic, so that the others do not wait for ever.
#[derive(Debug)]
pub(super) struct StopOnPanic<'a>(pub(super) &'a Turn);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
