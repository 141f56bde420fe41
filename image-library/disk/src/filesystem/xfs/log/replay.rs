// SPDX-License-Identifier: MIT OR Apache-2.0
//! The replay of committed transactions into memory.
//!
//! As the kernel does it: buffers that were freed later are left alone, from the transaction up to
//! the one that frees them; what the device holds in a newer version stays (version 5 of the format
//! writes the log's sequence number into every block); within a transaction buffers come before
//! inodes.
//!
//! Inodes are logged as the computer has them in memory, little-endian; on the disk they are
//! big-endian.

use std::collections::BTreeMap;

use super::super::super::superblock::xfs::{BIG_COUNTS, Superblock};
use super::super::seal::Seal;
use super::changes::Changes;
use super::items::{Buffer, Inode, NewInodes, announced, kind};
use super::transaction::{Item, Transaction};
use super::{LogState, Recovery, STRUCTURE, Unfinished};
use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::Fields;

/// Inodes are made by the chunk of 64, or by the block where that has room for more.
const NEW_INODES_MAX: u32 = 256;
const INODE_MAGIC: &[u8] = b"IN";
const BIG_TIMES: u64 = 8;

/// The numbers of an inode: offset and width. The checksum is made anew, and times depend.
const INODE_NUMBERS: [(usize, usize); 21] = [
    (0, 2),
    (2, 2),
    (6, 2),
    (8, 4),
    (12, 4),
    (16, 4),
    (20, 2),
    (22, 2),
    (56, 8),
    (64, 8),
    (72, 4),
    (84, 4),
    (88, 2),
    (90, 2),
    (92, 4),
    (96, 4),
    (104, 8),
    (112, 8),
    (120, 8),
    (128, 4),
    (152, 8),
];
const INODE_TIMES: [usize; 4] = [32, 40, 48, 144];

/// No log has more freed buffers, or announced changes, that matter.
const NOTES_MAX: usize = 1 << 22;

/// How often each buffer, by address and sectors, is freed.
pub(super) type Cancelled = BTreeMap<(u64, u16), u32>;

/// Counts the buffers that a transaction frees.
pub(super) fn count_cancelled(transaction: &Transaction, cancelled: &mut Cancelled) -> Result<()> {
    for item in transaction
        .items
        .iter()
        .filter(|item| item.kind() == kind::BUFFER)
    {
        let buffer = Buffer::parse(item)?;
        if buffer.is_cancelled() {
            *cancelled
                .entry((buffer.address, buffer.sectors))
                .or_default() += 1;
            require_few(cancelled.len())?;
        }
    }
    Ok(())
}

fn require_few(notes: usize) -> Result<()> {
    match notes <= NOTES_MAX {
        true => Ok(()),
        false => Err(Error::Limit {
            what: "what the log of an XFS announces or frees",
            limit: NOTES_MAX as u64,
        }),
    }
}

/// A replay at work.
#[derive(Debug)]
pub(super) struct Replay<'d, D: ?Sized> {
    device: &'d D,
    superblock: &'d Superblock,
    cancelled: Cancelled,
    changes: Changes,
    /// Announced changes, by number, until they are done.
    contents: BTreeMap<u64, Vec<u64>>,
    attributes: BTreeMap<u64, Vec<u64>>,
}

impl<'d, D: ReadAt + ?Sized> Replay<'d, D> {
    pub(super) fn new(device: &'d D, superblock: &'d Superblock, cancelled: Cancelled) -> Self {
        Self {
            device,
            superblock,
            cancelled,
            changes: Changes::default(),
            contents: BTreeMap::new(),
            attributes: BTreeMap::new(),
        }
    }

    pub(super) fn finish(self) -> Recovery {
        Recovery {
            state: LogState::Replayed,
            changes: self.changes,
            unfinished: Unfinished {
                contents: self.contents.into_values().flatten().collect(),
                attributes: self.attributes.into_values().flatten().collect(),
            },
        }
    }

