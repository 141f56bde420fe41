// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual machines on QEMU, from 7.2 on, without a management layer and without root.
//!
//! Disks: the machine's own qcow2 overlay over an NBD export of the image by this process. A
//! machine runs in a process group of its own and dies with this program; should that fail, its
//! process is in the journal. `restrict=on` keeps its network in; see [`crate::network`].

mod accelerator;
mod command;
mod firmware;
mod machine;
mod probe;
mod qmp;

use std::path::{Path, PathBuf};

use crate::config::QemuConfiguration;
use crate::error::{Error, Result};
use crate::platform::{Description, Machine, Order, Platform};

pub use accelerator::Accelerator;
pub use machine::CONSOLE_LOG;
pub use probe::Host;

#[cfg(test)]
mod tests;

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
        let binary = find_binary(configuration.binary.as_deref())?;
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
}

fn find_binary(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(BINARY))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Error::Platform {
            platform: "qemu",
            problem: format!("no {BINARY} in the directories of PATH"),
            hint: "install QEMU (Debian: apt-get install qemu-system-x86 qemu-utils), or name it \
                   in relevo.toml: [qemu] binary = ..."
                .to_owned(),
        })
}
