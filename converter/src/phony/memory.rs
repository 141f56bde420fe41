// SPDX-License-Identifier: MIT OR Apache-2.0
//! A filesystem in memory, shared by its clones: written through one, read through another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use disk::filesystem::btrfs::Subvolume;
use disk::filesystem::{
    Attributes, DirectoryEntry, FileType, Filesystem, FilesystemKind, Identity, Metadata,
    WritableFilesystem,
};
use disk::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File(Vec<u8>, u32),
    Directory,
    Symlink(String),
}

#[derive(Debug, Clone)]
pub(crate) struct MemoryFilesystem {
    identity: Identity,
    nodes: Arc<Mutex<BTreeMap<String, Node>>>,
    /// SELinux contexts by path.
    labels: Arc<Mutex<BTreeMap<String, String>>>,
    subvolumes: Arc<Mutex<Vec<Subvolume>>>,
}

impl MemoryFilesystem {
    pub(crate) fn new(kind: FilesystemKind) -> Self {
        let root = BTreeMap::from([("/".to_owned(), Node::Directory)]);
        Self {
            identity: Identity {
                kind,
                uuid: None,
                label: None,
                size_bytes: None,
            },
            nodes: Arc::new(Mutex::new(root)),
            labels: Arc::default(),
            subvolumes: Arc::default(),
        }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Node>> {
        self.nodes
            .lock()
            .expect("no test panics while it holds the lock")
    }

    /// Puts a node and the directories above it.
    pub(crate) fn put(&self, path: &str, node: Node) {
        let mut nodes = self.nodes();
        for (end, _) in path.match_indices('/').skip(1) {
            nodes
                .entry(path[..end].to_owned())
                .or_insert(Node::Directory);
        }
        nodes.insert(path.to_owned(), node);
    }

    pub(crate) fn file(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.put(path, Node::File(content.into(), 0o644));
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        self.put(path, Node::Symlink(target.to_owned()));
    }

    /// Makes a directory, unless it is there.
    pub(crate) fn directory(&self, path: &str) {
        if self.node(path).is_err() {
            self.put(path, Node::Directory);
        }
    }

    pub(crate) fn label(&self, path: &str, context: &str) {
        self.labels
            .lock()
            .expect("no test panics while it holds the lock")
            .insert(path.to_owned(), context.to_owned());
    }

    /// Says that a directory is a subvolume.
    pub(crate) fn subvolume(&self, id: u64, path: &str, is_default: bool) {
        let mut subvolumes = self
            .subvolumes
            .lock()
            .expect("no test panics while it holds the lock");
        subvolumes.push(Subvolume {
            id,
            path: path.to_owned(),
            parent: None,
            is_default,
            read_only: false,
            uuid: None,
            parent_uuid: None,
        });
    }

    pub(crate) fn take(&self, path: &str) {
        self.nodes().remove(path);
    }

    /// Every node with its path, parents first.
    pub(crate) fn entries(&self) -> Vec<(String, Node)> {
        self.nodes()
            .iter()
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect()
    }

    fn node(&self, path: &str) -> Result<Node> {
        self.nodes()
            .get(path)
            .cloned()
            .ok_or_else(|| Error::NotFound {
                path: path.to_owned(),
            })
    }
}

impl Filesystem for MemoryFilesystem {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn metadata(&self, path: &str) -> Result<Metadata> {
        let (file_type, size, mode) = match self.node(path)? {
            Node::File(bytes, mode) => (FileType::File, bytes.len(), mode),
            Node::Directory => (FileType::Directory, 0, 0o755),
            Node::Symlink(target) => (FileType::Symlink, target.len(), 0o777),
        };
        Ok(Metadata {
            file_type,
            size_bytes: size as u64,
            mode,
            uid: 0,
            gid: 0,
        })
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        match self.node(path)? {
            Node::File(bytes, _) if bytes.len() as u64 <= limit_bytes => Ok(bytes),
            Node::File(..) => Err(Error::Limit {
                what: "a file",
                limit: limit_bytes,
            }),
            _ => Err(Error::unsupported(
                "file",
                "reading what is no regular file",
            )),
        }
    }

    fn read_link(&self, path: &str) -> Result<String> {
        match self.node(path)? {
            Node::Symlink(target) => Ok(target),
            _ => Err(Error::unsupported(
                "file",
                "reading the target of what is no link",
            )),
        }
    }

    fn read_directory(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        let prefix = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        let nodes = self.nodes();
        let children = nodes.iter().filter_map(|(path, node)| {
            let name = path.strip_prefix(&prefix)?;
            let file_type = match node {
                Node::File(..) => FileType::File,
                Node::Directory => FileType::Directory,
                Node::Symlink(_) => FileType::Symlink,
            };
            (!name.is_empty() && !name.contains('/')).then(|| DirectoryEntry {
                name: name.to_owned(),
                file_type,
            })
        });
        Ok(children.collect())
    }

    fn selinux_context(&self, path: &str) -> Result<Option<String>> {
        let labels = self
            .labels
            .lock()
            .expect("no test panics while it holds the lock");
        Ok(labels.get(path).cloned())
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        let subvolumes = self.subvolumes.lock();
        Ok(subvolumes
            .expect("no test panics while it holds the lock")
            .clone())
    }
}

impl WritableFilesystem for MemoryFilesystem {
    fn write(&mut self, path: &str, content: &[u8], attributes: Option<&Attributes>) -> Result<()> {
        let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
        self.node(if parent.is_empty() { "/" } else { parent })?;
        let old = match self.node(path) {
            Ok(Node::File(_, mode)) => mode,
            _ => 0o644,
        };
        let mode = attributes.map_or(old, |attributes| attributes.mode);
        self.nodes()
            .insert(path.to_owned(), Node::File(content.to_vec(), mode));
        if let Some(context) = attributes.and_then(|attributes| attributes.selinux.as_ref()) {
            self.label(path, context);
        }
        Ok(())
    }

    fn append(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let mut bytes = self.read(path, u64::MAX)?;
        bytes.extend_from_slice(content);
        self.write(path, &bytes, None)
    }

    fn create_directory(&mut self, path: &str, attributes: &Attributes) -> Result<()> {
        self.put(path, Node::Directory);
        if let Some(context) = &attributes.selinux {
            self.label(path, context);
        }
        Ok(())
    }

    fn create_symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.put(path, Node::Symlink(target.to_owned()));
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<()> {
        self.take(path);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let node = self.node(from)?;
        self.take(from);
        self.put(to, node);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
