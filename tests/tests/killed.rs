// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library's server and the agent, killed in the middle of an upload: what was reported as
//! stored is there, nothing else is, and the next snapshot takes up what was left.
//!
//! `RELEVO_KILLS=100` kills a hundred times; `RELEVO_SEED=7` begins with another moment.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use e2e::{
    Library, Outcome, Program, Running, free_port, raw_disk, scatter_writes, the_only_disk,
    work_dir,
};

const MIB: u64 = 1 << 20;
/// The disk: all of it is written anew in every round.
const DISK_MIB: u64 = 64;
/// What is not in a pack with a name is lost with the server: two packs.
const UNNAMED_BYTES: u64 = 32 * MIB;
/// How often an ordinary run kills.
const KILLS: u64 = 4;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Agent,
    Server,
    Both,
}

/// A library, its server, and the server `x` that is imaged into it.
struct Site {
    work: PathBuf,
    library: Library,
    disk: PathBuf,
    port: u16,
    serving: Option<Running>,
    /// What each image that was reported must read back as.
    images: BTreeMap<String, u64>,
}

impl Site {
    fn new(work: &Path) -> Self {
        let mut site = Self {
            work: work.to_owned(),
            library: Library::create(work),
            disk: raw_disk(work, "disk.raw", DISK_MIB),
            port: free_port(),
            serving: None,
            images: BTreeMap::new(),
        };
        site.serve();
        site
    }

    /// Starts the server: the one place that knows how.
    fn serve(&mut self) {
        self.serving = Some(self.library.serve_on(self.port).0);
    }

    /// An agent's snapshot of the disk: the one place that knows how.
    fn agent(&self) -> Program {
        let address = format!("https://127.0.0.1:{}", self.port);
        self.library.snapshot(&address, &self.disk).arg("--json")
    }

    /// Writes the whole disk, so that nothing of it is in the library.
    fn rewrite(&self, round: u64) {
        let blocks = DISK_MIB * MIB / 4096;
        // Each block is incompressible; the round makes it another one than before.
        scatter_writes(&self.disk, 0..DISK_MIB * MIB, blocks);
        let file = File::options().write(true).open(&self.disk).unwrap();
        for block in 0..blocks {
            let stamp = (round << 32 | block).to_le_bytes();
            std::os::unix::fs::FileExt::write_all_at(&file, &stamp, block * 4096).unwrap();
        }
    }

    /// The images in the library, oldest first.
    fn listed(&self) -> Vec<String> {
        let listed = self.library.relevo().args("image list --json").succeeds();
        let listed = listed.json();
        let id = |image: &serde_json::Value| image["id"].as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(id).collect()
    }

    /// Notes the images that appeared; every one is the disk as it is now.
    fn note(&mut self, outcome: &Outcome) -> usize {
        let listed = self.listed();
        let now = digest(&self.disk);
        let new: Vec<&String> = listed
            .iter()
            .filter(|id| !self.images.contains_key(*id))
            .collect();
        assert!(
            new.len() <= 1,
            "more images than snapshots: {new:?}\n{outcome}"
        );
        let is_reported = outcome.code == Some(0);
        assert!(
            !is_reported || new.len() == 1,
            "a snapshot that was reported is not listed\n{outcome}"
        );
        for known in self.images.keys() {
            assert!(listed.contains(known), "image {known} is gone\n{outcome}");
        }
        let count = new.len();
        for id in listed {
            self.images.entry(id).or_insert(now);
        }
        count
    }

    /// Every image reads back as it was taken, and nothing is damaged.
    fn check(&self) {
        Program::library()
            .arg("verify")
            .arg(self.library.folder())
            .succeeds();
        for (id, expected) in &self.images {
            let exported = self.work.join("exported");
            let _ = fs::remove_dir_all(&exported);
            self.library
                .relevo()
                .args("image export")
                .arg(format!("x@{id}"))
                .arg("-o")
                .arg(&exported)
                .succeeds();
            let found = digest(&the_only_disk(&exported));
            assert_eq!(found, *expected, "image {id} reads back otherwise");
        }
    }

