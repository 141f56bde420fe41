// SPDX-License-Identifier: MIT OR Apache-2.0
//! An initramfs: read without unpacking it, extended without rebuilding it.
//!
//! ```text
//! file := (zeros | archive | compressed(archive (zeros | archive)*))*
//! ```
//! The kernel (init/initramfs.c) unpacks one after the other into one tree: a later file replaces
//! an earlier one, an entry of another type removes what was there, a directory over a symbolic
//! link replaces the link. An uncompressed archive must begin at a multiple of 4. Distributions put
//! an uncompressed archive with CPU microcode before the main one.
//!
//! [`Initramfs::read`] streams the file once and keeps names, modes, link targets and the contents
//! of chosen files: memory does not grow with the archive. [`Additions`] are turned by
//! [`Initramfs::append`] into the bytes that follow.
//!
//! Limits: [`Limits`].

mod append;
pub mod dracut;
mod generator;
pub mod nash;
mod ramdisk;
pub mod suse_mkinitrd;
mod tree;

pub use append::{Additions, Appended, Placement};
pub use generator::Generator;
pub use ramdisk::ramdisk_filesystem;
pub use tree::Node;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use disk::{Error, Result};

use crate::guest::compression::{Compression, Decoder};
use crate::guest::cpio::{self, FileKind};
use crate::guest::kmod::ModuleName;
use tree::Tree;

const STRUCTURE: &str = "initramfs";
const LINK_TARGET_LENGTH_MAX: u64 = 4096;

/// What reading may cost at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all archives, unpacked.
    pub unpacked_bytes: u64,
    /// Files, directories and links.
    pub entries: usize,
    /// Bytes of all names and link targets.
    pub name_bytes: usize,
    /// Bytes of all contents that are kept.
    pub kept_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked_bytes: 1 << 30,
            entries: 200_000,
            name_bytes: 32 << 20,
            kept_bytes: 64 << 20,
        }
    }
}

/// One part of the file: an archive, or several that are compressed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archive {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its length in the file in bytes, without the zeros that follow.
    pub length: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// How many entries it has.
    pub entry_count: usize,
    /// Its length when unpacked, in bytes.
    pub unpacked_length: u64,
}

impl Archive {
    fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// A kernel module inside an initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFile {
    /// Path inside the initramfs, symbolic links followed, without a leading `/`.
    pub path: String,
    /// The kernel version of the directory `lib/modules/<version>` that it is in, if it is in one.
    pub version: Option<String>,
    /// Path below that directory, or below the root.
    pub relative: String,
    /// The module's name.
    pub name: ModuleName,
}

/// What an initramfs holds.
#[derive(Debug, Clone)]
pub struct Initramfs {
    archives: Vec<Archive>,
    tree: Tree,
    contents: BTreeMap<String, Vec<u8>>,
}

impl Initramfs {
    /// Reads a whole file; keeps the contents of regular files for which `wanted` says so.
    ///
    /// `wanted` is asked with the path in the tree, symbolic links followed, without leading `/`.
    pub fn read(file: &[u8], wanted: &dyn Fn(&str) -> bool, limits: Limits) -> Result<Self> {
        let mut scan = Scan {
            initramfs: Self {
                archives: Vec::new(),
                tree: Tree::default(),
                contents: BTreeMap::new(),
            },
            wanted,
            limits,
            unpacked_left: limits.unpacked_bytes,
            kept_left: limits.kept_bytes,
        };
        let mut position = 0;
        while let Some(archive) = scan.archive(file, position)? {
            position = archive.end() as usize;
            scan.initramfs.archives.push(archive);
        }
        if scan.initramfs.archives.is_empty() {
            return Err(Error::corrupt(STRUCTURE, 0, "holds no archive"));
        }
        Ok(scan.initramfs)
    }

    /// The parts of the file, in their order.
    #[must_use]
    pub fn archives(&self) -> &[Archive] {
        &self.archives
    }

