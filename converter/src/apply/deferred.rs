// SPDX-License-Identifier: MIT OR Apache-2.0
//! A filesystem that is read natively and written later: what is done is noted, and seen by reads.
//!
//! A path that was touched has a note of what is there now; every other path is as it was. The
//! operations themselves go to [`super::small_vm`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::filesystem::{
    Attributes, DirectoryEntry, FileType, Filesystem, Identity, Metadata, WritableFilesystem,
};
use disk::{Error, Result};

const STRUCTURE: &str = "file";
const NEW_MODE: u32 = 0o644;
const LINK_MODE: u32 = 0o777;

/// One change that waits; paths are those inside the filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) path: String,
    pub(super) action: Action,
}

/// What is to be done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Write(Vec<u8>, Option<Attributes>),
    Append(Vec<u8>),
    CreateDirectory(Attributes),
    CreateSymlink(String),
    Remove,
    Rename(String),
}

/// The operations of a filesystem, shared with who carries them out.
pub(super) type Operations = Arc<Mutex<Vec<Operation>>>;

/// What is at a path now.
#[derive(Debug, Clone)]
enum Node {
    File {
        /// Where the first part of its content is below.
        base: Option<String>,
        rest: Vec<u8>,
        attributes: Attributes,
    },
    Directory(Attributes),
    Symlink(String),
    Gone,
}

/// The filesystem below, and what was done since.
#[derive(Debug)]
pub(super) struct Deferred {
    below: Box<dyn Filesystem>,
    nodes: BTreeMap<String, Node>,
    operations: Operations,
}

impl Deferred {
    /// Nothing is done yet.
    pub(super) fn new(below: Box<dyn Filesystem>) -> (Self, Operations) {
        let operations = Operations::default();
        let deferred = Self {
            below,
            nodes: BTreeMap::new(),
            operations: Arc::clone(&operations),
        };
        (deferred, operations)
    }

    fn note(&mut self, path: &str, node: Node, action: Action) {
        self.nodes.insert(path.to_owned(), node);
        lock(&self.operations).push(Operation {
            path: path.to_owned(),
            action,
        });
    }

    /// A file that is there, as a note; `None` where there is nothing.
    fn file(&self, path: &str) -> Result<Option<Node>> {
        match self.nodes.get(path) {
            Some(node @ (Node::File { .. } | Node::Symlink(_))) => return Ok(Some(node.clone())),
            Some(Node::Gone) => return Ok(None),
            Some(Node::Directory(_)) => return Err(refused(path, "a directory")),
            None => {}
        }
        let found = match self.below.metadata(path) {
            Err(Error::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        match found.file_type {
            FileType::File => Ok(Some(Node::File {
                base: Some(path.to_owned()),
                rest: Vec::new(),
                attributes: Attributes {
                    mode: found.mode,
                    uid: found.uid,
                    gid: found.gid,
                    selinux: self.below.selinux_context(path)?,
                },
            })),
            FileType::Symlink => Ok(Some(Node::Symlink(self.below.read_link(path)?))),
            FileType::Directory => Err(refused(path, "a directory")),
            FileType::Special => Err(refused(path, "a special file")),
        }
    }

    /// The directory that something is to be made in must be there.
    fn check_parent(&self, path: &str) -> Result<()> {
        let parent = match path.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((parent, _)) => parent,
        };
        match self.metadata(parent)?.file_type {
            FileType::Directory => Ok(()),
            _ => Err(refused(parent, "not a directory")),
        }
    }

    fn check_absent(&self, path: &str) -> Result<()> {
        self.check_parent(path)?;
        match self.metadata(path) {
            Err(Error::NotFound { .. }) => Ok(()),
            Ok(_) => Err(refused(path, "there already")),
            Err(error) => Err(error),
        }
    }
}

impl Filesystem for Deferred {
    fn identity(&self) -> &Identity {
        self.below.identity()
    }

