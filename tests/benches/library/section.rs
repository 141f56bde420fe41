// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures as text: a table for each step, and what was promised beside what was measured.

use e2e::Usage;
use e2e::results::{Table, promise};

use super::repository::{AGENT, IMPORT, SERVED, contenders};
use super::{Chunks, Sample, Samples, Step};

/// What the others are compared with.
pub(crate) const PIPELINE: &str = "blake3 + zstd -1 + AES-256-GCM";
pub(crate) const COPY: &str = "cp --sparse=always --reflink=never";

/// Of the pipeline's speed, for a first snapshot.
const FIRST_SPEED_MIN: f64 = 0.8;
/// Of the copy's speed, for a restore.
const RESTORE_SPEED_MIN: f64 = 0.7;
const MEMORY_MAX_BYTES: u64 = 150 << 20;
/// Of the changed chunks, each compressed by itself.
const CHANGE_MAX: f64 = 1.1;

/// The whole section.
pub(crate) fn text(samples: &Samples, rounds: usize, changed: Chunks, slow_store: &str) -> String {
    let figures = Figures(samples);
    let limit = changed.compressed_bytes as f64 * CHANGE_MAX;
    format!(
        "`cargo bench -p e2e --bench library`\n\n\
         The sample server's disk (Debian, ext4, 2 GiB with 400 MB of data), release build, median\n\
         of {rounds} rounds, the contenders taking turns; everybody encrypts but zstd and cp. Snapshots read\n\
         the disk from memory, a restore reads from the disk; all are measured to the point at which\n\
         what was written is durable, but for what restic and borg leave to the kernel. The pipeline\n\
         is what nobody can do without, on all processors: `examples/plain_pipeline.rs`. *Stored*:\n\
         by how much all files of the repository grew; *sent*: bytes on the wire, TLS included.\n\n\
         ### First snapshot\n\n\
         Promised: faster than restic and borg, at {FIRST_SPEED_MIN} or more of the pipeline's speed, under {} MiB.\n\n{}\n\
         ### Nothing changed\n\n{}\n\
         ### After the server was started and shut down\n\n{}\n\
         ### After writes of 4 KiB to 1 % of the data\n\n\
         {} chunks of 64 KiB differ, {} MB; each compressed by itself (zstd -1) they are {} MB.\n\
         Promised: no more than {CHANGE_MAX} times that is sent and stored.\n\n{}\n\
         ### Restore\n\n\
         Promised: {RESTORE_SPEED_MIN} or more of the copy's speed.\n\n{}\n\
         ### From a slow store\n\n\
         `cargo run --release -p image-library --example restore_from_bucket -- DISK READS`\n\n\
         The library in a bucket whose store waits before each answer. *Restore*: to a raw file.\n\
         *Start*: the reads of a real start of the server, recorded up to its web page, one after the\n\
         other; the library is opened anew each time.\n\n{slow_store}",
        MEMORY_MAX_BYTES >> 20,
        figures.table(Step::First, |name, sample| figures
            .keeps_first(name, sample)),
        figures.table(Step::Unchanged, |_, _| None),
        figures.table(Step::Booted, |_, _| None),
        changed.chunks,
        megabytes(changed.plain_bytes),
        megabytes(changed.compressed_bytes),
        figures.table(Step::Scattered, |name, sample| {
            let most = sample.stored_bytes.max(sample.sent_bytes);
            is_ours(name).then_some(most as f64 <= limit)
        }),
        figures.table(Step::Restore, |name, sample| {
            (name == IMPORT)
                .then(|| figures.speed(COPY, Step::Restore, sample) >= RESTORE_SPEED_MIN)
        }),
    )
}

fn is_ours(name: &str) -> bool {
    [AGENT, IMPORT, SERVED].contains(&name)
}

struct Figures<'a>(&'a Samples);

impl Figures<'_> {
    /// The medians of one step of one contender; `None` when it was not measured.
    fn of(&self, name: &'static str, step: Step) -> Option<Sample> {
        let samples = self.0.get(&(name, step))?;
        let usages: Vec<Usage> = samples.iter().map(|sample| sample.usage).collect();
        let middle = |bytes: fn(&Sample) -> u64| {
            let mut bytes: Vec<u64> = samples.iter().map(bytes).collect();
            bytes.sort_unstable();
            bytes[bytes.len() / 2]
        };
        Some(Sample {
            usage: Usage::median(&usages),
            stored_bytes: middle(|sample| sample.stored_bytes),
            sent_bytes: middle(|sample| sample.sent_bytes),
        })
    }

    /// How fast something is, where `against` is 1.
    fn speed(&self, against: &'static str, step: Step, sample: &Sample) -> f64 {
        self.of(against, step).map_or(0.0, |other| {
            other.usage.wall.as_secs_f64() / sample.usage.wall.as_secs_f64()
        })
    }

    fn keeps_first(&self, name: &'static str, sample: &Sample) -> Option<bool> {
        if ![AGENT, IMPORT].contains(&name) {
            return None;
        }
        let others = contenders().into_iter().map(|contender| contender.name);
        let is_fastest = others
            .filter(|name| !is_ours(name))
            .filter_map(|name| self.of(name, Step::First))
            .all(|other| sample.usage.wall < other.usage.wall);
        let speed = self.speed(PIPELINE, Step::First, sample);
        let memory = sample.usage.memory_max_bytes;
        Some(is_fastest && speed >= FIRST_SPEED_MIN && memory < MEMORY_MAX_BYTES)
    }

    /// One step of everybody who took part; those who could not say so.
    fn table(&self, step: Step, is_kept: impl Fn(&'static str, &Sample) -> Option<bool>) -> Table {
        let against = match step {
            Step::Restore => COPY,
            _ => PIPELINE,
        };
        let mut table = Table::new(&[
            "what",
            "wall s",
            "speed",
            "CPU s",
            "peak MiB",
            "stored MB",
            "sent MB",
            "promise",
        ]);
        let plain = [PIPELINE, "zstd -1 -T0", COPY];
        let contenders = contenders();
        for name in contenders
            .iter()
            .map(|contender| contender.name)
            .chain(plain)
        {
            if let Some(sample) = self.of(name, step) {
                let speed = self.speed(against, step, &sample);
                // The same program, another verb.
                let label = match (name, step) {
                    (IMPORT, Step::Restore) => "relevo image export",
                    _ => name,
                };
                let mut cells = cells(label, &sample, speed);
                cells.push(is_kept(name, &sample).map_or_else(String::new, promise));
                table.row(&cells);
            } else if let Some(contender) = contenders.iter().find(|other| other.name == name)
                && contender.tool.is_some()
            {
                let mut cells = vec![name.to_owned(), "not installed".to_owned()];
                cells.resize(8, String::new());
                table.row(&cells);
            }
        }
        table
    }
}

fn cells(name: &str, sample: &Sample, speed: f64) -> Vec<String> {
    let bytes = |bytes| match bytes {
        0 => String::new(),
        bytes => megabytes(bytes),
    };
    let speed = match speed {
        0.0 => String::new(),
        speed => format!("{speed:.2}"),
    };
    vec![
        name.to_owned(),
        format!("{:.2}", sample.usage.wall.as_secs_f64()),
        speed,
        format!("{:.2}", sample.usage.cpu.as_secs_f64()),
        (sample.usage.memory_max_bytes >> 20).to_string(),
        bytes(sample.stored_bytes),
        bytes(sample.sent_bytes),
    ]
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
