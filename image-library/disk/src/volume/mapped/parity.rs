// SPDX-License-Identifier: MIT OR Apache-2.0
//! RAID-4, 5 and 6: chunks that go round the columns, and in every stripe one or two chunks of
//! parity.
//!
//! The algorithms and their numbers are those of drivers/md/raid5.c, in which `P` is the sum of the
//! data and `Q` the sum of the data, each multiplied by a power of 2 in the field of lib/raid6
//! (polynomial 0x11d). The powers begin with the chunk behind `Q`, but in the layouts of DDF (8 to
//! 10), where they are the numbers of the columns.
//!
//! What cannot be read is computed. Writing keeps the parity right, and is refused where a column
//! is missing: the bytes there could not be written, and nothing would say so.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Column, shortest};
use crate::block::{Extent, ReadAt, WriteAt, check_range};
use crate::error::{Error, Result};

/// Powers of 2 in the field, twice over so that sums of two logarithms need no remainder.
static POWERS: [u8; 510] = powers();
static LOGARITHMS: [u8; 256] = logarithms();
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

/// The columns of one stripe.
#[derive(Debug, PartialEq, Eq)]
struct Stripe {
    p: usize,
    q: Option<usize>,
    /// The columns of the data chunks, in their order.
    data: Vec<usize>,
    /// For every column the power of 2 that it has in `Q`.
    powers: Vec<usize>,
}

/// Columns with parity as one device.
#[derive(Debug)]
pub(crate) struct Parity {
    columns: Vec<Column>,
    algorithm: Algorithm,
    chunk: u64,
    length_bytes: u64,
    /// Two writes to one stripe would both change its parity.
    writing: Mutex<()>,
}

impl Algorithm {
    /// The stripe of that number on so many columns; `None` for a number that is not known.
    fn stripe(self, number: u64, count: usize) -> Option<Stripe> {
        let rotating = |period: usize| (number % period as u64) as usize;
        let last = count - 1;
        let (p, q) = match (self.parity_count, self.number) {
            (1, 0 | 2) => (last - rotating(count), None),
            (1, 1 | 3) => (rotating(count), None),
            (1, 4) => (0, None),
            (1, 5) => (last, None),
            (2, 0 | 2) => following(last - rotating(count), count),
            (2, 1 | 3 | 8) => following(rotating(count), count),
            (2, 4) => (0, Some(1)),
            (2, 5) => (last - 1, Some(last)),
            (2, 9) => following(last - ((rotating(count) + 1) % count), count),
            (2, 10) => {
                let p = last - rotating(count);
                (p, Some((p + last) % count))
            }
            (2, 16 | 18) => (last - 1 - rotating(last), Some(last)),
            (2, 17 | 19) => (rotating(last), Some(last)),
            (2, 20) => (0, Some(last)),
            _ => return None,
        };
        let is_ddf = self.parity_count == 2 && (8..=10).contains(&self.number);
        // Symmetric layouts begin behind the parity, the others with the first column.
        let first = match (self.parity_count, self.number) {
            (1, 2 | 3) => p + 1,
            (2, 2 | 3) => p + 2,
            (2, 10 | 18 | 19) => p + 1,
            _ => 0,
        };
        // With `Q` always in the last column, the others go round without it.
        let period = if self.number >= 16 { last } else { count };
        let data: Vec<usize> = (0..period)
            .map(|index| (first + index) % period)
            .filter(|&column| column != p && Some(column) != q)
            .collect();
        let powers = powers_of_columns(count, p, q, is_ddf);
        Some(Stripe { p, q, data, powers })
    }
}

fn following(p: usize, count: usize) -> (usize, Option<usize>) {
    (p, Some((p + 1) % count))
}

