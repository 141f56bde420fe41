// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image in one library or several, read with patience.
//!
//! A library that is away is waited for: a guest whose read takes minutes goes on afterwards, one that
//! is told of an I/O error has a filesystem that turned read-only. An error is given for proven damage
//! only: when the library is there, and says that a chunk is lost, and so do its replicas.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use disk::block::Extent;
use disk::{Finding, Level, ReadAt};
use image_library::terminal::chain_text;
use image_library::{ContentHash, DiskHashes, DiskIndex, ImageId, ImageReader, LEAF_CHUNKS};

use super::notice::Notices;

/// The first pause before a library is asked again; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: a library that is back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a replica is waited for, when the library has lost something.
const REPLICA_PATIENCE: Duration = Duration::from_secs(15);
/// After so many failures in a row a library is opened anew: its directory may have been mounted again.
const FAILURES_BEFORE_REOPENING: u32 = 3;

const HEAL: &str =
    "`image-library verify` says what is lost, `image-library heal` takes it from a replica";

/// Opens a library.
pub type Open = dyn Fn() -> image_library::Result<Box<dyn ImageReader>> + Send + Sync;

/// A library that may be away for a while.
pub struct Source {
    location: String,
    open: Box<Open>,
    opened: Mutex<Option<Arc<dyn ImageReader>>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// A library that is opened when it is needed first.
    #[must_use]
    pub fn new(location: String, open: Box<Open>) -> Self {
        Self {
            location,
            open,
            opened: Mutex::default(),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<dyn ImageReader>>> {
        // Nothing panics while it is held.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library, opened unless it is.
    pub fn library(&self) -> image_library::Result<Arc<dyn ImageReader>> {
        if let Some(library) = &*self.slot() {
            return Ok(Arc::clone(library));
        }
        // Not under the lock: who waits for a library that is away must not hold up the others.
        let library: Arc<dyn ImageReader> = (self.open)()?.into();
        Ok(Arc::clone(self.slot().get_or_insert(library)))
    }

    fn close(&self) {
        *self.slot() = None;
    }
}

/// An image that all disks of a machine are read from.
#[derive(Debug)]
pub struct KeptImage {
    id: ImageId,
    /// The first is the one that was asked for, the others are its replicas.
    sources: Vec<Source>,
    notices: Arc<Notices>,
    /// Nobody waits for an answer any more.
    is_ending: AtomicBool,
}

/// What one attempt came to.
enum Failure {
    /// The library is there, and what is asked for is lost.
    Damage(image_library::Error),
    /// It could not be asked.
    Away(image_library::Error),
}

impl KeptImage {
    /// An image and where it is.
    #[must_use]
    pub fn new(id: ImageId, sources: Vec<Source>, notices: Arc<Notices>) -> Self {
        Self {
            id,
            sources,
            notices,
            is_ending: AtomicBool::new(false),
        }
    }

    /// Which image.
    #[must_use]
    pub const fn id(&self) -> ImageId {
        self.id
    }

    /// Opens the library and looks for the image, without patience.
    pub fn check(&self) -> image_library::Result<()> {
        match self.sources.first() {
            Some(source) => source.library()?.image(self.id).map(drop),
            None => Ok(()),
        }
    }

    /// The library that was asked for, if it is there now.
    pub fn library(&self) -> Option<Arc<dyn ImageReader>> {
        self.sources.first()?.library().ok()
    }

    /// Whoever waits for an answer gets an error.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// Asks a library until it answers or patience ends: gives its answer, or what it has lost.
    fn ask<T>(
        &self,
        source: &Source,
        patience: Option<Duration>,
        question: &dyn Fn(&dyn ImageReader) -> image_library::Result<T>,
    ) -> Result<T, image_library::Error> {
        let begun = Instant::now();
        let mut pause = PAUSE_MIN;
        let mut failures = 0;
        let mut waiting = None;
        loop {
            let error = match self.attempt(source, question) {
                Ok(answer) => return Ok(answer),
                Err(Failure::Damage(error)) => return Err(error),
                Err(Failure::Away(error)) => error,
            };
            if self.is_ending() || patience.is_some_and(|patience| begun.elapsed() > patience) {
                return Err(error);
            }
            waiting.get_or_insert_with(|| self.notices.wait_for(&source.location, &error));
            failures += 1;
            if failures >= FAILURES_BEFORE_REOPENING {
                source.close();
            }
            self.sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn sleep(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while !self.is_ending() && Instant::now() < end {
            thread::sleep(PAUSE_MIN.min(pause));
        }
    }

    fn attempt<T>(
        &self,
        source: &Source,
        question: &dyn Fn(&dyn ImageReader) -> image_library::Result<T>,
    ) -> Result<T, Failure> {
        let library = source.library().map_err(Failure::Away)?;
        let error = match question(&*library) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // A directory that is not mounted has no packs either: what is lost is lost only where the
        // image itself still is.
        if error.proves_damage() && library.image(self.id).is_ok() {
            return Err(Failure::Damage(error));
        }
        Err(Failure::Away(error))
    }
}

/// One disk of a kept image: reads are answered when the library is there.
#[derive(Debug)]
pub struct KeptDisk {
    image: Arc<KeptImage>,
    index: DiskIndex,
    size_bytes: u64,
    /// The disk in each of the sources, once it was opened, and the library that it is in.
    opened: Vec<Mutex<Option<Opened>>>,
}

#[derive(Debug, Clone)]
struct Opened {
    library: Arc<dyn ImageReader>,
    device: Arc<dyn ReadAt>,
    hashes: Arc<dyn DiskHashes>,
}

impl KeptDisk {
    /// A disk of a known size; nothing is read yet.
    #[must_use]
    pub fn new(image: Arc<KeptImage>, index: DiskIndex, size_bytes: u64) -> Self {
        let opened = image.sources.iter().map(|_| Mutex::default()).collect();
        Self {
            image,
            index,
            size_bytes,
            opened,
        }
    }

    /// The disk in a source, opened again when the library was.
    fn opened(&self, source: usize) -> image_library::Result<Opened> {
        let library = self.image.sources[source].library()?;
        let slot = || {
            self.opened[source]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let known = slot().clone();
        if let Some(opened) = known.filter(|opened| Arc::ptr_eq(&opened.library, &library)) {
            return Ok(opened);
        }
        let opened = Opened {
            device: library.open_disk_direct(self.image.id, self.index)?,
            hashes: library.disk_hashes(self.image.id, self.index)?,
            library,
        };
        *slot() = Some(opened.clone());
        Ok(opened)
    }

    /// Asks the first source, and where that has lost something, the replicas.
    fn ask<T>(
        &self,
        offset: u64,
        question: &dyn Fn(&Opened) -> image_library::Result<T>,
    ) -> image_library::Result<T> {
        let mut first_error = None;
        for (number, source) in self.image.sources.iter().enumerate() {
            // Of the library itself it is not known yet that it has lost something.
            let patience = (number > 0).then_some(REPLICA_PATIENCE);
            let answer = self
                .image
                .ask(source, patience, &|_| question(&self.opened(number)?));
            match answer {
                Ok(answer) => {
                    if let Some(error) = &first_error {
                        self.note_replica(offset, error, &source.location);
                    }
                    return Ok(answer);
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(
            first_error.unwrap_or_else(|| image_library::Error::NoSuchImage {
                problem: format!("image {} is in no library", self.image.id),
            }),
        )
    }

    fn note_replica(&self, offset: u64, error: &image_library::Error, replica: &str) {
        self.image.notices.finding(Finding {
            level: Level::Warning,
            code: "boot.chunk.replica".to_owned(),
            place: self.place(offset),
            problem: format!(
                "{}; it was read from the replica {replica}",
                chain_text(error)
            ),
            remedy: Some(HEAL.to_owned()),
        });
    }

    /// What of which image is at a byte.
    fn place(&self, offset: u64) -> String {
        format!(
            "image {}, disk {}, byte {offset:#x}",
            self.image.id, self.index
        )
    }

    /// Notes that the guest is told of an I/O error.
    pub fn note_damage(&self, offset: u64, error: &disk::Error) {
        if self.image.is_ending() {
            return;
        }
        self.image.notices.finding(Finding {
            level: Level::Error,
            code: "boot.chunk.damaged".to_owned(),
            place: self.place(offset),
            problem: format!(
                "{}; the machine was told of an I/O error there",
                chain_text(error)
            ),
            remedy: Some(HEAL.to_owned()),
        });
    }
}

/// The hashes of a kept disk, asked for with the same patience.
#[derive(Debug)]
pub struct KeptHashes {
    disk: Arc<KeptDisk>,
    chunk_count: u64,
    chunk_size_bytes: u32,
}

impl KeptHashes {
    /// Those of a disk; waits until the library is there.
    pub fn of(disk: Arc<KeptDisk>) -> image_library::Result<Self> {
        let (chunk_count, chunk_size_bytes) = disk.ask(0, &|opened| {
            let hashes = &opened.hashes;
            Ok((hashes.chunk_count(), hashes.chunk_size_bytes()))
        })?;
        Ok(Self {
            disk,
            chunk_count,
            chunk_size_bytes,
        })
    }
}

impl DiskHashes for KeptHashes {
    fn image(&self) -> ImageId {
        self.disk.image.id
    }

    fn chunk_count(&self) -> u64 {
        self.chunk_count
    }

    fn chunk_size_bytes(&self) -> u32 {
        self.chunk_size_bytes
    }

    fn leaf(&self, number: u64) -> image_library::Result<Vec<Option<ContentHash>>> {
        let covered = u64::from(self.chunk_size_bytes) * LEAF_CHUNKS as u64;
        let offset = number.saturating_mul(covered);
        self.disk.ask(offset, &|opened| opened.hashes.leaf(number))
    }
}

/// A device of a library tells its error as the source of a disk's.
fn library_error(error: disk::Error) -> image_library::Error {
    match error {
        disk::Error::Device { source, .. } if source.is::<image_library::Error>() => {
            match source.downcast() {
                Ok(error) => *error,
                Err(other) => image_library::Error::Disk(disk::Error::Device {
                    action: "read",
                    offset: 0,
                    length: 0,
                    source: other,
                }),
            }
        }
        error => image_library::Error::Disk(error),
    }
}

fn device_error(offset: u64, length: usize, source: image_library::Error) -> disk::Error {
    disk::Error::Device {
        action: "read",
        offset,
        length: length as u64,
        source: Box::new(source),
    }
}

impl ReadAt for KeptDisk {
    fn length_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        let length = buffer.len();
        let buffer = Mutex::new(buffer);
        self.ask(offset, &|opened| {
            let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            let read = opened.device.read_exact_at(offset, &mut buffer);
            read.map_err(library_error)
        })
        .map_err(|error| device_error(offset, length, error))
    }

    fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
        self.ask(offset, &|opened| {
            opened.device.extent_at(offset).map_err(library_error)
        })
        .map_err(|error| device_error(offset, 0, error))
    }
}

#[cfg(test)]
mod tests;
