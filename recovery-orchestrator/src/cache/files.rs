// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of a cache that is on disk: read by who needs a chunk, written by a thread of its own.
//!
//! Writing never holds up a reader: chunks wait in a queue of [`QUEUE_BYTES_MAX`], and one that
//! finds it full is not kept on disk. A second thread keeps the bound (see `eviction`). When the
//! directory cannot be written (full, read-only, gone), that is told once, what is there is still
//! read, and writing is tried again after a while.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use disk::{Finding, Level, Monitor};
use image_library::ContentHash;

use super::eviction::{Bound, Survey, survey};
use super::tree::{Found, Tree, WriteBytes, Written};
use super::usage::{Reservation, Usage, room_of};
use crate::error::{Error, Result};

/// Bytes that wait to be written, at most.
pub(super) const QUEUE_BYTES_MAX: u64 = 16 << 20;
/// How long a chunk waits for room that is being made.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);
/// How long a thread sleeps at most before it looks again whether something changed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A chunk's bytes.
pub(super) type Bytes = Arc<[u8]>;

/// What the files of a cache are.
pub(super) struct FileOptions {
    pub(super) directory: PathBuf,
    pub(super) bytes_max: u64,
    pub(super) retry_after: Duration,
    pub(super) write: WriteBytes,
    pub(super) monitor: Arc<dyn Monitor>,
}

/// The files of a cache, with the threads that look after them.
#[derive(Debug)]
pub(super) struct Files {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// An open directory.
#[derive(Debug)]
struct Place {
    tree: Tree,
    usage: Usage,
}

struct Shared {
    options: FileOptions,
    place: RwLock<Option<Arc<Place>>>,
    queue: Mutex<Queue>,
    /// The queue has other contents, or its end was asked for.
    queue_changed: Condvar,
    /// How many bytes there is to be room for, while all files are to be looked at.
    wants_room: Mutex<Option<u64>>,
    room_changed: Condvar,
    trouble: Mutex<Trouble>,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    /// The first is being written.
    chunks: VecDeque<(ContentHash, Bytes)>,
    bytes: u64,
}

/// What is wrong with the directory.
#[derive(Debug, Default)]
struct Trouble {
    /// Nothing is written before.
    until: Option<Instant>,
    /// Since writing worked last.
    is_told: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("directory", &self.options.directory)
            .finish_non_exhaustive()
    }
}

