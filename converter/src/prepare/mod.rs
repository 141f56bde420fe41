// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole conversion in one call, and kept beside the image so that it is done once.
//!
//! What is kept, and when it is used again, is in `kept`. The image itself never changes.

mod kept;
#[cfg(test)]
mod kernel_tests;

use std::io::Cursor;
use std::sync::Arc;

use disk::block::{MemoryDevice, Overlay, OverlayOptions, Reads};
use disk::{Finding, Level, Monitor, ReadAt};
use image_library::machine::MachineDescription;
use image_library::{DiskIndex, Image, ImageReader};

use crate::apply::{
    Applied, AppliedSummary, ApplyOptions, Work, WriterMachine, WriterOrder, WriterOutput, apply,
};
use crate::error::{Error, Result};
use crate::guest_disk::{GuestDisk, MeteredDisks};
use crate::inspect::{Inspection, inspect};
use crate::plan::{Plan, PlanOptions, plan};
use crate::secrets::Secrets;
use crate::verify::verify;
use crate::vm::{KernelFiles, VmDefinition};

pub use kept::{FAILURE_NAME, Failure, Kept, RECORD_NAME, Summary, kept};

/// How an image is prepared.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// What the plan may choose.
    pub plan: PlanOptions,
    /// Does all anew, whatever is kept.
    pub again: bool,
    /// What opens encrypted volumes. An image that is locked without is tried again with them.
    pub secrets: Secrets,
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
    /// What was read of the image's disks for it.
    pub reads: Reads,
    /// The virtual machine.
    pub vm: VmDefinition,
    /// The changes of each disk that was touched, as a qcow2 image without backing file.
    pub overlays: Vec<(DiskIndex, Vec<u8>)>,
    /// Whether it was kept from an earlier time.
    pub reused: bool,
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
    /// What was read of the disks.
    pub reads: Reads,
}

/// Prepares an image, or takes what was prepared before.
///
/// An error that would be the same another time is kept beside the image as well, for who wants to
/// know ([`kept()`]): a call tries again all the same.
pub fn prepare(
    reader: &dyn ImageReader,
    image: &Image,
    options: &PrepareOptions,
    work: Work<'_>,
) -> Result<Prepared> {
    if !options.again
        && let Some(known) = kept::load(reader, image.id, &options.plan)?
        && !may_unlock(&known.plan.findings, &options.secrets)
    {
        return Ok(known);
    }
    let prepared = prepare_anew(reader, image, options, work);
    if let Err(error) = &prepared {
        kept::note_failure(reader, image, &options.plan, error);
    }
    prepared
}

fn prepare_anew(
    reader: &dyn ImageReader,
    image: &Image,
    options: &PrepareOptions,
    work: Work<'_>,
) -> Result<Prepared> {
    let disks = open_disks(reader, image, &options.secrets)?;
    let apply_options = ApplyOptions {
        now_unix_seconds: image.taken_at.as_second(),
    };
    let machine = image.machine.as_ref();
    let converted = convert_disks(&disks, machine, &options.plan, &apply_options, work)?;
    let prepared = Prepared::from_converted(converted)?;
    work.monitor.stage("Keeping the prepared overlay");
    kept::store(reader, image.id, options, &prepared)?;
    Ok(prepared)
}

/// Inspects, plans, applies and verifies disks that need no library.
pub fn convert_disks(
    disks: &[GuestDisk],
    machine: Option<&MachineDescription>,
    plan_options: &PlanOptions,
    apply_options: &ApplyOptions,
    work: Work<'_>,
) -> Result<Converted> {
    let monitor = work.monitor;
    let metered = MeteredDisks::new(disks);
    let disks = metered.disks();
    let inspection = inspect(disks, machine, monitor)?;
    monitor.stage("Planning");
    let plan = plan(&inspection, plan_options);
    report(&plan, monitor);
    if !plan.verdict.is_ready() {
        return Ok(Converted {
            inspection,
            plan,
            applied: None,
            reads: metered.reads(),
        });
    }
    monitor.stage("Applying the plan");
    let machine = Sparing {
        machine: work.machine,
        disks: &metered,
    };
    let spared = Work {
        machine: &machine,
        ..work
    };
    let applied = apply(&plan, disks, apply_options, spared)?;
    for finding in &applied.summary.findings {
        monitor.finding(finding);
    }
    monitor.stage("Verifying");
    verify(&applied, disks)?;
    if let Some(direct_boot) = &plan.vm.direct_boot {
        // What a platform is given later is looked at now, when there is time to do something.
        direct_boot.read(&as_applied(&applied, disks))?;
    }
    Ok(Converted {
        inspection,
        plan,
        applied: Some(applied),
        reads: metered.reads(),
    })
}

