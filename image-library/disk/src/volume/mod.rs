// SPDX-License-Identifier: MIT OR Apache-2.0
//! Volumes that are made of other devices.
//!
//! Whatever a volume is made of is handed in as writable devices: overlays when a guest is changed,
//! [`ReadOnly`] ones when it is only looked at. So there is one way to put a volume together, and
//! what can be read can be written.
//!
//! Two engines read RAID, with one geometry and one arithmetic of parity: LVM's, which
//! refuses to write what its metadata would have to be told of (a leg that is missing), and md's,
//! which goes on without members as the kernel does, and knows zones, far layouts, bitmaps and
//! rebuilds.

mod galois;
pub mod luks;
pub mod lvm2;
mod mapped;
pub mod md;
mod parity_rows;

use std::sync::Arc;

use crate::block::{Extent, ReadAt, WriteAt};
use crate::error::{Error, Result};

/// A device that is only read, where one that could be written is asked for: every write is an
/// error.
#[derive(Debug, Clone)]
pub struct ReadOnly(Arc<dyn ReadAt>);

impl ReadOnly {
    /// Shuts off writes.
    #[must_use]
    pub fn new(device: Arc<dyn ReadAt>) -> Self {
        Self(device)
    }
}

impl ReadAt for ReadOnly {
    fn length_bytes(&self) -> u64 {
        self.0.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }
}

impl WriteAt for ReadOnly {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Err(Error::Device {
            action: "write",
            offset,
            length: bytes.len() as u64,
            source: "the device was opened to be read only".into(),
        })
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;

    #[test]
    fn a_device_that_is_only_read_refuses_every_write() {
        let memory: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(vec![7; 4096]));
        let device = ReadOnly::new(Arc::clone(&memory));
        assert!(device.write_all_at(0, &[1]).is_err());
        assert!(device.write_zeroes_at(0, 512).is_err());
        device.flush().unwrap();
        let mut byte = [0];
        device.read_exact_at(4095, &mut byte).unwrap();
        assert_eq!(byte, [7]);
    }
}
