// SPDX-License-Identifier: MIT OR Apache-2.0
//! An array as a device: what both kinds share, and the one without parity.

use std::sync::{Arc, Mutex, PoisonError};

use crate::block::{Extent, ReadAt, WriteAt, check_range};
use crate::error::{Error, Result};

use super::bitmap::Bitmap;
use super::member::{Slot, lost};
use super::striping::{Piece, Striping};

/// What has to be done or known before an array is written.
#[derive(Debug, Default)]
pub(super) struct WriteGate {
    /// Why the array must not be written.
    pub(super) refusal: Option<String>,
    /// The write-intent bitmaps of an array that lacks members: what is written now has to be
    /// copied to them when they come back.
    pub(super) bitmaps: Mutex<Vec<Bitmap>>,
}

impl WriteGate {
    pub(super) fn pass(&self) -> Result<()> {
        if let Some(refusal) = &self.refusal {
            return Err(Error::unsupported("md array", refusal.clone()));
        }
        let mut bitmaps = self.bitmaps.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(bitmap) = bitmaps.last() {
            bitmap.mark_all()?;
            bitmaps.pop();
        }
        Ok(())
    }
}

/// An array of a level without parity.
#[derive(Debug)]
pub(super) struct StripedArray {
    striping: Striping,
    slots: Vec<Slot>,
    gate: WriteGate,
    /// Two writes of the same bytes shall not end differently on two members.
    writing: Mutex<()>,
}

impl StripedArray {
    pub(super) fn open(striping: Striping, slots: Vec<Slot>, gate: WriteGate) -> Arc<dyn WriteAt> {
        Arc::new(Self {
            striping,
            slots,
            gate,
            writing: Mutex::new(()),
        })
    }

    /// The copies of a piece that can be read, cut to where that changes.
    fn readable(&self, piece: &mut Piece) {
        let length = &mut piece.length;
        piece.copies.retain(|(position, offset)| {
            let run = self.slots.get(*position).map(|slot| slot.run_at(*offset));
            let (readable, run_length) = run.unwrap_or((false, u64::MAX));
            *length = run_length.min(*length);
            readable
        });
    }

    fn read_piece(&self, piece: &Piece, buffer: &mut [u8]) -> Result<()> {
        let mut result = Err(lost(0, buffer.len()));
        for (position, offset) in &piece.copies {
            result = self.slots[*position].read(*offset, buffer);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

impl ReadAt for StripedArray {
    fn length_bytes(&self) -> u64 {
        self.striping.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes(), offset, buffer.len())?;
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            let mut piece = self.striping.locate(at);
            self.readable(&mut piece);
            let length = usable(&piece, rest.len(), at)?;
            let (now, later) = rest.split_at_mut(length);
            self.read_piece(&piece, now)?;
            at += length as u64;
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes(), offset, 1)?;
        let mut piece = self.striping.locate(offset);
        self.readable(&mut piece);
        let Some((position, place)) = piece.copies.first() else {
            return Err(lost(offset, 1));
        };
        let extent = self.slots[*position].extent_at(*place);
        let extent = extent.unwrap_or_else(|| Err(lost(offset, 1)))?;
        Ok(Extent {
            length: extent.length.min(piece.length),
            kind: extent.kind,
        })
    }
}

impl WriteAt for StripedArray {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes(), offset, bytes.len())?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.gate.pass()?;
        let (mut rest, mut at) = (bytes, offset);
        while !rest.is_empty() {
            let piece = self.striping.locate(at);
            let length = usable(&piece, rest.len(), at)?;
            let (now, later) = rest.split_at(length);
            for (position, place) in &piece.copies {
                if let Some(slot) = self.slots.get(*position) {
                    slot.write(*place, now)?;
                }
            }
            at += length as u64;
            rest = later;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.slots.iter().try_for_each(Slot::flush)
    }
}

/// How much of `wanted` bytes the piece serves; an error where it serves none.
fn usable(piece: &Piece, wanted: usize, at: u64) -> Result<usize> {
    let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
    match length.min(wanted) {
        0 => Err(lost(at, wanted)),
        length => Ok(length),
    }
}
