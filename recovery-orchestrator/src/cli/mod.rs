// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: one module per group of commands. Here is what they share: the arguments,
//! the ways out, and the one place where an error is printed.

mod attach;
mod boot;
mod cleanup;
mod console;
mod context;
mod convert;
mod drill;
mod image;
mod inspect;
mod keep;
mod output;
mod runbook;
mod serve;
mod service;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use image_library::program::{Verdict, end};
use recovery_orchestrator::{Error, Result};

use context::Context;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  done, and problems were found (a failed drill, a damaged image, a runbook that cannot be met)
  2  could not be done; one message says what and where, `hint:` what to do

Data goes to standard output, messages to standard error.
IMAGE is SERVER (its latest), SERVER@ID (the beginning of an id is enough) or SERVER@TIME.";

/// Recovers servers as virtual machines from a library of their images, and proves it by drills.
#[derive(Debug, Parser)]
#[command(name = "relevo", version, after_help = EXIT_CODES, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
struct Global {
    /// The library: a directory, s3://BUCKET[/PREFIX], or the URL of a server
    #[arg(long, global = true, env = "RELEVO_LIBRARY", value_name = "DIR|URL")]
    library: Option<String>,
    /// A file with the token for that server [default: RELEVO_TOKEN_FILE, else RELEVO_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust the certificates of this PEM file, not the authority that the token names
    /// [default: RELEVO_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Where a library in a bucket has what this machine needs [default: in the user's cache]
    #[arg(long, global = true, env = "RELEVO_WORKSPACE", value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// The configuration file [default: ./relevo.toml, then /etc/relevo/relevo.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Another library that has copies of the images: what is damaged is read from there; repeatable
    #[arg(long, global = true, value_name = "DIR|URL")]
    replica: Vec<String>,
    /// Journals, reports and scratch files of runs [default: /var/lib/relevo as root]
    #[arg(long, global = true, env = "RELEVO_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// What opens an encrypted volume: a file with its passphrase or key, or `ask`; for one volume
    /// by its UUID, else tried for all; repeatable, and added to `keys` of the configuration
    #[arg(long, global = true, value_name = "[UUID=]FILE|ask")]
    key: Vec<String>,
    /// Say nothing but warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Images of servers
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// What is in an image, and whether it will boot as a virtual machine
    Inspect(inspect::InspectArguments),
    /// Make an image boot as a virtual machine
    Convert(convert::ConvertArguments),
    /// Start an image as a virtual machine, in the foreground
    Boot(boot::BootArguments),
    /// Take over a machine that runs on after its `relevo boot` was killed
    Attach(attach::AttachArguments),
    /// Runbooks: how servers are recovered
    #[command(subcommand)]
    Runbook(runbook::RunbookCommand),
    /// Rehearsed recoveries
    #[command(subcommand)]
    Drill(drill::DrillCommand),
    /// Serve and watch a machine's disks; started by the commands that start machines
    #[command(hide = true)]
    Keep(keep::KeepArguments),
    /// Prepare images as they come into the library, so that they start at once when they are needed
    Serve(service::ServeArguments),
    /// Which servers are prepared, and which cannot be recovered as they are
    Status(status::StatusArguments),
    /// End and remove what killed runs left behind
    Cleanup(cleanup::CleanupArguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// Where
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
    },
}

/// The whole program.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let log = tracing_subscriber::EnvFilter::try_from_env("RELEVO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(log)
        .with_writer(std::io::stderr)
        // A keeper whose log has no room must not end for that.
        .log_internal_errors(false)
        .init();
    end(execute(arguments), Error::hint)
}

fn execute(arguments: Arguments) -> Result<Verdict> {
    let context = || Context::new(&arguments.global);
    match arguments.command {
        Command::Image(command) => image::run(&context()?, command),
        Command::Inspect(arguments) => inspect::run(&context()?, &arguments),
        Command::Convert(arguments) => convert::run(&context()?, &arguments),
        Command::Boot(arguments) => boot::run(&context()?, &arguments),
        Command::Attach(arguments) => attach::run(&context()?, &arguments),
        Command::Runbook(command) => runbook::run(&context()?, command),
        Command::Drill(command) => drill::run(&context()?, command),
        Command::Keep(arguments) => keep::run(&context()?, &arguments),
        Command::Serve(arguments) => service::run(&context()?, &arguments),
        Command::Status(arguments) => status::run(&context()?, &arguments),
        Command::Cleanup(arguments) => cleanup::run(&context()?, &arguments),
        Command::Completions { shell } => {
            output::completions(shell, &mut Arguments::command());
            Ok(Verdict::Done)
        }
        Command::Man { output } => {
            output::manual(&output, Arguments::command())?;
            Ok(Verdict::Done)
        }
    }
}

/// 128 and the number of SIGINT, as a shell expects it.
#[expect(
    clippy::exit,
    reason = "whoever asks twice does not want to wait for the clean end"
)]
fn end_at_once() {
    std::process::exit(130);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_arguments_stand_before_or_behind_the_command() {
        for line in [
            "relevo --library /l image list --json",
            "relevo image list --json --library /l",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.global.library.as_deref(), Some("/l"));
        }
    }
}
