// SPDX-License-Identifier: MIT OR Apache-2.0
//! A converted image as files: disks and the documents that define the machine.
//!
//! ```text
//! ExportPlan::new ─► files, findings ─► check ─► write ─► files
//! ```
//!
//! Nothing that exists is replaced, but a text that would be the same may be there. Each file has its
//! name only when it is whole and durable; the disks come first, so that a document never names a disk
//! that is not there. Whoever asks for an early end finds the files that were finished before, and
//! no others. Raw and qcow2 files are written here, an OVA's archive too; the other formats by
//! `qemu-img`, which is looked for before anything is written.

#[cfg(test)]
mod kernel_tests;
mod ova;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use converter::export::{
    Controller, DiskFile, DiskFormat, Export, Exported, GuestFacts, KernelFile, Networks, Target,
    disk_files, export, kernel_files,
};
use converter::vm::{DirectBoot, KernelFiles, VmDefinition};
use disk::block::{copy_to_qcow2, copy_to_raw};
use disk::{Finding, Level, Monitor, ReadAt};
use image_library::DiskIndex;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::file;
use crate::interrupt::Interrupt;
use crate::platform::qemu_img;
use watched::Watched;

/// The name of the file with the machine as we know it.
const MACHINE: &str = "machine.json";
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A disk.
    Disk,
    /// Disks and document in one.
    Archive,
    /// A kernel that the machine is given from outside.
    Kernel,
    /// The initramfs of such a kernel.
    Initramfs,
    /// The document that defines the machine for its platform.
    Document,
    /// The machine, independent of any platform, as JSON.
    Machine,
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub kind: FileKind,
}

/// What is written where, before it is.
#[derive(Debug)]
pub struct ExportPlan<'a> {
    /// What for.
    pub target: Target,
    /// The machine's files for it, and what does not fit.
    pub exported: Exported,
    /// The files, in the order in which they are written.
    pub files: Vec<ExportFile>,
    machine: &'a ExportMachine<'a>,
    disks: Vec<DiskFile>,
    directory: PathBuf,
}

/// The machine that is exported.
#[derive(Debug)]
pub struct ExportMachine<'a> {
    /// The machine.
    pub vm: &'a VmDefinition,
    /// What its guest has drivers for.
    pub guest: GuestFacts,
    /// Which networks its cards are on.
    pub networks: Networks,
    /// The time that files inside an archive have, in seconds since 1970.
    pub unix_seconds: u64,
}

/// What an export is written with.
#[derive(Debug, Clone, Copy)]
pub struct Writing<'a> {
    /// Opens the converted disks.
    pub disks: &'a dyn Disks,
    /// Asks for an early end.
    pub interrupt: &'a Interrupt,
}

/// Converted disks.
pub trait Disks: std::fmt::Debug {
    /// Opens one.
    fn open(&self, index: DiskIndex) -> Result<Arc<dyn ReadAt>>;

    /// Reads the kernel that a machine is given from outside.
    fn read_kernel(&self, kernel: &DirectBoot) -> Result<KernelFiles>;
}

impl<'a> ExportPlan<'a> {
    /// Plans an export into a directory: an absolute path, because documents name it.
    #[must_use]
    pub fn new(target: Target, machine: &'a ExportMachine<'a>, directory: &Path) -> Self {
        let disks = disk_files(target, machine.vm, &machine.guest);
        let mut plan = Self {
            target,
            exported: Exported {
                hardware: None,
                document: None,
                findings: Vec::new(),
            },
            files: Vec::new(),
            machine,
            disks,
            directory: directory.to_owned(),
        };
        plan.exported = plan.with_export(|all| export(target, all));
        plan.files = plan.list();
        plan
    }

