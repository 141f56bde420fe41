// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices without anything below: those that read as zeros, and those that only fail.

use crate::block::{Extent, ExtentKind, ReadAt, WriteAt, check_length, check_range};
use crate::error::{Error, Result};

/// So many zeros; what is written is forgotten, as dm-zero does.
#[derive(Debug)]
pub(crate) struct Zeros(pub(crate) u64);

impl ReadAt for Zeros {
    fn length_bytes(&self) -> u64 {
        self.0
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.0, offset, buffer.len())?;
        buffer.fill(0);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.0, offset, 1)?;
        Ok(Extent {
            length: self.0 - offset,
            kind: ExtentKind::Zero,
        })
    }
}

impl WriteAt for Zeros {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.0, offset, bytes.len())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn write_zeroes_at(&self, offset: u64, length: u64) -> Result<()> {
        check_length("zero", self.0, offset, length)
    }
}

/// So many bytes that can be neither read nor written, as dm-error does.
#[derive(Debug)]
pub(crate) struct Failing {
    pub(crate) length_bytes: u64,
    pub(crate) reason: &'static str,
}

impl Failing {
    fn error(&self, action: &'static str, offset: u64, length: usize) -> Error {
        Error::Device {
            action,
            offset,
            length: length as u64,
            source: self.reason.into(),
        }
    }
}

impl ReadAt for Failing {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        Err(self.error("read", offset, buffer.len()))
    }
}

impl WriteAt for Failing {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Err(self.error("write", offset, bytes.len()))
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
