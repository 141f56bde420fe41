// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine that stands still at a write for which this computer has no room. QEMU keeps the write and
//! does it again when the machine goes on; the keeper lets it try now and then, so that nobody has to.

use std::time::{Duration, Instant};

use disk::{Finding, Level};
use serde_json::Value;

/// What QEMU calls a machine that stands still because a write failed.
pub(super) const NO_ROOM_STATUS: &str = "io-error";
/// How often such a write is tried again.
const ROOM_PAUSE: Duration = Duration::from_secs(2);

/// The machine stands still at a write that failed here.
pub(super) struct NoRoom {
    tried: Instant,
}

impl Default for NoRoom {
    fn default() -> Self {
        Self {
            tried: Instant::now(),
        }
    }
}

impl NoRoom {
    pub(super) fn is_due(&self) -> bool {
        self.tried.elapsed() >= ROOM_PAUSE
    }
}

/// What QEMU tells of a write that failed, for a person.
pub(super) fn no_room_finding(event: &Value) -> Finding {
    let word = |key: &str| event[key].as_str().unwrap_or_default();
    Finding {
        level: Level::Warning,
        code: "boot.disk.full".to_owned(),
        place: word("node-name").to_owned(),
        problem: format!(
            "a write of the machine had no room on this computer ({}); it stands still until there is some",
            word("reason")
        ),
        remedy: Some("make room where its disks are kept; it goes on by itself".to_owned()),
    }
}
