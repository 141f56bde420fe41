// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a dirty journal keeps newer copies of a filesystem's blocks; big-endian.
//!
//! | block type | holds |
//! |---|---|
//! | 3, 4 | the journal's superblock: first block, first sequence number, where the log begins |
//! | 1 | a descriptor: tags, each the number of the block that follows in the log |
//! | 2 | the end of a transaction |
//! | 5 | blocks whose older copies are void |
//!
//! [`copies`] is not a replay: it finds *every* copy, of finished transactions and the one that is
//! not, of void blocks too. Who merges them so that whatever was in use in any copy is in use is
//! right however much of the log a real replay accepts. [`replay`] is what a real one accepts.
//!
//! **Limit:** a journal of 4 Mi blocks.

use std::collections::{BTreeMap, HashMap};

use fs_ext4::checksum::linux_crc32c;

use super::super::superblock::ext::Superblock;
use super::group::{Group, read_all};
use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::Fields;

const STRUCTURE: &str = "ext journal";
const MAGIC: u32 = 0xc03b_3998;
const BLOCKS_MAX: u64 = 1 << 22;
const EXTENT_MAGIC: u16 = 0xf30a;
const EXTENT_DEPTH_MAX: u16 = 5;
const FLAG_EXTENTS: u32 = 0x80000;

const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// A newer copy of a block, in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Copy {
    /// Of which block of the filesystem.
    pub(super) of: u64,
    /// The block of the filesystem where the copy stands.
    at: u64,
    /// Its first four bytes were the journal's magic and stand as zeros.
    escaped: bool,
    /// What its checksum should be, as much of it as the tag holds.
    checksum: u32,
}

impl Copy {
    /// The bytes that belong into the block.
    pub(super) fn read(self, device: &dyn ReadAt, block_size: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; block_size as usize];
        device.read_exact_at(self.at * block_size, &mut bytes)?;
        if self.escaped {
            bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        }
        Ok(bytes)
    }
}

/// What the log holds between two ends of transactions.
#[derive(Debug, Default)]
struct Transaction {
    sequence: u32,
    copies: Vec<Copy>,
    /// Blocks whose copies in this and earlier transactions are void.
    void: Vec<u64>,
    /// Whether its end was found, and all checksums of the journal's own blocks are right.
    finished: bool,
}

/// The copies in the log, ordered by what they are copies of.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<Copy>);

impl Copies {
    /// Calls `merge` with every copy of a block.
    pub(super) fn each(
        &self,
        device: &dyn ReadAt,
        block_size: u64,
        of: u64,
        mut merge: impl FnMut(&[u8]),
    ) -> Result<()> {
        let first = self.0.partition_point(|copy| copy.of < of);
        for copy in self.0[first..].iter().take_while(|copy| copy.of == of) {
            merge(&copy.read(device, block_size)?);
        }
        Ok(())
    }
}

/// The copies in the journal of a filesystem that was not cleanly unmounted.
pub(super) fn copies(
    device: &dyn ReadAt,
    superblock: &Superblock,
    groups: &[Group],
) -> Result<Copies> {
    if !superblock.needs_recovery() {
        return Ok(Copies::default());
    }
    let log = Log::open(device, superblock, groups)?;
    let transactions = log.walk()?.into_iter();
    let mut copies: Vec<Copy> = transactions.flat_map(|found| found.copies).collect();
    copies.sort_unstable();
    Ok(Copies(copies))
}

/// What a replay puts into place: for each block the newest copy that counts; and the block of the
/// journal's superblock, with the bytes that say that the log is empty.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) newest: BTreeMap<u64, Copy>,
    pub(super) journal: (u64, Vec<u8>),
}

/// What a replay would do to a filesystem that was not cleanly unmounted.
pub(super) fn replay(device: &dyn ReadAt, superblock: &Superblock) -> Result<Replay> {
    let groups = read_all(device, superblock)?;
    let log = Log::open(device, superblock, &groups)?;
    let mut transactions = log.walk()?;
    let finished = transactions.iter().take_while(|found| found.finished);
    transactions.truncate(finished.count());
    // Counted from the first, because sequence numbers wrap around.
    let mut void = HashMap::new();
    for (index, transaction) in transactions.iter().enumerate() {
        void.extend(transaction.void.iter().map(|&block| (block, index)));
    }
    let mut newest = BTreeMap::new();
    for (index, transaction) in transactions.iter().enumerate() {
        for &copy in &transaction.copies {
            if void.get(&copy.of).is_none_or(|&until| until < index) {
                log.check(copy, transaction.sequence)?;
                newest.insert(copy.of, copy);
            }
        }
    }
    Ok(Replay {
        newest,
        journal: log.emptied()?,
    })
}

