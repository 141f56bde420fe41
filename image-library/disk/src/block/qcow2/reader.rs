// SPDX-License-Identifier: MIT OR Apache-2.0
//! A qcow2 image as a device.
//!
//! Limits: 16 MiB of L2 tables and 8 MiB of decompressed clusters are kept, and one run is found
//! per step, so memory does not grow with the disk. The L1 table is checked when the image is
//! opened; L2 tables too while they are few, so that a truncated file is told at once; the other
//! tables when they are first used.

use std::sync::Arc;

use super::cache::Cache;
use super::compressed::decompress;
use super::header::{HEADER_LIMIT_BYTES, Header};
use super::table::{L2Table, OFFSET_MASK, Place};
use crate::block::{Extent, ExtentKind, ReadAt, array_at, check_range};
use crate::error::{Error, Result};

const TABLE_CACHE_BYTES: u64 = 16 << 20;
const CLUSTER_CACHE_BYTES: u64 = 8 << 20;
/// All L2 tables are checked at opening when they have no more bytes than this together: that
/// covers 128 GiB of allocated disk at the usual cluster size and takes a few milliseconds.
const CHECK_AT_OPEN_BYTES: u64 = 16 << 20;

/// A qcow2 image over the device that holds it.
#[derive(Debug)]
pub(crate) struct Qcow2Image {
    file: Arc<dyn ReadAt>,
    header: Header,
    /// Offsets of the L2 tables; 0 where there is none.
    l1: Vec<u64>,
    backing: Option<Arc<dyn ReadAt>>,
    tables: Cache<L2Table>,
    clusters: Cache<Vec<u8>>,
}

/// The header of the image in `file`.
pub(crate) fn read_header(file: &dyn ReadAt) -> Result<Header> {
    let limit = HEADER_LIMIT_BYTES as u64;
    let length = usize::try_from(file.length_bytes().min(limit)).unwrap_or(HEADER_LIMIT_BYTES);
    let mut bytes = vec![0; length];
    file.read_exact_at(0, &mut bytes)?;
    Header::from_bytes(&bytes)
}

impl Qcow2Image {
    /// Opens the image in `file`, whose header was read before.
    ///
    /// What the image does not hold is read from `backing`, and is zeros beyond its end or
    /// without one. The name of a backing file inside the header is the caller's to obey.
    pub(crate) fn open(
        file: Arc<dyn ReadAt>,
        header: Header,
        backing: Option<Arc<dyn ReadAt>>,
    ) -> Result<Self> {
        let l1 = read_l1(&*file, &header)?;
        let image = Self {
            tables: Cache::new(TABLE_CACHE_BYTES, header.cluster_size()),
            clusters: Cache::new(CLUSTER_CACHE_BYTES, header.cluster_size()),
            file,
            header,
            l1,
            backing,
        };
        image.check_tables()?;
        Ok(image)
    }

