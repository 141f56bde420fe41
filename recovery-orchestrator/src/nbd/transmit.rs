// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second half of a connection: requests and replies.
//!
//! One thread reads requests, a few work on them, so that a slow read of the library does not
//! hold up the others. Messages go out whole, one at a time, in any order. A write of up to 1 MiB
//! waits for a worker with its payload; a longer one is written piece by piece as it comes in, so
//! that its length costs no memory.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::sync::mpsc::{Receiver as Queue, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::budget::Budget;
use super::channel::{Channel, Receiver};
use super::negotiate::Session;
use super::protocol::{
    CMD_BLOCK_STATUS, CMD_CACHE, CMD_DISC, CMD_FLAG_DF, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA,
    CMD_FLAG_NO_HOLE, CMD_FLAG_REQ_ONE, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES,
    EINVAL, ENOSPC, EPERM, PAYLOAD_BYTES_MAX, PIECE_BYTES, Request, broken,
};
use super::reply::Replies;
use super::{read, status, write};

/// Requests of one connection in work at a time.
pub const WORKER_COUNT: usize = 4;
/// What is read of a connection at a time.
const RECEIVE_BYTES: usize = 64 << 10;

/// A request with what follows it: nothing, but for a write.
struct Work {
    request: Request,
    payload: Vec<u8>,
}

/// Answers requests until the client leaves.
pub(super) fn transmit(
    session: &Session<'_>,
    budget: &Budget,
    stall: Duration,
    mut channel: Channel,
) -> io::Result<()> {
    let breaker = channel.receiver.socket().try_clone()?;
    let transmission = Transmission {
        session,
        budget,
        replies: Replies::new(channel.sender, breaker, session.structured),
    };
    let mut incoming = Incoming {
        reader: BufReader::with_capacity(RECEIVE_BYTES, channel.receiver),
        stall,
        patience: None,
    };
    let (sender, queue) = sync_channel(WORKER_COUNT);
    let queue = Mutex::new(queue);
    let outcome = thread::scope(|scope| {
        // Owned here: the workers end when no more requests can come.
        let sender = sender;
        for _ in 0..WORKER_COUNT {
            let worker = thread::Builder::new().name("nbd worker".to_owned());
            worker.spawn_scoped(scope, || transmission.work(&queue))?;
        }
        let outcome = transmission.receive(&mut incoming, &sender);
        if outcome.is_err() {
            // A reply that hangs would keep its worker.
            transmission.replies.cut();
        }
        outcome
    });
    transmission.replies.finish();
    outcome
}

struct Transmission<'a> {
    session: &'a Session<'a>,
    budget: &'a Budget,
    replies: Replies,
}