/// The journal as a list of blocks.
struct Log<'a> {
    device: &'a dyn ReadAt,
    superblock: &'a Superblock,
    blocks: Vec<u64>,
    first: u64,
    start: u64,
    sequence: u32,
    incompat: u32,
    /// What checksums begin with.
    seed: u32,
}

impl<'a> Log<'a> {
    fn open(device: &'a dyn ReadAt, superblock: &'a Superblock, groups: &[Group]) -> Result<Self> {
        let blocks = journal_blocks(device, superblock, groups)?;
        let mut log = Self {
            device,
            superblock,
            blocks,
            first: 0,
            start: 0,
            sequence: 0,
            incompat: 0,
            seed: 0,
        };
        let bytes = log.read(0)?;
        let fields = Fields(&bytes);
        let kind = fields.u32_be(4);
        if fields.u32_be(0) != MAGIC || !matches!(kind, 3 | 4) {
            return Err(log.broken("expected the journal's superblock"));
        }
        if kind == 4 {
            log.incompat = fields.u32_be(40);
            log.seed = linux_crc32c(!0, fields.bytes(48, 16));
        }
        if log.incompat & INCOMPAT_FAST_COMMIT != 0 {
            return Err(Error::unsupported(
                STRUCTURE,
                "fast_commit in a dirty journal",
            ));
        }
        log.blocks.truncate(fields.u32_be(16) as usize);
        log.first = fields.u32_be(20).into();
        log.sequence = fields.u32_be(24);
        log.start = fields.u32_be(28).into();
        let length = log.blocks.len() as u64;
        match log.first > 0 && log.first < length && log.start < length {
            true => Ok(log),
            false => Err(log.broken("expected a log inside the journal")),
        }
    }

    fn broken(&self, problem: &str) -> Error {
        let block = self.blocks.first().copied().unwrap_or(0);
        Error::corrupt(STRUCTURE, block * self.superblock.block_size, problem)
    }

    fn read(&self, index: u64) -> Result<Vec<u8>> {
        let block = self.blocks.get(index as usize).copied();
        let block = block.ok_or_else(|| self.broken("expected a log inside the journal"))?;
        let mut bytes = vec![0; self.superblock.block_size as usize];
        self.device
            .read_exact_at(block * self.superblock.block_size, &mut bytes)?;
        Ok(bytes)
    }

    fn after(&self, index: u64) -> u64 {
        match index + 1 {
            next if next < self.blocks.len() as u64 => next,
            _ => self.first,
        }
    }

    /// Follows the log until a block that is not its continuation: often one of an older round.
    fn walk(&self) -> Result<Vec<Transaction>> {
        let mut transactions = Vec::new();
        if self.start == 0 {
            return Ok(transactions);
        }
        let mut index = self.start;
        let mut open = Transaction {
            sequence: self.sequence,
            finished: true,
            ..Transaction::default()
        };
        let mut left = self.blocks.len();
        while left > 0 {
            let bytes = self.read(index)?;
            let fields = Fields(&bytes);
            if fields.u32_be(0) != MAGIC || fields.u32_be(8) != open.sequence {
                break;
            }
            index = self.after(index);
            left -= 1;
            match fields.u32_be(4) {
                1 => {
                    open.finished &= self.is_sound(&bytes, bytes.len() - 4);
                    for (of, escaped, checksum) in self.tags(fields) {
                        open.copies.push(Copy {
                            of,
                            at: self.blocks[index as usize],
                            escaped,
                            checksum,
                        });
                        index = self.after(index);
                        left = left.saturating_sub(1);
                    }
                }
                2 => {
                    open.finished &= self.is_sound(&bytes, 16);
                    let next = Transaction {
                        sequence: open.sequence.wrapping_add(1),
                        finished: true,
                        ..Transaction::default()
                    };
                    transactions.push(std::mem::replace(&mut open, next));
                }
                5 => {
                    open.finished &= self.is_sound(&bytes, bytes.len() - 4);
                    open.void.extend(self.void(fields));
                }
                _ => break,
            }
        }
        open.finished = false;
        transactions.push(open);
        Ok(transactions)
    }

