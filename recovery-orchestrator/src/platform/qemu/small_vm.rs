// SPDX-License-Identifier: MIT OR Apache-2.0
//! The small virtual machine in which a guest's own kernel writes what only it writes well.
//!
//! ```text
//! kernel + initramfs (our program is /init) -> QEMU -> disks: NBD, by this process, over overlays
//!                                               `-> first serial port: console, second: reports
//! ```
//!
//! The kernel is unpacked here where it can be started so, which takes less of the processors and of
//! memory than its own loader in an emulated processor; a second run takes the loader.
//!
//! It has no network, no screen and no monitor, and dies with this program. It ends itself by a
//! restart, which is its end here. What it writes is kept apart until it has done all of its work: a
//! machine that had too little memory is run again with more.
//!
//! **Limits:** three minutes with little memory, ten with more; 4 MiB of reports and 16 MiB of console,
//! which a broken kernel may write.

mod unpacked;

use std::fmt;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use converter::apply::{WriterDisk, WriterMachine, WriterOrder, WriterOutput};
use converter::vm::DiskController;
use disk::block::{Overlay, OverlayOptions};
use disk::{Monitor, ReadAt, WriteAt};
use image_library::chain_text;
use serde_json::json;

use super::command::{SANDBOX, escaped, export_name};
use super::{Accelerator, Qemu};
use crate::error::{Error, Result};
use crate::file;
use crate::interrupt::Interrupt;
use crate::nbd::{Access, Export, Server};
use crate::process::{Lifetime, spawn};
use unpacked::Unpacked;

/// Emulation on a busy computer takes a minute.
const PATIENCE: Duration = Duration::from_secs(600);
/// A machine with too little memory may never come to an end.
const FIRST_PATIENCE: Duration = Duration::from_secs(180);
const TICK: Duration = Duration::from_millis(20);
const REPORT_BYTES_MAX: u64 = 4 << 20;
const CONSOLE_BYTES_MAX: u64 = 16 << 20;
const CONSOLE_TAIL_BYTES: u64 = 64 << 10;
const QEMU_LOG_TAIL_BYTES: u64 = 4 << 10;
const PROGRAM_BYTES_MAX: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
/// Room for translated code. A start makes 50 MiB; with 8 it takes a twentieth longer than with 16.
const TRANSLATIONS_MIB: u64 = 8;
const HINT: &str = "build it with scripts/build-guest-writer.sh, put it beside relevo or into \
                    ../libexec/relevo, or name it in RELEVO_GUEST_WRITER";

/// Opens the hypervisor when it is wanted: what it can do here is found out by trying.
pub type OpenQemu = dyn Fn() -> Result<Qemu> + Send + Sync;

/// Runs small virtual machines; until then, nothing is looked for.
pub struct SmallVm {
    /// Opens the hypervisor.
    pub open: Box<OpenQemu>,
    /// Where the program that writes may be; the first that can be used is.
    pub programs: Vec<PathBuf>,
    /// Where directories for its files are made; the path is short, because there are sockets in it.
    pub temporary: PathBuf,
    /// When to end early.
    pub interrupt: Interrupt,
}

impl fmt::Debug for SmallVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmallVm")
            .field("programs", &self.programs)
            .finish_non_exhaustive()
    }
}

impl WriterMachine for SmallVm {
    fn program(&self) -> converter::Result<Vec<u8>> {
        program(&self.programs).map_err(|problem| converter::Error::WriterUnavailable {
            problem,
            hint: Some(HINT.to_owned()),
        })
    }

    fn run(&self, order: WriterOrder, monitor: &dyn Monitor) -> converter::Result<WriterOutput> {
        let outcome = || -> Result<WriterOutput> {
            let directory = tempfile::Builder::new()
                .prefix("relevo-writer-")
                .tempdir_in(&self.temporary)
                .map_err(Error::file("create a directory in", &self.temporary))?;
            let qemu = (self.open)()?;
            Prepared::new(&qemu, order, directory.path(), &self.interrupt)?.run(monitor)
        };
        outcome().map_err(|error| match error {
            Error::Interrupted => converter::Error::Interrupted,
            error => converter::Error::WriterUnavailable {
                problem: chain_text(&error),
                hint: error.hint(),
            },
        })
    }
}

