// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filesystems as trees of files: one trait to read, one to write.
//!
//! Paths are absolute inside the filesystem (`/etc/fstab`), `/`-separated, and never follow
//! symbolic links except where a method says so: who composes several filesystems into a
//! guest's tree resolves links there, across mounts.

pub mod btrfs;
mod cache;
mod ext;
mod extents;
mod fat;
#[cfg(test)]
mod memory;
mod path;
mod staging;
pub(crate) mod superblock;
mod xfs;

use std::fmt;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::block::{ReadAt, WriteAt};
use crate::error::{Error, Result};
use crate::finding::Finding;

pub(crate) use extents::merged;
pub use superblock::detect;
pub use xfs::{LogState, Xfs};

/// Opens the filesystem on `device` for reading; of btrfs, the top level with all subvolumes in it.
///
/// `Unsupported` when nothing is recognised, or what is recognised holds no files that this
/// package can read.
pub fn open(device: Arc<dyn ReadAt>) -> Result<Box<dyn Filesystem>> {
    open_devices(&[device])
}

/// The same of a filesystem that may have several devices; the first one says which it is.
pub fn open_devices(devices: &[Arc<dyn ReadAt>]) -> Result<Box<dyn Filesystem>> {
    let Some(device) = devices.first().map(Arc::clone) else {
        return Err(Error::unsupported("filesystem", "reading no device"));
    };
    if let Some(superblock) = superblock::xfs::read(&device)? {
        return Ok(Box::new(xfs::Xfs::with_superblock(device, superblock)?));
    }
    if let Some(superblock) = superblock::ext::read(&device)? {
        return ext::open(device, &superblock);
    }
    if superblock::btrfs::detect(&device)?.is_some() {
        return Ok(Box::new(btrfs::open(devices)?));
    }
    if let Some(boot) = superblock::fat::read(&device)? {
        return Ok(Box::new(fat::FatVolume::open(device, &boot)?));
    }
    Err(unknown(&device, "reading")?)
}

/// How a filesystem is opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// The time of everything that is written, in seconds since 1970: a result never depends on
    /// the clock.
    pub now_unix_seconds: i64,
}

/// A filesystem that was opened for writing, and what was noticed on the way.
#[derive(Debug)]
pub struct Opened {
    /// The filesystem.
    pub filesystem: Box<dyn WritableFilesystem>,
    /// What was noticed: `disk.ext.journal-replayed`.
    pub findings: Vec<Finding>,
}

/// Opens the filesystem on `device`, which is an overlay, for writing.
///
/// A dirty journal is replayed first, into `device`. Features that cannot be kept consistent are
/// `Unsupported`, and then nothing was written.
pub fn open_writable(device: Arc<dyn WriteAt>, options: WriteOptions) -> Result<Opened> {
    let now = options.now_unix_seconds;
    if let Some(superblock) = superblock::ext::read(&device)? {
        let (writer, findings) = ext::ExtWriter::open(device, &superblock, now)?;
        return Ok(Opened {
            filesystem: Box::new(writer),
            findings,
        });
    }
    if let Some(boot) = superblock::fat::read(&device)? {
        return Ok(Opened {
            filesystem: Box::new(fat::FatVolume::open_writable(device, &boot, now)?),
            findings: Vec::new(),
        });
    }
    Err(unknown(&device, "writing")?)
}

fn unknown(device: &dyn ReadAt, verb: &str) -> Result<Error> {
    Ok(match detect(device)? {
        Some(identity) => Error::unsupported("filesystem", format!("{verb} {:?}", identity.kind)),
        None => Error::unsupported("filesystem", format!("{verb} an unrecognised filesystem")),
    })
}

/// Which bytes of `device` are in use: ascending, merged, at most about a million ranges.
///
/// Everything outside reads as zeros in an image, and the filesystem's own checker finds nothing
/// amiss. `None` for what is not known here: all of it must be read. An error says the same of a
/// filesystem whose structures are broken, or change while they are read.
pub fn used_extents(device: &dyn ReadAt) -> Result<Option<Vec<Range<u64>>>> {
    let Some(identity) = detect(device)? else {
        return Ok(None);
    };
    match identity.kind {
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
            match superblock::ext::read(device)? {
                Some(superblock) => ext::used_extents(device, &superblock).map(Some),
                None => Ok(None),
            }
        }
        FilesystemKind::Fat => match superblock::fat::read(device)? {
            Some(boot) => fat::used_extents(device, &boot).map(Some),
            None => Ok(None),
        },
        FilesystemKind::Swap => superblock::swap::used_extents(device),
        FilesystemKind::Xfs => match superblock::xfs::read(device)? {
            Some(superblock) => xfs::used_extents(device, &superblock).map(Some),
            None => Ok(None),
        },
        FilesystemKind::Btrfs => btrfs::used_extents(device).map(Some),
        FilesystemKind::Ntfs
        | FilesystemKind::Lvm2Member
        | FilesystemKind::MdMember
        | FilesystemKind::Luks => Ok(None),
    }
}