    fn has_checksums(&self) -> bool {
        self.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }

    /// Whether a block of the journal's own has the checksum that stands in it.
    fn is_sound(&self, bytes: &[u8], checksum_offset: usize) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let mut blank = bytes.to_vec();
        blank[checksum_offset..checksum_offset + 4].fill(0);
        linux_crc32c(self.seed, &blank) == Fields(bytes).u32_be(checksum_offset)
    }

    /// An error where a copy is not what the journal says it is: whatever was replayed would not be
    /// the filesystem that the server had.
    fn check(&self, copy: Copy, sequence: u32) -> Result<()> {
        if copy.of >= self.superblock.blocks {
            return Err(self.broken("expected copies of blocks inside the filesystem"));
        }
        if !self.has_checksums() {
            return Ok(());
        }
        let offset = copy.at * self.superblock.block_size;
        let mut bytes = vec![0; self.superblock.block_size as usize];
        self.device.read_exact_at(offset, &mut bytes)?;
        let seed = linux_crc32c(self.seed, &sequence.to_be_bytes());
        let checksum = linux_crc32c(seed, &bytes);
        let kept = match self.incompat & INCOMPAT_CSUM_V3 {
            0 => checksum & 0xffff,
            _ => checksum,
        };
        match kept == copy.checksum {
            true => Ok(()),
            false => Err(Error::corrupt(
                STRUCTURE,
                offset,
                format!(
                    "expected checksum {:#x}, found {kept:#x}, of a copy",
                    copy.checksum
                ),
            )),
        }
    }

    /// The blocks that a revoke block names.
    fn void(&self, fields: Fields<'_>) -> Vec<u64> {
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        let used = (fields.u32_be(12) as usize).min(fields.0.len()).max(16);
        let list = fields.bytes(16, used - 16);
        match wide {
            true => list.chunks_exact(8).map(|b| Fields(b).u64_be(0)).collect(),
            false => list
                .chunks_exact(4)
                .map(|b| Fields(b).u32_be(0).into())
                .collect(),
        }
    }

    /// The block of the journal's superblock, saying that the log is empty.
    fn emptied(&self) -> Result<(u64, Vec<u8>)> {
        let mut bytes = self.read(0)?;
        bytes[28..32].fill(0);
        if self.has_checksums() {
            bytes[0xfc..0x100].fill(0);
            let checksum = linux_crc32c(!0, &bytes[..1024]);
            bytes[0xfc..0x100].copy_from_slice(&checksum.to_be_bytes());
        }
        Ok((self.blocks[0], bytes))
    }

    /// The blocks that a descriptor names, whether their copies are escaped, and their checksums.
    fn tags(&self, fields: Fields<'_>) -> Vec<(u64, bool, u32)> {
        let version3 = self.incompat & INCOMPAT_CSUM_V3 != 0;
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        let version2 = self.incompat & INCOMPAT_CSUM_V2 != 0;
        let length = match (version3, wide) {
            (true, _) => 16,
            (false, true) => 12 + if version2 { 2 } else { 0 },
            (false, false) => 8 + if version2 { 2 } else { 0 },
        };
        let end = fields.0.len() - if version2 || version3 { 4 } else { 0 };
        let mut tags = Vec::new();
        let mut offset = 12;
        while offset + length <= end {
            let (flags, checksum) = match version3 {
                true => (fields.u32_be(offset + 4), fields.u32_be(offset + 12)),
                false => (
                    fields.u16_be(offset + 6).into(),
                    fields.u16_be(offset + 4).into(),
                ),
            };
            let high = match wide {
                true => fields.u32_be(offset + 8),
                false => 0,
            };
            let block = u64::from(high) << 32 | u64::from(fields.u32_be(offset));
            tags.push((block, flags & TAG_ESCAPED != 0, checksum));
            offset += length;
            if flags & TAG_SAME_UUID == 0 {
                offset += 16;
            }
            if flags & TAG_LAST != 0 {
                break;
            }
        }
        tags
    }
}

