// SPDX-License-Identifier: MIT OR Apache-2.0
//! A few recently used values, oldest out first.
//!
//! Disks are read mostly front to back, so what was loaded first is done with first; order of
//! use is not tracked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// At most `capacity` values by number, shared between threads.
pub(super) struct Cache<V> {
    capacity: usize,
    kept: Mutex<Kept<V>>,
}

struct Kept<V> {
    values: HashMap<u64, Arc<V>>,
    order: VecDeque<u64>,
}

impl<V> Cache<V> {
    /// Keeps as many values of `value_bytes` as `limit_bytes` has room for, and at least two.
    pub(super) fn new(limit_bytes: u64, value_bytes: u64) -> Self {
        let capacity = (limit_bytes / value_bytes.max(1)).clamp(2, 4096);
        Self {
            capacity: usize::try_from(capacity).unwrap_or(2),
            kept: Mutex::new(Kept {
                values: HashMap::new(),
                order: VecDeque::new(),
            }),
        }
    }

    /// The value of `key`, made by `load` where it is not kept. Two threads may both load it.
    pub(super) fn get<E>(
        &self,
        key: u64,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, E> {
        if let Some(value) = self.lock().values.get(&key) {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(load()?);
        let mut kept = self.lock();
        if kept.values.insert(key, Arc::clone(&value)).is_none() {
            kept.order.push_back(key);
        }
        while kept.order.len() > self.capacity {
            if let Some(oldest) = kept.order.pop_front() {
                kept.values.remove(&oldest);
            }
        }
        Ok(value)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept<V>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Cache(at most {} values)", self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_value_goes_when_the_cache_is_full() {
        let cache = Cache::new(2, 1);
        let get = |key| {
            let mut loaded = false;
            cache
                .get(key, || {
                    loaded = true;
                    Ok::<_, ()>(key)
                })
                .expect("loading works");
            loaded
        };
        assert_eq!(
            [1, 2, 1, 3, 2, 1].map(get),
            [true, true, false, true, false, true]
        );
    }

    #[test]
    fn what_failed_to_load_is_not_kept() {
        let cache = Cache::new(2, 1);
        assert_eq!(cache.get(1, || Err::<u8, _>("no")), Err("no"));
        assert_eq!(cache.get(1, || Ok::<_, &str>(5)).as_deref(), Ok(&5));
    }
}
