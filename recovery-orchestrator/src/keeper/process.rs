// SPDX-License-Identifier: MIT OR Apache-2.0
//! A keeper as its command sees it: a process that was started, a status to read.

use std::ffi::OsString;
use std::fmt::{self, Debug};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{CacheOrder, KeeperOrder, KeeperStatus};
use crate::error::{Error, Result};
use crate::file;
use crate::journal::ProcessIdentity;
use crate::process::{Lifetime, spawn};

const ORDER: &str = "keeper.json";
const LOG: &str = "keeper.log";
const STATUS_BYTES_MAX: u64 = 16 << 20;
const LOG_TAIL_BYTES: u64 = 4 << 10;
/// How long a library may take to be opened, over a slow line.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// How long a keeper may take to write its last status and its trace once its machine has ended.
const END_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(3);

/// Starts keepers.
pub trait Keepers: Debug + Sync {
    /// Starts the keeper of one machine, whose files go into `directory`; returns when the disks
    /// are served.
    fn start(
        &self,
        order: &KeeperOrder,
        directory: &Path,
        lifetime: Lifetime,
    ) -> Result<Box<dyn Keeper>>;

    /// Takes over the keeper of a machine whose files are in `directory`, or starts another one in
    /// its place when its process is gone. `None` when the machine needs none.
    fn take_over(
        &self,
        directory: &Path,
        process: Option<ProcessIdentity>,
    ) -> Result<Option<Box<dyn Keeper>>>;
}

/// The keeper of one machine.
pub trait Keeper: Debug + Send + Sync {
    /// Its process, where it is one.
    fn process(&self) -> Option<ProcessIdentity>;

    /// How it is, as far as it has said.
    fn status(&self) -> KeeperStatus;

    /// Whether its process is gone.
    fn has_ended(&self) -> bool;

    /// Waits for its end, after its machine has ended; ends it if it takes too long.
    fn end(&self);

    /// Ends it at once.
    fn kill(&self);
}

/// The program that keepers run, with the arguments that come before the order's file.
#[derive(Clone)]
pub struct KeeperProgram {
    /// This program.
    pub program: PathBuf,
    /// How it finds the library, and that it is to be a keeper.
    pub arguments: Vec<OsString>,
    /// Where keepers keep chunks on the way.
    pub cache: CacheOrder,
    /// What it needs besides the environment of this one.
    pub environment: Option<(&'static str, String)>,
}

impl Debug for KeeperProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A passphrase may be in its environment.
        f.debug_struct("KeeperProgram")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

impl Keepers for KeeperProgram {
    fn start(
        &self,
        order: &KeeperOrder,
        directory: &Path,
        lifetime: Lifetime,
    ) -> Result<Box<dyn Keeper>> {
        if order.takes_over {
            // What the keeper before listened on.
            file::remove_file(&order.nbd)?;
        }
        let order = &KeeperOrder {
            cache: self.cache.clone(),
            ..order.clone()
        };
        let place = directory.join(ORDER);
        file::write(&place, &serde_json::to_vec(order).unwrap_or_default())?;
        let mut arguments = self.arguments.clone();
        arguments.push(place.into());
        let log = directory.join(LOG);
        let child = spawn(
            &self.program,
            &arguments,
            self.environment.as_ref(),
            &log,
            lifetime,
        )?;
        let keeper = KeeperProcess {
            identity: ProcessIdentity::of(child.id()),
            child: Mutex::new(child),
            status: order.status.clone(),
            log,
        };
        keeper.wait_until_it_serves(&order.nbd)?;
        Ok(Box::new(keeper))
    }

    fn take_over(
        &self,
        directory: &Path,
        process: Option<ProcessIdentity>,
    ) -> Result<Option<Box<dyn Keeper>>> {
        let place = directory.join(ORDER);
        if !place.exists() {
            return Ok(None);
        }
        let mut order = read_order(&place)?;
        if let Some(process) = process {
            let status = order.status;
            return Ok(Some(Box::new(OtherKeeper { process, status })));
        }
        order.takes_over = true;
        self.start(&order, directory, Lifetime::OnTheirOwn)
            .map(Some)
    }
}

/// A keeper that another command started.
#[derive(Debug)]
struct OtherKeeper {
    process: ProcessIdentity,
    status: PathBuf,
}

impl Keeper for OtherKeeper {
    fn process(&self) -> Option<ProcessIdentity> {
        Some(self.process.clone())
    }

    fn status(&self) -> KeeperStatus {
        read_status(&self.status)
    }

    fn has_ended(&self) -> bool {
        !self.process.is_alive()
    }

    fn end(&self) {
        if !self.process.gone_within(END_PATIENCE) {
            self.kill();
        }
    }

    fn kill(&self) {
        self.process.end(Duration::ZERO);
    }
}

#[derive(Debug)]
struct KeeperProcess {
    identity: Option<ProcessIdentity>,
    child: Mutex<Child>,
    status: PathBuf,
    log: PathBuf,
}

impl KeeperProcess {
    fn wait_until_it_serves(&self, socket: &Path) -> Result<()> {
        let end = Instant::now() + START_PATIENCE;
        while !socket.exists() {
            if self.has_ended() {
                return Err(self.failure());
            }
            if Instant::now() > end {
                self.kill();
                return Err(Error::Request {
                    problem: format!(
                        "the library did not answer in {} s",
                        START_PATIENCE.as_secs()
                    ),
                    hint: None,
                });
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn child<T>(&self, what: impl FnOnce(&mut Child) -> T) -> T {
        what(&mut self.child.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it said before it ended, without what it was not asked.
    fn failure(&self) -> Error {
        let said = file::read_tail(&self.log, LOG_TAIL_BYTES).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let after = |start: &str| {
            let found = said.lines().find_map(|line| line.strip_prefix(start));
            found.map(str::to_owned)
        };
        Error::Request {
            problem: after("error: ").unwrap_or_else(|| said.trim().to_owned()),
            hint: after("hint: "),
        }
    }
}

impl Keeper for KeeperProcess {
    fn process(&self) -> Option<ProcessIdentity> {
        self.identity.clone()
    }

    fn status(&self) -> KeeperStatus {
        read_status(&self.status)
    }

    fn has_ended(&self) -> bool {
        self.child(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn end(&self) {
        let end = Instant::now() + END_PATIENCE;
        while !self.has_ended() {
            if Instant::now() > end {
                return self.kill();
            }
            thread::sleep(PAUSE);
        }
    }

    fn kill(&self) {
        self.child(|child| {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        });
    }
}

impl Drop for KeeperProcess {
    fn drop(&mut self) {
        // A machine that was left to itself keeps its keeper.
        self.child(|child| drop(child.try_wait()));
    }
}

/// Reads an order.
pub fn read_order(place: &Path) -> Result<KeeperOrder> {
    let text = file::read_text(place, STATUS_BYTES_MAX)?;
    serde_json::from_str(&text).map_err(|error| Error::Request {
        problem: format!("{}: {error}", place.display()),
        hint: None,
    })
}

/// The status in a file; that of a keeper that has not said anything, where there is none.
pub(crate) fn read_status(place: &Path) -> KeeperStatus {
    let bytes = file::read_tail(place, STATUS_BYTES_MAX).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}
