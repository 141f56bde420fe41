// SPDX-License-Identifier: MIT OR Apache-2.0
//! A snapshot of this server's disks, or of disk image files, into a library.
//!
//! Only what is in use is read, only what changed since the last image is sent, and what an
//! interrupted run sent is not sent again. Nothing is visible in the library before the commit,
//! which is the last thing that happens.
//!
//! **Consistency.** Disks in nobody's use and image files are *cold*. A disk that is in use is
//! refused, or read as it is when the operator accepts it; it may change under the reader, so its
//! image is *fuzzy*. The image has the level of its weakest disk. Live consistency is not here yet.
//!
//! | finding | what |
//! |---|---|
//! | `agent.snapshot.begun-again` | the library server was restarted meanwhile |
//! | `agent.snapshot.notes-dropped` | the library lacks what was noted: it is asked instead |
//! | `agent.snapshot.notes-not-written` | the next snapshot will ask the library |
//! | `agent.snapshot.wanted-again` | the library has lost something: it is sent though unchanged |

mod notes;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use disk::{DiskToRead, Finding, Level, Monitor};
use image_library::machine::MachineDescription;
use image_library::terminal::bytes_text;
use image_library::{
    Consistency, DiskDraft, DiskHashes, ImageDraft, ImageId, Ingest, IngestDisk, IngestStats,
    Library, ServerName, Upload, UploadTarget, WantedRange, read_again,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::inventory::root::Root;
use crate::snapshot::notes::{Notes, NotesWriter};
use crate::source::{InUse, Source, open_source};

/// What to take a snapshot of, and how.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// Whose image it becomes.
    pub server: ServerName,
    /// Disks and image files; empty: all disks of this server.
    pub disks: Vec<String>,
    /// What to do with a disk in use.
    pub in_use: InUse,
    /// Where the agent keeps hashes between snapshots.
    pub state: PathBuf,
}

/// What a snapshot would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotPlan {
    /// Whose image it becomes.
    pub server: ServerName,
    /// What the image would promise.
    pub consistency: Consistency,
    /// The disks.
    pub disks: Vec<DiskPlan>,
}

/// What a snapshot would do with one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskPlan {
    /// Its name in the image.
    pub name: String,
    /// The device node or file.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// What of it would be read.
    pub used_bytes: u64,
    /// What could be promised of it.
    pub consistency: Consistency,
}

/// What a snapshot did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotReport {
    /// The image.
    pub image: ImageId,
    /// Whose image it is.
    pub server: ServerName,
    /// What it promises.
    pub consistency: Consistency,
    /// When the snapshot was taken.
    pub taken_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The disks.
    pub disks: Vec<DiskReport>,
}

/// What a snapshot did with one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskReport {
    /// Its name in the image.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// What was done with its bytes.
    #[serde(flatten)]
    pub counts: DiskCounts,
}

/// What was done with one disk, in bytes of the disk unless it says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DiskCounts {
    /// Read from the disk.
    pub read_bytes: u64,
    /// Different from the last image.
    pub changed_bytes: u64,
    /// Of these, sent by this run: the library did not have them from an interrupted one.
    pub sent_bytes: u64,
    /// What that was after compression: the bytes on the network.
    pub sent_compressed_bytes: u64,
}

impl From<IngestStats> for DiskCounts {
    fn from(stats: IngestStats) -> Self {
        Self {
            read_bytes: stats.read_bytes,
            changed_bytes: stats.changed_bytes,
            sent_bytes: stats.new_bytes,
            sent_compressed_bytes: stats.sent_bytes,
        }
    }
}

/// The surroundings of a snapshot.
#[derive(Clone, Copy)]
#[expect(
    missing_debug_implementations,
    reason = "a monitor shows nothing of itself"
)]
pub struct SnapshotContext<'a> {
    /// This server.
    pub machine: &'a MachineDescription,
    /// Told what goes on.
    pub monitor: &'a dyn Monitor,
    /// Set when the operator wants it to end.
    pub stop: &'a AtomicBool,
}

/// Opens the disks of a snapshot: after this it is known that none is refused.
pub(crate) fn open_sources(
    options: &SnapshotOptions,
    machine: &MachineDescription,
) -> Result<Vec<Source>> {
    let named: Vec<String> = if options.disks.is_empty() {
        machine.disks.iter().map(|disk| disk.name.clone()).collect()
    } else {
        options.disks.clone()
    };
    if named.is_empty() {
        return Err(Error::Unknown {
            what: "the disk to take a snapshot of",
            problem: "this server shows no disk in /sys/block".to_owned(),
        });
    }
    let root = Root::new("/");
    let mut sources: Vec<Source> = Vec::new();
    for name in named {
        let mut source = open_source(&root, machine, &name, options.in_use)?;
        let same = |other: &&Source| other.name == source.name;
        if let Some(other) = sources.iter().find(same) {
            if other.path == source.path {
                continue;
            }
            // Two files of one name in different directories.
            source.name = source.path.to_string_lossy().into_owned();
        }
        sources.push(source);
    }
    Ok(sources)
}

