// SPDX-License-Identifier: MIT OR Apache-2.0
//! The decrypted device: reads decrypt, writes encrypt, always whole units.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::block::{ReadAt, WriteAt, check_range};
use crate::error::{Error, Result};

use super::cipher::SectorCipher;
use super::{Payload, corrupt};

/// How much is decrypted or encrypted at a time.
const WINDOW_BYTES: u64 = 128 * 1024;

/// A device whose bytes are encrypted on another one.
pub(super) struct EncryptedDevice {
    device: Arc<dyn WriteAt>,
    cipher: SectorCipher,
    unit_bytes: u64,
    offset: u64,
    length_bytes: u64,
    iv_offset: u64,
    /// Two writes of parts of one unit read it before they write it.
    writing: Mutex<()>,
}

impl fmt::Debug for EncryptedDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EncryptedDevice")
            .field("device", &self.device)
            .field("offset", &self.offset)
            .field("length_bytes", &self.length_bytes)
            .finish_non_exhaustive()
    }
}

impl EncryptedDevice {
    pub(super) fn new(
        device: Arc<dyn WriteAt>,
        cipher: SectorCipher,
        unit_bytes: u32,
        payload: &Payload,
    ) -> Result<Self> {
        if !matches!(unit_bytes, 512 | 1024 | 2048 | 4096) {
            let feature = format!("sectors of {unit_bytes} bytes");
            return Err(Error::unsupported("LUKS", feature));
        }
        let unit_bytes = u64::from(unit_bytes);
        let room = device.length_bytes().checked_sub(payload.offset);
        let length = match (room, payload.length) {
            (Some(room), None) => room,
            (Some(room), Some(length)) if length <= room => length,
            _ => {
                let problem = format!(
                    "expected {payload:?} to lie on the device, found its end at byte {:#x}",
                    device.length_bytes()
                );
                return Err(corrupt(payload.offset, problem));
            }
        };
        Ok(Self {
            device,
            cipher,
            unit_bytes,
            offset: payload.offset,
            length_bytes: length / unit_bytes * unit_bytes,
            iv_offset: payload.iv_offset,
            writing: Mutex::new(()),
        })
    }

    /// The number that the unit at `offset` is encrypted with.
    fn sector(&self, offset: u64) -> u64 {
        (offset / 512).wrapping_add(self.iv_offset)
    }

    /// Decrypted units; `start` and the buffer's length are whole ones.
    fn read_units(&self, start: u64, buffer: &mut [u8]) -> Result<()> {
        self.device.read_exact_at(self.offset + start, buffer)?;
        self.cipher
            .decrypt(self.sector(start), self.unit_bytes as usize, buffer);
        Ok(())
    }

    /// The start of the unit at `offset`, and the end of what is handled with it at a time.
    fn window(&self, offset: u64, end: u64) -> (u64, u64) {
        let start = offset / self.unit_bytes * self.unit_bytes;
        let end = end.next_multiple_of(self.unit_bytes);
        (start, end.min(start + WINDOW_BYTES))
    }
}

impl ReadAt for EncryptedDevice {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes, offset, buffer.len())?;
        let end = offset + buffer.len() as u64;
        let mut at = offset;
        while at < end {
            let (start, window_end) = self.window(at, end);
            let to = window_end.min(end);
            let wanted = &mut buffer[(at - offset) as usize..(to - offset) as usize];
            if (start, window_end) == (at, to) {
                self.read_units(at, wanted)?;
            } else {
                let mut units = Zeroizing::new(vec![0; (window_end - start) as usize]);
                self.read_units(start, &mut units)?;
                let skipped = (at - start) as usize;
                wanted.copy_from_slice(&units[skipped..skipped + wanted.len()]);
            }
            at = to;
        }
        Ok(())
    }
}

impl WriteAt for EncryptedDevice {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes, offset, bytes.len())?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let (start, window_end) = self.window(at, end);
            let to = window_end.min(end);
            let mut units = Zeroizing::new(vec![0; (window_end - start) as usize]);
            if (start, window_end) != (at, to) {
                self.read_units(start, &mut units)?;
            }
            let new = &bytes[(at - offset) as usize..(to - offset) as usize];
            let skipped = (at - start) as usize;
            units[skipped..skipped + new.len()].copy_from_slice(new);
            self.cipher
                .encrypt(self.sector(start), self.unit_bytes as usize, &mut units);
            self.device.write_all_at(self.offset + start, &units)?;
            at = to;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.device.flush()
    }
}
