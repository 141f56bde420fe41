// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many bytes the files of a cache have, counted by all processes that use it.
//!
//! The file holds one number, 8 bytes little-endian, changed under a lock that is held for
//! microseconds. A process that is killed leaves it too large; each survey of the files sets it
//! right, but for what is being written while it looks: a chunk for each process. It is a stranger's as much as any other file: a wrong number makes the cache
//! look full or empty until the next survey, nothing more.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::tree::Tree;

/// How often the lock is tried for, a millisecond apart: a process that was stopped while it held
/// the lock must not stop the others.
const TRIES_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// The unit in which files take room, in bytes.
const BLOCK_BYTES: u64 = 4096;

/// The room that a file of so many bytes takes.
pub(super) fn room_of(length: u64) -> u64 {
    length
        .max(1)
        .checked_next_multiple_of(BLOCK_BYTES)
        .unwrap_or(u64::MAX)
}

/// The number, shared with other processes.
#[derive(Debug)]
pub(super) struct Usage {
    /// The lock is the open file's: threads of one process need one of their own.
    file: Mutex<File>,
}

impl Usage {
    pub(super) fn open(tree: &Tree) -> io::Result<Self> {
        let file = Mutex::new(tree.own_file("usage")?);
        Ok(Self { file })
    }

    /// The number now, in bytes.
    pub(super) fn total(&self) -> io::Result<u64> {
        self.change(|total| total)
    }

    /// Takes room for a file, unless there would be more than `max` bytes then.
    pub(super) fn reserve(&self, bytes: u64, max: u64) -> io::Result<bool> {
        let mut is_reserved = false;
        self.change(|total| match total.checked_add(bytes) {
            Some(sum) if sum <= max => {
                is_reserved = true;
                sum
            }
            _ => total,
        })?;
        Ok(is_reserved)
    }

    /// Gives room back.
    pub(super) fn release(&self, bytes: u64) -> io::Result<()> {
        self.change(|total| total.saturating_sub(bytes)).map(|_| ())
    }

    /// Sets the number to what was found by a survey that began when it was `before`: what came
    /// and went meanwhile counts too.
    pub(super) fn correct(&self, before: u64, found: u64) -> io::Result<()> {
        let corrected = |now: u64| {
            let grown = now.saturating_sub(before);
            let shrunk = before.saturating_sub(now);
            found.saturating_add(grown).saturating_sub(shrunk)
        };
        self.change(corrected).map(|_| ())
    }

    fn change(&self, change: impl FnOnce(u64) -> u64) -> io::Result<u64> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        lock(&file)?;
        let changed = read(&file).and_then(|total| {
            let changed = change(total);
            if changed != total {
                file.write_all_at(&changed.to_le_bytes(), 0)?;
            }
            Ok(changed)
        });
        file.unlock()?;
        changed
    }
}

fn lock(file: &File) -> io::Result<()> {
    for _ in 0..TRIES_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    let problem = "another process holds the lock of the cache's usage";
    Err(io::Error::new(io::ErrorKind::WouldBlock, problem))
}

fn read(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(u64::from_le_bytes(bytes)),
        // New, or cut off.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_counters_of_one_file_never_pass_the_bound() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        let reserved: usize = thread::scope(|scope| {
            let count = || {
                let usage = Usage::open(&tree).unwrap();
                (0..50).filter(|_| usage.reserve(10, 1000).unwrap()).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(reserved, 100);
        let usage = Usage::open(&tree).unwrap();
        assert_eq!(usage.total().unwrap(), 1000);
        usage.release(400).unwrap();
        assert!(usage.reserve(400, 1000).unwrap());
    }

    #[test]
    fn a_survey_sets_it_right_and_keeps_what_came_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let usage = Usage::open(&Tree::open(directory.path()).unwrap()).unwrap();
        usage.reserve(700, 1000).unwrap();
        usage.reserve(50, 1000).unwrap();
        usage.correct(700, 100).unwrap();
        assert_eq!(usage.total().unwrap(), 150);
        usage.release(u64::MAX).unwrap();
        assert_eq!(usage.total().unwrap(), 0);
    }

    #[test]
    fn room_is_taken_in_blocks() {
        assert_eq!(room_of(0), 4096);
        assert_eq!(room_of(65_536), 65_536);
        assert_eq!(room_of(4097), 8192);
        assert_eq!(room_of(u64::MAX), u64::MAX);
    }
}
