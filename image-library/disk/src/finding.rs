// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was noticed on the way and did not stop the work.

use serde::{Deserialize, Serialize};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing; nothing to do.
    Note,
    /// Works, but somebody should look at it.
    Warning,
    /// Does not work as it is.
    Error,
}

/// One thing noticed: stable code, place, problem, remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it weighs.
    pub level: Level,
    /// Stable and documented in `runbooks/docs/findings.md`, for example `disk.gpt.backup-used`.
    pub code: String,
    /// Where: a device, partition, file or byte.
    pub place: String,
    /// What is the case.
    pub problem: String,
    /// What to do about it, where there is something.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remedy: Option<String>,
}
