// SPDX-License-Identifier: MIT OR Apache-2.0
//! `READ`: holes are told, not sent; what is long goes out in pieces; what cannot be read is told
//! with its place.

use disk::ReadAt;
use disk::block::ExtentKind;

use super::budget::Budget;
use super::protocol::{CMD_FLAG_DF, EIO, PIECE_BYTES, Request};
use super::reply::{Part, Replies};

/// Shorter holes are sent as the zeros that they are: a chunk for each would cost more.
const HOLE_BYTES_MIN: u64 = 4 << 10;
const PIECE: usize = PIECE_BYTES as usize;
/// Where reading fails is told this precisely, in bytes: the default chunk of a library.
const ERROR_BYTES: u64 = 64 << 10;

/// Answers a read that lies within the device and is not too long.
pub(super) fn read(
    device: &dyn ReadAt,
    request: &Request,
    replies: &Replies,
    budget: &Budget,
    scratch: &mut Vec<u8>,
) {
    if replies.are_structured() && !request.has(CMD_FLAG_DF) && request.length > 0 {
        let fragments = Fragments {
            device,
            request,
            replies,
            end: request.offset.saturating_add(u64::from(request.length)),
        };
        fragments.send(scratch);
    } else if request.length <= PIECE_BYTES {
        read_whole(device, request, replies, scratch);
    } else {
        // Held until the client has taken it.
        let _taken = budget.take(u64::from(request.length));
        read_whole(device, request, replies, &mut Vec::new());
    }
}

/// The reply has to be one piece: an error can only be told before it begins.
fn read_whole(device: &dyn ReadAt, request: &Request, replies: &Replies, buffer: &mut Vec<u8>) {
    if replies.are_broken() {
        return;
    }
    let data = sized(buffer, u64::from(request.length));
    let mut at = request.offset;
    // In pieces only to notice soon that nobody waits any more.
    for piece in data.chunks_mut(PIECE) {
        if replies.are_broken() {
            return;
        }
        if let Err(error) = device.read_exact_at(at, piece) {
            log(&error, at);
            return replies.outcome(request, Err(EIO));
        }
        at = at.saturating_add(u64::from(PIECE_BYTES));
    }
    replies.whole(request, data);
}

/// A read that is answered in several chunks.
struct Fragments<'a> {
    device: &'a dyn ReadAt,
    request: &'a Request,
    replies: &'a Replies,
    /// Where it ends on the device.
    end: u64,
}

impl Fragments<'_> {
    fn send(&self, scratch: &mut Vec<u8>) {
        let mut at = self.request.offset;
        while at < self.end && !self.replies.are_broken() {
            let (run_end, kind) = self.run(at);
            let sent = match kind {
                ExtentKind::Zero => {
                    self.hole(at, run_end);
                    Ok(run_end)
                }
                ExtentKind::Data => self.piece(at, scratch),
            };
            match sent {
                Ok(next) => at = next,
                Err(Told) => return,
            }
        }
    }

    /// The run from `at`, and what is known of it. What cannot be looked at is taken for data:
    /// reading it tells what is wrong.
    fn run(&self, at: u64) -> (u64, ExtentKind) {
        let known = self.device.extent_at(at).ok();
        known.map_or((self.end, ExtentKind::Data), |extent| {
            let length = extent.length.clamp(1, self.end - at);
            (at + length, extent.kind)
        })
    }

    /// Reads up to the next border of a piece at once, as neighbours are cheapest read together,
    /// and leaves out the holes in it. Tells where it ends.
    fn piece(&self, start: u64, scratch: &mut Vec<u8>) -> Result<u64, Told> {
        let piece = u64::from(PIECE_BYTES);
        let border = (start - start % piece).saturating_add(piece).min(self.end);
        let mut runs = self.runs(start, border);
        // A hole at the end may go on after the border.
        runs.pop_if(|(_, _, kind)| *kind == ExtentKind::Zero);
        let end = runs.last().map_or(border, |(_, end, _)| *end);
        let data = sized(scratch, end - start);
        if self.device.read_exact_at(start, data).is_err() {
            self.piece_by_blocks(start, end, scratch)?;
            return Ok(end);
        }
        for (from, to, kind) in runs {
            match kind {
                ExtentKind::Zero => self.hole(from, to),
                ExtentKind::Data => self.data(from, within(data, from - start, to - start)),
            }
        }
        Ok(end)
    }

    /// The runs from `start` to `border`, those of a kind joined, short holes taken for data.
    fn runs(&self, start: u64, border: u64) -> Vec<(u64, u64, ExtentKind)> {
        let mut runs: Vec<(u64, u64, ExtentKind)> = Vec::new();
        let mut at = start;
        while at < border {
            let (end, mut kind) = self.run(at);
            let end = end.min(border);
            if end - at < HOLE_BYTES_MIN {
                kind = ExtentKind::Data;
            }
            match runs.last_mut() {
                Some(last) if last.2 == kind => last.1 = end,
                _ => runs.push((at, end, kind)),
            }
            at = end;
        }
        runs
    }

    /// After an error: block by block, to send what can be read and to find what cannot.
    fn piece_by_blocks(&self, start: u64, end: u64, scratch: &mut Vec<u8>) -> Result<(), Told> {
        let mut at = start;
        while at < end {
            let border = (at - at % ERROR_BYTES).saturating_add(ERROR_BYTES).min(end);
            let data = sized(scratch, border - at);
            if let Err(error) = self.device.read_exact_at(at, data) {
                log(&error, at);
                let message = "this block of the disk cannot be read";
                self.replies.error_at(self.request, at, EIO, message);
                return Err(Told);
            }
            self.data(at, data);
            at = border;
        }
        Ok(())
    }

    fn data(&self, offset: u64, data: &[u8]) {
        let end = offset.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        self.replies
            .data(self.request, self.part(offset, end), data);
    }

    fn hole(&self, offset: u64, end: u64) {
        // A part of a request, whose length is a u32.
        let length = u32::try_from(end - offset).unwrap_or(u32::MAX);
        self.replies
            .hole(self.request, self.part(offset, end), length);
    }

    fn part(&self, offset: u64, end: u64) -> Part {
        Part {
            offset,
            is_last: end == self.end,
        }
    }
}

/// An error was sent, which ends the reply.
struct Told;

/// The buffer with that length; what it holds is of no interest.
fn sized(buffer: &mut Vec<u8>, length: u64) -> &mut [u8] {
    buffer.resize(usize::try_from(length).unwrap_or(0), 0);
    buffer
}

fn within(data: &[u8], start: u64, end: u64) -> &[u8] {
    let index = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
    data.get(index(start)..index(end)).unwrap_or_default()
}

fn log(error: &disk::Error, offset: u64) {
    tracing::error!(
        error = %image_library::terminal::chain_text(error),
        offset,
        "a served disk cannot be read"
    );
}
