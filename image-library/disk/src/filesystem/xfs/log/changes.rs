// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a replay changes: sectors that lie over a device.
//!
//! **Limit:** 256 MiB of changed sectors; the busiest logs hold less.

use std::collections::BTreeMap;
use std::fmt;

use crate::block::ReadAt;
use crate::error::{Error, Result};

const SECTOR: u64 = 512;
const SECTORS_MAX: usize = (256 << 20) / SECTOR as usize;

/// Sectors of 512 bytes that are newer than the device's.
#[derive(Default)]
pub(in super::super) struct Changes(BTreeMap<u64, Box<[u8; SECTOR as usize]>>);

impl fmt::Debug for Changes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Changes({} sectors)", self.0.len())
    }
}

impl Changes {
    /// Reads the device with these changes; tells whether any was met.
    pub(in super::super) fn read<D: ReadAt + ?Sized>(
        &self,
        device: &D,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<bool> {
        device.read_exact_at(offset, buffer)?;
        let end = offset + buffer.len() as u64;
        let mut met = false;
        for (sector, bytes) in self.0.range(offset / SECTOR..end.div_ceil(SECTOR)) {
            lay_over(buffer, offset, &bytes[..], sector * SECTOR);
            met = true;
        }
        Ok(met)
    }

    /// Puts whole sectors into place; `offset` is one's first byte.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        for (index, sector) in (offset / SECTOR..).zip(bytes.as_chunks::<{ SECTOR as usize }>().0) {
            if self.0.len() >= SECTORS_MAX && !self.0.contains_key(&index) {
                return Err(Error::Limit {
                    what: "the bytes that the log of an XFS changes",
                    limit: SECTORS_MAX as u64 * SECTOR,
                });
            }
            self.0.insert(index, Box::new(*sector));
        }
        Ok(())
    }
}

/// Copies what two ranges of bytes share.
fn lay_over(buffer: &mut [u8], offset: u64, bytes: &[u8], bytes_offset: u64) {
    let start = offset.max(bytes_offset);
    let end = (offset + buffer.len() as u64).min(bytes_offset + bytes.len() as u64);
    if start < end {
        let length = (end - start) as usize;
        let (to, from) = ((start - offset) as usize, (start - bytes_offset) as usize);
        buffer[to..to + length].copy_from_slice(&bytes[from..from + length]);
    }
}

#[cfg(test)]
mod tests {
    use super::Changes;
    use crate::block::MemoryDevice;

    #[test]
    fn changed_sectors_lie_over_the_device_wherever_it_is_read() {
        let device = MemoryDevice::from(vec![1; 4096]);
        let mut changes = Changes::default();
        changes.write(1024, &[2; 1024]).expect("room");
        changes.write(1536, &[3; 512]).expect("room");
        let mut buffer = [0; 1030];
        assert!(changes.read(&device, 1021, &mut buffer).expect("memory"));
        let counts = [1, 2, 3].map(|value| buffer.iter().filter(|byte| **byte == value).count());
        assert_eq!(counts, [3 + 3, 512, 512]);
        assert!(!changes.read(&device, 0, &mut [0; 1024]).expect("memory"));
        assert!(!changes.read(&device, 2048, &mut [0; 1]).expect("memory"));
        assert!(changes.read(&device, 4000, &mut [0; 100]).is_err());
    }
}
