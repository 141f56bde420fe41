// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept of a preparation beside the image.
//!
//! | side file | holds |
//! |---|---|
//! | `prepared-v1.json` | `Record`: inspection, plan, what was written, the overlays' hashes |
//! | `overlay-N.qcow2` | the changes of disk N; no backing file is named in it |
//! | `prepared-failed-v1.json` | [`Failure`]: that it could not be done, and why |
//!
//! A record is used again by the same version of this package with the same options. Side files are
//! replaced whole, but one by one: programs of two versions at work at once, or one that was killed,
//! may leave overlays that are not the record's. So the record has their hashes, and what does not fit
//! together is made anew. Two programs of one version write the same bytes, but for what the guest's
//! own kernel wrote.
//!
//! An earlier version leaves alone what a later one has made: else two that stand beside each other
//! would replace each other's work for ever. A record counts before a failure: of the same version
//! it is as good as any.

use disk::block::Reads;
use disk::{Finding, Level};
use image_library::{DiskIndex, Image, ImageId, ImageReader};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PrepareOptions, Prepared};
use crate::apply::{AppliedSummary, hash};
use crate::error::{Error, Result};
use crate::inspect::Inspection;
use crate::plan::{Plan, PlanOptions, Verdict};

/// The name of the record's side file; the number is its form's.
pub const RECORD_NAME: &str = "prepared-v1.json";
/// The name of the side file that says that a preparation failed.
pub const FAILURE_NAME: &str = "prepared-failed-v1.json";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is kept of a preparation.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The version of this package.
    converter: String,
    /// [`PlanOptions`] as they were written, to be compared whole: an option that this program does not
    /// have any more made another plan.
    options: Value,
    inspection: Inspection,
    plan: Plan,
    applied: AppliedSummary,
    #[serde(default)]
    reads: Reads,
    overlays: Vec<KeptOverlay>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptOverlay {
    disk: DiskIndex,
    /// BLAKE3 in hexadecimal.
    hash: String,
}

/// What every version's record and failure begin with.
#[derive(Debug, Deserialize)]
struct Made {
    converter: String,
}

/// Why an image could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The version of this package that tried.
    pub converter: String,
    /// With what options.
    pub options: PlanOptions,
    /// What was in the way: `prepare.failed`.
    pub findings: Vec<Finding>,
}

/// What is known about an image from beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing that this version goes by.
    Nothing,
    /// It was prepared, or turned out not to be convertible.
    Prepared(Summary),
    /// It was tried, and would fail again.
    Failed(Failure),
    /// A later version of this package has prepared it.
    ByLater {
        /// Which version.
        converter: String,
    },
}

/// The short of a preparation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Whether the guest will boot.
    pub verdict: Verdict,
    /// The findings of the plan.
    pub findings: Vec<Finding>,
    /// How many edits were made.
    pub edit_count: usize,
    /// What was read of the image's disks for it.
    pub reads: Reads,
}

impl Summary {
    /// The short of it.
    #[must_use]
    pub fn of(plan: &Plan, reads: Reads) -> Self {
        Self {
            verdict: plan.verdict,
            findings: plan.findings.clone(),
            edit_count: plan.edits.len(),
            reads,
        }
    }
}

/// Looks beside an image, without reading the image or its overlays.
pub fn kept(reader: &dyn ImageReader, id: ImageId, options: &PlanOptions) -> Result<Kept> {
    if let Some(bytes) = side_file(reader, id, RECORD_NAME)? {
        if let Some(converter) = later_version(&bytes) {
            return Ok(Kept::ByLater { converter });
        }
        if let Some(record) = Record::parse(&bytes, options) {
            return Ok(Kept::Prepared(Summary::of(&record.plan, record.reads)));
        }
    }
    let Some(bytes) = side_file(reader, id, FAILURE_NAME)? else {
        return Ok(Kept::Nothing);
    };
    let failure = serde_json::from_slice::<Failure>(&bytes).ok();
    // What a later version could not do, this one need not try.
    let counts = |failure: &Failure| match failure.converter == VERSION {
        true => failure.options == *options,
        false => is_later(&failure.converter),
    };
    Ok(failure.filter(counts).map_or(Kept::Nothing, Kept::Failed))
}

impl Record {
    /// `None` where it is of another version or of other options.
    fn parse(bytes: &[u8], options: &PlanOptions) -> Option<Self> {
        // A record that this version cannot read was made by another one.
        let record: Self = serde_json::from_slice(bytes).ok()?;
        (record.converter == VERSION && record.options == as_written(options)).then_some(record)
    }
}

