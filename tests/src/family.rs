// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program takes together with everything that it starts, however it is left to itself.
//!
//! It runs in a process namespace of its own. The shell that is first there inherits what loses its
//! parent, so its CPU time is complete at the end, and nothing of it runs on. Memory is looked at in
//! between: the proportional share (PSS) of each process, so that what they share counts once.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::program::{Outcome, Program};

/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// What has ended with the program is waited for a moment by the shell.
const SHELL: &str = "\"$@\"; status=$?; sleep 0.2; exit $status";
/// As root, and as somebody who may only be root in a namespace of users.
const NAMESPACES: [&[&str]; 2] = [
    &["--fork", "--pid", "--mount-proc", "--kill-child"],
    &[
        "--map-root-user",
        "--fork",
        "--pid",
        "--mount-proc",
        "--kill-child",
    ],
];

impl Program {
    /// Runs it to its end, with all that it starts: their CPU time and memory are in the usage.
    /// `None` where this user may make no process namespace. What was set in its environment before
    /// is not passed on; `with` sets it.
    ///
    /// # Panics
    /// When it cannot be started, or does not end.
    #[must_use]
    pub fn run_with_family(self, with: impl FnOnce(Self) -> Self) -> Option<Outcome> {
        let namespace = NAMESPACES.into_iter().find(|options| {
            let tried = Command::new("unshare").args(*options).arg("true").output();
            tried.is_ok_and(|output| output.status.success())
        })?;
        let shell = self.within("bash", &["-c", SHELL, "bash"]);
        let running = with(shell.within("unshare", namespace)).start();
        let ended = Arc::new(AtomicBool::new(false));
        let (first, seen) = (running.id(), Arc::clone(&ended));
        let looking = thread::spawn(move || peak_below(first, &seen));
        let mut outcome = running.wait();
        ended.store(true, Ordering::Relaxed);
        outcome.usage.memory_max_bytes = looking.join().unwrap_or_default();
        Some(outcome)
    }
}

fn peak_below(first: u32, ended: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !ended.load(Ordering::Relaxed) {
        let family = family_of(first, &parents());
        peak = peak.max(family.into_iter().map(share_bytes).sum());
        thread::sleep(LOOK_INTERVAL);
    }
    peak
}

/// The parent of every process.
fn parents() -> HashMap<u32, u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            // One that has ended meanwhile has no parent.
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, fields) = stat.rsplit_once(')')?;
            Some((process, fields.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect()
}

/// A process and those below it.
fn family_of(first: u32, parents: &HashMap<u32, u32>) -> Vec<u32> {
    let mut family = vec![first];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        let children = parents.iter().filter(|(_, of)| **of == parent);
        family.extend(children.map(|(child, _)| *child));
        next += 1;
    }
    family
}

/// What of the memory is a process's; nothing of one that has ended.
fn share_bytes(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_everything_below() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 2), (5, 4), (9, 8)]);
        let mut family = family_of(2, &parents);
        family.sort_unstable();
        assert_eq!(family, [2, 3, 4, 5]);
    }

    #[test]
    fn what_a_child_of_a_child_takes_is_counted() {
        let busy = "(head -c 300000000 /dev/zero | sha256sum >/dev/null) & wait";
        let program = Program::tool("bash").args("-c").arg(busy);
        let Some(outcome) = program.run_with_family(|program| program) else {
            crate::skip("this user may make no process namespace");
            return;
        };
        assert_eq!(outcome.code, Some(0), "{outcome}");
        assert!(outcome.usage.cpu > Duration::from_millis(50), "{outcome}");
        assert!(outcome.usage.memory_max_bytes > 1 << 20, "{outcome}");
    }
}
