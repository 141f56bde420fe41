// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest reads of its disks while it boots, in the order in which it does, so that the next
//! boot of the server can have it fetched ahead.
//!
//! A trace names places on disks, not contents: it holds for later images of the same server as far
//! as the same things lie at the same places, and where they do not, what is fetched for nothing is
//! no harm. It is kept beside the image that was booted, as the side file [`TRACE_NAME`].
//!
//! Limit: [`RUNS_MAX`] runs of neighbouring blocks; what is read after that is not remembered.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image_library::{Image, ImageReader};
use serde::{Deserialize, Serialize};

/// The name of the side file; the number is its form's.
pub const TRACE_NAME: &str = "boot-trace-v1.json";
/// The unit of a trace, in bytes.
pub const BLOCK_BYTES: u64 = 64 << 10;
/// The most runs that are remembered.
const RUNS_MAX: usize = 1 << 16;
/// How many earlier images of a server are asked for a trace.
const IMAGES_ASKED_MAX: usize = 8;

/// Neighbouring blocks of one disk: place of the disk in the machine, first block, how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run(pub usize, pub u64, pub u64);

impl Run {
    /// The bytes of the disk.
    #[must_use]
    pub fn bytes(&self) -> Range<u64> {
        let start = self.1.saturating_mul(BLOCK_BYTES);
        start..start.saturating_add(self.2.saturating_mul(BLOCK_BYTES))
    }
}

/// The first reads of blocks, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Bytes of a block.
    pub block_bytes: u64,
    /// What was read.
    pub runs: Vec<Run>,
}

impl Trace {
    /// How many blocks it names.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.runs
            .iter()
            .map(|run| run.2)
            .fold(0, u64::saturating_add)
    }

    /// The trace of the latest boot of an image's server: of this image, or of the latest before it
    /// that has one. `None` when there is none, or none that can be read: it is a help, no need.
    pub fn find(library: &dyn ImageReader, image: &Image) -> Option<Self> {
        let mut images = library.images().unwrap_or_default();
        images.retain(|other| other.server == image.server && other.id != image.id);
        images.sort_by_key(|other| std::cmp::Reverse((other.taken_at, other.id)));
        let earlier = images.iter().map(|other| other.id).take(IMAGES_ASKED_MAX);
        std::iter::once(image.id).chain(earlier).find_map(|id| {
            let bytes = library.side_file(id, TRACE_NAME).ok().flatten()?;
            Self::parse(&bytes)
        })
    }

    /// Reads a trace; `None` when it is none of this form.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let trace: Self = serde_json::from_slice(bytes).ok()?;
        (trace.block_bytes == BLOCK_BYTES && trace.runs.len() <= RUNS_MAX).then_some(trace)
    }
}

/// Notes first reads until it is closed.
#[derive(Debug)]
pub struct Recorder {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    trace: Trace,
    known: HashSet<(usize, u64)>,
    first: Option<Instant>,
    latest: Option<Instant>,
    is_closed: bool,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                trace: Trace {
                    block_bytes: BLOCK_BYTES,
                    runs: Vec::new(),
                },
                known: HashSet::new(),
                first: None,
                latest: None,
                is_closed: false,
            }),
        }
    }
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a read of `length` bytes from `offset` of a disk.
    pub fn note(&self, disk: usize, offset: u64, length: u64) {
        let Some(last) = length.checked_sub(1) else {
            return;
        };
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        for block in offset / BLOCK_BYTES..=offset.saturating_add(last) / BLOCK_BYTES {
            state.note(disk, block);
        }
    }

    /// What was noted, and nothing more is from now on.
    pub fn close(&self) -> Trace {
        let mut state = self.lock();
        state.is_closed = true;
        state.known = HashSet::new();
        state.trace.clone()
    }

    /// For how long no block was read that had not been read before; `None` before the first.
    #[must_use]
    pub fn quiet_for(&self) -> Option<Duration> {
        self.lock().latest.map(|latest| latest.elapsed())
    }

    /// How long ago the first read was.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.lock().first.map(|first| first.elapsed())
    }
}

impl State {
    fn note(&mut self, disk: usize, block: u64) {
        if self.trace.runs.len() >= RUNS_MAX || !self.known.insert((disk, block)) {
            return;
        }
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.latest = Some(now);
        match self.trace.runs.last_mut() {
            Some(Run(of, first, count)) if *of == disk && *first + *count == block => *count += 1,
            _ => self.trace.runs.push(Run(disk, block, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_reads_are_noted_in_order_and_neighbours_are_one_run() {
        let recorder = Recorder::default();
        assert_eq!(recorder.quiet_for(), None);
        recorder.note(0, 0, 512);
        recorder.note(0, BLOCK_BYTES - 1, 2);
        recorder.note(1, 5 * BLOCK_BYTES, BLOCK_BYTES);
        recorder.note(0, 2 * BLOCK_BYTES, 1);
        recorder.note(0, 0, 4096);
        recorder.note(0, 0, 0);
        let trace = recorder.close();
        assert_eq!(trace.runs, [Run(0, 0, 2), Run(1, 5, 1), Run(0, 2, 1)]);
        assert_eq!(trace.block_count(), 4);
        recorder.note(0, 100 * BLOCK_BYTES, 1);
        assert_eq!(recorder.close(), trace);
    }

    #[test]
    fn a_trace_is_read_back_and_another_form_is_none() {
        let trace = Trace {
            block_bytes: BLOCK_BYTES,
            runs: vec![Run(0, 7, 3)],
        };
        let bytes = serde_json::to_vec(&trace).unwrap();
        assert_eq!(
            bytes,
            br#"{"block_bytes":65536,"runs":[[0,7,3]]}"#.as_slice()
        );
        assert_eq!(Trace::parse(&bytes), Some(trace));
        assert_eq!(Trace::parse(br#"{"block_bytes":4096,"runs":[]}"#), None);
        assert_eq!(Trace::parse(b"[]"), None);
        let run = Run(0, u64::MAX, u64::MAX);
        assert!(run.bytes().end >= run.bytes().start);
    }
}
