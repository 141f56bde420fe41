// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rounds through a library in memory, whose disks are empty, damaged or away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use converter::apply::{NoMachine, Work};
use converter::prepare::{FAILURE_NAME, RECORD_NAME};
use disk::block::MemoryDevice;
use disk::{ReadAt, SectorSize, Silent};
use image_library::{Consistency, DiskIndex, ImageDisk};

use super::*;
use crate::interrupt::Interrupt;

const SIZE_BYTES: u64 = 2 << 20;
const WORK: Work<'_> = Work {
    machine: &NoMachine,
    monitor: &Silent,
};

type Answer<T> = image_library::Result<T>;

/// What a read of any disk comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Zeros: there is no operating system.
    Empty,
    /// What is lost stays lost.
    Damaged,
    /// The library answers, but not this.
    Flaky,
}

#[derive(Debug)]
struct Shelf {
    images: Vec<Image>,
    reading: Mutex<Reading>,
    is_away: AtomicBool,
    opened: AtomicUsize,
    side_files: Mutex<BTreeMap<(ImageId, String), Vec<u8>>>,
}

fn unreachable() -> image_library::Error {
    image_library::Error::Unreachable {
        location: "https://library".to_owned(),
        source: "no answer".into(),
    }
}

/// A disk whose every read fails.
#[derive(Debug)]
struct Failing(Reading);

impl ReadAt for Failing {
    fn length_bytes(&self) -> u64 {
        SIZE_BYTES
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        let source = match self.0 {
            Reading::Damaged => image_library::Error::PackMissing {
                place: "packs/17".to_owned(),
            },
            _ => unreachable(),
        };
        Err(disk::Error::Device {
            action: "read",
            offset,
            length: buffer.len() as u64,
            source: Box::new(source),
        })
    }
}

impl Shelf {
    /// Images of servers, oldest first.
    fn new(servers: &[&str], reading: Reading) -> Arc<Self> {
        let images = servers.iter().zip(1..).map(|(server, number)| {
            let time: Timestamp = format!("2026-11-{number:02}T10:00:00Z").parse().unwrap();
            image(server, number, time)
        });
        Arc::new(Self {
            images: images.collect(),
            reading: Mutex::new(reading),
            is_away: AtomicBool::new(false),
            opened: AtomicUsize::new(0),
            side_files: Mutex::default(),
        })
    }

    fn opened(&self) -> usize {
        self.opened.swap(0, Ordering::SeqCst)
    }

    fn answers(&self) -> Answer<()> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(unreachable()),
            false => Ok(()),
        }
    }

    /// As if another version had written that side file.
    fn made_by(&self, name: &str, version: &str) {
        for ((_, file), bytes) in self.side_files.lock().unwrap().iter_mut() {
            if file == name {
                let mut value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                value["converter"] = version.into();
                *bytes = serde_json::to_vec(&value).unwrap();
            }
        }
    }
}

fn image(server: &str, number: u32, time: Timestamp) -> Image {
    Image {
        id: format!("019a3c00-0000-7000-8000-{number:012}")
            .parse()
            .unwrap(),
        server: server.parse().unwrap(),
        taken_at: time,
        received_at: time,
        consistency: Consistency::Cold,
        machine: None,
        disks: vec![ImageDisk {
            index: DiskIndex(0),
            name: "sda".to_owned(),
            size_bytes: SIZE_BYTES,
            sector_size: SectorSize::B512,
            manifest: String::new(),
            data_bytes: 0,
        }],
        parent: None,
        stored_bytes: 0,
        generation: 0,
    }
}

impl ImageReader for Shelf {
    fn images(&self) -> Answer<Vec<Image>> {
        self.answers()?;
        Ok(self.images.clone())
    }

    fn image(&self, id: ImageId) -> Answer<Image> {
        self.answers()?;
        let found = self.images.iter().find(|image| image.id == id).cloned();
        found.ok_or_else(|| image_library::Error::NoSuchImage {
            problem: format!("no image {id}"),
        })
    }

    fn open_disk(&self, _id: ImageId, _disk: DiskIndex) -> Answer<Arc<dyn ReadAt>> {
        self.answers()?;
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(match *self.reading.lock().unwrap() {
            Reading::Empty => Arc::new(MemoryDevice::from(vec![0; SIZE_BYTES as usize])),
            failing => Arc::new(Failing(failing)),
        })
    }

    fn side_file(&self, id: ImageId, name: &str) -> Answer<Option<Vec<u8>>> {
        self.answers()?;
        let files = self.side_files.lock().unwrap();
        Ok(files.get(&(id, name.to_owned())).cloned())
    }

