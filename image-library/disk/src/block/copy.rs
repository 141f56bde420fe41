// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies of whole disks: to a sparse raw file or a standalone qcow2 image.
//!
//! What the source knows to be zeros is not read, and zeros that are read are not written. A raw
//! file is written by several threads, because an image that is read is decrypted, decompressed
//! and hashed by whoever reads it. Memory is a buffer of 1 MiB for each, at most
//! [`WORKERS_MAX`]; for qcow2, which is written in order, one buffer, the L1 table and one L2 table.
//!
//! A file is written beside its name, as `NAME.partial`, and gets its name when it is whole and
//! durable: a copy that was killed cannot be taken for a disk.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::file::file_error;
use super::qcow2::{CLUSTER_SIZE, Qcow2Writer};
use super::{ExtentKind, ReadAt, is_zero};
use crate::error::{Error, Result};
use crate::monitor::{Monitor, Unit};

const BUFFER_BYTES: u64 = 1 << 20;
/// The most threads that copy one disk.
const WORKERS_MAX: usize = 8;
/// So much is written before it is made durable beside the work: all at once at the end, the
/// processors would wait for the disk, and a disk of terabytes would fill the memory first.
const DURABLE_EACH_BYTES: u64 = 64 << 20;
/// Zeros are left out of raw files in this unit, the block size of the usual filesystems.
const RAW_BLOCK_BYTES: usize = 4096;

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyStats {
    /// The size of the disk.
    pub disk_bytes: u64,
    /// How much of it was written; the rest is zeros.
    pub written_bytes: u64,
}

/// Copies a disk to a new sparse raw file.
pub fn copy_to_raw(source: &dyn ReadAt, path: &Path, monitor: &dyn Monitor) -> Result<CopyStats> {
    let mut file = NewFile::create(path)?;
    let stats = file.write(|target| {
        let length = source.length_bytes();
        target
            .set_len(length)
            .map_err(|error| failed(0, 0, error))?;
        let target = &*target;
        let written_bytes = AtomicU64::new(0);
        each_data_at_once(source, monitor, |offset, bytes| {
            let mut length = 0;
            for (start, run) in data_runs(bytes) {
                let at = offset + start as u64;
                target
                    .write_all_at(run, at)
                    .map_err(|error| failed(at, run.len(), error))?;
                length += run.len() as u64;
            }
            let before = written_bytes.fetch_add(length, Ordering::Relaxed);
            if before / DURABLE_EACH_BYTES != (before + length) / DURABLE_EACH_BYTES {
                target
                    .sync_data()
                    .map_err(|error| failed(offset, bytes.len(), error))?;
            }
            Ok(())
        })?;
        Ok(CopyStats {
            disk_bytes: length,
            written_bytes: written_bytes.into_inner(),
        })
    })?;
    file.finish()?;
    Ok(stats)
}

/// Copies a disk to a new qcow2 image that needs no other file.
pub fn copy_to_qcow2(source: &dyn ReadAt, path: &Path, monitor: &dyn Monitor) -> Result<CopyStats> {
    let mut file = NewFile::create(path)?;
    let stats = file.write(|target| {
        let mut target = io::BufWriter::with_capacity(BUFFER_BYTES as usize, target);
        let mut writer = Qcow2Writer::new(&mut target, source.length_bytes(), None)?;
        let mut written_bytes = 0;
        each_data(source, monitor, |offset, bytes| {
            let first = offset / CLUSTER_SIZE;
            for (number, cluster) in (first..).zip(bytes.chunks(CLUSTER_SIZE as usize)) {
                if !is_zero(cluster) {
                    writer.data(number, cluster)?;
                    written_bytes += cluster.len() as u64;
                }
            }
            Ok(())
        })?;
        writer.finish()?;
        Ok(CopyStats {
            disk_bytes: source.length_bytes(),
            written_bytes,
        })
    })?;
    file.finish()?;
    Ok(stats)
}

/// Calls `write` with the bytes of the disk that are not known to be zeros, in order.
///
/// Each piece begins at a cluster and, but for the disk's last, ends at one.
fn each_data(
    source: &dyn ReadAt,
    monitor: &dyn Monitor,
    mut write: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    monitor.expect(source.length_bytes(), Unit::Bytes);
    let mut pieces = Pieces::new(source, monitor);
    let mut buffer = vec![0; BUFFER_BYTES as usize];
    while let Some(piece) = pieces.next()? {
        copy_piece(source, monitor, &piece, &mut buffer, &mut write)?;
    }
    Ok(())
}

