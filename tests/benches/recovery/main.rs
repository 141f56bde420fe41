// SPDX-License-Identifier: MIT OR Apache-2.0
//! What instant recovery takes, beside copying the disk first: the sample server, as it is and on
//! larger disks.
//!
//! Run by `make bench`; a part alone: `cargo bench -p e2e --bench recovery -- PART`. `BENCH_ROUNDS`
//! asks for fewer or more rounds; those who are compared take turns, and the median counts: the
//! machine is noisy. Caches are emptied before whatever is called cold. Each part has its own section
//! in `tests/benches/RESULTS.md`.
//!
//! | part | what is measured |
//! |---|---|
//! | start | from the command to running processors |
//! | replay | the reads of a real start, made one after the other |
//! | boots | from the command, and from running processors, to the server's web page |
//! | moving | the disks of a running machine on their way to this computer |

mod boots;
mod far;
mod keeper;
mod local;
mod moving;
mod qmp;
mod replay;
mod site;
mod start;
mod turns;

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::results::keep_section;
use e2e::{SampleServer, have_tool};

/// A part's name, the title of its section, and what measures it and writes the section.
type Part = (
    &'static str,
    &'static str,
    fn(&SampleServer) -> Result<String>,
);

const PARTS: [Part; 4] = [
    (
        "start",
        "From the command to running processors",
        start::run,
    ),
    ("replay", "The reads of a start, replayed", replay::run),
    ("boots", "A start from the library", boots::run),
    (
        "moving",
        "Moving the disks of a running machine",
        moving::run,
    ),
];

#[expect(
    clippy::print_stdout,
    reason = "the tables are what a benchmark is for"
)]
fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    for name in &asked {
        let is_known = PARTS.iter().any(|(part, ..)| part == name);
        ensure!(is_known, "no part is called {name}");
    }
    let Some(server) = SampleServer::find("sample") else {
        return Ok(());
    };
    if !have_tool("qemu-system-x86_64") || !have_tool("qemu-nbd") {
        return Ok(());
    }
    for (name, title, run) in PARTS {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            say(title);
            let text = run(&server)?;
            println!("{text}");
            let command = format!("`cargo bench -p e2e --bench recovery -- {name}`");
            keep_section(title, &format!("{command}\n\n{text}"));
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "minutes must show that they go on")]
fn say(what: &str) {
    eprintln!("{what}");
}

/// How many rounds there are, unless somebody asks for another number.
fn rounds(usual: usize) -> usize {
    let asked = std::env::var("BENCH_ROUNDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The middle one; zero of none.
fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}
