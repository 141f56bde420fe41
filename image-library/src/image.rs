// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of an image as a device: holes are known, neighbours are read together, every chunk is
//! checked against its hash before its bytes are given out.

use std::ops::Range;
use std::sync::Arc;

use disk::block::{Extent, ExtentKind};

use crate::ahead::Readers;
use crate::cache::Cache;
use crate::chunk::ChunkId;
use crate::core::Core;
use crate::document::{Image, ImageDisk};
use crate::error::{Error, Result};
use crate::id::{ContentHash, ImageId};
use crate::index::Location;
use crate::manifest::{LEAF_CHUNKS, Root, chunk_length};
use crate::pack::{Extent as PackExtent, OpenPack};
use crate::store::names;

/// Records are read together up to this many bytes.
const RUN_LENGTH_MAX: u64 = 1 << 20;
/// Bytes between two records that are read rather than skipped.
const GAP_MAX: u64 = 32 << 10;
/// A reader's buffer is filled in pieces of this many bytes.
const WINDOW_LENGTH: usize = 4 << 20;
/// How many leaves stay in memory, 64 KiB each; one names 128 MiB of disk.
const LEAVES_MAX: usize = 32;

type Leaf = Arc<[Option<ContentHash>]>;

/// A disk of an image.
#[derive(Debug)]
pub(crate) struct ImageDevice {
    core: Arc<Core>,
    image: ImageId,
    name: String,
    root: Root,
    leaves: Cache<usize, Leaf>,
    readers: Readers,
}

/// A part of a chunk that a reader wants.
struct Piece<'a> {
    /// Where the part begins on the disk.
    disk_offset: u64,
    id: ChunkId,
    /// Where the part begins in the chunk.
    start: usize,
    chunk_length: usize,
    target: &'a mut [u8],
}

/// A piece and where its chunk stands.
struct Found<'a> {
    piece: Piece<'a>,
    location: Location,
}

impl ImageDevice {
    pub(crate) fn open(core: Arc<Core>, image: &Image, disk: &ImageDisk) -> Result<Self> {
        let place = format!("image {}, disk {:?}", image.id, disk.name);
        let root =
            core.read_root(&disk.manifest, &place)
                .map_err(|source| Error::ManifestLost {
                    image: image.id,
                    disk: disk.name.clone(),
                    source: Box::new(source),
                })?;
        if root.disk_size != disk.size_bytes {
            let (expected, found) = (disk.size_bytes, root.disk_size);
            let problem = format!("expected a disk of {expected} bytes, found {found}");
            return Err(Error::corrupt("manifest root", place, 16, problem));
        }
        Ok(Self {
            core,
            image: image.id,
            name: disk.name.clone(),
            root,
            leaves: Cache::new(LEAVES_MAX),
            readers: Readers::default(),
        })
    }

    /// Size of a chunk of its library.
    pub(crate) const fn chunk_size_bytes(&self) -> u32 {
        self.root.chunk_size
    }

    /// What cannot be read when the chunk at that byte cannot: it, or the leaf that names it.
    pub(crate) fn needed_at(&self, offset: u64) -> Option<ChunkId> {
        let chunk = offset / u64::from(self.root.chunk_size);
        let hash = match self.hash_of(chunk) {
            Ok(hash) => hash,
            Err(_) => *self
                .root
                .leaves
                .get((chunk / LEAF_CHUNKS as u64) as usize)?,
        };
        Some(self.core.key.chunk_id(&hash?))
    }

    fn leaf(&self, number: usize) -> Result<Leaf> {
        if let Some(leaf) = self.leaves.get(&number) {
            return Ok(leaf);
        }
        let place = format!("image {}, disk {:?}, leaf {number}", self.image, self.name);
        let entries = self
            .core
            .read_leaf(&self.root, number, &place)
            .map_err(|error| {
                let covered = LEAF_CHUNKS as u64 * u64::from(self.root.chunk_size);
                self.lost(number as u64 * covered, error)
            })?;
        let leaf: Leaf = entries.into();
        self.leaves.insert(number, Arc::clone(&leaf), 1);
        Ok(leaf)
    }

    fn hash_of(&self, chunk: u64) -> Result<Option<ContentHash>> {
        // The caller is within the disk, whose chunks number less than 2^31.
        let leaf = self.leaf((chunk / LEAF_CHUNKS as u64) as usize)?;
        let entry = (chunk % LEAF_CHUNKS as u64) as usize;
        Ok(leaf.get(entry).copied().flatten())
    }

