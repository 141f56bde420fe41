// SPDX-License-Identifier: MIT OR Apache-2.0
//! A running QEMU: its process, its monitor, its console.
//!
//! ```text
//! <directory>/console.log   what the guest wrote to its serial port
//! <directory>/qemu.log      what QEMU itself said
//! <sockets>/qmp, watch (its keeper's), console
//! ```

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::command::{self, Places};
use super::firmware::Uefi;
use super::probe::Host;
use super::qmp::{self, Qmp};
use crate::error::{Error, Result};
use crate::file;
use crate::journal::ProcessIdentity;
use crate::network::NicPlan;
use crate::platform::{Machine, Order, RunningMachine, Status};
use crate::process::spawn;

/// The file with what the guest wrote to its serial console.
pub const CONSOLE_LOG: &str = "console.log";
const QEMU_LOG: &str = "qemu.log";
/// The socket of the serial console.
pub const CONSOLE: &str = "console";
/// The socket of the monitor that the machine's keeper uses.
pub const WATCH_MONITOR: &str = "watch";
const MONITOR: &str = "qmp";
const CONSOLE_TAIL_BYTES: u64 = 1 << 20;
const QEMU_LOG_TAIL_BYTES: u64 = 4 << 10;
const SCREENSHOT_BYTES_MAX: u64 = 16 << 20;
/// A computer with many jobs takes its time.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may take to be accepted by the guest, once it is there.
const ACCEPT_TIMEOUT: Duration = Duration::from_millis(1500);

/// A running QEMU.
#[derive(Debug)]
pub(super) struct QemuMachine {
    name: String,
    process: Mutex<Handle>,
    identity: Option<ProcessIdentity>,
    qmp: Mutex<Qmp>,
    nics: Vec<NicPlan>,
    directory: PathBuf,
}

/// A machine's process.
#[derive(Debug)]
enum Handle {
    /// This program started it.
    Child(Child),
    /// Another one did.
    Other(ProcessIdentity),
}

impl Handle {
    /// Why it has ended, if it has.
    fn exit_reason(&mut self, log: &Path) -> Option<String> {
        match self {
            Self::Child(child) => exit_reason(child, log),
            Self::Other(process) if process.is_alive() => None,
            Self::Other(_) => Some(ended("", log)),
        }
    }

    fn end(&mut self) {
        match self {
            Self::Child(child) => end(child),
            Self::Other(process) => {
                process.end(Duration::ZERO);
            }
        }
    }
}

impl QemuMachine {
    /// Takes over a machine that another program started.
    pub(super) fn take_over(running: &RunningMachine) -> Result<Self> {
        let log = running.directory.join(QEMU_LOG);
        let mut handle = Handle::Other(running.process.clone());
        let monitor = running.sockets.join(MONITOR);
        let qmp = Qmp::connect(&monitor, MONITOR_TIMEOUT, || handle.exit_reason(&log))
            .map_err(|problem| failure(&running.name, problem))?;
        Ok(Self {
            name: running.name.clone(),
            process: Mutex::new(handle),
            identity: Some(running.process.clone()),
            qmp: Mutex::new(qmp),
            nics: running.nics.clone(),
            directory: running.directory.clone(),
        })
    }

    pub(super) fn start(
        binary: &Path,
        host: &Host,
        order: &Order,
        firmware: Option<&Uefi>,
    ) -> Result<Self> {
        let places = Places {
            qmp: order.sockets.join(MONITOR),
            watch: order.sockets.join(WATCH_MONITOR),
            console: order.sockets.join(CONSOLE),
            console_log: order.directory.join(CONSOLE_LOG),
        };
        let arguments = command::arguments(host, order, &places, firmware)?;
        let log = order.directory.join(QEMU_LOG);
        let mut child = spawn(binary, &arguments, None, &log, order.lifetime)?;
        let identity = ProcessIdentity::of(child.id());
        let qmp = match Qmp::connect(&places.qmp, MONITOR_TIMEOUT, || {
            exit_reason(&mut child, &log)
        }) {
            Ok(qmp) => qmp,
            Err(problem) => {
                end(&mut child);
                return Err(failure(&order.definition.name, problem));
            }
        };
        Ok(Self {
            name: order.definition.name.clone(),
            process: Mutex::new(Handle::Child(child)),
            identity,
            qmp: Mutex::new(qmp),
            nics: order.nics.clone(),
            directory: order.directory.clone(),
        })
    }