    fn metadata(&self, path: &str) -> Result<Metadata> {
        let metadata = |file_type, size_bytes, attributes: &Attributes| Metadata {
            file_type,
            size_bytes,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
        };
        Ok(match self.nodes.get(path) {
            None => return self.below.metadata(path),
            Some(Node::Gone) => return Err(not_found(path)),
            Some(Node::Directory(attributes)) => metadata(FileType::Directory, 0, attributes),
            Some(Node::Symlink(target)) => {
                metadata(FileType::Symlink, target.len() as u64, &by_root(LINK_MODE))
            }
            Some(Node::File {
                base,
                rest,
                attributes,
            }) => {
                let first = match base {
                    Some(base) => self.below.metadata(base)?.size_bytes,
                    None => 0,
                };
                metadata(
                    FileType::File,
                    first.saturating_add(rest.len() as u64),
                    attributes,
                )
            }
        })
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        match self.nodes.get(path) {
            None => self.below.read(path, limit_bytes),
            Some(Node::Gone) => Err(not_found(path)),
            Some(Node::Directory(_) | Node::Symlink(_)) => Err(refused(path, "no regular file")),
            Some(Node::File { base, rest, .. }) => {
                let mut bytes = match base {
                    Some(base) => self.below.read(base, limit_bytes)?,
                    None => Vec::new(),
                };
                bytes.extend_from_slice(rest);
                if bytes.len() as u64 > limit_bytes {
                    return Err(Error::Limit {
                        what: "size of a file in bytes",
                        limit: limit_bytes,
                    });
                }
                Ok(bytes)
            }
        }
    }

    fn read_link(&self, path: &str) -> Result<String> {
        match self.nodes.get(path) {
            None => self.below.read_link(path),
            Some(Node::Symlink(target)) => Ok(target.clone()),
            Some(Node::Gone) => Err(not_found(path)),
            Some(Node::File { .. } | Node::Directory(_)) => Err(refused(path, "no symbolic link")),
        }
    }

    fn read_directory(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        let mut entries: BTreeMap<String, FileType> = BTreeMap::new();
        if !self.nodes.contains_key(path) {
            let below = self.below.read_directory(path)?;
            entries.extend(below.into_iter().map(|entry| (entry.name, entry.file_type)));
        }
        let start = format!("{}/", path.trim_end_matches('/'));
        for (noted, node) in &self.nodes {
            let Some(name) = noted
                .strip_prefix(&start)
                .filter(|name| !name.contains('/'))
            else {
                continue;
            };
            let file_type = match node {
                Node::Gone => None,
                Node::File { .. } => Some(FileType::File),
                Node::Directory(_) => Some(FileType::Directory),
                Node::Symlink(_) => Some(FileType::Symlink),
            };
            entries.remove(name);
            entries.extend(file_type.map(|file_type| (name.to_owned(), file_type)));
        }
        let entry = |(name, file_type)| DirectoryEntry { name, file_type };
        Ok(entries.into_iter().map(entry).collect())
    }

    fn selinux_context(&self, path: &str) -> Result<Option<String>> {
        match self.nodes.get(path) {
            None => self.below.selinux_context(path),
            Some(Node::Gone) => Err(not_found(path)),
            Some(Node::Symlink(_)) => Ok(None),
            Some(Node::File { attributes, .. } | Node::Directory(attributes)) => {
                Ok(attributes.selinux.clone())
            }
        }
    }
}

impl WritableFilesystem for Deferred {
    fn write(&mut self, path: &str, content: &[u8], attributes: Option<&Attributes>) -> Result<()> {
        let there = match self.file(path)? {
            Some(Node::File { attributes, .. }) => attributes,
            Some(_) => return Err(refused(path, "no regular file")),
            None => {
                self.check_parent(path)?;
                by_root(NEW_MODE)
            }
        };
        let node = Node::File {
            base: None,
            rest: content.to_vec(),
            attributes: attributes.cloned().unwrap_or(there),
        };
        self.note(
            path,
            node,
            Action::Write(content.to_vec(), attributes.cloned()),
        );
        Ok(())
    }

    fn append(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let Some(mut node) = self.file(path)? else {
            return Err(not_found(path));
        };
        let Node::File { rest, .. } = &mut node else {
            return Err(refused(path, "no regular file"));
        };
        rest.extend_from_slice(content);
        self.note(path, node, Action::Append(content.to_vec()));
        Ok(())
    }

    fn create_directory(&mut self, path: &str, attributes: &Attributes) -> Result<()> {
        self.check_absent(path)?;
        let node = Node::Directory(attributes.clone());
        self.note(path, node, Action::CreateDirectory(attributes.clone()));
        Ok(())
    }

