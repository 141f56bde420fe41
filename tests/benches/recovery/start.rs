// SPDX-License-Identifier: MIT OR Apache-2.0
//! From `relevo boot` to running processors: how long somebody waits until the machine works on its
//! recovery by itself, whatever the size of its disk and however far the library is.

use std::time::Duration;

use anyhow::Result;
use e2e::results::{Table, promise};
use e2e::{DISK_SIZES, DiskSize, SampleServer, grown_disk, work_dir};

use super::far::{DELAYS, Way};
use super::local::{Recipe, copy_out};
use super::site::Site;
use super::{median, rounds, say, seconds};

const ROUNDS: usize = 7;
/// The promise, with the library in a directory of this computer.
const START_MAX: Duration = Duration::from_secs(2);
/// Flat: no disk takes so many times as long as the smallest.
const FLAT_MAX: f64 = 1.25;

/// Everything of one disk.
struct Disk {
    size: DiskSize,
    site: Site,
    recipe: Recipe,
    starts: Vec<(Way, Vec<Duration>)>,
    /// The copy, then the start of its machine.
    copies: Vec<Duration>,
}

pub(crate) fn run(server: &SampleServer) -> Result<String> {
    let mut disks: Vec<Disk> = DISK_SIZES
        .into_iter()
        .map(|size| disk(server, size))
        .collect();
    let rounds = rounds(ROUNDS);
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        for disk in &mut disks {
            disk.measure();
        }
    }
    Ok(text(&disks, rounds))
}

fn disk(server: &SampleServer, size: DiskSize) -> Disk {
    let work = work_dir();
    let site = Site::new(&grown_disk(server, work.path(), size));
    let machine = site.boot(site.library.relevo(), None);
    let recipe = Recipe::of(&site);
    machine.end();
    let mut ways = vec![Way::Directory];
    // The largest is the worst.
    if DISK_SIZES.last() == Some(&size) {
        ways.extend(DELAYS.map(Way::Served));
    }
    Disk {
        size,
        site,
        recipe,
        starts: ways.into_iter().map(|way| (way, Vec::new())).collect(),
        copies: Vec::new(),
    }
}

impl Disk {
    fn measure(&mut self) {
        for (way, samples) in &mut self.starts {
            let way = way.open(&self.site.library);
            self.site.chill();
            let machine = self.site.boot(way.relevo(), None);
            samples.push(machine.took());
            machine.end();
        }
        self.site.chill();
        let (copy, copied) = copy_out(self.site.library.relevo(), &self.site.path("copy"));
        let machine = self.recipe.start(&copy, &self.site.path("local"));
        self.copies.push(copied + machine.took);
        machine.end();
    }
}

fn text(disks: &[Disk], rounds: usize) -> String {
    let columns = ["disk", "how", "median s", "longest s", "promise"];
    let mut table = Table::new(&columns);
    let smallest = disks.first().map_or(Duration::ZERO, Disk::directory_median);
    for disk in disks {
        for (way, samples) in &disk.starts {
            let is_flat = disk.directory_median() <= smallest.mul_f64(FLAT_MAX);
            let is_kept = is_flat && median(samples) < START_MAX;
            let told = (!way.is_served()).then(|| promise(is_kept));
            table.row(&[
                disk.size.name.to_owned(),
                format!("relevo boot, {}", way.name()),
                seconds(median(samples)),
                seconds(longest(samples)),
                told.unwrap_or_default(),
            ]);
        }
        table.row(&[
            disk.size.name.to_owned(),
            "copy, then start".to_owned(),
            seconds(median(&disk.copies)),
            seconds(longest(&disk.copies)),
            String::new(),
        ]);
    }
    format!(
        "From the start of the command until the machine's processors run, of a prepared image (the\n\
         sample server: 400 MB of data), {rounds} rounds, nothing of the library in memory or in the chunk\n\
         cache. *directory*: the library is one of this computer. *TLS, n ms*: it is behind\n\
         `image-library serve` and a relay that holds each piece of every answer, and a new connection's\n\
         first request, back for n ms; that adds n ms to each round trip and takes no bandwidth. *Copy,\n\
         then start*: `relevo convert --to qcow2` out of the directory, which keeps holes and does not wait\n\
         for the disk, then QEMU with the same command line. Promised: under {} s from a directory,\n\
         and no disk {FLAT_MAX} times as long as the smallest.\n\n{table}\n\
         The first command after the start of a computer also tries out QEMU and KVM, once: {} s here.\n",
        START_MAX.as_secs(),
        seconds(Site::first_start()),
    )
}

impl Disk {
    fn directory_median(&self) -> Duration {
        let found = self.starts.iter().find(|(way, _)| !way.is_served());
        found.map_or(Duration::ZERO, |(_, samples)| median(samples))
    }
}

fn longest(samples: &[Duration]) -> Duration {
    samples.iter().max().copied().unwrap_or_default()
}
