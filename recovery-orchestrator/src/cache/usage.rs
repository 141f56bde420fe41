// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many bytes the files of a cache have, counted by all processes that use it.
//!
//! ```text
//!  0  8  bytes, of files that are there or being written, little-endian
//!  8  8  how many surveys of the files have begun, little-endian
//! ```
//!
//! Both are changed under a lock that is held for microseconds. Invariant: the number is never too
//! small. A process that is killed leaves it too large, and so does a survey that cannot tell
//! whether it saw what was being written meanwhile; the next survey sets it right. The file is a
//! stranger's as much as any other: wrong numbers make the cache look full or empty until the next
//! survey, nothing more.

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

/// Room for a file that is being written.
#[derive(Debug)]
#[must_use]
pub(super) struct Reservation {
    bytes: u64,
    surveys: u64,
}

/// What the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    total: u64,
    surveys: u64,
}

impl Usage {
    pub(super) fn open(tree: &Tree) -> io::Result<Self> {
        let file = Mutex::new(tree.own_file("usage")?);
        Ok(Self { file })
    }

    /// Takes room for a file; `None` when there would be more than `max` bytes then.
    pub(super) fn reserve(&self, bytes: u64, max: u64) -> io::Result<Option<Reservation>> {
        let mut reservation = None;
        self.change(|numbers| {
            let sum = numbers.total.checked_add(bytes);
            if let Some(sum) = sum.filter(|sum| *sum <= max) {
                numbers.total = sum;
                let surveys = numbers.surveys;
                reservation = Some(Reservation { bytes, surveys });
            }
        })?;
        Ok(reservation)
    }

    /// The file is there, or will not be.
    pub(super) fn end(&self, reservation: &Reservation, is_written: bool) -> io::Result<()> {
        self.change(|numbers| {
            let bytes = reservation.bytes;
            // A survey that began meanwhile may have missed the file: then it counts once more.
            // One that is not there it did not see.
            let is_surveyed = numbers.surveys != reservation.surveys;
            match (is_written, is_surveyed) {
                (true, true) => numbers.total = numbers.total.saturating_add(bytes),
                (false, false) => numbers.total = numbers.total.saturating_sub(bytes),
                (true, false) | (false, true) => {}
            }
        })?;
        Ok(())
    }

    /// Files of so many bytes were removed.
    pub(super) fn release(&self, bytes: u64) -> io::Result<()> {
        self.change(|numbers| numbers.total = numbers.total.saturating_sub(bytes))?;
        Ok(())
    }

    /// A survey begins; gives the number now.
    pub(super) fn begin_survey(&self) -> io::Result<u64> {
        let numbers = self.change(|numbers| numbers.surveys = numbers.surveys.wrapping_add(1))?;
        Ok(numbers.total)
    }

    /// Sets the number to what was found by a survey that began when it was `before`: what came
    /// meanwhile counts too.
    pub(super) fn end_survey(&self, before: u64, found: u64) -> io::Result<()> {
        self.change(|numbers| {
            let came = numbers.total.saturating_sub(before);
            numbers.total = found.saturating_add(came);
        })?;
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Numbers)) -> io::Result<Numbers> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        lock(&file)?;
        let changed = read(&file).and_then(|before| {
            let mut numbers = before;
            change(&mut numbers);
            if numbers != before {
                write(&file, numbers)?;
            }
            Ok(numbers)
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

fn read(file: &File) -> io::Result<Numbers> {
    let number = |at: u64| {
        let mut bytes = [0; 8];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(u64::from_le_bytes(bytes)),
            // New, or cut off.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(error),
        }
    };
    Ok(Numbers {
        total: number(0)?,
        surveys: number(8)?,
    })
}

fn write(file: &File, numbers: Numbers) -> io::Result<()> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&numbers.total.to_le_bytes());
    bytes[8..].copy_from_slice(&numbers.surveys.to_le_bytes());
    file.write_all_at(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(usage: &Usage) -> u64 {
        usage.change(|_| ()).unwrap().total
    }

    #[test]
    fn several_counters_of_one_file_never_pass_the_bound() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        let reserved: usize = thread::scope(|scope| {
            let count = || {
                let usage = Usage::open(&tree).unwrap();
                let reserve = |_: &i32| usage.reserve(10, 1000).unwrap().is_some();
                (0..50).filter(reserve).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(reserved, 100);
        let usage = Usage::open(&tree).unwrap();
        assert_eq!(total(&usage), 1000);
        usage.release(400).unwrap();
        assert!(usage.reserve(400, 1000).unwrap().is_some());
    }

    #[test]
    fn what_is_written_while_a_survey_looks_is_never_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let usage = Usage::open(&Tree::open(directory.path()).unwrap()).unwrap();
        let reserve = || usage.reserve(10, 1000).unwrap().unwrap();
        let (early, lost) = (reserve(), reserve());
        let before = usage.begin_survey().unwrap();
        let (during, lost_too) = (reserve(), reserve());
        usage.end(&early, true).unwrap();
        usage.end(&lost, false).unwrap();
        usage.end(&lost_too, false).unwrap();
        // It saw 300 bytes, and the early one not among them.
        usage.end_survey(before, 300).unwrap();
        assert_eq!(total(&usage), 300 + 10 + 10);
        usage.end(&during, true).unwrap();
        assert_eq!(total(&usage), 320);
        let late = reserve();
        let before = usage.begin_survey().unwrap();
        usage.end_survey(before, 300).unwrap();
        usage.end(&late, true).unwrap();
        assert_eq!(total(&usage), 310);
    }

    #[test]
    fn room_is_taken_in_blocks() {
        assert_eq!(room_of(0), 4096);
        assert_eq!(room_of(65_536), 65_536);
        assert_eq!(room_of(4097), 8192);
        assert_eq!(room_of(u64::MAX), u64::MAX);
    }
}
