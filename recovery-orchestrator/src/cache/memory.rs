// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was used lately, in memory: of a bounded weight, the longest unused goes first.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared between threads; values are cheap to clone (`Arc`).
pub(super) struct Recent<K, V> {
    weight_max: u64,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// When each key was used last, oldest first.
    by_use: BTreeMap<u64, K>,
    clock: u64,
    weight: u64,
}

struct Slot<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K, V> fmt::Debug for Recent<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent")
            .field("weight_max", &self.weight_max)
            .finish_non_exhaustive()
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Recent<K, V> {
    /// For so much weight; nothing that weighs more by itself is ever kept.
    pub(super) fn new(weight_max: u64) -> Self {
        Self {
            weight_max,
            inner: Mutex::new(Inner {
                slots: HashMap::new(),
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

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let slot = inner.slots.get_mut(key)?;
        inner.by_use.remove(&slot.used);
        inner.clock += 1;
        slot.used = inner.clock;
        inner.by_use.insert(inner.clock, *key);
        Some(slot.value.clone())
    }

    /// Whether it is there, which does not count as use.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.lock().slots.contains_key(key)
    }

    pub(super) fn insert(&self, key: K, value: V, weight: u64) {
        if weight > self.weight_max {
            return;
        }
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.forget(&key);
        inner.clock += 1;
        let used = inner.clock;
        inner.weight += weight;
        inner.by_use.insert(used, key);
        let slot = Slot {
            value,
            weight,
            used,
        };
        inner.slots.insert(key, slot);
        while inner.weight > self.weight_max {
            let Some((_, oldest)) = inner.by_use.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            inner.forget(&oldest);
        }
    }

    /// The weight of all that is kept.
    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.lock().weight
    }
}

impl<K: Copy + Eq + Hash, V> Inner<K, V> {
    fn forget(&mut self, key: &K) {
        if let Some(slot) = self.slots.remove(key) {
            self.weight -= slot.weight;
            self.by_use.remove(&slot.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let recent = Recent::new(10);
        recent.insert(1, "one", 5);
        recent.insert(2, "two", 5);
        assert_eq!(recent.get(&1), Some("one"));
        recent.insert(3, "three", 5);
        assert!(!recent.contains(&2));
        assert_eq!(recent.get(&1), Some("one"));
        assert_eq!(recent.get(&3), Some("three"));
        assert_eq!(recent.weight(), 10);
    }

    #[test]
    fn the_bound_holds_for_what_is_too_heavy_and_for_what_is_replaced() {
        let recent = Recent::new(10);
        recent.insert(1, "one", 11);
        assert_eq!(recent.get(&1), None);
        recent.insert(1, "one", 9);
        recent.insert(1, "uno", 10);
        assert_eq!((recent.get(&1), recent.weight()), (Some("uno"), 10));
        let nothing = Recent::new(0);
        nothing.insert(1, "one", 1);
        assert_eq!(nothing.get(&1), None);
    }
}