impl Transmission<'_> {
    fn receive(&self, incoming: &mut Incoming, queue: &SyncSender<Work>) -> io::Result<()> {
        while let Some(request) = incoming.request()? {
            let payload = match request.command {
                CMD_DISC => return Ok(()),
                CMD_WRITE => match self.receive_write(&request, incoming)? {
                    Some(payload) => payload,
                    None => continue,
                },
                _ => Vec::new(),
            };
            queue
                .send(Work { request, payload })
                .map_err(|_| broken("no worker is left"))?;
        }
        // It went without a word: nobody waits for what is still in work.
        self.replies.cut();
        Ok(())
    }

    /// Reads what follows a write, whatever becomes of it; `None`: it is answered already.
    fn receive_write(
        &self,
        request: &Request,
        incoming: &mut Incoming,
    ) -> io::Result<Option<Vec<u8>>> {
        if request.length > PAYLOAD_BYTES_MAX {
            // Skipping up to 4 GiB for an answer is not worth it.
            return Err(broken("a write that is too long"));
        }
        let refused = self.refusal(request);
        if refused.is_none() && request.length <= PIECE_BYTES {
            let mut payload = vec![0; usize::try_from(request.length).unwrap_or(0)];
            incoming.payload(&mut payload)?;
            return Ok(Some(payload));
        }
        let outcome = self.write_as_it_comes(request, refused, incoming)?;
        self.replies.outcome(request, outcome);
        Ok(None)
    }

    /// Writes a payload piece by piece until there is an error, and skips the rest of it.
    fn write_as_it_comes(
        &self,
        request: &Request,
        refused: Option<u32>,
        incoming: &mut Incoming,
    ) -> io::Result<Result<(), u32>> {
        let mut outcome = refused.map_or(Ok(()), Err);
        let mut offset = request.offset;
        let mut left = request.length;
        let mut buffer = Vec::new();
        while left > 0 {
            let length = left.min(PIECE_BYTES);
            buffer.resize(usize::try_from(length).unwrap_or(0), 0);
            incoming.payload(&mut buffer)?;
            if let (Ok(()), Some(device)) = (outcome, self.session.export.access.writable()) {
                outcome = write::write(device, offset, &buffer);
            }
            offset = offset.saturating_add(u64::from(length));
            left -= length;
        }
        if let (Ok(()), Some(device)) = (outcome, self.session.export.access.writable()) {
            outcome = write::persist(device, request);
        }
        Ok(outcome)
    }

    fn work(&self, queue: &Mutex<Queue<Work>>) {
        let mut scratch = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Work { request, payload }) = next else {
                return;
            };
            // Requests of a client that takes no replies are taken from the queue, no more.
            if !self.replies.are_broken() {
                self.answer(&request, &payload, &mut scratch);
            }
        }
    }

    fn answer(&self, request: &Request, payload: &[u8], scratch: &mut Vec<u8>) {
        if let Some(error) = self.refusal(request) {
            return self.replies.outcome(request, Err(error));
        }
        let access = &self.session.export.access;
        match request.command {
            CMD_READ => read::read(
                access.device(),
                request,
                &self.replies,
                self.budget,
                scratch,
            ),
            CMD_BLOCK_STATUS => match status::extents(access.device(), request) {
                Ok(extents) => self.replies.extents(request, &extents),
                Err(error) => self.replies.outcome(request, Err(error)),
            },
            _ => self.replies.outcome(request, self.change(request, payload)),
        }
    }

    /// What has no data to answer with.
    fn change(&self, request: &Request, payload: &[u8]) -> Result<(), u32> {
        let Some(device) = self.session.export.access.writable() else {
            // `FLUSH` and `CACHE`, for which there is nothing to do.
            return Ok(());
        };
        match request.command {
            CMD_WRITE => {
                write::write(device, request.offset, payload)?;
                write::persist(device, request)
            }
            CMD_WRITE_ZEROES => write::write_zeroes(device, request),
            CMD_TRIM => write::trim(device, request),
            CMD_FLUSH => write::flush(device),
            _ => Ok(()),
        }
    }

    /// The error of a request that is not even tried.
    fn refusal(&self, request: &Request) -> Option<u32> {
        let access = &self.session.export.access;
        let writes = matches!(request.command, CMD_WRITE | CMD_WRITE_ZEROES | CMD_TRIM);
        if writes && access.writable().is_none() {
            return Some(EPERM);
        }
        if request.flags & !self.flags_of(request.command) != 0 {
            return Some(EINVAL);
        }
        let is_within = request.is_within(access.device().length_bytes());
        let is_fine = match request.command {
            CMD_READ => is_within && request.length <= PAYLOAD_BYTES_MAX,
            CMD_CACHE | CMD_TRIM => is_within,
            CMD_WRITE | CMD_WRITE_ZEROES if !is_within => return Some(ENOSPC),
            CMD_WRITE | CMD_WRITE_ZEROES => true,
            CMD_FLUSH => request.offset == 0 && request.length == 0,
            CMD_BLOCK_STATUS => is_within && request.length > 0 && self.session.block_status,
            _ => false,
        };
        (!is_fine).then_some(EINVAL)
    }

    /// The flags that a command may have. Clients are known to ask for "force unit access" where
    /// nothing is written.
    fn flags_of(&self, command: u16) -> u16 {
        let everywhere = match self.session.export.access.writable() {
            Some(_) => CMD_FLAG_FUA,
            None => 0,
        };
        everywhere
            | match command {
                CMD_READ if self.session.structured => CMD_FLAG_DF,
                CMD_WRITE_ZEROES => CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
                CMD_BLOCK_STATUS => CMD_FLAG_REQ_ONE,
                _ => 0,
            }
    }
}

/// What a client sends. Between two requests it may think for ever, within one it may not.
struct Incoming {
    reader: BufReader<Receiver>,
    /// How long it may pause within a request.
    stall: Duration,
    /// How long the socket waits for more, as it was told last.
    patience: Option<Duration>,
}

impl Incoming {
    /// The next request; `None` when the client left.
    fn request(&mut self) -> io::Result<Option<Request>> {
        if self.reader.buffer().is_empty() {
            self.be_patient(None)?;
            if self.reader.fill_buf()?.is_empty() {
                return Ok(None);
            }
        }
        self.expect(Request::HEAD_BYTES)?;
        Request::read(&mut self.reader).map(Some)
    }

    fn payload(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.expect(buffer.len())?;
        self.reader.read_exact(buffer)
    }

    /// That many bytes belong to a request that has begun.
    fn expect(&mut self, count: usize) -> io::Result<()> {
        if self.reader.buffer().len() < count {
            self.be_patient(Some(self.stall))?;
        }
        Ok(())
    }

    fn be_patient(&mut self, patience: Option<Duration>) -> io::Result<()> {
        if self.patience != patience {
            self.reader.get_mut().socket().set_read_timeout(patience)?;
            self.patience = patience;
        }
        Ok(())
    }
}
