// SPDX-License-Identifier: MIT OR Apache-2.0
//! The damage matrix: every kind of file, damaged in every way, met by every operation.
//!
//! `damage_matrix.txt` says what happens in each cell; the test does it and compares. Whatever it
//! says: nothing panics, no wrong bytes are given out, an error names the place, and what an
//! upload says is stored can be read. `RELEVO_MATRIX=1` prints the table as it is.
//!
//! | word | meaning |
//! |---|---|
//! | `ok` | as if nothing were damaged |
//! | `told` | an error or a finding that names the place |
//! | `less` | fewer images are listed; `verify` tells why, unless nothing is left to tell it |

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use disk::block::MemoryDevice;
use disk::{ReadAt, Silent};
use tempfile::TempDir;

use super::{TestLibrary, begin, disk_draft, draft, noise, put_all, sample_disk};
use crate::index::{Adopted, Index, PackRecord};
use crate::pack::{Extent, PackId};
use crate::{
    DiskIndex, Error, Image, ImageId, ImageReader, IngestDisk, LocalLibrary, PruneOptions,
    Statistics, ingest,
};

const TABLE: &str = include_str!("damage_matrix.txt");
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
    "truncated", "emptied", "flipped", "zeroed", "replaced", "removed", "one up",
];
const OPERATIONS: [&str; 8] = [
    "open", "list", "stats", "read", "verify", "upload", "prune", "heal",
];

const AT_ONCE: PruneOptions = PruneOptions {
    keep: None,
    grace: Duration::ZERO,
    dry_run: false,
};

/// A library in which every kind of file is, twice, and what is in it.
struct Template {
    test: TestLibrary,
    images: Vec<(Image, Vec<u8>)>,
    /// The disk of the server `web`, as it is now.
    web: Vec<u8>,
    /// The file of each place, and another of its kind.
    files: BTreeMap<&'static str, (PathBuf, PathBuf)>,
    _other: TestLibrary,
}

impl Template {
    fn new() -> Self {
        let test = TestLibrary::new();
        let library = &test.library;
        // A floor, then a list of condemned packs.
        for seed in [90, 91] {
            let old = test.store("old", &noise(seed, 100_000));
            library.delete_image(old.id).expect("deletes");
            library.prune(&AT_ONCE, &Silent).expect("condemns");
            if seed == 90 {
                library.prune(&AT_ONCE, &Silent).expect("removes");
            }
        }
        let web = sample_disk(1, 300_000);
        let db = sample_disk(2, 200_000);
        let mut images = Vec::new();
        for (server, disk) in [("web", &web), ("db", &db)] {
            let image = test.store(server, disk);
            library
                .put_side_file(image.id, SIDE, server.as_bytes())
                .expect("puts");
            images.push((image, disk.clone()));
        }
        for seed in [3, 4] {
            let deleted = test.store("gone", &sample_disk(seed, 100_000));
            library.delete_image(deleted.id).expect("deletes");
        }
        interrupt_upload(&test);
        let other = TestLibrary::new();
        other.store("other", &noise(99, 100_000));
        let files = files(&test, &images, other.directory.path());
        Self {
            test,
            images,
            web,
            files,
            _other: other,
        }
    }

    /// A copy of the library in which one file is damaged.
    fn damaged(&self, place: &'static str, damage: &str) -> TempDir {
        let copy = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let copy = copy.expect("a directory can be made");
        let root = copy.path().join("library");
        copy_tree(self.test.directory.path(), &root);
        let (file, other) = &self.files[place];
        let inside = file.strip_prefix(self.test.directory.path());
        inflict(place, damage, &root.join(inside.expect("is inside")), other);
        copy
    }
}

