// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose turn it is. Every operation of a history runs in a thread of its own, and only one of
//! them goes on at a time: it stops before each operation on the store and waits until the driver
//! gives it the turn again. So the seed decides how operations interleave.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// An actor: one operation that goes on.
pub(super) type Actor = usize;

/// The token that only one thread has.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// `None`: it is the driver's turn.
    running: Mutex<Option<Actor>>,
    changed: Condvar,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Option<Actor>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, mut running: MutexGuard<'_, Option<Actor>>, whose: Option<Actor>) {
        while *running != whose {
            running = self
                .changed
                .wait(running)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whose turn it is.
    pub(super) fn running(&self) -> Option<Actor> {
        *self.lock()
    }

    /// The driver lets an actor go on, until it stops or ends.
    pub(super) fn give(&self, actor: Actor) {
        let mut running = self.lock();
        *running = Some(actor);
        self.changed.notify_all();
        self.wait_for(running, None);
    }

    /// An actor that was just started waits for its first turn.
    pub(super) fn begin(&self, actor: Actor) {
        self.wait_for(self.lock(), Some(actor));
    }

    /// The actor whose turn it is gives it back, and waits for the next one.
    pub(super) fn stop(&self) {
        let mut running = self.lock();
        let Some(me) = *running else { return };
        *running = None;
        self.changed.notify_all();
        self.wait_for(running, Some(me));
    }

    /// The actor whose turn it is has ended.
    pub(super) fn end(&self) {
        *self.lock() = None;
        self.changed.notify_all();
    }
}
