// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries out what waits on filesystems that only the guest's own kernel writes: one run of one small
//! virtual machine for all of them.
//!
//! What the machine says is the word of the guest's kernel, and is not believed: who runs it reads
//! every file again afterwards. Here only its complaints are passed on, and the log of what it wrote
//! must be empty.

use std::mem;
use std::sync::Arc;

use disk::ReadAt as _;
use disk::filesystem::FilesystemKind;
use guest_writer::{Device, Mount, ORDER, Order, Report};

use super::deferred::{self, Operations, lock};
use super::{ApplyOptions, FILE_BYTES_MAX, Volumes};
use crate::apply::machine::{Work, WriterDisk, WriterOrder, WriterOutput};
use crate::error::{Error, Result};
use crate::guest::boot_header::BootHeader;
use crate::guest::compression::{self, Compression};
use crate::guest::cpio;
use crate::inspect::VolumeId;
use crate::plan::SmallVm;
use crate::stack::{Part, filesystem_on};
use crate::vm::DiskController;

/// The small mainboard's own devices are below.
const FIRST_SLOT: u8 = 5;
const SLOTS: u8 = 24;
/// Of the mainboard's IDE controller.
const IDE_ADDRESS: &str = "0000:00:01.1";
const IDE_DISKS: u8 = 4;
const MODULE_BYTES_MAX: u64 = 64 << 20;
/// What is enough for every kernel, and to replay any log.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// The initramfs is there packed and unpacked, and what is unpacked gets half of the memory at most.
const INITRAMFS_TIMES_MAX: u64 = 4;
/// What filesystems and their drivers work with. Of three kernels and servers, one needs about 16 MiB,
/// the others less.
const WORK_BYTES: u64 = 22 << 20;
/// Nothing of the guest is started, so nothing needs its policies, and a program that is ours and alone
/// is not kept from reading what the kernel has: a tenth less CPU. A kernel in trouble ends the machine.
/// One that moves itself to a random place touches 16 MiB more, and gains nothing here: it comes from
/// where the filesystems come from. Nor does it try out its ciphers, which takes a sixth of its CPU:
/// what it writes is read again by other code.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic selinux=0 nokaslr \
                            mitigations=off cryptomgr.notests rdinit=/init";
const REPORT_BYTES_MAX: usize = 4 << 20;
const ARCHIVE: &str = "the small virtual machine's initramfs";
const CONSOLE_LINES: usize = 12;

/// A filesystem with what is to be done in it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: VolumeId,
    /// What it lies on; the first is the volume that it is called by.
    pub(super) parts: Vec<Part>,
    pub(super) kind: FilesystemKind,
    pub(super) operations: Operations,
}

/// Does it. All that is read is read before, and then closed: the machine needs the memory.
pub(super) fn write(
    waiting: &[Waiting],
    plan: &SmallVm,
    volumes: &mut Volumes,
    options: &ApplyOptions,
    work: Work<'_>,
) -> Result<()> {
    work.monitor
        .stage("Writing with the guest's own kernel in a small virtual machine");
    let disks = disks(waiting, plan.controller)?;
    let (order, archive) = order(waiting, plan, volumes, options)?;
    let initramfs = initramfs(&order, archive, work)?;
    let packed =
        compression::compress(&initramfs, plan.initramfs).map_err(Error::guest(ARCHIVE))?;
    let kernel = volumes.read(&plan.kernel, FILE_BYTES_MAX)?;
    let memory = Memory::new(&kernel, initramfs.len(), packed.len());
    drop(initramfs);
    volumes.close(waiting.iter().map(|filesystem| filesystem.id));
    let output = work.machine.run(
        WriterOrder {
            kernel,
            initramfs: packed,
            command_line: COMMAND_LINE.to_owned(),
            controller: plan.controller,
            disks,
            memory_bytes: memory.first_bytes,
            memory_bytes_max: memory.most_bytes,
            is_done,
        },
        work.monitor,
    )?;
    judge(&output, &order, waiting)?;
    for filesystem in waiting {
        check_log(filesystem)?;
    }
    Ok(())
}

/// How much memory a machine gets.
struct Memory {
    first_bytes: u64,
    most_bytes: u64,
}

impl Memory {
    fn new(kernel: &[u8], unpacked: usize, packed: usize) -> Self {
        let (unpacked, packed) = (unpacked as u64, packed as u64);
        let most_bytes = MEMORY_BYTES_MAX + INITRAMFS_TIMES_MAX * unpacked;
        // What is unpacked is mostly modules, of which the kernel makes another copy.
        let init_bytes = BootHeader::read(kernel).and_then(|header| header.init_size_bytes());
        let least_bytes =
            init_bytes.map(|init| u64::from(init) + packed + 2 * unpacked + WORK_BYTES);
        Self {
            first_bytes: least_bytes.map_or(most_bytes, |least| least.min(most_bytes)),
            most_bytes,
        }
    }
}

