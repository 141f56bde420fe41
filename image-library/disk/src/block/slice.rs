// SPDX-License-Identifier: MIT OR Apache-2.0
//! A part of a device as a device: a partition, a volume.
//!
//! Invariant: the part lies within the inner device, checked when it is made.

use super::{Extent, ReadAt, WriteAt, check_length, check_range};
use crate::error::{Error, Result};

/// The bytes `start_bytes .. start_bytes + length_bytes` of another device.
#[derive(Debug, Clone)]
pub struct Slice<D> {
    inner: D,
    start_bytes: u64,
    length_bytes: u64,
}

impl<D: ReadAt> Slice<D> {
    /// The part of `inner` that begins at `start_bytes`; an error unless it lies within it.
    pub fn new(inner: D, start_bytes: u64, length_bytes: u64) -> Result<Self> {
        let device_length = inner.length_bytes();
        match start_bytes.checked_add(length_bytes) {
            Some(end) if end <= device_length => Ok(Self {
                inner,
                start_bytes,
                length_bytes,
            }),
            _ => Err(Error::corrupt(
                "part of a disk",
                start_bytes,
                format!(
                    "expected {length_bytes:#x} bytes before the disk's end, \
                     found the end at byte {device_length:#x}"
                ),
            )),
        }
    }

    /// Where the part begins on the inner device, in bytes.
    #[must_use]
    pub fn start_bytes(&self) -> u64 {
        self.start_bytes
    }
}

impl<D: ReadAt> ReadAt for Slice<D> {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes, offset, buffer.len())?;
        self.inner.read_exact_at(self.start_bytes + offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes, offset, 1)?;
        let extent = self.inner.extent_at(self.start_bytes + offset)?;
        Ok(Extent {
            length: extent.length.min(self.length_bytes - offset),
            kind: extent.kind,
        })
    }
}

impl<D: WriteAt> WriteAt for Slice<D> {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes, offset, bytes.len())?;
        self.inner.write_all_at(self.start_bytes + offset, bytes)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn write_zeroes_at(&self, offset: u64, length: u64) -> Result<()> {
        check_length("zero", self.length_bytes, offset, length)?;
        self.inner
            .write_zeroes_at(self.start_bytes + offset, length)
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        check_length("discard", self.length_bytes, offset, length)?;
        self.inner.discard_at(self.start_bytes + offset, length)
    }

    fn has_cheap_zeros(&self, offset: u64, length: u64) -> bool {
        self.inner
            .has_cheap_zeros(self.start_bytes.saturating_add(offset), length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{ExtentKind, MemoryDevice};

    #[test]
    fn a_slice_reads_and_writes_only_its_own_bytes() {
        let device = MemoryDevice::from(b"0123456789".to_vec());
        let slice = Slice::new(device, 2, 5).expect("it is inside");
        let mut read = [0; 5];
        slice.read_exact_at(0, &mut read).expect("all of it");
        assert_eq!(&read, b"23456");
        assert_eq!(slice.start_bytes(), 2);
        slice.write_all_at(4, b"x").expect("its last byte");
        assert!(slice.write_all_at(5, b"y").is_err());
        assert!(slice.read_exact_at(4, &mut [0; 2]).is_err());
        slice.flush().expect("flush");
        assert_eq!(slice.inner.into_bytes(), b"012345x789");
    }

    #[test]
    fn an_extent_ends_with_the_slice() {
        let device = MemoryDevice::from(vec![1; 10]);
        let slice = Slice::new(device, 2, 5).expect("it is inside");
        let extent = slice.extent_at(1).expect("it is inside");
        assert_eq!(
            extent,
            Extent {
                length: 4,
                kind: ExtentKind::Data
            }
        );
        assert!(slice.extent_at(5).is_err());
    }

    #[test]
    fn a_slice_beyond_the_device_is_refused() {
        let error = Slice::new(MemoryDevice::from(vec![0; 10]), 8, 4).expect_err("too long");
        assert_eq!(
            error.to_string(),
            "part of a disk at byte 0x8: expected 0x4 bytes before the disk's end, \
             found the end at byte 0xa"
        );
        assert!(Slice::new(MemoryDevice::from(vec![0; 10]), u64::MAX, 4).is_err());
    }
}