    fn lost(&self, offset: u64, source: Error) -> Error {
        Error::Lost {
            image: self.image,
            disk: self.name.clone(),
            offset,
            source: Box::new(source),
        }
    }

    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut at = offset;
        for window in buffer.chunks_mut(WINDOW_LENGTH) {
            let end = at + window.len() as u64;
            let ahead = self.core.store.read_ahead_bytes();
            if ahead > 0 {
                // The window itself first, then what comes after it.
                self.announce(at..end)?;
                self.announce(self.readers.note(at..end, ahead))?;
            }
            self.fill_window(at, window)?;
            at = end;
        }
        Ok(())
    }

    /// Tells the store what of the disk will be read. What cannot be found is told to who reads it.
    fn announce(&self, range: Range<u64>) -> Result<()> {
        let size = u64::from(self.root.chunk_size);
        let end = range.end.min(self.root.disk_size).div_ceil(size);
        let mut run: Option<Location> = None;
        for chunk in range.start / size..end {
            let Some(hash) = self.hash_of(chunk)? else {
                continue;
            };
            let id = self.core.key.chunk_id(&hash);
            let Some(next) = self.core.find(&id)? else {
                continue;
            };
            match &mut run {
                Some(run) if run.pack == next.pack && run.extent.end() == start_of(&next) => {
                    run.extent.length += next.extent.length;
                }
                run => {
                    if let Some(done) = run.replace(next) {
                        self.announce_run(&done);
                    }
                }
            }
        }
        if let Some(run) = run {
            self.announce_run(&run);
        }
        Ok(())
    }

    fn announce_run(&self, run: &Location) {
        let name = names::pack(&run.pack);
        let length = u64::from(run.extent.length);
        self.core.store.will_read(&name, start_of(run), length);
    }

    fn fill_window(&self, offset: u64, window: &mut [u8]) -> Result<()> {
        let mut found: Vec<Found<'_>> = Vec::new();
        let mut rest = window;
        let mut at = offset;
        while !rest.is_empty() {
            let chunk = at / u64::from(self.root.chunk_size);
            let start = (at % u64::from(self.root.chunk_size)) as usize;
            let chunk_length =
                chunk_length(self.root.disk_size, self.root.chunk_size, chunk) as usize;
            let length = chunk_length.saturating_sub(start).min(rest.len());
            if length == 0 {
                break;
            }
            let (target, tail) = rest.split_at_mut(length);
            rest = tail;
            if let Some(hash) = self.hash_of(chunk)? {
                let piece = Piece {
                    disk_offset: at,
                    id: self.core.key.chunk_id(&hash),
                    start,
                    chunk_length,
                    target,
                };
                found.extend(self.find(piece)?);
            } else {
                target.fill(0);
            }
            at += length as u64;
        }
        self.read_runs(found)
    }

    /// Fills the piece from the cache, or gives it back with its place.
    fn find<'a>(&self, piece: Piece<'a>) -> Result<Option<Found<'a>>> {
        if let Some(plain) = self.core.cached(&piece.id)
            && let Some(bytes) = plain.get(piece.start..piece.start + piece.target.len())
        {
            piece.target.copy_from_slice(bytes);
            return Ok(None);
        }
        let location = self
            .core
            .locate(&piece.id)
            .and_then(|location| {
                location.ok_or_else(|| Error::ChunkMissing {
                    chunk: piece.id.to_string(),
                })
            })
            .map_err(|error| self.lost(piece.disk_offset, error))?;
        Ok(Some(Found { piece, location }))
    }

    fn read_runs(&self, found: Vec<Found<'_>>) -> Result<()> {
        let mut run: Vec<Found<'_>> = Vec::new();
        for next in found {
            let joins = run.first().zip(run.last()).is_some_and(|(first, last)| {
                let (first, last, next) = (&first.location, &last.location, &next.location);
                let start = u64::from(next.extent.offset);
                next.pack == last.pack
                    && start >= last.extent.end()
                    && start - last.extent.end() <= GAP_MAX
                    && next.extent.end() - u64::from(first.extent.offset) <= RUN_LENGTH_MAX
            });
            if !joins {
                self.read_run(std::mem::take(&mut run))?;
            }
            run.push(next);
        }
        self.read_run(run)
    }

    /// Reads records that stand near each other in one pack with one read.
    fn read_run(&self, run: Vec<Found<'_>>) -> Result<()> {
        let Some((first, last)) = run.first().zip(run.last()) else {
            return Ok(());
        };
        let start = u64::from(first.location.extent.offset);
        let mut bytes = vec![0; (last.location.extent.end() - start) as usize];
        let pack = self.core.open_pack(first.location.pack);
        let pack = pack.and_then(|pack| pack.read_raw(start, &mut bytes).map(|()| pack));
        for Found {
            mut piece,
            location,
        } in run
        {
            let extent = &location.extent;
            let from = (u64::from(extent.offset) - start) as usize;
            let record = &mut bytes[from..from + extent.length as usize];
            let Ok(pack) = &pack else {
                // Its own read says what is wrong with each, and finds other copies.
                self.read_alone(&mut piece, &location)?;
                continue;
            };
            if extent.plain_length as usize != piece.chunk_length
                || self.open_record(pack, &mut piece, extent, record).is_err()
            {
                self.read_alone(&mut piece, &location)?;
            }
        }
        Ok(())
    }

    /// Opens a record into a reader's buffer. A chunk that is wanted in part is kept for later:
    /// the rest of it is likely to be wanted next.
    fn open_record(
        &self,
        pack: &OpenPack,
        found: &mut Piece<'_>,
        extent: &PackExtent,
        record: &mut [u8],
    ) -> Result<()> {
        let core = &self.core;
        if found.target.len() == found.chunk_length {
            pack.open_record(&core.key, &found.id, extent, record, found.target)?;
            return Ok(());
        }
        let mut plain = vec![0; found.chunk_length];
        pack.open_record(&core.key, &found.id, extent, record, &mut plain)?;
        let end = found.start + found.target.len();
        found.target.copy_from_slice(&plain[found.start..end]);
        core.cache(found.id, plain.into());
        Ok(())
    }

    /// Reads one chunk by itself, from whichever copy is whole, and keeps it for later.
    fn read_alone(&self, piece: &mut Piece<'_>, location: &Location) -> Result<()> {
        let core = &self.core;
        let plain = core
            .read_at(&piece.id, location)
            .or_else(|error| core.read_other_copy(&piece.id, location, error))
            .map_err(|error| self.lost(piece.disk_offset, error))?;
        if plain.len() != piece.chunk_length {
            let (expected, found) = (piece.chunk_length, plain.len());
            let problem = format!("expected a chunk of {expected} bytes, found {found}");
            let place = format!("image {}, disk {:?}", self.image, self.name);
            return Err(Error::corrupt(
                "manifest leaf",
                place,
                piece.disk_offset,
                problem,
            ));
        }
        let end = piece.start + piece.target.len();
        piece.target.copy_from_slice(&plain[piece.start..end]);
        core.cache(piece.id, plain.into());
        Ok(())
    }

    fn device_error(offset: u64, length: usize, source: Error) -> disk::Error {
        disk::Error::Device {
            action: "read",
            offset,
            length: length as u64,
            source: Box::new(source),
        }
    }

    /// How far the run of holes or data goes from a chunk, within its leaf.
    fn run_from(&self, chunk: u64) -> Result<(u64, ExtentKind)> {
        let leaf = self.leaf((chunk / LEAF_CHUNKS as u64) as usize)?;
        let entry = (chunk % LEAF_CHUNKS as u64) as usize;
        let is_hole = leaf.get(entry).is_none_or(Option::is_none);
        let alike = leaf[entry.min(leaf.len())..]
            .iter()
            .take_while(|hash| hash.is_none() == is_hole)
            .count();
        let kind = if is_hole {
            ExtentKind::Zero
        } else {
            ExtentKind::Data
        };
        Ok((alike.max(1) as u64, kind))
    }
}

