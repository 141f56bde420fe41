// SPDX-License-Identifier: MIT OR Apache-2.0
//! A platform without virtual machines: the same promises, a scripted guest, milliseconds for
//! minutes. With it the whole course of a drill is tested in a second.
//!
//! Ports of a guest that is up are real ones on 127.0.0.1 with a small web server behind them, so
//! the checks are the real ones. How long a guest takes is drawn from a seed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use converter::vm::DiskController;

use super::{Description, Machine, Order, Platform, RunningMachine, Status};
use crate::error::{Error, Result};
use crate::journal::ProcessIdentity;
use crate::keeper::{Keeper, KeeperOrder, KeeperStatus, Keepers};
use crate::nbd::Reads;
use crate::process::Lifetime;

/// What guests do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Boot and answer.
    Boots,
    /// Boot and answer, after this long.
    BootsSlowly(Duration),
    /// Show a login prompt, but answer on no port.
    NoService,
    /// Answer with this status.
    AnswersStatus(u16),
    /// Do not find their root filesystem unless their disks hang on this.
    NeedsController(DiskController),
    /// Print nothing for ever.
    Hangs,
    /// End by themselves.
    PowersOff,
    /// Cannot even be made.
    CannotStart,
}

/// A platform of scripted guests.
#[derive(Debug)]
pub struct Fake {
    behaviour: Behaviour,
    random: Mutex<u64>,
    running: Arc<AtomicUsize>,
}

impl Fake {
    /// Guests that all do the same; the seed decides how long they take.
    #[must_use]
    pub fn new(behaviour: Behaviour, seed: u64) -> Self {
        Self {
            behaviour,
            random: Mutex::new(seed),
            running: Arc::default(),
        }
    }

    /// How many machines run.
    #[must_use]
    pub fn running_count(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// 1 to 40 ms (a linear congruential generator: any sequence will do).
    fn boot_time(&self) -> Duration {
        let mut state = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis(1 + (*state >> 33) % 40)
    }
}

impl Platform for Fake {
    fn description(&self) -> Description {
        Description {
            platform: "fake".to_owned(),
            version: "1".to_owned(),
            acceleration: "none: no guest runs".to_owned(),
        }
    }

    fn take_over(&self, running: &RunningMachine) -> Result<Box<dyn Machine>> {
        Err(Error::Machine {
            name: running.name.clone(),
            problem: "scripted machines end with their command".to_owned(),
            hint: None,
        })
    }

    fn start(&self, order: &Order) -> Result<Box<dyn Machine>> {
        if self.behaviour == Behaviour::CannotStart {
            return Err(Error::Machine {
                name: order.definition.name.clone(),
                problem: "scripted not to start".to_owned(),
                hint: None,
            });
        }
        for disk in &order.disks {
            if !disk.file.is_file() {
                return Err(Error::Machine {
                    name: order.definition.name.clone(),
                    problem: format!("no overlay {}", disk.file.display()),
                    hint: None,
                });
            }
        }
        let kernel = order.kernel.as_ref();
        let files = kernel.map(|kernel| std::iter::once(&kernel.kernel).chain(&kernel.initramfs));
        let is_missing = |file: &PathBuf| !file.is_file();
        if kernel.is_some() != order.definition.direct_boot.is_some()
            || files.is_some_and(|mut files| files.any(is_missing))
        {
            return Err(Error::Machine {
                name: order.definition.name.clone(),
                problem: "no kernel, or none that was asked for".to_owned(),
                hint: None,
            });
        }
        self.running.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeMachine {
            behaviour: self.behaviour,
            controller: order.profile.disk,
            boot_time: self.boot_time(),
            ports: order
                .nics
                .iter()
                .flat_map(|nic| &nic.forwards)
                .map(|forward| forward.guest_port)
                .collect(),
            started: Mutex::new(None),
            service: Mutex::new(None),
            running: Arc::clone(&self.running),
            stopped: AtomicBool::new(false),
        }))
    }
}

#[derive(Debug)]
struct FakeMachine {
    behaviour: Behaviour,
    controller: DiskController,
    boot_time: Duration,
    ports: Vec<u16>,
    started: Mutex<Option<Instant>>,
    service: Mutex<Option<Service>>,
    running: Arc<AtomicUsize>,
    stopped: AtomicBool,
}

