// SPDX-License-Identifier: MIT OR Apache-2.0
//! The content of files: runs of extents, each inline, on the devices, or not written yet.
//!
//! | offset | field | | offset | field |
//! |---|---|---|---|---|
//! | 8 | bytes of the extent, not compressed | | 21 | inline: the content |
//! | 16 | compression | | 21 | logical address; 0 for a hole |
//! | 17, 18 | encryption, other encoding | | 29 | bytes there |
//! | 20 | 0 inline, 1 regular, 2 not written | | 37, 45 | the part that the file has: from, length |
//!
//! The key's offset is the place in the file. What no extent has is a hole.
//!
//! **Limits:** extents ascend and do not overlap, so each is read once; no more is kept than the file's
//! size, which the caller has compared with what it allows, and one extent.
//!
//! Source: Linux, include/uapi/linux/btrfs_tree.h (`btrfs_file_extent_item`), fs/btrfs/tree-checker.c
//! (`check_extent_data_item`).

use super::super::path::too_large;
use super::compression::{Compression, EXTENT_BYTES_MAX};
use super::inode::Inode;
use super::key::{Key, kind};
use super::tree::{Item, Tree};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::fields::Fields;

const STRUCTURE: &str = "btrfs file extent";
const INLINE_HEADER_BYTES: usize = 21;
const REGULAR_BYTES: usize = 53;

/// A part of a file.
#[derive(Debug)]
pub(super) struct FileExtent<'i> {
    start: u64,
    compression: Option<Compression>,
    /// Of the whole extent, before it is compressed.
    extent_bytes: u64,
    content: Content<'i>,
}

#[derive(Debug)]
enum Content<'i> {
    Inline(&'i [u8]),
    Stored(Stored),
    Zeros(u64),
}

/// Where a regular extent is.
#[derive(Debug, Clone, Copy)]
struct Stored {
    logical: u64,
    stored_bytes: u64,
    /// The part that the file has, of the extent before it is compressed.
    from: u64,
    length: u64,
}

impl<'i> FileExtent<'i> {
    pub(super) fn from_item(item: &'i Item, sector_bytes: u64) -> Result<Self> {
        let fields = Fields(item.data());
        let corrupt = |problem| Error::corrupt(STRUCTURE, item.key.object, problem);
        if item.data().len() < INLINE_HEADER_BYTES {
            return Err(corrupt("it is cut off"));
        }
        if fields.u8(17) != 0 || fields.u16(18) != 0 {
            return Err(Error::unsupported(STRUCTURE, "encryption"));
        }
        let compression = match fields.u8(16) {
            0 => None,
            1 => Some(Compression::Zlib),
            2 => Some(Compression::Lzo),
            3 => Some(Compression::Zstd),
            other => {
                return Err(Error::unsupported(
                    STRUCTURE,
                    format!("compression {other}"),
                ));
            }
        };
        let extent_bytes = fields.u64(8);
        if compression.is_some() && extent_bytes > EXTENT_BYTES_MAX {
            return Err(corrupt("more is compressed in it than 128 KiB"));
        }
        let content = match fields.u8(20) {
            0 => Content::Inline(item.data().get(INLINE_HEADER_BYTES..).unwrap_or_default()),
            1 | 2 if item.data().len() < REGULAR_BYTES => return Err(corrupt("it is cut off")),
            1 => regular(fields, extent_bytes, compression, sector_bytes).map_err(corrupt)?,
            2 => Content::Zeros(fields.u64(45)),
            _ => return Err(corrupt("its type is unknown")),
        };
        Ok(Self {
            start: item.key.offset,
            compression,
            extent_bytes,
            content,
        })
    }

    /// The logical addresses that it takes.
    pub(super) fn stored(item: &Item) -> Option<(u64, u64)> {
        let fields = Fields(item.data());
        let taken = matches!(fields.u8(20), 1 | 2) && fields.u64(21) != 0;
        taken.then(|| (fields.u64(21), fields.u64(29)))
    }
}

fn regular(
    fields: Fields<'_>,
    extent_bytes: u64,
    compression: Option<Compression>,
    sector_bytes: u64,
) -> Result<Content<'static>, &'static str> {
    let stored = Stored {
        logical: fields.u64(21),
        stored_bytes: fields.u64(29),
        from: fields.u64(37),
        length: fields.u64(45),
    };
    if stored.logical == 0 {
        return Ok(Content::Zeros(stored.length));
    }
    let numbers = [
        stored.logical,
        stored.stored_bytes,
        stored.from,
        stored.length,
    ];
    if !numbers
        .iter()
        .all(|number| number.is_multiple_of(sector_bytes))
    {
        return Err("it is not made of whole sectors");
    }
    let available = match compression {
        Some(_) if stored.stored_bytes > EXTENT_BYTES_MAX => {
            return Err("it is compressed to more than 128 KiB");
        }
        Some(_) => extent_bytes,
        None => stored.stored_bytes,
    };
    match stored.from.checked_add(stored.length) {
        Some(end) if end <= available => Ok(Content::Stored(stored)),
        _ => Err("the file has more of it than there is"),
    }
}