    fn put_side_file(&self, id: ImageId, name: &str, content: &[u8]) -> Answer<()> {
        self.answers()?;
        let mut files = self.side_files.lock().unwrap();
        files.insert((id, name.to_owned()), content.to_vec());
        Ok(())
    }
}

/// The same library, as a service opens it.
#[derive(Debug)]
struct Opened(Arc<Shelf>);

impl ImageReader for Opened {
    fn images(&self) -> Answer<Vec<Image>> {
        self.0.images()
    }

    fn image(&self, id: ImageId) -> Answer<Image> {
        self.0.image(id)
    }

    fn open_disk(&self, id: ImageId, disk: DiskIndex) -> Answer<Arc<dyn ReadAt>> {
        self.0.open_disk(id, disk)
    }

    fn side_file(&self, id: ImageId, name: &str) -> Answer<Option<Vec<u8>>> {
        self.0.side_file(id, name)
    }

    fn put_side_file(&self, id: ImageId, name: &str, content: &[u8]) -> Answer<()> {
        self.0.put_side_file(id, name, content)
    }
}

/// One round: for each piece of news its kind, whose image, and the finding's code.
fn round(rounds: &mut Rounds, shelf: &Shelf) -> Vec<String> {
    let mut heard = Vec::new();
    let mut tell = |news: &News| heard.push(short(news));
    rounds
        .round(shelf, &Interrupt::default(), WORK, &mut tell)
        .unwrap();
    heard
}

fn short(news: &News) -> String {
    let code = news.problem().map_or("-", |finding| &finding.code);
    match news {
        News::Prepared(readiness) => format!("prepared {} {code}", readiness.server),
        News::Known(readiness) => format!("known {} {code}", readiness.server),
        other => format!("{} {code}", serde_json::to_value(other).unwrap()["event"]),
    }
}

#[test]
fn a_verdict_that_is_not_ready_is_a_finding_at_once_and_kept() {
    let shelf = Shelf::new(&["web01"], Reading::Empty);
    let mut rounds = Rounds::default();
    assert_eq!(
        round(&mut rounds, &shelf),
        ["prepared web01 prepare.not-ready"]
    );
    assert_eq!(shelf.opened(), 1);
    assert_eq!(round(&mut rounds, &shelf), [""; 0]);
    // Another process, or the next one, knows it from beside the image.
    let mut other = Rounds::default();
    assert_eq!(round(&mut other, &shelf), ["known web01 prepare.not-ready"]);
    assert_eq!(shelf.opened(), 0);

    let [status] = &status(&*shelf, "2026-11-01T11:00:00Z".parse().unwrap()).unwrap()[..] else {
        panic!("there is one server");
    };
    assert_eq!(status.verdict, Some(Verdict::NotConvertible));
    assert_eq!(status.age_seconds, 3600);
    let problem = &status.problem.as_ref().unwrap().problem;
    assert!(problem.contains("disk.no-filesystem"), "{problem}");
}

#[test]
fn another_version_prepares_again_and_a_later_one_is_left_alone() {
    let shelf = Shelf::new(&["web01"], Reading::Empty);
    round(&mut Rounds::default(), &shelf);
    shelf.opened();

    shelf.made_by(RECORD_NAME, "0.0.1");
    assert_eq!(
        round(&mut Rounds::default(), &shelf),
        ["prepared web01 prepare.not-ready"]
    );
    assert_eq!(shelf.opened(), 1);

    shelf.made_by(RECORD_NAME, "999.0.0");
    assert_eq!(round(&mut Rounds::default(), &shelf), [""; 0]);
    assert_eq!(shelf.opened(), 0);
    let status = status(&*shelf, Timestamp::now()).unwrap();
    assert_eq!(status[0].state, State::ByLater("999.0.0".to_owned()));
}

#[test]
fn a_failure_is_remembered_and_told_once() {
    let shelf = Shelf::new(&["web01"], Reading::Damaged);
    let mut rounds = Rounds::default();
    assert_eq!(
        round(&mut rounds, &shelf),
        ["prepared web01 prepare.failed"]
    );
    shelf.opened();
    assert_eq!(round(&mut rounds, &shelf), [""; 0]);
    assert_eq!(
        round(&mut Rounds::default(), &shelf),
        ["known web01 prepare.failed"]
    );
    assert_eq!(shelf.opened(), 0);

    // Asked for, or by another version, it is tried again.
    *shelf.reading.lock().unwrap() = Reading::Empty;
    let again = Wanted {
        again: true,
        ..Wanted::default()
    };
    let mut rounds = Rounds::new(again);
    assert_eq!(
        round(&mut rounds, &shelf),
        ["prepared web01 prepare.not-ready"]
    );
    assert_eq!(round(&mut rounds, &shelf), [""; 0]);
}