    pub(super) fn apply(&mut self, transaction: Transaction) -> Result<()> {
        let sequence = transaction.sequence;
        let mut freed = Vec::new();
        let mut later = Vec::new();
        for item in transaction.items {
            match item.kind() {
                kind::BUFFER => {
                    let buffer = Buffer::parse(&item)?;
                    match buffer.is_cancelled() {
                        true => freed.push((buffer.address, buffer.sectors)),
                        false => self.buffer(buffer, &item, sequence)?,
                    }
                }
                kind::CREATE_INODES => self.create(NewInodes::parse(&item))?,
                _ => later.push(item),
            }
        }
        for item in later {
            self.other(&item, sequence)?;
        }
        for place in freed {
            if let Some(count) = self.cancelled.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    self.cancelled.remove(&place);
                }
            }
        }
        Ok(())
    }

    fn other(&mut self, item: &Item, sequence: u64) -> Result<()> {
        let done = item.format().u64(8);
        match item.kind() {
            kind::INODE => self.inode(Inode::parse(item)?, item, sequence)?,
            kind @ (kind::MAPPING | kind::EXCHANGE) => {
                self.contents.extend([announced(item.format(), kind)]);
            }
            kind @ kind::ATTRIBUTE => self.attributes.extend([announced(item.format(), kind)]),
            kind::MAPPING_DONE | kind::EXCHANGE_DONE => drop(self.contents.remove(&done)),
            kind::ATTRIBUTE_DONE => drop(self.attributes.remove(&done)),
            // Quotas, and what is announced of free space, of who owns blocks and how often.
            0x1236..=0x1238 | 0x123d | 0x123e | 0x1240..=0x1243 | 0x124a..=0x124f => {}
            unknown => {
                return Err(Error::unsupported(
                    STRUCTURE,
                    format!("an item {unknown:#x}"),
                ));
            }
        }
        require_few(self.contents.len() + self.attributes.len())
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.changes.read(self.device, offset, &mut bytes)?;
        Ok(bytes)
    }

    fn buffer(&mut self, buffer: Buffer, item: &Item, sequence: u64) -> Result<()> {
        let is_freed = self
            .cancelled
            .contains_key(&(buffer.address, buffer.sectors));
        if is_freed || buffer.is_list_of_deleted() {
            return Ok(());
        }
        let mut bytes = self.read(buffer.offset(), usize::from(buffer.sectors) * 512)?;
        if Seal::sequence_of(&bytes, self.superblock).is_some_and(|found| is_newer(found, sequence))
        {
            return Ok(());
        }
        buffer.lay_over(item, &mut bytes)?;
        self.changes.write(buffer.offset(), &bytes)
    }

    fn create(&mut self, new: NewInodes) -> Result<()> {
        let superblock = self.superblock;
        let size = superblock.inode_size;
        let blocks = (u64::from(new.count) * size).div_ceil(superblock.block_size);
        let end = new.block.saturating_add(blocks);
        if new.group >= superblock.groups
            || end > superblock.group_length(new.group)
            || new.count > NEW_INODES_MAX
            || u64::from(new.inode_size) != size
        {
            let problem = format!("{new:?} are none that a group has");
            return Err(Error::corrupt("XFS log item of new inodes", 0, problem));
        }
        let offset = superblock.group_start(new.group) + new.block * superblock.block_size;
        let range = offset / 512..(offset + blocks * superblock.block_size) / 512;
        // Of buffers that are freed later, inodes may long be something else.
        if self
            .cancelled
            .range((range.start, 0)..(range.end, 0))
            .next()
            .is_some()
        {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for index in 0..new.count {
            let number = superblock.inode_number(new.group, new.block, index.into());
            bytes.extend(empty_inode(superblock, number, new.generation));
        }
        self.changes.write(offset, &bytes)
    }

    fn inode(&mut self, inode: Inode, item: &Item, sequence: u64) -> Result<()> {
        let sectors = u16::try_from(inode.sectors).unwrap_or(0);
        if self.cancelled.contains_key(&(inode.address, sectors)) {
            return Ok(());
        }
        let size = self.superblock.inode_size as usize;
        let start = inode.offset / 512 * 512;
        let mut sector = self.read(start, size.max(512))?;
        let within = (inode.offset - start) as usize;
        let Some(bytes) = sector.get_mut(within..within + size) else {
            return Err(broken(inode, "does not begin where an inode does"));
        };
        let core = item.region(1);
        if !bytes.starts_with(INODE_MAGIC) || Fields(core).u16(0) != 0x494e {
            return Err(broken(inode, "is no inode"));
        }
        if is_newer_inode(bytes, core, sequence) {
            return Ok(());
        }
        let core_length = put_core(bytes, core).ok_or_else(|| broken(inode, "is too short"))?;
        put_forks(&mut bytes[core_length..], inode, item, self.superblock)
            .ok_or_else(|| broken(inode, "has more data than room"))?;
        self.changes.write(start, &sector)
    }
}

fn broken(inode: Inode, problem: &str) -> Error {
    let problem = format!("inode {} {problem}", inode.number);
    Error::corrupt("XFS log item of an inode", inode.offset, problem)
}

/// Whether what the device holds was written after the transaction.
fn is_newer(found: u64, sequence: u64) -> bool {
    found != 0 && found != u64::MAX && found >= sequence
}

