// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading ext2, ext3 and ext4 through `ext4-view`. Its own replay of a journal is not used.
//!
//! The library's handle cannot leave the thread that made it, and a [`Filesystem`] may, so it lives
//! on a thread of its own that is sent one question at a time. A panic inside it, on bytes that lie,
//! ends that thread and is an error here.
//!
//! **Refused by the library**, and therefore `Unsupported`: meta_bg, mmp, ea_inode, largedir,
//! inline_data, compression, dirdata, an external journal, and directories without file types.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ext4_view::{Ext4, Ext4Error, Ext4Read, Path};

use super::super::cache::CachedDevice;
use super::super::path::{self, GuestPath};
use super::super::superblock::{self, ext::Superblock};
use super::super::{DirectoryEntry, FileType, Filesystem, Identity, Metadata};
use super::{ExtWriter, STRUCTURE};
use crate::block::ReadAt;
use crate::error::{Error, Result};

/// An ext directory may be far larger; no guest directory that conversion lists is.
const ENTRIES_MAX: usize = 1 << 20;

type Question = Box<dyn FnOnce(&Ext4) + Send>;

/// An ext filesystem, for reading.
#[derive(Debug)]
pub(crate) struct ExtReader {
    identity: Identity,
    /// For what the library does not read.
    device: Arc<dyn ReadAt>,
    superblock: Superblock,
    questions: Sender<Question>,
}

impl ExtReader {
    pub(crate) fn open(device: Arc<dyn ReadAt>, superblock: &Superblock) -> Result<Self> {
        let identity = superblock.identity(device.length_bytes());
        let cached = CachedDevice::new(Arc::clone(&device));
        let (questions, asked) = channel();
        let (opened, outcome) = channel();
        thread::Builder::new()
            .name("ext-reader".to_owned())
            .spawn(move || match Ext4::load(Box::new(Device(cached))) {
                Ok(tree) => {
                    // Whoever opens waits for this; nobody left to tell is no problem.
                    let _ = opened.send(Ok(()));
                    answer(&tree, &asked);
                }
                Err(error) => {
                    let _ = opened.send(Err(translate(error, "/")));
                }
            })
            .map_err(|source| Error::File {
                action: "start a thread for",
                path: "the filesystem".into(),
                source,
            })?;
        outcome.recv().unwrap_or_else(|_| Err(contradiction()))?;
        Ok(Self {
            identity,
            device,
            superblock: superblock.clone(),
            questions,
        })
    }

    /// Asks the thread, and waits for its answer.
    fn ask<T: Send + 'static>(
        &self,
        path: &str,
        question: impl FnOnce(&Ext4, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = path.to_owned();
        let (answer, outcome) = channel();
        let asked = self.questions.send(Box::new(move |tree| {
            let _ = answer.send(question(tree, &path));
        }));
        match asked {
            Ok(()) => outcome.recv().unwrap_or_else(|_| Err(contradiction())),
            Err(_) => Err(contradiction()),
        }
    }
}

fn answer(tree: &Ext4, asked: &Receiver<Question>) {
    while let Ok(question) = asked.recv() {
        question(tree);
    }
}

fn contradiction() -> Error {
    Error::corrupt(STRUCTURE, 0, "its structures contradict each other")
}

impl Filesystem for ExtReader {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn metadata(&self, path: &str) -> Result<Metadata> {
        self.ask(path, metadata)
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        self.ask(path, move |tree, path| read(tree, path, limit_bytes))
    }

    fn read_link(&self, path: &str) -> Result<String> {
        self.ask(path, |tree, path| {
            if metadata(tree, path)?.file_type != FileType::Symlink {
                return Err(Error::unsupported(
                    STRUCTURE,
                    format!("reading {path} as a symbolic link, which it is not,"),
                ));
            }
            let target = tree
                .read_link(library_path(path)?)
                .map_err(|error| translate(error, path))?;
            let target: &[u8] = target.as_ref();
            Ok(String::from_utf8_lossy(target).into_owned())
        })
    }

    fn read_directory(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        self.ask(path, read_directory)
    }