fn powers_of_columns(count: usize, p: usize, q: Option<usize>, is_ddf: bool) -> Vec<usize> {
    if is_ddf {
        return (0..count).collect();
    }
    let mut powers = vec![0; count];
    let mut power = 0;
    let first = q.map_or(0, |q| q + 1);
    for column in (first..first + count).map(|column| column % count) {
        if column != p && Some(column) != q {
            powers[column] = power;
            power += 1;
        }
    }
    powers
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
        if !is_possible || chunk == 0 || algorithm.stripe(0, count).is_none() {
            let feature = format!(
                "algorithm {} with chunks of {chunk} bytes on {count} devices",
                algorithm.number
            );
            return Err(Error::unsupported(structure, feature));
        }
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
        let data_count = (count - algorithm.parity_count) as u64;
        let length = (shortest - shortest % chunk).checked_mul(data_count);
        Ok(Self {
            columns,
            algorithm,
            chunk,
            length_bytes: length.ok_or(Error::Limit {
                what: "bytes of a volume",
                limit: u64::MAX,
            })?,
            writing: Mutex::new(()),
        })
    }

    /// The stripe of the bytes at `offset`, their column, where on it, and how far that goes.
    fn place(&self, offset: u64) -> (Stripe, usize, u64, u64) {
        let data_count = (self.columns.len() - self.algorithm.parity_count) as u64;
        let (index, within) = (offset / self.chunk, offset % self.chunk);
        let number = index / data_count;
        let stripe = self
            .algorithm
            .stripe(number, self.columns.len())
            .expect("the algorithm was checked when the device was made");
        let column = stripe.data[(index % data_count) as usize];
        let at = number * self.chunk + within;
        (stripe, column, at, self.chunk - within)
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
    fn sums(&self, stripe: &Stripe, at: u64, length: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut p, mut q) = (vec![0; length], vec![0; length]);
        for &column in &stripe.data {
            if self.columns[column].readable().is_none() {
                continue;
            }
            let bytes = self.read_column(column, at, length)?;
            add(&mut p, &bytes);
            add_product(&mut q, &bytes, stripe.powers[column]);
        }
        Ok((p, q))
    }

    /// Computes bytes of a data column that cannot be read.
    fn reconstruct(&self, stripe: &Stripe, lost: usize, at: u64, buffer: &mut [u8]) -> Result<()> {
        let is_lost = |column: usize| self.columns[column].readable().is_none();
        let other = stripe
            .data
            .iter()
            .copied()
            .find(|&column| column != lost && is_lost(column));
        let (mut p, mut q) = self.sums(stripe, at, buffer.len())?;
        if other.is_none() && !is_lost(stripe.p) {
            add(&mut p, &self.read_column(stripe.p, at, buffer.len())?);
            buffer.copy_from_slice(&p);
            return Ok(());
        }
        let q_column = stripe.q.ok_or_else(|| missing("read", at, buffer.len()))?;
        add(&mut q, &self.read_column(q_column, at, buffer.len())?);
        let power = stripe.powers[lost];
        let Some(other) = other else {
            // q is now the lost data, multiplied.
            for (target, byte) in buffer.iter_mut().zip(&q) {
                *target = divide(*byte, power_of_two(power));
            }
            return Ok(());
        };
        add(&mut p, &self.read_column(stripe.p, at, buffer.len())?);
        // p = x + y and q = 2^a x + 2^b y, so x = (2^b p + q) / (2^a + 2^b).
        let other_power = stripe.powers[other];
        let divisor = power_of_two(power) ^ power_of_two(other_power);
        add_product(&mut q, &p, other_power);
        for (target, byte) in buffer.iter_mut().zip(&q) {
            *target = divide(*byte, divisor);
        }
        Ok(())
    }

    fn write_piece(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (stripe, column, at, _) = self.place(offset);
        let mut difference = self.read_column(column, at, bytes.len())?;
        add(&mut difference, bytes);
        let mut p = self.read_column(stripe.p, at, bytes.len())?;
        add(&mut p, &difference);
        let mut changes = vec![(stripe.p, p), (column, bytes.to_vec())];
        if let Some(q_column) = stripe.q {
            let mut q = self.read_column(q_column, at, bytes.len())?;
            add_product(&mut q, &difference, stripe.powers[column]);
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
            let (stripe, column, at, length) = self.place(offset + done as u64);
            let count = length.min((buffer.len() - done) as u64) as usize;
            let part = &mut buffer[done..done + count];
            match self.columns[column].readable() {
                Some(device) => device.read_exact_at(at, part)?,
                None => self.reconstruct(&stripe, column, at, part)?,
            }
            done += count;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes, offset, 1)?;
        let (_, column, at, length) = self.place(offset);
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

fn add(sum: &mut [u8], bytes: &[u8]) {
    for (target, byte) in sum.iter_mut().zip(bytes) {
        *target ^= byte;
    }
}

/// Adds bytes, each multiplied by a power of 2.
fn add_product(sum: &mut [u8], bytes: &[u8], power: usize) {
    for (target, byte) in sum.iter_mut().zip(bytes) {
        if *byte != 0 {
            *target ^= POWERS[usize::from(LOGARITHMS[usize::from(*byte)]) + power % 255];
        }
    }
}

fn power_of_two(power: usize) -> u8 {
    POWERS[power % 255]
}

/// `divisor` is never 0: two powers below 255 are different.
fn divide(byte: u8, divisor: u8) -> u8 {
    if byte == 0 {
        return 0;
    }
    let logarithm = |byte: u8| usize::from(LOGARITHMS[usize::from(byte)]);
    POWERS[logarithm(byte) + 255 - logarithm(divisor)]
}

const fn powers() -> [u8; 510] {
    let mut table = [0; 510];
    let (mut value, mut index) = (1u16, 0);
    while index < 510 {
        table[index] = value as u8;
        value <<= 1;
        if value > 0xff {
            value ^= 0x11d;
        }
        index += 1;
    }
    table
}

const fn logarithms() -> [u8; 256] {
    let mut table = [0; 256];
    let powers = powers();
    let mut index = 0;
    while index < 255 {
        table[powers[index] as usize] = index as u8;
        index += 1;
    }
    table
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