fn is_newer_inode(bytes: &[u8], core: &[u8], sequence: u64) -> bool {
    let fields = Fields(bytes);
    match fields.u8(4) {
        3 => {
            let found = fields.u64_be(112);
            found != 0 && found != u64::MAX && found > sequence
        }
        // A counter of writes, which begins again behind its largest value.
        _ => {
            let (found, logged) = (fields.u16_be(30), Fields(core).u16(30));
            let began_again = found == u16::MAX && logged < u16::MAX / 2;
            logged < found && !began_again
        }
    }
}

fn empty_inode(superblock: &Superblock, number: u64, generation: u32) -> Vec<u8> {
    let mut bytes = vec![0; superblock.inode_size as usize];
    bytes[..2].copy_from_slice(INODE_MAGIC);
    bytes[4] = 3;
    bytes[92..96].copy_from_slice(&generation.to_be_bytes());
    bytes[96..100].fill(0xff);
    bytes[152..160].copy_from_slice(&number.to_be_bytes());
    bytes[160..176].copy_from_slice(&superblock.metadata_uuid);
    bytes
}

/// Puts the fixed part of an inode into place; its length, or `None` where it is too short.
fn put_core(bytes: &mut [u8], core: &[u8]) -> Option<usize> {
    let fields = Fields(core);
    let length = match fields.u8(4) {
        3 => 176,
        _ => 96,
    };
    let mut swapped = core.get(..length)?.to_vec();
    let mut swap = |offset: usize, width: usize| {
        if let Some(number) = swapped.get_mut(offset..offset + width) {
            number.reverse();
        }
    };
    for (offset, width) in INODE_NUMBERS {
        swap(offset, width);
    }
    let flags2 = if length > 120 { fields.u64(120) } else { 0 };
    for offset in INODE_TIMES {
        match flags2 & BIG_TIMES {
            0 => {
                swap(offset, 4);
                swap(offset + 4, 4);
            }
            _ => swap(offset, 8),
        }
    }
    // Counts of extents, in one of two shapes.
    match flags2 & BIG_COUNTS {
        0 => {
            swap(30, 2);
            swap(76, 4);
            swap(80, 2);
        }
        _ => {
            swap(24, 8);
            swap(76, 4);
        }
    }
    bytes.get_mut(..length)?.copy_from_slice(&swapped);
    // Version 2 keeps the link to the next deleted inode behind it, as it is.
    Some(if length == 176 { 176 } else { 100 })
}

/// Puts the logged forks into place; `None` where they do not fit.
fn put_forks(room: &mut [u8], inode: Inode, item: &Item, superblock: &Superblock) -> Option<()> {
    let forks_at = Fields(item.region(1)).u8(82);
    let data_length = match usize::from(forks_at) * 8 {
        0 => room.len(),
        length => length,
    };
    let (data, attributes) = room.split_at_mut_checked(data_length)?;
    if inode.has(Inode::DEVICE) {
        data.get_mut(..4)?
            .copy_from_slice(&inode.device.to_be_bytes());
    }
    let mut index = 2;
    if inode.has(Inode::DATA | Inode::DATA_ROOT) {
        let is_root = inode.has(Inode::DATA_ROOT);
        put_fork(data, item.region(index), is_root, superblock)?;
        index += 1;
    }
    if inode.has(Inode::ATTRIBUTES | Inode::ATTRIBUTES_ROOT) {
        let is_root = inode.has(Inode::ATTRIBUTES_ROOT);
        put_fork(attributes, item.region(index), is_root, superblock)?;
    }
    Some(())
}

/// A fork's content as it is on the disk, or the root of its tree as it is in memory: a block with
/// a whole header, whose pointers stand behind as many keys as it has room for.
fn put_fork(room: &mut [u8], logged: &[u8], is_root: bool, superblock: &Superblock) -> Option<()> {
    if !is_root {
        room.get_mut(..logged.len())?.copy_from_slice(logged);
        return Some(());
    }
    let header = superblock.tree_header_length();
    let records_room = logged.len().checked_sub(header)? / 16;
    let records = usize::from(Fields(logged).u16_be(6));
    let keys = logged.get(header..header + records * 8)?;
    let pointers_at = header + records_room * 8;
    let pointers = logged.get(pointers_at..pointers_at + records * 8)?;
    let room_for = room.len().checked_sub(4)? / 16;
    room.get_mut(..4)?.copy_from_slice(logged.get(4..8)?);
    room.get_mut(4..4 + keys.len())?.copy_from_slice(keys);
    let at = 4 + room_for * 8;
    room.get_mut(at..at + pointers.len())?
        .copy_from_slice(pointers);
    Some(())
}
