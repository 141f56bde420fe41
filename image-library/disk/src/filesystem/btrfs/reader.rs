// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of one subvolume, and of those that lie below it.
//!
//! An entry of a directory leads to an inode of the same tree, or to the root of another subvolume.
//! That one is entered if the root tree says that it lies there. Otherwise, as in a snapshot of what
//! had a subvolume in it, the kernel shows an empty directory, and so does this.
//!
//! **Limits:** a path is as long as Linux allows; a directory has up to a million entries.

use std::sync::Arc;

use super::super::path::{self, GuestPath};
use super::super::{DirectoryEntry, FileType, Filesystem, Identity, Metadata};
use super::inode::{self, Inode};
use super::key::{Key, kind, object};
use super::root::{self, Root};
use super::subvolume::{self, Subvolume};
use super::tree::Tree;
use super::volume::Volume;
use super::{STRUCTURE, allocation, file};
use crate::error::{Error, Result};
use crate::fields::{Fields, text};

/// A btrfs directory may be far larger; no guest directory that conversion lists is.
const ENTRIES_MAX: usize = 1 << 20;
const LINK_BYTES_MAX: u64 = 4096;

/// A subvolume that is open for reading.
#[derive(Debug)]
pub struct SubvolumeReader {
    volume: Arc<Volume<'static>>,
    identity: Identity,
    number: u64,
    root: Root,
}

/// Something that a path leads to.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The subvolume that it is in.
    pub(super) subvolume: u64,
    root: Root,
    node: Node,
}

#[derive(Debug, Clone, Copy)]
enum Node {
    Inode(u64),
    /// Where a subvolume was when a snapshot was taken.
    Empty {
        uid: u32,
        gid: u32,
    },
}

impl Place {
    pub(super) fn new(subvolume: u64, root: Root) -> Self {
        let node = Node::Inode(root.directory);
        Self {
            subvolume,
            root,
            node,
        }
    }

    /// Whether it is the directory that a subvolume begins with.
    pub(super) fn is_subvolume(&self) -> bool {
        matches!(self.node, Node::Inode(number) if number == self.root.directory)
    }

    pub(super) fn into_root(self) -> Root {
        self.root
    }

    fn tree<'v>(&self, volume: &'v Volume<'static>) -> Tree<'v, 'static> {
        Tree::new(volume, self.root.pointer)
    }

    fn inode(&self, volume: &Volume<'static>) -> Result<Inode> {
        match self.node {
            Node::Inode(number) => Inode::read(&self.tree(volume), number),
            Node::Empty { uid, gid } => Ok(Inode {
                metadata: Metadata {
                    file_type: FileType::Directory,
                    size_bytes: 0,
                    mode: 0o755,
                    uid,
                    gid,
                },
                has_checksums: true,
            }),
        }
    }

    /// The directory's entry of this name; `None` where there is none, or this is no directory.
    fn enter(&self, volume: &Volume<'static>, name: &str) -> Result<Option<Self>> {
        let Node::Inode(number) = self.node else {
            return Ok(None);
        };
        let directory = self.inode(volume)?.metadata;
        if directory.file_type != FileType::Directory {
            return Ok(None);
        }
        let tree = self.tree(volume);
        let name = name.as_bytes();
        let Some(entry) = inode::look_up(&tree, number, kind::DIRECTORY_ITEM, name)? else {
            return Ok(None);
        };
        match entry.target.kind {
            kind::INODE => Ok(Some(Self {
                node: Node::Inode(entry.target.object),
                ..self.clone()
            })),
            kind::ROOT => self
                .cross(volume, number, name, entry.target.object, &directory)
                .map(Some),
            other => Err(Error::corrupt(
                STRUCTURE,
                number,
                format!("an entry leads to an item of kind {other}"),
            )),
        }
    }

    fn cross(
        &self,
        volume: &Volume<'static>,
        directory: u64,
        name: &[u8],
        subvolume: u64,
        parent: &Metadata,
    ) -> Result<Self> {
        let reference = Key::new(self.subvolume, kind::ROOT_REFERENCE, subvolume);
        let found = volume.root_tree().get(reference)?;
        let lies_here = found.is_some_and(|item| {
            Reference::from_bytes(item.data())
                .is_some_and(|reference| reference.directory == directory && reference.name == name)
        });
        match root::find(volume, subvolume)? {
            Some(root) if lies_here => Ok(Self::new(subvolume, root)),
            _ => Ok(Self {
                node: Node::Empty {
                    uid: parent.uid,
                    gid: parent.gid,
                },
                ..self.clone()
            }),
        }
    }
}

