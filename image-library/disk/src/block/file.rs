// SPDX-License-Identifier: MIT OR Apache-2.0
//! Raw disk files and block devices of this computer.
//!
//! Holes of sparse files are told through `SEEK_DATA` and `SEEK_HOLE`; a filesystem that cannot
//! tell them, and a block device, is data throughout. The length is taken when the file is
//! opened: a file that shrinks later gives read errors, never short reads.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use super::{Extent, ExtentKind, ReadAt, SectorSize, WriteAt, check_range};
use crate::error::{Error, Result};

/// A raw disk file or block device, read only.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    path: PathBuf,
    length_bytes: u64,
    is_block_device: bool,
}

impl DiskFile {
    /// Opens a regular file or block device; anything else is refused before it is opened,
    /// because opening a FIFO waits and opening a character device may do something.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, File::options().read(true))
    }

    /// Whether it is a block device.
    #[must_use]
    pub fn is_block_device(&self) -> bool {
        self.is_block_device
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The logical sector size by sysfs; `None` for a regular file.
    pub fn sector_size(&self) -> Result<Option<SectorSize>> {
        if !self.is_block_device {
            return Ok(None);
        }
        let status = rustix::fs::fstat(&self.file)
            .map_err(|errno| file_error("examine", &self.path, errno.into()))?;
        let device = format!(
            "/sys/dev/block/{}:{}",
            rustix::fs::major(status.st_rdev),
            rustix::fs::minor(status.st_rdev)
        );
        sysfs_sector_size(Path::new(&device)).map(Some)
    }

    fn open_with(path: &Path, options: &std::fs::OpenOptions) -> Result<Self> {
        let metadata =
            std::fs::metadata(path).map_err(|source| file_error("open", path, source))?;
        let is_block_device = metadata.file_type().is_block_device();
        if !is_block_device && !metadata.is_file() {
            return Err(Error::NotADisk {
                path: path.to_owned(),
                problem: "neither a regular file nor a block device".to_owned(),
                hint: "name a disk image or a device like /dev/sda",
            });
        }
        let mut file = options
            .open(path)
            .map_err(|source| file_error("open", path, source))?;
        // The size of a block device is only found by seeking; so is a regular file's.
        let length_bytes = file
            .seek(SeekFrom::End(0))
            .map_err(|source| file_error("find the end of", path, source))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            length_bytes,
            is_block_device,
        })
    }

    /// Where the first data at or after `offset` begins; `None`: there is none.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A filesystem that cannot tell holes.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Where the data that begins at `offset` ends.
    fn end_of_data(&self, offset: u64) -> io::Result<u64> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(offset)) {
            Ok(found) => Ok(found),
            Err(
                rustix::io::Errno::NXIO | rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP,
            ) => Ok(self.length_bytes),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl ReadAt for DiskFile {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes, offset, buffer.len())?;
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|source| file_error("read", &self.path, source))
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes, offset, 1)?;
        let whole = Extent {
            length: self.length_bytes - offset,
            kind: ExtentKind::Data,
        };
        if self.is_block_device {
            return Ok(whole);
        }
        let failed = |source| file_error("find the holes of", &self.path, source);
        let data = self
            .next_data(offset)
            .map_err(failed)?
            .unwrap_or(self.length_bytes)
            .min(self.length_bytes);
        if data > offset {
            return Ok(Extent {
                length: data - offset,
                kind: ExtentKind::Zero,
            });
        }
        let end = self
            .end_of_data(offset)
            .map_err(failed)?
            .clamp(offset + 1, self.length_bytes);
        Ok(Extent {
            length: end - offset,
            kind: ExtentKind::Data,
        })
    }
}

/// A raw disk file or block device that is read and written.
#[derive(Debug)]
pub struct WritableDiskFile(DiskFile);

impl WritableDiskFile {
    /// Opens an existing file or block device to read and write it.
    pub fn open(path: &Path) -> Result<Self> {
        DiskFile::open_with(path, File::options().read(true).write(true)).map(Self)
    }

    /// Creates a new sparse file of `length_bytes`, which reads as zeros; an existing file is an
    /// error.
    pub fn create(path: &Path, length_bytes: u64) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|source| file_error("create", path, source))?;
        file.set_len(length_bytes)
            .map_err(|source| file_error("set the length of", path, source))?;
        Ok(Self(DiskFile {
            file,
            path: path.to_owned(),
            length_bytes,
            is_block_device: false,
        }))
    }
}

impl ReadAt for WritableDiskFile {
    fn length_bytes(&self) -> u64 {
        self.0.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }
}

