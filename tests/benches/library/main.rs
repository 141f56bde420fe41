// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it costs to keep the sample server's disk and to get it back, beside the tools that people
//! use for it: restic, borg, zstd and cp, all on the same disk in the same run.
//!
//! Run by `make bench`. Every figure is that of one process, as a user starts it; the contenders
//! take turns, and the median of several rounds counts: the machine is noisy. Whoever takes a disk
//! in reads it from memory; whoever gives it back reads from the disk, and ends when the copy is
//! durable. Nothing counts unless what came back is the disk, bit by bit.
//!
//! | step | what changed since the step before |
//! |---|---|
//! | first | everything |
//! | unchanged | nothing; everybody reads the whole disk again, as they must a block device |
//! | booted | the server was started and shut down |
//! | scattered | 1 % of the blocks of 4 KiB that hold data, evenly, each with bytes of its own |

mod repository;
mod section;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::results::keep_section;
use e2e::{
    PROJECT_DIR, Program, SampleServer, Usage, differing_blocks, forget, have_tool,
    read_into_memory, scatter_writes_over_data, work_dir,
};
use serde::Deserialize;

use repository::{Contender, contenders};

const ROUNDS_MAX: usize = 5;
/// No round begins later, so that a busy machine does not keep anybody waiting for hours.
const TIME_FOR_ROUNDS: Duration = Duration::from_secs(6 * 60);
/// The filesystem's own tables are below; a server does not write noise over them.
const SCATTER_FROM: u64 = 128 << 20;
/// Every so many blocks that hold data one is written.
const SCATTER_EACH: u64 = 100;

/// What is measured of a contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    First,
    Unchanged,
    Booted,
    Scattered,
    Restore,
}

/// One measurement. Bytes that nobody can tell are 0.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    usage: Usage,
    /// By how much what is kept has grown.
    stored_bytes: u64,
    /// What went over the wire.
    sent_bytes: u64,
}

/// Everything that was measured.
type Samples = HashMap<(&'static str, Step), Vec<Sample>>;

/// The states of the disk.
struct Disks {
    sample: PathBuf,
    booted: PathBuf,
    scattered: PathBuf,
    /// What the sample server reads when it starts.
    reads: PathBuf,
}

/// What the plain pipeline counts; of a disk and its state before: chunks of 64 KiB that differ.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Chunks {
    chunks: u64,
    plain_bytes: u64,
    compressed_bytes: u64,
}

#[expect(
    clippy::print_stdout,
    reason = "the tables are what a benchmark is for"
)]
fn main() -> Result<()> {
    let Some(server) = SampleServer::find("sample") else {
        return Ok(());
    };
    let work = work_dir();
    let disks = disks(&server, work.path())?;
    let changed = pipeline(&disks.scattered, work.path(), Some(&disks.booted)).0;
    let contenders: Vec<Contender> = contenders()
        .into_iter()
        .filter(|contender| contender.tool.is_none_or(have_tool))
        .collect();
    let mut samples = Samples::new();
    // What has to be built is built before the time counts.
    let _ = Program::relevo();
    let started = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS_MAX && started.elapsed() < TIME_FOR_ROUNDS {
        rounds += 1;
        say(&format!("round {rounds} of {ROUNDS_MAX}"));
        plain_tools(&disks, &mut samples);
        for contender in &contenders {
            compete(contender, &disks, &mut samples);
        }
    }
    say("from a slow store");
    let slow = Program::example("restore_from_bucket")
        .arg(&disks.sample)
        .arg(&disks.reads)
        .succeeds();
    let text = section::text(&samples, rounds, changed, &slow.stdout);
    println!("{text}");
    keep_section("The library", &text);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "minutes must show that they go on")]
fn say(what: &str) {
    eprintln!("{what}");
}

