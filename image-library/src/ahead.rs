// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which parts of a disk are read one after the other, and what of it will be wanted next.
//!
//! Several readers may go through one disk at once (a copy beside a running VM): each is followed
//! by itself. A reader may come a little out of order and may leave out holes.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// How many readers of a disk are followed.
const READERS_MAX: usize = 8;
/// How far from where a reader stopped it may go on and still be the same, in bytes.
const SLACK: u64 = 1 << 20;

/// Follows the readers of one disk.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    /// The one that read last is the last.
    readers: Mutex<Vec<Reader>>,
}

/// One who reads a disk from somewhere on.
#[derive(Debug, Clone, Copy)]
struct Reader {
    /// Where it stopped, in bytes of the disk.
    stopped: u64,
    /// Up to where it was announced what it will read.
    announced: u64,
}

impl Readers {
    /// Notes a read; gives what is worth announcing now, at most `ahead` bytes beyond the read.
    pub(crate) fn note(&self, read: Range<u64>, ahead: u64) -> Range<u64> {
        // Nothing panics while it is held.
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = |reader: &Reader| {
            read.start.saturating_add(SLACK) >= reader.stopped
                && read.start <= reader.stopped.saturating_add(SLACK)
        };
        let Some(position) = readers.iter().rposition(goes_on) else {
            if readers.len() >= READERS_MAX {
                readers.remove(0);
            }
            readers.push(Reader {
                stopped: read.end,
                announced: read.end,
            });
            return read.end..read.end;
        };
        let mut reader = readers.remove(position);
        reader.stopped = reader.stopped.max(read.end);
        let start = reader.announced.max(read.end);
        let end = reader.stopped.saturating_add(ahead);
        // Not with every small read: what is announced together is looked up together.
        let announced = if end.saturating_sub(start) >= ahead / 4 {
            reader.announced = end;
            start..end
        } else {
            start..start
        };
        readers.push(reader);
        announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn who_reads_on_has_each_byte_announced_once() {
        let readers = Readers::default();
        assert!(readers.note(0..MIB, 8 * MIB).is_empty());
        assert_eq!(readers.note(MIB..2 * MIB, 8 * MIB), 2 * MIB..10 * MIB);
        assert!(readers.note(2 * MIB..3 * MIB, 8 * MIB).is_empty());
        assert_eq!(readers.note(3 * MIB..4 * MIB, 8 * MIB), 10 * MIB..12 * MIB);
    }

    #[test]
    fn reads_here_and_there_announce_nothing() {
        let readers = Readers::default();
        for number in 0..20 {
            let start = number * 100 * MIB;
            assert!(readers.note(start..start + 4096, 8 * MIB).is_empty());
        }
    }

    #[test]
    fn two_readers_are_followed_beside_each_other() {
        let readers = Readers::default();
        readers.note(0..MIB, 8 * MIB);
        readers.note(500 * MIB..501 * MIB, 8 * MIB);
        assert_eq!(readers.note(MIB..2 * MIB, 8 * MIB), 2 * MIB..10 * MIB);
        assert_eq!(
            readers.note(501 * MIB..502 * MIB, 8 * MIB),
            502 * MIB..510 * MIB
        );
    }
}
