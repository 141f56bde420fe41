// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which process: its number is used again after it has ended, its number with its start is not.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process of this computer, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the computer did.
    pub start_ticks: u64,
    /// Which start of the computer.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// The process of that number, if there is one.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start_ticks: start_ticks(pid)?,
            boot_id: boot_id(),
        })
    }

    /// This program.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether it still runs. A zombie does not: it only waits to be noticed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.boot_id == boot_id() && start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Asks it to end, waits, and ends it if it has not; whether it is gone.
    pub(crate) fn end(&self, patience: Duration) -> bool {
        if !patience.is_zero() {
            self.signal(Signal::TERM);
            if self.gone_within(patience) {
                return true;
            }
        }
        self.signal(Signal::KILL);
        self.gone_within(Duration::from_secs(5))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && self.is_alive()
        {
            // It may end by itself meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end; whether it came.
    pub(crate) fn gone_within(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

/// The start of the computer that we are in.
#[must_use]
pub fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn start_ticks(pid: u32) -> Option<u64> {
    parse_start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of `/proc/PID/stat`; the second, the program's name, may hold anything.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_start_of_a_process_is_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200";
        assert_eq!(parse_start_ticks(stat), Some(98765));
        assert_eq!(parse_start_ticks(&stat.replace(" S ", " Z ")), None);
        assert_eq!(parse_start_ticks("42 (a"), None);
    }

    #[test]
    fn a_process_is_ended_only_if_it_is_the_same_one() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        let another = ProcessIdentity {
            start_ticks: identity.start_ticks + 1,
            ..identity.clone()
        };
        assert!(!another.is_alive());
        assert!(another.end(Duration::from_millis(10)));
        assert!(identity.is_alive());
        assert!(identity.end(Duration::ZERO));
        child.wait().unwrap();
    }
}
