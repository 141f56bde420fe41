// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moving the disks of a running machine to this computer: how fast, and for how long the machine
//! stands still when they change over.
//!
//! The times are those of the machine's monitor. It has room for one client, which is the command that
//! booted the machine: that is killed, as it may be, and the machine goes on with its keeper.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::results::{Table, promise};
use e2e::{DISK_SIZES, DiskSize, Program, SampleServer, forget, grown_disk, work_dir};
use serde_json::Value;

use super::qmp::Qmp;
use super::site::{Booted, Site, wait_for_file, wait_for_page};
use super::{median, rounds, say, seconds};

const ROUNDS: usize = 1;
/// Flat: no disk takes so many times as long as the smallest, and so much longer for each TiB, whose
/// holes have to be asked for.
const FLAT_MAX: f64 = 1.25;
const HOLES_MAX: Duration = Duration::from_secs(5);
/// Nor does its file take so many times as much room.
const ROOM_MAX: f64 = 1.25;
/// The longest that a machine may stand still.
const STILL_MAX: Duration = Duration::from_millis(200);
/// How long the whole may take from the page on.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// What `stat` counts in.
const STAT_BLOCK_BYTES: u64 = 512;

/// One machine whose disk was moved.
struct Move {
    took: Duration,
    stood_still: Duration,
    /// What the new file takes.
    bytes: u64,
}

/// Everything of one disk.
struct Disk {
    size: DiskSize,
    moves: Vec<Move>,
    copies: Vec<Duration>,
}

pub(crate) fn run(server: &SampleServer) -> Result<String> {
    let rounds = rounds(ROUNDS);
    let mut disks = DISK_SIZES.map(|size| Disk {
        size,
        moves: Vec::new(),
        copies: Vec::new(),
    });
    for round in 1..=rounds {
        for disk in &mut disks {
            say(&format!("round {round} of {rounds}: {}", disk.size.name));
            let work = work_dir();
            let raw = grown_disk(server, work.path(), disk.size);
            disk.copies
                .push(copy(&raw, &work.path().join("copy.qcow2")));
            let site = Site::new(&raw);
            disk.moves.push(moved(&site, &server.page));
        }
    }
    Ok(text(&disks, rounds))
}

/// The yardstick: the same disk from a raw file into a qcow2 file, both local.
fn copy(raw: &Path, target: &Path) -> Duration {
    forget(raw);
    let convert = Program::tool("qemu-img").args("convert -f raw -O qcow2");
    convert.arg(raw).arg(target).succeeds().usage.wall
}

fn moved(site: &Site, sentence: &str) -> Move {
    site.chill();
    let directory = site.path("disks");
    let machine = site.boot(site.library.relevo(), Some(&directory));
    let monitor = site.monitor();
    let Booted {
        command,
        port,
        slot: _slot,
        ..
    } = machine;
    // Killed here: its lock on the directory goes with it, the machine stays.
    drop(command);
    let mut qmp = Qmp::connect(&monitor);
    let times = ChangeOver::watch(&mut qmp);
    wait_for_page(port, sentence);
    wait_for_file(&directory.join("moved.json"));
    let file = directory.join("disk0.qcow2");
    let metadata = fs::metadata(&file).expect("the disk is there");
    site.library.relevo().args("cleanup --all").succeeds();
    let check = Program::tool("qemu-img").args("check -q -f qcow2");
    check.arg(&file).succeeds();
    Move {
        took: times.ready - times.began,
        stood_still: times.went_on - times.stopped,
        bytes: metadata.blocks() * STAT_BLOCK_BYTES,
    }
}

/// When what happened, as the machine's monitor tells it.
struct ChangeOver {
    began: Instant,
    ready: Instant,
    stopped: Instant,
    went_on: Instant,
}

impl ChangeOver {
    fn watch(qmp: &mut Qmp) -> Self {
        let end = Instant::now() + PATIENCE;
        let mut wait = |is_it: &dyn Fn(&Value) -> bool| loop {
            let (at, event) = qmp.next(end - Instant::now().min(end));
            if is_it(&event) {
                return at;
            }
        };
        let job_is = |event: &Value, status: &str| {
            event["event"] == "JOB_STATUS_CHANGE" && event["data"]["status"] == status
        };
        Self {
            began: wait(&|event| job_is(event, "running")),
            ready: wait(&|event| job_is(event, "ready")),
            stopped: wait(&|event| event["event"] == "STOP"),
            went_on: wait(&|event| event["event"] == "RESUME"),
        }
    }
}

impl Disk {
    fn took(&self) -> Duration {
        self.middle(|one| one.took)
    }

    fn middle(&self, figure: fn(&Move) -> Duration) -> Duration {
        median(&self.moves.iter().map(figure).collect::<Vec<_>>())
    }

    fn bytes(&self) -> u64 {
        self.moves.first().map_or(0, |one| one.bytes)
    }
}

fn text(disks: &[Disk], rounds: usize) -> String {
    let columns = [
        "disk",
        "moved s",
        "file MB",
        "MB/s",
        "stood still ms",
        "qemu-img convert s",
        "promise",
    ];
    let mut table = Table::new(&columns);
    let smallest = &disks[0];
    for disk in disks {
        let took = disk.took();
        let still = disk.middle(|one| one.stood_still);
        let megabytes = disk.bytes() as f64 / 1e6;
        let tebibytes = disk.size.bytes as f64 / (1_u64 << 40) as f64;
        let took_max = smallest.took().mul_f64(FLAT_MAX) + HOLES_MAX.mul_f64(tebibytes);
        let is_kept = took <= took_max
            && disk.bytes() as f64 <= smallest.bytes() as f64 * ROOM_MAX
            && still <= STILL_MAX;
        table.row(&[
            disk.size.name.to_owned(),
            seconds(took),
            format!("{megabytes:.0}"),
            format!("{:.0}", megabytes / took.as_secs_f64()),
            still.as_millis().to_string(),
            seconds(median(&disk.copies)),
            promise(is_kept),
        ]);
    }
    format!(
        "`relevo boot --to DIR` of the sample server, library in a directory, nothing of it in memory:\n\
         from the start of the copy, which waits until the server has booted, until the local file has\n\
         everything; the room that the file takes then; and for how long the machine stood still when its\n\
         disk changed over, from the STOP to the RESUME of its monitor; {rounds} round(s). The yardstick is\n\
         `qemu-img convert` of the same disk from a local raw file, not in memory, to qcow2. Promised: holes\n\
         stay holes, so no disk takes {FLAT_MAX} times as long and {} s for each TiB, or {ROOM_MAX} times as much\n\
         room as the smallest; and the machine stands still for at most {} ms.\n\n{table}",
        HOLES_MAX.as_secs(),
        STILL_MAX.as_millis(),
    )
}
