// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that is ready to be attached to a machine: its disks, the overlays that make it boot,
//! and what was changed in them.

use std::fmt::Debug;
use std::path::Path;

use converter::Secrets;
use converter::apply::{Work, WriterMachine};
use converter::plan::PlanOptions;
use converter::plan::{Change, Edit};
use converter::prepare::{PrepareOptions, Prepared, prepare};
use converter::vm::{INITRAMFS_NAME, KERNEL_NAME, KernelFiles, VmDefinition};
use disk::block::{Reads, create_empty_qcow2};
use disk::{Finding, Monitor, SectorSize};
use image_library::{DiskIndex, Image, ImageId, ImageReader};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file;
use crate::keeper::KeptDiskOrder;
use crate::platform::{DiskOrder, KernelOrder};

/// Makes guests of images.
pub trait GuestSource: Debug + Sync {
    /// Prepares an image, or takes what is kept beside it.
    fn prepare(&self, image: &Image, monitor: &dyn Monitor) -> Result<Guest>;
}

/// An image as a guest.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Which image.
    pub image: ImageId,
    /// Its virtual machine.
    pub definition: VmDefinition,
    /// Its disks, in the definition's order.
    pub disks: Vec<GuestDisk>,
    /// What its definition wants to be loaded from outside.
    pub kernel: Option<KernelFiles>,
    /// What was changed.
    pub conversion: Conversion,
}

/// A disk of a guest.
#[derive(Debug, Clone)]
pub struct GuestDisk {
    /// Which disk of the image.
    pub index: DiskIndex,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Logical sector size.
    pub sector_size: SectorSize,
    /// The changes as a qcow2 image without backing file; `None`: there are none.
    pub overlay: Option<Vec<u8>>,
}

/// What was changed in a guest, for the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversion {
    /// Whether it was taken from beside the image.
    pub reused: bool,
    /// The edits.
    pub edits: Vec<EditRecord>,
    /// What was noticed.
    pub findings: Vec<Finding>,
    /// What was read of the image's disks for it, whenever that was.
    #[serde(default)]
    pub reads: Reads,
}

/// One edit, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditRecord {
    /// The file.
    pub path: String,
    /// `change`, `create`, `append`.
    pub verb: String,
    /// Why.
    pub reasons: Vec<String>,
    /// What, as text: a diff, or a list of what is added.
    pub detail: String,
}

impl Guest {
    /// Writes the machine's own overlays into its directory, where they are thrown away at its end.
    pub fn attach(&self, directory: &Path) -> Result<Vec<DiskOrder>> {
        let disks = self.disks.iter().enumerate();
        disks
            .map(|(number, disk)| {
                let file = directory.join(format!("disk{number}.qcow2"));
                disk.write_overlay(&file)?;
                Ok(DiskOrder {
                    file,
                    is_overlay: true,
                    is_kept: false,
                    sector_size: disk.sector_size,
                })
            })
            .collect()
    }

    /// Writes the kernel that the machine is given from outside into its directory.
    pub fn attach_kernel(&self, directory: &Path) -> Result<Option<KernelOrder>> {
        self.write_kernel(directory, file::write)?;
        Ok(self.kernel_order(directory))
    }

    /// Writes the files of a kernel from outside.
    pub(crate) fn write_kernel(
        &self,
        directory: &Path,
        write: fn(&Path, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(files) = &self.kernel else {
            return Ok(());
        };
        write(&directory.join(KERNEL_NAME), &files.kernel)?;
        match &files.initramfs {
            Some(initramfs) => write(&directory.join(INITRAMFS_NAME), initramfs),
            None => Ok(()),
        }
    }

    /// The kernel that the definition wants to be loaded from outside, its files in a directory.
    pub(crate) fn kernel_order(&self, directory: &Path) -> Option<KernelOrder> {
        let direct = self.definition.direct_boot.as_ref()?;
        let initramfs = direct.initramfs.as_ref();
        Some(KernelOrder {
            kernel: directory.join(KERNEL_NAME),
            initramfs: initramfs.map(|_| directory.join(INITRAMFS_NAME)),
            command_line: direct.command_line.clone(),
        })
    }

    /// The disks as a keeper serves them.
    #[must_use]
    pub fn kept_disks(&self) -> Vec<KeptDiskOrder> {
        let disks = self.disks.iter();
        disks
            .map(|disk| KeptDiskOrder {
                index: disk.index,
                size_bytes: disk.size_bytes,
                sector_size: disk.sector_size,
            })
            .collect()
    }
}

impl GuestDisk {
    /// Writes a new overlay for the disk.
    pub(crate) fn write_overlay(&self, file: &Path) -> Result<()> {
        match &self.overlay {
            Some(bytes) => file::write(file, bytes),
            None => Ok(create_empty_qcow2(file, self.size_bytes)?),
        }
    }
}

/// Guests of a library's images, by conversion.
#[derive(Debug, Clone)]
pub struct Converting<'a> {
    /// The library.
    pub reader: &'a dyn ImageReader,
    /// Converts anew, whatever is kept.
    pub again: bool,
    /// What opens encrypted volumes.
    pub secrets: Secrets,
    /// Writes what only the guest's own kernel can write.
    pub machine: &'a dyn WriterMachine,
}

