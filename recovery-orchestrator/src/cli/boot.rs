// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo boot`: one machine in the foreground, its serial console on this terminal.

use std::path::PathBuf;

use image_library::ImageRef;
use image_library::program::{Verdict, print_line};
use image_library::terminal::{bytes_text, finding_text};
use jiff::Timestamp;
use recovery_orchestrator::boot::{BootHost, BootOptions, Booted, KeptMachine, boot};
use recovery_orchestrator::check::milliseconds;
use recovery_orchestrator::guest::{Converting, Guest, GuestSource as _};
use recovery_orchestrator::interrupt::Interrupt;
use recovery_orchestrator::journal::{RunOutcome, Scope, leftovers};
use recovery_orchestrator::keeper::KeeperStatus;
use recovery_orchestrator::network::Forward;
use recovery_orchestrator::platform::{Platform as _, ProfileName};
use recovery_orchestrator::runbook::parse_bytes;
use recovery_orchestrator::state::StateDirectory;
use recovery_orchestrator::{Error, Result};

use super::console::{self, End};
use super::context::Context;
use super::output::DryRun;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ctrl-] ends the machine. Nothing that it wrote is kept, unless its disks are \
moved to a directory (--to)."
)]
pub(super) struct BootArguments {
    /// Which image
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    image: Option<ImageRef>,
    /// Keep the machine's disks in DIR: they are moved there from the library while it runs
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Go on with the machine whose disks are in DIR
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    from: Option<PathBuf>,
    /// Move each disk at most so fast, as 50MiB (per second)
    #[arg(long, value_parser = parse_bytes)]
    rate: Option<u64>,
    /// virtio, virtio-scsi, sata, ide or scsi-lsi; with a network card: sata/e1000
    #[arg(long)]
    profile: Option<ProfileName>,
    /// Memory, as 2GiB [default: as the server had]
    #[arg(long, value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Processors [default: as the server had]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: Option<u32>,
    /// Reach the guest's TCP port GUEST at 127.0.0.1:HOST
    #[arg(long, value_name = "HOST:GUEST", value_parser = parse_forward)]
    forward: Vec<Forward>,
    #[command(flatten)]
    dry_run: DryRun,
}

pub(super) fn run(context: &Context, arguments: &BootArguments) -> Result<Verdict> {
    if arguments.dry_run.dry_run {
        return dry_run(context, arguments);
    }
    let monitor = context.monitor();
    let interrupt = Interrupt::install(super::end_at_once)?;
    let (guest, kept) = guest(context, arguments, &interrupt, &monitor)?;
    let state = context.state()?;
    let qemu = context.qemu(&state)?;
    let keepers = context.keepers()?;
    let host = BootHost {
        keepers: &keepers,
        platform: &qemu,
        state: &state,
        clock: Timestamp::now,
    };
    let options = BootOptions {
        profile: arguments.profile,
        cpus: arguments.cpus,
        memory_bytes: arguments.memory,
        forwards: arguments.forward.clone(),
        rate_bytes_per_second: arguments.rate.unwrap_or(0),
    };
    let booted = boot(&guest, &options, kept, &host)?;
    monitor.finish();
    tell_leftovers(context, &state)?;
    let console = console::Connection::open(&booted.console)?;
    let started = booted.machine().resume()?;
    let after = milliseconds(started.saturating_duration_since(context.started));
    context.say(&format!(
        "Running on {} after {}.{:02} s ({})",
        ProfileName::of(booted.profile),
        after / 1000,
        after % 1000 / 10,
        qemu.description().acceleration
    ));
    talk(context, booted, console, &interrupt, &host)
}

/// Machines of commands that were killed are not ended behind anybody's back.
fn tell_leftovers(context: &Context, state: &StateDirectory) -> Result<()> {
    for left in leftovers(state, Scope::Killed)? {
        if left.is_in_use() {
            context.say(&format!(
                "{} runs on without its command: `relevo attach` takes it over, `relevo cleanup` ends it",
                left.run
            ));
        }
    }
    Ok(())
}

/// The console of a machine that runs already, until its end.
pub(super) fn stay(
    context: &Context,
    booted: Booted,
    interrupt: &Interrupt,
    host: &BootHost<'_>,
) -> Result<Verdict> {
    let console = console::Connection::open(&booted.console)?;
    talk(context, booted, console, interrupt, host)
}

fn talk(
    context: &Context,
    booted: Booted,
    console: console::Connection,
    interrupt: &Interrupt,
    host: &BootHost<'_>,
) -> Result<Verdict> {
    let mut news = News::default();
    let result = pass(context, &booted, console, interrupt, &mut || {
        let mut lines = Vec::new();
        match booted.look_after(host) {
            Ok(true) => {
                lines.push("the keeper of its disks was gone and was started anew".to_owned());
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "no keeper could be started"),
        }
        lines.extend(news.of(&booted.status()));
        lines
    });
    let outcome = if result.is_ok() {
        RunOutcome::Passed
    } else {
        RunOutcome::Failed
    };
    let status = booted.end(outcome)?;
    let end = result?;
    context.say(match end {
        End::Escape => "\nEnded.",
        End::Interrupted => "\nEnded by a signal.",
        End::Machine => "\nThe machine has ended by itself.",
    });
    for line in news.of(&status) {
        context.say(&line);
    }
    Ok(tell_end(context, &status))
}