/// The same from several threads, in no order. Where several pieces fail, the error is that of the
/// first of them.
fn each_data_at_once(
    source: &dyn ReadAt,
    monitor: &dyn Monitor,
    write: impl Fn(u64, &[u8]) -> Result<()> + Sync,
) -> Result<()> {
    monitor.expect(source.length_bytes(), Unit::Bytes);
    let pieces = Mutex::new(Pieces::new(source, monitor));
    let claim = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> std::result::Result<(), (u64, Error)> {
        let mut buffer = vec![0; BUFFER_BYTES as usize];
        // A piece that cannot be claimed is beyond all that were.
        while let Some(piece) = claim().map_err(|error| (u64::MAX, error))? {
            copy_piece(source, monitor, &piece, &mut buffer, &write).map_err(|error| {
                let mut pieces = pieces.lock().unwrap_or_else(PoisonError::into_inner);
                pieces.offset = source.length_bytes();
                (piece.start, error)
            })?;
        }
        Ok(())
    };
    // One more than there are processors: while one waits for the disk, the others work.
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut failures = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..(processors + 1).min(WORKERS_MAX))
            .map(|_| scope.spawn(work))
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => failures.extend(result.err()),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let first = failures.into_iter().min_by_key(|(offset, _)| *offset);
    first.map_or(Ok(()), |(_, error)| Err(error))
}

fn copy_piece(
    source: &dyn ReadAt,
    monitor: &dyn Monitor,
    piece: &Range<u64>,
    buffer: &mut [u8],
    mut write: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let bytes = &mut buffer[..(piece.end - piece.start) as usize];
    source.read_exact_at(piece.start, bytes)?;
    write(piece.start, bytes)?;
    monitor.advance(piece.end - piece.start);
    Ok(())
}

/// The parts of a disk that are not known to be zeros, each at most a buffer long.
struct Pieces<'a> {
    source: &'a dyn ReadAt,
    monitor: &'a dyn Monitor,
    offset: u64,
}

impl<'a> Pieces<'a> {
    fn new(source: &'a dyn ReadAt, monitor: &'a dyn Monitor) -> Self {
        Self {
            source,
            monitor,
            offset: 0,
        }
    }

    fn next(&mut self) -> Result<Option<Range<u64>>> {
        let length = self.source.length_bytes();
        while self.offset < length {
            let offset = self.offset;
            let extent = self.source.extent_at(offset)?;
            let extent_end = offset.saturating_add(extent.length).min(length);
            let zero_end = match extent_end == length {
                true => length,
                false => extent_end / CLUSTER_SIZE * CLUSTER_SIZE,
            };
            if extent.kind == ExtentKind::Zero && zero_end > offset {
                self.monitor.advance(zero_end - offset);
                self.offset = zero_end;
                continue;
            }
            let data_end = extent_end.next_multiple_of(CLUSTER_SIZE);
            self.offset = data_end.min(offset + BUFFER_BYTES).min(length);
            return Ok(Some(offset..self.offset));
        }
        Ok(None)
    }
}

/// The runs of blocks that are not all zeros, and where they begin.
fn data_runs(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let block_is = |at: usize, zero: bool| {
            let end = bytes.len().min(at + RAW_BLOCK_BYTES);
            at < bytes.len() && is_zero(&bytes[at..end]) == zero
        };
        while block_is(at, true) {
            at += RAW_BLOCK_BYTES;
        }
        let start = at;
        while block_is(at, false) {
            at += RAW_BLOCK_BYTES;
        }
        let end = at.min(bytes.len());
        (start < end).then(|| (start, &bytes[start..end]))
    })
}

/// A file that appears under its name only when it is whole; dropped before, it is removed.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    path: PathBuf,
    partial: PathBuf,
    finished: bool,
}

