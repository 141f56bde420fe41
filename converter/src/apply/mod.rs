// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries out a plan, in an overlay over each disk that it touches.
//!
//! In three passes: what every file will hold is made first (and checked against what was
//! inspected), then the room for it is checked, then it is written. An error drops the overlays, so
//! a conversion is done whole or not at all.
//!
//! ext and FAT are written natively. On XFS and btrfs the edits wait, and are done in the end by the
//! guest's own kernel in a small virtual machine, as the plan says.

mod deferred;
mod edits;
mod initramfs;
mod machine;
mod small_vm;
mod volumes;

use std::sync::Arc;

use disk::block::{Overlay, OverlayOptions};
use disk::filesystem::{self, FilesystemKind, WriteOptions};
use disk::{Finding, Level, WriteAt};
use image_library::DiskIndex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::guest_disk::{GuestDisk, secrets_of};
use crate::inspect::findings::finding;
use crate::inspect::{FilePlace, VolumeId};
use crate::plan::{Change, Edit, Plan, SmallVm};
use crate::stack::{Devices, Part, filesystem_on};

use deferred::Deferred;
pub(crate) use edits::{hash, write_edits};
pub use machine::{NoMachine, Work, WriterDisk, WriterMachine, WriterOrder, WriterOutput};
use small_vm::Waiting;
pub(crate) use volumes::Volumes;

const FILE_BYTES_MAX: u64 = 1 << 30;

/// How a plan is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyOptions {
    /// The time that written files get, in seconds since 1970: two conversions of the same image
    /// give the same bytes.
    pub now_unix_seconds: i64,
}

/// A plan that was carried out.
#[derive(Debug)]
pub struct Applied {
    /// What was written.
    pub summary: AppliedSummary,
    /// The changes of each disk that was touched.
    pub overlays: Vec<(DiskIndex, Arc<Overlay>)>,
}

/// What was written where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AppliedSummary {
    /// Every file that was changed or made.
    pub files: Vec<AppliedFile>,
    /// What was noticed on the way, such as a journal that was replayed.
    pub findings: Vec<Finding>,
}

/// A file that was changed or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedFile {
    /// Which.
    pub place: FilePlace,
    /// BLAKE3 of the content before, in hexadecimal; `None` for a new file.
    pub before: Option<String>,
    /// BLAKE3 of the content after.
    pub after: String,
    /// Size after, in bytes.
    pub size_bytes: u64,
}

/// Carries out a plan. The machine is only asked where the plan has a use for it.
pub fn apply(
    plan: &Plan,
    disks: &[GuestDisk],
    options: &ApplyOptions,
    work: Work<'_>,
) -> Result<Applied> {
    check_verdict(plan)?;
    let overlays = overlays(disks);
    let whole = overlays.iter().zip(disks).map(|((_, overlay), disk)| Part {
        id: VolumeId::on_disk(disk.index, None),
        device: Arc::clone(overlay) as Arc<dyn WriteAt>,
        sector_size: disk.sector_size,
    });
    let small_vm = plan.small_vm.as_ref();
    let is_stacked = plan.edits.iter().any(is_stacked) || small_vm.is_some();
    let devices = Devices::new(whole.collect(), &secrets_of(disks), is_stacked)?;
    let mut volumes = Volumes::default();
    let mut summary = AppliedSummary::default();
    let mut waiting = Vec::new();
    for edit in &plan.edits {
        let id = edit.place.volume;
        if volumes.writable.contains_key(&id) {
            continue;
        }
        let findings = &mut summary.findings;
        match small_vm.and_then(|small_vm| small_vm.writes(id)) {
            Some(kind) => {
                let parts = devices.filesystem_parts(id)?;
                waiting.push(open_deferred(id, parts, kind, &mut volumes, findings)?);
            }
            None => open_writable(id, &devices.open(id)?, options, &mut volumes, findings)?,
        }
    }
    let for_machine = small_vm.into_iter().flat_map(SmallVm::read_volumes);
    for id in plan.edits.iter().flat_map(read_volumes).chain(for_machine) {
        if !volumes.writable.contains_key(&id) && !volumes.readable.contains_key(&id) {
            volumes.readable.insert(id, devices.filesystem(id)?);
        }
    }
    summary.files = write_edits(&plan.edits, &mut volumes, options)?;
    if let Some(small_vm) = small_vm.filter(|_| !waiting.is_empty()) {
        small_vm::write(&waiting, small_vm, &mut volumes, options, work)?;
    }
    for (id, filesystem) in std::mem::take(&mut volumes.writable) {
        filesystem.finish().map_err(Error::guest(id.to_string()))?;
    }
    let changed = |(_, overlay): &(DiskIndex, Arc<Overlay>)| overlay.changed_bytes() > 0;
    Ok(Applied {
        summary,
        overlays: overlays.into_iter().filter(changed).collect(),
    })
}

