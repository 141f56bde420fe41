// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device as the seekable stream that the FAT library reads and writes.
//!
//! A hostile table can make a chain of clusters a ring, which the library would follow for ever, so
//! a stream has a budget of reads. It is far above what an honest operation needs.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::block::{ReadAt, WriteAt};

/// One operation reads an entry of the table per cluster, and clusters in pieces.
const READS_MAX: u64 = 1 << 22;

/// Where the bytes come from, and whether they may be changed.
#[derive(Debug, Clone)]
pub(super) enum Device {
    ReadOnly(Arc<dyn ReadAt>),
    Writable(Arc<dyn WriteAt>),
}

impl Device {
    pub(super) fn reader(&self) -> &dyn ReadAt {
        match self {
            Self::ReadOnly(device) => device,
            Self::Writable(device) => device,
        }
    }
}

/// The stream of one operation.
#[derive(Debug)]
pub(super) struct Stream {
    device: Device,
    position: u64,
    reads_left: u64,
    /// Where the next read begins is noted here, once asked for.
    note: Arc<Mutex<Note>>,
}

/// Where a read began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    #[default]
    NotAsked,
    Asked,
    Read(u64),
}

impl Stream {
    pub(super) fn new(device: Device, note: Arc<Mutex<Note>>) -> Self {
        Self {
            device,
            position: 0,
            reads_left: READS_MAX,
            note,
        }
    }

    fn clamp(&self, wanted: usize) -> usize {
        let left = self
            .device
            .reader()
            .length_bytes()
            .saturating_sub(self.position);
        wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads_left = self
            .reads_left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("a chain of clusters does not end"))?;
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        if *note == Note::Asked {
            *note = Note::Read(self.position);
        }
        drop(note);
        let count = self.clamp(buffer.len());
        self.device
            .reader()
            .read_exact_at(self.position, &mut buffer[..count])
            .map_err(io::Error::other)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.clamp(bytes.len());
        match &self.device {
            Device::Writable(device) => device
                .write_all_at(self.position, &bytes[..count])
                .map_err(io::Error::other)?,
            Device::ReadOnly(_) => return Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Stream {
    fn seek(&mut self, from: SeekFrom) -> io::Result<u64> {
        let (base, distance) = match from {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(distance) => (self.position, distance),
            SeekFrom::End(distance) => (self.device.reader().length_bytes(), distance),
        };
        self.position = base
            .checked_add_signed(distance)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
