// SPDX-License-Identifier: MIT OR Apache-2.0
//! `BLOCK_STATUS`: which runs are holes.

use disk::ReadAt;
use disk::block::ExtentKind;

use super::protocol::{
    CMD_FLAG_REQ_ONE, EIO, EXTENT_COUNT_MAX, PIECE_BYTES, Request, STATE_HOLE_ZERO,
};

/// How often a device is asked for one reply. Neighbours of one kind are joined: a device of many
/// short runs could be asked for ever.
const QUESTION_COUNT_MAX: usize = 4 * EXTENT_COUNT_MAX;
/// The longest run that is told, in bytes; a multiple of what clients ask for.
const RUN_BYTES_MAX: u64 = (1 << 32) - PIECE_BYTES as u64;

/// The runs from a request's offset on, at least one. The last one may be longer than what was
/// asked for, as the protocol allows: a client learns of a hole of 4 GiB at once.
pub(super) fn extents(device: &dyn ReadAt, request: &Request) -> Result<Vec<(u32, u32)>, u32> {
    let only_one = request.has(CMD_FLAG_REQ_ONE);
    let (run_bytes_max, count_max) = if only_one {
        (u64::from(request.length), 1)
    } else {
        (RUN_BYTES_MAX, EXTENT_COUNT_MAX)
    };
    let end = request.offset.saturating_add(u64::from(request.length));
    let mut runs: Vec<(u64, u32)> = Vec::new();
    let mut at = request.offset;
    for _ in 0..QUESTION_COUNT_MAX {
        if at >= end {
            break;
        }
        let extent = match device.extent_at(at) {
            Ok(extent) => extent,
            // What is known so far is an answer, too; the client asks again from there.
            Err(_) if !runs.is_empty() => break,
            Err(error) => {
                tracing::error!(%error, offset = at, "the holes of a served disk are unknown");
                return Err(EIO);
            }
        };
        let state = match extent.kind {
            ExtentKind::Data => 0,
            ExtentKind::Zero => STATE_HOLE_ZERO,
        };
        let mut length = extent.length.clamp(1, run_bytes_max);
        let is_full = runs.len() == count_max;
        match runs.last_mut() {
            Some((known, last)) if *last == state && *known < run_bytes_max => {
                length = length.min(run_bytes_max - *known);
                *known += length;
            }
            _ if is_full => break,
            _ => runs.push((length, state)),
        }
        at = at.saturating_add(length);
    }
    let told = |(length, state): (u64, u32)| (u32::try_from(length).unwrap_or(u32::MAX), state);
    Ok(runs.into_iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    use disk::block::Extent;

    use super::*;

    const GIB: u64 = 1 << 30;

    /// 1 TiB: data in every block whose number is a multiple of `every`, else holes.
    #[derive(Debug)]
    struct Striped {
        block: u64,
        every: u64,
        asked: std::sync::atomic::AtomicUsize,
    }

    impl Striped {
        fn new(block: u64, every: u64) -> Self {
            Self {
                block,
                every,
                asked: 0.into(),
            }
        }
    }

    impl ReadAt for Striped {
        fn length_bytes(&self) -> u64 {
            1 << 40
        }

        fn read_exact_at(&self, _offset: u64, _buffer: &mut [u8]) -> disk::Result<()> {
            panic!("nobody reads for a block status");
        }

        fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
            self.asked
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let block = offset / self.block;
            let kind = if block.is_multiple_of(self.every) {
                ExtentKind::Data
            } else {
                ExtentKind::Zero
            };
            Ok(Extent {
                length: (block + 1) * self.block - offset,
                kind,
            })
        }
    }

    fn ask(device: &dyn ReadAt, flags: u16, offset: u64, length: u32) -> Vec<(u32, u32)> {
        let request = Request {
            flags,
            command: 7,
            cookie: 0,
            offset,
            length,
        };
        extents(device, &request).unwrap()
    }

    #[test]
    fn a_long_hole_is_one_extent_and_may_be_longer_than_what_was_asked_for() {
        let device = Striped::new(100 * GIB, 2);
        assert_eq!(
            ask(&device, 0, 100 * GIB, 512),
            [(u32::MAX - (1 << 20) + 1, 3)]
        );
        assert_eq!(ask(&device, CMD_FLAG_REQ_ONE, 100 * GIB, 512), [(512, 3)]);
        assert_eq!(
            ask(&device, 0, 100 * GIB - 4096, 8192),
            [(4096, 0), (u32::MAX - (1 << 20) + 1, 3)]
        );
    }

    #[test]
    fn neighbours_of_one_kind_are_joined_and_the_questions_counted() {
        let device = Striped::new(64 << 10, 4);
        assert_eq!(
            ask(&device, 0, 64 << 10, 256 << 10),
            [(192 << 10, 3), (64 << 10, 0)]
        );
        let dense = Striped::new(512, 1);
        assert_eq!(ask(&dense, 0, 0, 1 << 31), [(512 * 16_384, 0)]);
        assert_eq!(dense.asked.into_inner(), QUESTION_COUNT_MAX);
        let fragmented = Striped::new(512, 2);
        assert_eq!(ask(&fragmented, 0, 0, 1 << 31).len(), EXTENT_COUNT_MAX);
    }

    #[test]
    fn what_would_be_longer_than_the_longest_run_becomes_the_next_one() {
        let device = Striped::new(3 * GIB, 1);
        let longest = u32::MAX - (1 << 20) + 1;
        assert_eq!(
            ask(&device, 0, 0, u32::MAX),
            [(longest, 0), ((2 << 30) + (1 << 20), 0)],
            "the second ends where the device's extent does"
        );
    }
}