/// The whole content of a file or symbolic link, at most `limit_bytes`.
pub(super) fn read(
    volume: &Volume<'_>,
    tree: &Tree<'_, '_>,
    number: u64,
    inode: &Inode,
    limit_bytes: u64,
) -> Result<Vec<u8>> {
    let size = inode.metadata.size_bytes;
    if size > limit_bytes {
        return Err(too_large(limit_bytes));
    }
    let mut reader = Reader {
        volume,
        verify: inode.has_checksums,
        content: Vec::new(),
        size: usize::try_from(size).map_err(|_| too_large(limit_bytes))?,
        last: None,
    };
    // The last sector is read whole.
    let room = reader
        .size
        .saturating_add(volume.superblock.sector_bytes as usize);
    let room = reader.content.try_reserve_exact(room);
    room.map_err(|_| too_large(limit_bytes))?;
    let (first, last) = Key::all(number, kind::EXTENT_DATA);
    for item in tree.range(first, last)? {
        let item = item?;
        // Room beyond the end of the file, which is kept for it to grow.
        if item.key.offset >= size {
            break;
        }
        let extent = FileExtent::from_item(&item, volume.superblock.sector_bytes)?;
        reader.append(&extent, number)?;
    }
    reader.content.resize(reader.size, 0);
    Ok(reader.content)
}

struct Reader<'v, 'd> {
    volume: &'v Volume<'d>,
    verify: bool,
    content: Vec<u8>,
    size: usize,
    /// The last compressed extent, by its address: files often have several parts of one.
    last: Option<(u64, Vec<u8>)>,
}

impl Reader<'_, '_> {
    fn append(&mut self, extent: &FileExtent<'_>, number: u64) -> Result<()> {
        let start = usize::try_from(extent.start)
            .unwrap_or(usize::MAX)
            .min(self.size);
        if start < self.content.len() {
            return Err(Error::corrupt(STRUCTURE, number, "it overlaps another"));
        }
        self.content.resize(start, 0);
        match &extent.content {
            Content::Zeros(length) => {
                let length = usize::try_from(*length).unwrap_or(usize::MAX);
                let end = start.saturating_add(length).min(self.size);
                self.content.resize(end, 0);
            }
            Content::Inline(bytes) => match extent.compression {
                None => self.push(bytes),
                Some(compression) => {
                    let bytes = self.decompress(compression, bytes, extent, number)?;
                    self.push(&bytes);
                }
            },
            Content::Stored(stored) => match extent.compression {
                None => self.append_plain(stored)?,
                Some(compression) => self.append_compressed(compression, stored, extent)?,
            },
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.size.saturating_sub(self.content.len());
        self.content.extend(bytes.iter().take(room));
    }

    fn append_plain(&mut self, stored: &Stored) -> Result<()> {
        let start = self.content.len();
        let sector_bytes = self.volume.superblock.sector_bytes;
        let room = (self.size.saturating_sub(start) as u64).next_multiple_of(sector_bytes);
        let length = stored.length.min(room) as usize;
        self.content.resize(start + length, 0);
        let buffer = self.content.get_mut(start..).unwrap_or_default();
        let logical = stored.logical.saturating_add(stored.from);
        self.volume.read_data(logical, buffer, self.verify)?;
        self.content.truncate(self.size);
        Ok(())
    }

    fn append_compressed(
        &mut self,
        compression: Compression,
        stored: &Stored,
        extent: &FileExtent<'_>,
    ) -> Result<()> {
        let bytes = match self.last.take() {
            Some((logical, bytes))
                if logical == stored.logical && bytes.len() as u64 == extent.extent_bytes =>
            {
                bytes
            }
            _ => {
                let mut packed = vec![0; stored.stored_bytes as usize];
                self.volume
                    .read_data(stored.logical, &mut packed, self.verify)?;
                self.decompress(compression, &packed, extent, stored.logical)?
            }
        };
        self.push(Fields(&bytes).bytes(stored.from as usize, stored.length as usize));
        self.last = Some((stored.logical, bytes));
        Ok(())
    }

    fn decompress(
        &self,
        compression: Compression,
        packed: &[u8],
        extent: &FileExtent<'_>,
        place: u64,
    ) -> Result<Vec<u8>> {
        let sector_bytes = self.volume.superblock.sector_bytes as usize;
        compression.decompress(packed, extent.extent_bytes as usize, sector_bytes, place)
    }
}