impl GuestSource for Converting<'_> {
    fn prepare(&self, image: &Image, monitor: &dyn Monitor) -> Result<Guest> {
        let options = prepare_options(image, self.again, &self.secrets);
        let work = Work {
            machine: self.machine,
            monitor,
        };
        let prepared = prepare(self.reader, image, &options, work)?;
        if !prepared.plan.verdict.is_ready() {
            return Err(not_ready(image, &prepared));
        }
        let kernel = prepared.kernel(self.reader, image, &self.secrets)?;
        let mut overlays: std::collections::BTreeMap<_, _> =
            prepared.overlays.into_iter().collect();
        let mut disks = Vec::new();
        for disk in &prepared.vm.disks {
            disks.push(GuestDisk {
                index: disk.index,
                size_bytes: disk.size_bytes,
                sector_size: disk.sector_size,
                overlay: overlays.remove(&disk.index),
            });
        }
        Ok(Guest {
            image: image.id,
            definition: prepared.vm,
            disks,
            kernel,
            conversion: Conversion {
                reused: prepared.reused,
                edits: prepared.plan.edits.iter().map(EditRecord::of).collect(),
                findings: prepared.plan.findings,
                reads: prepared.reads,
            },
        })
    }
}

/// How images are prepared by every command, so that what is kept fits all of them.
#[must_use]
pub fn prepare_options(image: &Image, again: bool, secrets: &Secrets) -> PrepareOptions {
    PrepareOptions {
        plan: PlanOptions::new(image.server.as_str()),
        again,
        secrets: secrets.clone(),
    }
}

fn not_ready(image: &Image, prepared: &Prepared) -> Error {
    let errors = prepared
        .plan
        .findings
        .iter()
        .filter(|finding| finding.level == disk::Level::Error);
    let problems: Vec<String> = errors
        .map(|finding| format!("{}: {}", finding.place, finding.problem))
        .collect();
    let remedies = prepared
        .plan
        .findings
        .iter()
        .filter(|finding| finding.level == disk::Level::Error);
    let remedy = remedies.filter_map(|finding| finding.remedy.clone()).next();
    Error::Request {
        problem: format!(
            "the image {}@{} {}: {}",
            image.server,
            image.id,
            prepared.plan.verdict,
            problems.join("; ")
        ),
        hint: Some(
            remedy.unwrap_or_else(|| format!("`relevo inspect {}` says more", image.server)),
        ),
    }
}

impl EditRecord {
    fn of(edit: &Edit) -> Self {
        let verb = match &edit.change {
            Change::Rewrite { .. } => "change",
            Change::Create { .. } => "create",
            Change::Copy { .. } => "copy",
            Change::AppendToInitramfs(_) => "append",
        };
        Self {
            path: edit.place.to_string(),
            verb: verb.to_owned(),
            reasons: edit.reasons.clone(),
            detail: detail(edit),
        }
    }
}

/// The edit as the plan prints it, without its first line and its reasons.
fn detail(edit: &Edit) -> String {
    let text = edit.to_string();
    let lines = text
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with("  because: "));
    let lines: Vec<&str> = lines
        .map(|line| line.strip_prefix("  ").unwrap_or(line))
        .collect();
    lines.join("\n")
}