    fn with_export<T>(&self, use_it: impl FnOnce(&Export<'_>) -> T) -> T {
        use_it(&Export {
            vm: self.machine.vm,
            guest: &self.machine.guest,
            disks: &self.disks,
            networks: &self.machine.networks,
            directory: &self.directory.to_string_lossy(),
        })
    }

    fn list(&self) -> Vec<ExportFile> {
        let file = |name: &str, kind| ExportFile {
            path: self.directory.join(name),
            kind,
        };
        let mut files = Vec::new();
        if self.target == Target::Ova {
            let name = format!("{}.ova", self.machine.vm.name);
            files.push(file(&name, FileKind::Archive));
        } else {
            let disks = self.disks.iter();
            files.extend(disks.map(|disk| file(&disk.name, FileKind::Disk)));
            let kernel = kernel_files(self.target, self.machine.vm).into_iter();
            files.extend(kernel.map(|it| match it {
                KernelFile::Kernel => file(it.name(), FileKind::Kernel),
                KernelFile::Initramfs => file(it.name(), FileKind::Initramfs),
            }));
            let document = self.exported.document.iter();
            files.extend(document.map(|document| file(&document.name, FileKind::Document)));
        }
        files.push(file(MACHINE, FileKind::Machine));
        files
    }

    /// An error where the guest would not start there, a program is missing, or a file is in the way.
    pub fn check(&self) -> Result<()> {
        let errors: Vec<&Finding> = self
            .exported
            .findings
            .iter()
            .filter(|finding| finding.level == Level::Error)
            .collect();
        if let Some(first) = errors.first() {
            let problems = errors.iter().map(|finding| {
                let Finding {
                    place,
                    problem,
                    code,
                    ..
                } = finding;
                format!("{place}: {problem} [{code}]")
            });
            let problems = problems.collect::<Vec<_>>().join("; ");
            return Err(Error::Request {
                problem: format!(
                    "{} cannot be written as {}: {problems}",
                    self.machine.vm.name,
                    self.target.name()
                ),
                hint: first.remedy.clone(),
            });
        }
        if qemu_img::is_needed(self.target.disk_format()) {
            qemu_img::check()?;
        }
        self.files
            .iter()
            .try_for_each(|file| self.check_place(file))
    }

    fn check_place(&self, file: &ExportFile) -> Result<()> {
        let in_the_way = match fs::symlink_metadata(&file.path) {
            Err(_) => false,
            // What cannot be read as our text is something else.
            Ok(_) => match (self.text(file), file::read_text(&file.path, TEXT_BYTES_MAX)) {
                (Some(text), Ok(found)) => text != found,
                _ => true,
            },
        };
        if in_the_way {
            return Err(Error::Request {
                problem: format!("{} exists already", file.path.display()),
                hint: Some(
                    "nothing is overwritten: remove it, or choose another directory".to_owned(),
                ),
            });
        }
        Ok(())
    }

    /// The content of a file that is a text.
    fn text(&self, file: &ExportFile) -> Option<String> {
        match file.kind {
            FileKind::Disk | FileKind::Archive | FileKind::Kernel | FileKind::Initramfs => None,
            FileKind::Document => {
                let document = self.exported.document.as_ref()?;
                Some(document.text.clone())
            }
            FileKind::Machine => {
                let text = serde_json::to_string_pretty(self.machine.vm);
                Some(text.unwrap_or_default())
            }
        }
    }

    /// Writes everything; `done` is told of each file.
    pub fn write(
        &self,
        writing: Writing<'_>,
        monitor: &dyn Monitor,
        done: &mut dyn FnMut(&ExportFile),
    ) -> Result<()> {
        let mut disks = self.disks.iter();
        let mut kernel = self.kernel(writing)?;
        for file in &self.files {
            writing.interrupt.check()?;
            match (file.kind, self.text(file)) {
                (FileKind::Archive, _) => ova::write(self, writing, &file.path, monitor)?,
                (FileKind::Kernel | FileKind::Initramfs, _) => {
                    // There is one such file for each.
                    let Some(bytes) = kernel.pop_front() else {
                        continue;
                    };
                    file::write_atomically(&file.path, &bytes)?;
                }
                (_, Some(text)) => file::write_atomically(&file.path, text.as_bytes())?,
                (_, None) => {
                    // There is one such file for each disk.
                    let Some(disk) = disks.next() else { continue };
                    monitor.stage(&format!("Writing {}", file.path.display()));
                    self.write_disk(writing, disk, &file.path, monitor)?;
                }
            }
            done(file);
        }
        Ok(())
    }

    /// The files that the machine is given besides its disks, in their order.
    fn kernel(&self, writing: Writing<'_>) -> Result<VecDeque<Vec<u8>>> {
        let has_place = !kernel_files(self.target, self.machine.vm).is_empty();
        match &self.machine.vm.direct_boot {
            Some(direct) if has_place => {
                let KernelFiles { kernel, initramfs } = writing.disks.read_kernel(direct)?;
                Ok(std::iter::once(kernel).chain(initramfs).collect())
            }
            _ => Ok(VecDeque::new()),
        }
    }

    fn controller(&self) -> Option<Controller> {
        self.exported.hardware.map(|hardware| hardware.controller)
    }

    fn write_disk(
        &self,
        writing: Writing<'_>,
        disk: &DiskFile,
        path: &Path,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        let device = writing.disks.open(disk.index)?;
        let watched = Arc::new(Watched::new(device, writing.interrupt));
        let written = match disk.format {
            DiskFormat::Raw => copy_to_raw(&*watched, path, monitor)
                .map(drop)
                .map_err(Error::from),
            DiskFormat::Qcow2 => copy_to_qcow2(&*watched, path, monitor)
                .map(drop)
                .map_err(Error::from),
            _ => qemu_img::write(
                &self.source(&watched, disk, writing),
                disk.format,
                path,
                monitor,
            ),
        };
        written.map_err(|error| watched.explain(error))
    }

    fn source<'s>(
        &self,
        watched: &Arc<Watched>,
        disk: &DiskFile,
        writing: Writing<'s>,
    ) -> qemu_img::Source<'s> {
        qemu_img::Source {
            device: Arc::clone(watched) as Arc<dyn ReadAt>,
            sector_size: disk.sector_size,
            controller: self.controller(),
            interrupt: writing.interrupt,
        }
    }
}
