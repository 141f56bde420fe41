// SPDX-License-Identifier: MIT OR Apache-2.0
//! `verify`: reads everything again and says what is wrong, and which images it concerns.
//!
//! Two passes. The packs: each file against its name (BLAKE3 of the file), each record against
//! its tag and its chunk id. The images: each document, each side file, each manifest down to
//! every chunk that it names, against what the first pass found whole. So a finding about a pack
//! is followed by findings that name image, disk and byte, and an image without a finding can be
//! restored.
//!
//! Less may be asked for. A *sample* reads some packs, chosen anew each time, and all documents and
//! manifests: what it has not read is presumed whole as long as a pack of its name is there. *Images*
//! are read as a restore would read them, and nothing else is.
//!
//! Which copies of chunks are damaged is written down in the library, so that they are taken again
//! with the next images of their servers (`wanted`). Nothing else is changed.
//!
//! Limits: at most [`FINDINGS_MAX`] findings are kept; the numbers count all of them.

mod images;
mod packs;
mod records;
mod restored;

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use disk::{Finding, Level, Monitor};
use serde::Serialize;

use crate::chunk::ChunkId;
use crate::core::Core;
use crate::crypto::random_bytes;
use crate::error::Result;
use crate::id::ImageId;
use crate::local::LocalLibrary;
use crate::pack::PackId;
use crate::store::{ListedPack, list_packs};
use crate::wanted::Losses;

/// More findings are only counted.
const FINDINGS_MAX: usize = 1000;

/// How much of a library is verified.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum VerifyScope {
    /// Every byte.
    #[default]
    Everything,
    /// All documents and manifests, and this share of the packs.
    Sample(Share),
    /// These images, each chunk of them.
    Images(Vec<ImageId>),
}

/// A part of a whole: more than nothing, at most all of it.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// How many of so many things: at least one where there are any.
    fn of(self, count: usize) -> usize {
        // Exact below 2^53, and never more than `count`.
        ((count as f64 * self.0).ceil() as usize).min(count)
    }
}

impl FromStr for Share {
    type Err = String;

    /// `5%`, `0.5%`, `100%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text
            .strip_suffix('%')
            .and_then(|number| number.parse::<f64>().ok());
        match percent {
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self(percent / 100.0)),
            _ => Err("expected a percentage above 0% and up to 100%, like 5%".to_owned()),
        }
    }
}

/// How a library is verified.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VerifyOptions {
    /// How much of it.
    pub scope: VerifyScope,
    /// Say what is damaged, and write nothing down.
    pub dry_run: bool,
}

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Packs that were read as a whole.
    pub packs: u64,
    /// Packs that there are.
    pub packs_in_library: u64,
    /// Records that were opened and checked.
    pub chunks: u64,
    /// Image documents that were read.
    pub images: u64,
    /// Side files that were read.
    pub side_files: u64,
    /// Bytes that were read from packs; of images, those of their disks.
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
    losses: Mutex<Losses>,
}

impl Findings<'_> {
    fn update(&self, change: impl FnOnce(&mut VerifyReport)) {
        // Nothing panics while it is held.
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn losses(&self) -> MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.verify_with(&VerifyOptions::default(), monitor)
    }

    /// The same for a part of the library, or without writing down what is damaged.
    pub fn verify_with(
        &self,
        options: &VerifyOptions,
        monitor: &dyn Monitor,
    ) -> Result<VerifyReport> {
        let core = self.core();
        let losses = Losses::begin(core)?;
        core.sync_index()?;
        let findings = Findings {
            monitor,
            report: Mutex::default(),
            losses: Mutex::new(losses),
        };
        let packs = list_packs(&*core.store)?;
        findings.update(|report| report.packs_in_library = packs.len() as u64);
        match &options.scope {
            VerifyScope::Everything => check_all(core, &packs, &findings)?,
            VerifyScope::Sample(share) => check_all(core, &sample(packs, *share)?, &findings)?,
            VerifyScope::Images(ids) => restored::check(core, ids, &findings)?,
        }
        if !options.dry_run {
            records::publish(core, &findings);
        }
        let report = findings.report.into_inner();
        Ok(report.unwrap_or_else(PoisonError::into_inner))
    }
}

/// Checks these packs, and all that is not packs.
fn check_all(core: &Core, packs: &[ListedPack], findings: &Findings<'_>) -> Result<()> {
    let damage = packs::check(core, packs, findings)?;
    images::check(core, &damage, findings)?;
    records::check(core, findings)
}

/// Some of the packs, each as likely as the other.
fn sample(mut packs: Vec<ListedPack>, share: Share) -> Result<Vec<ListedPack>> {
    let wanted = share.of(packs.len());
    let mut random = blake3::Hasher::new()
        .update(&random_bytes::<32>()?)
        .finalize_xof();
    for place in 0..wanted {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let left = (packs.len() - place) as u64;
        // The remainder favours none by more than 2^-40: there are fewer than 2^24 packs.
        packs.swap(place, place + (u64::from_le_bytes(bytes) % left) as usize);
    }
    packs.truncate(wanted);
    packs.sort_unstable_by_key(|pack| pack.id);
    Ok(packs)
}

#[cfg(test)]
mod tests;
