// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which reads of a disk go on where others stopped.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// How many readers of a disk are followed.
const READERS_MAX: usize = 16;
/// How far from where a reader stopped it may go on and still be the same, in bytes: guests read
/// ahead with several requests at a time, which come in any order.
const SLACK: u64 = 256 << 10;

/// Follows the readers of one disk.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Where each stopped; the one that read last is the last.
    stopped: Mutex<Vec<u64>>,
}

impl Readers {
    /// Notes a read; whether it goes on where another stopped.
    pub(super) fn note(&self, read: Range<u64>) -> bool {
        // Nothing panics while it is held.
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let near = |stop: &u64| read.start.abs_diff(*stop) <= SLACK;
        let known = stopped.iter().rposition(near);
        match known {
            Some(position) => {
                let stop = stopped.remove(position);
                stopped.push(stop.max(read.end));
            }
            None => {
                if stopped.len() >= READERS_MAX {
                    stopped.remove(0);
                }
                stopped.push(read.end);
            }
        }
        known.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn two_who_read_on_are_followed_among_reads_here_and_there() {
        let readers = Readers::default();
        for step in 0..20 {
            let at = step * 64 * 1024;
            assert_eq!(readers.note(at..at + 65_536), step > 0);
            assert_eq!(
                readers.note(500 * MIB + at..500 * MIB + at + 4096),
                step > 0
            );
            let elsewhere = (1000 + step * 100) * MIB;
            assert!(!readers.note(elsewhere..elsewhere + 4096));
        }
    }
}
