// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole conversion in one call, and kept beside the image so that it is done once.
//!
//! | side file | holds |
//! |---|---|
//! | `prepared-v1.json` | `Record`: inspection, plan, what was written |
//! | `overlay-N.qcow2` | the changes of disk N; no backing file is named in it |
//!
//! The record is written last, so where there is one, the overlays are there too. It is used again
//! when the same version of this package made it with the same options; else all is done anew and
//! replaced. The image itself never changes.

use std::io::Cursor;
use std::sync::Arc;

use disk::block::Overlay;
use disk::{Level, Monitor};
use image_library::machine::MachineDescription;
use image_library::{DiskIndex, Image, ImageId, ImageReader};
use serde::{Deserialize, Serialize};

use crate::apply::{Applied, AppliedSummary, ApplyOptions, apply};
use crate::error::{Error, Result};
use crate::guest_disk::GuestDisk;
use crate::inspect::{Inspection, inspect};
use crate::plan::{Plan, PlanOptions, plan};
use crate::verify::verify;
use crate::vm::VmDefinition;

/// The name of the record's side file; the number is its form's.
pub const RECORD_NAME: &str = "prepared-v1.json";

/// How an image is prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareOptions {
    /// What the plan may choose.
    pub plan: PlanOptions,
    /// Does all anew, whatever is kept.
    pub again: bool,
}

/// An image with all that its virtual machine needs.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What was found.
    pub inspection: Inspection,
    /// What was to be changed.
    pub plan: Plan,
    /// What was written; empty where the verdict forbids it.
    pub applied: AppliedSummary,
    /// The virtual machine.
    pub vm: VmDefinition,
    /// The changes of each disk that was touched, as a qcow2 image without backing file.
    pub overlays: Vec<(DiskIndex, Vec<u8>)>,
    /// Whether it was kept from an earlier time.
    pub reused: bool,
}

/// What is kept of a preparation.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The version of this package.
    converter: String,
    options: PlanOptions,
    inspection: Inspection,
    plan: Plan,
    applied: AppliedSummary,
    overlays: Vec<DiskIndex>,
}

/// A guest that was converted in memory.
#[derive(Debug)]
pub struct Converted {
    /// What was found.
    pub inspection: Inspection,
    /// What was to be changed.
    pub plan: Plan,
    /// What was changed; `None` where the verdict forbids it.
    pub applied: Option<Applied>,
}

/// Prepares an image, or takes what was prepared before.
pub fn prepare(
    reader: &dyn ImageReader,
    image: &Image,
    options: &PrepareOptions,
    monitor: &dyn Monitor,
) -> Result<Prepared> {
    if !options.again
        && let Some(kept) = load(reader, image.id, &options.plan)?
    {
        return Ok(kept);
    }
    let disks = open_disks(reader, image)?;
    let apply_options = ApplyOptions {
        now_unix_seconds: image.taken_at.as_second(),
    };
    let machine = image.machine.as_ref();
    let converted = convert_disks(&disks, machine, &options.plan, &apply_options, monitor)?;
    let prepared = Prepared::from_converted(converted)?;
    monitor.stage("Keeping the prepared overlay");
    store(reader, image.id, &options.plan, &prepared)?;
    Ok(prepared)
}

/// Inspects, plans, applies and verifies disks that need no library.
pub fn convert_disks(
    disks: &[GuestDisk],
    machine: Option<&MachineDescription>,
    plan_options: &PlanOptions,
    apply_options: &ApplyOptions,
    monitor: &dyn Monitor,
) -> Result<Converted> {
    let inspection = inspect(disks, machine, monitor)?;
    monitor.stage("Planning");
    let plan = plan(&inspection, plan_options);
    report(&plan, monitor);
    if !plan.verdict.is_ready() {
        return Ok(Converted {
            inspection,
            plan,
            applied: None,
        });
    }
    monitor.stage("Applying the plan");
    let applied = apply(&plan, disks, apply_options)?;
    for finding in &applied.summary.findings {
        monitor.finding(finding);
    }
    monitor.stage("Verifying");
    verify(&applied, disks)?;
    Ok(Converted {
        inspection,
        plan,
        applied: Some(applied),
    })
}

/// Reports what was noticed, but not what the refusal will say.
fn report(plan: &Plan, monitor: &dyn Monitor) {
    for finding in &plan.findings {
        if finding.level < Level::Error {
            monitor.finding(finding);
        }
    }
}

/// The disks of an image as conversion takes them.
pub fn open_disks(reader: &dyn ImageReader, image: &Image) -> Result<Vec<GuestDisk>> {
    let open = |disk: &image_library::ImageDisk| {
        Ok(GuestDisk {
            index: disk.index,
            name: Some(disk.name.clone()),
            device: reader.open_disk(image.id, disk.index)?,
            sector_size: disk.sector_size,
        })
    };
    image.disks.iter().map(open).collect()
}

impl Prepared {
    /// The same with the overlays as bytes.
    pub fn from_converted(converted: Converted) -> Result<Self> {
        let Converted {
            inspection,
            plan,
            applied,
        } = converted;
        let (applied, changed) = match applied {
            Some(applied) => (applied.summary, applied.overlays),
            None => Default::default(),
        };
        let mut overlays = Vec::new();
        for (index, overlay) in changed {
            overlays.push((index, qcow2(index, &overlay)?));
        }
        Ok(Self {
            vm: plan.vm.clone(),
            inspection,
            plan,
            applied,
            overlays,
            reused: false,
        })
    }
}

fn qcow2(index: DiskIndex, overlay: &Arc<Overlay>) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    overlay
        .write_qcow2(&mut bytes, None)
        .map_err(Error::guest(format!("disk {index}")))?;
    Ok(bytes.into_inner())
}

fn overlay_name(index: DiskIndex) -> String {
    format!("overlay-{index}.qcow2")
}

/// What was kept; `None` where it is missing, or of another version or other options.
fn load(reader: &dyn ImageReader, id: ImageId, options: &PlanOptions) -> Result<Option<Prepared>> {
    let Some(bytes) = reader.side_file(id, RECORD_NAME)? else {
        return Ok(None);
    };
    // A record that this version cannot read was made by another one.
    let Ok(record) = serde_json::from_slice::<Record>(&bytes) else {
        return Ok(None);
    };
    if record.converter != env!("CARGO_PKG_VERSION") || record.options != *options {
        return Ok(None);
    }
    let mut overlays = Vec::new();
    for index in record.overlays {
        match reader.side_file(id, &overlay_name(index))? {
            Some(bytes) => overlays.push((index, bytes)),
            None => return Ok(None),
        }
    }
    Ok(Some(Prepared {
        vm: record.plan.vm.clone(),
        inspection: record.inspection,
        plan: record.plan,
        applied: record.applied,
        overlays,
        reused: true,
    }))
}

fn store(
    reader: &dyn ImageReader,
    id: ImageId,
    options: &PlanOptions,
    prepared: &Prepared,
) -> Result<()> {
    for (index, bytes) in &prepared.overlays {
        reader.put_side_file(id, &overlay_name(*index), bytes)?;
    }
    let record = Record {
        converter: env!("CARGO_PKG_VERSION").to_owned(),
        options: options.clone(),
        inspection: prepared.inspection.clone(),
        plan: prepared.plan.clone(),
        applied: prepared.applied.clone(),
        overlays: prepared.overlays.iter().map(|(index, _)| *index).collect(),
    };
    let bytes = serde_json::to_vec(&record).map_err(|error| Error::File {
        place: RECORD_NAME.to_owned(),
        problem: error.to_string(),
    })?;
    reader.put_side_file(id, RECORD_NAME, &bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests;
