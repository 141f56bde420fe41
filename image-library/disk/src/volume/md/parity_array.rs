// SPDX-License-Identifier: MIT OR Apache-2.0
//! An array with parity as a device: what members lack is computed from the others.
//!
//! A write reads all data of the row, between the same two offsets of every chunk, puts the new
//! bytes in, and writes them with new parity. So the parity is right afterwards even where it was
//! not before, as in an array that was not shut down.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use crate::block::{Extent, ReadAt, WriteAt, check_range};
use crate::error::Result;

use super::super::galois::{add, add_product, inverse, multiply, power, scale};
use super::super::parity_rows::Row;
use super::device::WriteGate;
use super::member::{Slot, lost};
use super::parity::Parity;

/// How much of each member is in memory at a time.
const WINDOW_BYTES: u64 = 64 * 1024;

/// An array of RAID4, RAID5 or RAID6.
#[derive(Debug)]
pub(super) struct ParityArray {
    parity: Parity,
    slots: Vec<Slot>,
    gate: WriteGate,
    /// Nobody computes from a row that somebody else has half written.
    row: RwLock<()>,
}

/// Bytes of one chunk: the row, which chunk of its data, and where in the chunk.
struct Piece {
    row: u64,
    index: usize,
    in_chunk: u64,
    length: u64,
}

impl ParityArray {
    pub(super) fn open(parity: Parity, slots: Vec<Slot>, gate: WriteGate) -> Arc<dyn WriteAt> {
        Arc::new(Self {
            parity,
            slots,
            gate,
            row: RwLock::new(()),
        })
    }

    fn locate(&self, offset: u64) -> Piece {
        let chunk = offset / self.parity.chunk_bytes;
        let in_chunk = offset % self.parity.chunk_bytes;
        let data_disks = self.parity.rows.data_disks() as u64;
        Piece {
            row: chunk / data_disks,
            index: (chunk % data_disks) as usize,
            in_chunk,
            length: self.parity.chunk_bytes - in_chunk,
        }
    }

    fn slot(&self, position: usize) -> Result<&Slot> {
        self.slots.get(position).ok_or_else(|| lost(0, 0))
    }

    /// How far from `place` every member answers the same, at most a window.
    fn window(&self, place: u64, length: u64) -> u64 {
        let runs = self.slots.iter().map(|slot| slot.run_at(place).1);
        runs.min().unwrap_or(0).min(length).min(WINDOW_BYTES)
    }

    /// Reads the beginning of `buffer`; gives how much.
    fn read_some(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let piece = self.locate(offset);
        let row = self.parity.rows.row(piece.row);
        let place = piece.row * self.parity.chunk_bytes + piece.in_chunk;
        let wanted = piece.length.min(buffer.len() as u64);
        let slot = self.slot(row.data[piece.index].0)?;
        let (readable, run) = slot.run_at(place);
        let direct = run.min(wanted) as usize;
        if readable && slot.read(place, &mut buffer[..direct]).is_ok() {
            return Ok(direct);
        }
        let length = self.window(place, wanted) as usize;
        let columns = self.data_columns(&row, place, length)?;
        buffer[..length].copy_from_slice(&columns[piece.index]);
        Ok(length)
    }

    /// The bytes of a member, or `None` where it does not have them.
    fn column(&self, position: usize, place: u64, length: usize) -> Option<Vec<u8>> {
        let slot = self.slots.get(position)?;
        let mut bytes = vec![0; length];
        // An error is one more member that lacks these bytes: the others may have what is needed.
        (slot.run_at(place).0 && slot.read(place, &mut bytes).is_ok()).then_some(bytes)
    }

    /// The data chunks of a row from `place` on the members, all of them.
    fn data_columns(&self, row: &Row, place: u64, length: usize) -> Result<Vec<Vec<u8>>> {
        let mut missing = Vec::new();
        let mut columns = Vec::with_capacity(row.data.len());
        for (index, (position, _)) in row.data.iter().enumerate() {
            columns.push(self.column(*position, place, length).unwrap_or_else(|| {
                missing.push(index);
                vec![0; length]
            }));
        }
        if !missing.is_empty() {
            let p = self.column(row.p, place, length);
            let q = row.q.and_then(|q| self.column(q, place, length));
            recover(row, &mut columns, &missing, p, q).ok_or_else(|| lost(place, length))?;
        }
        Ok(columns)
    }

    /// Writes what of `bytes`, which begin at `offset` of the array, lies in one row.
    fn write_row(&self, number: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let chunk = self.parity.chunk_bytes;
        let row = self.parity.rows.row(number);
        let row_start = number * chunk * row.data.len() as u64;
        let start = offset.max(row_start) - row_start;
        let end = (offset + bytes.len() as u64 - row_start).min(chunk * row.data.len() as u64);
        // Where only one chunk is touched, only that part of the row is.
        let columns = match (start / chunk, (end - 1) / chunk) {
            (first, last) if first == last => start % chunk..(end - 1) % chunk + 1,
            _ => 0..chunk,
        };
        let mut at = columns.start;
        while at < columns.end {
            let length = self.window(number * chunk + at, columns.end - at);
            if length == 0 {
                return Err(lost(number * chunk + at, bytes.len()));
            }
            self.write_window(&row, number, at..at + length, (offset, bytes))?;
            at += length;
        }
        Ok(())
    }

