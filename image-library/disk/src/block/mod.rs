// SPDX-License-Identifier: MIT OR Apache-2.0
//! Anything readable at an offset: disk files, images, partitions, overlays.
//!
//! Readers take `&self` and are shared between threads behind an `Arc`; a device that needs
//! state inside guards it itself. Offsets and lengths here are plain bytes.

use std::fmt::Debug;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What is known about a run of bytes without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes that must be read to be known.
    Data,
    /// Bytes known to read as zeros: a hole, a zero cluster.
    Zero,
}

/// A run of bytes of one kind, beginning where it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, never 0.
    pub length: u64,
    /// What is known about it.
    pub kind: ExtentKind,
}

/// A device that can be read at any offset, by several threads at once.
pub trait ReadAt: Debug + Send + Sync {
    /// The device's size in bytes.
    fn length_bytes(&self) -> u64;

    /// Fills the whole of `buffer` from `offset` (bytes).
    ///
    /// Reading past the end is an error, never a short read.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// What is known about the bytes from `offset`, without reading them.
    ///
    /// `offset` must be below [`ReadAt::length_bytes`]. The run may be shorter than it could be.
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent {
            length: self.length_bytes().saturating_sub(offset).max(1),
            kind: ExtentKind::Data,
        })
    }
}

/// A device that can also be written at any offset.
pub trait WriteAt: ReadAt {
    /// Writes all of `bytes` at `offset` (bytes); past the end is an error.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Returns once what was written before is as durable as the device can make it.
    fn flush(&self) -> Result<()>;
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn length_bytes(&self) -> u64 {
        (**self).length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        (**self).read_exact_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        (**self).extent_at(offset)
    }
}

impl<T: WriteAt + ?Sized> WriteAt for Arc<T> {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        (**self).write_all_at(offset, bytes)
    }

    fn flush(&self) -> Result<()> {
        (**self).flush()
    }
}

/// The logical sector size of a disk: 512 or 4096 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SectorSize(u32);

impl SectorSize {
    /// 512 bytes, what nearly every disk shows.
    pub const B512: Self = Self(512);
    /// 4096 bytes, "4K native" disks.
    pub const B4096: Self = Self(4096);

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for SectorSize {
    type Error = Error;

    fn try_from(bytes: u32) -> Result<Self> {
        match bytes {
            512 | 4096 => Ok(Self(bytes)),
            other => Err(Error::unsupported(
                "disk",
                format!("a sector size of {other} bytes"),
            )),
        }
    }
}

impl From<SectorSize> for u32 {
    fn from(size: SectorSize) -> Self {
        size.0
    }
}