#[test]
fn a_failure_of_an_earlier_version_is_tried_again() {
    let shelf = Shelf::new(&["web01"], Reading::Damaged);
    round(&mut Rounds::default(), &shelf);
    shelf.made_by(FAILURE_NAME, "0.0.1");
    shelf.opened();
    assert_eq!(
        round(&mut Rounds::default(), &shelf),
        ["prepared web01 prepare.failed"]
    );
    assert_eq!(shelf.opened(), 1);
    shelf.made_by(FAILURE_NAME, "999.0.0");
    assert_eq!(
        round(&mut Rounds::default(), &shelf),
        ["known web01 prepare.failed"]
    );
}

#[test]
fn what_cannot_be_read_now_is_tried_again_after_growing_pauses() {
    let shelf = Shelf::new(&["web01"], Reading::Flaky);
    let mut rounds = Rounds::default();
    let mut tried = Vec::new();
    for number in 0..12 {
        let heard = round(&mut rounds, &shelf);
        assert_eq!(heard.len(), usize::from(number == 0), "{heard:?}");
        if shelf.opened() > 0 {
            tried.push(number);
        }
    }
    assert_eq!(tried, [0, 1, 3, 6, 11]);
    assert!(shelf.side_files.lock().unwrap().is_empty());
    *shelf.reading.lock().unwrap() = Reading::Empty;
    let heard: Vec<String> = (0..9).flat_map(|_| round(&mut rounds, &shelf)).collect();
    assert_eq!(heard, ["prepared web01 prepare.not-ready"]);
}

#[test]
fn the_newest_image_of_each_server_comes_first_and_older_ones_only_when_asked() {
    let shelf = Shelf::new(&["web01", "db01", "web01"], Reading::Empty);
    round(&mut Rounds::default(), &shelf);
    let prepared: Vec<String> = {
        let files = shelf.side_files.lock().unwrap();
        files.keys().map(|(id, _)| id.to_string()).collect()
    };
    assert_eq!(prepared.len(), 2);
    assert!(prepared.iter().all(|id| !id.ends_with('1')), "{prepared:?}");
    let all = Wanted {
        all: true,
        ..Wanted::default()
    };
    let heard = round(&mut Rounds::new(all), &shelf);
    assert_eq!(
        heard,
        [
            "known web01 prepare.not-ready",
            "known db01 prepare.not-ready",
            "prepared web01 prepare.not-ready"
        ]
    );
}

fn service(shelf: &Arc<Shelf>, interval: Option<Duration>) -> Service {
    let shelf = Arc::clone(shelf);
    Service {
        location: "https://library".to_owned(),
        open: Box::new(move || Ok(Box::new(Opened(Arc::clone(&shelf))))),
        rounds: Rounds::default(),
        interval,
        machine: Box::new(NoMachine),
        interrupt: Interrupt::default(),
    }
}

#[test]
fn a_library_that_is_away_is_told_once_and_waited_for() {
    let shelf = Shelf::new(&["web01"], Reading::Empty);
    shelf.is_away.store(true, Ordering::SeqCst);
    let mut service = service(&shelf, Some(Duration::from_millis(1)));
    let interrupt = service.interrupt.clone();
    let mut heard = Vec::new();
    service
        .run(&Silent, &mut |news| {
            heard.push(short(news));
            shelf.is_away.store(false, Ordering::SeqCst);
            if matches!(news, News::Prepared(_)) {
                interrupt.raise();
            }
        })
        .unwrap();
    assert_eq!(
        heard,
        [
            "\"library-away\" prepare.library.away",
            "\"library-back\" -",
            "prepared web01 prepare.not-ready"
        ]
    );
}

#[test]
fn one_round_does_not_wait_and_says_when_it_was_interrupted() {
    let shelf = Shelf::new(&["web01"], Reading::Empty);
    service(&shelf, None)
        .run(&Silent, &mut |_| {})
        .expect("the library is there");
    shelf.is_away.store(true, Ordering::SeqCst);
    let away = service(&shelf, None).run(&Silent, &mut |_| {});
    assert!(away.is_err());
    shelf.is_away.store(false, Ordering::SeqCst);
    let mut interrupted = service(&shelf, None);
    interrupted.interrupt.raise();
    let ended = interrupted.run(&Silent, &mut |_| {});
    assert!(matches!(ended, Err(crate::Error::Interrupted)));
}
