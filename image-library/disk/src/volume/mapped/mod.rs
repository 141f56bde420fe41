// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that is made of others, its columns: one behind the other, in stripes, or in copies of
//! each other.
//!
//! | layout | the bytes at an offset lie |
//! |---|---|
//! | concatenated | in the column that its start says |
//! | near | in chunks that go round the columns, each chunk in `copies` columns beside each other |
//!
//! Near with one copy is striping (RAID-0, dm-stripe), with as many copies as columns mirroring
//! (RAID-1, dm-mirror), and between them RAID-10 as drivers/md/raid10.c lays it out. [`parity`] has
//! RAID-4, 5 and 6.
//!
//! **Invariant:** every byte has a column that can be read, checked when the device is made.

mod parity;
mod plain;

use std::ops::Range;
use std::sync::Arc;

use crate::block::{Extent, ReadAt, WriteAt, check_length, check_range};
use crate::error::{Error, Result};

pub(crate) use parity::{Algorithm, Parity};
pub(crate) use plain::{Failing, Zeros};

/// What stands for one of the devices below.
#[derive(Debug, Clone)]
pub(crate) enum Column {
    /// Holds what it should.
    InSync(Arc<dyn WriteAt>),
    /// Is written but not read: it was left behind, or is being built.
    Stale(Arc<dyn WriteAt>),
    /// Is not there.
    Absent {
        /// Why, to be put behind "because".
        reason: String,
        /// The other columns know that, so that they may change without it.
        is_recorded: bool,
    },
}

impl Column {
    /// The device, where it holds what it should.
    pub(crate) fn readable(&self) -> Option<&Arc<dyn WriteAt>> {
        match self {
            Self::InSync(device) => Some(device),
            Self::Stale(_) | Self::Absent { .. } => None,
        }
    }

    fn device(&self) -> Option<&Arc<dyn WriteAt>> {
        match self {
            Self::InSync(device) | Self::Stale(device) => Some(device),
            Self::Absent { .. } => None,
        }
    }

    fn why_unreadable(&self) -> &str {
        match self {
            Self::InSync(_) => "it can be read",
            Self::Stale(_) => "it is not in sync",
            Self::Absent { reason, .. } => reason,
        }
    }
}

#[derive(Debug)]
enum Layout {
    /// Where each column begins.
    Concatenated(Vec<u64>),
    Near {
        chunk: u64,
        copies: usize,
    },
}

/// Where one copy of some bytes lies.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    column: usize,
    offset: u64,
    /// How far it goes on like this.
    length: u64,
}

/// Several devices as one.
#[derive(Debug)]
pub(crate) struct Mapped {
    columns: Vec<Column>,
    layout: Layout,
    length_bytes: u64,
}

impl Mapped {
    /// One device behind the other.
    pub(crate) fn concatenated(devices: Vec<Arc<dyn WriteAt>>) -> Result<Self> {
        let mut starts = Vec::with_capacity(devices.len());
        let mut end = 0u64;
        for device in &devices {
            starts.push(end);
            end = end.checked_add(device.length_bytes()).ok_or(Error::Limit {
                what: "bytes of a volume",
                limit: u64::MAX,
            })?;
        }
        Ok(Self {
            columns: devices.into_iter().map(Column::InSync).collect(),
            layout: Layout::Concatenated(starts),
            length_bytes: end,
        })
    }

    /// Chunks of `chunk` bytes that go round `columns`, `copies` times each.
    ///
    /// `structure` names the volume in errors. The columns are as long as the shortest of them.
    pub(crate) fn near(
        structure: &'static str,
        columns: Vec<Column>,
        chunk: u64,
        copies: usize,
    ) -> Result<Self> {
        let groups = columns.len().checked_div(copies).unwrap_or(0);
        if groups == 0 || groups * copies != columns.len() || chunk == 0 {
            let feature = format!(
                "{copies} copies of chunks of {chunk} bytes on {} devices",
                columns.len()
            );
            return Err(Error::unsupported(structure, feature));
        }
        let shortest = shortest(&columns);
        let used = if groups == 1 {
            shortest
        } else {
            shortest - shortest % chunk
        };
        let length_bytes = used.checked_mul(groups as u64).ok_or(Error::Limit {
            what: "bytes of a volume",
            limit: u64::MAX,
        })?;
        for group in columns.chunks_exact(copies) {
            if !group.iter().any(|column| column.readable().is_some()) {
                let reason = group.first().map_or("", Column::why_unreadable);
                return Err(Error::unsupported(
                    structure,
                    format!("reading when no copy is left because {reason}"),
                ));
            }
        }
        Ok(Self {
            columns,
            layout: Layout::Near { chunk, copies },
            length_bytes,
        })
    }

    /// All of every device, each with the same bytes.
    pub(crate) fn mirrored(structure: &'static str, columns: Vec<Column>) -> Result<Self> {
        let copies = columns.len();
        Self::near(structure, columns, u64::MAX, copies)
    }