    /// Writes what of `bytes` lies in one row between two offsets in its chunks.
    fn write_window(
        &self,
        row: &Row,
        number: u64,
        window: Range<u64>,
        (offset, bytes): (u64, &[u8]),
    ) -> Result<()> {
        let chunk = self.parity.chunk_bytes;
        let place = number * chunk + window.start;
        let length = (window.end - window.start) as usize;
        let mut columns = self.data_columns(row, place, length)?;
        let first_chunk = number * row.data.len() as u64;
        for (index, column) in columns.iter_mut().enumerate() {
            let column_start = (first_chunk + index as u64) * chunk + window.start;
            let changed = overlay(column, column_start, offset, bytes);
            if !changed.is_empty() {
                let slot = self.slot(row.data[index].0)?;
                slot.write(place + changed.start as u64, &column[changed])?;
            }
        }
        let (p, q) = parities(row, &columns, length);
        self.slot(row.p)?.write(place, &p)?;
        match row.q {
            Some(position) => self.slot(position)?.write(place, &q),
            None => Ok(()),
        }
    }
}

/// Copies what of `bytes` (from `offset`) lies in a column (from `start`); says where in it.
fn overlay(column: &mut [u8], start: u64, offset: u64, bytes: &[u8]) -> Range<usize> {
    let from = offset.max(start);
    let to = (offset + bytes.len() as u64).min(start + column.len() as u64);
    if from >= to {
        return 0..0;
    }
    let changed = (from - start) as usize..(to - start) as usize;
    let source = (from - offset) as usize..(to - offset) as usize;
    column[changed.clone()].copy_from_slice(&bytes[source]);
    changed
}

/// The parity of data columns.
fn parities(row: &Row, columns: &[Vec<u8>], length: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut p, mut q) = (vec![0; length], Vec::new());
    columns.iter().for_each(|column| add(&mut p, column));
    if row.q.is_some() {
        q = vec![0; length];
        for (column, (_, exponent)) in columns.iter().zip(&row.data) {
            add_product(&mut q, power(*exponent), column);
        }
    }
    (p, q)
}

/// Fills in the missing data columns, which are zeros, from the parity that is there.
fn recover(
    row: &Row,
    columns: &mut [Vec<u8>],
    missing: &[usize],
    p: Option<Vec<u8>>,
    q: Option<Vec<u8>>,
) -> Option<()> {
    let length = columns.first()?.len();
    let (sum, weighted) = parities(row, columns, length);
    let factor = |index: usize| power(row.data[index].1);
    match (missing, p, q) {
        ([x], Some(mut p), _) => {
            add(&mut p, &sum);
            columns[*x] = p;
        }
        ([x], None, Some(mut q)) => {
            add(&mut q, &weighted);
            scale(&mut q, inverse(factor(*x)));
            columns[*x] = q;
        }
        ([x, y], Some(mut p), Some(mut q)) => {
            // p = x + y and q = gx x + gy y, so x = (q + gy p) / (gx + gy).
            add(&mut p, &sum);
            add(&mut q, &weighted);
            let (gx, gy) = (factor(*x), factor(*y));
            let scaled_by = inverse(gx ^ gy);
            scale(&mut q, scaled_by);
            add_product(&mut q, multiply(gy, scaled_by), &p);
            add(&mut p, &q);
            columns[*x] = q;
            columns[*y] = p;
        }
        _ => return None,
    }
    Some(())
}

impl ReadAt for ParityArray {
    fn length_bytes(&self) -> u64 {
        self.parity.length_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes(), offset, buffer.len())?;
        let _reading = self.row.read().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < buffer.len() {
            match self.read_some(offset + done as u64, &mut buffer[done..])? {
                0 => return Err(lost(offset + done as u64, buffer.len() - done)),
                length => done += length,
            }
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes(), offset, 1)?;
        let piece = self.locate(offset);
        let row = self.parity.rows.row(piece.row);
        let place = piece.row * self.parity.chunk_bytes + piece.in_chunk;
        let slot = self.slot(row.data[piece.index].0)?;
        let limit = piece.length.min(slot.run_at(place).1);
        match slot.extent_at(place) {
            Some(extent) => extent.map(|extent| Extent {
                length: extent.length.min(limit),
                kind: extent.kind,
            }),
            None => Ok(Extent {
                length: limit,
                kind: crate::block::ExtentKind::Data,
            }),
        }
    }
}

impl WriteAt for ParityArray {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes(), offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        let _writing = self.row.write().unwrap_or_else(PoisonError::into_inner);
        self.gate.pass()?;
        let first = self.locate(offset).row;
        let last = self.locate(offset + bytes.len() as u64 - 1).row;
        (first..=last).try_for_each(|number| self.write_row(number, offset, bytes))
    }

    fn flush(&self) -> Result<()> {
        self.slots.iter().try_for_each(Slot::flush)
    }
}