/// The blocks of the journal's inode, in order.
fn journal_blocks(
    device: &dyn ReadAt,
    superblock: &Superblock,
    groups: &[Group],
) -> Result<Vec<u64>> {
    superblock.require_own_journal()?;
    let number = u64::from(superblock.journal_inode);
    let group = groups.get(((number - 1) / superblock.inodes_per_group) as usize);
    let group = group.ok_or_else(|| Error::corrupt(STRUCTURE, 0, "its inode does not exist"))?;
    let within = (number - 1) % superblock.inodes_per_group * superblock.inode_size;
    let mut inode = vec![0; superblock.inode_size as usize];
    device.read_exact_at(
        group.inode_table * superblock.block_size + within,
        &mut inode,
    )?;
    let fields = Fields(&inode);
    let size = u64::from(fields.u32(0x6c)) << 32 | u64::from(fields.u32(0x04));
    let count = size / superblock.block_size;
    if count > BLOCKS_MAX {
        return Err(Error::Limit {
            what: "the blocks of a journal",
            limit: BLOCKS_MAX,
        });
    }
    let mut map = Map {
        device,
        superblock,
        blocks: Vec::new(),
        count: count as usize,
        reads_left: count + 8,
    };
    match fields.u32(0x20) & FLAG_EXTENTS {
        0 => map.pointers(fields.bytes(0x28, 60))?,
        _ => map.extents(fields.bytes(0x28, 60), EXTENT_DEPTH_MAX)?,
    }
    match map.blocks.len() == map.count && map.blocks.iter().all(|&at| at < superblock.blocks) {
        true => Ok(map.blocks),
        false => Err(Error::corrupt(STRUCTURE, 0, "its blocks are not all there")),
    }
}

/// The blocks of a file without holes, gathered in order.
struct Map<'a> {
    device: &'a dyn ReadAt,
    superblock: &'a Superblock,
    blocks: Vec<u64>,
    count: usize,
    /// Bounds what a tree that refers to itself can cost.
    reads_left: u64,
}

impl Map<'_> {
    fn read(&mut self, block: u64) -> Result<Vec<u8>> {
        self.reads_left = self
            .reads_left
            .checked_sub(1)
            .ok_or_else(|| Error::corrupt(STRUCTURE, 0, "its tree of blocks does not end"))?;
        let mut bytes = vec![0; self.superblock.block_size as usize];
        let offset = block.saturating_mul(self.superblock.block_size);
        self.device.read_exact_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn extents(&mut self, node: &[u8], depth_max: u16) -> Result<()> {
        let fields = Fields(node);
        let depth = fields.u16(6);
        if fields.u16(0) != EXTENT_MAGIC || depth > depth_max {
            return Err(Error::corrupt(
                STRUCTURE,
                0,
                "expected a node of an extent tree",
            ));
        }
        let entries = usize::from(fields.u16(2)).min(node.len() / 12 - 1);
        for entry in (1..=entries).map(|entry| entry * 12) {
            if depth > 0 {
                let high = u64::from(fields.u16(entry + 8)) << 32;
                let child = self.read(high | u64::from(fields.u32(entry + 4)))?;
                self.extents(&child, depth - 1)?;
                continue;
            }
            let length = fields.u16(entry + 4).into();
            let high = u64::from(fields.u16(entry + 6)) << 32;
            let start = high | u64::from(fields.u32(entry + 8));
            let left = self.count.saturating_sub(self.blocks.len());
            self.blocks.extend((start..).take(usize::min(length, left)));
        }
        Ok(())
    }

    fn pointers(&mut self, root: &[u8]) -> Result<()> {
        let fields = Fields(root);
        for slot in 0..12 {
            self.add(fields.u32(slot * 4).into());
        }
        for levels in 1..=3usize {
            self.indirect(fields.u32((11 + levels) * 4).into(), levels)?;
        }
        Ok(())
    }

    fn add(&mut self, block: u64) {
        if self.blocks.len() < self.count {
            self.blocks.push(block);
        }
    }

    fn indirect(&mut self, block: u64, levels: usize) -> Result<()> {
        if self.blocks.len() >= self.count {
            return Ok(());
        }
        let bytes = self.read(block)?;
        for pointer in bytes.chunks_exact(4) {
            let pointer = u64::from(Fields(pointer).u32(0));
            match levels {
                1 => self.add(pointer),
                _ => self.indirect(pointer, levels - 1)?,
            }
        }
        Ok(())
    }
}
