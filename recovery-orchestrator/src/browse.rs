// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of an image, by the paths that its guest would use.
//!
//! Filesystems are put together by the guest's fstab, and symbolic links are followed across
//! them as the guest's kernel would; none leads out of the image.
//! Limits: 40 links per path, as in Linux; files up to [`FILE_BYTES_MAX`].

use std::collections::VecDeque;

use converter::inspect::inspect;
use converter::{GuestDisk, GuestVolumes};
use disk::Monitor;
use disk::filesystem::{DirectoryEntry, FileType, Filesystem, Metadata};

use crate::error::{Error, Result};

/// Larger files are not read into memory.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
const LINKS_MAX: usize = 40;

/// The files of an image.
#[derive(Debug)]
pub struct Tree {
    /// What is mounted, the longest mount point first.
    mounts: Vec<Mount>,
}

#[derive(Debug)]
struct Mount {
    point: String,
    /// The directory of the filesystem that is mounted; empty for all of it.
    directory: String,
    filesystem: Box<dyn Filesystem>,
}

/// A directory entry with what `ls -l` shows.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Name and type.
    pub entry: DirectoryEntry,
    /// Size, permissions, owner.
    pub metadata: Metadata,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

/// A path without links: its filesystem, and the path in it.
struct Place<'a> {
    filesystem: &'a dyn Filesystem,
    path: String,
}

impl Tree {
    /// Finds and opens the filesystems of a guest's disks.
    pub fn open(disks: &[GuestDisk], monitor: &dyn Monitor) -> Result<Self> {
        let inspection = inspect(disks, None, monitor)?;
        let volumes = GuestVolumes::open(disks)?;
        let mut mounts = Vec::new();
        for mount in &inspection.mounts {
            mounts.push(Mount {
                point: mount.mount_point.clone(),
                directory: mount.directory.clone(),
                filesystem: volumes.filesystem(mount.volume)?,
            });
        }
        if mounts.is_empty() {
            return Err(Error::Request {
                problem: "no operating system was found in the image, so there is no tree of files"
                    .to_owned(),
                hint: Some("`relevo inspect` says what is on the disks".to_owned()),
            });
        }
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.point.len()));
        Ok(Self { mounts })
    }

    /// The entries of a directory, or the one file that the path names.
    pub fn list(&self, path: &str) -> Result<Vec<Listed>> {
        let place = self.resolve(path)?;
        let metadata = place.filesystem.metadata(&place.path)?;
        if metadata.file_type != FileType::Directory {
            let entry = DirectoryEntry {
                name: path.to_owned(),
                file_type: metadata.file_type,
            };
            return Ok(vec![Listed {
                entry,
                metadata,
                target: None,
            }]);
        }
        let mut listed = Vec::new();
        for entry in place.filesystem.read_directory(&place.path)? {
            let path = join(&place.path, &entry.name);
            let metadata = place.filesystem.metadata(&path)?;
            let target = match entry.file_type {
                FileType::Symlink => Some(place.filesystem.read_link(&path)?),
                FileType::File | FileType::Directory | FileType::Special => None,
            };
            listed.push(Listed {
                entry,
                metadata,
                target,
            });
        }
        Ok(listed)
    }

    /// The content of a file.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let place = self.resolve(path)?;
        Ok(place.filesystem.read(&place.path, FILE_BYTES_MAX)?)
    }

    fn resolve(&self, path: &str) -> Result<Place<'_>> {
        let mut left: VecDeque<String> = components(path).map(str::to_owned).collect();
        let mut done = String::new();
        let mut link_count = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                continue;
            }
            let next = format!("{done}/{name}");
            let place = self.place(&next);
            // Where a filesystem is mounted there is a directory, whatever lies below it.
            let is_link = place.path != "/"
                && place.filesystem.metadata(&place.path)?.file_type == FileType::Symlink;
            if !is_link {
                done = next;
                continue;
            }
            link_count += 1;
            if link_count > LINKS_MAX {
                return Err(Error::Request {
                    problem: format!("too many symbolic links in {path}"),
                    hint: None,
                });
            }
            let target = place.filesystem.read_link(&place.path)?;
            if target.starts_with('/') {
                done.clear();
            }
            for component in components(&target).rev() {
                left.push_front(component.to_owned());
            }
        }
        Ok(self.place(&done))
    }

    fn place(&self, path: &str) -> Place<'_> {
        let path = if path.is_empty() { "/" } else { path };
        for mount in &self.mounts {
            let inner = if mount.point == "/" {
                Some(path)
            } else {
                path.strip_prefix(mount.point.as_str())
            };
            match inner {
                Some("") => return mount.place("/"),
                Some(inner) if inner.starts_with('/') => return mount.place(inner),
                _ => {}
            }
        }
        // The last is the root's, the shortest of all mount points; there is at least one.
        self.mounts[self.mounts.len() - 1].place(path)
    }
}

impl Mount {
    fn place(&self, inner: &str) -> Place<'_> {
        let path = match (self.directory.as_str(), inner) {
            ("", _) => inner.to_owned(),
            (directory, "/") => directory.to_owned(),
            (directory, _) => format!("{directory}{inner}"),
        };
        Place {
            filesystem: &*self.filesystem,
            path,
        }
    }
}

fn components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
}

fn join(directory: &str, name: &str) -> String {
    if directory == "/" {
        format!("/{name}")
    } else {
        format!("{directory}/{name}")
    }
}
