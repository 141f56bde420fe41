// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `p2v-agent`: parses arguments, prints, picks exit codes; the work is in the library.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use disk::Level;
use image_library::client::Patience;
use image_library::machine::MachineDescription;
use image_library::program::{EXIT_CODES, Verdict, end, print, print_json, print_line};
use image_library::terminal::{
    AccessPaths, Terminal, Verbosity, bytes_text, finding_text, library_access,
};
use image_library::{Consistency, FileError, LibraryAccess, ServerName, open_library_with};
use p2v_agent::check::check;
use p2v_agent::inventory::{InventoryOptions, inventory_table, take_inventory};
use p2v_agent::snapshot::{
    SnapshotContext, SnapshotOptions, SnapshotPlan, SnapshotReport, plan_snapshot, take_snapshot,
};
use p2v_agent::{Error, InUse, Result};

/// Describes this server and takes snapshots of its disks into an image library.
#[derive(Debug, Parser)]
#[command(name = "p2v-agent", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Arguments {
    /// Say only what is wrong.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Describe this server: hardware, disks, network, system, load.
    Inventory(InventoryArguments),
    /// Say whether this server can be imaged now, and what would be refused.
    Check(CheckArguments),
    /// Take a snapshot of disks or disk image files into a library.
    Snapshot(SnapshotArguments),
    /// Print the completions of a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Write the manual pages into a directory.
    Man {
        /// The directory; it must exist.
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
struct InventoryArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Read another tree than that of this server.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// How a library server is talked to.
#[derive(Debug, Args)]
struct ServerArguments {
    /// A file with the token for that server; without it RELEVO_TOKEN_FILE or RELEVO_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust the certificates of this PEM file instead of the authority that the token names.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl ServerArguments {
    fn access(&self) -> Result<LibraryAccess> {
        let access = library_access(AccessPaths {
            token_file: self.token_file.as_deref(),
            ca_file: self.ca_file.as_deref(),
            ..AccessPaths::default()
        })?;
        Ok(access)
    }
}

#[derive(Debug, Args)]
struct CheckArguments {
    /// Also try to reach this library: a directory, s3://BUCKET[/PREFIX] or https://HOST:PORT.
    #[arg(long, value_name = "DIR|URL", env = "RELEVO_LIBRARY")]
    library: Option<String>,
    #[command(flatten)]
    server_access: ServerArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SnapshotArguments {
    /// Where the image goes: a directory, s3://BUCKET[/PREFIX] or https://HOST:PORT.
    #[arg(long, value_name = "DIR|URL", env = "RELEVO_LIBRARY")]
    library: String,
    #[command(flatten)]
    server_access: ServerArguments,
    /// A disk (sda, /dev/sda) or disk image file; may be repeated. Without it: all disks.
    #[arg(long = "disk", value_name = "DEVICE|FILE")]
    disks: Vec<String>,
    /// Whose image it becomes; without it: the host name.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Also read disks that are in use. Their image is fuzzy: read while it was written.
    #[arg(long)]
    crash_consistent: bool,
    /// Where hashes are kept between snapshots.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/p2v-agent")]
    state: PathBuf,
    /// For how long to wait for a library server that went away.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Say what would be done, and send nothing.
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error")),
        )
        .init();
    end(run(&arguments), Error::hint)
}

fn run(arguments: &Arguments) -> Result<Verdict> {
    let verbosity = if arguments.quiet {
        Verbosity::Quiet
    } else {
        Verbosity::Normal
    };
    match &arguments.command {
        Command::Inventory(chosen) => inventory(chosen),
        Command::Check(chosen) => run_check(chosen),
        Command::Snapshot(chosen) => snapshot(chosen, verbosity),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "p2v-agent", &mut script);
            print(script);
            Ok(Verdict::Done)
        }
        Command::Man { directory } => {
            clap_mangen::generate_to(Arguments::command(), directory)
                .map_err(FileError::on("write the manual into", directory))?;
            Ok(Verdict::Done)
        }
    }
}

fn inventory(chosen: &InventoryArguments) -> Result<Verdict> {
    let is_this_server = chosen.root == Path::new("/");
    let options = InventoryOptions {
        root: chosen.root.clone(),
        load_interval: if is_this_server {
            Duration::from_secs(1)
        } else {
            Duration::ZERO
        },
    };
    let machine = take_inventory(&options);
    if chosen.json {
        print_json(&machine);
    } else {
        print(inventory_table(&machine));
    }
    Ok(Verdict::Done)
}

