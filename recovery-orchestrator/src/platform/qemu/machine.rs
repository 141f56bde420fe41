// SPDX-License-Identifier: MIT OR Apache-2.0
//! A running QEMU: its process, its monitor, its console, its disks.
//!
//! ```text
//! <directory>/console.log   what the guest wrote to its serial port
//! <directory>/qemu.log      what QEMU itself said
//! <sockets>/qmp, console, nbd
//! ```

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::command::{self, Places};
use super::firmware::Uefi;
use super::probe::Host;
use super::qmp::{self, Qmp};
use crate::error::{Error, Result};
use crate::file;
use crate::journal::ProcessIdentity;
use crate::nbd::{Access, Export, Meter, Reads, Server};
use crate::network::NicPlan;
use crate::platform::{Machine, Order, Status};

/// The file with what the guest wrote to its serial console.
pub const CONSOLE_LOG: &str = "console.log";
const QEMU_LOG: &str = "qemu.log";
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
    child: Mutex<Child>,
    identity: Option<ProcessIdentity>,
    qmp: Mutex<Qmp>,
    nics: Vec<NicPlan>,
    meters: Vec<Arc<Meter>>,
    directory: PathBuf,
    // Served until the process has ended: see `stop` and the order of the fields.
    _nbd: Server,
}

impl QemuMachine {
    pub(super) fn start(
        binary: &Path,
        host: &Host,
        order: &Order,
        firmware: Option<&Uefi>,
    ) -> Result<Self> {
        let places = Places {
            qmp: order.sockets.join("qmp"),
            console: order.sockets.join("console"),
            console_log: order.directory.join(CONSOLE_LOG),
            nbd: order.sockets.join("nbd"),
        };
        let arguments = command::arguments(host, order, &places, firmware)?;
        let meters: Vec<_> = order
            .disks
            .iter()
            .map(|disk| Arc::new(Meter::new(Arc::clone(&disk.image))))
            .collect();
        let nbd = Server::start(&places.nbd, exports(&meters, order))?;
        let log = order.directory.join(QEMU_LOG);
        let mut child = spawn(binary, &arguments, &log)?;
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
            child: Mutex::new(child),
            identity,
            qmp: Mutex::new(qmp),
            nics: order.nics.clone(),
            meters,
            directory: order.directory.clone(),
            _nbd: nbd,
        })
    }

    fn execute(&self, command: &str, arguments: &Value) -> Result<Value> {
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        qmp.execute(command, arguments)
            .map_err(|problem| failure(&self.name, problem))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
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
        let reason = exit_reason(&mut self.child(), &self.directory.join(QEMU_LOG));
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

    fn reads(&self) -> Reads {
        let all = self.meters.iter().map(|meter| meter.reads());
        all.fold(Reads::default(), |sum, reads| Reads {
            request_count: sum.request_count + reads.request_count,
            read_bytes: sum.read_bytes + reads.read_bytes,
            block_count: sum.block_count + reads.block_count,
        })
    }

    fn stop(&self) {
        end(&mut self.child());
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

fn exports(meters: &[Arc<Meter>], order: &Order) -> Vec<Export> {
    let numbered = meters.iter().zip(&order.disks).enumerate();
    numbered
        .map(|(index, (meter, disk))| Export {
            name: command::export_name(index),
            access: Access::ReadOnly(Arc::clone(meter) as _),
            block_size_bytes: disk.sector_size.bytes(),
        })
        .collect()
}

/// Starts QEMU so that it dies with the calling thread, and does not hear this terminal's Ctrl-C.
fn spawn(binary: &Path, arguments: &[String], log: &Path) -> Result<Child> {
    let log_file = File::create(log).map_err(Error::file("create", log))?;
    let errors = log_file.try_clone().map_err(Error::file("open", log))?;
    let mut command = match death_signal_program() {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
            command
        }
        None => Command::new(binary),
    };
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log_file)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(Error::file("run", binary))
}

/// `setpriv` of util-linux replaces itself by what it starts, so the process stays the same one.
fn death_signal_program() -> Option<&'static str> {
    ["/usr/bin/setpriv", "/bin/setpriv"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}

fn exit_reason(child: &mut Child, log: &Path) -> Option<String> {
    let status = child.try_wait().ok().flatten()?;
    let said = file::read_tail(log, QEMU_LOG_TAIL_BYTES).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let said = said.trim();
    Some(if said.is_empty() {
        format!("QEMU has ended ({status})")
    } else {
        format!("QEMU has ended ({status}): {said}")
    })
}

fn failure(name: &str, problem: String) -> Error {
    Error::Machine {
        name: name.to_owned(),
        problem,
        hint: None,
    }
}