/// Makes the states of the disk that are not kept.
fn disks(server: &SampleServer, work: &Path) -> Result<Disks> {
    let output = Command::new("bash")
        .arg(Path::new(PROJECT_DIR).join("tests/fixtures/build/booted.sh"))
        .arg(&server.name)
        .output()
        .context("bash can be run")?;
    let booted = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let booted = PathBuf::from(booted);
    // The disk's name is the file's: the same in every state.
    let scattered = work.join("disk.raw");
    let status = Command::new("cp")
        .args(["--sparse=always", "--reflink=never"])
        .args([&booted.join("disk.raw"), &scattered])
        .status()?;
    anyhow::ensure!(status.success(), "the disk cannot be copied");
    scatter_writes_over_data(&scattered, SCATTER_FROM, SCATTER_EACH);
    Ok(Disks {
        sample: server.disk(),
        booted: booted.join("disk.raw"),
        scattered,
        reads: booted.join("reads"),
    })
}

/// What keeps nothing: the plain pipeline, `zstd`, and a copy of the cold disk.
fn plain_tools(disks: &Disks, samples: &mut Samples) {
    let work = work_dir();
    let disk = &disks.sample;
    let mut note = |name, step, usage, output: &Path| {
        let is_copy = step == Step::Restore;
        let length = output.metadata().map_or(0, |metadata| metadata.len());
        let sample = Sample {
            usage,
            stored_bytes: if is_copy { 0 } else { length },
            sent_bytes: 0,
        };
        samples.entry((name, step)).or_default().push(sample);
    };
    read_into_memory(disk);
    let (_, usage) = pipeline(disk, work.path(), None);
    note(
        section::PIPELINE,
        Step::First,
        usage,
        &work.path().join("pipeline"),
    );
    if have_tool("zstd") {
        let output = work.path().join("zst");
        let zstd = Program::tool("zstd").args("-q -1 -T0 -o").arg(&output);
        let usage = zstd.arg(disk).succeeds().usage.then(durable(&output));
        note("zstd -1 -T0", Step::First, usage, &output);
    }
    forget(disk);
    let copy = work.path().join("copy");
    let cp = Program::tool("cp").args("--sparse=always --reflink=never");
    let usage = cp
        .arg(disk)
        .arg(&copy)
        .succeeds()
        .usage
        .then(durable(&copy));
    note(section::COPY, Step::Restore, usage, &copy);
}

/// Blake3, zstd -1 and AES-256-GCM of the chunks of a disk, or of those that are not as before.
fn pipeline(disk: &Path, work: &Path, before: Option<&Path>) -> (Chunks, Usage) {
    let output = work.join("pipeline");
    let program = Program::example("plain_pipeline").arg(disk).arg(output);
    let outcome = before.into_iter().fold(program, Program::arg).succeeds();
    let chunks = serde_json::from_value(outcome.json()).expect("the example prints this object");
    (chunks, outcome.usage)
}

/// Makes a file durable, which some tools leave to others.
fn durable(file: &Path) -> Usage {
    Program::tool("sync").arg(file).succeeds().usage
}

/// One contender goes through all steps, with a new repository.
fn compete(contender: &Contender, disks: &Disks, samples: &mut Samples) {
    say(&format!("  {}", contender.name));
    let work = work_dir();
    let mut repository = (contender.create)(work.path());
    let mut snapshot = |step, disk: &Path, samples: &mut Samples| {
        read_into_memory(disk);
        let before = repository.stored_bytes();
        let (usage, sent_bytes) = repository.snapshot(disk);
        let sample = Sample {
            usage,
            stored_bytes: repository.stored_bytes().saturating_sub(before),
            sent_bytes,
        };
        let key = (contender.name, step);
        samples.entry(key).or_default().push(sample);
        if step == Step::First {
            forget(work.path());
            if let Some((usage, copy)) = repository.restore(&work.path().join("restored")) {
                let usage = usage.then(durable(&copy));
                assert!(
                    differing_blocks(disk, &copy).is_empty(),
                    "{} gives another disk back",
                    contender.name
                );
                let sample = Sample {
                    usage,
                    ..Sample::default()
                };
                let key = (contender.name, Step::Restore);
                samples.entry(key).or_default().push(sample);
            }
        }
    };
    snapshot(Step::First, &disks.sample, samples);
    snapshot(Step::Unchanged, &disks.sample, samples);
    snapshot(Step::Booted, &disks.booted, samples);
    snapshot(Step::Scattered, &disks.scattered, samples);
}
