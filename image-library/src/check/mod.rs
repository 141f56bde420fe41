// SPDX-License-Identifier: MIT OR Apache-2.0
//! `verify`: reads everything again and says what is wrong, and which images it concerns.
//!
//! Two passes. The packs: each file against its name (BLAKE3 of the file), each record against
//! its tag and its chunk id. The images: each document, each side file, each manifest down to
//! every chunk that it names, against what the first pass found whole. So a finding about a pack
//! is followed by findings that name image, disk and byte, and an image without a finding can be
//! restored.
//!
//! Limits: at most [`FINDINGS_MAX`] findings are kept; the numbers count all of them.

mod images;
mod packs;
mod records;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use disk::{Finding, Level, Monitor};
use serde::Serialize;

use crate::chunk::ChunkId;
use crate::error::Result;
use crate::local::LocalLibrary;
use crate::pack::PackId;

/// More findings are only counted.
const FINDINGS_MAX: usize = 1000;

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Packs that were read.
    pub packs: u64,
    /// Records that were opened and checked.
    pub chunks: u64,
    /// Image documents that were read.
    pub images: u64,
    /// Side files that were read.
    pub side_files: u64,
    /// Bytes that were read from packs.
    pub bytes_read: u64,
    /// Images from which something is missing, by id.
    pub damaged_images: Vec<String>,
    /// What is wrong; the first thousand.
    pub findings: Vec<Finding>,
    /// How many findings there were.
    pub finding_count: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.finding_count == 0
    }
}

/// Gathers what several threads find.
struct Findings<'a> {
    monitor: &'a dyn Monitor,
    report: Mutex<VerifyReport>,
}

impl Findings<'_> {
    fn update(&self, change: impl FnOnce(&mut VerifyReport)) {
        // Nothing panics while it is held.
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn add(&self, code: &str, place: String, problem: String, remedy: Option<&str>) {
        let finding = Finding {
            level: Level::Error,
            code: code.to_owned(),
            place,
            problem,
            remedy: remedy.map(str::to_owned),
        };
        self.monitor.finding(&finding);
        self.update(|report| {
            report.finding_count += 1;
            if report.findings.len() < FINDINGS_MAX {
                report.findings.push(finding);
            }
        });
    }
}

/// What the first pass found not to be whole.
#[derive(Debug, Default)]
struct Damage {
    records: HashSet<(PackId, ChunkId)>,
    /// Packs without a readable footer; only the records in `salvaged` can be relied on.
    packs: HashSet<PackId>,
    salvaged: HashSet<(PackId, ChunkId)>,
}

impl Damage {
    fn covers(&self, pack: PackId, id: ChunkId) -> bool {
        let is_doubtful = self.packs.contains(&pack) && !self.salvaged.contains(&(pack, id));
        is_doubtful || self.records.contains(&(pack, id))
    }
}

impl LocalLibrary {
    /// Reads every pack, image and side file again and checks all of it.
    ///
    /// Damage is in the report; an error means that the check itself could not be done.
    pub fn verify(&self, monitor: &dyn Monitor) -> Result<VerifyReport> {
        let core = self.core();
        core.sync_index()?;
        let findings = Findings {
            monitor,
            report: Mutex::default(),
        };
        let damage = packs::check(core, &findings)?;
        images::check(core, &damage, &findings)?;
        records::check(core, &findings)?;
        let report = findings.report.into_inner();
        Ok(report.unwrap_or_else(PoisonError::into_inner))
    }
}
