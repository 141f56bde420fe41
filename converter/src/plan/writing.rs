// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which way an edit is written: natively, or by the guest's own kernel in a small virtual machine.
//!
//! XFS and btrfs are read natively and written by the newest kernel that has drivers for them and for
//! a virtual disk. Of its modules, those that this needs are loaded, in the order given here.

use std::fmt;

use disk::filesystem::FilesystemKind;
use disk::{Finding, Level};
use guest_writer::KERNEL_MIN;
use serde::{Deserialize, Serialize};

use crate::guest::boot_header::major_minor;
use crate::guest::compression::Compression;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{FilePlace, Inspection, Kernel, VolumeId};
use crate::plan::Edit;
use crate::vm::DiskController;

/// The small virtual machine of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallVm {
    /// The version of its kernel.
    pub version: String,
    /// The kernel.
    pub kernel: FilePlace,
    /// How its initramfs is packed: as the kernel's own is, which it can unpack.
    pub initramfs: Compression,
    /// What its disks hang on.
    pub controller: DiskController,
    /// The modules that it loads, in this order.
    pub modules: Vec<LoadedModule>,
    /// The volumes that it writes.
    pub volumes: Vec<WrittenVolume>,
}

/// A kernel module that the small virtual machine loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedModule {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: FilePlace,
}

/// A volume that the small virtual machine writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenVolume {
    /// Which.
    pub volume: VolumeId,
    /// Its filesystem.
    pub filesystem: FilesystemKind,
}

impl SmallVm {
    /// The filesystem of a volume that it writes.
    #[must_use]
    pub fn writes(&self, volume: VolumeId) -> Option<FilesystemKind> {
        let mut volumes = self.volumes.iter();
        let written = volumes.find(|written| written.volume == volume);
        written.map(|written| written.filesystem)
    }

    /// The volumes that its kernel and modules are on.
    pub(crate) fn read_volumes(&self) -> impl Iterator<Item = VolumeId> {
        let modules = self.modules.iter().map(|module| module.file.volume);
        modules.chain([self.kernel.volume])
    }
}

impl fmt::Display for SmallVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "small virtual machine: kernel {} of {}, disks on {}",
            self.version, self.kernel, self.controller
        )?;
        for written in &self.volumes {
            writeln!(f, "  writes {} ({})", written.volume, written.filesystem)?;
        }
        let names = self.modules.iter().map(|module| module.name.as_str());
        writeln!(f, "  loads {}", names.collect::<Vec<_>>().join(", "))
    }
}

/// The machine for the edits that need one; a finding where no kernel can do it.
pub(super) fn plan(
    inspection: &Inspection,
    edits: &[Edit],
    findings: &mut Vec<Finding>,
) -> Option<SmallVm> {
    let volumes = inspection.volumes();
    let needs = volumes.contents().filter_map(|(volume, content)| {
        let filesystem = content.kind;
        let is_meant = matches!(filesystem, FilesystemKind::Xfs | FilesystemKind::Btrfs)
            && edits.iter().any(|edit| edit.place.volume == volume);
        is_meant.then_some(WrittenVolume { volume, filesystem })
    });
    let needs: Vec<WrittenVolume> = needs.collect();
    let first = needs.first()?;
    let mut why_not = Vec::new();
    for kernel in &inspection.kernels {
        match obstacle(kernel, inspection, &needs) {
            None => return small_vm(kernel, needs),
            Some(obstacle) => why_not.push((kernel, obstacle)),
        }
    }
    let place = volumes.name(first.volume);
    findings.push(refusal(place, first.filesystem, &why_not));
    None
}

/// Why a kernel cannot write.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Obstacle {
    Bits,
    Age,
    Disks,
    Filesystem(FilesystemKind),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits => f.write_str("it is not a 64-bit kernel"),
            Self::Age => {
                let (major, minor) = KERNEL_MIN;
                write!(f, "it is older than Linux {major}.{minor}")
            }
            Self::Disks => f.write_str("it has drivers for no virtual disk"),
            Self::Filesystem(kind) => write!(f, "it has no driver for {kind}"),
        }
    }
}

fn obstacle(kernel: &Kernel, inspection: &Inspection, needs: &[WrittenVolume]) -> Option<Obstacle> {
    let Some(writing) = &kernel.writing else {
        return Some(Obstacle::Disks);
    };
    let system = inspection.system.as_ref();
    let architecture = system.and_then(|system| system.architecture.as_deref());
    let is_64_bit = writing.is_64_bit.unwrap_or(architecture != Some("i386"));
    if !is_64_bit {
        return Some(Obstacle::Bits);
    }
    if major_minor(&kernel.version) < KERNEL_MIN {
        return Some(Obstacle::Age);
    }
    if writing.controller.is_none() {
        return Some(Obstacle::Disks);
    }
    let mut kinds = needs.iter().map(|need| need.filesystem);
    kinds
        .find(|kind| !writing.filesystems.contains(kind))
        .map(Obstacle::Filesystem)
}

fn small_vm(kernel: &Kernel, volumes: Vec<WrittenVolume>) -> Option<SmallVm> {
    let writing = kernel.writing.as_ref()?;
    let modules = writing.modules.iter().map(|module| LoadedModule {
        name: module.name.clone(),
        file: module.file.clone(),
    });
    let own = kernel.initramfs.as_ref();
    let initramfs = own.map(|initramfs| initramfs.compression);
    Some(SmallVm {
        version: kernel.version.clone(),
        kernel: kernel.image.clone(),
        initramfs: initramfs
            .filter(|form| form.can_compress())
            .unwrap_or(Compression::None),
        controller: writing.controller?,
        modules: modules.collect(),
        volumes,
    })
}

fn refusal(place: String, kind: FilesystemKind, why_not: &[(&Kernel, Obstacle)]) -> Finding {
    let reasons: Vec<String> = why_not
        .iter()
        .map(|(kernel, obstacle)| format!("{}: {obstacle}", kernel.version))
        .collect();
    let is_for_bits = matches!(why_not.first(), Some((_, Obstacle::Bits)));
    let code = match is_for_bits {
        true => "writer.kernel-32-bit",
        false => "writer.no-kernel",
    };
    let problem = format!(
        "{kind} is written by the guest's own kernel, and none can do it here ({})",
        match reasons.is_empty() {
            true => "there is none".to_owned(),
            false => reasons.join("; "),
        }
    );
    finding(Level::Error, code, place, problem)
        .remedy("install the distribution's own 64-bit kernel on the server and take a new image")
}

#[cfg(test)]
mod tests;
