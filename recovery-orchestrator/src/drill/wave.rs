// SPDX-License-Identifier: MIT OR Apache-2.0
//! The servers of one wave: started one after the other, asked all at once.
//!
//! A machine whose guest shows no sign of life with the first profile is made again with the
//! next. One that boots and fails its checks is not: other hardware would not cure it.

use std::time::Instant;

use converter::vm::Profile;
use disk::Finding;

use super::{Drill, Scratch};
use crate::check::{self, CheckResult, Outcome, Subject, milliseconds};
use crate::error::Result;
use crate::file;
use crate::guest::Guest;
use crate::hosted::{Host, Hosted, NBD};
use crate::journal::{Event, RunOutcome};
use crate::keeper::KeeperStatus;
use crate::nbd::Reads;
use crate::network::{self, NicPlan};
use crate::platform::{Order, ProfileName};
use crate::process::Lifetime;
use crate::report::{self, Attempt, HardwareRecord, ImageRecord, Proposal, ServerReport, Timeline};
use crate::runbook::{Check, ProfileChoice, Server};

/// So much of the console is in the report.
const CONSOLE_LINE_COUNT: usize = 60;
const CONSOLE_LINE_CHARS: usize = 300;

/// A server during a drill.
#[derive(Debug)]
pub(super) struct ServerRun<'a> {
    pub(super) wave: usize,
    pub(super) name: String,
    pub(super) guest: Guest,
    pub(super) image: ImageRecord,
    number: usize,
    server: &'a Server,
    timeline: Timeline,
    nics: Vec<String>,
    attempts: Vec<Attempt>,
    reads: Reads,
    machine: Option<Hosted>,
    findings: Vec<Finding>,
}

/// A machine whose processors run, on its way to an answer.
struct Running {
    profile: Profile,
    started_ms: u64,
    running_ms: u64,
    started: Instant,
}

type Started<'s, 'a> = (&'s mut ServerRun<'a>, Running);

/// Starts the servers of a wave and waits for their checks, with profile after profile.
pub(super) fn run_wave(
    drill: &Drill<'_>,
    scratch: &Scratch,
    mut servers: Vec<&mut ServerRun<'_>>,
) -> Result<()> {
    let rounds = servers.iter().map(|server| server.profiles().len()).max();
    for round in 0..rounds.unwrap_or(0) {
        let mut started: Vec<Started<'_, '_>> = Vec::new();
        for server in &mut servers {
            drill.interrupt.check()?;
            let profile = server.profiles().get(round).copied();
            if let Some(profile) = profile.filter(|_| server.wants_another_try()) {
                let running = server.start(drill, scratch, profile)?;
                started.push((&mut **server, running));
            }
        }
        if started.is_empty() {
            return Ok(());
        }
        drill
            .monitor
            .stage(&format!("Waiting for {}", names(&started)));
        let results = ask_all(drill, &started);
        for ((server, running), checks) in started.into_iter().zip(results) {
            server.conclude(drill, scratch, &running, checks)?;
        }
        if drill.interrupt.is_raised() {
            return Ok(());
        }
    }
    Ok(())
}

fn names(started: &[Started<'_, '_>]) -> String {
    let names = started.iter().map(|(server, running)| {
        format!("{} on {}", server.name, ProfileName::of(running.profile))
    });
    names.collect::<Vec<_>>().join(", ")
}

/// The checks of all machines at once.
fn ask_all(drill: &Drill<'_>, started: &[Started<'_, '_>]) -> Vec<Vec<CheckResult>> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (server, running) in started {
            let Some(hosted) = &server.machine else {
                continue;
            };
            let subject = Subject {
                machine: hosted.machine(),
                started: running.started,
                command_started: drill.command_started,
                interrupt: drill.interrupt,
            };
            let checks = &server.server.checks;
            threads.push(scope.spawn(move || check::run(subject, checks)));
        }
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default())
            .collect()
    })
}

