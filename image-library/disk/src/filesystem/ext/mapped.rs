// SPDX-License-Identifier: MIT OR Apache-2.0
//! Appending to a file of ext2 and ext3, whose blocks are listed in pointers and not in extents.
//!
//! The library behind [`super::writer`] gives such a file new content only as one contiguous run of
//! blocks, which a fragmented `/boot` of 1 KiB blocks does not have for an initramfs. This piece takes
//! blocks one by one, wherever they are free, and touches nothing that the file already has.
//!
//! | pointer in the inode | leads to |
//! |---|---|
//! | 0 to 11 | data |
//! | 12, 13, 14 | one, two, three levels of blocks full of pointers |
//!
//! **Invariant:** the filesystem is clean and nobody else has it open; all writes go to one staging
//! area, which the caller drops on any error.

use std::collections::BTreeMap;

use fs_ext4::bgd::{BlockGroupDescriptor, locate_inode, read_all};
use fs_ext4::block_io::BlockDevice;
use fs_ext4::checksum::{Checksummer, group_desc_csum, linux_crc32c};
use fs_ext4::superblock::Superblock as LibrarySuperblock;

use super::super::superblock::ext::{OFFSET, Superblock};
use super::group::FLAG_BLOCKS_UNINITIALISED;
use crate::fields::Fields;

type Result<T> = std::result::Result<T, fs_ext4::Error>;

const DIRECT: u64 = 12;
const ROOT: usize = 0x28;
const FLAG_HUGE_FILE: u32 = 0x40000;
/// Above this, the superblock must say `large_file`; no initramfs or configuration file is so large.
const SIZE_MAX: u64 = (1 << 31) - 1;

/// Appends `content` to the file with this inode number, at time `now`.
pub(super) fn append(
    device: &dyn BlockDevice,
    superblock: &Superblock,
    number: u32,
    content: &[u8],
    now: i64,
) -> Result<()> {
    let volume = Volume::open(device, superblock)?;
    let place = volume.inode_offset(number)?;
    let mut inode = vec![0; superblock.inode_size as usize];
    device.read_at(place, &mut inode)?;
    let fields = Fields(&inode);
    let size = u64::from(fields.u32(0x6c)) << 32 | u64::from(fields.u32(0x04));
    let generation = fields.u32(0x64);
    let sectors = u64::from(fields.u16(0x74)) << 32 | u64::from(fields.u32(0x1c));
    let new_size = size.saturating_add(content.len() as u64);
    if new_size > SIZE_MAX || fields.u32(0x20) & FLAG_HUGE_FILE != 0 {
        return Err(fs_ext4::Error::Unsupported(
            "appending to a file of 2 GiB or more",
        ));
    }
    let group = u64::from(number - 1) / superblock.inodes_per_group;
    let mut blocks = Blocks {
        allocator: Allocator::new(&volume, group),
        pointers: BTreeMap::new(),
        root: inode[ROOT..ROOT + 60].to_vec(),
    };
    write_content(&mut blocks, size, content)?;
    let taken = blocks.finish(&mut inode)?;
    let sectors = sectors + taken * (superblock.block_size / 512);
    fs_ext4::Filesystem::patch_inode_size_and_blocks(&mut inode, new_size, sectors)?;
    stamp(&mut inode, now);
    let sums = volume
        .checksums
        .compute_inode_checksum(number, generation, &inode);
    if let Some((low, high)) = sums {
        inode[0x7c..0x7e].copy_from_slice(&low.to_le_bytes());
        if Fields(&inode).u16(0x80) >= 4 {
            inode[0x82..0x84].copy_from_slice(&high.to_le_bytes());
        }
    }
    device.write_at(place, &inode)?;
    volume.take_from_superblock(taken)
}

/// Modification and change time; the extra words hold nanoseconds and the bits above 2038.
fn stamp(inode: &mut [u8], now: i64) {
    let extra_size = Fields(inode).u16(0x80);
    let epoch = ((now >> 32) & 3) as u32;
    for (time, extra, needed) in [(0x0c, 0x84, 8), (0x10, 0x88, 12)] {
        inode[time..time + 4].copy_from_slice(&(now as u32).to_le_bytes());
        if extra_size >= needed && inode.len() >= extra + 4 {
            inode[extra..extra + 4].copy_from_slice(&epoch.to_le_bytes());
        }
    }
}

fn write_content(blocks: &mut Blocks<'_, '_>, size: u64, content: &[u8]) -> Result<()> {
    let volume = blocks.allocator.volume;
    let block_size = volume.superblock.block_size;
    let mut rest = content;
    let mut position = size;
    while !rest.is_empty() {
        let within = position % block_size;
        let count = rest.len().min((block_size - within) as usize);
        let (now, later) = rest.split_at(count);
        let (block, new) = blocks.data(position / block_size)?;
        let start = block * block_size;
        if count as u64 == block_size {
            volume.device.write_at(start, now)?;
        } else {
            let mut whole = vec![0; block_size as usize];
            if !new {
                volume.device.read_at(start, &mut whole)?;
                // Behind the end of a file its last block may hold anything.
                whole[within as usize..].fill(0);
            }
            whole[within as usize..within as usize + count].copy_from_slice(now);
            volume.device.write_at(start, &whole)?;
        }
        position += count as u64;
        rest = later;
    }
    Ok(())
}

