// SPDX-License-Identifier: MIT OR Apache-2.0
//! Findings in fewer words. Every code is documented in `runbooks/docs/findings.md`.

use disk::{Finding, Level};

/// An encrypted volume that no secret opens.
pub(crate) const LUKS_LOCKED: &str = "storage.luks.locked";
/// An encrypted volume that is opened at the start by what only the server has.
pub(crate) const LUKS_TOKEN: &str = "storage.luks.token";

/// A finding without remedy.
pub(crate) fn finding(
    level: Level,
    code: &str,
    place: impl Into<String>,
    problem: impl Into<String>,
) -> Finding {
    Finding {
        level,
        code: code.to_owned(),
        place: place.into(),
        problem: problem.into(),
        remedy: None,
    }
}

/// Adds what to do about a finding.
pub(crate) trait WithRemedy {
    /// The same finding with its remedy.
    fn remedy(self, remedy: impl Into<String>) -> Self;
}

impl WithRemedy for Finding {
    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}