/// A machine for which room is made before it runs.
#[derive(Debug)]
struct Sparing<'a> {
    machine: &'a dyn WriterMachine,
    disks: &'a MeteredDisks,
}

impl WriterMachine for Sparing<'_> {
    fn program(&self) -> Result<Vec<u8>> {
        self.machine.program()
    }

    fn run(&self, order: WriterOrder, monitor: &dyn Monitor) -> Result<WriterOutput> {
        self.disks.keep_least();
        self.machine.run(order, monitor)
    }
}

/// The disks with what was changed.
fn as_applied(applied: &Applied, disks: &[GuestDisk]) -> Vec<GuestDisk> {
    let with_changes = |disk: &GuestDisk| {
        let mut overlays = applied.overlays.iter();
        let overlay = overlays.find(|(index, _)| *index == disk.index);
        GuestDisk {
            device: overlay.map_or_else(
                || Arc::clone(&disk.device),
                |(_, overlay)| Arc::clone(overlay) as Arc<dyn ReadAt>,
            ),
            ..disk.clone()
        }
    };
    disks.iter().map(with_changes).collect()
}

/// Whether an encrypted volume was in the way of an earlier preparation, and there are secrets now
/// that may open it.
#[must_use]
pub fn may_unlock(findings: &[Finding], secrets: &Secrets) -> bool {
    let mut locked = findings.iter().filter(|finding| {
        finding.level == Level::Error && finding.code == crate::inspect::LUKS_LOCKED
    });
    locked.any(|_| !secrets.is_empty())
}

/// Reports what was noticed, but not what the refusal will say.
fn report(plan: &Plan, monitor: &dyn Monitor) {
    for finding in &plan.findings {
        if finding.level < Level::Error {
            monitor.finding(finding);
        }
    }
}

/// The disks of an image as conversion takes them, with what opens the encrypted volumes on them.
pub fn open_disks(
    reader: &dyn ImageReader,
    image: &Image,
    secrets: &Secrets,
) -> Result<Vec<GuestDisk>> {
    let open = |disk: &image_library::ImageDisk| {
        Ok(GuestDisk {
            index: disk.index,
            name: Some(disk.name.clone()),
            device: reader.open_disk(image.id, disk.index)?,
            sector_size: disk.sector_size,
            secrets: secrets.clone(),
        })
    };
    image.disks.iter().map(open).collect()
}

impl Prepared {
    /// The image's disks as they are after the conversion.
    pub fn converted_disks(
        &self,
        reader: &dyn ImageReader,
        image: &Image,
        secrets: &Secrets,
    ) -> Result<Vec<GuestDisk>> {
        let mut disks = open_disks(reader, image, secrets)?;
        for disk in &mut disks {
            let mut overlays = self.overlays.iter();
            if let Some((index, bytes)) = overlays.find(|(index, _)| *index == disk.index) {
                let base = Arc::clone(&disk.device);
                disk.device = with_overlay(*index, base, bytes)?;
            }
        }
        Ok(disks)
    }

    /// The kernel that the machine is to be given from outside; `None` where its disks start by
    /// themselves.
    ///
    /// It is read anew each time, and no copy is kept beside the image: the files are in the image and
    /// its overlay, which a copy could only come to differ from, and every image would have its own of
    /// what the library otherwise stores once. Reading takes the files themselves, as a copy would, and
    /// the few blocks that lead to them.
    pub fn kernel(
        &self,
        reader: &dyn ImageReader,
        image: &Image,
        secrets: &Secrets,
    ) -> Result<Option<KernelFiles>> {
        let Some(direct_boot) = &self.vm.direct_boot else {
            return Ok(None);
        };
        let disks = self.converted_disks(reader, image, secrets)?;
        direct_boot.read(&disks).map(Some)
    }

    /// The same with the overlays as bytes.
    pub fn from_converted(converted: Converted) -> Result<Self> {
        let Converted {
            inspection,
            plan,
            applied,
            reads,
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
            reads,
            overlays,
            reused: false,
        })
    }
}

/// A disk with the changes that a qcow2 image has.
fn with_overlay(index: DiskIndex, base: Arc<dyn ReadAt>, bytes: &[u8]) -> Result<Arc<dyn ReadAt>> {
    let image = Arc::new(MemoryDevice::from(bytes.to_vec()));
    let options = OverlayOptions {
        limit_bytes: u64::MAX,
    };
    let overlay =
        Overlay::from_qcow2(image, base, options).map_err(Error::guest(format!("disk {index}")))?;
    Ok(Arc::new(overlay))
}

fn qcow2(index: DiskIndex, overlay: &Arc<Overlay>) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    overlay
        .write_qcow2(&mut bytes, None)
        .map_err(Error::guest(format!("disk {index}")))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests;
