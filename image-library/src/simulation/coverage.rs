// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happened in simulated histories: how often each fault, each operation, each operation
//! beside each other one.

use std::collections::BTreeMap;
use std::fmt;

use super::operations::Kind;
use crate::store::faulty::Fault;

/// What else is worth counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    ProcessKilled,
    PowerLost,
    WorkspaceFull,
    PackCondemned,
    PackRemoved,
    PackSpared,
    ImagePurged,
    ImageDropped,
    CommitRefused,
    DamageFound,
    DamageKnown,
    DamageRead,
    ImageHealed,
    NothingSent,
    DoubtfulThere,
    DoubtfulGone,
}

impl Event {
    pub(super) const ALL: [Self; 16] = [
        Self::ProcessKilled,
        Self::PowerLost,
        Self::WorkspaceFull,
        Self::PackCondemned,
        Self::PackRemoved,
        Self::PackSpared,
        Self::ImagePurged,
        Self::ImageDropped,
        Self::CommitRefused,
        Self::DamageFound,
        Self::DamageKnown,
        Self::DamageRead,
        Self::ImageHealed,
        Self::NothingSent,
        Self::DoubtfulThere,
        Self::DoubtfulGone,
    ];
}

/// Counts, summed over histories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) done: BTreeMap<Kind, u64>,
    pub(super) failed: BTreeMap<Kind, u64>,
    /// The first took a step while the second went on.
    pub(super) pairs: BTreeMap<(Kind, Kind), u64>,
    pub(super) events: BTreeMap<Event, u64>,
}

impl Coverage {
    pub(super) fn add(&mut self, other: &Self) {
        fn sum<K: Ord + Copy>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (key, count) in from {
                *into.entry(*key).or_default() += count;
            }
        }
        sum(&mut self.faults, &other.faults);
        sum(&mut self.done, &other.done);
        sum(&mut self.failed, &other.failed);
        sum(&mut self.pairs, &other.pairs);
        sum(&mut self.events, &other.events);
    }

    pub(super) fn count(&mut self, event: Event, times: u64) {
        *self.events.entry(event).or_default() += times;
    }

    /// What never happened.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for fault in Fault::ALL {
            if !self.faults.contains_key(&fault) {
                missing.push(format!("{fault:?}"));
            }
        }
        for event in Event::ALL {
            if self.events.get(&event).copied().unwrap_or_default() == 0 {
                missing.push(format!("{event:?}"));
            }
        }
        for first in Kind::ALL {
            if !self.done.contains_key(&first) {
                missing.push(format!("{first:?}"));
            }
            for second in Kind::ALL {
                // A verify is one step: others go on beside it, it does not go on beside others.
                if second != Kind::Verify && !self.pairs.contains_key(&(first, second)) {
                    missing.push(format!("{first:?} beside {second:?}"));
                }
            }
        }
        missing
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "operations (done, failed):")?;
        for kind in Kind::ALL {
            let count = |map: &BTreeMap<Kind, u64>| map.get(&kind).copied().unwrap_or_default();
            let (done, failed) = (count(&self.done), count(&self.failed));
            writeln!(
                formatter,
                "  {:<12}{done:>10}{failed:>10}",
                format!("{kind:?}")
            )?;
        }
        writeln!(formatter, "faults:")?;
        for (fault, count) in &self.faults {
            writeln!(formatter, "  {:<18}{count:>10}", format!("{fault:?}"))?;
        }
        writeln!(formatter, "events:")?;
        for (event, count) in &self.events {
            writeln!(formatter, "  {:<18}{count:>10}", format!("{event:?}"))?;
        }
        writeln!(
            formatter,
            "steps of the row's operation beside the column's:"
        )?;
        write!(formatter, "  {:<10}", "")?;
        for kind in Kind::ALL {
            write!(formatter, "{:>10}", format!("{kind:?}"))?;
        }
        for first in Kind::ALL {
            write!(formatter, "\n  {:<10}", format!("{first:?}"))?;
            for second in Kind::ALL {
                let count = self
                    .pairs
                    .get(&(first, second))
                    .copied()
                    .unwrap_or_default();
                write!(formatter, "{count:>10}")?;
            }
        }
        writeln!(formatter)
    }
}