fn run_check(chosen: &CheckArguments) -> Result<Verdict> {
    let access = chosen.server_access.access()?;
    let findings = check(&this_machine(), chosen.library.as_deref(), &access);
    let has_problem = findings.iter().any(|finding| finding.level == Level::Error);
    if chosen.json {
        print_json(&findings);
    } else {
        for finding in &findings {
            print_line(&finding_text(finding));
        }
        let verdict = if has_problem {
            "this server cannot be imaged as it is\n"
        } else {
            "this server can be imaged\n"
        };
        print(verdict);
    }
    Ok(Verdict::of(!has_problem))
}

fn snapshot(chosen: &SnapshotArguments, verbosity: Verbosity) -> Result<Verdict> {
    let terminal = Terminal::new(verbosity);
    // An image of files alone has nothing of this machine: its load need not be waited for.
    let only_files = |disks: &[String]| disks.iter().all(|disk| Path::new(disk).is_file());
    let machine = match !chosen.disks.is_empty() && only_files(&chosen.disks) {
        true => take_inventory(&InventoryOptions {
            load_interval: Duration::ZERO,
            ..InventoryOptions::default()
        }),
        false => this_machine(),
    };
    let name = chosen
        .server
        .clone()
        .unwrap_or_else(|| machine.hostname.clone());
    let options = SnapshotOptions {
        server: ServerName::try_from(name)?,
        disks: chosen.disks.clone(),
        in_use: if chosen.crash_consistent {
            InUse::Accept
        } else {
            InUse::Refuse
        },
        state: chosen.state.clone(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(&stop)?;
    let context = SnapshotContext {
        machine: &machine,
        monitor: &terminal,
        stop: &stop,
    };
    if chosen.dry_run {
        let plan = plan_snapshot(&options, context)?;
        print_either(chosen.json, &plan, &plan_text(&plan));
        return Ok(Verdict::Done);
    }
    let patience = Patience {
        give_up_after: Duration::from_secs(chosen.patience),
        ..Patience::default()
    };
    let access = chosen.server_access.access()?;
    let library = open_library_with(&chosen.library, &access, patience)?;
    let report = take_snapshot(&options, &*library, context)?;
    terminal.finish();
    print_either(chosen.json, &report, &report_text(&report));
    Ok(Verdict::Done)
}

/// SIGINT, SIGTERM and SIGHUP end the snapshot after the batch under way; what was sent stays.
fn stop_on_signal(stop: &Arc<AtomicBool>) -> Result<()> {
    let stop = Arc::clone(stop);
    ctrlc::set_handler(move || stop.store(true, Ordering::Relaxed)).map_err(|error| {
        Error::Unknown {
            what: "how to stop",
            problem: error.to_string(),
        }
    })
}

fn this_machine() -> MachineDescription {
    take_inventory(&InventoryOptions::default())
}

fn plan_text(plan: &SnapshotPlan) -> String {
    let mut text = format!(
        "would take an image of {} ({})\n",
        plan.server,
        consistency_text(plan.consistency)
    );
    for disk in &plan.disks {
        text.push_str(&format!(
            "  {}: {}, {} to read, from {}\n",
            disk.name,
            bytes_text(disk.size_bytes),
            bytes_text(disk.used_bytes),
            disk.path.display()
        ));
    }
    text
}

fn report_text(report: &SnapshotReport) -> String {
    let mut text = format!(
        "image {} of {} ({}), {}.{} s\n",
        report.image,
        report.server,
        consistency_text(report.consistency),
        report.duration_ms / 1000,
        report.duration_ms % 1000 / 100
    );
    for disk in &report.disks {
        let counts = &disk.counts;
        text.push_str(&format!(
            "  {}: {}, {} read, {} changed, {} sent ({} compressed)\n",
            disk.name,
            bytes_text(disk.size_bytes),
            bytes_text(counts.read_bytes),
            bytes_text(counts.changed_bytes),
            bytes_text(counts.sent_bytes),
            bytes_text(counts.sent_compressed_bytes)
        ));
    }
    text
}

const fn consistency_text(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Fuzzy => "fuzzy: read while it was written",
        Consistency::Crash => "as after a power failure",
        Consistency::Filesystem => "filesystems consistent",
        Consistency::Application => "applications consistent",
        Consistency::Cold => "cold: nobody used the disks",
    }
}

fn print_either(json: bool, value: &impl serde::Serialize, text: &str) {
    if json {
        print_json(value);
    } else {
        print(text);
    }
}