    /// All entries of the tree that the kernel makes of it, by path.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.tree.iter()
    }

    /// What is at a path; symbolic links are followed, the last one too.
    #[must_use]
    pub fn entry(&self, path: &str) -> Option<&Node> {
        self.tree.get(&self.tree.resolve(path)?)
    }

    /// The contents of a file that `wanted` chose; symbolic links are followed.
    #[must_use]
    pub fn contents(&self, path: &str) -> Option<&[u8]> {
        self.contents
            .get(&self.tree.resolve(path)?)
            .map(Vec::as_slice)
    }

    /// The files whose contents were kept, by path.
    pub fn kept(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.contents
            .iter()
            .map(|(path, contents)| (path.as_str(), contents.as_slice()))
    }

    /// A path with its symbolic links followed: where a file put there would be.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Option<String> {
        self.tree.resolve(path)
    }

    /// True where the kernel finds a program to start.
    #[must_use]
    pub fn has_init(&self) -> bool {
        // An absolute link into the root filesystem (`/init -> /lib/systemd/systemd`) counts too.
        self.tree.get("init").is_some()
    }

    /// The kernel modules inside.
    #[must_use]
    pub fn modules(&self) -> Vec<ModuleFile> {
        self.tree
            .iter()
            .filter(|(_, node)| node.kind == FileKind::File)
            .filter_map(|(path, _)| module_file(path))
            .collect()
    }

    /// The versions that have a directory below `lib/modules`.
    #[must_use]
    pub fn kernel_versions(&self) -> Vec<String> {
        let Some(parent) = self.tree.resolve("lib/modules") else {
            return Vec::new();
        };
        self.tree
            .iter()
            .filter(|(_, node)| node.kind == FileKind::Directory)
            .filter_map(|(path, _)| path.strip_prefix(&parent)?.strip_prefix('/'))
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    /// Where modules of a version are or belong, symbolic links followed, as
    /// `usr/lib/modules/6.1.0-9-amd64`.
    #[must_use]
    pub fn module_directory(&self, version: &str) -> String {
        let path = format!("lib/modules/{version}");
        self.tree.resolve(&path).unwrap_or(path)
    }

    /// Which program made it.
    #[must_use]
    pub fn generator(&self) -> Generator {
        Generator::of(self)
    }
}

fn module_file(path: &str) -> Option<ModuleFile> {
    let name = ModuleName::from_path(path)?;
    let below = path
        .strip_prefix("usr/")
        .unwrap_or(path)
        .strip_prefix("lib/modules/")
        .and_then(|rest| rest.split_once('/'));
    Some(ModuleFile {
        path: path.to_owned(),
        version: below.map(|(version, _)| version.to_owned()),
        relative: below.map_or(path, |(_, relative)| relative).to_owned(),
        name,
    })
}

struct Scan<'a> {
    initramfs: Initramfs,
    wanted: &'a dyn Fn(&str) -> bool,
    limits: Limits,
    unpacked_left: u64,
    kept_left: u64,
}

