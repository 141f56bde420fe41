// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts how often something happens in a window of time, for a bounded number of keys.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// More keys than this are not remembered: the oldest are forgotten.
const KEYS_MAX: usize = 4096;

/// At most so many events of one key in one window.
#[derive(Debug)]
pub(super) struct RateLimit<K> {
    limit: u32,
    window: Duration,
    counts: Mutex<HashMap<K, (Instant, u32)>>,
}

impl<K: Eq + Hash + Clone> RateLimit<K> {
    pub(super) fn new(limit: u32, window: Duration) -> Self {
        Self {
            limit,
            window,
            counts: Mutex::default(),
        }
    }

    /// Counts one event; `false` when it is one too many.
    pub(super) fn count(&self, key: &K) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if counts.len() >= KEYS_MAX && !counts.contains_key(key) {
            counts.retain(|_, (since, _)| now.duration_since(*since) < self.window);
            let oldest = counts.iter().min_by_key(|(_, (since, _))| *since);
            if counts.len() >= KEYS_MAX
                && let Some(oldest) = oldest.map(|(key, _)| key.clone())
            {
                counts.remove(&oldest);
            }
        }
        let (since, count) = counts.entry(key.clone()).or_insert((now, 0));
        if now.duration_since(*since) >= self.window {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= self.limit
    }

    /// Whether the next event would be one too many.
    pub(super) fn is_exhausted(&self, key: &K) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.get(key);
        known.is_some_and(|(since, count)| *count >= self.limit && since.elapsed() < self.window)
    }
}

/// Whom an address is counted as: who has one IPv6 address has 2^64 of them.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_and_no_more_until_the_window_is_over() {
        let rate = RateLimit::new(2, Duration::from_millis(200));
        assert_eq!(
            [rate.count(&1), rate.count(&1), rate.count(&1)],
            [true, true, false]
        );
        assert!(rate.is_exhausted(&1) && !rate.is_exhausted(&2));
        assert!(rate.count(&2));
        std::thread::sleep(Duration::from_millis(250));
        assert!(!rate.is_exhausted(&1) && rate.count(&1));
    }

    #[test]
    fn memory_does_not_grow_with_the_number_of_keys() {
        let rate = RateLimit::new(1, Duration::from_secs(60));
        for key in 0..2 * KEYS_MAX {
            rate.count(&key);
        }
        assert_eq!(rate.counts.lock().unwrap().len(), KEYS_MAX);
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one() {
        let as_one = |text: &str| counted_as(text.parse().unwrap()).to_string();
        assert_eq!(as_one("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(as_one("192.0.2.7"), "192.0.2.7");
        assert_eq!(as_one("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
