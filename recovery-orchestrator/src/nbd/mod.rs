// SPDX-License-Identifier: MIT OR Apache-2.0
//! An NBD server: how a hypervisor, `qemu-img`, `nbdcopy` or the Linux kernel reads an image as a
//! disk without copying it, and writes to what lies over it.
//!
//! ```text
//! socket    unix or TCP, where connections come in      server     connections, their number, their end
//! channel   plain or TLS, in two halves                 negotiate  options, STARTTLS, the export
//! transmit  requests to workers, replies                read, write, status   what is answered
//! ```
//!
//! Fixed newstyle negotiation (`NBD_OPT_EXPORT_NAME`, `ABORT`, `LIST`, `STARTTLS`, `INFO`, `GO`,
//! `STRUCTURED_REPLY`, `LIST_META_CONTEXT`, `SET_META_CONTEXT`), `READ`, `WRITE`, `DISC`, `FLUSH`,
//! `TRIM`, `CACHE`, `WRITE_ZEROES`, `BLOCK_STATUS` with `base:allocation`. On a unix socket there
//! is no TLS: its file is its owner's alone. On TCP there is nothing but TLS, except on loopback
//! addresses.
//!
//! Limits: [`CONNECTIONS_MAX`] connections, options and strings of a few KiB, reads and writes of
//! 32 MiB, of which 1 MiB at a time is in memory, [`WORKER_COUNT`] requests of a connection in work
//! at a time and as many waiting. Where a reply cannot be divided, requests of all connections
//! share 64 MiB. A negotiation has 30 seconds, a request may pause for 60. A client that breaks
//! the protocol gets an error, or loses its connection; never more.
//!
//! Not here: `NBD_OPT_EXTENDED_HEADERS`. 64-bit requests would save some of the 256 questions for
//! the holes of 1 TiB, and bring a second form of every header for it.

mod budget;
mod channel;
mod negotiate;
mod protocol;
mod read;
mod reply;
mod server;
mod socket;
mod status;
mod transmit;
mod uri;
mod write;

use std::sync::Arc;

use disk::{ReadAt, WriteAt};

pub use disk::block::{Meter, Reads};
pub use server::{CONNECTIONS_MAX, Endpoint, Server};
pub use transmit::WORKER_COUNT;

/// One disk that is served.
#[derive(Debug, Clone)]
pub struct Export {
    /// What the client calls it.
    pub name: String,
    /// What it reads, and whether it may write.
    pub access: Access,
    /// The smallest unit that the client should ask for, in bytes.
    pub block_size_bytes: u32,
}

/// A device, and what clients may do with it.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everything that writes is refused.
    ReadOnly(Arc<dyn ReadAt>),
    /// All connections write to the same device; the last write counts.
    Writable(Arc<dyn WriteAt>),
}

impl Access {
    /// The device, to be read.
    #[must_use]
    pub fn device(&self) -> &dyn ReadAt {
        match self {
            Self::ReadOnly(device) => &**device,
            Self::Writable(device) => &**device,
        }
    }

    /// The device, if it may be written.
    #[must_use]
    pub fn writable(&self) -> Option<&dyn WriteAt> {
        match self {
            Self::ReadOnly(_) => None,
            Self::Writable(device) => Some(&**device),
        }
    }
}

#[cfg(test)]
mod tests;