impl Scan<'_> {
    /// Reads the next part at or after `position`; `None` at the end.
    ///
    /// Foreign bytes after a first archive end the reading, as they do in the kernel.
    fn archive(&mut self, file: &[u8], position: usize) -> Result<Option<Archive>> {
        let rest = &file[position..];
        let Some(zeros) = rest.iter().position(|byte| *byte != 0) else {
            return Ok(None);
        };
        let offset = position + zeros;
        let part = &rest[zeros..];
        let compression = Compression::detect(part);
        let plain = part.starts_with(b"0707") && offset.is_multiple_of(4);
        if compression == Compression::None && !plain {
            return if self.initramfs.archives.is_empty() {
                Err(foreign(part, offset))
            } else {
                Ok(None)
            };
        }
        let mut archive = Archive {
            offset: offset as u64,
            length: 0,
            compression,
            entry_count: self.initramfs.tree.len(),
            unpacked_length: 0,
        };
        if plain {
            archive.entry_count =
                self.entries_of_one(&mut cpio::Reader::new(part), &mut archive)?;
            archive.length = archive.unpacked_length;
        } else {
            self.compressed(part, &mut archive)
                .map_err(|error| at_offset(error, archive))?;
        }
        Ok(Some(archive))
    }

    fn compressed(&mut self, part: &[u8], archive: &mut Archive) -> Result<()> {
        let bounded = Bounded {
            source: Decoder::new(part, archive.compression)?,
            left: self.unpacked_left,
            limit: self.limits.unpacked_bytes,
        };
        let mut reader = cpio::Reader::new(BufReader::with_capacity(1 << 16, bounded));
        archive.entry_count = 0;
        while reader.find_archive()? {
            archive.entry_count += self.entries_of_one(&mut reader, archive)?;
        }
        let mut bounded = reader.into_inner();
        if !bounded
            .fill_buf()
            .map_err(|error| unpack_error(error, archive.unpacked_length))?
            .is_empty()
        {
            return Err(Error::corrupt(
                STRUCTURE,
                archive.offset,
                "expected another archive or zeros inside the compressed part",
            ));
        }
        let bounded = bounded.into_inner();
        self.unpacked_left = bounded.left;
        archive.length = (part.len() - bounded.source.into_remaining().len()) as u64;
        Ok(())
    }

    /// Reads one archive to its trailer; gives the number of its entries.
    fn entries_of_one<R: BufRead>(
        &mut self,
        reader: &mut cpio::Reader<R>,
        archive: &mut Archive,
    ) -> Result<usize> {
        let mut links = HardLinks::default();
        let mut count = 0;
        while let Some(entry) = reader.next_entry()? {
            count += 1;
            self.entry(reader, &entry, &mut links)?;
        }
        archive.unpacked_length = reader.position();
        Ok(count)
    }

    fn entry<R: BufRead>(
        &mut self,
        reader: &mut cpio::Reader<R>,
        entry: &cpio::Entry,
        links: &mut HardLinks,
    ) -> Result<()> {
        let target = match entry.kind() {
            FileKind::Symlink => {
                let target = reader.read_data(LINK_TARGET_LENGTH_MAX)?;
                Some(String::from_utf8_lossy(&target).into_owned())
            }
            FileKind::File | FileKind::Directory | FileKind::Special => None,
        };
        let tree = &mut self.initramfs.tree;
        let Some(path) = tree.insert(entry, target) else {
            return Ok(());
        };
        self.initramfs.contents.remove(&path);
        if tree.len() > self.limits.entries || tree.name_bytes() > self.limits.name_bytes {
            return Err(Error::Limit {
                what: "number or names of the entries in an initramfs",
                limit: self.limits.entries as u64,
            });
        }
        if entry.kind() == FileKind::File {
            self.keep(reader, entry, path, links)?;
        }
        Ok(())
    }

    fn keep<R: BufRead>(
        &mut self,
        reader: &mut cpio::Reader<R>,
        entry: &cpio::Entry,
        path: String,
        links: &mut HardLinks,
    ) -> Result<()> {
        let names = links.names(entry, path);
        let wanted: Vec<&String> = names.iter().filter(|name| (self.wanted)(name)).collect();
        // Of several links the last one carries the data.
        let shared_data_follows = entry.data_length == 0 && entry.link_count > 1;
        if wanted.is_empty() || shared_data_follows {
            return Ok(());
        }
        let data = reader.read_data(self.kept_left / wanted.len() as u64)?;
        self.kept_left -= data.len() as u64 * wanted.len() as u64;
        for name in wanted {
            self.initramfs.contents.insert(name.clone(), data.clone());
        }
        Ok(())
    }
}

/// The names of files that share an inode; they do so within one archive.
#[derive(Default)]
struct HardLinks {
    by_inode: BTreeMap<(u32, u32, u32), Vec<String>>,
}

impl HardLinks {
    fn names(&mut self, entry: &cpio::Entry, path: String) -> Vec<String> {
        if entry.link_count < 2 {
            return vec![path];
        }
        let key = (entry.device.0, entry.device.1, entry.inode);
        let names = self.by_inode.entry(key).or_default();
        names.push(path);
        if entry.data_length == 0 {
            return Vec::new();
        }
        names.clone()
    }
}

fn foreign(part: &[u8], offset: usize) -> Error {
    let start = part.get(..8).unwrap_or(part);
    Error::corrupt(
        STRUCTURE,
        offset as u64,
        format!(
            "expected a cpio archive, compressed or not, found \"{}\"",
            start.escape_ascii()
        ),
    )
}

/// An offset inside the unpacked bytes says little without the archive it is in.
fn at_offset(error: Error, archive: Archive) -> Error {
    match error {
        Error::Corrupt {
            structure,
            offset,
            problem,
        } => Error::corrupt(
            STRUCTURE,
            archive.offset,
            format!(
                "{} part: {structure} at unpacked byte {offset:#x}: {problem}",
                archive.compression
            ),
        ),
        other => other,
    }
}

fn unpack_error(error: io::Error, offset: u64) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::corrupt(STRUCTURE, offset, format!("cannot decompress: {error}")),
    }
}

/// Stops a decompression bomb.
struct Bounded<'a> {
    source: Decoder<'a>,
    left: u64,
    limit: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(target)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::other(Error::Limit {
                what: "unpacked length of an initramfs in bytes",
                limit: self.limit,
            })
        })?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
