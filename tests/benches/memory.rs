// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a library of 10 TiB asks of memory, operation by operation: `scripts/catalogue.sh` makes one
//! of as many chunks and measures; this keeps what it says. `RELEVO_TIB` names another size.
//!
//! Run by `make bench`; an hour or two, and 50 GB of disk.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::PROJECT_DIR;
use e2e::results::{Table, keep_section, promise};

const TIB_DEFAULT: u64 = 10;
/// The promise for each TiB; the test that the script runs fails beyond it.
const BYTES_PER_TIB: u64 = 64 << 20;

/// One operation.
struct Row {
    what: String,
    bytes: u64,
    /// Of the processors.
    seconds: f64,
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn main() -> Result<()> {
    let given = std::env::var("RELEVO_TIB").ok();
    let tib: u64 = given.map_or(Ok(TIB_DEFAULT), |tib| tib.parse())?;
    let rows = measure(tib)?;
    let table = table(tib, &rows);
    println!("{table}");
    let text = format!(
        "`RELEVO_TIB={tib} cargo bench -p e2e --bench memory`\n\n\
         A library of {} million chunks in {} thousand packs, as {tib} TiB have in chunks of 64 KiB; the\n\
         chunks are small, so that there are as many. Each operation in turn, the peak of its process.\n\
         Promised: under {} MiB for each TiB. What a copy needs at the other end is what a first\n\
         image needs.\n\n{table}",
        (tib << 24) / 1_000_000,
        (tib << 24) / 640 / 1000,
        BYTES_PER_TIB >> 20,
    );
    keep_section("Memory of a large library", &text);
    Ok(())
}

fn measure(tib: u64) -> Result<Vec<Row>> {
    let mut script = Command::new("bash")
        .arg(Path::new(PROJECT_DIR).join("scripts/catalogue.sh"))
        .env("RELEVO_TIB", tib.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .context("bash can be run")?;
    let output = BufReader::new(script.stdout.take().context("it is a pipe")?);
    let mut rows = Vec::new();
    for line in output.lines() {
        let line = line?;
        say(&line);
        rows.extend(row(&line));
    }
    ensure!(
        script.wait()?.success(),
        "the catalogue could not be measured"
    );
    ensure!(!rows.is_empty(), "nothing was measured");
    Ok(rows)
}

#[expect(clippy::print_stderr, reason = "hours must show that they go on")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// `peak of OPERATION: BYTES bytes, SECONDS s of CPU`
fn row(line: &str) -> Option<Row> {
    let (what, figures) = line.strip_prefix("peak of ")?.split_once(": ")?;
    let (bytes, seconds) = figures.strip_suffix(" s of CPU")?.split_once(" bytes, ")?;
    Some(Row {
        what: what.to_owned(),
        bytes: bytes.parse().ok()?,
        seconds: seconds.parse().ok()?,
    })
}

fn table(tib: u64, rows: &[Row]) -> Table {
    let mut table = Table::new(&["operation", "peak MiB", "CPU s", "promise"]);
    for row in rows {
        let libraries = if row.what == "replicating" { 2 } else { 1 };
        table.row(&[
            row.what.clone(),
            (row.bytes >> 20).to_string(),
            format!("{:.0}", row.seconds),
            promise(row.bytes < libraries * tib * BYTES_PER_TIB),
        ]);
    }
    table
}