fn check_verdict(plan: &Plan) -> Result<()> {
    if !plan.verdict.is_ready() {
        let errors = plan.findings.iter().filter(|f| f.level == Level::Error);
        let problems: Vec<String> = errors
            .map(|f| format!("{}: {}", f.code, f.problem))
            .collect();
        return Err(Error::NotConvertible {
            problem: problems.join("; "),
        });
    }
    Ok(())
}

fn overlays(disks: &[GuestDisk]) -> Vec<(DiskIndex, Arc<Overlay>)> {
    let overlay = |disk: &GuestDisk| {
        let base = Arc::clone(&disk.device);
        let overlay = Overlay::new(base, OverlayOptions::default());
        (disk.index, Arc::new(overlay))
    };
    disks.iter().map(overlay).collect()
}

/// Whether an edit needs a volume that is made of others.
fn is_stacked(edit: &Edit) -> bool {
    let mut volumes = read_volumes(edit);
    volumes.push(edit.place.volume);
    volumes.iter().any(|volume| volume.disk().is_none())
}

/// The volumes that an edit reads besides the one that it writes.
fn read_volumes(edit: &Edit) -> Vec<VolumeId> {
    match &edit.change {
        Change::AppendToInitramfs(append) => {
            let files = append.modules.iter().map(|module| module.file.volume);
            files
                .chain(append.module_directory.iter().map(|place| place.volume))
                .collect()
        }
        Change::Copy { from, .. } => vec![from.volume],
        Change::Rewrite { .. } | Change::Create { .. } => Vec::new(),
    }
}

fn open_writable(
    id: VolumeId,
    device: &Arc<dyn WriteAt>,
    options: &ApplyOptions,
    volumes: &mut Volumes,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let place = || id.to_string();
    let write_options = WriteOptions {
        now_unix_seconds: options.now_unix_seconds,
    };
    let opened = filesystem::open_writable(Arc::clone(device), write_options)
        .map_err(Error::guest(place()))?;
    // After the replay of a journal, which changes it.
    let free = opened.filesystem.free_bytes();
    if let Some(free) = free.map_err(Error::guest(place()))? {
        volumes.free_bytes.insert(id, free);
    }
    findings.extend(opened.findings);
    volumes.writable.insert(id, opened.filesystem);
    Ok(())
}

/// A filesystem that the small virtual machine writes.
fn open_deferred(
    id: VolumeId,
    parts: Vec<Part>,
    kind: FilesystemKind,
    volumes: &mut Volumes,
    findings: &mut Vec<Finding>,
) -> Result<Waiting> {
    let filesystem = filesystem_on(&parts)?;
    if filesystem.is_log_dirty() {
        findings.push(finding(
            Level::Note,
            "filesystem.log-replayed",
            id.to_string(),
            format!("this {kind} was in use; the guest's kernel replayed its log"),
        ));
    }
    let free = filesystem.free_bytes();
    if let Some(free) = free.map_err(Error::guest(id.to_string()))? {
        volumes.free_bytes.insert(id, free);
    }
    let (deferred, operations) = Deferred::new(filesystem);
    volumes.writable.insert(id, Box::new(deferred));
    Ok(Waiting {
        id,
        parts,
        kind,
        operations,
    })
}
