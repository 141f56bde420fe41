// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of the code base, as functions from source files to violations.
//!
//! The test `tidy` runs every rule over the checkout and trips every rule once with a sample that
//! breaks it. What has no clear limit (long files, long functions) is measured and printed only.

mod codes;
mod measure;
mod rules;
mod source;

pub use measure::{Longest, longest};
pub use rules::{RULES, Rule};
pub use source::{Source, Tree};

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The file, relative to the checkout.
    pub path: String,
    /// The line, from 1; 0 when it is the file as a whole.
    pub line: usize,
    /// What is wrong and what to do instead.
    pub problem: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.problem)
    }
}
