// SPDX-License-Identifier: MIT OR Apache-2.0
//! What differs from the base: clusters with their bytes, and runs of clusters of zeros.
//!
//! **Invariants:** a cluster is either in `data` or in one run of `zeros` or in neither; runs are
//! not empty and neither touch nor overlap each other.

use std::collections::BTreeMap;
use std::ops::Range;

use super::CLUSTER_SIZE;

/// What a run of zeros is counted as, in bytes: its two numbers, and its part of the tree's nodes.
/// It bounds what a client can make of zeros at every second cluster.
pub(super) const RUN_COST_BYTES: u64 = 64;

/// What is known of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State<'a> {
    /// It has not changed.
    Base,
    /// It became zeros.
    Zero,
    /// Its bytes: [`CLUSTER_SIZE`], or what the disk has of its last cluster.
    Data(&'a [u8]),
}

/// All changes of an overlay.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// By the cluster's number.
    data: BTreeMap<u64, Box<[u8]>>,
    /// By the number of the first cluster, the number after the last.
    zeros: BTreeMap<u64, u64>,
}

impl Changes {
    /// How many clusters have changed.
    pub(super) fn cluster_count(&self) -> u64 {
        let zeros: u64 = self.zeros.iter().map(|(start, end)| end - start).sum();
        self.data.len() as u64 + zeros
    }

    /// What is counted against the limit, in bytes.
    pub(super) fn cost_bytes(&self) -> u64 {
        self.data.len() as u64 * CLUSTER_SIZE + self.zeros.len() as u64 * RUN_COST_BYTES
    }

