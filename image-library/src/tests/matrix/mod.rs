// SPDX-License-Identifier: MIT OR Apache-2.0
//! The damage matrix: every kind of file, damaged in every way, met by every operation.
//!
//! `table.txt` says what happens in each cell; the test does it and compares. Whatever it
//! says: nothing panics, no wrong bytes are given out, an error names the place, and what an
//! upload says is stored can be read. `RELEVO_MATRIX=1` prints the table as it is.
//!
//! | word | meaning |
//! |---|---|
//! | `ok` | as if nothing were damaged |
//! | `told` | an error or a finding that names the place |
//! | `less` | fewer images are listed; `verify` tells why, unless nothing is left to tell it |

mod library;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use disk::block::MemoryDevice;
use disk::{ReadAt, Silent};

use library::Template;

use super::{disk_draft, draft};
use crate::{
    DiskIndex, Error, Image, ImageId, ImageReader, IngestDisk, LocalLibrary, PruneOptions,
    Statistics, ingest,
};

const TABLE: &str = include_str!("table.txt");
const SIDE: &str = "readiness.json";

/// What is damaged: its name in the table, and a word of every message about it.
const PLACES: [(&str, &str); 14] = [
    ("library.json", "library"),
    ("key", "key"),
    ("pack header", "pack"),
    ("pack record", "pack"),
    ("pack footer", "pack"),
    ("pack trailer", "pack"),
    ("image", "image"),
    ("side file", "side"),
    ("trash", "image"),
    ("floor", "prune/floor"),
    ("condemned", "prune/condemned"),
    ("index run", "index"),
    ("upload pack", "pack"),
    ("upload set", "index"),
];
const DAMAGES: [&str; 7] = [
    "truncated",
    "emptied",
    "flipped",
    "zeroed",
    "replaced",
    "removed",
    "one up",
];
const OPERATIONS: [&str; 8] = [
    "open", "list", "stats", "read", "verify", "upload", "prune", "heal",
];

const AT_ONCE: PruneOptions = PruneOptions {
    keep: None,
    grace: Duration::ZERO,
    dry_run: false,
    is_sole_pruner: false,
};

fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}").expect("writes to a string");
        source = error.source();
    }
    text
}

/// One cell: a damaged library, and one operation on it.
struct Cell<'a> {
    template: &'a Template,
    word: &'static str,
    library: LocalLibrary,
}

impl Cell<'_> {
    /// An error has to name the place.
    fn told(&self, error: &Error) -> String {
        told(self.word, &text(error))
    }

    fn list(&self) -> String {
        let images = self.library.images();
        let deleted = self.library.deleted_images();
        match (images, deleted) {
            (Err(error), _) | (_, Err(error)) => self.told(&error),
            (Ok(images), Ok(deleted)) => {
                let known: Vec<&Image> = self.template.images.iter().map(|(i, _)| i).collect();
                assert!(images.iter().all(|image| known.contains(&image)));
                let is_all = images.len() == known.len() && deleted.len() == 2;
                if is_all { "ok" } else { "less" }.to_owned()
            }
        }
    }

    fn stats(&self) -> String {
        match self.library.images() {
            Err(error) => self.told(&error),
            Ok(images) => {
                let statistics = Statistics::of(&images);
                let is_all = statistics.images == 2 && statistics.servers.len() == 2;
                if is_all { "ok" } else { "less" }.to_owned()
            }
        }
    }

    /// Reads every image and side file; what is given out is right.
    fn read(&self) -> String {
        for (image, disk) in &self.template.images {
            if let Err(error) = self.read_one(image.id, disk) {
                return self.told(&error);
            }
            match self.library.side_file(image.id, SIDE) {
                Ok(Some(content)) => assert_eq!(content, image.server.as_str().as_bytes()),
                Ok(None) => return "less".to_owned(),
                Err(error) => return self.told(&error),
            }
        }
        "ok".to_owned()
    }

    fn read_one(&self, id: ImageId, disk: &[u8]) -> Result<(), Error> {
        let device = self.library.open_disk(id, DiskIndex(0))?;
        let mut bytes = vec![0xee; device.length_bytes() as usize];
        device.read_exact_at(0, &mut bytes)?;
        assert!(bytes == disk, "wrong bytes were given out");
        Ok(())
    }

    fn verify(&self) -> String {
        match self.library.verify(&Silent) {
            Err(error) => self.told(&error),
            Ok(report) if report.is_sound() => "ok".to_owned(),
            Ok(report) => {
                let of = |finding: &disk::Finding| format!("{} {}", finding.place, finding.problem);
                let texts: Vec<String> = report.findings.iter().map(of).collect();
                told(self.word, &texts.join("\n"))
            }
        }
    }

    fn upload(&self) -> String {
        let mut disk = self.template.web.clone();
        disk[100] ^= 1;
        let target = crate::UploadTarget {
            server: "web".parse().expect("a legal name"),
        };
        let to_ingest = IngestDisk {
            draft: disk_draft("sda", disk.len() as u64),
            device: Arc::new(MemoryDevice::from(disk.clone())),
            used: None,
            known: None,
        };
        let taken = ingest(&self.library, &target, &[to_ingest], &draft(), &Silent);
        let read = taken.and_then(|(image, _)| self.read_one(image.id, &disk));
        match read {
            Ok(()) => "ok".to_owned(),
            Err(error) => self.told(&error),
        }
    }

    /// Two prunes take nothing away that could be read before.
    fn prune(&self) -> String {
        let readable = |(image, disk): &&(Image, Vec<u8>)| self.read_one(image.id, disk).is_ok();
        let before: Vec<_> = self.template.images.iter().filter(readable).collect();
        for _ in 0..2 {
            if let Err(error) = self.library.prune(&AT_ONCE, &Silent) {
                let after = self.template.images.iter().filter(readable).count();
                assert_eq!(
                    after,
                    before.len(),
                    "a prune that failed took something away"
                );
                return self.told(&error);
            }
        }
        for (image, disk) in before {
            self.read_one(image.id, disk).expect("was readable before");
        }
        "ok".to_owned()
    }

    /// After a verify the server's next image is whole.
    fn heal(&self) -> String {
        // What it says is in another column.
        let _ = self.library.verify(&Silent);
        self.upload()
    }
}

