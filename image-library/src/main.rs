// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `image-library`: serves and administers a library.

mod audit_command;
mod heal_command;
mod key_command;
mod prune_command;
mod replicate_command;
mod serve_command;
mod token_command;
mod verify_command;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use image_library::program::{EXIT_CODES, Verdict, end, print, print_json, print_line};
use image_library::terminal::{
    AccessPaths, Terminal, Verbosity, bytes_text, library_access, new_passphrase, say,
};
use image_library::{
    Authority, Error, ImageReader, ImageRef, InitOptions, LibraryAccess, LocalLibrary, Location,
    Result, Statistics,
};

use crate::audit_command::AuditArguments;
use crate::heal_command::HealArguments;
use crate::key_command::KeyCommand;
use crate::prune_command::{PruneArguments, parse_duration};
use crate::replicate_command::ReplicateArguments;
use crate::serve_command::ServeArguments;
use crate::token_command::TokenCommand;
use crate::verify_command::VerifyArguments;

/// Serves and administers a library of server images.
#[derive(Debug, Parser)]
#[command(name = "image-library", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Arguments {
    /// Say only what is wrong.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Below this directory a library in a bucket has what only this machine needs; by default in
    /// the user's cache.
    #[arg(long, value_name = "DIR", global = true, env = "RELEVO_WORKSPACE")]
    workspace: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a library in a new or empty directory, or in a bucket.
    Init {
        /// A directory, or s3://BUCKET[/PREFIX].
        library: Location,
        /// Size of a chunk in bytes: a power of two from 16384 to 4194304.
        #[arg(long, value_name = "BYTES", default_value_t = InitOptions::default().chunk_size_bytes)]
        chunk_size: u32,
        /// Seal the key under a passphrase: that of RELEVO_PASSPHRASE_FILE or RELEVO_PASSPHRASE,
        /// else one that is asked for.
        #[arg(long)]
        passphrase: bool,
        /// Let nobody delete an image before it is so old: 14d, 6w. It cannot be changed later.
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
        immutable_for: Duration,
    },
    /// The library's key: its passphrase, its recovery sheet.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Serve a library over HTTPS until SIGTERM or SIGINT.
    ///
    /// Clients need a token (`image-library token add`), which also lets them trust this server:
    /// it issues itself a certificate of the library's own authority.
    Serve(ServeArguments),
    /// The tokens of a library's servers: who may do what.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show who did what with a library.
    Audit(AuditArguments),
    /// Read a library again and check it: all of it, a sample, or single images.
    Verify(VerifyArguments),
    /// Copy images into another library, which has its own key.
    ///
    /// Images keep their ids and times. The other library checks every chunk. An interrupted copy goes
    /// on where it was. To fill a far library by a disk that is sent there, replicate into a directory
    /// on that disk, and there from the disk into the library.
    Replicate(ReplicateArguments),
    /// Take what a library has lost from another one that has copies of its images.
    ///
    /// What is damaged is known from `verify`, which comes first. Everything is checked against the
    /// hashes that are known here. What both have lost is told, and exit code 1 with it. An image whose
    /// document is lost is brought back by `replicate`.
    Heal(HealArguments),
    /// Delete the images that no rule keeps, and free what no image needs any more.
    ///
    /// What is unused is condemned first and removed by a later prune, when the grace is over and it
    /// is unused still; so a prune may run beside snapshots. Without a rule only what was deleted by
    /// hand is cleaned up. A server's newest image is always kept.
    Prune(PruneArguments),
    /// Move an image into the trash.
    Delete {
        /// A directory, or s3://BUCKET[/PREFIX].
        library: Location,
        /// Which image: SERVER@ID or SERVER@TIME.
        image: ImageRef,
    },
    /// Take an image back from the trash.
    Undelete {
        /// A directory, or s3://BUCKET[/PREFIX].
        library: Location,
        /// Which image.
        image: ImageRef,
    },
    /// List the trash.
    Deleted {
        /// A directory, or s3://BUCKET[/PREFIX].
        library: Location,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what is in a library and what it takes.
    Stats {
        /// A directory, or s3://BUCKET[/PREFIX].
        library: Location,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    end(run(&arguments), Error::hint)
}

fn run(arguments: &Arguments) -> Result<Verdict> {
    let access = || {
        library_access(AccessPaths {
            workspace: arguments.workspace.as_deref(),
            ..AccessPaths::default()
        })
    };
    match &arguments.command {
        Command::Init {
            library,
            chunk_size,
            passphrase,
            immutable_for,
        } => {
            let options = InitOptions {
                chunk_size_bytes: *chunk_size,
                immutable_for: *immutable_for,
                ..InitOptions::default()
            };
            init(library, &access()?, &options, *passphrase)
        }
        Command::Key(command) => command.run(&access()?),
        Command::Serve(chosen) => chosen.run(&access()?),
        Command::Token(command) => command.run(&access()?),
        Command::Audit(chosen) => chosen.run(&access()?),
        Command::Verify(chosen) => chosen.run(&access()?, &terminal(arguments.quiet)),
        Command::Replicate(chosen) => chosen.run(&access()?, &terminal(arguments.quiet)),
        Command::Heal(chosen) => chosen.run(&access()?, &terminal(arguments.quiet)),
        Command::Prune(chosen) => chosen.run(&access()?, &terminal(arguments.quiet)),
        Command::Delete { library, image } => prune_command::delete(library, &access()?, image),
        Command::Undelete { library, image } => prune_command::undelete(library, &access()?, image),
        Command::Deleted { library, json } => prune_command::deleted(library, &access()?, *json),
        Command::Stats { library, json } => stats(library, &access()?, *json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let command = &mut Arguments::command();
            clap_complete::generate(*shell, command, "image-library", &mut script);
            print(script);
            Ok(Verdict::Done)
        }
        Command::Man { directory } => {
            clap_mangen::generate_to(Arguments::command(), directory).map_err(|source| {
                Error::File {
                    action: "write the manual into",
                    path: directory.clone(),
                    source,
                }
            })?;
            Ok(Verdict::Done)
        }
    }
}

fn init(
    location: &Location,
    access: &LibraryAccess,
    options: &InitOptions,
    with_passphrase: bool,
) -> Result<Verdict> {
    let passphrase = with_passphrase.then(new_passphrase).transpose()?;
    // In a directory the key has always been in the library; RELEVO_KEY_FILE is for a copy then.
    let mut access = access.clone();
    if matches!(location, Location::Directory(_)) {
        access.key.file = None;
    } else if access.key.file.is_none() && passphrase.is_none() {
        say(
            "note: the key lies in the bucket, and without a passphrase: whoever can read the \
             bucket can read every image. RELEVO_KEY_FILE keeps it elsewhere, --passphrase seals it.",
        );
    }
    let library =
        LocalLibrary::init_with_passphrase(location, &access, options, passphrase.as_ref())?;
    Authority::of(&library)?;
    print_line(&format!("created a library in {location}"));
    Ok(Verdict::Done)
}

fn terminal(quiet: bool) -> Terminal {
    Terminal::new(if quiet {
        Verbosity::Quiet
    } else {
        Verbosity::Normal
    })
}

fn stats(location: &Location, access: &LibraryAccess, json: bool) -> Result<Verdict> {
    let statistics = Statistics::of(&LocalLibrary::open_with_key(location, access)?.images()?);
    if json {
        print_json(&statistics);
        return Ok(Verdict::Done);
    }
    let mut text = format!(
        "{} images, {} of disks, {} of data, {} stored\n",
        statistics.images,
        bytes_text(statistics.disk_bytes),
        bytes_text(statistics.data_bytes),
        bytes_text(statistics.stored_bytes)
    );
    for server in &statistics.servers {
        let line = format!(
            "  {}: {} images, the latest of {} ({}), {} stored\n",
            server.server,
            server.images,
            server.latest,
            bytes_text(server.disk_bytes),
            bytes_text(server.stored_bytes)
        );
        text.push_str(&line);
    }
    print(text);
    Ok(Verdict::Done)
}