/// What a snapshot would do; the disks are opened and their maps are read, nothing is sent.
pub fn plan_snapshot(
    options: &SnapshotOptions,
    context: SnapshotContext<'_>,
) -> Result<SnapshotPlan> {
    let sources = open_sources(options, context.machine)?;
    let mut disks = Vec::new();
    let used = worth_reading(&sources, context.monitor);
    for (source, ranges) in sources.iter().zip(used) {
        disks.push(DiskPlan {
            name: source.name.clone(),
            path: source.path.clone(),
            size_bytes: source.device.length_bytes(),
            used_bytes: ranges.iter().map(|range| range.end - range.start).sum(),
            consistency: source.consistency,
        });
    }
    Ok(SnapshotPlan {
        server: options.server.clone(),
        consistency: weakest(&sources),
        disks,
    })
}

/// Takes the snapshot and commits its image.
///
/// It begins once more, and then sends only what is missing, when the library server was restarted
/// meanwhile, or when the library does not have what the agent's own notes say.
pub fn take_snapshot(
    options: &SnapshotOptions,
    library: &dyn Library,
    context: SnapshotContext<'_>,
) -> Result<SnapshotReport> {
    let sources = open_sources(options, context.machine)?;
    let run = Run {
        options,
        library,
        context,
        sources: &sources,
    };
    let (code, trust, error) = match run.take(Trust::Notes) {
        Err(Error::Library(error @ image_library::Error::UploadForgotten { .. })) => {
            ("agent.snapshot.begun-again", Trust::Notes, error)
        }
        Err(Error::Library(error)) if run.has_notes() && is_doubt(&error) => {
            ("agent.snapshot.notes-dropped", Trust::Library, error)
        }
        done => return done,
    };
    context.monitor.finding(&Finding {
        level: Level::Warning,
        code: code.to_owned(),
        place: options.server.to_string(),
        problem: format!("{error}; the snapshot begins again"),
        remedy: None,
    });
    run.take(trust)
}

/// Whether another answer may be had by asking the library instead of the agent's notes.
fn is_doubt(error: &image_library::Error) -> bool {
    !matches!(
        error,
        image_library::Error::Unreachable { .. }
            | image_library::Error::Protocol { .. }
            | image_library::Error::UploadLost { .. }
            | image_library::Error::File { .. }
            | image_library::Error::Disk(_)
    )
}

/// What of each source is worth reading: ascending, merged ranges of bytes.
fn worth_reading(sources: &[Source], monitor: &dyn Monitor) -> Vec<Vec<Range<u64>>> {
    let disks = sources.iter().map(|source| DiskToRead {
        device: &source.device,
        sector_size: source.sector_size,
        name: &source.name,
        busy_partitions: &source.busy_partitions,
    });
    disk::worth_reading(&disks.collect::<Vec<_>>(), monitor)
}

fn weakest(sources: &[Source]) -> Consistency {
    let levels = sources.iter().map(|source| source.consistency);
    levels.min().unwrap_or(Consistency::Fuzzy)
}

/// Whether the agent's own notes of the last image are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Notes,
    Library,
}

#[derive(Clone, Copy)]
struct Run<'a> {
    options: &'a SnapshotOptions,
    library: &'a dyn Library,
    context: SnapshotContext<'a>,
    sources: &'a [Source],
}