impl Files {
    /// Opens the directory; one that cannot be opened is told and tried again later.
    ///
    /// # Errors
    ///
    /// No thread could be started.
    pub(super) fn open(options: FileOptions) -> Result<Self> {
        let shared = Arc::new(Shared {
            options,
            place: RwLock::default(),
            queue: Mutex::default(),
            queue_changed: Condvar::new(),
            // All files are looked at first.
            wants_room: Mutex::new(Some(0)),
            room_changed: Condvar::new(),
            trouble: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        shared.reopen();
        let mut files = Self {
            shared,
            threads: Vec::new(),
        };
        files.start("cache writer", Shared::write_queue)?;
        files.start("cache eviction", Shared::keep_bound)?;
        Ok(files)
    }

    fn start(&mut self, name: &str, work: fn(&Shared)) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&shared));
        let directory = &self.shared.options.directory;
        let thread = thread.map_err(Error::file("start a thread for", directory))?;
        self.threads.push(thread);
        Ok(())
    }

    /// A chunk of so many bytes, checked.
    pub(super) fn read(&self, hash: &ContentHash, length: usize) -> FileRead {
        if let Some(bytes) = self.shared.queued(hash) {
            return FileRead::Whole(bytes);
        }
        let place = self.shared.place();
        match place.map(|place| place.tree.read(hash, length)) {
            Some(Found::Whole(bytes)) => FileRead::Whole(bytes.into()),
            Some(Found::Damaged) => FileRead::Damaged,
            Some(Found::Absent) | None => FileRead::Absent,
        }
    }

    /// Whether a chunk seems to be there.
    pub(super) fn has(&self, hash: &ContentHash) -> bool {
        self.shared.queued(hash).is_some()
            || self
                .shared
                .place()
                .is_some_and(|place| place.tree.has(hash))
    }

    /// Whether what is put now will be written, as far as is known.
    pub(super) fn is_writable(&self) -> bool {
        self.shared.place().is_some() && self.shared.may_write()
    }

    /// How many bytes the files may have.
    pub(super) fn bytes_max(&self) -> u64 {
        self.shared.options.bytes_max
    }

    /// Has a chunk written, unless too many wait already.
    pub(super) fn put(&self, hash: ContentHash, bytes: &Bytes) {
        let queue = self.shared.queue();
        if queue.has_room(bytes) {
            self.shared.push(queue, hash, bytes);
        }
    }

    /// Has a chunk written, and waits while too many wait already.
    pub(super) fn put_waiting(&self, hash: ContentHash, bytes: &Bytes) {
        let mut queue = self.shared.queue();
        while !queue.has_room(bytes) {
            if self.shared.is_stopping() {
                return;
            }
            queue = wait(&self.shared.queue_changed, queue);
        }
        self.shared.push(queue, hash, bytes);
    }

    /// Waits until everything that was put is written or given up.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        let mut queue = self.shared.queue();
        while !queue.chunks.is_empty() {
            queue = wait(&self.shared.queue_changed, queue);
        }
        drop(queue);
        let mut wants_room = self.shared.wants_room();
        while wants_room.is_some() {
            wants_room = wait(&self.shared.room_changed, wants_room);
        }
    }

    /// Has all files looked at.
    #[cfg(test)]
    pub(super) fn survey(&self) {
        self.shared.ask_for_room(0);
        self.settle();
    }
}

/// What was found of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileRead {
    /// All of it, checked.
    Whole(Bytes),
    /// Nothing.
    Absent,
    /// A file with other bytes, which is gone now.
    Damaged,
}

