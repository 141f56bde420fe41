// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo boot`: one machine in the foreground, its serial console on this terminal.

use image_library::ImageRef;
use image_library::program::{Verdict, print_line};
use jiff::Timestamp;
use recovery_orchestrator::Result;
use recovery_orchestrator::boot::{BootOptions, Booted, boot};
use recovery_orchestrator::check::milliseconds;
use recovery_orchestrator::guest::{Converting, GuestSource as _};
use recovery_orchestrator::interrupt::Interrupt;
use recovery_orchestrator::journal::RunOutcome;
use recovery_orchestrator::network::Forward;
use recovery_orchestrator::platform::{Platform as _, ProfileName};
use recovery_orchestrator::runbook::parse_bytes;

use super::console::{self, End};
use super::context::Context;
use super::output::DryRun;

#[derive(Debug, clap::Args)]
#[command(after_help = "Ctrl-] ends the machine. Nothing that it wrote is kept.")]
pub(super) struct BootArguments {
    /// Which image
    image: ImageRef,
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
    let (library, image) = context.open_image(&arguments.image)?;
    if arguments.dry_run.dry_run {
        print_line(&format!(
            "would prepare {}@{} and start it with an overlay that is thrown away",
            image.server, image.id
        ));
        return Ok(Verdict::Done);
    }
    let monitor = context.monitor();
    let interrupt = Interrupt::install(super::end_at_once)?;
    let source = Converting {
        reader: &*library,
        again: false,
    };
    let guest = source.prepare(&image, &monitor)?;
    let state = context.state()?;
    let qemu = context.qemu(&state)?;
    let options = BootOptions {
        profile: arguments.profile,
        cpus: arguments.cpus,
        memory_bytes: arguments.memory,
        forwards: arguments.forward.clone(),
    };
    let booted = boot(&guest, &options, &qemu, &state, Timestamp::now)?;
    monitor.finish();
    let result = attach(
        context,
        &booted,
        &interrupt,
        &qemu.description().acceleration,
    );
    let outcome = if result.is_ok() {
        RunOutcome::Passed
    } else {
        RunOutcome::Failed
    };
    booted.end(outcome)?;
    let end = result?;
    context.say(match end {
        End::Escape => "\nEnded.",
        End::Interrupted => "\nEnded by a signal.",
        End::Machine => "\nThe machine has ended by itself.",
    });
    Ok(Verdict::Done)
}

fn attach(
    context: &Context,
    booted: &Booted,
    interrupt: &Interrupt,
    acceleration: &str,
) -> Result<End> {
    let console = console::Connection::open(&booted.console)?;
    let started = booted.machine().resume()?;
    let after = milliseconds(started.saturating_duration_since(context.started));
    context.say(&format!(
        "Running on {} after {}.{:02} s ({acceleration})",
        ProfileName::of(booted.profile),
        after / 1000,
        after % 1000 / 10
    ));
    for nic in &booted.nics {
        context.say(&format!("  {nic}, cut off (restrict=on)"));
    }
    context.say(console::usage());
    console.talk(booted.machine(), interrupt)
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
}