    fn execute(&self, command: &str, arguments: &Value) -> Result<Value> {
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        qmp.execute(command, arguments)
            .map_err(|problem| failure(&self.name, problem))
    }

    fn handle(&self) -> MutexGuard<'_, Handle> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forward(&self, port: u16) -> Option<(Ipv4Addr, u16)> {
        self.nics.iter().find_map(|nic| {
            let forward = nic
                .forwards
                .iter()
                .find(|forward| forward.guest_port == port)?;
            Some((nic.guest, forward.host_port))
        })
    }
}

impl Machine for QemuMachine {
    fn process(&self) -> Option<ProcessIdentity> {
        self.identity.clone()
    }

    fn resume(&self) -> Result<Instant> {
        self.execute("cont", &json!({}))?;
        Ok(Instant::now())
    }

    fn status(&self) -> Status {
        let reason = self.handle().exit_reason(&self.directory.join(QEMU_LOG));
        reason.map_or(Status::Running, Status::Ended)
    }

    fn console(&self) -> Result<Vec<u8>> {
        file::read_tail(&self.directory.join(CONSOLE_LOG), CONSOLE_TAIL_BYTES)
    }

    fn endpoint(&self, port: u16) -> Option<SocketAddr> {
        let (_, host_port) = self.forward(port)?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, host_port)))
    }

    fn accepts(&self, port: u16) -> Result<bool> {
        let (Some((guest, _)), Some(endpoint)) = (self.forward(port), self.endpoint(port)) else {
            return Ok(false);
        };
        // Kept open while its state is asked for.
        let Ok(_connection) = TcpStream::connect_timeout(&endpoint, ACCEPT_TIMEOUT) else {
            return Ok(false);
        };
        let guest = guest.to_string();
        let end = Instant::now() + ACCEPT_TIMEOUT;
        while Instant::now() < end {
            let usernet = self.execute(
                "human-monitor-command",
                &json!({"command-line": "info usernet"}),
            )?;
            if qmp::accepted_by_guest(usernet.as_str().unwrap_or_default(), &guest, port) {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(false)
    }

    fn screenshot(&self) -> Option<Vec<u8>> {
        let path = self.directory.join("screen.png");
        // A machine without a picture still has its console log; nothing is lost.
        self.execute("screendump", &json!({"filename": path, "format": "png"}))
            .ok()?;
        let bytes = file::read_tail(&path, SCREENSHOT_BYTES_MAX).ok()?;
        bytes.starts_with(b"\x89PNG").then_some(bytes)
    }

    fn stop(&self) {
        self.handle().end();
    }
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Nothing of a rehearsal's machine is kept: no need to let it shut down.
fn end(child: &mut Child) {
    // An error means that it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn exit_reason(child: &mut Child, log: &Path) -> Option<String> {
    let status = child.try_wait().ok().flatten()?;
    Some(ended(&format!(" ({status})"), log))
}

/// That it has ended, and what it said last.
fn ended(status: &str, log: &Path) -> String {
    let said = file::read_tail(log, QEMU_LOG_TAIL_BYTES).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let said = said.trim();
    if said.is_empty() {
        format!("QEMU has ended{status}")
    } else {
        format!("QEMU has ended{status}: {said}")
    }
}

fn failure(name: &str, problem: String) -> Error {
    Error::Machine {
        name: name.to_owned(),
        problem,
        hint: None,
    }
}
