// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that is copied by somebody who knows only that a read failed, not why.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::ReadAt;
use disk::block::Extent;

use crate::error::Error;
use crate::interrupt::Interrupt;

/// A disk that remembers why it could not be read, and cannot be read any more once the end was
/// asked for.
#[derive(Debug)]
pub(super) struct Watched {
    device: Arc<dyn ReadAt>,
    interrupt: Interrupt,
    failure: Mutex<Option<disk::Error>>,
}

impl Watched {
    pub(super) fn new(device: Arc<dyn ReadAt>, interrupt: &Interrupt) -> Self {
        Self {
            device,
            interrupt: interrupt.clone(),
            failure: Mutex::default(),
        }
    }

    fn failure(&self) -> MutexGuard<'_, Option<disk::Error>> {
        // Nothing panics while it is held.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reason behind the error of a copy.
    pub(super) fn explain(&self, error: Error) -> Error {
        if self.interrupt.is_raised() {
            return Error::Interrupted;
        }
        self.failure().take().map_or(error, Error::Disk)
    }

    /// Keeps the first error, and gives one for whoever reads.
    fn keep(&self, offset: u64, length: u64, error: disk::Error) -> disk::Error {
        let for_reader = failed(offset, length, error.to_string());
        self.failure().get_or_insert(error);
        for_reader
    }
}

fn failed(offset: u64, length: u64, problem: String) -> disk::Error {
    disk::Error::Device {
        action: "read",
        offset,
        length,
        source: problem.into(),
    }
}

impl ReadAt for Watched {
    fn length_bytes(&self) -> u64 {
        self.device.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        // A slice is no longer than the address space.
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        if self.interrupt.is_raised() {
            return Err(failed(offset, length, "interrupted".to_owned()));
        }
        let read = self.device.read_exact_at(offset, buffer);
        read.map_err(|error| self.keep(offset, length, error))
    }

    fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
        let extent = self.device.extent_at(offset);
        extent.map_err(|error| self.keep(offset, 0, error))
    }
}
