// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second half of a connection: requests and replies.
//!
//! One thread reads requests, a few work on them, so that a slow read of the library does not
//! hold up the others. Replies go out whole, one at a time, in any order.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use disk::ReadAt;
use disk::block::ExtentKind;

use super::WORKER_COUNT;
use super::negotiate::Session;
use super::protocol::{
    ALLOCATION_CONTEXT_ID, CHUNK_BLOCK_STATUS, CHUNK_ERROR, CHUNK_FLAG_DONE, CHUNK_MAGIC,
    CHUNK_NONE, CHUNK_OFFSET_DATA, CMD_BLOCK_STATUS, CMD_CACHE, CMD_DISC, CMD_FLAG_REQ_ONE,
    CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES, EINVAL, EIO, EPERM,
    EXTENT_COUNT_MAX, READ_BYTES_MAX, Request, SIMPLE_REPLY_MAGIC, STATE_HOLE_ZERO, broken,
};

/// What is answered to one request.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Done,
    Data(Vec<u8>),
    /// Length and state of each run.
    Extents(Vec<(u32, u32)>),
    Error(u32),
}

/// Answers requests until the client leaves.
pub(super) fn transmit(session: &Session<'_>, stream: UnixStream) -> io::Result<()> {
    let mut reader = io::BufReader::new(stream.try_clone()?);
    let writer = Mutex::new(stream);
    let (sender, receiver) = sync_channel(WORKER_COUNT);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        for _ in 0..WORKER_COUNT {
            scope.spawn(|| work(session, &receiver, &writer));
        }
        let outcome = receive(&mut reader, &sender);
        // The workers end when no more requests can come; a write that hangs, when it is cut.
        drop(sender);
        if outcome.is_err() {
            cut(&writer);
        }
        outcome
    })
}

fn receive(reader: &mut impl io::Read, sender: &SyncSender<Request>) -> io::Result<()> {
    loop {
        let request = Request::read(reader)?;
        match request.command {
            CMD_DISC => return Ok(()),
            // Its data follows; skipping up to 4 GiB of it for an answer is not worth it.
            CMD_WRITE => return Err(broken("a write on a read-only export")),
            _ => sender
                .send(request)
                .map_err(|_| broken("no worker is left"))?,
        }
    }
}

fn work(session: &Session<'_>, receiver: &Mutex<Receiver<Request>>, writer: &Mutex<UnixStream>) {
    loop {
        let next = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(request) = next else { return };
        let message = encode(session, &request, &answer(session, &request));
        let mut stream = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.write_all(&message).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn cut(writer: &Mutex<UnixStream>) {
    let stream = writer.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = stream.shutdown(Shutdown::Both);
}

fn answer(session: &Session<'_>, request: &Request) -> Reply {
    let device = &*session.export.device;
    let end = request.offset.checked_add(u64::from(request.length));
    let inside = end.is_some_and(|end| end <= device.length_bytes());
    match request.command {
        CMD_FLUSH => Reply::Done,
        CMD_CACHE if inside => Reply::Done,
        CMD_READ if inside && request.length <= READ_BYTES_MAX => read(device, request),
        CMD_BLOCK_STATUS if inside && request.length > 0 && session.block_status => {
            block_status(device, request)
        }
        CMD_TRIM | CMD_WRITE_ZEROES => Reply::Error(EPERM),
        _ => Reply::Error(EINVAL),
    }
}

fn read(device: &dyn ReadAt, request: &Request) -> Reply {
    // At most READ_BYTES_MAX, which was checked.
    let mut data = vec![0; usize::try_from(request.length).unwrap_or(0)];
    match device.read_exact_at(request.offset, &mut data) {
        Ok(()) => Reply::Data(data),
        Err(error) => {
            tracing::error!(%error, offset = request.offset, "cannot read the image");
            Reply::Error(EIO)
        }
    }
}

fn block_status(device: &dyn ReadAt, request: &Request) -> Reply {
    let mut extents: Vec<(u32, u32)> = Vec::new();
    let mut offset = request.offset;
    let mut left = request.length;
    let limit = if request.flags & CMD_FLAG_REQ_ONE == 0 {
        EXTENT_COUNT_MAX
    } else {
        1
    };
    // Bounded by the extents kept, and by the reads of neighbours of one kind.
    for _ in 0..EXTENT_COUNT_MAX {
        if left == 0 {
            break;
        }
        let Ok(extent) = device.extent_at(offset) else {
            return Reply::Error(EIO);
        };
        let length = u32::try_from(extent.length)
            .unwrap_or(u32::MAX)
            .clamp(1, left);
        let state = match extent.kind {
            ExtentKind::Data => 0,
            ExtentKind::Zero => STATE_HOLE_ZERO,
        };
        let kept = extents.len();
        match extents.last_mut() {
            Some(last) if last.1 == state => last.0 = last.0.saturating_add(length),
            _ if kept == limit => break,
            _ => extents.push((length, state)),
        }
        offset = offset.saturating_add(u64::from(length));
        left -= length;
    }
    Reply::Extents(extents)
}

fn encode(session: &Session<'_>, request: &Request, reply: &Reply) -> Vec<u8> {
    if session.structured {
        return match reply {
            Reply::Done => chunk(request, CHUNK_NONE, &[], &[]),
            Reply::Data(data) => chunk(
                request,
                CHUNK_OFFSET_DATA,
                &request.offset.to_be_bytes(),
                data,
            ),
            Reply::Extents(extents) => {
                chunk(request, CHUNK_BLOCK_STATUS, &extent_bytes(extents), &[])
            }
            Reply::Error(number) => {
                let mut bytes = number.to_be_bytes().to_vec();
                bytes.extend([0, 0]);
                chunk(request, CHUNK_ERROR, &bytes, &[])
            }
        };
    }
    match reply {
        Reply::Data(data) => simple(request, 0, data),
        Reply::Done => simple(request, 0, &[]),
        Reply::Error(number) => simple(request, *number, &[]),
        // Only asked for after structured replies were agreed on.
        Reply::Extents(_) => simple(request, EINVAL, &[]),
    }
}

fn extent_bytes(extents: &[(u32, u32)]) -> Vec<u8> {
    let mut bytes = ALLOCATION_CONTEXT_ID.to_be_bytes().to_vec();
    for (length, state) in extents {
        bytes.extend(length.to_be_bytes());
        bytes.extend(state.to_be_bytes());
    }
    bytes
}

fn chunk(request: &Request, kind: u16, head: &[u8], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(head.len() + data.len()).unwrap_or(0);
    let mut message = Vec::with_capacity(20 + head.len() + data.len());
    message.extend(CHUNK_MAGIC.to_be_bytes());
    message.extend(CHUNK_FLAG_DONE.to_be_bytes());
    message.extend(kind.to_be_bytes());
    message.extend(request.cookie.to_be_bytes());
    message.extend(length.to_be_bytes());
    message.extend_from_slice(head);
    message.extend_from_slice(data);
    message
}

fn simple(request: &Request, error: u32, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + data.len());
    message.extend(SIMPLE_REPLY_MAGIC.to_be_bytes());
    message.extend(error.to_be_bytes());
    message.extend(request.cookie.to_be_bytes());
    message.extend_from_slice(data);
    message
}