impl<'a> ServerRun<'a> {
    pub(super) fn new(
        number: usize,
        wave: usize,
        name: String,
        server: &'a Server,
        guest: Guest,
        image: ImageRecord,
        timeline: Timeline,
    ) -> Self {
        Self {
            wave,
            name,
            guest,
            image,
            number,
            server,
            timeline,
            nics: Vec::new(),
            attempts: Vec::new(),
            reads: Reads::default(),
            machine: None,
            findings: Vec::new(),
        }
    }

    /// The runbook's profile first, then those that the guest has drivers for.
    fn profiles(&self) -> Vec<Profile> {
        let known = &self.guest.definition.profiles;
        let mut profiles = match self.server.hardware.profile {
            ProfileChoice::Auto => Vec::new(),
            ProfileChoice::First(name) => vec![name.profile(known)],
        };
        for profile in known {
            if !profiles.contains(profile) {
                profiles.push(*profile);
            }
        }
        profiles
    }

    fn wants_another_try(&self) -> bool {
        self.attempts
            .last()
            .is_none_or(|last| last.outcome == RunOutcome::Failed && !last.booted)
    }

    /// Makes the machine with a profile and lets it run.
    fn start(&mut self, drill: &Drill<'_>, scratch: &Scratch, profile: Profile) -> Result<Running> {
        let title = format!("Starting {} on {}", self.name, ProfileName::of(profile));
        drill.monitor.stage(&title);
        scratch.journal.record(Event::Step { title })?;
        let started_ms = milliseconds(drill.command_started.elapsed());
        let order = self.order(drill, scratch, profile)?;
        let host = Host {
            keepers: drill.keepers,
            platform: drill.platform,
            journal: &scratch.journal,
        };
        let hosted = host.start(&self.name, &self.guest, &order, None)?;
        let started = hosted.machine().resume()?;
        let running_ms = milliseconds(started.saturating_duration_since(drill.command_started));
        self.machine = Some(hosted);
        Ok(Running {
            profile,
            started_ms,
            running_ms,
            started,
        })
    }

    fn order(&mut self, drill: &Drill<'_>, scratch: &Scratch, profile: Profile) -> Result<Order> {
        // By number: the paths of sockets must be short.
        let place = format!("{}-{}", self.number, self.attempts.len());
        let (directory, sockets) = (scratch.directory.join(&place), scratch.sockets.join(&place));
        file::create_directories(&directory)?;
        file::create_directories(&sockets)?;
        let forwards = network::free_forwards(self.server.checks.iter().filter_map(Check::port))?;
        let wanted = drill.runbook.runbook.subnets(self.server);
        let nics = network::plan(&self.name, &self.guest.definition.nics, &wanted, forwards)?;
        self.nics = nics.iter().map(nic_text).collect();
        Ok(Order {
            definition: self.guest.definition.clone(),
            profile,
            disks: self.guest.attach(&directory)?,
            kernel: self.guest.attach_kernel(&directory)?,
            nics,
            nbd: sockets.join(NBD),
            lifetime: Lifetime::WithCommand,
            directory,
            sockets,
        })
    }

    /// Writes down what came of an attempt, and ends the machine if there is to be another one.
    fn conclude(
        &mut self,
        drill: &Drill<'_>,
        scratch: &Scratch,
        running: &Running,
        checks: Vec<CheckResult>,
    ) -> Result<()> {
        let Some(machine) = self.machine.as_ref().map(Hosted::machine) else {
            return Ok(());
        };
        let passed = |check: &CheckResult| check.outcome == Outcome::Passed;
        self.attempts.push(Attempt {
            profile: ProfileName::of(running.profile).to_string(),
            started_ms: running.started_ms,
            running_ms: running.running_ms,
            ended_ms: milliseconds(drill.command_started.elapsed()),
            outcome: outcome(&checks),
            problem: problem(&checks),
            booted: checks.is_empty() || checks.iter().any(passed),
            console_tail: tail(&machine.console()?),
            screen_png: machine.screenshot().map(|png| report::base64(&png)),
            checks,
        });
        if self.wants_another_try() {
            let findings = self.end(scratch);
            self.findings.extend(findings);
        }
        Ok(())
    }

