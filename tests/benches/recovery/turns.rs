// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two machines that take turns on the processors until both have shown their pages: how fast those
//! are changes while one starts, and this way it changes for both.
//!
//! A machine whose turn is over stands still: its monitor has been told `stop`, its clocks with it, and
//! who serves its disk has been stopped too, so that nothing is fetched ahead meanwhile.

use std::fs::File;
use std::time::{Duration, Instant};

use e2e::{Running, Signal, signal, user_time};

use super::far::Opened;
use super::local::StandingMachine;
use super::qmp::Qmp;
use super::site::{Booted, PAGE_PATIENCE, Site, page_within};

/// Short beside what changes the speed of a computer's processors, long beside what a change of turns
/// takes (a few ms, which count as the machine's own).
const TURN: Duration = Duration::from_secs(1);

/// A machine that runs only while it is its turn.
pub(crate) struct Turning {
    /// From the command to running processors.
    to_running: Duration,
    qmp: Qmp,
    process: u32,
    /// Who serves its disk.
    servants: Vec<u32>,
    port: u16,
    /// Since when it has been its turn.
    running: Option<Instant>,
    /// How long it ran in all its turns that are over.
    ran: Duration,
    has_shown_page: bool,
}

/// One start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// From the command to running processors.
    pub(crate) to_running: Duration,
    /// From then on to the page, without the other's turns.
    pub(crate) to_page: Duration,
    /// What QEMU used of this computer's processors until then, for the guest's.
    pub(crate) emulated: Duration,
}

impl Times {
    /// How long it takes for each second of processors; waiting makes it longer, slow ones do not.
    pub(crate) fn pace(&self) -> f64 {
        self.to_page.as_secs_f64() / self.emulated.as_secs_f64()
    }
}

impl Turning {
    /// The machine that `relevo boot` has just started: it is its turn.
    ///
    /// The command is killed, as it may be, for its place at the monitor; the machine goes on with its
    /// keeper. Gives what keeps other machines from running, too.
    pub(crate) fn booted(site: &Site, opened: &Opened<'_>, machine: Booted) -> (Self, File) {
        let (to_running, running, port) = (machine.took(), machine.running, machine.port);
        drop(machine.command);
        let mut servants = vec![site.keeper_process()];
        servants.extend(opened.server());
        let turning = Self {
            to_running,
            qmp: Qmp::connect(&site.monitor()),
            process: site.running_process(),
            servants,
            port,
            running: Some(running),
            ran: Duration::ZERO,
            has_shown_page: false,
        };
        (turning, machine.slot)
    }

    /// A machine with a local disk, and its process, which is killed when dropped.
    pub(crate) fn local(machine: StandingMachine, port: u16) -> (Self, Running) {
        let turning = Self {
            to_running: machine.took,
            qmp: machine.qmp,
            process: machine.process.id(),
            servants: Vec::new(),
            port,
            running: None,
            ran: Duration::ZERO,
            has_shown_page: false,
        };
        (turning, machine.process)
    }

    fn times(&self) -> Times {
        Times {
            to_running: self.to_running,
            to_page: self.ran,
            emulated: user_time(self.process),
        }
    }

    /// Runs until the page is there or the turn is over.
    fn turn(&mut self, sentence: &str) {
        let began = self.running.take().unwrap_or_else(|| self.go_on());
        let left = TURN.saturating_sub(began.elapsed());
        let shown = page_within(left, self.port, sentence);
        self.stand_still();
        // Without a page the machine runs until it stands still.
        self.ran += shown.unwrap_or_else(Instant::now) - began;
        self.has_shown_page = shown.is_some();
        assert!(self.ran < PAGE_PATIENCE, "the page did not come");
    }

    fn go_on(&mut self) -> Instant {
        let began = Instant::now();
        self.tell_servants(Signal::CONT);
        self.qmp.execute("cont");
        began
    }

    fn stand_still(&mut self) {
        // The answer comes when no read of the machine waits any more.
        self.qmp.execute("stop");
        self.tell_servants(Signal::STOP);
    }

    fn tell_servants(&self, what: Signal) {
        for servant in &self.servants {
            assert!(signal(what, *servant), "who serves the disk has ended");
        }
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        for servant in &self.servants {
            // So that it sees the end of its machine; who has ended need not.
            let _ = signal(Signal::CONT, *servant);
        }
    }
}

/// Lets two machines take turns until both have shown their page; the first begins.
pub(crate) fn take_turns(mut machines: [Turning; 2], sentence: &str) -> [Times; 2] {
    while machines.iter().any(|machine| !machine.has_shown_page) {
        for machine in &mut machines {
            if !machine.has_shown_page {
                machine.turn(sentence);
            }
        }
    }
    machines.each_ref().map(Turning::times)
}
