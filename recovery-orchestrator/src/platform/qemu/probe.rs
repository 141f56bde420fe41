// SPDX-License-Identifier: MIT OR Apache-2.0
//! What QEMU can do on this computer, found out by starting a guest.
//!
//! The guest is one boot sector: it writes a letter to the serial port and leaves through QEMU's
//! debug exit device. `/dev/kvm` may be there and unusable, or usable and slower than emulation
//! (nested, or emulated itself): KVM is taken only if its guest is through soon, measured against
//! emulation on the same computer at the same moment.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::accelerator::Accelerator;
use crate::error::{Error, Result};
use crate::file;
use crate::journal::boot_id;

/// How long emulation may take; a busy computer is slow, not broken.
const TCG_LIMIT: Duration = Duration::from_secs(60);
/// How long KVM may take at least before it is given up, and at most.
const KVM_LIMIT_MIN: Duration = Duration::from_secs(2);
const KVM_LIMIT_MAX: Duration = Duration::from_secs(5);
/// KVM may take so many times as long as emulation: its guest needs new page tables and a real
/// processor, but a boot sector should not notice.
const KVM_TIMES_TCG: u32 = 4;
/// What `isa-debug-exit` makes of the value 0x2a.
const EXIT_STATUS: i32 = 0x2a << 1 | 1;
const CACHE_LIMIT_BYTES: u64 = 64 << 10;

/// ```text
/// mov dx, 0x3f8 ; mov al, 'R' ; out dx, al
/// mov dx, 0x501 ; mov al, 0x2a ; out dx, al ; hlt ; jmp $-1
/// ```
const BOOT_CODE: [u8; 15] = [
    0xba, 0xf8, 0x03, 0xb0, b'R', 0xee, 0xba, 0x01, 0x05, 0xb0, 0x2a, 0xee, 0xf4, 0xeb, 0xfd,
];

/// What QEMU can do on this computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Which start of the computer this is true for.
    pub boot_id: String,
    /// QEMU's version.
    pub version: String,
    /// What runs guests.
    pub accelerator: Accelerator,
    /// Why that.
    pub reason: String,
    /// Whether QEMU can put itself into a system call filter.
    pub sandbox: bool,
}

/// The remembered answer for this QEMU and this start of the computer, or a new one.
pub(super) fn host(binary: &Path, cache: &Path) -> Result<Host> {
    let boot_id = boot_id();
    let version = version(binary)?;
    let remembered = file::read_text(cache, CACHE_LIMIT_BYTES).ok();
    // An unreadable cache is as good as none.
    let remembered: Option<Host> = remembered.and_then(|text| serde_json::from_str(&text).ok());
    if let Some(host) = remembered
        && (&host.boot_id, &host.version) == (&boot_id, &version)
    {
        return Ok(host);
    }
    let scratch = cache.parent().unwrap_or_else(|| Path::new("."));
    let host = try_out(binary, scratch, boot_id, version)?;
    let json = serde_json::to_vec_pretty(&host).unwrap_or_default();
    file::write_atomically(cache, &json)?;
    Ok(host)
}

pub(super) fn version(binary: &Path) -> Result<String> {
    let output = match Command::new(binary).arg("--version").output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(broken(format!("there is no program {}", binary.display())));
        }
        other => other.map_err(Error::file("run", binary))?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text)
        .ok_or_else(|| broken(format!("{} says no version: {text:?}", binary.display())))
}