    /// Ends the machine, if there is one; gives what was noticed about the disks of all of them.
    pub(super) fn end(&mut self, scratch: &Scratch) -> Vec<Finding> {
        let mut findings = std::mem::take(&mut self.findings);
        let Some(hosted) = self.machine.take() else {
            return findings;
        };
        let KeeperStatus {
            reads,
            findings: noticed,
            ..
        } = hosted.end();
        findings.extend(noticed);
        self.reads.request_count += reads.request_count;
        self.reads.read_bytes += reads.read_bytes;
        self.reads.block_count = self.reads.block_count.max(reads.block_count);
        // Not written: it is looked for later, not found, and done with.
        let ended = Event::MachineEnded {
            server: self.name.clone(),
        };
        if let Err(error) = scratch.journal.record(ended) {
            tracing::warn!(%error, "cannot write the journal");
        }
        findings
    }

    /// Why this server did not pass, if it was tried and did not.
    pub(super) fn problem(&self) -> Option<String> {
        let last = self.attempts.last()?;
        let problem = last
            .problem
            .as_ref()
            .filter(|_| last.outcome != RunOutcome::Passed)?;
        Some(format!("{}: {problem}", self.name))
    }

    /// The profile that worked, when it was not the first.
    pub(super) fn proposal(&self) -> Option<Proposal> {
        let (first, last) = (self.attempts.first()?, self.attempts.last()?);
        let from = match self.server.hardware.profile {
            ProfileChoice::Auto => "auto".to_owned(),
            ProfileChoice::First(name) => name.to_string(),
        };
        let changed = first.profile != last.profile && last.outcome == RunOutcome::Passed;
        changed.then(|| Proposal {
            server: self.name.clone(),
            key: format!("servers.{}.hardware.profile", self.name),
            from,
            to: last.profile.clone(),
            reason: format!(
                "it did not boot on {} ({}), and did on {}",
                first.profile,
                first.problem.as_deref().unwrap_or("no reason was seen"),
                last.profile
            ),
        })
    }

    pub(super) fn report(self) -> ServerReport {
        let definition = &self.guest.definition;
        ServerReport {
            name: self.name,
            image: self.image,
            wave: self.wave,
            adjustments: self.server.adjustments.clone(),
            hardware: HardwareRecord {
                cpus: definition.cpus,
                memory_bytes: definition.memory_bytes,
                firmware: definition.firmware,
                nics: self.nics,
                disk_bytes: definition
                    .disks
                    .iter()
                    .map(|disk| disk.size_bytes)
                    .collect(),
            },
            conversion: self.guest.conversion,
            timeline: self.timeline,
            attempts: self.attempts,
            reads: self.reads,
        }
    }
}

fn nic_text(nic: &NicPlan) -> String {
    let NicPlan {
        interface,
        mac,
        subnet,
        guest,
        ..
    } = nic;
    format!("{interface} ({mac}): {guest} in {subnet}, QEMU user networking with restrict=on")
}

fn outcome(checks: &[CheckResult]) -> RunOutcome {
    if checks.iter().all(|check| check.outcome == Outcome::Passed) {
        RunOutcome::Passed
    } else if checks
        .iter()
        .any(|check| check.outcome == Outcome::Interrupted)
    {
        RunOutcome::Interrupted
    } else {
        RunOutcome::Failed
    }
}

/// The first check that did not pass.
fn problem(checks: &[CheckResult]) -> Option<String> {
    let check = checks
        .iter()
        .find(|check| check.outcome != Outcome::Passed)?;
    Some(format!(
        "{}: {}",
        check.check,
        check.reason.as_deref().unwrap_or("no answer")
    ))
}

/// The last lines of a console as plain text.
fn tail(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    let plain = |line: &str| {
        check::plain(line)
            .chars()
            .take(CONSOLE_LINE_CHARS)
            .collect()
    };
    let lines: Vec<String> = text.lines().map(plain).collect();
    lines[lines.len().saturating_sub(CONSOLE_LINE_COUNT)..].join("\n")
}