/// The first program that is there and can be used.
fn program(places: &[PathBuf]) -> Result<Vec<u8>, String> {
    let mut problems = Vec::new();
    for path in places {
        let is_small = fs::metadata(path).is_ok_and(|found| found.len() <= PROGRAM_BYTES_MAX);
        match fs::read(path) {
            Ok(bytes) if is_small && is_static(&bytes) => return Ok(bytes),
            Ok(_) => problems.push(format!(
                "{} is no static program for x86-64",
                path.display()
            )),
            Err(error) => problems.push(format!("{}: {error}", path.display())),
        }
    }
    Err(format!(
        "there is no relevo-guest-writer ({})",
        problems.join("; ")
    ))
}

/// An executable for x86-64 that asks for no loader (`PT_INTERP`).
fn is_static(bytes: &[u8]) -> bool {
    let word = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let check = || {
        let is_x86_64 = bytes.starts_with(b"\x7fELF\x02\x01") && word(18)? == 62;
        let table = u64::from_le_bytes(*bytes.get(32..)?.first_chunk()?);
        let (size, count) = (usize::from(word(54)?), usize::from(word(56)?));
        let mut start = usize::try_from(table).ok()?;
        for _ in 0..count {
            if bytes.get(start..)?.first_chunk()? == &[3, 0, 0, 0] {
                return Some(false);
            }
            start = start.checked_add(size)?;
        }
        Some(is_x86_64)
    };
    check().unwrap_or(false)
}

/// Where the files of a machine are.
struct Places {
    kernel: PathBuf,
    initramfs: PathBuf,
    socket: PathBuf,
    console: PathBuf,
    report: PathBuf,
    log: PathBuf,
}

/// A machine before it runs.
struct Prepared<'a> {
    qemu: &'a Qemu,
    order: WriterOrder,
    places: Places,
    /// With little memory, its kernel unpacked; `None` where that cannot be.
    unpacked: Option<Unpacked>,
    interrupt: &'a Interrupt,
}

impl<'a> Prepared<'a> {
    fn new(
        qemu: &'a Qemu,
        mut order: WriterOrder,
        directory: &Path,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let place = |name: &str| directory.join(name);
        let places = Places {
            kernel: place("kernel"),
            initramfs: place("initramfs"),
            socket: place("nbd"),
            console: place("console.log"),
            report: place("report"),
            log: place("qemu.log"),
        };
        // Beside the machine, which reads them from the files, they are only in the way.
        let kernel = mem::take(&mut order.kernel);
        file::write(&places.kernel, &kernel)?;
        file::write(&places.initramfs, &mem::take(&mut order.initramfs))?;
        let unpacked = if order.memory_bytes < order.memory_bytes_max {
            unpacked(&kernel, order.memory_bytes, directory)
        } else {
            None
        };
        Ok(Self {
            qemu,
            order,
            places,
            unpacked,
            interrupt,
        })
    }

    /// With little memory, and where that does not do, with much, and as plainly as it goes.
    fn run(&self, monitor: &dyn Monitor) -> Result<WriterOutput> {
        let order = &self.order;
        if order.memory_bytes < order.memory_bytes_max {
            let first = Start {
                memory_bytes: order.memory_bytes,
                unpacked: self.unpacked.as_ref(),
                patience: FIRST_PATIENCE,
            };
            let problem = match self.attempt(&first) {
                Ok(attempt) if self.has_done(&attempt) => return self.keep(attempt),
                Ok(_) => "its work was not done".to_owned(),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => chain_text(&error),
            };
            tracing::info!(problem, "the small virtual machine gets more memory");
            monitor.stage("Writing once more, in a virtual machine with more memory");
        }
        let attempt = self.attempt(&Start {
            memory_bytes: order.memory_bytes_max,
            unpacked: None,
            patience: PATIENCE,
        })?;
        if self.has_done(&attempt) {
            self.keep(attempt)
        } else {
            Ok(attempt.output)
        }
    }

