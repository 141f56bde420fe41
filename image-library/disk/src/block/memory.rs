// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that is bytes in memory: side files of an image, small disks, tests.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use super::{ReadAt, WriteAt, check_range};
use crate::error::Result;

/// Bytes in memory as a device.
pub struct MemoryDevice {
    length_bytes: u64,
    bytes: RwLock<Vec<u8>>,
}

impl MemoryDevice {
    /// The content, when nobody writes any more.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Vec<u8>> for MemoryDevice {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            length_bytes: bytes.len() as u64,
            bytes: RwLock::new(bytes),
        }
    }
}

impl fmt::Debug for MemoryDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MemoryDevice({} bytes)", self.length_bytes)
    }
}

impl ReadAt for MemoryDevice {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes, offset, buffer.len())?;
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).expect("it was checked to lie in the vector");
        buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        Ok(())
    }
}

impl WriteAt for MemoryDevice {
    fn write_all_at(&self, offset: u64, source: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes, offset, source.len())?;
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).expect("it was checked to lie in the vector");
        bytes[start..start + source.len()].copy_from_slice(source);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_length_stays() {
        let device = MemoryDevice::from(vec![0; 8]);
        device.write_all_at(6, b"ab").expect("it fits");
        let mut read = [0; 3];
        device.read_exact_at(5, &mut read).expect("it is inside");
        assert_eq!(&read, b"\0ab");
        assert!(device.write_all_at(7, b"ab").is_err());
        device.flush().expect("memory needs no flush");
        assert_eq!(device.into_bytes(), b"\0\0\0\0\0\0ab");
    }
}
