// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disk files in formats that `qemu-img` writes better than we would: VMDK, VHDX, VHD, VDI.
//!
//! `qemu-img` reads the disk as an NBD export of this process, on a socket in a directory of its
//! own: nothing is copied in between, and what is known to be zeros is neither read nor written. A file
//! is written in a directory `NAME.partial` beside its place, under its own name, because a VMDK file
//! has its name inside; it is moved when it is whole and durable. A VHD gets `force_size`: without
//! that its size would be rounded to whole cylinders, and the end of the disk be lost or moved.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use converter::export::{Controller, DiskFormat};
use disk::block::SectorSize;
use disk::{Monitor, ReadAt, Unit};

use crate::error::{Error, Result};
use crate::file;
use crate::interrupt::Interrupt;
use crate::nbd::{Access, Export, Server};

const PROGRAM: &str = "qemu-img";
const EXPORT: &str = "disk";
/// How often it is asked whether the program has ended.
const TICK: Duration = Duration::from_millis(20);
/// What a program may say on standard error, in bytes.
const WORDS_BYTES_MAX: u64 = 16 << 10;
/// Progress is counted in so many parts: hundredths of a percent.
const PARTS: u64 = 10_000;

/// A disk to be written.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// The disk.
    pub(crate) device: Arc<dyn ReadAt>,
    /// Its logical sector size.
    pub(crate) sector_size: SectorSize,
    /// What the disk will hang on, which a VMDK file says.
    pub(crate) controller: Option<Controller>,
    /// Asks for an early end.
    pub(crate) interrupt: &'a Interrupt,
}

/// The name and the options of a format; `None`: we write it ourselves.
fn format_options(
    format: DiskFormat,
    controller: Option<Controller>,
) -> Option<(&'static str, String)> {
    let adapter = match controller {
        Some(Controller::Ide | Controller::Sata) => "ide",
        _ => "lsilogic",
    };
    match format {
        DiskFormat::Raw | DiskFormat::Qcow2 => None,
        DiskFormat::VmdkStreamOptimized => Some((
            "vmdk",
            format!("subformat=streamOptimized,adapter_type={adapter}"),
        )),
        DiskFormat::VmdkSparse => Some((
            "vmdk",
            format!("subformat=monolithicSparse,adapter_type={adapter}"),
        )),
        DiskFormat::Vhdx => Some(("vhdx", "subformat=dynamic".to_owned())),
        DiskFormat::Vhd => Some(("vpc", "subformat=dynamic,force_size=on".to_owned())),
        DiskFormat::Vdi => Some(("vdi", "static=off".to_owned())),
    }
}

/// Whether a format needs the program.
pub(crate) fn is_needed(format: DiskFormat) -> bool {
    format_options(format, None).is_some()
}

/// An error with a hint unless the program is there.
pub(crate) fn check() -> Result<()> {
    let asked = Command::new(PROGRAM)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match asked {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(missing(format!("{PROGRAM} does not work: {status}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(missing(format!("there is no program {PROGRAM}")))
        }
        Err(error) => Err(Error::file("run", PROGRAM)(error)),
    }
}

fn missing(problem: String) -> Error {
    Error::Request {
        problem,
        hint: Some(
            "install it (Debian: apt-get install qemu-utils), or write qcow2 or raw files, which \
             need no other program"
                .to_owned(),
        ),
    }
}

/// Writes a disk to a new file, durable and under its name only when it is whole.
pub(crate) fn write(
    source: &Source<'_>,
    format: DiskFormat,
    path: &Path,
    monitor: &dyn Monitor,
) -> Result<()> {
    let partial = PartialDirectory::create(path)?;
    let target = partial.file();
    convert(source, format, &target, monitor)?;
    File::open(&target)
        .and_then(|file| file.sync_all())
        .map_err(Error::file("write", &target))?;
    file::rename(&target, path)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::file("write", directory))
}

/// A directory for a file that is not whole yet; gone when dropped.
#[derive(Debug)]
pub(crate) struct PartialDirectory {
    directory: PathBuf,
    name: PathBuf,
}

impl PartialDirectory {
    /// Makes it; what an earlier attempt left behind is removed.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut directory = path.as_os_str().to_owned();
        directory.push(".partial");
        let directory = PathBuf::from(directory);
        if directory.is_dir() {
            file::remove_directory(&directory)?;
        } else {
            file::remove_file(&directory)?;
        }
        file::create_directories(&directory)?;
        Ok(Self {
            directory,
            name: path.file_name().map(PathBuf::from).unwrap_or_default(),
        })
    }

    /// Where the file is while it is written.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

impl Drop for PartialDirectory {
    fn drop(&mut self) {
        // The error that ended the work is being told; this one would hide it.
        let _ = file::remove_directory(&self.directory);
    }
}

/// Lets the program write `target`, which is an absolute path: in a relative one it would take what
/// stands before a colon for a protocol.
pub(crate) fn convert(
    source: &Source<'_>,
    format: DiskFormat,
    target: &Path,
    monitor: &dyn Monitor,
) -> Result<()> {
    let Some((name, options)) = format_options(format, source.controller) else {
        return Err(Error::Request {
            problem: format!("{PROGRAM} is not used for {} files", format.ending()),
            hint: None,
        });
    };
    let directory = tempfile::Builder::new()
        .prefix("relevo-nbd-")
        .tempdir()
        .map_err(Error::file("create a directory for", target))?;
    let export = Export {
        name: EXPORT.to_owned(),
        access: Access::ReadOnly(Arc::clone(&source.device)),
        block_size_bytes: source.sector_size.bytes(),
    };
    // Ends before its directory goes.
    let server = Server::start(&directory.path().join("socket"), vec![export])?;
    let uri = server.endpoint().uri(EXPORT);
    let mut child = Command::new(PROGRAM)
        .args(["convert", "-p", "-f", "raw", "-O", name, "-o", &options])
        .arg(&uri)
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(format!("there is no program {PROGRAM}")),
            _ => Error::file("run", PROGRAM)(error),
        })?;
    monitor.expect(source.device.length_bytes(), Unit::Bytes);
    let (status, words) = attend(&mut child, source, monitor)?;
    source.interrupt.check()?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(target, &words, status)),
    }
}

