// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers and texts at fixed places in bytes that were read from a disk.
//!
//! Total: a field beyond the end reads as zeros, so a parser of a structure of known size needs no
//! error for a length that it has already made sure of.

use crate::block::ReadAt;
use crate::error::Result;

/// A structure's bytes, read by offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// `length` bytes at `offset`; empty beyond the end.
    pub(crate) fn bytes(self, offset: usize, length: usize) -> &'a [u8] {
        offset
            .checked_add(length)
            .and_then(|end| self.0.get(offset..end))
            .unwrap_or(&[])
    }

    fn array<const N: usize>(self, offset: usize) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(offset, N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    pub(crate) fn u8(self, offset: usize) -> u8 {
        self.0.get(offset).copied().unwrap_or(0)
    }

    pub(crate) fn u16(self, offset: usize) -> u16 {
        u16::from_le_bytes(self.array(offset))
    }

    pub(crate) fn u32(self, offset: usize) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    pub(crate) fn u64(self, offset: usize) -> u64 {
        u64::from_le_bytes(self.array(offset))
    }

    pub(crate) fn u16_be(self, offset: usize) -> u16 {
        u16::from_be_bytes(self.array(offset))
    }

    pub(crate) fn u32_be(self, offset: usize) -> u32 {
        u32::from_be_bytes(self.array(offset))
    }

    pub(crate) fn u64_be(self, offset: usize) -> u64 {
        u64::from_be_bytes(self.array(offset))
    }
}

/// Reads `length` bytes at `offset`, or `None` where the device ends before.
pub(crate) fn read_block(
    device: &dyn ReadAt,
    offset: u64,
    length: usize,
) -> Result<Option<Vec<u8>>> {
    let fits = offset
        .checked_add(length as u64)
        .is_some_and(|end| end <= device.length_bytes());
    if !fits {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    device.read_exact_at(offset, &mut bytes)?;
    Ok(Some(bytes))
}

/// A fixed-length text field: up to the first NUL, without trailing spaces; `None` when empty.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0);
    let text = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Sixteen bytes as `blkid` prints a UUID; `None` when all are zero.
pub(crate) fn uuid(bytes: &[u8]) -> Option<String> {
    let uuid = uuid::Uuid::from_slice(bytes).ok()?;
    (!uuid.is_nil()).then(|| uuid.hyphenated().to_string())
}

#[cfg(test)]
mod tests {
    use super::Fields;

    #[test]
    fn a_field_beyond_the_end_reads_as_zero() {
        let fields = Fields(&[0x01, 0x02, 0x03, 0x04]);
        assert_eq!(fields.u16(1), 0x0302);
        assert_eq!(fields.u32_be(0), 0x0102_0304);
        assert_eq!(fields.u64(0), 0);
        assert_eq!(fields.u16(usize::MAX), 0);
        assert_eq!(fields.u8(4), 0);
    }
}
