// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the conversion of a real server costs, and that it does not grow with the disk: the sample
//! server as it is, and the same server on a disk of 1 TiB.
//!
//! Run by `make bench`. Every figure is that of one process, `relevo convert`, as a user starts it:
//! first on an image that no command has seen, then again when what it prepared is kept. Each is
//! measured several times, the disks taking turns, and the median counts: the machine is noisy.
//! The table is printed and kept in its section of `tests/benches/RESULTS.md`.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::results::{Table, keep_section, promise};
use e2e::{Library, SampleServer, Usage, work_dir};

const RUNS: usize = 5;
const TIB: u64 = 1 << 40;

/// The promise: a conversion takes less than that, whatever the disk's size.
const CPU_MAX: Duration = Duration::from_millis(1500);
const MEMORY_MAX_BYTES: u64 = 200 << 20;

struct Row {
    disk: &'static str,
    first: Usage,
    again: Usage,
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn main() -> Result<()> {
    let Some(server) = SampleServer::find("sample") else {
        return Ok(());
    };
    let work = work_dir();
    let grown = grown_disk(&server, work.path())?;
    let disks = [("2 GiB", server.disk()), ("1 TiB, sparse", grown)];
    let table = table(&measure(&disks));
    println!("{table}");
    keep_section("Conversion", &section(&table));
    Ok(())
}

/// The server's disk, copied to a larger one; its MBR stays valid.
fn grown_disk(server: &SampleServer, work: &Path) -> Result<PathBuf> {
    let copy = server.copy_disk(work);
    OpenOptions::new()
        .write(true)
        .open(&copy)?
        .set_len(TIB)
        .context("this disk holds no 1 TiB file")?;
    Ok(copy)
}

fn measure(disks: &[(&'static str, PathBuf)]) -> Vec<Row> {
    let mut samples: Vec<(Vec<Usage>, Vec<Usage>)> = vec![<_>::default(); disks.len()];
    for _ in 0..RUNS {
        for ((_, disk), (first, again)) in disks.iter().zip(&mut samples) {
            let work = work_dir();
            let library = Library::create(work.path());
            library.import("x", disk);
            first.push(convert(&library, &work.path().join("first")));
            again.push(convert(&library, &work.path().join("again")));
        }
    }
    disks
        .iter()
        .zip(samples)
        .map(|((disk, _), (first, again))| Row {
            disk,
            first: Usage::median(&first),
            again: Usage::median(&again),
        })
        .collect()
}

fn convert(library: &Library, out: &Path) -> Usage {
    library
        .relevo()
        .args("convert x --to qcow2 -o")
        .arg(out)
        .succeeds()
        .usage
}

fn table(rows: &[Row]) -> Table {
    let columns = [
        "disk",
        "conversion",
        "CPU s",
        "wall s",
        "peak MiB",
        "promise",
    ];
    let mut table = Table::new(&columns);
    for row in rows {
        for (kind, usage) in [("first", &row.first), ("again", &row.again)] {
            let kept = usage.cpu < CPU_MAX && usage.memory_max_bytes < MEMORY_MAX_BYTES;
            table.row(&[
                row.disk.to_owned(),
                kind.to_owned(),
                format!("{:.2}", usage.cpu.as_secs_f64()),
                format!("{:.2}", usage.wall.as_secs_f64()),
                (usage.memory_max_bytes >> 20).to_string(),
                promise(kept),
            ]);
        }
    }
    table
}

fn section(table: &Table) -> String {
    format!(
        "`cargo bench -p e2e --bench conversion`\n\n\
         `relevo convert x --to qcow2 -o DIR` of the sample server (Debian, ext4, BIOS), release\n\
         build, median of {RUNS} runs, the disks taking turns. *First*: no command has seen the image\n\
         before. *Again*: what the first prepared is kept beside the image. Promised: under {:.1} s of\n\
         CPU and {} MiB, whatever the disk's size.\n\n{table}",
        CPU_MAX.as_secs_f64(),
        MEMORY_MAX_BYTES >> 20,
    )
}