/// The filesystem's structures, as they are on the device now.
struct Volume<'a> {
    device: &'a dyn BlockDevice,
    superblock: &'a Superblock,
    library: LibrarySuperblock,
    checksums: Checksummer,
    groups: Vec<BlockGroupDescriptor>,
}

impl<'a> Volume<'a> {
    fn open(device: &'a dyn BlockDevice, superblock: &'a Superblock) -> Result<Self> {
        let library = LibrarySuperblock::read(device)?;
        let checksums = Checksummer::from_superblock(&library);
        let groups = read_all(device, &library, &checksums)?;
        Ok(Self {
            device,
            superblock,
            library,
            checksums,
            groups,
        })
    }

    fn inode_offset(&self, number: u32) -> Result<u64> {
        let (block, offset) = locate_inode(&self.library, &self.groups, number)?;
        Ok(block * self.superblock.block_size + u64::from(offset))
    }

    fn take_from_superblock(&self, taken: u64) -> Result<()> {
        let mut bytes = vec![0; 1024];
        self.device.read_at(OFFSET, &mut bytes)?;
        let fields = Fields(&bytes);
        let free = u64::from(fields.u32(0x158)) << 32 | u64::from(fields.u32(0x0c));
        let free = free.saturating_sub(taken);
        bytes[0x0c..0x10].copy_from_slice(&(free as u32).to_le_bytes());
        bytes[0x158..0x15c].copy_from_slice(&((free >> 32) as u32).to_le_bytes());
        if self.checksums.enabled {
            let checksum = linux_crc32c(!0, &bytes[..0x3fc]);
            bytes[0x3fc..].copy_from_slice(&checksum.to_le_bytes());
        }
        self.device.write_at(OFFSET, &bytes)
    }
}

/// Takes free blocks from the bitmaps, one group at a time.
struct Allocator<'v, 'a> {
    volume: &'v Volume<'a>,
    group: u64,
    groups_left: u64,
    open: Option<OpenGroup>,
    taken: u64,
}

/// The group whose bitmap is in memory.
struct OpenGroup {
    bitmap: Vec<u8>,
    next: u64,
    taken: u32,
}

impl<'v, 'a> Allocator<'v, 'a> {
    fn new(volume: &'v Volume<'a>, group: u64) -> Self {
        Self {
            volume,
            group,
            groups_left: volume.groups.len() as u64,
            open: None,
            taken: 0,
        }
    }

    fn take(&mut self) -> Result<u64> {
        let superblock = self.volume.superblock;
        loop {
            let group = match self.open.take() {
                Some(group) => group,
                None => self.open_group()?,
            };
            let mut group = group;
            let start = superblock.group_start(self.group);
            let count = superblock.group_end(self.group) - start;
            let found = (group.next..count)
                .find(|&bit| group.bitmap[(bit / 8) as usize] >> (bit % 8) & 1 == 0);
            if let Some(bit) = found {
                group.bitmap[(bit / 8) as usize] |= 1 << (bit % 8);
                group.next = bit + 1;
                group.taken += 1;
                self.taken += 1;
                self.open = Some(group);
                return Ok(start + bit);
            }
            self.close(&group)?;
            self.group = (self.group + 1) % self.volume.groups.len() as u64;
        }
    }

    fn open_group(&mut self) -> Result<OpenGroup> {
        self.groups_left = self
            .groups_left
            .checked_sub(1)
            .ok_or(fs_ext4::Error::NoSpaceLeftOnDevice)?;
        let superblock = self.volume.superblock;
        let descriptor = &self.volume.groups[self.group as usize];
        let mut bitmap = vec![0; superblock.block_size as usize];
        if descriptor.flags & FLAG_BLOCKS_UNINITIALISED != 0 {
            // What such a group holds follows from the layout of all groups; the others come first.
            bitmap.fill(0xff);
        } else {
            let offset = descriptor.block_bitmap * superblock.block_size;
            self.volume.device.read_at(offset, &mut bitmap)?;
        }
        Ok(OpenGroup {
            bitmap,
            next: 0,
            taken: 0,
        })
    }