impl WriteAt for WritableDiskFile {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.0.length_bytes, offset, bytes.len())?;
        self.0
            .file
            .write_all_at(bytes, offset)
            .map_err(|source| file_error("write", &self.0.path, source))
    }

    fn flush(&self) -> Result<()> {
        self.0
            .file
            .sync_all()
            .map_err(|source| file_error("write", &self.0.path, source))
    }
}

/// Reads the sector size of the block device whose sysfs directory is `device`.
///
/// A partition has no queue of its own; its disk's, one directory up, is meant.
fn sysfs_sector_size(device: &Path) -> Result<SectorSize> {
    let own = device.join("queue/logical_block_size");
    let path = if own.exists() {
        own
    } else {
        device.join("../queue/logical_block_size")
    };
    let text =
        std::fs::read_to_string(&path).map_err(|source| file_error("read", &path, source))?;
    let bytes: u32 = text
        .trim()
        .parse()
        .map_err(|_| Error::unsupported("disk", format!("a sector size of `{}`", text.trim())))?;
    SectorSize::try_from(bytes)
}

/// An [`Error::File`] in fewer words.
pub(super) fn file_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn holes_of_a_sparse_file_are_told_as_zeros() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk.raw");
        let disk = WritableDiskFile::create(&path, 8 * MIB).expect("a new file");
        disk.write_all_at(3 * MIB, &[7; 4096]).expect("written");
        disk.flush().expect("flushed");
        let disk = DiskFile::open(&path).expect("it exists");
        assert_eq!(disk.length_bytes(), 8 * MIB);
        assert_eq!(disk.sector_size().expect("no device"), None);
        let extents = [0, 3 * MIB, 3 * MIB + 4096].map(|at| disk.extent_at(at).expect("inside"));
        if extents[0].kind == ExtentKind::Data {
            eprintln!(
                "skipped: the filesystem of {} cannot tell holes",
                path.display()
            );
            return;
        }
        assert_eq!(extents[0].length, 3 * MIB);
        assert_eq!(extents[1].kind, ExtentKind::Data);
        assert_eq!(extents[1].length, 4096);
        assert_eq!(extents[2].kind, ExtentKind::Zero);
        assert_eq!(extents[2].length, 5 * MIB - 4096);
        assert!(disk.extent_at(8 * MIB).is_err());
    }

    #[test]
    fn a_written_file_reads_back_and_ends_where_it_was_created_to_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk.raw");
        WritableDiskFile::create(&path, 1024).expect("a new file");
        let again = WritableDiskFile::create(&path, 1024).expect_err("it exists");
        assert_eq!(again.to_string(), format!("create {}", path.display()));
        let disk = WritableDiskFile::open(&path).expect("it exists");
        disk.write_all_at(1020, b"tail").expect("inside");
        assert!(disk.write_all_at(1021, b"tail").is_err());
        let mut read = [0; 4];
        disk.read_exact_at(1020, &mut read).expect("inside");
        assert_eq!(&read, b"tail");
        assert_eq!(disk.length_bytes(), 1024);
        assert_eq!(disk.extent_at(1023).expect("inside").length, 1);
    }

    #[test]
    fn a_directory_is_not_a_disk() {
        let error = DiskFile::open(Path::new("/")).expect_err("a directory");
        assert!(matches!(error, Error::NotADisk { .. }), "{error}");
        assert!(error.hint().is_some());
        let error = DiskFile::open(Path::new("/dev/null")).expect_err("a character device");
        assert_eq!(
            error.to_string(),
            "/dev/null is not a disk: neither a regular file nor a block device"
        );
    }

    #[test]
    fn the_sector_size_of_a_partition_is_its_disks() {
        let sys = tempfile::tempdir().expect("a directory");
        let disk = sys.path().join("sda");
        std::fs::create_dir_all(disk.join("queue")).expect("queue");
        std::fs::create_dir_all(disk.join("sda1")).expect("a partition");
        std::fs::write(disk.join("queue/logical_block_size"), "4096\n").expect("a value");
        assert_eq!(sysfs_sector_size(&disk).expect("disk"), SectorSize::B4096);
        let partition = disk.join("sda1");
        assert_eq!(
            sysfs_sector_size(&partition).expect("partition"),
            SectorSize::B4096
        );
        std::fs::write(disk.join("queue/logical_block_size"), "many").expect("a value");
        assert!(sysfs_sector_size(&disk).is_err());
        assert!(sysfs_sector_size(&sys.path().join("sdb")).is_err());
    }
}