/// The guest, and the directory that has its disks, if one is to have them.
fn guest(
    context: &Context,
    arguments: &BootArguments,
    interrupt: &Interrupt,
    monitor: &dyn disk::Monitor,
) -> Result<(Guest, Option<KeptMachine>)> {
    if let Some(directory) = &arguments.from {
        let kept = KeptMachine::open(directory)?;
        return Ok((kept.guest(), Some(kept)));
    }
    let Some(image) = &arguments.image else {
        return Err(Error::Request {
            problem: "no image is named".to_owned(),
            hint: None,
        });
    };
    let (library, image) = context.open_image(image)?;
    let source = Converting {
        reader: &*library,
        again: false,
        secrets: context.secrets()?,
        machine: &context.small_vm(interrupt),
    };
    let guest = source.prepare(&image, monitor)?;
    let kept = match &arguments.to {
        Some(directory) => Some(KeptMachine::create(directory, &guest)?),
        None => None,
    };
    Ok((guest, kept))
}

fn dry_run(context: &Context, arguments: &BootArguments) -> Result<Verdict> {
    let Some(image) = &arguments.image else {
        let directory = arguments.from.clone().unwrap_or_default();
        KeptMachine::open(&directory)?;
        print_line(&format!(
            "would start the machine whose disks are in {}",
            directory.display()
        ));
        return Ok(Verdict::Done);
    };
    let (_, image) = context.open_image(image)?;
    let then = match &arguments.to {
        Some(directory) => format!("whose disks are moved to {}", directory.display()),
        None => "that is thrown away".to_owned(),
    };
    print_line(&format!(
        "would prepare {}@{} and start it with an overlay {then}",
        image.server, image.id
    ));
    Ok(Verdict::Done)
}

fn pass(
    context: &Context,
    booted: &Booted,
    console: console::Connection,
    interrupt: &Interrupt,
    news: &mut dyn FnMut() -> Vec<String>,
) -> Result<End> {
    for nic in &booted.nics {
        context.say(&format!("  {nic}, cut off (restrict=on)"));
    }
    context.say(console::usage());
    console.talk(booted.machine(), interrupt, &mut || {
        for line in news() {
            context.say(&format!("\r\n[relevo] {line}\r"));
        }
    })
}

/// What a person who watches the console is told about the disks.
#[derive(Debug, Default)]
struct News {
    findings: usize,
    is_waiting: bool,
    tenths: u64,
    is_moved: bool,
    problem: Option<String>,
}

impl News {
    /// What is new.
    fn of(&mut self, status: &KeeperStatus) -> Vec<String> {
        let mut lines = Vec::new();
        for finding in status.findings.iter().skip(self.findings) {
            lines.push(finding_text(finding));
        }
        self.findings = status.findings.len();
        // A moment is nothing: the guest does not notice it either.
        let waiting = status.waiting.as_ref().filter(|(seconds, _)| *seconds >= 2);
        match waiting {
            Some((_, why)) if !self.is_waiting => {
                lines.push(format!("the library is away, the machine waits: {why}"));
            }
            None if self.is_waiting => lines.push("the library is back".to_owned()),
            _ => {}
        }
        self.is_waiting = waiting.is_some();
        if let Some(moving) = &status.moving {
            let tenths = moving.done_bytes.saturating_mul(10) / moving.total_bytes.max(1);
            if moving.is_complete && !self.is_moved {
                lines.push(
                    "its disks are on this computer now; the library is not needed any more"
                        .to_owned(),
                );
            } else if tenths > self.tenths {
                lines.push(format!(
                    "moved {} of {}",
                    bytes_text(moving.done_bytes),
                    bytes_text(moving.total_bytes)
                ));
            }
            if moving.problem.is_some() && moving.problem != self.problem {
                let problem = moving.problem.as_deref().unwrap_or_default();
                lines.push(format!("its disks are not moved on: {problem}"));
            }
            self.tenths = tenths;
            self.is_moved = moving.is_complete;
            self.problem.clone_from(&moving.problem);
        }
        lines
    }
}

/// What the keeper had to say in the end.
fn tell_end(context: &Context, status: &KeeperStatus) -> Verdict {
    if let Some(moving) = status.moving.as_ref().filter(|moving| !moving.is_complete) {
        context.say(&format!(
            "Its disks were moved in part: {} of {}. `relevo boot --from DIR` goes on.",
            bytes_text(moving.done_bytes),
            bytes_text(moving.total_bytes)
        ));
    }
    let errors = status
        .findings
        .iter()
        .filter(|finding| finding.level == disk::Level::Error);
    Verdict::of(errors.count() == 0)
}

fn parse_forward(text: &str) -> Result<Forward, String> {
    let wrong = || format!("not HOST:GUEST: {text:?}");
    let (host, guest) = text.split_once(':').ok_or_else(wrong)?;
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(wrong)
    };
    Ok(Forward {
        host_port: port(host)?,
        guest_port: port(guest)?,
    })
}

#[cfg(test)]
mod tests {
    use recovery_orchestrator::keeper::Moving;

    use super::*;

    #[test]
    fn a_forward_is_two_ports() {
        assert_eq!(
            parse_forward("8080:80"),
            Ok(Forward {
                host_port: 8080,
                guest_port: 80
            })
        );
        for text in ["80", "0:80", "80:99999", ":"] {
            assert!(parse_forward(text).is_err());
        }
    }

    #[test]
    fn news_are_told_once() {
        let mut news = News::default();
        let mut status = KeeperStatus {
            waiting: Some((3, "refused".to_owned())),
            moving: Some(Moving {
                done_bytes: 30,
                total_bytes: 100,
                ..Moving::default()
            }),
            ..KeeperStatus::default()
        };
        let told = news.of(&status);
        assert_eq!(
            told,
            [
                "the library is away, the machine waits: refused",
                "moved 30 B of 100 B"
            ]
        );
        assert_eq!(news.of(&status), [""; 0]);
        status.waiting = None;
        assert_eq!(news.of(&status), ["the library is back"]);
    }
}
