// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory for replies that cannot be divided, shared by all connections of a server.
//!
//! Without structured replies an error can be told only before the first byte of a reply, so a
//! read has to be whole before it is sent. All clients together get a fixed amount for that, and
//! wait for each other.

use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that may be taken, and are given back.
#[derive(Debug)]
pub(super) struct Budget {
    left: Mutex<u64>,
    given_back: Condvar,
}

impl Budget {
    /// `bytes` must be as much as anybody takes at once.
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            left: Mutex::new(bytes),
            given_back: Condvar::new(),
        }
    }

    /// Waits until there is enough left.
    pub(super) fn take(&self, bytes: u64) -> Taken<'_> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self
            .given_back
            .wait_while(left, |left| *left < bytes)
            .unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
        Taken {
            budget: self,
            bytes,
        }
    }
}

/// Taken bytes; given back when dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let left = self.budget.left.lock();
        *left.unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_more_than_is_left_waits() {
        let budget = Budget::new(10);
        let first = budget.take(7);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(budget.take(4)));
            drop(budget.take(3));
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap();
        });
        assert_eq!(*budget.left.lock().unwrap(), 10);
    }
}
