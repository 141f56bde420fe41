// SPDX-License-Identifier: MIT OR Apache-2.0
//! RAID-4, 5 and 6: chunks that go round the columns, and in every stripe one or two chunks of
//! parity.
//!
//! The algorithms and their numbers are those of drivers/md/raid5.c: which column has what is told
//! by [`Rows`], and how the parities are computed by `galois`.
//!
//! What cannot be read is computed. Writing keeps the parity right, and is refused where a column
//! is missing: the bytes there could not be written, and nothing would say so.

use std::sync::{Arc, Mutex, PoisonError};

use super::super::galois::{add, add_product, inverse, power, scale};
use super::super::parity_rows::{Row, Rows};
use super::{Column, shortest};
use crate::block::{Extent, ReadAt, WriteAt, check_range};
use crate::error::{Error, Result};

/// The powers of 2 in the field repeat after so many: more columns cannot be told apart.
const COLUMNS_MAX: usize = 255;

/// Where the parity of a stripe lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Algorithm {
    /// 1 for RAID-4 and 5, 2 for RAID-6.
    pub(crate) parity_count: usize,
    /// The number that md and dm-raid store.
    pub(crate) number: u32,
}

/// Columns with parity as one device.
#[derive(Debug)]
pub(crate) struct Parity {
    columns: Vec<Column>,
    rows: Rows,
    chunk: u64,
    length_bytes: u64,
    /// Two writes to one stripe would both change its parity.
    writing: Mutex<()>,
}

impl Algorithm {
    /// `None` for a number that is not known, or for too few columns.
    fn rows(self, count: usize) -> Option<Rows> {
        match self.parity_count {
            1 => Rows::new(count, self.number, false),
            2 => Rows::new(count, self.number, true),
            _ => None,
        }
    }
}

impl Parity {
    /// Chunks of `chunk` bytes on `columns`, which are as long as the shortest of them.
    ///
    /// `structure` names the volume in errors.
    pub(crate) fn new(
        structure: &'static str,
        columns: Vec<Column>,
        chunk: u64,
        algorithm: Algorithm,
    ) -> Result<Self> {
        let count = columns.len();
        let is_possible = (algorithm.parity_count + 1..=COLUMNS_MAX).contains(&count);
        let rows = algorithm.rows(count);
        let Some(rows) = rows.filter(|_| is_possible && chunk > 0) else {
            let feature = format!(
                "algorithm {} with chunks of {chunk} bytes on {count} devices",
                algorithm.number
            );
            return Err(Error::unsupported(structure, feature));
        };
        let unreadable = columns.iter().filter(|column| column.readable().is_none());
        let reasons: Vec<&str> = unreadable.map(Column::why_unreadable).collect();
        if reasons.len() > algorithm.parity_count {
            let feature = format!(
                "reading without {} of {count} devices because {}",
                reasons.len(),
                reasons[0]
            );
            return Err(Error::unsupported(structure, feature));
        }
        let shortest = shortest(&columns);
        let length = (shortest - shortest % chunk).checked_mul(rows.data_disks() as u64);
        Ok(Self {
            columns,
            rows,
            chunk,
            length_bytes: length.ok_or(Error::Limit {
                what: "bytes of a volume",
                limit: u64::MAX,
            })?,
            writing: Mutex::new(()),
        })
    }

    /// The row of the bytes at `offset`, their column and its power, where on it, and how far that
    /// goes.
    fn place(&self, offset: u64) -> (Row, (usize, usize), u64, u64) {
        let data_count = self.rows.data_disks() as u64;
        let (index, within) = (offset / self.chunk, offset % self.chunk);
        let number = index / data_count;
        let row = self.rows.row(number);
        let data = row.data[(index % data_count) as usize];
        let at = number * self.chunk + within;
        (row, data, at, self.chunk - within)
    }

    fn read_column(&self, column: usize, at: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        match self.columns[column].readable() {
            Some(device) => device.read_exact_at(at, &mut bytes)?,
            None => return Err(missing("read", at, length)),
        }
        Ok(bytes)
    }

    /// The sums of the data that can be read, with and without powers.
    fn sums(&self, row: &Row, at: u64, length: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut p, mut q) = (vec![0; length], vec![0; length]);
        for &(column, exponent) in &row.data {
            if self.columns[column].readable().is_none() {
                continue;
            }
            let bytes = self.read_column(column, at, length)?;
            add(&mut p, &bytes);
            add_product(&mut q, power(exponent), &bytes);
        }
        Ok((p, q))
    }

    /// Computes bytes of a data column that cannot be read.
    fn reconstruct(
        &self,
        row: &Row,
        (lost, exponent): (usize, usize),
        at: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let is_lost = |column: usize| self.columns[column].readable().is_none();
        let mut data = row.data.iter().copied();
        let other = data.find(|&(column, _)| column != lost && is_lost(column));
        let (mut p, mut q) = self.sums(row, at, buffer.len())?;
        if other.is_none() && !is_lost(row.p) {
            add(&mut p, &self.read_column(row.p, at, buffer.len())?);
            buffer.copy_from_slice(&p);
            return Ok(());
        }
        let q_column = row.q.ok_or_else(|| missing("read", at, buffer.len()))?;
        add(&mut q, &self.read_column(q_column, at, buffer.len())?);
        let Some((_, other)) = other else {
            // q is now the lost data, multiplied.
            buffer.copy_from_slice(&q);
            scale(buffer, inverse(power(exponent)));
            return Ok(());
        };
        add(&mut p, &self.read_column(row.p, at, buffer.len())?);
        // p = x + y and q = 2^a x + 2^b y, so x = (2^b p + q) / (2^a + 2^b).
        add_product(&mut q, power(other), &p);
        buffer.copy_from_slice(&q);
        scale(buffer, inverse(power(exponent) ^ power(other)));
        Ok(())
    }

    fn write_piece(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (row, (column, exponent), at, _) = self.place(offset);
        let mut difference = self.read_column(column, at, bytes.len())?;
        add(&mut difference, bytes);
        let mut p = self.read_column(row.p, at, bytes.len())?;
        add(&mut p, &difference);
        let mut changes = vec![(row.p, p), (column, bytes.to_vec())];
        if let Some(q_column) = row.q {
            let mut q = self.read_column(q_column, at, bytes.len())?;
            add_product(&mut q, power(exponent), &difference);
            changes.push((q_column, q));
        }
        for (column, bytes) in changes {
            if let Some(device) = self.columns[column].readable() {
                device.write_all_at(at, &bytes)?;
            }
        }
        Ok(())
    }

    fn devices(&self) -> impl Iterator<Item = &Arc<dyn WriteAt>> {
        self.columns.iter().filter_map(Column::readable)
    }
}

