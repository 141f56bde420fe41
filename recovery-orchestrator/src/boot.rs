// SPDX-License-Identifier: MIT OR Apache-2.0
//! One image as a machine in the foreground: started at once, gone when it is ended.

use std::path::PathBuf;

use converter::vm::Profile;
use jiff::Timestamp;

use crate::drill::{Scratch, begin, clean_up_leftovers};
use crate::error::{Error, Result};
use crate::file;
use crate::guest::Guest;
use crate::journal::{Event, RunKind, RunOutcome, Scope};
use crate::network::{self, Forward};
use crate::platform::{Machine, Order, Platform, ProfileName};
use crate::state::StateDirectory;

/// What differs from what the image says.
#[derive(Debug, Clone, Default)]
pub struct BootOptions {
    /// The virtual hardware.
    pub profile: Option<ProfileName>,
    /// Processors.
    pub cpus: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Ports of the guest that are reached from here.
    pub forwards: Vec<Forward>,
}

/// A machine with everything that belongs to it; all of it goes when this is dropped.
#[derive(Debug)]
pub struct Booted {
    // In this order: the machine ends before its files go.
    machine: Box<dyn Machine>,
    scratch: Scratch,
    /// The virtual hardware that it got.
    pub profile: Profile,
    /// What its console is connected to.
    pub console: PathBuf,
    /// The network cards in words.
    pub nics: Vec<String>,
}

/// Makes the machine, its processors not running yet, so that nothing of its console is missed.
pub fn boot(
    guest: &Guest,
    options: &BootOptions,
    platform: &dyn Platform,
    state: &StateDirectory,
    clock: fn() -> Timestamp,
) -> Result<Booted> {
    clean_up_leftovers(state, Scope::Killed, clock)?;
    let scratch = begin(state, RunKind::Boot, &guest.definition.name, clock)?;
    let order = order(guest, options, &scratch)?;
    let machine = platform.start(&order)?;
    if let Some(process) = machine.process() {
        let server = guest.definition.name.clone();
        scratch
            .journal
            .record(Event::MachineStarted { server, process })?;
    }
    let nic_text =
        |nic: &network::NicPlan| format!("{} has {} in {}", nic.interface, nic.guest, nic.subnet);
    Ok(Booted {
        machine,
        profile: order.profile,
        console: order.sockets.join("console"),
        nics: order.nics.iter().map(nic_text).collect(),
        scratch,
    })
}

impl Booted {
    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &dyn Machine {
        &*self.machine
    }

    /// Ends the machine and removes what belongs to it.
    pub fn end(self, outcome: RunOutcome) -> Result<()> {
        self.machine.stop();
        self.scratch.journal.record(Event::RunFinished {
            outcome,
            report: None,
        })
    }
}

fn order(guest: &Guest, options: &BootOptions, scratch: &Scratch) -> Result<Order> {
    let mut definition = guest.definition.clone();
    definition.cpus = options.cpus.unwrap_or(definition.cpus);
    definition.memory_bytes = options.memory_bytes.unwrap_or(definition.memory_bytes);
    let profile = match options.profile {
        Some(name) => name.profile(&definition.profiles),
        None => *definition
            .profiles
            .first()
            .ok_or_else(|| no_profile(guest))?,
    };
    let directory = scratch.directory.join("0");
    let sockets = scratch.sockets.join("0");
    file::create_directories(&directory)?;
    file::create_directories(&sockets)?;
    let nics = network::plan(
        &definition.name,
        &definition.nics,
        &[],
        options.forwards.clone(),
    )?;
    Ok(Order {
        definition,
        profile,
        disks: guest.attach(&directory)?,
        nics,
        directory,
        sockets,
    })
}

fn no_profile(guest: &Guest) -> Error {
    Error::Machine {
        name: guest.definition.name.clone(),
        problem: "the guest is not known to have a driver for any virtual hardware".to_owned(),
        hint: Some("choose some: --profile virtio, sata or ide".to_owned()),
    }
}
