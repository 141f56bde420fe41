// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reads of a real start, made again one after the other: what a machine waits for its disk when
//! nothing hides it. Emulated processors are so slow that a whole boot shows little of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::results::Table;
use e2e::{NbdClient, PROJECT_DIR, SampleServer, forget, the_only_disk};

use super::far::{DELAYS, Way};
use super::keeper::{Fetched, Keeper, QemuNbd};
use super::site::Site;
use super::{median, rounds, say, seconds};

const ROUNDS: usize = 3;

/// Where the bytes come from, and what is known of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Nothing is here.
    Cold,
    /// Nothing but the list of what the start before had read.
    Trace,
    /// That, and the chunks that it had read.
    Kept,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Trace => "with the trace",
            Self::Kept => "with the trace and the chunk cache",
        }
    }
}

/// The reads, and a file with what they give.
struct Reads {
    list: Vec<(u64, usize)>,
    disk: File,
}

/// One replay.
struct Replay {
    /// The times of the reads.
    times: Vec<Duration>,
    fetched: Fetched,
}

/// In the table's order: the way and the state, and their rounds.
type Samples = BTreeMap<(usize, State), (String, Vec<Replay>)>;

pub(crate) fn run(server: &SampleServer) -> Result<String> {
    let reads = Reads::of(server)?;
    let mut ways = vec![Way::Directory];
    ways.extend(DELAYS.map(Way::Served));
    let rounds = rounds(ROUNDS);
    let mut samples = Samples::new();
    // They stay to the end, so that no files are deleted while others are measured.
    let sites: Vec<Site> = ways.iter().map(|_| Site::new(&server.disk())).collect();
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        for (number, (way, site)) in ways.iter().zip(&sites).enumerate() {
            for (state, replay) in from_library(site, *way, &reads) {
                let entry = samples.entry((number, state)).or_default();
                entry.0 = way.name();
                entry.1.push(replay);
            }
        }
        let entry = samples.entry((ways.len(), State::Cold)).or_default();
        "local qcow2, qemu-nbd".clone_into(&mut entry.0);
        entry.1.push(from_file(&sites[0], &reads, round));
    }
    Ok(text(&samples, &reads, rounds))
}

/// The start that no cache knows, then the next ones.
fn from_library(site: &Site, way: Way, reads: &Reads) -> Vec<(State, Replay)> {
    let opened = way.open(&site.library);
    site.forget_trace();
    let mut replays = Vec::new();
    for state in [State::Cold, State::Trace, State::Kept] {
        match state {
            // A library in a directory is not kept anywhere else.
            State::Kept if !way.is_served() => continue,
            State::Kept => {}
            State::Cold | State::Trace => site.chill(),
        }
        let keeper = Keeper::start(site, opened.relevo(), way.is_served());
        let times = reads.replay(&mut keeper.connect());
        let fetched = keeper.end();
        replays.push((state, Replay { times, fetched }));
    }
    replays
}

fn from_file(site: &Site, reads: &Reads, round: usize) -> Replay {
    let folder = site.path(&format!("copy{round}"));
    let export = site.library.relevo().args("image export x --to qcow2 -o");
    export.arg(&folder).succeeds();
    let disk = the_only_disk(&folder);
    forget(&disk);
    let server = QemuNbd::start(&disk, site.path("nbd"));
    let times = reads.replay(&mut server.connect());
    server.end();
    let fetched = Fetched::default();
    Replay { times, fetched }
}

impl Reads {
    /// What the sample server read up to its web page, recorded by `booted.sh`.
    fn of(server: &SampleServer) -> Result<Self> {
        let text = fs::read_to_string(booted(server)?.join("reads"))?;
        let read = |line: &str| -> Result<(u64, usize)> {
            let (offset, length) = line.split_once(' ').context("OFFSET LENGTH")?;
            Ok((offset.parse()?, length.parse()?))
        };
        Ok(Self {
            list: text.lines().map(read).collect::<Result<_>>()?,
            disk: File::open(server.disk())?,
        })
    }

    /// Makes them one after the other, without a pause; every byte is compared.
    fn replay(&self, client: &mut NbdClient) -> Vec<Duration> {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        let mut times = Vec::new();
        for (offset, length) in &self.list {
            bytes.resize(*length, 0);
            expected.resize(*length, 0);
            self.disk
                .read_exact_at(&mut expected, *offset)
                .expect("they are reads of this disk");
            let began = Instant::now();
            client
                .read(*offset, &mut bytes)
                .expect("the disk is served");
            times.push(began.elapsed());
            assert!(bytes == expected, "byte {offset:#x} gives something else");
        }
        times
    }

    fn megabytes(&self) -> f64 {
        self.list.iter().map(|(_, length)| length).sum::<usize>() as f64 / 1e6
    }
}

fn booted(server: &SampleServer) -> Result<PathBuf> {
    let output = Command::new("bash")
        .arg(Path::new(PROJECT_DIR).join("tests/fixtures/build/booted.sh"))
        .arg(&server.name)
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

/// The time that so many of a hundred reads do not exceed, in milliseconds.
fn percentile(replay: &Replay, percent: usize) -> Duration {
    let mut sorted = replay.times.clone();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * percent / 100)
        .copied()
        .unwrap_or_default()
}

fn text(samples: &Samples, reads: &Reads, rounds: usize) -> String {
    let mut table = Table::new(&[
        "library",
        "start",
        "total s",
        "p50 ms",
        "p99 ms",
        "longest ms",
        "fetched MB",
        "requests",
    ]);
    for ((_, state), (name, replays)) in samples {
        let middle = |figure: &dyn Fn(&Replay) -> Duration| {
            median(&replays.iter().map(figure).collect::<Vec<_>>())
        };
        let most = |figure: &dyn Fn(&Fetched) -> u64| {
            let figures = replays.iter().map(|replay| figure(&replay.fetched));
            figures.max().unwrap_or_default()
        };
        let percent = |percent| middle(&|replay| percentile(replay, percent)).as_secs_f64() * 1e3;
        table.row(&[
            name.clone(),
            state.name().to_owned(),
            seconds(middle(&|replay| replay.times.iter().sum())),
            format!("{:.3}", percent(50)),
            format!("{:.1}", percent(99)),
            format!("{:.1}", percent(100)),
            format!("{:.0}", most(&|fetched| fetched.bytes) as f64 / 1e6),
            most(&|fetched| fetched.requests).to_string(),
        ]);
    }
    format!(
        "The {} reads ({:.1} MB) of a real start of the sample server, recorded up to its web page\n\
         (`tests/fixtures/build/booted.sh`), made again by one reader, one after the other, without the\n\
         pauses in which a machine computes, against the keeper of a boot on its unix socket; {rounds}\n\
         rounds, medians; every byte is compared. *Cold*: nothing of the library is in memory, nothing in\n\
         the chunk cache, and nobody knows what will be read. *With the trace*: the same, but the start before\n\
         is remembered beside the image, and fetched ahead while the reads are made; a machine, whose\n\
         firmware takes its time first, gives it a lead. *Fetched*: what came from the library, at most. The\n\
         delay is that of the section above. The\n\
         yardstick is `qemu-nbd` on a local qcow2 file of the same disk, not in memory either.\n\n{table}",
        reads.list.len(),
        reads.megabytes(),
    )
}
