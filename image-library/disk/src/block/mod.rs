// SPDX-License-Identifier: MIT OR Apache-2.0
//! Anything readable at an offset: disk files, images, partitions, overlays.
//!
//! Readers take `&self` and are shared between threads behind an `Arc`; a device that needs
//! state inside guards it itself. Offsets and lengths here are plain bytes.
//!
//! ```text
//! open_disk(path) -> DiskFile | qcow2 image -> Slice (a partition) -> Overlay (its changes)
//!                                          \-> copy (a new raw or qcow2 file)
//! ```

mod cached_device;
mod copy;
mod file;
mod format;
mod memory;
mod meter;
mod open;
mod overlay;
mod qcow2;
mod slice;

use std::fmt::Debug;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use cached_device::CachedDevice;
pub use copy::{CopyStats, copy_to_qcow2, copy_to_raw};
pub use file::{DiskFile, WritableDiskFile};
pub use format::DiskFormat;
pub use memory::MemoryDevice;
pub use meter::{Meter, Reads};
pub use open::{BackingFiles, OpenOptions, OpenedDisk, guess_sector_size, open_disk};
pub use overlay::{Overlay, OverlayOptions};
pub use qcow2::{Backing, create_empty_qcow2};
pub use slice::Slice;

/// Zeros are written in pieces of this many bytes.
const ZEROS_LENGTH: u64 = 1 << 20;

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

    /// Returns once what was written before, by whichever thread, is as durable as the device can
    /// make it.
    fn flush(&self) -> Result<()>;

    /// Makes `length` bytes from `offset` (bytes) read as zeros; past the end is an error, and an
    /// error may leave a part of them zeroed. Unless a device knows better, zeros are written.
    fn write_zeroes_at(&self, offset: u64, length: u64) -> Result<()> {
        fill_with_zeros(self, offset, length)
    }

    /// Says that `length` bytes from `offset` (bytes) are not needed any more; past the end is an
    /// error. They read as before or as zeros until they are written again. Unless a device knows
    /// what to do with that, nothing is done.
    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        check_length("discard", self.length_bytes(), offset, length)
    }

    /// Whether [`WriteAt::write_zeroes_at`] of that range costs less than writing its bytes.
    fn has_cheap_zeros(&self, _offset: u64, _length: u64) -> bool {
        false
    }
}

/// Writes zeros as bytes, in pieces, so that a range of any length needs little memory.
pub fn fill_with_zeros<D: WriteAt + ?Sized>(device: &D, offset: u64, length: u64) -> Result<()> {
    check_length("write", device.length_bytes(), offset, length)?;
    let zeros = vec![0; length.min(ZEROS_LENGTH) as usize];
    let end = offset + length;
    let mut at = offset;
    while at < end {
        let piece = ZEROS_LENGTH.min(end - at);
        device.write_all_at(at, &zeros[..piece as usize])?;
        at += piece;
    }
    Ok(())
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

    fn write_zeroes_at(&self, offset: u64, length: u64) -> Result<()> {
        (**self).write_zeroes_at(offset, length)
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        (**self).discard_at(offset, length)
    }

    fn has_cheap_zeros(&self, offset: u64, length: u64) -> bool {
        (**self).has_cheap_zeros(offset, length)
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

/// An error unless `length` bytes from `offset` lie on a device of `device_length` bytes.
pub(crate) fn check_range(
    action: &'static str,
    device_length: u64,
    offset: u64,
    length: usize,
) -> Result<()> {
    check_length(action, device_length, offset, length as u64)
}

/// The same for a length that no buffer has.
pub(crate) fn check_length(
    action: &'static str,
    device_length: u64,
    offset: u64,
    length: u64,
) -> Result<()> {
    match offset.checked_add(length) {
        Some(end) if end <= device_length => Ok(()),
        _ => Err(Error::Device {
            action,
            offset,
            length,
            source: format!("the device ends at byte {device_length:#x}").into(),
        }),
    }
}

/// The `N` bytes at `at`; zeros where `bytes` is too short, so that parsers of fixed structures
/// cannot panic.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .unwrap_or([0; N])
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Words first: this looks at every byte of disks that are copied.
    let mut words = bytes.chunks_exact(16);
    words.all(|word| u128::from_ne_bytes(array_at(word, 0)) == 0)
        && bytes
            .chunks_exact(16)
            .remainder()
            .iter()
            .all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_overflows_or_passes_the_end_is_refused() {
        assert!(check_range("read", 10, 0, 10).is_ok());
        assert!(check_range("read", 10, 10, 0).is_ok());
        assert!(check_range("read", 10, 9, 2).is_err());
        let error = check_range("write", 10, u64::MAX, 2).expect_err("it overflows");
        assert_eq!(
            error.to_string(),
            "write 2 bytes at byte 0xffffffffffffffff"
        );
    }

    /// A device without anything of its own for zeros.
    #[derive(Debug)]
    struct Plain(MemoryDevice);

    impl ReadAt for Plain {
        fn length_bytes(&self) -> u64 {
            self.0.length_bytes()
        }

        fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            self.0.read_exact_at(offset, buffer)
        }
    }

    impl WriteAt for Plain {
        fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
            assert!(bytes.len() <= 1 << 20, "zeros come in pieces");
            self.0.write_all_at(offset, bytes)
        }

        fn flush(&self) -> Result<()> {
            self.0.flush()
        }
    }

    #[test]
    fn a_device_that_knows_nothing_of_zeros_gets_them_in_pieces() {
        let length = (3 << 20) + 700;
        let device = Arc::new(Plain(MemoryDevice::from(vec![1; length])));
        assert!(!device.has_cheap_zeros(0, 512));
        device
            .discard_at(0, length as u64)
            .expect("nothing is done");
        device
            .write_zeroes_at(1, length as u64 - 2)
            .expect("it is inside");
        for outside in [1, u64::MAX] {
            assert!(device.write_zeroes_at(length as u64, outside).is_err());
            assert!(device.discard_at(length as u64, outside).is_err());
        }
        let mut bytes = vec![7; length];
        device.read_exact_at(0, &mut bytes).expect("all of it");
        assert_eq!((bytes[0], bytes[length - 1]), (1, 1));
        assert!(is_zero(&bytes[1..length - 1]));
    }

    #[test]
    fn zeros_are_told_from_bytes_at_every_length() {
        for length in 0..70 {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes), "{length} zeros");
            for at in 0..length {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{length} bytes, one set at {at}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn sector_sizes_other_than_512_and_4096_are_unsupported() {
        assert_eq!(SectorSize::try_from(512).expect("512"), SectorSize::B512);
        assert_eq!(u32::from(SectorSize::B4096), 4096);
        let error = SectorSize::try_from(520).expect_err("520");
        assert_eq!(
            error.to_string(),
            "disk: a sector size of 520 bytes is not supported"
        );
    }
}