fn check_log(filesystem: &Waiting) -> Result<()> {
    if !matches!(filesystem.kind, FilesystemKind::Xfs | FilesystemKind::Btrfs) {
        return Ok(());
    }
    let problem = match filesystem_on(&filesystem.parts) {
        Ok(opened) if !opened.is_log_dirty() => return Ok(()),
        Ok(_) => "it was not unmounted".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(not_written(filesystem.id, problem))
}

fn disks(waiting: &[Waiting], controller: DiskController) -> Result<Vec<WriterDisk>> {
    let (most, can_large) = match controller {
        DiskController::Ide => (IDE_DISKS, false),
        DiskController::Sata => (SLOTS, false),
        DiskController::VirtioBlk | DiskController::VirtioScsi | DiskController::ScsiLsi => {
            (SLOTS, true)
        }
    };
    let mut disks = Vec::new();
    let all = waiting.iter().flat_map(|filesystem| &filesystem.parts);
    for (part, number) in all.zip(0_u8..) {
        let Part {
            id,
            device,
            sector_size,
        } = part;
        if number >= most {
            return Err(not_written(*id, format!("more than {most} volumes")));
        }
        if !can_large && sector_size.bytes() != 512 {
            let problem = format!("this kernel's {controller} has no sectors of 4096 bytes");
            return Err(not_written(*id, problem));
        }
        disks.push(WriterDisk {
            device: Arc::clone(device),
            sector_size: *sector_size,
            slot: FIRST_SLOT + number,
        });
    }
    Ok(disks)
}

fn order(
    waiting: &[Waiting],
    plan: &SmallVm,
    volumes: &Volumes,
    options: &ApplyOptions,
) -> Result<(Order, Archive)> {
    let mut archive = Archive::new(options);
    let mut order = Order {
        now_unix_seconds: options.now_unix_seconds,
        modules: Vec::new(),
        mounts: Vec::new(),
        operations: Vec::new(),
    };
    for (number, module) in plan.modules.iter().enumerate() {
        let bytes = volumes.read(&module.file, MODULE_BYTES_MAX)?;
        let bytes = match Compression::detect(&bytes) {
            Compression::None => bytes,
            packed => {
                compression::decompress(&bytes, packed, MODULE_BYTES_MAX)
                    .map_err(Error::guest(&module.file.guest_path))?
                    .0
            }
        };
        let name = format!("modules/{number}-{}.ko", module.name);
        archive.file(&name, &bytes)?;
        order.modules.push(name);
    }
    let mut disk = 0;
    for (mount, filesystem) in waiting.iter().enumerate() {
        order
            .mounts
            .push(mount_of(filesystem, disk, plan.controller));
        disk += filesystem.parts.len();
        for operation in mem::take(&mut *lock(&filesystem.operations)) {
            let number = order.operations.len();
            let action = archive.action(&operation.action, number)?;
            order.operations.push(guest_writer::Operation {
                mount,
                path: operation.path,
                action,
            });
        }
    }
    Ok((order, archive))
}

/// How a filesystem is mounted whose first disk is the machine's `first`.
fn mount_of(filesystem: &Waiting, first: usize, controller: DiskController) -> Mount {
    let (name, options) = match filesystem.kind {
        // Snapshots of one volume have one UUID.
        FilesystemKind::Xfs => ("xfs", "nouuid"),
        // Paths are told from the top, whatever subvolume is mounted by default.
        _ => ("btrfs", "subvolid=5"),
    };
    let device = |(number, part): (usize, &Part)| {
        let (pci, index) = match controller {
            DiskController::Ide => (IDE_ADDRESS.to_owned(), number),
            _ => {
                let slot = usize::from(FIRST_SLOT) + number;
                (format!("0000:00:{slot:02x}.0"), 0)
            }
        };
        Device {
            pci,
            index,
            size_bytes: part.device.length_bytes(),
        }
    };
    Mount {
        devices: (first..).zip(&filesystem.parts).map(device).collect(),
        filesystem: name.to_owned(),
        options: options.to_owned(),
    }
}

/// The initramfs while it is made.
#[derive(Debug)]
struct Archive(cpio::Writer);

impl Archive {
    fn new(options: &ApplyOptions) -> Self {
        Self(cpio::Writer::new(
            u32::try_from(options.now_unix_seconds).unwrap_or(0),
        ))
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.0.file(name, 0o644, bytes).map_err(Error::guest(name))
    }

    fn content(&mut self, bytes: &[u8], number: usize) -> Result<String> {
        let name = format!("content/{number}");
        self.file(&name, bytes)?;
        Ok(name)
    }

    fn action(&mut self, action: &deferred::Action, number: usize) -> Result<guest_writer::Action> {
        use deferred::Action;
        Ok(match action {
            Action::Write(bytes, attributes) => guest_writer::Action::Write {
                content: self.content(bytes, number)?,
                attributes: attributes.as_ref().map(attributes_of),
            },
            Action::Append(bytes) => guest_writer::Action::Append {
                content: self.content(bytes, number)?,
            },
            Action::CreateDirectory(attributes) => guest_writer::Action::CreateDirectory {
                attributes: attributes_of(attributes),
            },
            Action::CreateSymlink(target) => guest_writer::Action::CreateSymlink {
                target: target.clone(),
            },
            Action::Remove => guest_writer::Action::Remove,
            Action::Rename(to) => guest_writer::Action::Rename { to: to.clone() },
        })
    }
}

fn attributes_of(attributes: &disk::filesystem::Attributes) -> guest_writer::Attributes {
    guest_writer::Attributes {
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        selinux: attributes.selinux.clone(),
    }
}

fn initramfs(order: &Order, files: Archive, work: Work<'_>) -> Result<Vec<u8>> {
    let program = work.machine.program()?;
    let order = serde_json::to_vec(order).map_err(|error| Error::File {
        place: ORDER.to_owned(),
        problem: error.to_string(),
    })?;
    // Directories first: the kernel makes none for a file.
    let mut whole = cpio::Writer::new(0);
    let failed = |source| Error::guest(ARCHIVE)(source);
    for directory in ["modules", "content", "sys", "mnt"] {
        whole.directory(directory, 0o755).map_err(failed)?;
    }
    whole.file("init", 0o755, &program).map_err(failed)?;
    whole.file(ORDER, 0o644, &order).map_err(failed)?;
    let mut bytes = whole.finish();
    bytes.extend(files.0.finish());
    Ok(bytes)
}

/// What the program said.
fn reports(said: &[u8]) -> impl Iterator<Item = Report> {
    let said = said.get(..REPORT_BYTES_MAX).unwrap_or(said);
    // A line that is none of ours is the kernel's, or torn.
    said.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
}

fn is_done(said: &[u8]) -> bool {
    reports(said).any(|report| report == Report::Finished)
}

/// What the program has to say, if it is not that all is done.
fn judge(output: &WriterOutput, order: &Order, waiting: &[Waiting]) -> Result<()> {
    if is_done(&output.report) {
        return Ok(());
    }
    let mut problems = Vec::new();
    let mut place = String::new();
    for report in reports(&output.report) {
        match report {
            Report::Started | Report::Mounted { .. } | Report::Done { .. } | Report::Finished => {}
            Report::Module { path, problem } => problems.push(format!("{path}: {problem}")),
            Report::MountFailed { mount, problem } => {
                let kind = order
                    .mounts
                    .get(mount)
                    .map_or("", |m| m.filesystem.as_str());
                let volume = waiting.get(mount).map(|w| w.id.to_string());
                place = volume.unwrap_or_default();
                problems.push(format!("{kind}: {problem}"));
            }
            Report::Failed { operation, problem } => {
                let path = order.operations.get(operation).map(|o| o.path.clone());
                place = path.unwrap_or_default();
                problems.push(problem);
            }
            Report::Broken { problem } => problems.push(problem),
        }
    }
    if place.is_empty() {
        problems.push("the machine ended before its work was done".to_owned());
        let names = waiting.iter().map(|w| w.id.to_string());
        place = names.collect::<Vec<_>>().join(", ");
    }
    let console = last_lines(&output.console);
    if !console.is_empty() {
        problems.push(format!("the kernel's last messages: {console}"));
    }
    Err(Error::NotWritten {
        place,
        problem: problems.join("; "),
    })
}

/// The end of a console as one line, without what could do something to a terminal.
fn last_lines(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    let plain = |line: &str| -> String { line.chars().filter(|c| !c.is_control()).collect() };
    let lines: Vec<String> = text
        .lines()
        .map(plain)
        .filter(|line| !line.trim().is_empty())
        .collect();
    let start = lines.len().saturating_sub(CONSOLE_LINES);
    lines.get(start..).unwrap_or_default().join(" | ")
}

fn not_written(id: VolumeId, problem: String) -> Error {
    Error::NotWritten {
        place: id.to_string(),
        problem,
    }
}

#[cfg(test)]
mod tests;