impl Drop for Files {
    /// Writes what waits, which is little, and ends the threads.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.queue_changed.notify_all();
        self.shared.room_changed.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn has_room(&self, bytes: &Bytes) -> bool {
        self.chunks.is_empty() || self.bytes.saturating_add(bytes.len() as u64) <= QUEUE_BYTES_MAX
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while one of these is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants_room(&self) -> MutexGuard<'_, Option<u64>> {
        let wants_room = self.wants_room.lock();
        wants_room.unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> Option<Arc<Place>> {
        let place = self.place.read();
        place.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn queued(&self, hash: &ContentHash) -> Option<Bytes> {
        let queue = self.queue();
        let mut chunks = queue.chunks.iter();
        let found = chunks.find(|(queued, _)| queued == hash);
        found.map(|(_, bytes)| Arc::clone(bytes))
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, hash: ContentHash, bytes: &Bytes) {
        queue.bytes += bytes.len() as u64;
        queue.chunks.push_back((hash, Arc::clone(bytes)));
        drop(queue);
        self.queue_changed.notify_all();
    }

    /// Whether the time to write has come (again).
    fn may_write(&self) -> bool {
        let until = self.trouble().until;
        until.is_none_or(|until| Instant::now() >= until)
    }

    /// Opens the directory, again when it was open: it may be another one by now.
    fn reopen(&self) {
        let opened = Tree::open(&self.options.directory).and_then(|tree| {
            let usage = Usage::open(&tree)?;
            Ok(Arc::new(Place { tree, usage }))
        });
        match opened {
            Ok(opened) => {
                let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
                *place = Some(opened);
            }
            Err(error) => self.give_up_for_now(&error),
        }
    }

    fn give_up_for_now(&self, error: &io::Error) {
        let mut trouble = self.trouble();
        trouble.until = Instant::now().checked_add(self.options.retry_after);
        let is_news = !std::mem::replace(&mut trouble.is_told, true);
        drop(trouble);
        if is_news {
            self.options.monitor.finding(&Finding {
                level: Level::Warning,
                code: "cache.not-written".to_owned(),
                place: self.options.directory.display().to_string(),
                problem: format!("the cache cannot be written: {error}"),
                remedy: Some(
                    "make room there, or name another directory; disks are read from the library \
                     meanwhile"
                        .to_owned(),
                ),
            });
        }
    }

    /// The writing thread: until the end, and then what waits.
    fn write_queue(&self) {
        loop {
            let mut queue = self.queue();
            let (hash, bytes) = loop {
                if let Some((hash, bytes)) = queue.chunks.front() {
                    break (*hash, Arc::clone(bytes));
                }
                if self.is_stopping() {
                    return;
                }
                queue = wait(&self.queue_changed, queue);
            };
            drop(queue);
            self.write_chunk(&hash, &bytes);
            let mut queue = self.queue();
            queue.chunks.pop_front();
            queue.bytes -= bytes.len() as u64;
            drop(queue);
            self.queue_changed.notify_all();
        }
    }

    fn write_chunk(&self, hash: &ContentHash, bytes: &Bytes) {
        if !self.may_write() {
            return;
        }
        if self.trouble().until.take().is_some() {
            self.reopen();
        }
        let Some(place) = self.place() else { return };
        match self.write_at(&place, hash, bytes) {
            Ok(Some(Written::New)) => self.trouble().is_told = false,
            Ok(Some(Written::Occupied) | None) => {}
            Err(error) => self.give_up_for_now(&error),
        }
    }

    /// `None` when there is no room.
    fn write_at(
        &self,
        place: &Place,
        hash: &ContentHash,
        bytes: &Bytes,
    ) -> io::Result<Option<Written>> {
        let room = room_of(bytes.len() as u64);
        let Some(reservation) = self.take_room(place, room)? else {
            return Ok(None);
        };
        let written = place.tree.write(hash, bytes, self.options.write);
        let is_written = matches!(written, Ok(Written::New));
        place.usage.end(&reservation, is_written)?;
        written.map(Some)
    }

    /// Takes room, and waits a little where it has to be made.
    fn take_room(&self, place: &Place, room: u64) -> io::Result<Option<Reservation>> {
        let started = Instant::now();
        loop {
            let reservation = place.usage.reserve(room, self.options.bytes_max)?;
            if reservation.is_some() {
                return Ok(reservation);
            }
            let is_hopeless = room > self.options.bytes_max / 10 * 9;
            if is_hopeless || self.is_stopping() || started.elapsed() > ROOM_PATIENCE {
                return Ok(None);
            }
            self.ask_for_room(room);
            let wants_room = self.wants_room();
            if wants_room.is_some() {
                drop(wait(&self.room_changed, wants_room));
            }
        }
    }

    fn ask_for_room(&self, bytes: u64) {
        *self.wants_room() = Some(bytes);
        self.room_changed.notify_all();
    }

    /// The thread that keeps the bound.
    fn keep_bound(&self) {
        while !self.is_stopping() {
            let mut wants_room = self.wants_room();
            if wants_room.is_none() {
                wants_room = wait(&self.room_changed, wants_room);
            }
            let asked = *wants_room;
            drop(wants_room);
            let Some(bytes) = asked else { continue };
            if !matches!(self.make_room(bytes), Survey::Done(_)) {
                thread::sleep(LOOK_AGAIN);
            }
            *self.wants_room() = None;
            self.room_changed.notify_all();
        }
    }

    fn make_room(&self, bytes: u64) -> Survey {
        let Some(place) = self.place() else {
            return Survey::Stopped;
        };
        let Place { tree, usage } = &*place;
        let bound = Bound {
            bytes_max: self.options.bytes_max,
            wanted: bytes,
        };
        survey(tree, usage, bound, &self.stop).unwrap_or_else(|error| {
            // Who writes next meets the same trouble and tells it.
            tracing::debug!(%error, "the files of the cache cannot be looked at");
            Survey::Stopped
        })
    }
}

/// Waits for a change, or a while.
fn wait<'a, T>(changed: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    let waited = changed.wait_timeout(guard, LOOK_AGAIN);
    waited.unwrap_or_else(PoisonError::into_inner).0
}
