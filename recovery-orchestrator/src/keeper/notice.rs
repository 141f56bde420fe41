// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a keeper noticed: damage, and times in which the library was away.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use disk::{Finding, Level};
use image_library::terminal::chain_text;

/// More findings than this say nothing new.
const FINDINGS_MAX: usize = 1000;
/// Away for less than this is not worth a finding.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// Findings, and who waits for what; shared by all disks of a machine.
#[derive(Debug, Default)]
pub struct Notices {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    findings: Vec<Finding>,
    known: HashSet<(String, String)>,
    waits: BTreeMap<u64, Instant>,
    next_wait: u64,
    /// What the library said when the first who waits now began to.
    reason: String,
}

/// Somebody waits for a library; over when it is dropped.
#[derive(Debug)]
pub struct Wait {
    notices: Arc<Notices>,
    number: u64,
    location: String,
}

impl Notices {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a finding, once for its code and place.
    pub fn finding(&self, finding: Finding) {
        let mut state = self.lock();
        let is_new = state
            .known
            .insert((finding.code.clone(), finding.place.clone()));
        if is_new && state.findings.len() < FINDINGS_MAX {
            tracing::warn!(place = finding.place, problem = finding.problem, "noticed");
            state.findings.push(finding);
        }
    }

    /// What was noticed so far.
    pub fn findings(&self) -> Vec<Finding> {
        self.lock().findings.clone()
    }

    /// Begins a wait for a library that did not answer.
    pub fn wait_for(self: &Arc<Self>, location: &str, error: &image_library::Error) -> Wait {
        let mut state = self.lock();
        if state.waits.is_empty() {
            state.reason = chain_text(error);
            tracing::warn!(location, reason = state.reason, "the library is away");
        }
        let number = state.next_wait;
        state.next_wait += 1;
        state.waits.insert(number, Instant::now());
        Wait {
            notices: Arc::clone(self),
            number,
            location: location.to_owned(),
        }
    }

    /// For how long somebody has been waiting, and why.
    pub fn waiting(&self) -> Option<(Duration, String)> {
        let state = self.lock();
        let longest = state.waits.values().min()?;
        Some((longest.elapsed(), state.reason.clone()))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.notices.lock();
        let begun = state.waits.remove(&self.number);
        let Some(begun) = begun.filter(|_| state.waits.is_empty()) else {
            return;
        };
        let waited = begun.elapsed();
        let reason = std::mem::take(&mut state.reason);
        drop(state);
        if waited < WORTH_TELLING {
            return;
        }
        self.notices.finding(Finding {
            level: Level::Warning,
            code: "boot.library.away".to_owned(),
            place: self.location.clone(),
            problem: format!(
                "it did not answer for {} s, in which reads of the machine waited: {reason}",
                waited.as_secs()
            ),
            remedy: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_told_once_for_its_place() {
        let notices = Notices::default();
        let finding = |place: &str| Finding {
            level: Level::Error,
            code: "boot.chunk.damaged".to_owned(),
            place: place.to_owned(),
            problem: "lost".to_owned(),
            remedy: None,
        };
        for place in ["byte 0x0", "byte 0x10000", "byte 0x0"] {
            notices.finding(finding(place));
        }
        assert_eq!(notices.findings().len(), 2);
    }

    #[test]
    fn who_waits_is_known_until_the_last_one_has_an_answer() {
        let notices = Arc::new(Notices::default());
        let error = image_library::Error::NoSuchImage {
            problem: "away".to_owned(),
        };
        assert_eq!(notices.waiting(), None);
        let first = notices.wait_for("/library", &error);
        let second = notices.wait_for("/library", &error);
        drop(first);
        assert_eq!(notices.waiting().map(|(_, why)| why).unwrap(), "away");
        drop(second);
        assert_eq!(notices.waiting(), None);
        assert_eq!(notices.findings(), [], "so short a time is nothing");
    }
}