/// Leaves what an upload leaves that is killed: half a pack, and a set of what it proved.
fn interrupt_upload(test: &TestLibrary) {
    let upload = begin(&test.library, "web");
    put_all(&test.library, &*upload, &noise(7, 50_000));
    drop(upload);
    let uploads = below(&test.directory.path().join("uploads"));
    let log = uploads.iter().find(|path| path.ends_with("packs"));
    let session = log.and_then(|log| log.parent()).expect("is left");
    fs::write(session.join("0.pack-part"), &noise(8, 70_000)).expect("writes");
    fs::write(session.join("1.pack-part"), &noise(9, 70_000)).expect("writes");
    let set = Index::open(&session.join("proved"), 1).expect("opens");
    set.add(&Adopted {
        record: PackRecord {
            id: PackId::from_bytes([0; 32]),
            length: 0,
            owner: crate::crypto::OwnerTag([0; 16]),
        },
        entries: vec![(
            crate::chunk::ChunkId::from_bytes([7; 32]),
            Extent {
                offset: 0,
                length: 0,
                plain_length: 0,
            },
        )],
    })
    .expect("adds");
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            found.extend(below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy_tree(from: &Path, to: &Path) {
    for file in below(from) {
        let target = to.join(file.strip_prefix(from).expect("is below"));
        fs::create_dir_all(target.parent().expect("has one")).expect("creates");
        fs::copy(file, target).expect("copies");
    }
    for name in ["tmp", "uploads", "locks"] {
        fs::create_dir_all(to.join(name)).expect("creates");
    }
}

fn files(
    test: &TestLibrary,
    images: &[(Image, Vec<u8>)],
    other: &Path,
) -> BTreeMap<&'static str, (PathBuf, PathBuf)> {
    let root = test.directory.path();
    let core = test.library.core();
    let all = below(root);
    let with = |part: &str, ending: &str| {
        let fits = |path: &&PathBuf| {
            let text = path.to_string_lossy();
            text.contains(part) && text.ends_with(ending)
        };
        all.iter().filter(fits).cloned().collect::<Vec<_>>()
    };
    let two = |found: Vec<PathBuf>| (found[0].clone(), found[1].clone());
    // The pack in which the chunks of `web` stand.
    let hash = crate::ContentHash::of(&images[0].1[..16 << 10]);
    let location = core.find(&core.key.chunk_id(&hash)).expect("looks");
    let pack = crate::store::names::pack(&location.expect("is there").pack);
    let another = with("/packs/", ".pack");
    let another = another.iter().find(|path| !path.ends_with(&pack));
    let pack = (root.join(&pack), another.expect("there are two").clone());
    let of_image = |id: ImageId| root.join(format!("images/{id}.image"));
    let of_side = |id: ImageId| root.join(format!("side/{id}/{SIDE}"));
    let (web, db) = (images[0].0.id, images[1].0.id);
    let records = (with("/prune/", "floor"), with("/prune/condemned-", ""));
    let run_of_other = below(&other.join("index"))
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with(".run"));
    let run_of_other = run_of_other.expect("has an index");
    BTreeMap::from([
        ("library.json", (root.join("library.json"), other.join("library.json"))),
        ("key", (root.join("keys/library.key"), other.join("keys/library.key"))),
        ("pack header", pack.clone()),
        ("pack record", pack.clone()),
        ("pack footer", pack.clone()),
        ("pack trailer", pack),
        ("image", (of_image(web), of_image(db))),
        ("side file", (of_side(web), of_side(db))),
        ("trash", two(with("/trash/", ".image"))),
        ("floor", (records.0[0].clone(), records.1[0].clone())),
        ("condemned", (records.1[0].clone(), records.0[0].clone())),
        ("index run", (with("/index/", ".run")[0].clone(), run_of_other.clone())),
        ("upload pack", two(with("/uploads/", ".pack-part"))),
        ("upload set", (with("/proved/", ".run")[0].clone(), run_of_other)),
    ])
}

/// Where in a file the damage begins, and how many bytes it has.
fn part(place: &str, length: usize) -> (usize, usize) {
    match place {
        "pack header" => (16, 32),
        "pack record" => (5000, 200),
        "pack footer" => (length - 100, 60),
        "pack trailer" => (length - 16, 16),
        _ => (length / 2, length / 3),
    }
}

fn inflict(place: &str, damage: &str, file: &Path, other: &Path) {
    let mut bytes = fs::read(file).expect("reads");
    let (at, count) = part(place, bytes.len());
    match damage {
        "truncated" => bytes.truncate(at),
        "emptied" => bytes.clear(),
        "flipped" => bytes[at] ^= 0x10,
        "zeroed" => bytes[at..at + count].fill(0),
        "replaced" => bytes = fs::read(other).expect("reads"),
        "removed" => return fs::remove_file(file).expect("removes"),
        _ => {
            let above = file.parent().and_then(Path::parent).expect("has one");
            let name = file.file_name().expect("has one");
            return fs::rename(file, above.join(name)).expect("renames");
        }
    }
    fs::write(file, bytes).expect("writes");
}

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
                assert_eq!(after, before.len(), "a prune that failed took something away");
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

fn run_cell(template: &Template, place: (&'static str, &'static str), damage: &str, operation: &str) -> String {
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
            done.lock().expect("nobody panics").insert((place.0, *damage), row);
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
    let differing: Vec<_> = differing.filter(|(found, expected)| found != expected).collect();
    assert!(
        differing.is_empty() && table.lines().count() == TABLE.lines().count(),
        "found and expected:\n{differing:#?}"
    );
}