    /// Writes the bitmap and the descriptor of a group that blocks were taken from.
    fn close(&self, group: &OpenGroup) -> Result<()> {
        if group.taken == 0 {
            return Ok(());
        }
        let volume = self.volume;
        let block_size = volume.superblock.block_size;
        let bitmap_block = volume.groups[self.group as usize].block_bitmap;
        volume
            .device
            .write_at(bitmap_block * block_size, &group.bitmap)?;
        let (block, within) = volume.library.descriptor_location(self.group);
        let place = block * block_size + within as u64;
        let mut bytes = vec![0; volume.superblock.descriptor_size as usize];
        volume.device.read_at(place, &mut bytes)?;
        let fields = Fields(&bytes);
        let free = u32::from(fields.u16(0x2c)) << 16 | u32::from(fields.u16(0x0c));
        let free = free.saturating_sub(group.taken);
        let covered = (volume.superblock.blocks_per_group / 8) as usize;
        let checksum = linux_crc32c(volume.checksums.seed, &group.bitmap[..covered]);
        let mut put = |offset: usize, value: u32| {
            if let Some(field) = bytes.get_mut(offset..offset + 2) {
                field.copy_from_slice(&(value as u16).to_le_bytes());
            }
        };
        put(0x0c, free);
        put(0x2c, free >> 16);
        if volume.checksums.enabled {
            put(0x18, checksum);
            put(0x38, checksum >> 16);
        }
        let number = self.group as u32;
        if let Some(sum) = group_desc_csum(&volume.library, &volume.checksums, number, &bytes) {
            bytes[0x1e..0x20].copy_from_slice(&sum.to_le_bytes());
        }
        volume.device.write_at(place, &bytes)
    }
}

/// The pointers of one file.
struct Blocks<'v, 'a> {
    allocator: Allocator<'v, 'a>,
    /// Blocks of pointers that were read or made, by number.
    pointers: BTreeMap<u64, Vec<u8>>,
    root: Vec<u8>,
}

impl Blocks<'_, '_> {
    /// The block of the file with this index, and whether it was taken just now.
    fn data(&mut self, index: u64) -> Result<(u64, bool)> {
        let path = self.path(index)?;
        let mut parent = None;
        let mut taken = false;
        let mut block = 0;
        for (depth, &slot) in path.iter().enumerate() {
            block = self.pointer(parent, slot)?;
            taken = block == 0;
            if taken {
                block = self.allocator.take()?;
                self.set_pointer(parent, slot, block)?;
                if depth + 1 < path.len() {
                    let size = self.allocator.volume.superblock.block_size;
                    self.pointers.insert(block, vec![0; size as usize]);
                }
            }
            parent = Some(block);
        }
        Ok((block, taken))
    }

    /// The slots that lead to a block: in the inode, then in each block of pointers.
    fn path(&self, index: u64) -> Result<Vec<usize>> {
        let per_block = self.allocator.volume.superblock.block_size / 4;
        if index < DIRECT {
            return Ok(vec![index as usize]);
        }
        let mut rest = index - DIRECT;
        let mut span = per_block;
        for levels in 1..=3u32 {
            if rest < span {
                let mut path = vec![DIRECT as usize + levels as usize - 1];
                path.extend(
                    (0..levels)
                        .rev()
                        .map(|level| (rest / per_block.pow(level) % per_block) as usize),
                );
                return Ok(path);
            }
            rest -= span;
            span *= per_block;
        }
        Err(fs_ext4::Error::Unsupported(
            "a file beyond triply indirect blocks",
        ))
    }

    /// The bytes of pointers in the inode, or in a block.
    fn list(&mut self, parent: Option<u64>) -> Result<&mut Vec<u8>> {
        let Some(block) = parent else {
            return Ok(&mut self.root);
        };
        let volume = self.allocator.volume;
        if block >= volume.superblock.blocks {
            return Err(fs_ext4::Error::InvalidBlock(block));
        }
        match self.pointers.entry(block) {
            std::collections::btree_map::Entry::Occupied(list) => Ok(list.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let size = volume.superblock.block_size;
                let mut bytes = vec![0; size as usize];
                volume.device.read_at(block * size, &mut bytes)?;
                Ok(vacant.insert(bytes))
            }
        }
    }

    fn pointer(&mut self, parent: Option<u64>, slot: usize) -> Result<u64> {
        let list = self.list(parent)?;
        Ok(Fields(list).u32(slot * 4).into())
    }

    fn set_pointer(&mut self, parent: Option<u64>, slot: usize, block: u64) -> Result<()> {
        let value = u32::try_from(block).map_err(|_| fs_ext4::Error::InvalidBlock(block))?;
        let list = self.list(parent)?;
        list[slot * 4..slot * 4 + 4].copy_from_slice(&value.to_le_bytes());
        Ok(())
    }

    /// Writes the pointers and the bitmaps; says how many blocks were taken.
    fn finish(self, inode: &mut [u8]) -> Result<u64> {
        let volume = self.allocator.volume;
        if let Some(group) = &self.allocator.open {
            self.allocator.close(group)?;
        }
        for (block, bytes) in &self.pointers {
            volume
                .device
                .write_at(block * volume.superblock.block_size, bytes)?;
        }
        inode[ROOT..ROOT + 60].copy_from_slice(&self.root);
        Ok(self.allocator.taken)
    }
}