fn told(word: &str, text: &str) -> String {
    if text.contains(word) {
        return "told".to_owned();
    }
    format!("does not name {word:?}: {text}")
}

fn run_cell(
    template: &Template,
    place: (&'static str, &'static str),
    damage: &str,
    operation: &str,
) -> String {
    let copy = template.damaged(place.0, damage);
    let opened = LocalLibrary::open(&copy.path().join("library"));
    let library = match opened {
        Ok(library) => library,
        Err(error) => return told(place.1, &text(&error)),
    };
    let cell = Cell {
        template,
        word: place.1,
        library,
    };
    match operation {
        "open" => "ok".to_owned(),
        "list" => cell.list(),
        "stats" => cell.stats(),
        "read" => cell.read(),
        "verify" => cell.verify(),
        "upload" => cell.upload(),
        "prune" => cell.prune(),
        _ => cell.heal(),
    }
}

fn row(template: &Template, place: (&'static str, &'static str), damage: &str) -> String {
    let mut row = format!("{:<14}{damage:<11}", place.0);
    for operation in OPERATIONS {
        let cell = || run_cell(template, place, damage, operation);
        let outcome = catch_unwind(AssertUnwindSafe(cell)).unwrap_or_else(|_| "PANIC".to_owned());
        write!(row, "{outcome:<8}").expect("writes to a string");
    }
    row.trim_end().to_owned()
}

#[test]
fn every_cell_of_the_damage_matrix_is_as_the_table_says() {
    let template = Template::new();
    let rows: Vec<_> = PLACES
        .iter()
        .flat_map(|place| DAMAGES.map(|damage| (*place, damage)))
        .collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some((place, damage)) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            let row = row(&template, *place, damage);
            done.lock()
                .expect("nobody panics")
                .insert((place.0, *damage), row);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    let done = done.into_inner().expect("nobody panics");
    let mut table = format!("{:<14}{:<11}", "what", "how");
    for operation in OPERATIONS {
        write!(table, "{operation:<8}").expect("writes to a string");
    }
    table = table.trim_end().to_owned() + "\n";
    for (place, damage) in &rows {
        table.push_str(&done[&(place.0, *damage)]);
        table.push('\n');
    }
    if std::env::var_os("RELEVO_MATRIX").is_some() {
        println!("{table}");
    }
    let differing = table.lines().zip(TABLE.lines());
    let differing: Vec<_> = differing
        .filter(|(found, expected)| found != expected)
        .collect();
    assert!(
        differing.is_empty() && table.lines().count() == TABLE.lines().count(),
        "found and expected:\n{differing:#?}"
    );
}