impl Run<'_> {
    fn take(self, trust: Trust) -> Result<SnapshotReport> {
        let started = Instant::now();
        let taken_at = Timestamp::now();
        let target = UploadTarget {
            server: self.options.server.clone(),
        };
        let upload = self.library.begin(&target)?;
        let wanted = self.wanted(trust)?;
        let (mut disks, mut noted) = (Vec::new(), Vec::new());
        // Of all disks before the first is read: a volume may lie on several.
        let used = worth_reading(self.sources, self.context.monitor);
        for (source, used) in self.sources.iter().zip(used) {
            let previous = self.previous(source, trust, &wanted)?;
            let (report, notes) = self.disk((source, used), &*upload, previous)?;
            disks.push(report);
            noted.push(notes);
        }
        if self.context.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        self.context.monitor.stage("Committing the image");
        let draft = ImageDraft {
            taken_at,
            consistency: weakest(self.sources),
            machine: self.machine(),
        };
        let image = upload.commit(&draft)?;
        self.finish_notes(image.id, noted);
        Ok(SnapshotReport {
            image: image.id,
            server: image.server,
            consistency: image.consistency,
            taken_at,
            duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            disks,
        })
    }

    /// The description belongs to the disks of this machine. One of another machine (its disk as a
    /// file) would give the server foreign network cards.
    fn machine(self) -> Option<MachineDescription> {
        let is_own = self.sources.iter().any(|source| source.is_own_device);
        is_own.then(|| self.context.machine.clone())
    }

    fn disk(
        self,
        (source, used): (&Source, Vec<Range<u64>>),
        upload: &dyn Upload,
        previous: Option<Arc<dyn DiskHashes>>,
    ) -> Result<(DiskReport, NotesWriter)> {
        let monitor = self.context.monitor;
        let size_bytes = source.device.length_bytes();
        monitor.stage(&format!(
            "Reading {} ({}, {} in use)",
            source.name,
            bytes_text(size_bytes),
            bytes_text(used.iter().map(|range| range.end - range.start).sum())
        ));
        let chunk_size_bytes = self.library.chunk_size_bytes();
        let disk = IngestDisk {
            draft: DiskDraft {
                name: source.name.clone(),
                size_bytes,
                sector_size: source.sector_size,
            },
            device: Arc::clone(&source.device),
            used: Some(used),
            known: None,
        };
        let ingest = Ingest {
            upload,
            chunk_size_bytes,
            monitor,
            stop: self.context.stop,
        };
        let chunk_count = size_bytes.div_ceil(u64::from(chunk_size_bytes));
        let mut notes = NotesWriter::create(self.notes_path(source), chunk_size_bytes, chunk_count);
        let stats = ingest.disk(&disk, previous, &mut |hashes| notes.push(hashes))?;
        let report = DiskReport {
            name: source.name.clone(),
            size_bytes,
            counts: stats.into(),
        };
        Ok((report, notes))
    }

    fn notes_path(self, source: &Source) -> PathBuf {
        notes::path(&self.options.state, &self.options.server, &source.name)
    }

    fn has_notes(self) -> bool {
        self.sources
            .iter()
            .any(|source| self.notes_path(source).exists())
    }

    /// What the library has lost of what the agent's notes say it has.
    fn wanted(self, trust: Trust) -> Result<Vec<WantedRange>> {
        // The library's own hashes leave out what it has lost.
        if trust == Trust::Library || !self.has_notes() {
            return Ok(Vec::new());
        }
        let wanted = self.library.wanted(&self.options.server)?;
        if !wanted.is_empty() {
            let counts = wanted.iter().map(|range| range.chunk_count);
            let chunks = counts.fold(0, u64::saturating_add);
            self.context.monitor.finding(&Finding {
                level: Level::Note,
                code: "agent.snapshot.wanted-again".to_owned(),
                place: self.options.server.to_string(),
                problem: format!("the library has lost chunks of the last image, up to {chunks}"),
                remedy: Some("nothing: they are sent again where the disk has them".to_owned()),
            });
        }
        Ok(wanted)
    }

    /// What the library has of this disk: by the agent's notes where they are of its latest image,
    /// else by asking.
    fn previous(
        self,
        source: &Source,
        trust: Trust,
        wanted: &[WantedRange],
    ) -> Result<Option<Arc<dyn DiskHashes>>> {
        let server = &self.options.server;
        let path = self.notes_path(source);
        let latest = self.library.latest_hashes(server, &source.name)?;
        if trust == Trust::Library {
            notes::forget(&path);
        } else if let Some(latest) = &latest
            && let Some(notes) = Notes::open(&path)
            && notes.chunk_size_bytes() == self.library.chunk_size_bytes()
            && notes.image() == latest.image()
        {
            return Ok(Some(read_again(Arc::new(notes), &source.name, wanted)));
        }
        Ok(latest)
    }

    /// Notes that cannot be written cost time at the next snapshot, nothing else.
    fn finish_notes(self, image: ImageId, noted: Vec<NotesWriter>) {
        for notes in noted {
            let path = notes.path().to_owned();
            if let Err(error) = notes.finish(image) {
                notes::forget(&path);
                self.context.monitor.finding(&Finding {
                    level: Level::Note,
                    code: "agent.snapshot.notes-not-written".to_owned(),
                    place: path.display().to_string(),
                    problem: format!("{error}; the next snapshot asks the library instead"),
                    remedy: Some("name a directory that can be written with --state".to_owned()),
                });
            }
        }
    }
}
