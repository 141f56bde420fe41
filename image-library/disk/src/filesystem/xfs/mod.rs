// SPDX-License-Identifier: MIT OR Apache-2.0
//! XFS: reading files, which bytes are in use, and a replay of the log in memory.
//!
//! ```text
//! superblock -> volume (device, what a replay changes) -> inode -> fork -> directory, file, ...
//!                \-> log                              \-> allocation
//! ```
//!
//! The number of an inode says where it stands, and nothing is searched for but names. Version 4
//! and 5 of the format are read; in version 5 every structure is checked against its checksum, its
//! own address and its owner. **Left out:** files on a realtime device, logs on another device,
//! names without case.

mod allocation;
mod attribute;
mod directory;
mod file;
mod fork;
mod hash_tree;
mod inode;
mod log;
mod seal;
mod volume;

use std::sync::Arc;

pub(crate) use allocation::used_extents;
pub use log::LogState;

use super::cache::CachedDevice;
use super::path::{self, GuestPath};
use super::superblock;
use super::{DirectoryEntry, FileType, Filesystem, Identity, Metadata};
use crate::block::ReadAt;
use crate::error::{Error, Result};
use inode::Inode;
use volume::Volume;

const STRUCTURE: &str = "XFS filesystem";

/// An XFS, for reading.
///
/// A log that is not empty was replayed in memory; nothing is ever written.
#[derive(Debug)]
pub struct Xfs {
    volume: Volume<Arc<dyn ReadAt>>,
}

impl Xfs {
    /// Opens the XFS on `device`; `Unsupported` where there is none, or one with features that are
    /// not known.
    pub fn open(device: Arc<dyn ReadAt>) -> Result<Self> {
        match superblock::xfs::read(&device)? {
            Some(superblock) => Self::with_superblock(device, superblock),
            None => Err(Error::unsupported(STRUCTURE, "reading anything else")),
        }
    }

    pub(crate) fn with_superblock(
        device: Arc<dyn ReadAt>,
        superblock: superblock::xfs::Superblock,
    ) -> Result<Self> {
        let device: Arc<dyn ReadAt> = Arc::new(CachedDevice::new(device));
        let volume = Volume::open(device, superblock)?;
        Ok(Self { volume })
    }

    /// What the log was found to be.
    #[must_use]
    pub fn log(&self) -> LogState {
        self.volume.recovery.state
    }

    /// The bytes that are free for files, after a replay of the log.
    pub fn free_bytes(&self) -> Result<u64> {
        allocation::free_bytes(&self.volume)
    }

    /// The `security.selinux` attribute of a file, directory or symbolic link.
    pub fn selinux_context(&self, path: &str) -> Result<Option<String>> {
        let inode = self.inode(path)?;
        if self
            .volume
            .recovery
            .unfinished
            .attributes
            .contains(&inode.number)
        {
            return Err(unfinished(path, "attributes"));
        }
        let Some(fork) = &inode.attributes else {
            return Ok(None);
        };
        let value = attribute::security(&self.volume, fork, b"selinux")?;
        // The kernel keeps the NUL behind it.
        Ok(value.and_then(|value| crate::fields::text(&value)))
    }

    /// The inode of a path; links on the way are not followed.
    fn inode(&self, path: &str) -> Result<Inode> {
        let guest = GuestPath::parse(path)?;
        let mut inode = Inode::read(&self.volume, self.volume.superblock.root_inode)?;
        for name in guest.components() {
            if inode.metadata.file_type != FileType::Directory {
                return Err(path::not_found(path));
            }
            self.require_finished(&inode, path)?;
            let number = directory::find(&self.volume, &inode, name.as_bytes())?;
            let number = number.ok_or_else(|| path::not_found(path))?;
            inode = Inode::read(&self.volume, number)?;
        }
        Ok(inode)
    }

    /// An error where the log only announces what the content is to be.
    fn require_finished(&self, inode: &Inode, path: &str) -> Result<()> {
        match self
            .volume
            .recovery
            .unfinished
            .contents
            .contains(&inode.number)
        {
            true => Err(unfinished(path, "content")),
            false => Ok(()),
        }
    }
}

fn unfinished(path: &str, what: &str) -> Error {
    let feature = format!("reading {path}, whose {what} the log announces to change,");
    Error::unsupported(STRUCTURE, feature)
}

impl Filesystem for Xfs {
    fn identity(&self) -> &Identity {
        self.volume.superblock.identity()
    }

    fn metadata(&self, path: &str) -> Result<Metadata> {
        Ok(self.inode(path)?.metadata)
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        let inode = self.inode(path)?;
        if inode.metadata.file_type != FileType::File {
            return Err(path::not_a_file(STRUCTURE, path));
        }
        if inode.metadata.size_bytes > limit_bytes {
            return Err(path::too_large(limit_bytes));
        }
        if inode.is_realtime {
            let feature = format!("{path}, which is on a realtime device,");
            return Err(Error::unsupported(STRUCTURE, feature));
        }
        self.require_finished(&inode, path)?;
        file::content(&self.volume, &inode)
    }

    fn read_link(&self, path: &str) -> Result<String> {
        let inode = self.inode(path)?;
        if inode.metadata.file_type != FileType::Symlink {
            return Err(Error::unsupported(
                STRUCTURE,
                format!("reading {path} as a symbolic link, which it is not,"),
            ));
        }
        let target = file::target(&self.volume, &inode)?;
        Ok(String::from_utf8_lossy(&target).into_owned())
    }

    fn read_directory(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        let inode = self.inode(path)?;
        if inode.metadata.file_type != FileType::Directory {
            return Err(path::not_found(path));
        }
        self.require_finished(&inode, path)?;
        directory::list(&self.volume, &inode)
    }

    fn selinux_context(&self, path: &str) -> Result<Option<String>> {
        self.selinux_context(path)
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        self.free_bytes().map(Some)
    }

    fn is_log_dirty(&self) -> bool {
        self.log() == LogState::Replayed
    }
}
