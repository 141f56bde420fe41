// SPDX-License-Identifier: MIT OR Apache-2.0
//! A growing list of byte ranges: ascending, merged, and bounded in memory.
//!
//! **Limit:** a badly fragmented filesystem can have as many ranges as blocks. Past the limit the
//! smallest gaps are closed, which makes the list coarser, never wrong: it says "read this too".

use std::ops::Range;

/// 16 MiB of ranges.
const RANGES_MAX: usize = 1 << 20;

/// Collects ranges that arrive in ascending order.
#[derive(Debug)]
pub(crate) struct Extents {
    ranges: Vec<Range<u64>>,
    ranges_max: usize,
    /// Gaps shorter than this are closed.
    gap_min: u64,
}

impl Default for Extents {
    fn default() -> Self {
        Self::with_limit(RANGES_MAX)
    }
}

impl Extents {
    fn with_limit(ranges_max: usize) -> Self {
        Self {
            ranges: Vec::new(),
            ranges_max,
            gap_min: 1,
        }
    }

    /// Adds a range that does not begin before the last one added.
    pub(crate) fn push(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if range.start < last.end.saturating_add(self.gap_min) => {
                last.end = last.end.max(range.end);
            }
            _ => self.ranges.push(range),
        }
        if self.ranges.len() > self.ranges_max {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        while self.ranges.len() > self.ranges_max / 2 {
            self.gap_min = self.gap_min.saturating_mul(4);
            let gap_min = self.gap_min;
            self.ranges.dedup_by(|later, earlier| {
                let close = later.start < earlier.end.saturating_add(gap_min);
                if close {
                    earlier.end = earlier.end.max(later.end);
                }
                close
            });
        }
    }

    /// The ranges, cut off at the end of the device.
    pub(crate) fn finish(mut self, device_bytes: u64) -> Vec<Range<u64>> {
        while self
            .ranges
            .last()
            .is_some_and(|last| last.start >= device_bytes)
        {
            self.ranges.pop();
        }
        if let Some(last) = self.ranges.last_mut() {
            last.end = last.end.min(device_bytes);
        }
        self.ranges
    }
}

/// Sorts and merges, leaves out empty ranges, and cuts off what lies behind `end`.
pub(crate) fn merged(mut ranges: Vec<Range<u64>>, end: u64) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end.min(end));
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let range_end = range.end.min(end);
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range_end),
            _ => merged.push(range.start..range_end),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::{Extents, merged};

    #[test]
    fn merged_ranges_are_ascending_apart_and_cut() {
        let ranges = vec![30..40, 5..5, 0..10, 10..20, 35..90, 60..70];
        assert_eq!(merged(ranges, 50), [0..20, 30..50]);
    }

    #[test]
    fn neighbours_are_merged_and_the_device_ends_the_list() {
        let mut extents = Extents::default();
        for range in [0..10, 10..20, 15..18, 30..40, 90..200, 300..301] {
            extents.push(range);
        }
        assert_eq!(extents.finish(100), [0..20, 30..40, 90..100]);
    }

    #[test]
    fn a_list_at_its_limit_becomes_coarser_and_still_covers_everything() {
        let mut extents = Extents::with_limit(8);
        for index in 0..1000u64 {
            extents.push(index * 10..index * 10 + 1);
        }
        let ranges = extents.finish(u64::MAX);
        assert!(ranges.len() <= 9, "{} ranges", ranges.len());
        let covered = |byte| ranges.iter().any(|range| range.contains(&byte));
        assert!((0..1000).all(|index| covered(index * 10)));
    }
}
