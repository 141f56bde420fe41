// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is added to an initramfs, and how it must be attached for every kernel to find it.
//!
//! | last part is | attached | why |
//! |---|---|---|
//! | uncompressed | at a multiple of 4, uncompressed | the kernel looks for an archive only there |
//! | gzip, xz, zstd | at a multiple of 4, compressed the same way | the kernel has that decompressor for certain, maybe no other |
//! | bzip2, lzma, lzop | at a multiple of 4, uncompressed | we do not write these |
//! | lz4 | directly behind its last block, zeros dropped, as more blocks of the same stream | see below |
//!
//! The lz4 decoder takes all that follows for its own blocks. Until Linux 5.14 even zeros were a
//! block of length 0, and an error, so nothing behind padding was ever found. But from its first
//! version (3.11) on it accepts the stream's magic between blocks and goes on. What it unpacks is
//! given to the same reader, which accepts several archives. So continuing the stream works on all
//! kernels, and nothing has to be packed again.
//!
//! The kernel's lzma decoder refills before each bit and not after the last one, so it may stop a byte
//! before the stream's end, and takes that byte for padding. It may: an encoder that has written a byte
//! more than the decoder needs has just shifted its state by eight bits, so the byte is zero.
//!
//! Directories are listed only where they do not exist yet: an entry `lib` would replace a symbolic
//! link `lib` by an empty directory, and with it every library of `/init`.

use std::collections::{BTreeMap, BTreeSet};

use disk::{Error, Result};

use super::{Initramfs, STRUCTURE};
use crate::guest::compression::{self, Compression};
use crate::guest::cpio::{self, FileKind};

/// Files to add to an initramfs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Additions {
    items: BTreeMap<String, Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    File { permissions: u32, data: Vec<u8> },
    Symlink { target: String },
}

impl Additions {
    /// Adds or replaces a regular file, at a path without a leading `/`.
    pub fn file(&mut self, path: impl Into<String>, permissions: u32, data: impl Into<Vec<u8>>) {
        let data = data.into();
        self.items
            .insert(path.into(), Item::File { permissions, data });
    }

    /// Adds a symbolic link, or replaces what is there by one.
    pub fn symlink(&mut self, path: impl Into<String>, target: impl Into<String>) {
        let target = target.into();
        self.items.insert(path.into(), Item::Symlink { target });
    }

    /// True where there is nothing to add.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The paths that are added, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.items.keys().map(String::as_str)
    }
}

/// Where and how another archive is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// How many bytes of the file are kept: all but zeros or foreign bytes after the last part.
    pub keep: u64,
    /// How many zeros follow them.
    pub padding: usize,
    /// How the new archive is compressed.
    pub compression: Compression,
}

/// The new end of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// How many bytes of the old file come before.
    pub keep: u64,
    /// The bytes that follow, padding included.
    pub bytes: Vec<u8>,
}

impl Appended {
    /// The whole new file.
    #[must_use]
    pub fn apply_to(&self, file: &[u8]) -> Vec<u8> {
        let keep = usize::try_from(self.keep).map_or(file.len(), |keep| keep.min(file.len()));
        [&file[..keep], &self.bytes].concat()
    }
}

impl Initramfs {
    /// Where and how an archive must be attached for every kernel that reads this file to find it.
    #[must_use]
    pub fn placement(&self) -> Placement {
        let (keep, last) = self.archives.last().map_or((0, Compression::None), |last| {
            (last.end(), last.compression)
        });
        match last {
            Compression::Lz4Legacy => Placement {
                keep,
                padding: 0,
                compression: last,
            },
            Compression::Gzip | Compression::Xz | Compression::Zstd => at_multiple_of_4(keep, last),
            Compression::None | Compression::Bzip2 | Compression::Lzma | Compression::Lzo => {
                at_multiple_of_4(keep, Compression::None)
            }
        }
    }

    /// The bytes that add files to this initramfs; `mtime` is their time of modification.
    pub fn append(&self, additions: &Additions, mtime: u32) -> Result<Appended> {
        let placement = self.placement();
        let archive = self.archive_of(additions, mtime)?;
        let mut bytes = vec![0; placement.padding];
        bytes.extend(compression::compress(&archive, placement.compression)?);
        Ok(Appended {
            keep: placement.keep,
            bytes,
        })
    }

    /// The additions as one uncompressed archive that fits onto this tree.
    fn archive_of(&self, additions: &Additions, mtime: u32) -> Result<Vec<u8>> {
        let mut writer = cpio::Writer::new(mtime);
        let mut made = BTreeSet::new();
        for (path, item) in &additions.items {
            let path = self
                .tree
                .resolve_parent(path)
                .filter(|path| !path.is_empty())
                .ok_or_else(|| unsuitable(path, "its links lead nowhere"))?;
            self.directories_of(&path, &mut made, &mut writer)?;
            if self.is_directory(&path) {
                return Err(unsuitable(&path, "a directory is there"));
            }
            match item {
                Item::File { permissions, data } => writer.file(&path, *permissions, data)?,
                Item::Symlink { target } => writer.symlink(&path, target)?,
            }
        }
        Ok(writer.finish())
    }

    /// Lists the directories above a path that do not exist yet.
    fn directories_of(
        &self,
        path: &str,
        made: &mut BTreeSet<String>,
        writer: &mut cpio::Writer,
    ) -> Result<()> {
        for (end, _) in path.match_indices('/') {
            let directory = &path[..end];
            if self.is_directory(directory) || made.contains(directory) {
                continue;
            }
            if self.tree.get(directory).is_some() {
                return Err(unsuitable(directory, "it is not a directory"));
            }
            writer.directory(directory, 0o755)?;
            made.insert(directory.to_owned());
        }
        Ok(())
    }

    fn is_directory(&self, path: &str) -> bool {
        self.tree
            .get(path)
            .is_some_and(|node| node.kind == FileKind::Directory)
    }
}

fn at_multiple_of_4(keep: u64, compression: Compression) -> Placement {
    Placement {
        keep,
        padding: (keep.wrapping_neg() % 4) as usize,
        compression,
    }
}

fn unsuitable(path: &str, reason: &str) -> Error {
    Error::unsupported(STRUCTURE, format!("adding {path}: {reason}; this"))
}
