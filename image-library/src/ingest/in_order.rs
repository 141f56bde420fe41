// SPDX-License-Identifier: MIT OR Apache-2.0
//! Batches are made by several workers at once and put one after the other, in disk order.
//!
//! Whoever hands in the batch whose turn it is puts it, and those behind it that are ready; the
//! others go on meanwhile. Waiting for one's turn instead would leave processors idle: batches of
//! holes are ready at once, and those with data are not.
//!
//! Limit: nobody begins a batch that is a whole window ahead of the one to be put, so as many are
//! in memory at most.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The order of batches, and those that are ready before their turn.
#[derive(Debug)]
pub(super) struct InOrder<T> {
    state: Mutex<State<T>>,
    /// There is room for another batch, or all is over.
    changed: Condvar,
    window: u64,
}

#[derive(Debug)]
struct State<T> {
    /// The first batch that nobody has begun.
    unclaimed: u64,
    /// The batch to be put next.
    next: u64,
    ready: BTreeMap<u64, T>,
    is_putting: bool,
    is_stopped: bool,
}

impl<T> InOrder<T> {
    /// With at most `window` batches that are begun and not put.
    pub(super) fn new(window: u64) -> Self {
        Self {
            state: Mutex::new(State {
                unclaimed: 0,
                next: 0,
                ready: BTreeMap::new(),
                is_putting: false,
                is_stopped: false,
            }),
            changed: Condvar::new(),
            window: window.max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the batch to be made next, from 0 on; `None` when the work was stopped.
    pub(super) fn claim(&self) -> Option<u64> {
        let mut state = self.lock();
        while !state.is_stopped && state.unclaimed - state.next >= self.window {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        let number = state.unclaimed;
        state.unclaimed += 1;
        (!state.is_stopped).then_some(number)
    }

    /// Takes a batch that was claimed, and puts what may be put now. A batch that cannot be put
    /// is the last one.
    pub(super) fn hand_in<E>(
        &self,
        number: u64,
        batch: T,
        mut put: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = self.lock();
        state.ready.insert(number, batch);
        if state.is_putting {
            return Ok(());
        }
        let mut result = Ok(());
        while result.is_ok() && !state.is_stopped {
            let next = state.next;
            let Some(batch) = state.ready.remove(&next) else {
                break;
            };
            state.is_putting = true;
            drop(state);
            result = put(batch);
            state = self.lock();
            state.is_putting = false;
            state.next += 1;
            self.changed.notify_all();
        }
        drop(state);
        if result.is_err() {
            self.stop();
        }
        result
    }

    /// Nothing is begun or put any more.
    pub(super) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }
}

/// Stops the work when a worker ends in a panic, so that the others do not wait for ever.
#[derive(Debug)]
pub(super) struct StopOnPanic<'a, T>(pub(super) &'a InOrder<T>);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::InOrder;

    #[test]
    fn what_is_ready_too_early_is_put_at_its_turn() {
        let order = InOrder::new(8);
        let numbers = [(); 3].map(|()| order.claim());
        assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
        let mut put = Vec::new();
        let mut hand_in = |number, text| {
            let result: Result<(), ()> = order.hand_in(number, text, |text| {
                put.push(text);
                Ok(())
            });
            assert_eq!(result, Ok(()));
        };
        hand_in(2, "c");
        hand_in(0, "a");
        hand_in(1, "b");
        assert_eq!(put, ["a", "b", "c"]);
    }

    #[test]
    fn nobody_gets_further_ahead_than_the_window() {
        let order = InOrder::new(2);
        assert_eq!((order.claim(), order.claim()), (Some(0), Some(1)));
        thread::scope(|scope| {
            let third = scope.spawn(|| order.claim());
            let put = |()| Ok::<(), ()>(());
            assert_eq!(order.hand_in(1, (), put), Ok(()));
            assert!(!third.is_finished());
            assert_eq!(order.hand_in(0, (), put), Ok(()));
            assert_eq!(third.join().expect("no panic"), Some(2));
        });
    }

    #[test]
    fn after_a_batch_that_cannot_be_put_nothing_is() {
        let order = InOrder::new(4);
        let (first, second) = (order.claim(), order.claim());
        assert_eq!((first, second), (Some(0), Some(1)));
        let mut put = Vec::new();
        let mut fail = |number| {
            put.push(number);
            Err("full")
        };
        assert_eq!(order.hand_in(0, 0, &mut fail), Err("full"));
        assert_eq!(order.hand_in(1, 1, &mut fail), Ok(()));
        assert_eq!(put, [0]);
        assert_eq!(order.claim(), None);
    }

    #[test]
    fn many_workers_put_everything_once_and_in_order() {
        let order = InOrder::new(5);
        let put = std::sync::Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(number) = order.claim().filter(|number| *number < 1000) {
                        let result: Result<(), ()> = order.hand_in(number, number, |number| {
                            put.lock().expect("no panic").push(number);
                            Ok(())
                        });
                        assert_eq!(result, Ok(()));
                    }
                });
            }
        });
        assert!(put.into_inner().expect("no panic").into_iter().eq(0..1000));
    }
}
