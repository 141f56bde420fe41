// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps the files of a cache within their bound: what was used longest ago goes first.
//!
//! One process at a time goes over all files: it sums them up, sets [`Usage`] right, and where they
//! are more than allowed removes the oldest until nine tenths are left. Time of use is the time of
//! modification. Names are not kept in memory, only how many bytes are of which age, in at most
//! [`AGES_MAX`] steps: a million files, or more, take a few MiB.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, Stat};

use super::tree::{Kind, Tree, is_file, kind_of, stat_of};
use super::usage::{Usage, room_of};

/// How many different ages are told apart.
const AGES_MAX: usize = 1 << 14;
/// The finest step of ages at first: 2^20 ns, about a millisecond.
const STEP_SHIFT: u32 = 20;
/// A file that has been written for longer is one that nobody writes any more.
const PART_AGE_MAX: Duration = Duration::from_secs(3600);

/// What a survey did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survey {
    /// All files were looked at; so many bytes were removed.
    Done(u64),
    /// Another process is at it.
    Busy,
    /// It was told to stop.
    Stopped,
}

/// How many bytes there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) bytes_max: u64,
    /// For how many more there is to be room, at most nine tenths of all.
    pub(super) wanted: u64,
}

impl Bound {
    /// How many of so many bytes have to go.
    fn surplus(self, total: u64) -> u64 {
        let Self { bytes_max, wanted } = self;
        if total.saturating_add(wanted) <= bytes_max {
            return 0;
        }
        let goal = (bytes_max / 10 * 9).min(bytes_max.saturating_sub(wanted));
        total.saturating_sub(goal)
    }
}

/// Looks at all files; removes the oldest when there are more than the bound allows.
pub(super) fn survey(
    tree: &Tree,
    usage: &Usage,
    bound: Bound,
    stop: &AtomicBool,
) -> io::Result<Survey> {
    let lock = tree.own_file("eviction.lock")?;
    if !try_lock(&lock)? {
        return Ok(Survey::Busy);
    }
    let before = usage.begin_survey()?;
    let mut ages = Ages::default();
    let look = |file: &Seen<'_>| {
        if file.kind == Kind::Chunk {
            ages.add(file.used, file.room());
        } else if age(file.used) > PART_AGE_MAX {
            file.remove();
        }
        0
    };
    if !walk(tree, stop, look, |_| Ok(()))?.is_complete {
        return Ok(Survey::Stopped);
    }
    usage.end_survey(before, ages.total)?;
    let surplus = bound.surplus(ages.total);
    if surplus == 0 {
        return Ok(Survey::Done(0));
    }
    let mut limit = ages.oldest(surplus);
    let remove = |file: &Seen<'_>| {
        let is_old = file.kind == Kind::Chunk && limit.takes(file.used, file.room());
        if is_old && file.remove() {
            file.room()
        } else {
            0
        }
    };
    // Room is given back as it is made: others wait for it.
    let removed = walk(tree, stop, remove, |bytes| usage.release(bytes))?;
    Ok(Survey::Done(removed.sum))
}

fn try_lock(lock: &File) -> io::Result<bool> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// One file of the cache.
struct Seen<'a> {
    directory: &'a OwnedFd,
    name: &'a str,
    kind: Kind,
    length: u64,
    /// Nanoseconds since 1970.
    used: u64,
}

impl Seen<'_> {
    fn room(&self) -> u64 {
        room_of(self.length)
    }

    fn remove(&self) -> bool {
        rustix::fs::unlinkat(self.directory, self.name, AtFlags::empty()).is_ok()
    }
}

/// How far a walk came.
struct Walked {
    is_complete: bool,
    /// What its visitor said, added up.
    sum: u64,
}