fn missing(action: &'static str, offset: u64, length: usize) -> Error {
    Error::Device {
        action,
        offset,
        length: length as u64,
        source: "a device of the RAID is missing or not in sync".into(),
    }
}

impl ReadAt for Parity {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes, offset, buffer.len())?;
        let mut done = 0;
        while done < buffer.len() {
            let (row, data, at, length) = self.place(offset + done as u64);
            let count = length.min((buffer.len() - done) as u64) as usize;
            let part = &mut buffer[done..done + count];
            match self.columns[data.0].readable() {
                Some(device) => device.read_exact_at(at, part)?,
                None => self.reconstruct(&row, data, at, part)?,
            }
            done += count;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes, offset, 1)?;
        let (_, (column, _), at, length) = self.place(offset);
        let length = length.min(self.length_bytes - offset);
        match self.columns[column].readable() {
            Some(device) => {
                let extent = device.extent_at(at)?;
                Ok(Extent {
                    length: extent.length.min(length),
                    kind: extent.kind,
                })
            }
            None => Ok(Extent {
                length,
                kind: crate::block::ExtentKind::Data,
            }),
        }
    }
}

impl WriteAt for Parity {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes, offset, bytes.len())?;
        if self.devices().count() != self.columns.len() {
            return Err(missing("write", offset, bytes.len()));
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < bytes.len() {
            let (_, _, _, length) = self.place(offset + done as u64);
            let count = length.min((bytes.len() - done) as u64) as usize;
            self.write_piece(offset + done as u64, &bytes[done..done + count])?;
            done += count;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.devices().try_for_each(|device| device.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;

    const KNOWN: [(usize, u32); 17] = [
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
        (1, 5),
        (2, 0),
        (2, 1),
        (2, 2),
        (2, 3),
        (2, 4),
        (2, 5),
        (2, 8),
        (2, 9),
        (2, 10),
        (2, 16),
        (2, 19),
    ];

    fn columns(count: usize) -> Vec<Arc<dyn WriteAt>> {
        let device = || Arc::new(MemoryDevice::from(vec![0; 64])) as Arc<dyn WriteAt>;
        (0..count).map(|_| device()).collect()
    }

    fn without(devices: &[Arc<dyn WriteAt>], lost: &[usize]) -> Vec<Column> {
        let column = |(index, device): (usize, &Arc<dyn WriteAt>)| match lost.contains(&index) {
            true => Column::Absent {
                reason: "a disk is gone".to_owned(),
                is_recorded: true,
            },
            false => Column::InSync(Arc::clone(device)),
        };
        devices.iter().enumerate().map(column).collect()
    }

    #[test]
    fn what_was_written_is_read_whichever_columns_are_lost() {
        for (parity_count, number) in KNOWN {
            let algorithm = Algorithm {
                parity_count,
                number,
            };
            let devices = columns(6);
            let whole = Parity::new("test", without(&devices, &[]), 4, algorithm).expect("whole");
            assert_eq!(whole.length_bytes(), 64 * (6 - parity_count as u64));
            let content: Vec<u8> = (0..whole.length_bytes())
                .map(|at| (at * 7 + at / 16) as u8)
                .collect();
            whole.write_all_at(0, &content).expect("inside");
            whole.write_all_at(5, &content[5..90]).expect("inside");
            for first in 0..6 {
                for second in 0..6 {
                    let lost = match parity_count {
                        1 => vec![first],
                        _ => vec![first, second],
                    };
                    let columns = without(&devices, &lost);
                    let degraded = Parity::new("test", columns, 4, algorithm).expect("enough");
                    let mut read = vec![0; content.len() - 3];
                    degraded.read_exact_at(3, &mut read).expect("inside");
                    assert!(read == content[3..], "{algorithm:?} without {lost:?}");
                    assert!(degraded.write_all_at(0, &[1]).is_err());
                }
            }
            let lost: Vec<usize> = (0..=parity_count).collect();
            let error = Parity::new("test", without(&devices, &lost), 4, algorithm);
            let error = error.expect_err("too many are lost").to_string();
            assert!(error.contains("a disk is gone"), "{error}");
        }
    }

    #[test]
    fn unknown_algorithms_and_too_few_columns_are_unsupported() {
        let devices = columns(3);
        for (parity_count, number) in [(1, 6), (2, 7), (2, 21), (3, 0)] {
            let algorithm = Algorithm {
                parity_count,
                number,
            };
            assert!(Parity::new("test", without(&devices, &[]), 4, algorithm).is_err());
        }
        let two = Algorithm {
            parity_count: 2,
            number: 8,
        };
        assert!(Parity::new("test", without(&devices[..2], &[]), 4, two).is_err());
        assert!(Parity::new("test", without(&devices, &[]), 0, two).is_err());
    }
}