fn parse_version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("version ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

fn try_out(binary: &Path, scratch: &Path, boot_id: String, version: String) -> Result<Host> {
    let directory =
        tempfile::tempdir_in(scratch).map_err(Error::file("create a directory in", scratch))?;
    let disk = directory.path().join("probe.raw");
    file::write(&disk, &boot_sector())?;
    let mut sandbox = true;
    let mut tcg = guest(binary, &disk, Accelerator::Tcg, TCG_LIMIT, sandbox)?;
    if tcg.is_err() {
        sandbox = false;
        tcg = guest(binary, &disk, Accelerator::Tcg, TCG_LIMIT, sandbox)?;
    }
    let emulated = tcg.map_err(broken)?;
    let limit = (emulated * KVM_TIMES_TCG).clamp(KVM_LIMIT_MIN, KVM_LIMIT_MAX);
    let (accelerator, reason) = match guest(binary, &disk, Accelerator::Kvm, limit, sandbox)? {
        Ok(time) => (
            Accelerator::Kvm,
            format!("a test guest answered in {} ms", time.as_millis()),
        ),
        Err(problem) => (
            Accelerator::Tcg,
            format!("KVM is not usable here: {problem}"),
        ),
    };
    Ok(Host {
        boot_id,
        version,
        accelerator,
        reason,
        sandbox,
    })
}

fn boot_sector() -> Vec<u8> {
    let mut sector = BOOT_CODE.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// Runs the test guest: how long it took, or why it failed.
fn guest(
    binary: &Path,
    disk: &Path,
    accelerator: Accelerator,
    limit: Duration,
    sandbox: bool,
) -> Result<Result<Duration, String>> {
    if accelerator == Accelerator::Kvm && !Path::new("/dev/kvm").exists() {
        return Ok(Err("there is no /dev/kvm".to_owned()));
    }
    let start = Instant::now();
    let mut child = guest_command(binary, disk, accelerator, sandbox)
        .spawn()
        .map_err(Error::file("run", binary))?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(Error::file("wait for", binary))? {
            break Some(status);
        }
        if start.elapsed() > limit {
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let time = start.elapsed();
    // Kills what hangs, and does nothing to what has ended.
    let _ = child.kill();
    let output = child
        .wait_with_output()
        .map_err(Error::file("wait for", binary))?;
    Ok(match status.and_then(|status| status.code()) {
        Some(EXIT_STATUS) => Ok(time),
        Some(code) => Err(format!(
            "{} (exit status {code})",
            last_line(&output.stderr)
        )),
        None => Err(format!(
            "a test guest did not answer in {} s",
            limit.as_secs_f32()
        )),
    })
}

/// A machine with next to nothing, that ends QEMU when its disk's code runs.
fn guest_command(binary: &Path, disk: &Path, accelerator: Accelerator, sandbox: bool) -> Command {
    let mut command = Command::new(binary);
    command
        .args(["-accel", accelerator.options()])
        .args(["-cpu", accelerator.processor()])
        .args(["-no-user-config", "-nodefaults", "-display", "none"])
        .args(["-machine", "pc", "-m", "32"])
        .args(["-device", "isa-debug-exit,iobase=0x501,iosize=4"])
        .args(["-serial", "stdio"]);
    let disk = disk.display().to_string().replace(',', ",,");
    command.args(["-drive", &format!("file={disk},format=raw,if=ide")]);
    if sandbox {
        command.args(["-sandbox", super::command::SANDBOX]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end()
        .lines()
        .last()
        .unwrap_or("no message")
        .to_owned()
}

fn broken(problem: String) -> Error {
    Error::Platform {
        platform: "qemu",
        problem,
        hint: "install QEMU (Debian: apt-get install qemu-system-x86 qemu-utils), or name it in \
               relevo.toml: [qemu] binary = ..."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_are_understood() {
        for (text, version) in [
            (
                "QEMU emulator version 7.2.15 (Debian 1:7.2+dfsg-7+deb12u12)\nCopyright",
                "7.2.15",
            ),
            ("QEMU emulator version 10.0.2\n", "10.0.2"),
        ] {
            assert_eq!(parse_version(text).as_deref(), Some(version));
        }
    }

    #[test]
    fn this_computer_is_tried_out_once_and_then_remembered() {
        let binary = Path::new(super::super::BINARY);
        if version(binary).is_err() {
            eprintln!("skipped: QEMU is not installed");
            assert_ne!(std::env::var("E2E_REQUIRE").as_deref(), Ok("all"));
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("host.json");
        let first = host(binary, &cache).unwrap();
        let start = Instant::now();
        assert_eq!(host(binary, &cache).unwrap(), first);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
