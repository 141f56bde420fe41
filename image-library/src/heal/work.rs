// SPDX-License-Identifier: MIT OR Apache-2.0
//! Goes through the manifests of all images, and stores what is missing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use disk::Monitor;

use super::replica::{Answer, Replica};
use super::{HealOptions, HealReport};
use crate::access::{ImageReader, UploadTarget};
use crate::chunk::{CheckedChunk, ChunkId};
use crate::core::Core;
use crate::document::{Image, ImageDisk};
use crate::error::{Error, Result};
use crate::id::{ContentHash, ServerName};
use crate::manifest::{LEAF_CHUNKS, Root, leaf_to_bytes};
use crate::pack::BlobKind;
use crate::upload::LocalUpload;
use crate::wanted::{Avoided, Losses};

const REMEDY: &str =
    "heal from another copy of the library; a newer image of the server may be whole";
/// So many of the chunks that were taken are remembered, so that none is taken twice.
const TAKEN_MAX: usize = 1 << 20;

/// What is done, and how far it is.
pub(super) struct Work<'a> {
    core: &'a Arc<Core>,
    from: &'a dyn ImageReader,
    is_dry: bool,
    stop: &'a AtomicBool,
    monitor: &'a dyn Monitor,
    report: &'a mut HealReport,
    avoided: Avoided,
    losses: Losses,
    upload: Option<(ServerName, LocalUpload)>,
    taken: HashSet<ChunkId>,
    /// Half hashes of leaves of which nothing is missing: images share most of theirs.
    whole: HashSet<[u8; 16]>,
}

/// A disk that is looked through.
struct Place<'a> {
    image: &'a Image,
    disk: &'a ImageDisk,
    replica: Replica<'a>,
}

impl<'a> Work<'a> {
    pub(super) fn begin(
        core: &'a Arc<Core>,
        from: &'a dyn ImageReader,
        options: &HealOptions,
        stop: &'a AtomicBool,
        monitor: &'a dyn Monitor,
        report: &'a mut HealReport,
    ) -> Result<Self> {
        Ok(Self {
            core,
            from,
            is_dry: options.dry_run,
            stop,
            monitor,
            report,
            avoided: Avoided {
                wanted: core.wanted()?,
                ..Avoided::default()
            },
            losses: Losses::begin(core)?,
            upload: None,
            taken: HashSet::new(),
            whole: HashSet::new(),
        })
    }

    pub(super) fn image(&mut self, image: &Image) -> Result<()> {
        self.report.images += 1;
        for disk in &image.disks {
            let chunk_size = self.core.config.chunk_size_bytes;
            let mut place = Place {
                image,
                disk,
                replica: Replica::new(self.from, image.id, disk, chunk_size),
            };
            self.disk(&mut place)?;
        }
        Ok(())
    }

    /// Makes durable what was taken, and writes down damage that nobody had met.
    pub(super) fn finish(mut self) -> Result<()> {
        self.finish_upload()?;
        if self.is_dry {
            return Ok(());
        }
        self.losses.publish(self.core)
    }

    fn finish_upload(&mut self) -> Result<()> {
        match self.upload.take() {
            Some((_, upload)) => upload.finish_healing(),
            None => Ok(()),
        }
    }

    fn disk(&mut self, place: &mut Place<'_>) -> Result<()> {
        let Some(root) = self.root(place)? else {
            return Ok(());
        };
        for (number, hash) in (0..).zip(&root.leaves) {
            self.goes_on()?;
            let Some(hash) = hash else { continue };
            let mut half = [0; 16];
            half.copy_from_slice(&hash.as_bytes()[..16]);
            if !self.whole.contains(&half) && self.leaf(place, &root, number, hash)? {
                self.whole.insert(half);
            }
        }
        Ok(())
    }

