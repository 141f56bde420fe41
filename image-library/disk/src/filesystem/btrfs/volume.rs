// SPDX-License-Identifier: MIT OR Apache-2.0
//! The logical address space of a filesystem: its devices through its chunks, checked by checksums.
//!
//! Every tree block and every sector of data that has a checksum is verified; where it is wrong, or
//! its device is missing, the other copies are asked. What was repaired so is counted.
//!
//! **Limit:** up to 512 tree blocks are kept in memory: 32 MiB at most.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::block::{Block, Pointer};
use super::chunk::{Chunk, ChunkMap, Stripe};
use super::key::{Key, kind, object};
use super::members::{Member, Members, place};
use super::superblock::Superblock;
use super::tree::Tree;
use super::{STRUCTURE, root};
use crate::block::array_at;
use crate::error::{Error, Result};
use crate::fields::{Fields, uuid};
use crate::finding::{Finding, Level};

const BLOCKS_MAX: usize = 512;
/// Data are verified in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
const DEVICE_ITEM_BYTES: usize = 98;

/// A filesystem that is open.
#[derive(Debug)]
pub(super) struct Volume<'d> {
    pub(super) superblock: Superblock,
    pub(super) chunks: ChunkMap,
    /// What no chunk has, of each device, in bytes.
    pub(super) unallocated_bytes: Vec<u64>,
    members: BTreeMap<u64, Member<'d>>,
    checksum_tree: Option<Pointer>,
    blocks: Mutex<HashMap<u64, Arc<Block>>>,
    findings: Vec<Finding>,
    repaired: AtomicU64,
}

impl<'d> Volume<'d> {
    pub(super) fn open(members: Members<'d>) -> Result<Self> {
        members.superblock.refuse_features()?;
        let mut volume = Self {
            chunks: ChunkMap::from_superblock(&members.superblock.system_chunks)?,
            superblock: members.superblock,
            unallocated_bytes: Vec::new(),
            members: members.by_number,
            checksum_tree: None,
            blocks: Mutex::default(),
            findings: members.findings,
            repaired: AtomicU64::new(0),
        };
        volume.read_chunk_tree()?;
        let checksums = root::find(&volume, object::CHECKSUM_TREE)?;
        volume.checksum_tree = checksums.map(|root| root.pointer);
        Ok(volume)
    }

    fn read_chunk_tree(&mut self) -> Result<()> {
        let (first, last) = Key::all(object::FIRST_FREE, kind::CHUNK);
        let mut chunks = Vec::new();
        for item in self.chunk_tree().range(first, last)? {
            let item = item?;
            chunks.push(Chunk::from_bytes(item.key, item.data())?);
        }
        let (first, last) = Key::all(object::DEVICES, kind::DEVICE);
        let mut devices = Vec::new();
        for item in self.chunk_tree().range(first, last)? {
            let item = item?;
            devices.push(DeviceItem::from_bytes(item.data(), &self.superblock)?);
        }
        // Those of the superblock are among them.
        let known = std::mem::take(&mut self.chunks);
        for chunk in chunks {
            self.chunks.insert(chunk)?;
        }
        for chunk in known.iter() {
            self.chunks.find(chunk.logical)?;
        }
        for device in devices {
            self.unallocated_bytes.push(device.free_bytes);
            if self.member(device.number, &device.uuid).is_none() {
                self.findings.push(missing(&self.superblock, &device));
            }
        }
        Ok(())
    }