/// Where a subvolume lies in another: directory, number, length of the name, name.
pub(super) struct Reference<'i> {
    pub(super) directory: u64,
    pub(super) name: &'i [u8],
}

impl<'i> Reference<'i> {
    pub(super) fn from_bytes(bytes: &'i [u8]) -> Option<Self> {
        let fields = Fields(bytes);
        let name = fields.bytes(18, fields.u16(16).into());
        (!name.is_empty()).then(|| Self {
            directory: fields.u64(0),
            name,
        })
    }
}

/// Where a path leads, from a place on.
pub(super) fn resolve(volume: &Volume<'static>, start: Place, path: &str) -> Result<Place> {
    let mut place = start;
    for name in GuestPath::parse(path)?.components() {
        let next = place.enter(volume, name)?;
        place = next.ok_or_else(|| path::not_found(path))?;
    }
    Ok(place)
}

impl SubvolumeReader {
    pub(super) fn new(
        volume: Arc<Volume<'static>>,
        identity: Identity,
        number: u64,
        root: Root,
    ) -> Result<Self> {
        let reader = Self {
            volume,
            identity,
            number,
            root,
        };
        // Whoever opens learns at once that there is nothing to read.
        reader.metadata("/")?;
        Ok(reader)
    }

    /// The number of the subvolume: `subvolid=` in a guest's fstab.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The value of an extended attribute, as `security.selinux`; `None` where the file has no such.
    pub fn extended_attribute(&self, path: &str, name: &str) -> Result<Option<Vec<u8>>> {
        let place = self.place(path)?;
        let Node::Inode(number) = place.node else {
            return Ok(None);
        };
        let tree = place.tree(&self.volume);
        let found = inode::look_up(&tree, number, kind::EXTENDED_ATTRIBUTE, name.as_bytes())?;
        Ok(found.map(|attribute| attribute.data))
    }

    fn place(&self, path: &str) -> Result<Place> {
        let start = Place::new(self.number, self.root.clone());
        resolve(&self.volume, start, path)
    }

    fn content(&self, place: &Place, inode: &Inode, limit_bytes: u64) -> Result<Vec<u8>> {
        match place.node {
            Node::Inode(number) => {
                let tree = place.tree(&self.volume);
                file::read(&self.volume, &tree, number, inode, limit_bytes)
            }
            Node::Empty { .. } => Ok(Vec::new()),
        }
    }
}

impl Filesystem for SubvolumeReader {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn metadata(&self, path: &str) -> Result<Metadata> {
        Ok(self.place(path)?.inode(&self.volume)?.metadata)
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        let place = self.place(path)?;
        let inode = place.inode(&self.volume)?;
        if inode.metadata.file_type != FileType::File {
            return Err(path::not_a_file(STRUCTURE, path));
        }
        self.content(&place, &inode, limit_bytes)
    }

    fn read_link(&self, path: &str) -> Result<String> {
        let place = self.place(path)?;
        let inode = place.inode(&self.volume)?;
        if inode.metadata.file_type != FileType::Symlink {
            return Err(Error::unsupported(
                STRUCTURE,
                format!("reading {path} as a symbolic link, which it is not,"),
            ));
        }
        let target = self.content(&place, &inode, LINK_BYTES_MAX)?;
        Ok(String::from_utf8_lossy(&target).into_owned())
    }

    fn read_directory(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        let place = self.place(path)?;
        if place.inode(&self.volume)?.metadata.file_type != FileType::Directory {
            return Err(path::not_found(path));
        }
        let Node::Inode(number) = place.node else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let (first, last) = Key::all(number, kind::DIRECTORY_INDEX);
        for item in place.tree(&self.volume).range(first, last)? {
            for entry in inode::entries(&item?)? {
                if found.len() >= ENTRIES_MAX {
                    return Err(path::directory_too_large(ENTRIES_MAX));
                }
                found.push(DirectoryEntry {
                    name: String::from_utf8_lossy(&entry.name).into_owned(),
                    file_type: entry.file_type,
                });
            }
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    fn selinux_context(&self, path: &str) -> Result<Option<String>> {
        let value = self.extended_attribute(path, "security.selinux")?;
        // The kernel keeps the NUL behind it.
        Ok(value.and_then(|value| text(&value)))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        allocation::free_bytes(&self.volume).map(Some)
    }

    fn is_log_dirty(&self) -> bool {
        self.volume.superblock.log_tree.is_some()
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        match self.number {
            object::TOP_LEVEL => subvolume::list(&self.volume),
            _ => Ok(Vec::new()),
        }
    }
}