/// Which filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FilesystemKind {
    /// ext2: no journal.
    Ext2,
    /// ext3: a journal, no extents.
    Ext3,
    /// ext4.
    Ext4,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// Swap space: no files, but an identity.
    Swap,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// NTFS.
    Ntfs,
    /// An LVM2 physical volume.
    Lvm2Member,
    /// A member of an md array.
    MdMember,
    /// A LUKS container.
    Luks,
}

impl fmt::Display for FilesystemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Fat => "FAT",
            Self::Swap => "swap",
            Self::Xfs => "XFS",
            Self::Btrfs => "btrfs",
            Self::Ntfs => "NTFS",
            Self::Lvm2Member => "LVM2 physical volume",
            Self::MdMember => "md array member",
            Self::Luks => "LUKS",
        })
    }
}

/// What a superblock says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Which filesystem.
    pub kind: FilesystemKind,
    /// The UUID as `blkid` prints it (`1234-ABCD` for FAT).
    pub uuid: Option<String>,
    /// The label, when there is one.
    pub label: Option<String>,
    /// Size in bytes by the superblock, at most the device's.
    pub size_bytes: Option<u64>,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device node, socket or FIFO.
    Special,
}

/// What a guest file is, without its content; like `lstat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The type.
    pub file_type: FileType,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// What it names.
    pub file_type: FileType,
}

/// A filesystem that can be read.
pub trait Filesystem: Debug + Send {
    /// What the superblock says.
    fn identity(&self) -> &Identity;

    /// Like `lstat`: `NotFound` when there is no such path.
    fn metadata(&self, path: &str) -> Result<Metadata>;

    /// The whole content of a regular file, at most `limit_bytes`.
    fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>>;

    /// The target of a symbolic link, as it is stored.
    fn read_link(&self, path: &str) -> Result<String>;

    /// The names in a directory, sorted, without `.` and `..`.
    fn read_directory(&self, path: &str) -> Result<Vec<DirectoryEntry>>;

    /// The `security.selinux` attribute of a file or directory; `None` where it has none, or the
    /// filesystem keeps no such attributes.
    fn selinux_context(&self, _path: &str) -> Result<Option<String>> {
        Ok(None)
    }

    /// The bytes that are free for files; `None` where that is not known.
    fn free_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Whether a log holds what a writer has to put into place first.
    fn is_log_dirty(&self) -> bool {
        false
    }

    /// The subvolumes of a filesystem that is open at its top level; none of one that has no such.
    fn subvolumes(&self) -> Result<Vec<btrfs::Subvolume>> {
        Ok(Vec::new())
    }
}

/// Owner, permissions and security context given to a file that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The `security.selinux` attribute, where the guest labels its files.
    pub selinux: Option<String>,
}

/// A filesystem that can be changed.
///
/// A method that returns an error leaves the file that it was to change readable as before or
/// absent; callers write to an overlay and drop it whole when anything fails.
pub trait WritableFilesystem: Filesystem {
    /// Creates the file, or replaces the whole content of an existing one.
    ///
    /// `attributes: None` keeps the mode, owner and extended attributes of an existing file and
    /// means `0644 root:root` for a new one. The parent directory must exist.
    fn write(&mut self, path: &str, content: &[u8], attributes: Option<&Attributes>) -> Result<()>;

    /// Appends to an existing regular file, whose first bytes are not rewritten.
    fn append(&mut self, path: &str, content: &[u8]) -> Result<()>;

    /// Creates a directory; its parent must exist.
    fn create_directory(&mut self, path: &str, attributes: &Attributes) -> Result<()>;

    /// Creates a symbolic link.
    fn create_symlink(&mut self, path: &str, target: &str) -> Result<()>;

    /// Removes a regular file or symbolic link.
    fn remove(&mut self, path: &str) -> Result<()>;

    /// Renames a file within this filesystem, replacing what is there.
    fn rename(&mut self, from: &str, to: &str) -> Result<()>;

    /// Writes back everything. After it the device holds a clean filesystem.
    fn finish(self: Box<Self>) -> Result<()>;
}
