// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cache with a bounded weight that forgets what was used longest ago.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared between threads; values are cheap to clone (`Arc`).
pub(crate) struct Cache<K, V> {
    limit: usize,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    values: HashMap<K, Slot<V>>,
    /// When each key was used last, oldest first.
    by_use: BTreeMap<u64, K>,
    clock: u64,
    weight: usize,
}

struct Slot<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("limit", &self.limit).finish()
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            inner: Mutex::new(Inner {
                values: HashMap::new(),
                by_use: BTreeMap::new(),
                clock: 0,
                weight: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let slot = inner.values.get_mut(key)?;
        inner.by_use.remove(&slot.used);
        inner.clock += 1;
        slot.used = inner.clock;
        inner.by_use.insert(inner.clock, *key);
        Some(slot.value.clone())
    }

    pub(crate) fn insert(&self, key: K, value: V, weight: usize) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.forget(&key);
        inner.clock += 1;
        inner.weight += weight;
        inner.by_use.insert(inner.clock, key);
        let used = inner.clock;
        inner.values.insert(
            key,
            Slot {
                value,
                weight,
                used,
            },
        );
        while inner.weight > self.limit && inner.values.len() > 1 {
            let Some((_, oldest)) = inner.by_use.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            inner.forget(&oldest);
        }
    }
}

impl<K: Copy + Eq + Hash, V> Inner<K, V> {
    fn forget(&mut self, key: &K) {
        if let Some(slot) = self.values.remove(key) {
            self.weight -= slot.weight;
            self.by_use.remove(&slot.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    #[test]
    fn what_was_used_longest_ago_is_forgotten_first() {
        let cache = Cache::new(10);
        cache.insert(1, "one", 5);
        cache.insert(2, "two", 5);
        assert_eq!(cache.get(&1), Some("one"));
        cache.insert(3, "three", 5);
        assert_eq!(cache.get(&2), None);
        assert_eq!(cache.get(&1), Some("one"));
        assert_eq!(cache.get(&3), Some("three"));
    }
}