    fn member(&self, number: u64, uuid: &[u8; 16]) -> Option<&Member<'d>> {
        let member = self.members.get(&number)?;
        (member.uuid == *uuid).then_some(member)
    }

    /// The length of a device, if it is there.
    pub(super) fn device_bytes(&self, number: u64) -> Option<u64> {
        Some(self.members.get(&number)?.device.length_bytes())
    }

    pub(super) fn is_member(&self, stripe: &Stripe, number: u64) -> bool {
        stripe.device == number && self.member(number, &stripe.device_uuid).is_some()
    }

    /// What was noticed, up to now.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        let repaired = self.repaired.load(Ordering::Relaxed);
        if repaired > 0 {
            findings.push(Finding {
                level: Level::Warning,
                code: "disk.btrfs.copy-used".to_owned(),
                place: place(&self.superblock),
                problem: format!("{repaired} blocks are damaged and were read from another copy"),
                remedy: Some("`btrfs scrub` on the server".to_owned()),
            });
        }
        findings
    }

    fn chunk_tree(&self) -> Tree<'_, 'd> {
        Tree::new(self, self.superblock.chunk_tree)
    }

    pub(super) fn root_tree(&self) -> Tree<'_, 'd> {
        Tree::new(self, self.superblock.root_tree)
    }

    /// A tree of the root tree; an error where there is none.
    pub(super) fn tree(&self, number: u64) -> Result<Tree<'_, 'd>> {
        let found = root::find(self, number)?.ok_or_else(|| {
            let offset = self.superblock.root_tree.logical;
            Error::corrupt(STRUCTURE, offset, format!("there is no tree {number}"))
        })?;
        Ok(Tree::new(self, found.pointer))
    }

    /// The block that `pointer` leads to.
    pub(super) fn block(&self, pointer: &Pointer) -> Result<Arc<Block>> {
        let cached = self.lock().get(&pointer.logical).map(Arc::clone);
        if let Some(block) = cached {
            block.check(pointer)?;
            return Ok(block);
        }
        let block = Arc::new(self.read_block(pointer)?);
        let mut blocks = self.lock();
        if blocks.len() >= BLOCKS_MAX {
            blocks.clear();
        }
        blocks.insert(pointer.logical, Arc::clone(&block));
        Ok(block)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Block>>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_block(&self, pointer: &Pointer) -> Result<Block> {
        let copies = self.chunks.find(pointer.logical)?.copies();
        let mut first_error = None;
        for copy in 0..copies {
            let mut bytes = vec![0; self.superblock.node_bytes];
            let block = match self.read_copy(pointer.logical, copy, &mut bytes) {
                Ok(()) => Block::from_bytes(bytes, pointer, &self.superblock),
                Err(error) => Err(error),
            };
            match (block, &first_error) {
                (Ok(block), first) => {
                    self.count_repair(first.as_ref());
                    return Ok(block);
                }
                (Err(error), None) => first_error = Some(error),
                // That a device is missing says less than what is wrong with the copy that is there.
                (Err(error @ Error::Corrupt { .. }), Some(Error::Unsupported { .. })) => {
                    first_error = Some(error);
                }
                (Err(_), Some(_)) => {}
            }
        }
        Err(first_error.unwrap_or_else(|| no_copies(pointer.logical)))
    }

    /// A device that is missing is told once, and not with every block.
    fn count_repair(&self, error: Option<&Error>) {
        if error.is_some_and(|error| !matches!(error, Error::Unsupported { .. })) {
            self.repaired.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read_copy(&self, logical: u64, copy: usize, buffer: &mut [u8]) -> Result<()> {
        let mut at = logical;
        let mut rest = buffer;
        while !rest.is_empty() {
            let place = self.chunks.find(at)?.locate(at, copy)?;
            let count = usize::try_from(place.run_bytes).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(count.min(rest.len()));
            let stripe = place.stripe;
            let member = self
                .member(stripe.device, &stripe.device_uuid)
                .ok_or_else(|| {
                    let feature = format!("reading without its device {}", stripe.device);
                    Error::unsupported(STRUCTURE, feature)
                })?;
            member.device.read_exact_at(place.physical, now)?;
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
        Ok(())
    }

    /// Reads file data; `logical` and the length are whole sectors.
    ///
    /// Sectors for which there is a checksum are verified, if the file has any.
    pub(super) fn read_data(&self, logical: u64, buffer: &mut [u8], verify: bool) -> Result<()> {
        let mut at = logical;
        for piece in buffer.chunks_mut(PIECE_BYTES) {
            let sums = match verify {
                true => self.data_checksums(at, piece.len() as u64)?,
                false => BTreeMap::new(),
            };
            self.read_piece(at, piece, &sums)?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    fn read_piece(
        &self,
        logical: u64,
        piece: &mut [u8],
        sums: &BTreeMap<u64, Vec<u8>>,
    ) -> Result<()> {
        let sector_bytes = self.superblock.sector_bytes;
        let is_sound = |at: u64, sector: &[u8]| {
            let sum = sums.get(&at);
            sum.is_none_or(|sum| self.superblock.checksum.matches(sum, sector))
        };
        // All at once, as nearly always; sector by sector only where that fails.
        let mut copies = 0..self.chunks.find(logical)?.copies();
        let read = copies.any(|copy| self.read_copy(logical, copy, piece).is_ok());
        let sectors = (0..).map(|index: u64| logical.saturating_add(index * sector_bytes));
        for (at, sector) in sectors.zip(piece.chunks_mut(sector_bytes as usize)) {
            if !read || !is_sound(at, sector) {
                self.read_sector(at, sector, &is_sound)?;
            }
        }
        Ok(())
    }

    fn read_sector(
        &self,
        logical: u64,
        sector: &mut [u8],
        is_sound: &dyn Fn(u64, &[u8]) -> bool,
    ) -> Result<()> {
        let mut error = None;
        for copy in 0..self.chunks.find(logical)?.copies() {
            match self.read_copy(logical, copy, sector) {
                Ok(()) if is_sound(logical, sector) => {
                    self.count_repair(error.as_ref());
                    return Ok(());
                }
                Ok(()) => {
                    let problem = "its checksum does not match";
                    error = Some(Error::corrupt("btrfs data", logical, problem));
                }
                Err(failed) => error = error.or(Some(failed)),
            }
        }
        Err(error.unwrap_or_else(|| no_copies(logical)))
    }

    /// The checksums of sectors, by logical address.
    fn data_checksums(&self, logical: u64, length: u64) -> Result<BTreeMap<u64, Vec<u8>>> {
        let mut found = BTreeMap::new();
        let Some(pointer) = self.checksum_tree else {
            return Ok(found);
        };
        let end = logical.saturating_add(length);
        let key = |logical| Key::new(object::EXTENT_CHECKSUMS, kind::EXTENT_CHECKSUM, logical);
        let tree = Tree::new(self, pointer);
        for item in tree.range_from_before(key(logical), key(end.saturating_sub(1)))? {
            let item = item?;
            if (item.key.object, item.key.kind) != (object::EXTENT_CHECKSUMS, kind::EXTENT_CHECKSUM)
            {
                continue;
            }
            let sums = item.data().chunks_exact(self.superblock.checksum.length());
            for (index, sum) in (0..).zip(sums) {
                let bytes: u64 = index * self.superblock.sector_bytes;
                let at = item.key.offset.saturating_add(bytes);
                if (logical..end).contains(&at) {
                    found.insert(at, sum.to_vec());
                }
            }
        }
        Ok(found)
    }
}

fn no_copies(logical: u64) -> Error {
    Error::corrupt(STRUCTURE, logical, "there is no copy of it")
}

fn missing(superblock: &Superblock, device: &DeviceItem) -> Finding {
    let uuid = uuid(&device.uuid).unwrap_or_default();
    Finding {
        level: Level::Warning,
        code: "disk.btrfs.device-missing".to_owned(),
        place: place(superblock),
        problem: format!("its device {} ({uuid}) is not there", device.number),
        remedy: Some("image the disk that it is on too".to_owned()),
    }
}

/// A device, as the chunk tree has it: number, size, use, and at 66 and 82 the UUIDs of the device and
/// of its filesystem.
struct DeviceItem {
    number: u64,
    uuid: [u8; 16],
    free_bytes: u64,
}

impl DeviceItem {
    fn from_bytes(bytes: &[u8], superblock: &Superblock) -> Result<Self> {
        let fields = Fields(bytes);
        if bytes.len() < DEVICE_ITEM_BYTES {
            let offset = superblock.chunk_tree.logical;
            return Err(Error::corrupt(
                STRUCTURE,
                offset,
                "a device item is cut off",
            ));
        }
        if fields.bytes(82, 16) != superblock.metadata_uuid {
            let feature = "a filesystem that grew out of a seed device";
            return Err(Error::unsupported(STRUCTURE, feature));
        }
        Ok(Self {
            number: fields.u64(0),
            uuid: array_at(fields.bytes(66, 16), 0),
            free_bytes: fields.u64(8).saturating_sub(fields.u64(16)),
        })
    }
}