    fn goes_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        Ok(())
    }

    /// The root of a disk's manifest, made again where it is lost; `None` when that cannot be.
    fn root(&mut self, place: &mut Place<'_>) -> Result<Option<Root>> {
        let name = place.name();
        let Ok(hash) = blake3::Hash::from_hex(&place.disk.manifest) else {
            let problem = format!("its document names no manifest: {:?}", place.disk.manifest);
            self.report.leave(name, problem, REMEDY, self.monitor);
            return Ok(None);
        };
        let hash = ContentHash::from_bytes(*hash.as_bytes());
        let here = self.core.read_root(&place.disk.manifest, &name);
        let root = match here {
            Ok(root) if !self.is_missing(&hash)? => return Ok(Some(root)),
            Ok(root) => root,
            Err(error) if error.is_damage() => {
                let goes_on = || self.goes_on();
                match place.replica.root(&hash, &goes_on)? {
                    Ok(root) => root,
                    Err(problem) => {
                        let problem = format!("its manifest is lost; {problem}");
                        self.report.leave(name, problem, REMEDY, self.monitor);
                        return Ok(None);
                    }
                }
            }
            Err(error) => return Err(error),
        };
        self.report.roots += u64::from(self.take(place, BlobKind::Root, root.to_bytes())?);
        Ok(Some(root))
    }

    /// Heals a leaf and its chunks; gives whether all of it is whole now.
    fn leaf(
        &mut self,
        place: &mut Place<'_>,
        root: &Root,
        number: u64,
        hash: &ContentHash,
    ) -> Result<bool> {
        let first = number * LEAF_CHUNKS as u64;
        let here = self.core.read_leaf(root, number as usize, &place.name());
        let is_lost = match &here {
            Ok(_) => self.is_missing(hash)?,
            Err(error) => error.is_damage(),
        };
        let entries = match here {
            Ok(entries) => entries,
            Err(_) if is_lost => match place.replica.leaf(number, hash)? {
                Ok(entries) => entries,
                Err(problem) => {
                    let count = root.leaf_entries(number as usize) as u64;
                    let problem = format!("a leaf of its manifest is lost; {problem}");
                    self.leave(place, first, count, problem);
                    return Ok(false);
                }
            },
            Err(error) => return Err(error),
        };
        if is_lost {
            let bytes = leaf_to_bytes(&entries);
            self.report.leaves += u64::from(self.take(place, BlobKind::Leaf, bytes)?);
        }
        self.chunks(place, first, &entries)
    }

    /// Heals these chunks; gives whether none of them is lost any more.
    fn chunks(
        &mut self,
        place: &mut Place<'_>,
        first: u64,
        entries: &[Option<ContentHash>],
    ) -> Result<bool> {
        // Neighbours that are left for one reason are one finding.
        let mut left: Vec<(u64, u64, String)> = Vec::new();
        for (chunk, hash) in (first..).zip(entries) {
            let Some(hash) = hash else { continue };
            if !self.is_missing(hash)? {
                continue;
            }
            match self.chunk(place, chunk, hash)? {
                Ok(bytes) => {
                    self.report.chunks += u64::from(self.take(place, BlobKind::Data, bytes)?);
                }
                Err(problem) => match left.last_mut() {
                    Some((start, count, _)) if *start + *count == chunk => *count += 1,
                    _ => left.push((chunk, 1, problem)),
                },
            }
        }
        let is_whole = left.is_empty();
        for (start, count, problem) in left {
            self.leave(place, start, count, problem);
        }
        Ok(is_whole)
    }

    /// The bytes of a chunk: from a copy here that can be read although it is not relied on, else
    /// from the other library.
    fn chunk(
        &self,
        place: &mut Place<'_>,
        number: u64,
        hash: &ContentHash,
    ) -> Result<Answer<Vec<u8>>> {
        let id = self.core.key.chunk_id(hash);
        for copy in self.core.find_all(&id)? {
            if let Ok(bytes) = self.core.read_at(&id, &copy) {
                return Ok(Ok(bytes));
            }
        }
        place.replica.chunk(number, hash)
    }

    /// Whether a blob has no copy that may be relied on, and was not taken yet.
    fn is_missing(&self, hash: &ContentHash) -> Result<bool> {
        let id = self.core.key.chunk_id(hash);
        Ok(!self.taken.contains(&id) && self.core.find_outside(&id, &self.avoided)?.is_none())
    }

    /// Stores a blob whose hash was checked. `false` when it was taken before.
    fn take(&mut self, place: &Place<'_>, kind: BlobKind, bytes: Vec<u8>) -> Result<bool> {
        let length = bytes.len() as u64;
        let blob = CheckedChunk::of(bytes)?;
        let id = self.core.key.chunk_id(&blob.hash);
        self.losses.lose_copies(self.core, &id)?;
        if self.taken.len() < TAKEN_MAX && !self.taken.insert(id) {
            return Ok(false);
        }
        self.report.bytes += length;
        if !self.is_dry {
            self.upload_of(&place.image.server)?.put_lost(kind, &blob)?;
        }
        Ok(true)
    }

    fn upload_of(&mut self, server: &ServerName) -> Result<&LocalUpload> {
        if self.upload.as_ref().is_some_and(|(of, _)| of != server) {
            self.finish_upload()?;
        }
        let (_, upload) = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let target = UploadTarget {
                    server: server.clone(),
                };
                let upload = LocalUpload::begin(Arc::clone(self.core), &target)?;
                none.insert((server.clone(), upload))
            }
        };
        Ok(upload)
    }

    fn leave(&mut self, place: &Place<'_>, first: u64, count: u64, problem: String) {
        let size = u64::from(self.core.config.chunk_size_bytes);
        let start = first * size;
        let end = ((first + count) * size).min(place.disk.size_bytes);
        let place = format!("{}, bytes {start:#x} to {end:#x}", place.name());
        self.report.leave(place, problem, REMEDY, self.monitor);
    }
}

impl Place<'_> {
    fn name(&self) -> String {
        format!("image {}, disk {:?}", self.image.id, self.disk.name)
    }
}