    /// One run, which leaves the disks as they are.
    fn attempt(&self, start: &Start<'_>) -> Result<Attempt> {
        let Self { qemu, order, .. } = self;
        let places = &self.places;
        let written: Vec<Arc<Overlay>> = order.disks.iter().map(overlay).collect();
        // Ends after the machine, which is dropped before it.
        let _server = Server::start(&places.socket, exports(&order.disks, &written))?;
        let mut machine = Process(spawn(
            &qemu.binary,
            &arguments(qemu, order, start, places),
            None,
            &places.log,
            Lifetime::WithCommand,
        )?);
        machine.wait(places, start.patience, self.interrupt)?;
        let output = WriterOutput {
            report: file::read_tail(&places.report, REPORT_BYTES_MAX)?,
            console: file::read_tail(&places.console, CONSOLE_TAIL_BYTES)?,
        };
        Ok(Attempt { output, written })
    }

    fn has_done(&self, attempt: &Attempt) -> bool {
        (self.order.is_done)(&attempt.output.report)
    }

    /// Moves to the disks what was written.
    fn keep(&self, attempt: Attempt) -> Result<WriterOutput> {
        for (overlay, disk) in attempt.written.into_iter().zip(&self.order.disks) {
            let kept = overlay.write_to(&*disk.device);
            kept.map_err(|error| failed(chain_text(&error)))?;
        }
        Ok(attempt.output)
    }
}

/// How a machine is started.
struct Start<'a> {
    memory_bytes: u64,
    /// With this memory, where the kernel is already; otherwise the kernel's own loader brings it there.
    unpacked: Option<&'a Unpacked>,
    patience: Duration,
}

/// What came of a run.
struct Attempt {
    output: WriterOutput,
    /// What it wrote on each disk.
    written: Vec<Arc<Overlay>>,
}

/// `None` where the kernel's own loader is the only way.
fn unpacked(kernel: &[u8], memory_bytes: u64, directory: &Path) -> Option<Unpacked> {
    match Unpacked::new(kernel, memory_bytes, directory) {
        Ok(unpacked) => Some(unpacked),
        Err(problem) => {
            let problem = chain_text(&problem);
            tracing::info!(problem, "the kernel is started by its own loader");
            None
        }
    }
}

fn overlay(disk: &WriterDisk) -> Arc<Overlay> {
    let below = Arc::clone(&disk.device) as Arc<dyn ReadAt>;
    Arc::new(Overlay::new(below, OverlayOptions::default()))
}

fn exports(disks: &[WriterDisk], written: &[Arc<Overlay>]) -> Vec<Export> {
    let export = |(index, (disk, overlay)): (usize, (&WriterDisk, &Arc<Overlay>))| Export {
        name: export_name(index),
        access: Access::Writable(Arc::clone(overlay) as Arc<dyn WriteAt>),
        block_size_bytes: disk.sector_size.bytes(),
    };
    disks.iter().zip(written).enumerate().map(export).collect()
}

/// A process that ends when it is dropped.
struct Process(Child);