/// Visits every file of the cache, and nothing else; after each directory `release` gets what the
/// visitor said of its files, added up.
fn walk(
    tree: &Tree,
    stop: &AtomicBool,
    mut visit: impl FnMut(&Seen<'_>) -> u64,
    release: impl Fn(u64) -> io::Result<()>,
) -> io::Result<Walked> {
    let mut all = Walked {
        is_complete: true,
        sum: 0,
    };
    for number in 0..=u8::MAX {
        let walked = walk_directory(tree, number, stop, &mut visit)?;
        release(walked.sum)?;
        all.sum = all.sum.saturating_add(walked.sum);
        all.is_complete = walked.is_complete;
        if !all.is_complete {
            break;
        }
    }
    Ok(all)
}

fn walk_directory(
    tree: &Tree,
    number: u8,
    stop: &AtomicBool,
    visit: &mut impl FnMut(&Seen<'_>) -> u64,
) -> io::Result<Walked> {
    let prefix = format!("{number:02x}");
    let mut walked = Walked {
        is_complete: true,
        sum: 0,
    };
    let Some(directory) = tree.directory(&prefix)? else {
        return Ok(walked);
    };
    for entry in Dir::read_from(&directory)? {
        if stop.load(Ordering::Relaxed) {
            walked.is_complete = false;
            break;
        }
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let Some(kind) = kind_of(name, &prefix) else {
            continue;
        };
        // One that is gone by now was removed by who found it damaged.
        let stat = stat_of(&directory, name).ok().filter(is_file);
        let Some(stat) = stat else { continue };
        walked.sum = walked.sum.saturating_add(visit(&Seen {
            directory: &directory,
            name,
            kind,
            length: u64::try_from(stat.st_size).unwrap_or(0),
            used: used_at(&stat),
        }));
    }
    Ok(walked)
}

/// When a file was used last: never in the future, or it would stay for ever.
fn used_at(stat: &Stat) -> u64 {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let nanoseconds = stat.st_mtime_nsec;
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
        .min(now())
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanoseconds = since.unwrap_or_default().as_nanos();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

fn age(used: u64) -> Duration {
    Duration::from_nanos(now().saturating_sub(used))
}

/// How many bytes were used when, in steps of time that get coarser the more there are.
#[derive(Debug)]
struct Ages {
    shift: u32,
    steps: BTreeMap<u64, u64>,
    total: u64,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            shift: STEP_SHIFT,
            steps: BTreeMap::new(),
            total: 0,
        }
    }
}

impl Ages {
    fn add(&mut self, used: u64, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        let step = self.steps.entry(used >> self.shift).or_default();
        *step = step.saturating_add(bytes);
        while self.steps.len() > AGES_MAX {
            self.shift += 1;
            let finer = std::mem::take(&mut self.steps);
            for (step, bytes) in finer {
                let coarser = self.steps.entry(step >> 1).or_default();
                *coarser = coarser.saturating_add(bytes);
            }
        }
    }

    /// What the oldest so many bytes are.
    fn oldest(&self, bytes: u64) -> Limit {
        let mut left = bytes;
        for (step, have) in &self.steps {
            if *have >= left {
                return Limit {
                    shift: self.shift,
                    step: *step,
                    of_step: left,
                };
            }
            left -= have;
        }
        Limit {
            shift: self.shift,
            step: u64::MAX,
            of_step: left,
        }
    }
}

/// All that is older than a step, and some bytes of that step.
#[derive(Debug)]
struct Limit {
    shift: u32,
    step: u64,
    of_step: u64,
}

impl Limit {
    fn takes(&mut self, used: u64, bytes: u64) -> bool {
        let step = used >> self.shift;
        if step == self.step && self.of_step > 0 {
            self.of_step = self.of_step.saturating_sub(bytes);
            return true;
        }
        step < self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_bytes_are_found_whatever_the_number_of_files() {
        let mut ages = Ages::default();
        let files = 200_000_u64;
        for number in 0..files {
            ages.add(number << STEP_SHIFT, 10);
        }
        assert!(ages.steps.len() <= AGES_MAX);
        assert_eq!(ages.total, files * 10);
        let mut limit = ages.oldest(files * 5);
        let taken: Vec<u64> = (0..files)
            .filter(|number| limit.takes(number << STEP_SHIFT, 10))
            .collect();
        assert_eq!(taken.len() as u64, files / 2);
        let newest = taken.last().copied().unwrap();
        // Right but for the width of a step.
        assert!(newest <= files / 2 + 32, "{newest}");
    }

    #[test]
    fn of_files_of_one_age_no_more_go_than_have_to() {
        let mut ages = Ages::default();
        for _ in 0..10 {
            ages.add(77 << STEP_SHIFT, 10);
        }
        let mut limit = ages.oldest(25);
        let taken = (0..10)
            .filter(|_| limit.takes(77 << STEP_SHIFT, 10))
            .count();
        assert_eq!(taken, 3);
    }
}