    /// The runs of the disk that this image itself holds, data or zeros, in order.
    pub(crate) fn own_runs(&self) -> impl Iterator<Item = Result<(u64, u64)>> + '_ {
        let mut offset = 0;
        std::iter::from_fn(move || {
            while offset < self.length_bytes() {
                let (start, run) = (offset, self.run_at(offset, u64::MAX));
                let (place, length) = match run {
                    Ok(found) => found,
                    Err(error) => {
                        offset = self.length_bytes();
                        return Some(Err(error));
                    }
                };
                offset += length;
                if place != Place::Backing {
                    return Some(Ok((start, length)));
                }
            }
            None
        })
    }

    fn check_tables(&self) -> Result<()> {
        let tables = self.l1.iter().filter(|offset| **offset != 0).count() as u64;
        if tables * self.header.cluster_size() > CHECK_AT_OPEN_BYTES {
            return Ok(());
        }
        for index in 0..self.l1.len() {
            self.table(index)?;
        }
        Ok(())
    }

    /// The table of the `index`th run of the disk, `None` where this image holds nothing of it.
    fn table(&self, index: usize) -> Result<Option<Arc<L2Table>>> {
        let offset = match self.l1.get(index) {
            None | Some(0) => return Ok(None),
            Some(offset) => *offset,
        };
        let load = || {
            let mut bytes = vec![0; self.cluster_length()];
            self.file.read_exact_at(offset, &mut bytes)?;
            L2Table::from_bytes(&bytes, &self.header, offset, self.file.length_bytes())
        };
        self.tables.get(offset, load).map(Some)
    }

    fn cluster_length(&self) -> usize {
        usize::try_from(self.header.cluster_size()).expect("a cluster has at most 2 MiB")
    }

    /// Where the byte at `offset` is, and for how many bytes the disk goes on there; looked for
    /// until `wanted` bytes are found.
    fn run_at(&self, offset: u64, wanted: u64) -> Result<(Place, u64)> {
        let per_table = self.header.bytes_per_l2();
        let end = self.length_bytes();
        let (first, mut length) = self.step_at(offset)?;
        // Never past the table of the first byte, unless it and those after it do not exist.
        let table_end = (offset / per_table + 1).saturating_mul(per_table).min(end);
        while length < wanted && offset + length < end {
            let next = offset + length;
            if next >= table_end && first != Place::Backing {
                break;
            }
            let (place, more) = self.step_at(next)?;
            if place != first.skip(length) || matches!(first, Place::Compressed { .. }) {
                break;
            }
            length += more;
        }
        Ok((first, length.min(end - offset)))
    }

    /// Like [`Self::run_at`], but to the end of a cluster, or of a run that has no table.
    fn step_at(&self, offset: u64) -> Result<(Place, u64)> {
        let per_table = self.header.bytes_per_l2();
        let within = offset % per_table;
        let index = usize::try_from(offset / per_table).unwrap_or(usize::MAX);
        match self.table(index)? {
            None => Ok((Place::Backing, per_table - within)),
            Some(table) => Ok(table.place_at(within)),
        }
    }

    fn read_run(&self, place: Place, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match place {
            Place::Zero => buffer.fill(0),
            Place::Backing => self.read_backing(offset, buffer)?,
            Place::File(at) => self.read_file(at, buffer)?,
            Place::Compressed {
                offset: at,
                length,
                within,
            } => {
                let cluster = self.clusters.get(at, || self.load_compressed(at, length))?;
                let start = usize::try_from(within).unwrap_or(usize::MAX);
                buffer.copy_from_slice(&cluster[start..start + buffer.len()]);
            }
        }
        Ok(())
    }

    fn read_backing(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let Some(backing) = &self.backing else {
            buffer.fill(0);
            return Ok(());
        };
        let there = backing.length_bytes().saturating_sub(offset);
        let split = buffer
            .len()
            .min(usize::try_from(there).unwrap_or(usize::MAX));
        let (inside, beyond) = buffer.split_at_mut(split);
        beyond.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        backing.read_exact_at(offset, inside)
    }

    /// Every cluster begins inside the file; where one goes on past the end it was cut off.
    fn read_file(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let file_length = self.file.length_bytes();
        if at + buffer.len() as u64 > file_length {
            return Err(Error::corrupt(
                "qcow2 cluster",
                at,
                format!(
                    "expected {} bytes, found the end of the file at {file_length:#x}",
                    buffer.len()
                ),
            ));
        }
        self.file.read_exact_at(at, buffer)
    }

    fn load_compressed(&self, at: u64, length: u64) -> Result<Vec<u8>> {
        // The length counts whole sectors; the file may end before the last one does.
        let stored = length.min(self.file.length_bytes() - at);
        let mut bytes = vec![0; usize::try_from(stored).unwrap_or(0)];
        self.file.read_exact_at(at, &mut bytes)?;
        decompress(self.header.compression, &bytes, self.cluster_length())
            .map_err(|problem| Error::corrupt("qcow2 compressed cluster", at, problem))
    }
}

impl ReadAt for Qcow2Image {
    fn length_bytes(&self) -> u64 {
        self.header.size_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes(), offset, buffer.len())?;
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let (place, length) = self.run_at(offset, rest.len() as u64)?;
            let length = rest.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let (now, later) = rest.split_at_mut(length);
            self.read_run(place, offset, now)?;
            offset += length as u64;
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes(), offset, 1)?;
        let (place, length) = self.run_at(offset, u64::MAX)?;
        let zero = Extent {
            length,
            kind: ExtentKind::Zero,
        };
        match (place, &self.backing) {
            (Place::File(_) | Place::Compressed { .. }, _) => Ok(Extent {
                length,
                kind: ExtentKind::Data,
            }),
            (Place::Backing, Some(backing)) if offset < backing.length_bytes() => {
                let extent = backing.extent_at(offset)?;
                Ok(Extent {
                    length: extent.length.min(length),
                    kind: extent.kind,
                })
            }
            (Place::Zero | Place::Backing, _) => Ok(zero),
        }
    }
}

fn read_l1(file: &dyn ReadAt, header: &Header) -> Result<Vec<u64>> {
    let needed = header.l1_entries_needed();
    let file_length = file.length_bytes();
    let corrupt =
        |offset, problem| Err(Error::corrupt("qcow2 L1 table", offset, problem));
    if header.l1_offset.saturating_add(needed * 8) > file_length {
        return corrupt(
            header.l1_offset,
            format!("expected {needed} entries, found the end of the file at {file_length:#x}"),
        );
    }
    let mut bytes = vec![0; usize::try_from(needed * 8).expect("the L1 table is limited")];
    file.read_exact_at(header.l1_offset, &mut bytes)?;
    let mut l1 = Vec::with_capacity(bytes.len() / 8);
    for (index, word) in bytes.chunks_exact(8).enumerate() {
        let table = u64::from_be_bytes(array_at(word, 0)) & OFFSET_MASK;
        if table % header.cluster_size() != 0 || table + header.cluster_size() > file_length {
            return corrupt(
                header.l1_offset + 8 * index as u64,
                format!(
                    "expected an L2 table before the end of the file at {file_length:#x}, \
                     found {table:#x}"
                ),
            );
        }
        l1.push(table);
    }
    Ok(l1)
}
