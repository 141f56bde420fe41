// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a drill did: the values ([`Report`], kept as JSON), and the page that shows them.
//!
//! ```text
//! <directory>/report.json
//! <directory>/report.html    one file, nothing from elsewhere
//! ```

mod chart;
mod page;

use std::path::{Path, PathBuf};

use disk::Finding;
use image_library::{Consistency, ImageId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::CheckResult;
use crate::error::{Error, Result};
use crate::file;
use crate::guest::Conversion;
use crate::journal::{RunId, RunOutcome};
use crate::nbd::Reads;
use crate::platform::Description;

/// The name of the values' file.
pub const REPORT_JSON: &str = "report.json";
/// The name of the page's file.
pub const REPORT_HTML: &str = "report.html";
const REPORT_LIMIT_BYTES: u64 = 256 << 20;

/// What a drill did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form: 1.
    pub version: u32,
    /// Which run.
    pub run: RunId,
    /// Which version of this program.
    pub program: String,
    /// The runbook.
    pub runbook: RunbookRecord,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why it did not pass, in one sentence.
    pub problem: Option<String>,
    /// Where the machines ran.
    pub platform: Description,
    /// What was reached, against what was to be.
    pub objectives: ObjectivesRecord,
    /// The servers, in the order in which they were started.
    pub servers: Vec<ServerReport>,
    /// What people would have confirmed.
    pub confirmations: Vec<String>,
    /// What was noticed.
    pub findings: Vec<Finding>,
    /// What to change in the runbook.
    pub proposals: Vec<Proposal>,
}

/// Which runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunbookRecord {
    /// Its name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its file.
    pub file: PathBuf,
    /// BLAKE3 of the file.
    pub hash: String,
}

/// What was reached, against what was to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectivesRecord {
    /// Recovery was to take at most so many seconds.
    pub rto_seconds: Option<u64>,
    /// From the start of the command until every check of every server had passed, in
    /// milliseconds; `None`: not all passed.
    pub recovered_after_ms: Option<u64>,
    /// The data was to be at most so many seconds old.
    pub rpo_seconds: Option<u64>,
    /// The age of the oldest image when the command began, in seconds.
    pub data_age_seconds: Option<u64>,
}

impl ObjectivesRecord {
    /// Whether recovery was as fast as it had to be; `None`: nothing was set.
    #[must_use]
    pub fn rto_met(&self) -> Option<bool> {
        let limit = self.rto_seconds?.saturating_mul(1000);
        Some(
            self.recovered_after_ms
                .is_some_and(|reached| reached <= limit),
        )
    }

    /// Whether the data was as new as it had to be; `None`: nothing was set.
    #[must_use]
    pub fn rpo_met(&self) -> Option<bool> {
        Some(self.data_age_seconds? <= self.rpo_seconds?)
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: ImageRecord,
    /// Which wave it was started in, from 1.
    pub wave: usize,
    /// Departures from the automatic plan that the runbook documents.
    pub adjustments: Vec<String>,
    /// What was changed in it.
    pub conversion: Conversion,
    /// What it was made of.
    pub hardware: HardwareRecord,
    /// When it was prepared.
    pub timeline: Timeline,
    /// Each profile that was tried.
    pub attempts: Vec<Attempt>,
    /// What was read of the image, over all attempts.
    pub reads: Reads,
}

impl ServerReport {
    /// Whether its last attempt passed all its checks.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.attempts
            .last()
            .is_some_and(|attempt| attempt.outcome == RunOutcome::Passed)
    }
}

/// Which image, and that it is still the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its name.
    pub id: ImageId,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// How consistent it is.
    pub consistency: Consistency,
    /// Its age when the command began, in seconds.
    pub age_seconds: u64,
    /// [`image_library::image_digest`] before the drill.
    pub digest_before: String,
    /// The same of the image as it was read again from the library after the drill.
    pub digest_after: Option<String>,
}

/// A machine's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareRecord {
    /// Processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// `bios`, `uefi`.
    pub firmware: converter::vm::Firmware,
    /// Each card: name in the guest, MAC, address, network.
    pub nics: Vec<String>,
    /// Sizes of the disks in bytes.
    pub disk_bytes: Vec<u64>,
}

/// When a server was prepared, in milliseconds from the start of the command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Preparation began.
    pub prepare_started_ms: u64,
    /// Preparation ended.
    pub prepare_ended_ms: u64,
}

/// One profile that was tried; times are milliseconds from the start of the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The virtual hardware: `virtio/virtio`.
    pub profile: String,
    /// When the machine began to be made.
    pub started_ms: u64,
    /// When its processors began to run.
    pub running_ms: u64,
    /// When it had its result.
    pub ended_ms: u64,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why it did not pass.
    pub problem: Option<String>,
    /// Whether the guest showed signs of life: a check that passed.
    pub booted: bool,
    /// Its checks.
    pub checks: Vec<CheckResult>,
    /// The last part of the serial console.
    pub console_tail: String,
    /// The screen at the end, as a PNG image in base64.
    pub screen_png: Option<String>,
}

/// What to change in the runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Which server.
    pub server: String,
    /// What in it, as a path of keys.
    pub key: String,
    /// What it is.
    pub from: String,
    /// What it should be.
    pub to: String,
    /// Why.
    pub reason: String,
}

impl Report {
    /// Writes both files into a directory, made when it is missing, and gives the page's path.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        file::create_directories(directory)?;
        let json = serde_json::to_vec_pretty(self).unwrap_or_default();
        file::write_atomically(&directory.join(REPORT_JSON), &json)?;
        let page = directory.join(REPORT_HTML);
        file::write_atomically(&page, self.html().as_bytes())?;
        Ok(page)
    }

    /// Reads the values back.
    pub fn open(path: &Path) -> Result<Self> {
        let text = file::read_text(path, REPORT_LIMIT_BYTES)?;
        serde_json::from_str(&text).map_err(|error| Error::Request {
            problem: format!("{} is not a report: {error}", path.display()),
            hint: None,
        })
    }

    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        page::page(self)
    }
}

/// Standard base64, for pictures inside the page.
#[must_use]
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| group.get(index).copied().unwrap_or(0);
        let bits = u32::from_be_bytes([0, byte(0), byte(1), byte(2)]);
        for place in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            let is_padding = place > group.len();
            text.push(if is_padding {
                '='
            } else {
                char::from(ALPHABET[index])
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xff\xfe\xfd\xfc", "//79/A=="),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn objectives_that_are_not_set_are_neither_met_nor_missed() {
        let set = ObjectivesRecord {
            rto_seconds: Some(60),
            ..ObjectivesRecord::default()
        };
        let met = ObjectivesRecord {
            recovered_after_ms: Some(60_000),
            ..set
        };
        assert_eq!((met.rto_met(), met.rpo_met()), (Some(true), None));
        let missed = ObjectivesRecord {
            rpo_seconds: Some(1),
            data_age_seconds: Some(2),
            ..set
        };
        assert_eq!(
            (missed.rto_met(), missed.rpo_met()),
            (Some(false), Some(false))
        );
    }
}
