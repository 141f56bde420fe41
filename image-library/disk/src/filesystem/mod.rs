// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filesystems as trees of files: one trait to read, one to write.
//!
//! Paths are absolute inside the filesystem (`/etc/fstab`), `/`-separated, and never follow
//! symbolic links except where a method says so: who composes several filesystems into a
//! guest's tree resolves links there, across mounts.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::error::Result;

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