    fn create_symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.check_absent(path)?;
        let node = Node::Symlink(target.to_owned());
        self.note(path, node, Action::CreateSymlink(target.to_owned()));
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<()> {
        if self.file(path)?.is_none() {
            return Err(not_found(path));
        }
        self.note(path, Node::Gone, Action::Remove);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let Some(node) = self.file(from)? else {
            return Err(not_found(from));
        };
        self.file(to)?;
        self.check_parent(to)?;
        if from != to {
            self.note(from, Node::Gone, Action::Rename(to.to_owned()));
            self.nodes.insert(to.to_owned(), node);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

pub(super) fn lock(operations: &Operations) -> MutexGuard<'_, Vec<Operation>> {
    operations.lock().unwrap_or_else(PoisonError::into_inner)
}

fn by_root(mode: u32) -> Attributes {
    Attributes {
        mode,
        uid: 0,
        gid: 0,
        selinux: None,
    }
}

fn not_found(path: &str) -> Error {
    Error::NotFound {
        path: path.to_owned(),
    }
}

fn refused(path: &str, what: &str) -> Error {
    Error::unsupported(STRUCTURE, format!("{path}, which is {what},"))
}

#[cfg(test)]
mod tests {
    use disk::filesystem::FilesystemKind;

    use super::*;
    use crate::phony::MemoryFilesystem;

    fn below() -> MemoryFilesystem {
        let below = MemoryFilesystem::new(FilesystemKind::Xfs);
        below.file("/etc/fstab", "old");
        below.file("/boot/initrd", "first ");
        below.label("/etc/fstab", "etc_t");
        below
    }

    /// The same calls on a filesystem that is written at once.
    fn changes(filesystem: &mut dyn WritableFilesystem) {
        let attributes = Attributes {
            mode: 0o755,
            uid: 0,
            gid: 0,
            selinux: Some("new_t".to_owned()),
        };
        filesystem.write("/etc/fstab", b"new", None).unwrap();
        filesystem.append("/boot/initrd", b"second ").unwrap();
        filesystem.append("/boot/initrd", b"third").unwrap();
        filesystem.create_directory("/etc/d", &attributes).unwrap();
        filesystem
            .write("/etc/d/file", b"inside", Some(&attributes))
            .unwrap();
        filesystem.create_symlink("/etc/link", "d/file").unwrap();
        filesystem.write("/etc/gone", b"", None).unwrap();
        filesystem.remove("/etc/gone").unwrap();
        filesystem.rename("/boot/initrd", "/boot/image").unwrap();
    }

    #[test]
    fn what_was_noted_is_read_as_if_it_were_written() {
        let (mut deferred, operations) = Deferred::new(Box::new(below()));
        let mut written = below();
        changes(&mut deferred);
        changes(&mut written);
        for path in ["/", "/etc", "/etc/d", "/boot"] {
            let (noted, real) = (deferred.read_directory(path), written.read_directory(path));
            assert_eq!(noted.unwrap(), real.unwrap(), "{path}");
        }
        for path in ["/etc/fstab", "/boot/image", "/etc/d/file"] {
            let (noted, real) = (deferred.read(path, 99), written.read(path, 99));
            assert_eq!(noted.unwrap(), real.unwrap(), "{path}");
            let (noted, real) = (deferred.metadata(path), written.metadata(path));
            assert_eq!(
                noted.unwrap().size_bytes,
                real.unwrap().size_bytes,
                "{path}"
            );
        }
        assert_eq!(deferred.read_link("/etc/link").unwrap(), "d/file");
        for gone in ["/etc/gone", "/boot/initrd"] {
            assert!(matches!(
                deferred.metadata(gone),
                Err(Error::NotFound { .. })
            ));
        }
        let label = deferred.selinux_context("/etc/fstab").unwrap();
        assert_eq!(label.as_deref(), Some("etc_t"));
        let appended = &lock(&operations)[2].action;
        assert_eq!(*appended, Action::Append(b"third".to_vec()));
        assert!(deferred.read("/boot/image", 5).is_err());
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_at_once() {
        let (mut deferred, operations) = Deferred::new(Box::new(below()));
        let attributes = by_root(0o755);
        assert!(deferred.write("/none/file", b"", None).is_err());
        assert!(deferred.write("/etc", b"", None).is_err());
        assert!(deferred.append("/etc/none", b"").is_err());
        assert!(deferred.create_directory("/etc", &attributes).is_err());
        assert!(deferred.create_symlink("/etc/fstab", "x").is_err());
        assert!(deferred.remove("/etc/none").is_err());
        assert!(deferred.rename("/etc/none", "/etc/other").is_err());
        assert!(lock(&operations).is_empty());
    }
}