fn as_written(options: &PlanOptions) -> Value {
    serde_json::to_value(options).unwrap_or_default()
}

/// What was prepared; `None` where it is missing, or of another version or other options, or does
/// not fit together.
pub(super) fn load(
    reader: &dyn ImageReader,
    id: ImageId,
    options: &PlanOptions,
) -> Result<Option<Prepared>> {
    let bytes = side_file(reader, id, RECORD_NAME)?;
    let Some(record) = bytes.and_then(|bytes| Record::parse(&bytes, options)) else {
        return Ok(None);
    };
    let mut overlays = Vec::new();
    for overlay in record.overlays {
        match side_file(reader, id, &overlay_name(overlay.disk))? {
            Some(bytes) if hash(&bytes) == overlay.hash => overlays.push((overlay.disk, bytes)),
            _ => return Ok(None),
        }
    }
    Ok(Some(Prepared {
        vm: record.plan.vm.clone(),
        inspection: record.inspection,
        plan: record.plan,
        applied: record.applied,
        reads: record.reads,
        overlays,
        reused: true,
    }))
}

/// Keeps what was prepared, unless a later version's work is there and nobody asked for this one's.
pub(super) fn store(
    reader: &dyn ImageReader,
    id: ImageId,
    options: &PrepareOptions,
    prepared: &Prepared,
) -> Result<()> {
    let there = side_file(reader, id, RECORD_NAME)?;
    if !options.again && there.is_some_and(|bytes| later_version(&bytes).is_some()) {
        return Ok(());
    }
    let mut overlays = Vec::new();
    for (disk, bytes) in &prepared.overlays {
        reader.put_side_file(id, &overlay_name(*disk), bytes)?;
        let (disk, hash) = (*disk, hash(bytes));
        overlays.push(KeptOverlay { disk, hash });
    }
    let record = Record {
        converter: VERSION.to_owned(),
        options: as_written(&options.plan),
        inspection: prepared.inspection.clone(),
        plan: prepared.plan.clone(),
        applied: prepared.applied.clone(),
        reads: prepared.reads,
        overlays,
    };
    put(reader, id, RECORD_NAME, &record)
}

/// Keeps that it failed, where that is the image's own fault. What hinders that is only logged: the
/// error itself is what the caller has to know.
pub(super) fn note_failure(
    reader: &dyn ImageReader,
    image: &Image,
    options: &PlanOptions,
    error: &Error,
) {
    // A directory that is not mounted has no packs either: what is lost is lost only where the
    // image itself still is.
    if !error.is_lasting() || reader.image(image.id).is_err() {
        return;
    }
    let failure = Failure {
        converter: VERSION.to_owned(),
        options: options.clone(),
        findings: vec![Finding {
            level: Level::Error,
            code: "prepare.failed".to_owned(),
            place: format!("{}@{}", image.server, image.id),
            problem: image_library::chain_text(error),
            remedy: error.hint(),
        }],
    };
    if let Err(error) = put(reader, image.id, FAILURE_NAME, &failure) {
        tracing::warn!(image = %image.id, %error, "a failed preparation could not be noted");
    }
}

fn put(reader: &dyn ImageReader, id: ImageId, name: &str, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::File {
        place: name.to_owned(),
        problem: error.to_string(),
    })?;
    Ok(reader.put_side_file(id, name, &bytes)?)
}

/// A side file; one that is damaged is as good as none, for it is made anew.
fn side_file(reader: &dyn ImageReader, id: ImageId, name: &str) -> Result<Option<Vec<u8>>> {
    match reader.side_file(id, name) {
        Err(error) if error.proves_damage() => {
            tracing::warn!(image = %id, name, %error, "a side file is damaged");
            Ok(None)
        }
        other => Ok(other?),
    }
}

fn overlay_name(index: DiskIndex) -> String {
    format!("overlay-{index}.qcow2")
}

/// Which later version of this package made it, if one did.
fn later_version(bytes: &[u8]) -> Option<String> {
    let made: Made = serde_json::from_slice(bytes).ok()?;
    is_later(&made.converter).then_some(made.converter)
}

fn is_later(version: &str) -> bool {
    numbers(version) > numbers(VERSION)
}

/// The numbers of `1.2.3`; `None`, which is before all others, of anything else.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let release = version.split(['-', '+']).next()?;
    release.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.9"));
        assert!(numbers("0.1.1-rc1") > numbers("0.1.0"));
        assert!(numbers("x") < numbers("0.0.0"));
        assert!(!is_later(VERSION));
    }
}