/// Where a record begins in its pack.
fn start_of(location: &Location) -> u64 {
    u64::from(location.extent.offset)
}

impl disk::ReadAt for ImageDevice {
    fn length_bytes(&self) -> u64 {
        self.root.disk_size
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        let length = buffer.len();
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > self.root.disk_size) {
            let limit = self.root.disk_size;
            let what = "the end of a read in bytes";
            return Err(Self::device_error(
                offset,
                length,
                Error::Limit { what, limit },
            ));
        }
        self.fill(offset, buffer)
            .map_err(|error| Self::device_error(offset, length, error))
    }

    fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
        let size = u64::from(self.root.chunk_size);
        if offset >= self.root.disk_size {
            let limit = self.root.disk_size;
            let what = "an offset in bytes";
            return Err(Self::device_error(offset, 0, Error::Limit { what, limit }));
        }
        let mut chunk = offset / size;
        let (mut alike, kind) = self
            .run_from(chunk)
            .map_err(|error| Self::device_error(offset, 0, error))?;
        chunk += alike;
        // A leaf that names nothing is known without reading it: long holes are one extent.
        while kind == ExtentKind::Zero
            && chunk.is_multiple_of(LEAF_CHUNKS as u64)
            && self.root.leaves.get((chunk / LEAF_CHUNKS as u64) as usize) == Some(&None)
        {
            alike = self
                .root
                .leaf_entries((chunk / LEAF_CHUNKS as u64) as usize) as u64;
            chunk += alike;
        }
        let end = chunk.saturating_mul(size).min(self.root.disk_size);
        Ok(Extent {
            length: end - offset,
            kind,
        })
    }
}
