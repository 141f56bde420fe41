// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the conversion of a real server costs, that it does not grow with the disk, and what virt-v2v
//! takes for the same disk; and the same for guests that only their own kernel writes.
//!
//! Run by `make bench`. Every figure is that of one command, with what it starts: first on an image
//! that no command has seen, then again when what it prepared is kept. Each is measured several times,
//! the disks taking turns, and the median counts: the machine is noisy. virt-v2v runs once, which takes
//! it a minute or more, in the middle of the rounds. `BENCH_ROUNDS` asks for another number of them.
//! The table is printed and kept in its section of `tests/benches/RESULTS.md`.

mod by_guest;
mod reference;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use e2e::results::{Table, keep_section, promise};
use e2e::{DISK_SIZES, DiskSize, Library, SampleServer, Usage, grown_disk, warm_memory, work_dir};

const ROUNDS: usize = 5;

/// The promises: a conversion takes less than that, whatever the disk's size.
const CPU_MAX: Duration = Duration::from_millis(1500);
const MEMORY_MAX_BYTES: u64 = 200 << 20;
/// Flat: no disk takes so many times as much of the processors as the smallest.
const FLAT_MAX: f64 = 1.25;
/// So many times less than virt-v2v takes of the processors.
const LESS_THAN_REFERENCE: f64 = 50.0;

/// What was measured of one disk.
#[derive(Default)]
struct Samples {
    first: Vec<Usage>,
    again: Vec<Usage>,
}

/// The figures of one disk.
struct Row {
    size: DiskSize,
    first: Usage,
    again: Usage,
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn main() -> Result<()> {
    let Some(server) = SampleServer::find("sample") else {
        return Ok(());
    };
    let work = work_dir();
    let disks = DISK_SIZES.map(|size| {
        let folder = work.path().join(size.bytes.to_string());
        std::fs::create_dir(&folder).expect("the folder is new");
        grown_disk(&server, &folder, size)
    });
    let asked = std::env::var("BENCH_ROUNDS").ok();
    let rounds = asked.map_or(Ok(ROUNDS), |text| text.parse())?;
    let (rows, reference) = measure(&disks, rounds);
    let text = format!(
        "{}\n{}",
        section(&rows, &reference, rounds),
        by_guest::part(rounds)
    );
    println!("{text}");
    keep_section("Conversion", &text);
    Ok(())
}

fn measure(disks: &[PathBuf], rounds: usize) -> (Vec<Row>, Result<Usage, String>) {
    let mut samples = DISK_SIZES.map(|_| Samples::default());
    let mut reference = None;
    for round in 0..rounds {
        for (disk, samples) in disks.iter().zip(&mut samples) {
            let work = work_dir();
            let library = Library::create(work.path());
            library.import("x", disk);
            let convert = |name: &str| {
                warm_memory(work.path());
                convert(&library, &work.path().join(name))
            };
            samples.first.push(convert("first"));
            samples.again.push(convert("again"));
        }
        if round == rounds / 2 {
            reference = disks.first().map(|disk| reference::virt_v2v(disk));
        }
    }
    let rows = DISK_SIZES.iter().zip(samples).map(|(size, samples)| Row {
        size: *size,
        first: Usage::median(&samples.first),
        again: Usage::median(&samples.again),
    });
    let reference = reference.unwrap_or_else(|| Err("there were no rounds".to_owned()));
    (rows.collect(), reference)
}

fn convert(library: &Library, out: &Path) -> Usage {
    library
        .relevo()
        .args("convert x --to qcow2 -o")
        .arg(out)
        .succeeds()
        .usage
}

fn table(rows: &[Row], reference: &Result<Usage, String>) -> Table {
    let columns = [
        "disk",
        "conversion",
        "CPU s",
        "wall s",
        "peak MiB",
        "promise",
    ];
    let mut table = Table::new(&columns);
    let smallest = &rows[0];
    for row in rows {
        let kinds = [
            ("first", &row.first, &smallest.first),
            ("again", &row.again, &smallest.again),
        ];
        for (kind, usage, smallest) in kinds {
            let is_kept = usage.cpu < CPU_MAX
                && usage.memory_max_bytes < MEMORY_MAX_BYTES
                && usage.cpu <= smallest.cpu.mul_f64(FLAT_MAX);
            table.row(&cells(row.size.name, kind, usage, promise(is_kept)));
        }
    }
    let name = reference::version();
    match reference {
        Ok(usage) => {
            let times = usage.cpu.as_secs_f64() / smallest.first.cpu.as_secs_f64();
            let told = format!(
                "{times:.0} times first's CPU: {}",
                promise(times >= LESS_THAN_REFERENCE)
            );
            table.row(&cells(smallest.size.name, &name, usage, told));
        }
        Err(reason) => {
            let reason = format!("skipped: {reason}");
            let rest = [String::new(), String::new(), String::new()];
            let [cpu, wall, peak] = rest;
            table.row(&[smallest.size.name.to_owned(), name, cpu, wall, peak, reason]);
        }
    }
    table
}

fn cells(disk: &str, kind: &str, usage: &Usage, told: String) -> [String; 6] {
    [
        disk.to_owned(),
        kind.to_owned(),
        format!("{:.2}", usage.cpu.as_secs_f64()),
        format!("{:.2}", usage.wall.as_secs_f64()),
        (usage.memory_max_bytes >> 20).to_string(),
        told,
    ]
}

fn section(rows: &[Row], reference: &Result<Usage, String>, rounds: usize) -> String {
    format!(
        "`cargo bench -p e2e --bench conversion`\n\n\
         `relevo convert x --to qcow2 -o DIR` of the sample server (Debian, ext4, BIOS), release\n\
         build, median of {rounds} runs, the disks taking turns. *First*: no command has seen the image\n\
         before. *Again*: what the first prepared is kept beside the image. virt-v2v, one run:\n\
         `virt-v2v -i disk DISK -o qemu -of qcow2 -os DIR`, its CPU time with that of its appliance and of\n\
         everything else it starts, its memory as the sum of their shares; the appliance is built before.\n\
         Fairness: the appliance's processors are emulated here (`force_tcg`), which inflates it several\n\
         times over KVM, and it does more than we do, such as removing packages of other hypervisors and\n\
         putting a guest agent in place. Both start with memory that was in use just before.\n\
         Promised: under {:.1} s of CPU and {} MiB, no disk {FLAT_MAX} times as much as the smallest, and\n\
         {LESS_THAN_REFERENCE} times less CPU than virt-v2v.\n\n{}",
        CPU_MAX.as_secs_f64(),
        MEMORY_MAX_BYTES >> 20,
        table(rows, reference),
    )
}