    /// Keeps the newest image only, so that a hundred rounds fit on a disk.
    fn prune(&mut self) {
        for _ in 0..2 {
            Program::library()
                .arg("prune")
                .arg(self.library.folder())
                .args("--keep-last 1 --grace 0s")
                .succeeds();
        }
        let left = self.listed();
        assert!(!left.is_empty());
        self.images.retain(|id, _| left.contains(id));
    }

    fn named_bytes(&self) -> u64 {
        bytes_below(&self.library.folder().join("packs"))
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        found => found.map_or(0, |metadata| metadata.len()),
    };
    entries.map(bytes).sum()
}

fn digest(file: &Path) -> u64 {
    let mut file = File::open(file).unwrap();
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]).unwrap() {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return hasher.finish();
        }
        buffer[..filled].hash(&mut hasher);
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// A well-mixed number: the moment and the victim of a round.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 29)
}

fn victim(dice: u64) -> Victim {
    match dice % 5 {
        0 | 1 => Victim::Agent,
        2 | 3 => Victim::Server,
        _ => Victim::Both,
    }
}

/// One snapshot with a kill in it, and the next one; gives what happened, and how much was sent
/// again in bytes.
fn round(site: &mut Site, seed: u64, usual: Duration) -> (String, u64) {
    site.rewrite(seed + 1);
    let before = site.named_bytes();
    let dice = mixed(seed);
    let victim = victim(dice);
    // A little longer than a snapshot takes: some are over when the kill comes.
    let moment = usual.mul_f64((dice >> 8) as f64 % 1000.0 / 900.0);
    let agent = site.agent().start();
    thread::sleep(moment);
    if victim != Victim::Agent {
        site.serving.take().expect("it serves").kill();
    }
    let outcome = if victim == Victim::Server {
        // Back at once, as a supervisor would have it: the agent may go on or give up.
        site.serve();
        agent.wait()
    } else {
        agent.kill()
    };
    if site.serving.is_none() {
        site.serve();
    }
    let appeared = site.note(&outcome);
    Program::library()
        .arg("verify")
        .arg(site.library.folder())
        .succeeds();

    let named = site.named_bytes() - before;
    let next = site.agent().succeeds();
    site.note(&next);
    let sent = next.json()["disks"][0]["sent_bytes"]
        .as_u64()
        .expect("is a number");
    assert!(
        appeared == 0 || sent == 0,
        "seed {seed}: an image is there, and {sent} bytes were sent"
    );
    let limit = (DISK_MIB * MIB + UNNAMED_BYTES).saturating_sub(named) + 2 * MIB;
    assert!(
        sent <= limit.min(DISK_MIB * MIB * 11 / 10),
        "seed {seed}: {sent} bytes sent again, of which {named} were in packs"
    );
    let story = format!("seed {seed}: {victim:?} after {moment:?}, {appeared} images appeared");
    (story, sent)
}

#[test]
fn nothing_that_was_reported_is_lost_by_kills_at_random_moments() {
    let kills = number("RELEVO_KILLS").unwrap_or(KILLS);
    let first = number("RELEVO_SEED").unwrap_or(1);
    let work = work_dir();
    let mut site = Site::new(work.path());
    site.rewrite(0);
    let begun = Instant::now();
    let outcome = site.agent().succeeds();
    let usual = begun.elapsed();
    site.note(&outcome);

    let mut sent = 0;
    for seed in first..first + kills {
        let (story, sent_again) = round(&mut site, seed, usual);
        println!("{story}");
        sent += sent_again;
        if seed % 5 == 0 {
            site.check();
            site.prune();
        }
    }
    site.check();
    println!(
        "{kills} kills in {:?}; {} of {} MiB were sent again",
        begun.elapsed(),
        sent / MIB,
        kills * DISK_MIB
    );
}