impl Process {
    fn wait(&mut self, places: &Places, patience: Duration, interrupt: &Interrupt) -> Result<()> {
        let end = Instant::now() + patience;
        loop {
            let status = self.0.try_wait().map_err(Error::file("wait for", "QEMU"))?;
            match status {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let said = file::read_tail(&places.log, QEMU_LOG_TAIL_BYTES)?;
                    let said = String::from_utf8_lossy(&said).trim().to_owned();
                    return Err(failed(format!("QEMU has ended ({status}): {said}")));
                }
                None => {}
            }
            interrupt.check()?;
            if Instant::now() > end {
                let minutes = patience.as_secs() / 60;
                return Err(failed(format!("it did not end within {minutes} minutes")));
            }
            for (path, most) in [
                (&places.report, REPORT_BYTES_MAX),
                (&places.console, CONSOLE_BYTES_MAX),
            ] {
                // There is none before QEMU has made it.
                if fs::metadata(path).is_ok_and(|found| found.len() > most) {
                    return Err(failed(format!("it wrote more than {most} bytes to a port")));
                }
            }
            thread::sleep(TICK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn failed(problem: String) -> Error {
    Error::Machine {
        name: "writer".to_owned(),
        problem,
        hint: None,
    }
}

/// The small mainboard, started from outside of its disks, whose controllers are where the order says.
fn arguments(qemu: &Qemu, order: &WriterOrder, start: &Start<'_>, places: &Places) -> Vec<String> {
    let accelerator = qemu.host.accelerator;
    let memory = format!("{}M", start.memory_bytes.div_ceil(MIB));
    let kernel = start
        .unpacked
        .map_or(&places.kernel, |unpacked| &unpacked.entry);
    let mut arguments: Vec<String> = ["-no-user-config", "-nodefaults", "-no-reboot"]
        .map(str::to_owned)
        .to_vec();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    add("-name", "relevo-writer".to_owned());
    match start.unpacked {
        Some(unpacked) => {
            add("-object", unpacked.memory_object());
            add("-machine", "pc,memory-backend=memory".to_owned());
        }
        None => add("-machine", "pc".to_owned()),
    }
    add("-accel", acceleration(accelerator));
    add("-cpu", accelerator.processor().to_owned());
    add("-m", memory);
    add("-display", "none".to_owned());
    if qemu.host.sandbox {
        add("-sandbox", SANDBOX.to_owned());
    }
    add("-kernel", kernel.display().to_string());
    add("-initrd", places.initramfs.display().to_string());
    add("-append", order.command_line.clone());
    for (id, path) in [("console", &places.console), ("report", &places.report)] {
        add("-chardev", format!("file,id={id},path={}", escaped(path)));
        add("-serial", format!("chardev:{id}"));
    }
    for (index, disk) in order.disks.iter().enumerate() {
        let node = json!({
            "driver": "nbd", "node-name": format!("disk{index}"),
            "server": {"type": "unix", "path": places.socket}, "export": export_name(index),
        });
        add("-blockdev", node.to_string());
        for device in devices(order.controller, index, disk) {
            add("-device", device);
        }
    }
    arguments
}

/// Left to itself, QEMU keeps up to 1 GiB of translated code, most of which a start runs once.
fn acceleration(accelerator: Accelerator) -> String {
    let options = accelerator.options();
    match accelerator {
        Accelerator::Kvm => options.to_owned(),
        Accelerator::Tcg => format!("{options},tb-size={TRANSLATIONS_MIB}"),
    }
}

fn devices(controller: DiskController, index: usize, disk: &WriterDisk) -> Vec<String> {
    let (slot, sector) = (disk.slot, disk.sector_size.bytes());
    let drive = format!(
        "drive=disk{index},logical_block_size={sector},physical_block_size={sector},\
         rerror=report,werror=report"
    );
    match controller {
        DiskController::Ide => {
            vec![format!(
                "ide-hd,bus=ide.{},unit={},{drive}",
                index / 2,
                index % 2
            )]
        }
        DiskController::Sata => vec![
            format!("ich9-ahci,id=sata{index},addr={slot:#x}"),
            format!("ide-hd,bus=sata{index}.0,{drive}"),
        ],
        DiskController::VirtioBlk | DiskController::VirtioScsi | DiskController::ScsiLsi => {
            vec![format!("virtio-blk-pci,addr={slot:#x},discard=off,{drive}")]
        }
    }
}

#[cfg(test)]
mod tests;