impl FakeMachine {
    /// Whether the guest is up by now.
    fn is_up(&self) -> bool {
        let started = *self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(started) = started else { return false };
        match self.behaviour {
            Behaviour::Boots | Behaviour::NoService | Behaviour::AnswersStatus(_) => {
                started.elapsed() >= self.boot_time
            }
            Behaviour::BootsSlowly(time) => started.elapsed() >= time,
            Behaviour::NeedsController(controller) => {
                controller == self.controller && started.elapsed() >= self.boot_time
            }
            Behaviour::Hangs | Behaviour::PowersOff | Behaviour::CannotStart => false,
        }
    }
}

impl Machine for FakeMachine {
    fn process(&self) -> Option<ProcessIdentity> {
        None
    }

    fn resume(&self) -> Result<Instant> {
        let now = Instant::now();
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        Ok(now)
    }

    fn status(&self) -> Status {
        match self.behaviour {
            Behaviour::PowersOff => Status::Ended("powered off".to_owned()),
            _ => Status::Running,
        }
    }

    fn console(&self) -> Result<Vec<u8>> {
        let text = match self.behaviour {
            Behaviour::Hangs => "",
            _ if self.is_up() => "Linux version 6.1\r\nguest login: ",
            Behaviour::NeedsController(controller) if controller != self.controller => {
                "Linux version 6.1\r\nALERT!  /dev/sda1 does not exist.  Dropping to a shell!\r\n(initramfs) "
            }
            _ => "Linux version 6.1\r\n",
        };
        Ok(text.as_bytes().to_vec())
    }

    fn endpoint(&self, port: u16) -> Option<SocketAddr> {
        if !self.ports.contains(&port) || !self.is_up() || self.behaviour == Behaviour::NoService {
            // As a forward whose guest does not answer: refused.
            return self
                .ports
                .contains(&port)
                .then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        }
        let status = match self.behaviour {
            Behaviour::AnswersStatus(status) => status,
            _ => 200,
        };
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        if service.is_none() {
            *service = Service::start(status).ok();
        }
        service.as_ref().map(|service| service.address)
    }

    fn accepts(&self, port: u16) -> Result<bool> {
        Ok(self
            .endpoint(port)
            .is_some_and(|address| TcpStream::connect(address).is_ok()))
    }

    fn screenshot(&self) -> Option<Vec<u8>> {
        None
    }

    fn stop(&self) {
        if !self.stopped.swap(true, Ordering::SeqCst) {
            self.running.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Keepers that keep nothing.
#[derive(Debug)]
pub struct FakeKeepers;

#[derive(Debug)]
struct FakeKeeper;

impl Keepers for FakeKeepers {
    fn start(
        &self,
        _order: &KeeperOrder,
        _directory: &Path,
        _lifetime: Lifetime,
    ) -> Result<Box<dyn Keeper>> {
        Ok(Box::new(FakeKeeper))
    }

    fn take_over(
        &self,
        _directory: &Path,
        _process: Option<ProcessIdentity>,
    ) -> Result<Option<Box<dyn Keeper>>> {
        Ok(None)
    }
}

impl Keeper for FakeKeeper {
    fn process(&self) -> Option<ProcessIdentity> {
        None
    }

    fn status(&self) -> KeeperStatus {
        KeeperStatus {
            reads: Reads {
                request_count: 1,
                read_bytes: 65_536,
                block_count: 1,
            },
            ..KeeperStatus::default()
        }
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn end(&self) {}

    fn kill(&self) {}
}

/// A web server that answers everything with one status.
#[derive(Debug)]
struct Service {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start(status: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let ending = Arc::new(AtomicBool::new(false));
        let for_thread = Arc::clone(&ending);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if for_thread.load(Ordering::SeqCst) {
                    return;
                }
                // A client that has gone needs no answer.
                let _ = answer(stream, status);
            }
        });
        Ok(Self {
            address,
            ending,
            thread: Some(thread),
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes the thread up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(stream: TcpStream, status: u16) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let body = "the shop is open";
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    reader
        .get_mut()
        .write_all(format!("{head}{body}").as_bytes())
}