impl NewFile {
    /// Begins a new file; an existing one of that name is an error, the remains of an earlier
    /// attempt are not.
    pub(super) fn create(path: &Path) -> Result<Self> {
        if path.symlink_metadata().is_ok() {
            let exists = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(file_error("create", path, exists));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&partial)
            .map_err(|source| file_error("create", &partial, source))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            partial,
            finished: false,
        })
    }

    /// Lets `write` fill the file; what it could not write is told with the file's name.
    pub(super) fn write<T>(&mut self, write: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
        write(&mut self.file).map_err(|error| error.in_file(&self.path))
    }

    /// Makes the content durable, then gives the file its name.
    pub(super) fn finish(mut self) -> Result<()> {
        let failed = |source| file_error("write", &self.path, source);
        self.file.flush().map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.partial, &self.path).map_err(failed)?;
        self.finished = true;
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| file_error("write", directory, source))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            // The error that ended the work is being told; this one would hide it.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn failed(offset: u64, length: usize, source: io::Error) -> Error {
    Error::Device {
        action: "write",
        offset,
        length: length as u64,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{DiskFile, Extent, MemoryDevice, OpenOptions, open_disk};
    use crate::monitor::Silent;

    /// Bytes, of which ranges are known to be zeros; reading those is a mistake.
    #[derive(Debug)]
    struct Sparse {
        bytes: Vec<u8>,
        holes: Vec<std::ops::Range<u64>>,
    }

    impl ReadAt for Sparse {
        fn length_bytes(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            let start = usize::try_from(offset).expect("it is small");
            buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
            Ok(())
        }

        fn extent_at(&self, offset: u64) -> Result<Extent> {
            let hole = self.holes.iter().find(|hole| hole.contains(&offset));
            let next = self
                .holes
                .iter()
                .map(|hole| hole.start)
                .find(|at| *at > offset);
            let end = hole.map_or(next.unwrap_or(self.length_bytes()), |hole| hole.end);
            let kind = hole.map_or(ExtentKind::Data, |_| ExtentKind::Zero);
            Ok(Extent {
                length: end - offset,
                kind,
            })
        }
    }

    #[derive(Default)]
    struct Amounts(AtomicU64, AtomicU64);

    impl Monitor for Amounts {
        fn stage(&self, _title: &str) {}
        fn expect(&self, total: u64, _unit: Unit) {
            self.0.fetch_add(total, Ordering::Relaxed);
        }
        fn advance(&self, amount: u64) {
            self.1.fetch_add(amount, Ordering::Relaxed);
        }
        fn finding(&self, _finding: &crate::finding::Finding) {}
    }

    /// 3 MiB and a bit with data here and there, and holes whose ends no cluster knows.
    fn sparse() -> Sparse {
        let mut bytes = vec![0; (3 << 20) + 1024];
        bytes[..5000].fill(1);
        bytes[70_000..70_100].fill(2);
        bytes[1_500_000..1_700_000].fill(3);
        let end = bytes.len();
        bytes[end - 1..].fill(4);
        Sparse {
            bytes,
            holes: vec![5000..70_000, 70_100..1_500_000, 1_700_000..(3 << 20) + 100],
        }
    }

    fn read_all(device: &dyn ReadAt) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(device.length_bytes()).expect("it is small")];
        device.read_exact_at(0, &mut bytes).expect("all of it");
        bytes
    }

    #[test]
    fn a_raw_copy_has_the_bytes_and_the_holes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk.raw");
        let (source, amounts) = (sparse(), Amounts::default());
        let stats = copy_to_raw(&source, &path, &amounts).expect("there is room");
        let expected = CopyStats {
            disk_bytes: (3 << 20) + 1024,
            // 2 blocks, 1 block, 1 499 136 to 1 703 936, the last block of 1 KiB.
            written_bytes: 8192 + 4096 + 204_800 + 1024,
        };
        assert_eq!(stats, expected);
        let copy = DiskFile::open(&path).expect("it was written");
        assert!(read_all(&copy) == source.bytes);
        assert_eq!(amounts.0.into_inner(), stats.disk_bytes);
        assert_eq!(amounts.1.into_inner(), stats.disk_bytes);
    }

    #[test]
    fn a_qcow2_copy_has_the_bytes_and_leaves_out_zeros() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk.qcow2");
        let source = sparse();
        let stats = copy_to_qcow2(&source, &path, &Silent).expect("there is room");
        // Clusters 0, 1, 22 to 25, and the last one, which has 1 KiB.
        assert_eq!(stats.written_bytes, 6 * CLUSTER_SIZE + 1024);
        let copy = open_disk(&path, &OpenOptions::default()).expect("it was written");
        assert_eq!(copy.format, crate::block::DiskFormat::Qcow2);
        assert!(read_all(&copy.device) == source.bytes);
    }

    #[derive(Debug)]
    struct Broken;

    impl ReadAt for Broken {
        fn length_bytes(&self) -> u64 {
            4 << 20
        }

        fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            buffer.fill(1);
            if offset < 2 << 20 {
                return Ok(());
            }
            Err(Error::Device {
                action: "read",
                offset,
                length: buffer.len() as u64,
                source: "the library is gone".into(),
            })
        }
    }

    #[test]
    fn a_copy_that_fails_leaves_no_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk");
        for copy in [copy_to_raw, copy_to_qcow2] {
            let error = copy(&Broken, &path, &Silent).expect_err("the source breaks");
            assert_eq!(error.to_string(), "read 1048576 bytes at byte 0x200000");
            let left = std::fs::read_dir(directory.path())
                .expect("it exists")
                .count();
            assert_eq!(left, 0);
        }
    }

    #[test]
    fn an_existing_file_is_not_replaced_but_an_abandoned_attempt_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk");
        std::fs::write(directory.path().join("disk.partial"), [9; 9000]).expect("written");
        let source = MemoryDevice::from(vec![5; 1024]);
        copy_to_raw(&source, &path, &Silent).expect("the rest of an attempt is no hindrance");
        assert_eq!(std::fs::read(&path).expect("it was written"), [5; 1024]);
        let error = copy_to_raw(&source, &path, &Silent).expect_err("it exists");
        assert_eq!(error.to_string(), format!("create {}", path.display()));
        assert!(error.hint().is_some());
        let nowhere = directory.path().join("no/disk");
        assert!(copy_to_raw(&source, &nowhere, &Silent).is_err());
    }
}
