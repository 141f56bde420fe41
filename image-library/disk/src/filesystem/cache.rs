// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cache before a device that a filesystem is on: what a filesystem wants beyond the device's end
//! is its own damage.

use std::sync::Arc;

use crate::block::{CachedDevice as Cached, Extent, ReadAt};
use crate::error::{Error, Result};

/// What is kept of a filesystem's device, in bytes.
const CAPACITY_BYTES: u64 = 16 << 20;

/// A filesystem's device with its recently read blocks.
#[derive(Debug)]
pub(crate) struct CachedDevice(Cached);

impl CachedDevice {
    pub(crate) fn new(device: Arc<dyn ReadAt>) -> Self {
        Self(Cached::new(device, CAPACITY_BYTES))
    }

    /// Forgets the blocks that `length` bytes at `offset` touch: they were written below.
    pub(crate) fn forget(&self, offset: u64, length: u64) {
        self.0.forget(offset, length);
    }
}

impl ReadAt for CachedDevice {
    fn length_bytes(&self) -> u64 {
        self.0.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_bounds(self.length_bytes(), offset, buffer.len())?;
        self.0.read_exact_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }
}

/// The error of a read or write past the end of a device.
pub(crate) fn check_bounds(device_bytes: u64, offset: u64, length: usize) -> Result<()> {
    let end = offset.checked_add(length as u64);
    match end.is_some_and(|end| end <= device_bytes) {
        true => Ok(()),
        false => Err(Error::corrupt(
            "filesystem",
            offset,
            format!("expected {length} bytes, found the end of the device at {device_bytes:#x}"),
        )),
    }
}
