// SPDX-License-Identifier: MIT OR Apache-2.0
//! One fetch for all who want the same thing at the same time.
//!
//! Who comes first gets a [`Claim`] and fetches; the others wait for its [`Outcome`]. A claim that
//! is dropped without one, by a panic too, wakes those who wait: they try again themselves. Nobody
//! waits while holding a claim, so no two wait for each other, and nobody waits longer than told.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is being fetched.
pub(super) struct Flights<K, V> {
    flying: Mutex<HashMap<K, Arc<Flight<V>>>>,
}

/// One fetch under way.
pub(super) struct Flight<V> {
    outcome: Mutex<Option<Outcome<V>>>,
    ended: Condvar,
}

/// What became of a fetch.
#[derive(Debug, Clone)]
pub(super) enum Outcome<V> {
    /// It was fetched.
    Done(V),
    /// It cannot be fetched now, for whoever wants it.
    Failed(Arc<disk::Error>),
    /// Nothing is known: try again.
    Abandoned,
}

/// The right, and the duty, to fetch.
pub(super) struct Claim<'a, K: Copy + Eq + Hash, V> {
    flights: &'a Flights<K, V>,
    key: K,
    flight: Arc<Flight<V>>,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self {
            flying: Mutex::default(),
        }
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

impl<K: Copy + Eq + Hash, V> Flights<K, V> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<Flight<V>>>> {
        // Nothing panics while it is held.
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The claim, or the fetch that somebody else has under way.
    pub(super) fn claim(&self, key: K) -> Result<Claim<'_, K, V>, Arc<Flight<V>>> {
        let mut flying = self.lock();
        if let Some(flight) = flying.get(&key) {
            return Err(Arc::clone(flight));
        }
        let flight = Arc::new(Flight {
            outcome: Mutex::default(),
            ended: Condvar::new(),
        });
        flying.insert(key, Arc::clone(&flight));
        Ok(Claim {
            flights: self,
            key,
            flight,
        })
    }
}

impl<V: Clone> Flight<V> {
    /// Waits for the outcome; `None` when it is not there after `timeout`: who waits does it
    /// without a claim then.
    pub(super) fn wait(&self, timeout: Duration) -> Option<Outcome<V>> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .ended
            .wait_timeout_while(outcome, timeout, |outcome| outcome.is_none());
        let (outcome, _) = waited.unwrap_or_else(PoisonError::into_inner);
        outcome.clone()
    }
}

impl<K: Copy + Eq + Hash, V> Claim<'_, K, V> {
    /// Gives it to all who wait. It is where the next reader looks by now.
    pub(super) fn done(self, value: V) {
        self.end(Outcome::Done(value));
    }

    /// Tells all who wait that it cannot be fetched.
    pub(super) fn failed(self, error: Arc<disk::Error>) {
        self.end(Outcome::Failed(error));
    }

    fn end(&self, outcome: Outcome<V>) {
        self.flights.lock().remove(&self.key);
        let mut known = self
            .flight
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some(outcome);
        drop(known);
        self.flight.ended.notify_all();
    }
}

impl<K: Copy + Eq + Hash, V> Drop for Claim<'_, K, V> {
    fn drop(&mut self) {
        let known = self
            .flight
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_open = known.is_none();
        drop(known);
        if is_open {
            self.end(Outcome::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_comes_second_gets_what_the_first_fetched() {
        let flights: Flights<u32, u32> = Flights::default();
        let claim = flights.claim(1).ok().unwrap();
        let flight = flights.claim(1).err().unwrap();
        assert!(flights.claim(2).is_ok());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| flight.wait(LONG));
            claim.done(7);
            assert!(matches!(waiting.join().unwrap(), Some(Outcome::Done(7))));
        });
        assert!(flights.claim(1).is_ok());
    }

    #[test]
    fn a_panic_of_who_fetches_wakes_those_who_wait() {
        let flights: Flights<u32, u32> = Flights::default();
        let claim = flights.claim(1).ok().unwrap();
        let flight = flights.claim(1).err().unwrap();
        let fetched = catch_unwind(AssertUnwindSafe(|| {
            let _claim = claim;
            panic!("the device panics");
        }));
        assert!(fetched.is_err());
        assert!(matches!(flight.wait(LONG), Some(Outcome::Abandoned)));
        assert!(flights.claim(1).is_ok());
    }

    #[test]
    fn a_fetch_that_takes_too_long_is_not_waited_for() {
        let flights: Flights<u32, u32> = Flights::default();
        let _claim = flights.claim(1).ok().unwrap();
        let flight = flights.claim(1).err().unwrap();
        assert!(flight.wait(Duration::from_millis(1)).is_none());
    }

    #[test]
    fn a_failure_is_told_to_all() {
        let flights: Flights<u32, u32> = Flights::default();
        let claim = flights.claim(1).ok().unwrap();
        let flight = flights.claim(1).err().unwrap();
        claim.failed(Arc::new(disk::Error::corrupt("chunk", 0, "damaged")));
        assert!(matches!(flight.wait(LONG), Some(Outcome::Failed(_))));
        assert!(matches!(flight.wait(LONG), Some(Outcome::Failed(_))));
    }
}