    /// Through the other library, which reads extended attributes, opened for this one question:
    /// it is asked about two or three files of a guest.
    fn selinux_context(&self, path: &str) -> Result<Option<String>> {
        ExtWriter::open_for_reading(Arc::clone(&self.device), &self.superblock)?
            .selinux_context(path)
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        superblock::ext::free_bytes(&*self.device, &self.superblock).map(Some)
    }
}

fn metadata(tree: &Ext4, path: &str) -> Result<Metadata> {
    refuse_links_above(tree, path)?;
    let metadata = tree
        .symlink_metadata(library_path(path)?)
        .map_err(|error| translate(error, path))?;
    Ok(Metadata {
        file_type: file_type(metadata.file_type()),
        size_bytes: metadata.len(),
        mode: metadata.mode().into(),
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// `NotFound` when a directory above `path` is a symbolic link: the library would follow it.
fn refuse_links_above(tree: &Ext4, path: &str) -> Result<()> {
    let guest = GuestPath::parse(path)?;
    let Some((parent, _)) = guest.split_name() else {
        return Ok(());
    };
    let parent = format!("/{}", parent.join("/"));
    let real = tree.canonicalize(library_path(&parent)?).map_err(|error| {
        match translate(error, path) {
            // A link above that leads nowhere.
            Error::NotFound { .. } => path::not_found(path),
            other => other,
        }
    })?;
    match AsRef::<[u8]>::as_ref(&real) == parent.as_bytes() {
        true => Ok(()),
        false => Err(path::not_found(path)),
    }
}

fn read(tree: &Ext4, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
    let metadata = metadata(tree, path)?;
    if metadata.file_type != FileType::File {
        return Err(path::not_a_file(STRUCTURE, path));
    }
    if metadata.size_bytes > limit_bytes {
        return Err(path::too_large(limit_bytes));
    }
    tree.read(library_path(path)?)
        .map_err(|error| translate(error, path))
}

fn read_directory(tree: &Ext4, path: &str) -> Result<Vec<DirectoryEntry>> {
    if metadata(tree, path)?.file_type != FileType::Directory {
        return Err(path::not_found(path));
    }
    let mut entries = Vec::new();
    let listing = tree
        .read_dir(library_path(path)?)
        .map_err(|error| translate(error, path))?;
    for entry in listing {
        let entry = entry.map_err(|error| translate(error, path))?;
        let name = String::from_utf8_lossy(entry.file_name().as_ref()).into_owned();
        if name == "." || name == ".." {
            continue;
        }
        if entries.len() >= ENTRIES_MAX {
            return Err(path::directory_too_large(ENTRIES_MAX));
        }
        let file_type = entry.file_type().map_err(|error| translate(error, path))?;
        entries.push(DirectoryEntry {
            name,
            file_type: self::file_type(file_type),
        });
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(entries)
}

fn library_path(path: &str) -> Result<Path<'_>> {
    Path::try_from(path).map_err(|_| path::not_found(path))
}

fn file_type(file_type: ext4_view::FileType) -> FileType {
    use ext4_view::FileType as Library;
    match file_type {
        Library::Regular => FileType::File,
        Library::Directory => FileType::Directory,
        Library::Symlink => FileType::Symlink,
        Library::BlockDevice | Library::CharacterDevice | Library::Fifo | Library::Socket => {
            FileType::Special
        }
    }
}

fn translate(error: Ext4Error, path: &str) -> Error {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory => path::not_found(path),
        Ext4Error::Incompatible(feature) => Error::unsupported(STRUCTURE, feature.to_string()),
        Ext4Error::Encrypted => Error::unsupported(STRUCTURE, "an encrypted file"),
        Ext4Error::Io(source) => match source.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::corrupt(STRUCTURE, 0, other.to_string()),
        },
        other => Error::corrupt(STRUCTURE, 0, other.to_string()),
    }
}

/// The device as the library reads it.
struct Device(CachedDevice);

impl Ext4Read for Device {
    fn read(
        &mut self,
        start_byte: u64,
        buffer: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.0.read_exact_at(start_byte, buffer)?)
    }
}