    fn copies(&self) -> usize {
        match self.layout {
            Layout::Concatenated(_) => 1,
            Layout::Near { copies, .. } => copies,
        }
    }

    /// Where copy `copy` of the bytes from `offset` lies; `offset` lies within the device.
    fn place(&self, offset: u64, copy: usize) -> Place {
        match &self.layout {
            Layout::Concatenated(starts) => {
                let column = starts.partition_point(|&start| start <= offset) - 1;
                let end = starts.get(column + 1).copied();
                Place {
                    column,
                    offset: offset - starts[column],
                    length: end.unwrap_or(self.length_bytes) - offset,
                }
            }
            Layout::Near { chunk, copies } => {
                let count = self.columns.len() as u64;
                let (index, within) = (offset / chunk, offset % chunk);
                let position = index * *copies as u64 + copy as u64;
                Place {
                    column: (position % count) as usize,
                    offset: position / count * chunk + within,
                    length: (chunk - within).min(self.length_bytes - offset),
                }
            }
        }
    }

    /// The first copy of the bytes at `offset` that can be read.
    fn readable(&self, offset: u64) -> Result<(&Arc<dyn WriteAt>, Place)> {
        for copy in 0..self.copies() {
            let place = self.place(offset, copy);
            if let Some(device) = self.columns[place.column].readable() {
                return Ok((device, place));
            }
        }
        Err(Error::Device {
            action: "read",
            offset,
            length: 1,
            source: "no copy can be read".into(),
        })
    }

    /// Goes through all copies of a range: the device, where on it, and which part of the range.
    fn change(
        &self,
        (offset, length): (u64, u64),
        mut change: impl FnMut(&dyn WriteAt, u64, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        refuse_unrecorded(&self.columns, offset, length)?;
        let mut done = 0;
        while done < length {
            let mut next = length;
            for copy in 0..self.copies() {
                let place = self.place(offset + done, copy);
                next = done + place.length.min(length - done);
                if let Some(device) = self.columns[place.column].device() {
                    change(&**device, place.offset, done..next)?;
                }
            }
            done = next;
        }
        Ok(())
    }
}

fn shortest(columns: &[Column]) -> u64 {
    let devices = columns.iter().filter_map(Column::device);
    let lengths = devices.map(|device| device.length_bytes());
    lengths.min().unwrap_or(0)
}

/// A write is refused where a column is not there that would be believed if it came back.
fn refuse_unrecorded(columns: &[Column], offset: u64, length: u64) -> Result<()> {
    let refusal = columns.iter().find_map(|column| match column {
        Column::Absent {
            reason,
            is_recorded: false,
        } => Some(reason),
        _ => None,
    });
    match refusal {
        None => Ok(()),
        Some(reason) => Err(Error::Device {
            action: "write",
            offset,
            length,
            source: format!(
                "a copy would be left behind without a record of that, because {reason}"
            )
            .into(),
        }),
    }
}

impl ReadAt for Mapped {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes, offset, buffer.len())?;
        let mut done = 0;
        while done < buffer.len() {
            let (device, place) = self.readable(offset + done as u64)?;
            let count = place.length.min((buffer.len() - done) as u64) as usize;
            device.read_exact_at(place.offset, &mut buffer[done..done + count])?;
            done += count;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes, offset, 1)?;
        let (device, place) = self.readable(offset)?;
        let extent = device.extent_at(place.offset)?;
        Ok(Extent {
            length: extent.length.min(place.length),
            kind: extent.kind,
        })
    }
}