    /// The state of one cluster.
    pub(super) fn state(&self, cluster: u64) -> State<'_> {
        if let Some(bytes) = self.data.get(&cluster) {
            State::Data(bytes)
        } else if self.zeros_at(cluster).is_some() {
            State::Zero
        } else {
            State::Base
        }
    }

    /// The state of a cluster, and where the clusters of that state end, `limit` at the latest.
    /// With bytes it is this one cluster.
    pub(super) fn run(&self, cluster: u64, limit: u64) -> (u64, State<'_>) {
        match self.state(cluster) {
            State::Data(bytes) => (cluster + 1, State::Data(bytes)),
            State::Zero => {
                let end = self.zeros_at(cluster).map_or(cluster + 1, |run| run.end);
                (end.min(limit), State::Zero)
            }
            State::Base => {
                let data = self.data.range(cluster..).next().map(|(number, _)| *number);
                let zeros = self.zeros.range(cluster..).next().map(|(start, _)| *start);
                let next = data.into_iter().chain(zeros).fold(limit, u64::min);
                (next, State::Base)
            }
        }
    }

    /// Where the clusters with bytes end that begin at this one.
    pub(super) fn data_end(&self, cluster: u64) -> u64 {
        let numbers = self.data.range(cluster..).map(|(number, _)| *number);
        let alike = numbers
            .zip(cluster..)
            .take_while(|(number, expected)| number == expected);
        cluster + alike.count() as u64
    }

    /// Whether any of these clusters has bytes.
    pub(super) fn has_data_in(&self, clusters: &Range<u64>) -> bool {
        self.data.range(clusters.clone()).next().is_some()
    }

    /// Everything that has changed, in the order of the disk.
    pub(super) fn runs(&self) -> impl Iterator<Item = (Range<u64>, State<'_>)> {
        let mut data = self.data.iter().peekable();
        let mut zeros = self.zeros.iter().peekable();
        std::iter::from_fn(move || {
            let zeros_first = match (data.peek(), zeros.peek()) {
                (Some((number, _)), Some((start, _))) => start < number,
                (None, zeros) => zeros.is_some(),
                (Some(_), None) => false,
            };
            if zeros_first {
                return zeros.next().map(|(start, end)| (*start..*end, State::Zero));
            }
            data.next()
                .map(|(number, bytes)| (*number..number + 1, State::Data(bytes)))
        })
    }

    /// The bytes of a cluster that has some, to be changed.
    pub(super) fn data_mut(&mut self, cluster: u64) -> Option<&mut [u8]> {
        self.data.get_mut(&cluster).map(|bytes| &mut **bytes)
    }

    /// Gives a cluster bytes.
    pub(super) fn put(&mut self, cluster: u64, bytes: Box<[u8]>) {
        if let Some(run) = self.zeros_at(cluster) {
            self.zeros.remove(&run.start);
            for rest in [run.start..cluster, cluster + 1..run.end] {
                if !rest.is_empty() {
                    self.zeros.insert(rest.start, rest.end);
                }
            }
        }
        self.data.insert(cluster, bytes);
    }

    /// Makes clusters zeros.
    pub(super) fn zero(&mut self, clusters: Range<u64>) {
        if clusters.is_empty() {
            return;
        }
        let gone: Vec<u64> = self.data.range(clusters.clone()).map(|(n, _)| *n).collect();
        for number in gone {
            self.data.remove(&number);
        }
        let (mut start, mut end) = (clusters.start, clusters.end);
        // From the back: the run that begins at or before the end, as long as it touches.
        while let Some((&run_start, &run_end)) = self.zeros.range(..=end).next_back()
            && run_end >= start
        {
            self.zeros.remove(&run_start);
            start = start.min(run_start);
            end = end.max(run_end);
        }
        self.zeros.insert(start, end);
    }

    fn zeros_at(&self, cluster: u64) -> Option<Range<u64>> {
        let (start, end) = self.zeros.range(..=cluster).next_back()?;
        (*end > cluster).then_some(*start..*end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, proptest};

    fn zeros(changes: &Changes) -> Vec<(u64, u64)> {
        changes
            .zeros
            .iter()
            .map(|(start, end)| (*start, *end))
            .collect()
    }

    #[test]
    fn runs_of_zeros_that_touch_become_one_and_bytes_divide_them() {
        let mut changes = Changes::default();
        for clusters in [2..4, 8..10, 4..6, 5..8] {
            changes.zero(clusters);
        }
        assert_eq!(zeros(&changes), [(2, 10)]);
        changes.put(2, Box::new([1]));
        changes.put(5, Box::new([1]));
        assert_eq!(zeros(&changes), [(3, 5), (6, 10)]);
        assert_eq!(changes.cluster_count(), 8);
        assert_eq!(changes.run(6, 100), (10, State::Zero));
        assert_eq!(changes.run(6, 8), (8, State::Zero));
        assert_eq!(changes.run(0, 100), (2, State::Base));
        assert_eq!(changes.run(10, 100), (100, State::Base));
        changes.zero(0..u64::MAX);
        assert_eq!(zeros(&changes), [(0, u64::MAX)]);
        assert_eq!(changes.cost_bytes(), RUN_COST_BYTES);
    }

    proptest! {
        #[test]
        fn every_cluster_is_what_was_done_to_it_last(
            steps in prop::collection::vec((0..40_u64, 0..12_u64, any::<bool>()), 0..60),
        ) {
            let mut expected = [State::Base; 64];
            let mut changes = Changes::default();
            for (start, length, is_zero) in steps {
                let clusters = start..start + length;
                for cluster in clusters.clone() {
                    expected[cluster as usize] = if is_zero { State::Zero } else { State::Data(&[1]) };
                    if !is_zero {
                        changes.put(cluster, Box::new([1]));
                    }
                }
                if is_zero {
                    changes.zero(clusters);
                }
            }
            for (cluster, expected) in (0..).zip(&expected) {
                assert_eq!(changes.state(cluster), *expected);
            }
            let all: Vec<_> = changes.runs().flat_map(|(run, state)| run.map(move |n| (n, state))).collect();
            assert!(all.is_sorted_by_key(|(number, _)| *number));
            assert_eq!(all.len() as u64, changes.cluster_count());
            let touching = zeros(&changes).windows(2).any(|pair| pair[0].1 >= pair[1].0);
            assert!(!touching);
        }
    }
}
