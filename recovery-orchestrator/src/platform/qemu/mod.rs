// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual machines on QEMU, from 7.2 on, without a management layer and without root.
//!
//! Disks: the machine's own qcow2 overlay over an NBD export of the image by the machine's
//! [keeper](crate::keeper). A machine runs in a process group of its own, its process is in the
//! journal, and one of a rehearsal dies with this program. `restrict=on` keeps its network in; see
//! [`crate::network`].

mod accelerator;
mod command;
mod firmware;
mod machine;
mod probe;
mod qmp;
mod small_vm;

use std::path::{Path, PathBuf};

use crate::config::QemuConfiguration;
use crate::error::Result;
use crate::platform::{Description, Machine, Order, Platform, RunningMachine};

pub use accelerator::Accelerator;
pub(crate) use command::export_name;
pub use machine::{CONSOLE, CONSOLE_LOG, WATCH_MONITOR};
pub use probe::Host;
pub(crate) use qmp::Qmp;
pub use small_vm::{OpenQemu, SmallVm};

const BINARY: &str = "qemu-system-x86_64";

/// QEMU on this computer.
#[derive(Debug)]
pub struct Qemu {
    binary: PathBuf,
    host: Host,
    firmware: firmware::Choice,
}

impl Qemu {
    /// Finds QEMU and what it can do here: by trying, once after each start of this computer, and
    /// remembered in `cache` until then.
    pub fn open(configuration: &QemuConfiguration, cache: &Path) -> Result<Self> {
        // A name without a directory is looked for in those of PATH, whenever it is started.
        let binary = configuration
            .binary
            .clone()
            .unwrap_or_else(|| PathBuf::from(BINARY));
        let mut host = probe::host(&binary, cache)?;
        if let Some(accelerator) = configuration.accelerator {
            host.accelerator = accelerator;
            "the configuration says so".clone_into(&mut host.reason);
        }
        Ok(Self {
            binary,
            host,
            firmware: firmware::Choice::new(configuration),
        })
    }
}

impl Platform for Qemu {
    fn description(&self) -> Description {
        Description {
            platform: "qemu".to_owned(),
            version: self.host.version.clone(),
            acceleration: format!("{}: {}", self.host.accelerator, self.host.reason),
        }
    }

    fn start(&self, order: &Order) -> Result<Box<dyn Machine>> {
        let firmware = self.firmware.prepare(order)?;
        Ok(Box::new(machine::QemuMachine::start(
            &self.binary,
            &self.host,
            order,
            firmware.as_ref(),
        )?))
    }

    fn take_over(&self, running: &RunningMachine) -> Result<Box<dyn Machine>> {
        Ok(Box::new(machine::QemuMachine::take_over(running)?))
    }
}

#[cfg(test)]
mod tests;
