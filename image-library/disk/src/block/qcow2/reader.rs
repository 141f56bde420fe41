// SPDX-License-Identifier: MIT OR Apache-2.0
//! A qcow2 image as a device.
//!
//! Limits: 16 MiB of L2 tables and 8 MiB of decompressed clusters are kept, and one run is found
//! per step, so memory does not grow with the disk. The L1 table is checked when the image is
//! opened; L2 tables too while they are few, so that a truncated file is told at once; the other
//! tables when they are first used.

use std::fmt;
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

impl fmt::Debug for Qcow2Image {
    /// Without the tables, which may have millions of entries.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Qcow2Image")
            .field("file", &self.file)
            .field("header", &self.header)
            .field("backing", &self.backing)
            .finish_non_exhaustive()
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
            let length = rest
                .len()
                .min(usize::try_from(length).unwrap_or(usize::MAX));
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
    let corrupt = |offset, problem| Err(Error::corrupt("qcow2 L1 table", offset, problem));
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
        if !table.is_multiple_of(header.cluster_size())
            || table + header.cluster_size() > file_length
        {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;
    use crate::block::qcow2::writer::{Backing, CLUSTER_SIZE, Qcow2Writer};
    use proptest::prelude::{any, prop, proptest};
    use std::io::Cursor;

    /// A disk of 20 clusters and a half: number 2 is data, 5 zeros, the last one data.
    fn image(backing: Option<Backing>) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let size = 20 * CLUSTER_SIZE + CLUSTER_SIZE / 2;
        let mut writer = Qcow2Writer::new(&mut file, size, backing).expect("memory");
        writer.data(2, &[2; CLUSTER_SIZE as usize]).expect("memory");
        writer.zero(5).expect("memory");
        writer
            .data(20, &[20; CLUSTER_SIZE as usize / 2])
            .expect("memory");
        writer.finish().expect("memory");
        file.into_inner()
    }

    fn open(bytes: Vec<u8>, backing: Option<Arc<dyn ReadAt>>) -> Result<Qcow2Image> {
        let file = Arc::new(MemoryDevice::from(bytes));
        let header = read_header(&file)?;
        Qcow2Image::open(file, header, backing)
    }

    fn byte(device: &dyn ReadAt, offset: u64) -> u8 {
        let mut read = [0xee];
        device.read_exact_at(offset, &mut read).expect("inside");
        read[0]
    }

    #[test]
    fn data_zeros_and_backing_are_read_from_where_they_are() {
        // The backing file ends within cluster 6.
        let backing = vec![7; 6 * CLUSTER_SIZE as usize + 100];
        let disk = open(image(None), Some(Arc::new(MemoryDevice::from(backing)))).expect("sound");
        let at = |cluster: u64| byte(&disk, cluster * CLUSTER_SIZE);
        assert_eq!([0, 2, 3, 5, 6, 7, 20].map(at), [7, 2, 7, 0, 7, 0, 20]);
        let mut across = vec![0; 200];
        disk.read_exact_at(6 * CLUSTER_SIZE, &mut across)
            .expect("inside");
        assert_eq!(across, [vec![7; 100], vec![0; 100]].concat());
        assert!(
            disk.read_exact_at(disk.length_bytes() - 1, &mut [0; 2])
                .is_err()
        );
    }

    #[test]
    fn extents_join_what_is_alike() {
        let disk = open(image(None), None).expect("sound");
        let extent = |cluster: u64| {
            let found = disk.extent_at(cluster * CLUSTER_SIZE).expect("inside");
            (found.kind, found.length as f64 / CLUSTER_SIZE as f64)
        };
        assert_eq!(extent(0), (ExtentKind::Zero, 2.0));
        assert_eq!(extent(2), (ExtentKind::Data, 1.0));
        assert_eq!(extent(5), (ExtentKind::Zero, 1.0));
        assert_eq!(extent(6), (ExtentKind::Zero, 14.0));
        assert_eq!(extent(20), (ExtentKind::Data, 0.5));
        assert!(disk.extent_at(disk.length_bytes()).is_err());
    }

    #[test]
    fn a_file_that_was_cut_off_is_told_when_it_is_opened() {
        let whole = image(None);
        // Data is in clusters 1 and 2 of the file, the L2 table in 3, the L1 table in 4.
        let cut = |clusters: usize| open(whole[..clusters * 0x1_0000].to_vec(), None);
        let text = |clusters| cut(clusters).expect_err("it was cut off").to_string();
        assert_eq!(
            text(4),
            "qcow2 L1 table at byte 0x40000: expected 1 entries, \
             found the end of the file at 0x40000"
        );
        let mut bytes = whole.clone();
        bytes.copy_within(0x4_0000..0x5_0000, 0x1_0000);
        bytes[0x28..0x30].copy_from_slice(&0x1_0000_u64.to_be_bytes());
        bytes.truncate(0x3_8000);
        let error = open(bytes, None).expect_err("the L2 table was cut off");
        assert_eq!(
            error.to_string(),
            "qcow2 L1 table at byte 0x10000: expected an L2 table before the end of the file at \
             0x38000, found 0x30000"
        );
    }

    #[test]
    fn a_cluster_that_was_cut_off_is_told_when_it_is_read() {
        let mut bytes = image(None);
        // The last data cluster goes on past the end: move it there.
        let end = bytes.len() as u64;
        bytes.extend([9; 512]);
        bytes[0x3_0000 + 20 * 8..0x3_0000 + 21 * 8].copy_from_slice(&end.to_be_bytes());
        let disk = open(bytes, None).expect("it begins inside the file");
        assert_eq!(byte(&disk, 20 * CLUSTER_SIZE + 511), 9);
        let error = disk
            .read_exact_at(20 * CLUSTER_SIZE, &mut [0; 513])
            .expect_err("one byte is missing");
        assert_eq!(
            error.to_string(),
            "qcow2 cluster at byte 0x70000: expected 513 bytes, found the end of the file at \
             0x70200"
        );
    }

    #[test]
    fn own_runs_leave_out_what_is_below() {
        let disk = open(image(None), None).expect("sound");
        let runs: Vec<(u64, u64)> = disk
            .own_runs()
            .map(|run| run.expect("sound"))
            .map(|(start, length)| (start / CLUSTER_SIZE, length))
            .collect();
        let expected = [(2, CLUSTER_SIZE), (5, CLUSTER_SIZE), (20, CLUSTER_SIZE / 2)];
        assert_eq!(runs, expected);
    }

    proptest! {
        #[test]
        fn no_image_makes_the_reader_panic(
            changes in prop::collection::vec((0..7_usize, 0..200_usize, any::<u8>()), 1..30),
        ) {
            let mut bytes = image(None);
            for (cluster, at, value) in changes {
                if let Some(byte) = bytes.get_mut(cluster * 0x1_0000 + at) {
                    *byte = value;
                }
            }
            if let Ok(disk) = open(bytes, None) {
                let mut buffer = [0; 4096];
                for offset in (0..20).map(|cluster| cluster * CLUSTER_SIZE + 77) {
                    let _ = disk.extent_at(offset);
                    let _ = disk.read_exact_at(offset, &mut buffer);
                }
            }
        }
    }
}
