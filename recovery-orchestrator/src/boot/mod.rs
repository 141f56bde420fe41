// SPDX-License-Identifier: MIT OR Apache-2.0
//! One image as a machine in the foreground: started at once. It is gone when it is ended, unless its
//! disks are kept in a directory; then they are moved there while it runs.

mod kept;

use std::path::PathBuf;

use converter::vm::Profile;
use jiff::Timestamp;

use crate::drill::{self, Scratch, begin, clean_up_leftovers};
use crate::error::{Error, Result};
use crate::file;
use crate::guest::Guest;
use crate::hosted::{Host, Hosted, NBD};
use crate::journal::{CleanedUp, Event, Leftover, RunKind, RunOutcome, Scope};
use crate::keeper::{KeeperStatus, Keepers};
use crate::network::{self, Forward, NicPlan};
use crate::platform::qemu::CONSOLE;
use crate::platform::{Machine, Order, Platform, ProfileName};
use crate::process::Lifetime;
use crate::state::StateDirectory;

pub use kept::KeptMachine;

/// Where in its run's directories the one machine is.
const PLACE: &str = "0";

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
    /// How fast disks are moved, in bytes per second; 0: as fast as it goes.
    pub rate_bytes_per_second: u64,
}

/// What machines are booted with.
#[derive(Debug, Clone, Copy)]
pub struct BootHost<'a> {
    /// Serves their disks.
    pub keepers: &'a dyn Keepers,
    /// Runs them.
    pub platform: &'a dyn Platform,
    /// The journal and scratch files.
    pub state: &'a StateDirectory,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// A machine with everything that belongs to it; all of it goes when this is dropped.
#[derive(Debug)]
pub struct Booted {
    // In this order: the machine ends before its files go.
    hosted: Hosted,
    kept: Option<KeptMachine>,
    scratch: Scratch,
    /// The virtual hardware that it got.
    pub profile: Profile,
    /// What its console is connected to.
    pub console: PathBuf,
    /// The network cards in words.
    pub nics: Vec<String>,
    /// What earlier runs had left.
    pub cleaned: Vec<CleanedUp>,
}

/// Makes the machine, its processors not running yet, so that nothing of its console is missed.
/// With `kept`, its disks are in that directory, or go there.
pub fn boot(
    guest: &Guest,
    options: &BootOptions,
    kept: Option<KeptMachine>,
    host: &BootHost<'_>,
) -> Result<Booted> {
    let cleaned = clean_up_leftovers(host.state, Scope::Forgotten, host.clock)?;
    let scratch = begin(
        host.state,
        RunKind::Boot,
        &guest.definition.name,
        host.clock,
    )?;
    let order = order(guest, options, kept.as_ref(), &scratch)?;
    let move_order = match &kept {
        Some(kept) => kept.move_order(options.rate_bytes_per_second)?,
        None => None,
    };
    let makes = Host {
        keepers: host.keepers,
        platform: host.platform,
        journal: &scratch.journal,
    };
    let hosted = makes.start(&guest.definition.name, guest, &order, move_order)?;
    Ok(Booted {
        hosted,
        kept,
        profile: order.profile,
        console: order.sockets.join(CONSOLE),
        nics: order.nics.iter().map(nic_text).collect(),
        scratch,
        cleaned,
    })
}

/// Takes over a machine that goes on after its command was killed.
///
/// # Errors
///
/// When it cannot be spoken to; it is left as it is then.
pub fn take_over(leftover: &Leftover, host: &BootHost<'_>) -> Result<Booted> {
    let mut scratch = drill::take_over(host.state, leftover.run.clone(), host.clock)?;
    let makes = Host {
        keepers: host.keepers,
        platform: host.platform,
        journal: &scratch.journal,
    };
    let keeper = leftover.keepers.first().map(|(_, process)| process.clone());
    let (running, hosted) = makes.take_over(&scratch.directory.join(PLACE), keeper)?;
    let profile: ProfileName = running.profile.parse().map_err(|problem| Error::Request {
        problem,
        hint: None,
    })?;
    let kept = match &running.kept {
        Some(directory) => Some(KeptMachine::of_running(directory)?),
        None => None,
    };
    scratch.is_in_use = false;
    Ok(Booted {
        hosted,
        kept,
        profile: profile.profile(&[]),
        console: running.sockets.join(CONSOLE),
        nics: running.nics.iter().map(nic_text).collect(),
        scratch,
        cleaned: Vec::new(),
    })
}

fn nic_text(nic: &NicPlan) -> String {
    format!("{} has {} in {}", nic.interface, nic.guest, nic.subnet)
}

impl Booted {
    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &dyn Machine {
        self.hosted.machine()
    }

    /// How its disks are.
    #[must_use]
    pub fn status(&self) -> KeeperStatus {
        self.hosted.status()
    }

    /// Starts another keeper when the machine's was killed. Whether it did.
    pub fn look_after(&self, host: &BootHost<'_>) -> Result<bool> {
        let makes = Host {
            keepers: host.keepers,
            platform: host.platform,
            journal: &self.scratch.journal,
        };
        makes.look_after(&self.hosted)
    }

    /// Ends the machine and removes what belongs to it, but for disks that are kept; gives its
    /// keeper's last word.
    pub fn end(self, outcome: RunOutcome) -> Result<KeeperStatus> {
        let status = self.hosted.end();
        if let Some(kept) = &self.kept {
            kept.tidy_up()?;
        }
        self.scratch.journal.record(Event::RunFinished {
            outcome,
            report: None,
        })?;
        Ok(status)
    }
}

fn order(
    guest: &Guest,
    options: &BootOptions,
    kept: Option<&KeptMachine>,
    scratch: &Scratch,
) -> Result<Order> {
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
    let directory = scratch.directory.join(PLACE);
    let sockets = scratch.sockets.join(PLACE);
    file::create_directories(&directory)?;
    file::create_directories(&sockets)?;
    let nics = network::plan(
        &definition.name,
        &definition.nics,
        &[],
        options.forwards.clone(),
    )?;
    let (disks, kernel) = match kept {
        Some(kept) => (kept.disks(), kept.kernel()),
        None => (guest.attach(&directory)?, guest.attach_kernel(&directory)?),
    };
    Ok(Order {
        definition,
        profile,
        disks,
        kernel,
        nics,
        nbd: sockets.join(NBD),
        lifetime: Lifetime::OnTheirOwn,
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
