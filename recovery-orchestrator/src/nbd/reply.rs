// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies of one connection: whole messages, one at a time, by whichever thread has one.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use super::channel::Sender;
use super::protocol::{
    ALLOCATION_CONTEXT_ID, CHUNK_BLOCK_STATUS, CHUNK_ERROR, CHUNK_ERROR_OFFSET, CHUNK_FLAG_DONE,
    CHUNK_MAGIC, CHUNK_NONE, CHUNK_OFFSET_DATA, CHUNK_OFFSET_HOLE, EINVAL, Request,
    SIMPLE_REPLY_MAGIC,
};
use super::socket::Socket;

/// Up to so many bytes, head and data are sent as one piece: a copy costs less than a packet.
const TOGETHER_BYTES: usize = 16 << 10;

/// A run of a read's reply or of a block status: where it begins, and whether more will follow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) is_last: bool,
}

/// Where replies go.
#[derive(Debug)]
pub(super) struct Replies {
    sender: Mutex<Sender>,
    /// To end the connection while another thread waits with the sender.
    breaker: Socket,
    structured: bool,
}

impl Replies {
    pub(super) fn new(sender: Sender, breaker: Socket, structured: bool) -> Self {
        Self {
            sender: Mutex::new(sender),
            breaker,
            structured,
        }
    }

    /// Whether structured replies were agreed on.
    pub(super) const fn are_structured(&self) -> bool {
        self.structured
    }

    /// Whether nobody takes them any more.
    pub(super) fn are_broken(&self) -> bool {
        self.breaker.is_cut()
    }

    /// Ends the connection at once.
    pub(super) fn cut(&self) {
        self.breaker.cut();
    }

    /// Ends it in order, when all replies were sent.
    pub(super) fn finish(self) {
        let sender = self.sender.into_inner();
        sender.unwrap_or_else(PoisonError::into_inner).finish();
    }

    /// It was done, or failed with this number.
    pub(super) fn outcome(&self, request: &Request, outcome: Result<(), u32>) {
        match (outcome, self.structured) {
            (Ok(()), true) => self.chunk(request, true, CHUNK_NONE, &[], &[]),
            (Ok(()), false) => self.simple(request, 0, &[]),
            (Err(number), true) => {
                let mut bytes = number.to_be_bytes().to_vec();
                bytes.extend([0, 0]);
                self.chunk(request, true, CHUNK_ERROR, &bytes, &[]);
            }
            (Err(number), false) => self.simple(request, number, &[]),
        }
    }

    /// All that was asked for, in one piece.
    pub(super) fn whole(&self, request: &Request, data: &[u8]) {
        if self.structured && !data.is_empty() {
            let part = Part {
                offset: request.offset,
                is_last: true,
            };
            self.data(request, part, data);
        } else if self.structured {
            self.outcome(request, Ok(()));
        } else {
            self.simple(request, 0, data);
        }
    }

    /// Bytes of a structured read.
    pub(super) fn data(&self, request: &Request, part: Part, data: &[u8]) {
        let head = part.offset.to_be_bytes();
        self.chunk(request, part.is_last, CHUNK_OFFSET_DATA, &head, data);
    }

    /// Zeros of a structured read.
    pub(super) fn hole(&self, request: &Request, part: Part, length: u32) {
        let mut head = part.offset.to_be_bytes().to_vec();
        head.extend(length.to_be_bytes());
        self.chunk(request, part.is_last, CHUNK_OFFSET_HOLE, &head, &[]);
    }

    /// Where a structured read failed; nothing comes after it.
    pub(super) fn error_at(&self, request: &Request, offset: u64, number: u32, message: &str) {
        let length = u16::try_from(message.len()).unwrap_or(0);
        let message = message.as_bytes().get(..usize::from(length));
        let mut head = number.to_be_bytes().to_vec();
        head.extend(length.to_be_bytes());
        head.extend_from_slice(message.unwrap_or_default());
        head.extend(offset.to_be_bytes());
        self.chunk(request, true, CHUNK_ERROR_OFFSET, &head, &[]);
    }

    /// Length and state of each run.
    pub(super) fn extents(&self, request: &Request, extents: &[(u32, u32)]) {
        if !self.structured {
            // They can only be asked for after structured replies were agreed on.
            return self.simple(request, EINVAL, &[]);
        }
        let mut head = ALLOCATION_CONTEXT_ID.to_be_bytes().to_vec();
        for (length, state) in extents {
            head.extend(length.to_be_bytes());
            head.extend(state.to_be_bytes());
        }
        self.chunk(request, true, CHUNK_BLOCK_STATUS, &head, &[]);
    }

    fn chunk(&self, request: &Request, is_last: bool, kind: u16, head: &[u8], data: &[u8]) {
        let flags = if is_last { CHUNK_FLAG_DONE } else { 0 };
        // At most a request's payload and a few bytes.
        let length = u32::try_from(head.len() + data.len()).unwrap_or(0);
        let mut message = Vec::with_capacity(20 + head.len());
        message.extend(CHUNK_MAGIC.to_be_bytes());
        message.extend(flags.to_be_bytes());
        message.extend(kind.to_be_bytes());
        message.extend(request.cookie.to_be_bytes());
        message.extend(length.to_be_bytes());
        message.extend_from_slice(head);
        self.send(message, data);
    }

    fn simple(&self, request: &Request, error: u32, data: &[u8]) {
        let mut message = Vec::with_capacity(16);
        message.extend(SIMPLE_REPLY_MAGIC.to_be_bytes());
        message.extend(error.to_be_bytes());
        message.extend(request.cookie.to_be_bytes());
        self.send(message, data);
    }

    fn send(&self, mut head: Vec<u8>, data: &[u8]) {
        if self.are_broken() {
            return;
        }
        let rest = if data.len() <= TOGETHER_BYTES {
            head.extend_from_slice(data);
            &[]
        } else {
            data
        };
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sent: io::Result<()> = sender
            .write_all(&head)
            .and_then(|()| sender.write_all(rest));
        if sent.is_err() {
            // Half a message: nothing that comes after it could be understood.
            self.cut();
        }
    }
}