fn failed(target: &Path, words: &str, status: ExitStatus) -> Error {
    let last = words.trim_end().lines().last().unwrap_or("no message");
    let full = words.contains("No space left");
    Error::Request {
        problem: format!(
            "{} cannot be written: {PROGRAM} says: {last} ({status})",
            target.display()
        ),
        hint: full.then(|| "make room on that filesystem and run the command again".to_owned()),
    }
}

/// Waits for the end, tells the progress; gives what was said on standard error.
fn attend(
    child: &mut Child,
    source: &Source<'_>,
    monitor: &dyn Monitor,
) -> Result<(ExitStatus, String)> {
    let (progress, words) = (child.stdout.take(), child.stderr.take());
    let total = source.device.length_bytes();
    thread::scope(|scope| {
        scope.spawn(|| progress.map(|pipe| tell(pipe, total, monitor)));
        let listener = scope.spawn(|| words.map(listen).unwrap_or_default());
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(error) => break Err(Error::file("wait for", PROGRAM)(error)),
            }
            if source.interrupt.is_raised() {
                // What it has written is thrown away.
                let _ = child.kill();
            }
            thread::sleep(TICK);
        };
        if status.is_err() {
            let _ = child.kill();
        }
        // Nothing panics there.
        let words = listener.join().unwrap_or_default();
        Ok((status?, words))
    })
}

fn listen(mut pipe: impl Read) -> String {
    let mut words = Vec::new();
    // What cannot be read is not told; the exit status says enough.
    let _ = pipe.by_ref().take(WORDS_BYTES_MAX).read_to_end(&mut words);
    // A full pipe would stop the program.
    let _ = io::copy(&mut pipe, &mut io::sink());
    String::from_utf8_lossy(&words).into_owned()
}

/// Reads `    (12.34/100%)` again and again, each after a carriage return.
fn tell(mut pipe: impl Read, total: u64, monitor: &dyn Monitor) {
    let (mut buffer, mut line, mut told) = ([0; 256], Vec::new(), 0);
    // An error is the end, which is seen elsewhere.
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        for byte in buffer.iter().take(length) {
            if !matches!(byte, b'\r' | b'\n') {
                if line.len() < buffer.len() {
                    line.push(*byte);
                }
                continue;
            }
            if let Some(parts) = parts(&line) {
                let done = u128::from(total) * u128::from(parts.min(PARTS)) / u128::from(PARTS);
                // No more than the total, which is a u64.
                let done = u64::try_from(done).unwrap_or(total);
                monitor.advance(done.saturating_sub(told));
                told = told.max(done);
            }
            line.clear();
        }
    }
    monitor.advance(total.saturating_sub(told));
}

fn parts(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let number = text.strip_prefix('(')?.strip_suffix("/100%)")?;
    let (whole, hundredths) = number.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    let hundredths: u64 = hundredths.parse().ok()?;
    whole.checked_mul(100)?.checked_add(hundredths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn progress_is_read_in_whatever_pieces_it_comes() {
        assert_eq!(parts(b"    (12.34/100%)"), Some(1234));
        assert_eq!(parts(b"    (100.00/100%)"), Some(10_000));
        for other in [
            "",
            "(1/100%)",
            "(x.00/100%)",
            "(99999999999999999999.00/100%)",
        ] {
            assert_eq!(parts(other.as_bytes()), None, "{other:?}");
        }
        struct Sum(AtomicU64);
        impl Monitor for Sum {
            fn stage(&self, _title: &str) {}
            fn expect(&self, _total: u64, _unit: Unit) {}
            fn advance(&self, amount: u64) {
                self.0.fetch_add(amount, Ordering::Relaxed);
            }
            fn finding(&self, _finding: &disk::Finding) {}
        }
        let sum = Sum(AtomicU64::new(0));
        tell(
            &b"    (0.00/100%)\r    (50.00/100%)\r    (9.00"[..],
            1000,
            &sum,
        );
        assert_eq!(sum.0.into_inner(), 1000);
    }
}
