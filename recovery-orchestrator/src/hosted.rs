// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine with the keeper of its disks: made together, ended together, both in the journal.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use converter::vm::DiskController;

use crate::error::{Error, Result};
use crate::file;
use crate::guest::Guest;
use crate::journal::{Event, Journal, ProcessIdentity};
use crate::keeper::{CacheOrder, Keeper, KeeperOrder, KeeperStatus, Keepers, MoveOrder};
use crate::platform::qemu::WATCH_MONITOR;
use crate::platform::{Machine, Order, Platform, ProfileName, RunningMachine, Status};

/// The name of the socket on which a keeper serves disks.
pub const NBD: &str = "nbd";
/// The name of the file in which a keeper tells how it is.
pub const STATUS: &str = "status.json";
/// The name of the file with a [`RunningMachine`].
const RUNNING: &str = "running.json";
const RUNNING_BYTES_MAX: u64 = 1 << 20;

/// What machines are made with.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Serves their disks.
    pub keepers: &'a dyn Keepers,
    /// Runs them.
    pub platform: &'a dyn Platform,
    /// Where their processes are written down before they can do anything.
    pub journal: &'a Journal,
}

/// A machine and its keeper.
#[derive(Debug)]
pub struct Hosted {
    // In this order: the machine ends before its keeper.
    machine: Box<dyn Machine>,
    /// `None`: all its disks are local files.
    keeper: Mutex<Option<Box<dyn Keeper>>>,
    /// Whose machine it is.
    server: String,
    /// Where its files are.
    directory: PathBuf,
}

impl Host<'_> {
    /// Makes a machine of a guest, its processors not running yet. When it cannot be made, nothing of
    /// it is left.
    pub fn start(
        &self,
        server: &str,
        guest: &Guest,
        order: &Order,
        move_disks: Option<MoveOrder>,
    ) -> Result<Hosted> {
        if order.disks.iter().all(|disk| !disk.is_overlay) {
            return Ok(Hosted {
                machine: self.machine(server, order)?,
                keeper: Mutex::default(),
                server: server.to_owned(),
                directory: order.directory.clone(),
            });
        }
        let keeper_order = KeeperOrder {
            image: guest.image,
            disks: guest.kept_disks(),
            nbd: order.nbd.clone(),
            monitor: order.sockets.join(WATCH_MONITOR),
            status: order.directory.join(STATUS),
            controller_gives_up: gives_up(order.profile.disk),
            move_disks,
            cache: CacheOrder::default(),
            takes_over: false,
        };
        let keeper = self
            .keepers
            .start(&keeper_order, &order.directory, order.lifetime)?;
        let made = self
            .note_keeper(server, &*keeper)
            .and_then(|()| self.machine(server, order));
        match made {
            Ok(machine) => Ok(Hosted {
                machine,
                keeper: Mutex::new(Some(keeper)),
                server: server.to_owned(),
                directory: order.directory.clone(),
            }),
            Err(error) => {
                keeper.kill();
                Err(error)
            }
        }
    }

    fn note_keeper(&self, server: &str, keeper: &dyn Keeper) -> Result<()> {
        let server = server.to_owned();
        match keeper.process() {
            Some(process) => self
                .journal
                .record(Event::KeeperStarted { server, process }),
            None => Ok(()),
        }
    }

    fn machine(&self, server: &str, order: &Order) -> Result<Box<dyn Machine>> {
        let machine = self.platform.start(order)?;
        if let Some(process) = machine.process() {
            let running = RunningMachine {
                name: server.to_owned(),
                profile: ProfileName::of(order.profile).to_string(),
                process: process.clone(),
                nics: order.nics.clone(),
                directory: order.directory.clone(),
                sockets: order.sockets.clone(),
                kept: kept_in(order),
            };
            let text = serde_json::to_vec(&running).unwrap_or_default();
            file::write(&order.directory.join(RUNNING), &text)?;
            let server = server.to_owned();
            self.journal
                .record(Event::MachineStarted { server, process })?;
        }
        Ok(machine)
    }
}

impl Host<'_> {
    /// Takes over a machine whose command is gone, and its keeper; a keeper that is gone too is
    /// started anew.
    pub fn take_over(
        &self,
        directory: &Path,
        keeper: Option<ProcessIdentity>,
    ) -> Result<(RunningMachine, Hosted)> {
        let place = directory.join(RUNNING);
        let text = file::read_text(&place, RUNNING_BYTES_MAX)?;
        let running: RunningMachine =
            serde_json::from_str(&text).map_err(|error| Error::Request {
                problem: format!("{}: {error}", place.display()),
                hint: Some("`relevo cleanup` ends it".to_owned()),
            })?;
        // First of all: a machine whose reads wait does not answer while it is being stopped.
        let keeper = self.keepers.take_over(directory, keeper)?;
        if let Some(keeper) = &keeper {
            self.note_keeper(&running.name, &**keeper)?;
        }
        let hosted = Hosted {
            machine: self.platform.take_over(&running)?,
            keeper: Mutex::new(keeper),
            server: running.name.clone(),
            directory: directory.to_owned(),
        };
        Ok((running, hosted))
    }

    /// Starts another keeper for a machine whose keeper is gone: its reads wait for that. Whether it
    /// did.
    pub fn look_after(&self, hosted: &Hosted) -> Result<bool> {
        let mut keeper = hosted.keeper();
        // One that says that it is over ended because the machine did.
        let is_lost = keeper
            .as_ref()
            .is_some_and(|keeper| keeper.has_ended() && !keeper.status().is_over);
        if !is_lost || hosted.machine.status() != Status::Running {
            return Ok(false);
        }
        let another = self.keepers.take_over(&hosted.directory, None)?;
        if let Some(another) = &another {
            self.note_keeper(&hosted.server, &**another)?;
        }
        *keeper = another;
        Ok(true)
    }
}

/// The directory in which a machine's disks are kept, if they are.
fn kept_in(order: &Order) -> Option<PathBuf> {
    let disk = order.disks.first().filter(|disk| disk.is_kept)?;
    disk.file.parent().map(Path::to_owned)
}

/// Whether a guest's driver gives up on a disk that does not answer; virtio's has no such limit.
const fn gives_up(controller: DiskController) -> bool {
    match controller {
        DiskController::VirtioBlk => false,
        DiskController::VirtioScsi
        | DiskController::Sata
        | DiskController::Ide
        | DiskController::ScsiLsi => true,
    }
}

impl Hosted {
    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &dyn Machine {
        &*self.machine
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Box<dyn Keeper>>> {
        // Nothing panics while it is held.
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How its disks are.
    #[must_use]
    pub fn status(&self) -> KeeperStatus {
        self.keeper()
            .as_ref()
            .map(|keeper| keeper.status())
            .unwrap_or_default()
    }

    /// Ends it; gives the keeper's last word.
    #[must_use]
    pub fn end(self) -> KeeperStatus {
        self.machine.stop();
        if let Some(keeper) = &*self.keeper() {
            keeper.end();
        }
        self.status()
    }
}
