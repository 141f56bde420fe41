// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long work tells what it does: stages, amounts and findings; the program decides how they
//! look. Libraries never print.

use std::sync::Mutex;

use crate::finding::Finding;

/// What an amount counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: files, chunks, packs.
    Items,
}

/// Told about work as it goes on; called from several threads.
pub trait Monitor: Send + Sync {
    /// A stage begins, as the operator names it: "Inspecting the guest".
    fn stage(&self, title: &str);

    /// The stage has a known size; amounts reported by [`Monitor::advance`] add up to it.
    fn expect(&self, total: u64, unit: Unit);

    /// So much more is done.
    fn advance(&self, amount: u64);

    /// Something was noticed that does not stop the work.
    fn finding(&self, finding: &Finding);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn stage(&self, _title: &str) {}
    fn expect(&self, _total: u64, _unit: Unit) {}
    fn advance(&self, _amount: u64) {}
    fn finding(&self, _finding: &Finding) {}
}

/// Remembers stages and findings, for tests and reports.
#[derive(Debug, Default)]
pub struct Recorder {
    heard: Mutex<(Vec<String>, Vec<Finding>)>,
}

impl Recorder {
    /// The titles of the stages so far.
    #[must_use]
    pub fn stages(&self) -> Vec<String> {
        self.heard
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .0
            .clone()
    }

    /// The findings so far.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.heard
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .1
            .clone()
    }
}

impl Monitor for Recorder {
    fn stage(&self, title: &str) {
        let mut heard = self
            .heard
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        heard.0.push(title.to_owned());
    }

    fn expect(&self, _total: u64, _unit: Unit) {}

    fn advance(&self, _amount: u64) {}

    fn finding(&self, finding: &Finding) {
        let mut heard = self
            .heard
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        heard.1.push(finding.clone());
    }
}