impl WriteAt for Mapped {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes, offset, bytes.len())?;
        self.change((offset, bytes.len() as u64), |device, at, part| {
            device.write_all_at(at, &bytes[part.start as usize..part.end as usize])
        })
    }

    fn flush(&self) -> Result<()> {
        let mut devices = self.columns.iter().filter_map(Column::device);
        devices.try_for_each(|device| device.flush())
    }

    fn write_zeroes_at(&self, offset: u64, length: u64) -> Result<()> {
        check_length("zero", self.length_bytes, offset, length)?;
        self.change((offset, length), |device, at, part| {
            device.write_zeroes_at(at, part.end - part.start)
        })
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        check_length("discard", self.length_bytes, offset, length)?;
        self.change((offset, length), |device, at, part| {
            device.discard_at(at, part.end - part.start)
        })
    }

    fn has_cheap_zeros(&self, offset: u64, length: u64) -> bool {
        if length == 0 || check_length("zero", self.length_bytes, offset, length).is_err() {
            return false;
        }
        // What holds for the first piece holds for its neighbours, which lie on like devices.
        let place = self.place(offset, 0);
        self.columns[place.column]
            .device()
            .is_some_and(|device| device.has_cheap_zeros(place.offset, place.length.min(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{ExtentKind, MemoryDevice};

    fn filled(byte: u8, length: usize) -> Arc<dyn WriteAt> {
        Arc::new(MemoryDevice::from(vec![byte; length]))
    }

    fn in_sync(devices: &[Arc<dyn WriteAt>]) -> Vec<Column> {
        devices.iter().cloned().map(Column::InSync).collect()
    }

    fn absent(is_recorded: bool) -> Column {
        Column::Absent {
            reason: "a disk is gone".to_owned(),
            is_recorded,
        }
    }

    fn content(device: &dyn ReadAt) -> Vec<u8> {
        let mut bytes = vec![0; device.length_bytes() as usize];
        device.read_exact_at(0, &mut bytes).expect("readable");
        bytes
    }

    #[test]
    fn concatenated_devices_are_read_and_written_across_their_borders() {
        let devices = vec![filled(1, 5), filled(2, 3), Arc::new(Zeros(4)), filled(3, 2)];
        let volume = Mapped::concatenated(devices).expect("it fits");
        assert_eq!(content(&volume), [1, 1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 3, 3]);
        let extent = volume.extent_at(9).expect("inside");
        assert_eq!((extent.length, extent.kind), (3, ExtentKind::Zero));
        volume.write_all_at(3, &[7; 4]).expect("inside");
        volume.write_zeroes_at(12, 1).expect("inside");
        assert_eq!(content(&volume), [1, 1, 1, 7, 7, 7, 7, 2, 0, 0, 0, 0, 0, 3]);
        assert!(volume.write_all_at(13, &[0; 2]).is_err());
        assert!(volume.extent_at(14).is_err());
        volume.flush().expect("flush");
        let empty = Mapped::concatenated(Vec::new()).expect("nothing");
        assert_eq!(empty.length_bytes(), 0);
        assert!(empty.read_exact_at(0, &mut [0]).is_err());
    }

    #[test]
    fn stripes_and_their_copies_lie_where_the_kernel_puts_them() {
        let devices: Vec<_> = (0..4).map(|_| filled(0, 7)).collect();
        let stripes = Mapped::near("test", in_sync(&devices), 2, 1).expect("it fits");
        assert_eq!(stripes.length_bytes(), 24, "the odd bytes are not used");
        stripes
            .write_all_at(0, &(0..24).collect::<Vec<u8>>())
            .expect("inside");
        assert_eq!(content(&devices[1]), [2, 3, 10, 11, 18, 19, 0]);
        assert_eq!(content(&stripes), (0..24).collect::<Vec<u8>>());

        let raid10 = Mapped::near("test", in_sync(&devices), 2, 2).expect("it fits");
        assert_eq!(raid10.length_bytes(), 12);
        raid10
            .write_all_at(1, &(1..12).collect::<Vec<u8>>())
            .expect("inside");
        assert_eq!(content(&devices[0])[1..6], [1, 4, 5, 8, 9]);
        assert_eq!(content(&devices[1])[1..6], [1, 4, 5, 8, 9]);
        assert_eq!(content(&devices[3])[..6], [2, 3, 6, 7, 10, 11]);
    }

    #[test]
    fn copies_are_read_where_they_are_in_sync_and_written_everywhere() {
        let devices = [filled(1, 4), filled(2, 4), filled(3, 4)];
        let columns = vec![
            Column::Stale(Arc::clone(&devices[0])),
            absent(true),
            Column::InSync(Arc::clone(&devices[1])),
            Column::InSync(Arc::clone(&devices[2])),
        ];
        let volume = Mapped::mirrored("test", columns).expect("it can be read");
        assert_eq!(content(&volume), [2; 4]);
        volume.write_all_at(1, &[9]).expect("inside");
        assert_eq!(content(&devices[0]), [1, 9, 1, 1]);
        assert_eq!(content(&devices[2]), [3, 9, 3, 3]);
    }

    #[test]
    fn what_is_not_there_is_never_left_behind_silently() {
        let one = filled(1, 4);
        let columns = vec![Column::InSync(Arc::clone(&one)), absent(false)];
        let volume = Mapped::mirrored("test", columns).expect("it can be read");
        assert_eq!(content(&volume), [1; 4]);
        let error = volume.write_all_at(0, &[2]).expect_err("one is missing");
        let source = std::error::Error::source(&error).expect("a reason");
        assert!(source.to_string().contains("a disk is gone"), "{source}");

        let gone = vec![Column::InSync(one), absent(true)];
        let error = Mapped::near("test", gone, 2, 1).expect_err("a stripe is missing");
        assert!(error.to_string().contains("a disk is gone"), "{error}");
        assert!(Mapped::near("test", Vec::new(), 2, 1).is_err());
        assert!(Mapped::near("test", in_sync(&[filled(1, 1)]), 2, 2).is_err());
        assert!(Mapped::near("test", in_sync(&[filled(1, 1)]), 0, 1).is_err());
    }
}
