// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine as the first process needs it: a port, a clock, modules, disks, mounts, the end.
//!
//! Nodes of devices are made here, from what sysfs says: kernels before 2.6.32 have no devtmpfs.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use guest_writer::{Device, Mount, Report};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::system::RebootCommand;
use rustix::time::{ClockId, Timespec};

/// The second serial port, `ttyS1`.
const PORT_NUMBER: (u32, u32) = (4, 65);
const PORT: &str = "/port";
/// How long a disk may take to be found.
const DISK_PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);
const SECTOR_BYTES: u64 = 512;

/// Where reports go.
#[derive(Debug)]
pub(crate) struct Port(File);

impl Port {
    /// Writes a line. One that cannot be written is missed by who waits for it.
    pub(crate) fn say(&mut self, report: &Report) {
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            let _ = self.0.write_all(&line);
        }
    }
}

/// Whether this is the `/init` of a machine; anywhere else it would do harm.
pub(crate) fn is_first_process() -> bool {
    rustix::process::getpid().is_init()
}

/// Mounts sysfs and opens the port.
pub(crate) fn set_up() -> io::Result<Port> {
    for directory in ["/sys", "/proc", "/mnt"] {
        fs::create_dir_all(directory)?;
    }
    rustix::mount::mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None::<&CStr>)?;
    make_node(PORT, FileType::CharacterDevice, PORT_NUMBER)?;
    Ok(Port(OpenOptions::new().write(true).open(PORT)?))
}

/// Has the kernel end the machine when there is no memory left, where it would look for something to
/// do without for ever. It is a help, not a condition.
pub(crate) fn panic_without_memory() {
    let no_data = None::<&CStr>;
    let mounted = rustix::mount::mount("proc", "/proc", "proc", MountFlags::empty(), no_data);
    if mounted.is_ok() {
        let _ = fs::write("/proc/sys/vm/panic_on_oom", "1");
    }
}

pub(crate) fn set_clock(unix_seconds: i64) -> io::Result<()> {
    let now = Timespec {
        tv_sec: unix_seconds,
        tv_nsec: 0,
    };
    Ok(rustix::time::clock_settime(ClockId::Realtime, now)?)
}

/// Loads a module; one that is there already is fine.
pub(crate) fn load_module(module: &[u8]) -> io::Result<()> {
    match rustix::system::init_module(module, c"") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Mounts a filesystem, in a directory that is made for it.
pub(crate) fn mount(wanted: &Mount, point: &Path) -> io::Result<()> {
    fs::create_dir_all(point)?;
    let mut devices = Vec::new();
    for device in &wanted.devices {
        let node = PathBuf::from(format!("/disk-{}-{}", device.pci, device.index));
        if !node.exists() {
            make_node(&node, FileType::BlockDevice, find(device)?)?;
        }
        devices.push(node);
    }
    let first = devices
        .first()
        .ok_or_else(|| io::Error::other("a filesystem on no disk"))?;
    let mut options: Vec<String> = Vec::new();
    options.extend((!wanted.options.is_empty()).then(|| wanted.options.clone()));
    // So that btrfs knows of them without a scan.
    let others = devices.iter().skip(1);
    options.extend(others.map(|node| format!("device={}", node.display())));
    let options = CString::new(options.join(","))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    let data = Some(options.as_c_str());
    rustix::mount::mount(first, point, wanted.filesystem.as_str(), flags, data)?;
    Ok(())
}

pub(crate) fn unmount(point: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(point, UnmountFlags::empty())?)
}

/// Ends the machine, once all reports are out.
pub(crate) fn end(port: &Port) {
    // Nobody is left to be told about an error.
    let _ = rustix::termios::tcdrain(&port.0);
    rustix::fs::sync();
    let _ = rustix::system::reboot(RebootCommand::Restart);
}

/// Waits until a disk is there: its device number.
fn find(wanted: &Device) -> io::Result<(u32, u32)> {
    let end = Instant::now() + DISK_PATIENCE;
    loop {
        if let Some(number) = look_for(wanted)? {
            return Ok(number);
        }
        if Instant::now() > end {
            return Err(io::Error::other(format!(
                "the kernel found no disk of {} bytes at {}",
                wanted.size_bytes, wanted.pci
            )));
        }
        thread::sleep(TICK);
    }
}

fn look_for(wanted: &Device) -> io::Result<Option<(u32, u32)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let path = entry?.path();
        let is_there = fs::canonicalize(path.join("device"))
            .is_ok_and(|device| device.iter().any(|part| part == wanted.pci.as_str()));
        if is_there {
            names.push(path);
        }
    }
    names.sort();
    let Some(path) = names.get(wanted.index) else {
        return Ok(None);
    };
    let size = fs::read_to_string(path.join("size"))?;
    let sectors: u64 = size.trim().parse().unwrap_or(0);
    if sectors != wanted.size_bytes / SECTOR_BYTES {
        return Ok(None);
    }
    let text = fs::read_to_string(path.join("dev"))?;
    let numbers = text.trim().split_once(':');
    Ok(numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?))))
}

fn make_node(path: impl AsRef<Path>, kind: FileType, number: (u32, u32)) -> io::Result<()> {
    let device = makedev(number.0, number.1);
    Ok(mknodat(
        CWD,
        path.as_ref(),
        kind,
        Mode::from_raw_mode(0o600),
        device,
    )?)
}
