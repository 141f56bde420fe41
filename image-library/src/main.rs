// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `image-library`: serves and administers a library.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use image_library::server::Server;
use image_library::terminal::{Terminal, Verbosity, bytes_text, report_error};
use image_library::{Error, ImageReader, InitOptions, LocalLibrary, Result, Statistics};
use tracing_subscriber::EnvFilter;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 done and problems found, 2 could not be done.";

/// Serves and administers a library of server images.
#[derive(Debug, Parser)]
#[command(name = "image-library", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Arguments {
    /// Say only what is wrong.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a library in a new or empty directory.
    Init {
        /// The directory.
        directory: PathBuf,
        /// Size of a chunk in bytes: a power of two from 16384 to 4194304.
        #[arg(long, value_name = "BYTES", default_value_t = InitOptions::default().chunk_size_bytes)]
        chunk_size: u32,
    },
    /// Serve a library over HTTP until SIGTERM or SIGINT.
    ///
    /// There is no TLS and there are no tokens yet: whoever reaches the address may read every
    /// image and add new ones. Listen on the loopback address or a trusted network only.
    Serve {
        /// The directory.
        directory: PathBuf,
        /// Address and port; port 0 takes any free one.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8420")]
        listen: SocketAddr,
        /// Log as JSON, one object per line.
        #[arg(long)]
        log_json: bool,
    },
    /// Read everything again and check it.
    Verify {
        /// The directory.
        directory: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what is in a library and what it takes.
    Stats {
        /// The directory.
        directory: PathBuf,
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
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            report_error(&error, error.hint().as_deref());
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.command {
        Command::Init {
            directory,
            chunk_size,
        } => init(directory, *chunk_size),
        Command::Serve {
            directory,
            listen,
            log_json,
        } => serve(directory, *listen, *log_json),
        Command::Verify { directory, json } => verify(directory, *json, arguments.quiet),
        Command::Stats { directory, json } => stats(directory, *json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let command = &mut Arguments::command();
            clap_complete::generate(*shell, command, "image-library", &mut script);
            print_bytes(&script)
        }
        Command::Man { directory } => {
            clap_mangen::generate_to(Arguments::command(), directory)
                .map_err(file_error("write the manual into", directory))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn init(directory: &Path, chunk_size_bytes: u32) -> Result<ExitCode> {
    let options = InitOptions {
        chunk_size_bytes,
        ..InitOptions::default()
    };
    LocalLibrary::init(directory, &options)?;
    print_text(&format!("created a library in {}\n", directory.display()))
}

fn serve(directory: &Path, listen: SocketAddr, log_json: bool) -> Result<ExitCode> {
    start_log(log_json);
    let library = LocalLibrary::open(directory)?;
    let server = Server::bind(Arc::new(library), listen)?;
    let address = server.address();
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "no TLS and no tokens yet: whoever reaches this address may read every image"
        );
    }
    tracing::info!(%address, directory = %directory.display(), "serving");
    // For whoever started this program with port 0.
    print_text(&format!("http://{address}\n"))?;
    server.run()?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn verify(directory: &Path, json: bool, quiet: bool) -> Result<ExitCode> {
    let verbosity = if quiet {
        Verbosity::Quiet
    } else {
        Verbosity::Normal
    };
    let terminal = Terminal::new(verbosity);
    let report = LocalLibrary::open(directory)?.verify(&terminal)?;
    terminal.finish();
    if json {
        print_json(&report)?;
    } else {
        print_text(&format!(
            "{} packs with {} chunks ({}), {} images: {} findings, {} images damaged\n",
            report.packs,
            report.chunks,
            bytes_text(report.bytes_read),
            report.images,
            report.finding_count,
            report.damaged_images.len()
        ))?;
    }
    Ok(ExitCode::from(u8::from(!report.is_sound())))
}

fn stats(directory: &Path, json: bool) -> Result<ExitCode> {
    let statistics = Statistics::of(&LocalLibrary::open(directory)?.images()?);
    if json {
        return print_json(&statistics);
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
    print_text(&text)
}

fn print_json(value: &impl serde::Serialize) -> Result<ExitCode> {
    let text = serde_json::to_string_pretty(value)
        .map_err(io::Error::from)
        .map_err(file_error("write", Path::new("standard output")))?;
    print_text(&format!("{text}\n"))
}

fn start_log(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(filter);
    if json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}

fn print_text(text: &str) -> Result<ExitCode> {
    print_bytes(text.as_bytes())
}

/// A reader that went away (`| head`) is not an error.
fn print_bytes(bytes: &[u8]) -> Result<ExitCode> {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        done => done.map_err(file_error("write", Path::new("standard output")))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File {
        action,
        path,
        source,
    }
}
