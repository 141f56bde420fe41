// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which bytes of one device are in use, and how much is free for files.
//!
//! In use are: the first MiB, which has the superblock and, before it, perhaps a boot loader; the other
//! superblocks; and, of every chunk with a stripe on the device, that stripe's part of the extents that
//! the extent tree has, and of what only the log knows. Chunks are visited in the order of their
//! stripes on the device, so the ranges ascend. Of RAID5 and RAID6 the whole stripe counts.
//!
//! | item of the extent tree | key |
//! |---|---|
//! | extent | (logical, 168, length) |
//! | tree block | (logical, 169, level) |
//! | block group, here or in a tree of its own | (logical, 192, length): bytes in use first |
//!
//! Nothing else is needed to mount: free space is written down in trees or files, which are extents.

use std::ops::Range;

use super::super::extents::Extents;
use super::STRUCTURE;
use super::chunk::Chunk;
use super::key::{Key, kind, object};
use super::log;
use super::superblock::{LENGTH, OFFSETS};
use super::tree::Tree;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::fields::Fields;

/// No chunk begins before it.
const RESERVED_BYTES: u64 = 1 << 20;

/// The ranges of device `number` that are in use.
pub(super) fn used_extents(volume: &Volume<'_>, number: u64) -> Result<Vec<Range<u64>>> {
    volume.superblock.refuse_allocation_features()?;
    let device_bytes = volume.device_bytes(number).ok_or_else(|| {
        Error::unsupported(
            STRUCTURE,
            format!("a map of device {number}, which is missing,"),
        )
    })?;
    let extent_tree = volume.tree(object::EXTENT_TREE)?;
    let log = log::extents(volume)?;
    let mut superblocks = OFFSETS
        .map(|at| at..at + LENGTH as u64)
        .into_iter()
        .peekable();
    let mut used = Extents::default();
    used.push(0..RESERVED_BYTES);
    superblocks.next_if(|first| first.start < RESERVED_BYTES);
    let mut add = |range: Range<u64>| {
        while let Some(superblock) = superblocks.next_if(|next| next.start <= range.start) {
            used.push(superblock);
        }
        used.push(range);
    };
    for (chunk, index) in stripes(volume, number)? {
        if chunk.has_parity() {
            let start = chunk.stripes.get(index).map_or(0, |stripe| stripe.offset);
            add(start..start.saturating_add(chunk.stripe_bytes()));
        } else {
            let place = |logical: Range<u64>| add(chunk.on_stripe(index, &logical));
            each_extent(volume, &extent_tree, &log, chunk, place)?;
        }
    }
    add(device_bytes..u64::MAX);
    Ok(used.finish(device_bytes))
}

/// The stripes on a device, in the order of their places, none of which overlaps another.
fn stripes<'v>(volume: &'v Volume<'_>, number: u64) -> Result<Vec<(&'v Chunk, usize)>> {
    let mut found = Vec::new();
    for chunk in volume.chunks.iter() {
        for (index, stripe) in chunk.stripes.iter().enumerate() {
            if volume.is_member(stripe, number) {
                found.push((stripe.offset, chunk, index));
            }
        }
    }
    found.sort_by_key(|(offset, _, _)| *offset);
    let mut end = RESERVED_BYTES;
    for (offset, chunk, _) in &found {
        if *offset < end {
            let problem = format!("a stripe at {offset:#x} overlaps what ends at {end:#x}");
            return Err(Error::corrupt(STRUCTURE, chunk.logical, problem));
        }
        end = offset.saturating_add(chunk.stripe_bytes());
    }
    Ok(found
        .into_iter()
        .map(|(_, chunk, index)| (chunk, index))
        .collect())
}

/// Tells the extents of a chunk, in ascending order of where they begin.
fn each_extent(
    volume: &Volume<'_>,
    extent_tree: &Tree<'_, '_>,
    log: &[Range<u64>],
    chunk: &Chunk,
    mut tell: impl FnMut(Range<u64>),
) -> Result<()> {
    let inside = |range: &Range<u64>| range.start < chunk.end() && chunk.logical < range.end;
    let cut = |range: &Range<u64>| range.start.max(chunk.logical)..range.end.min(chunk.end());
    let from = log.partition_point(|range| range.end <= chunk.logical);
    let logged = log.iter().skip(from).take_while(|range| inside(range));
    let mut logged = logged.map(cut).peekable();
    let first = Key::new(chunk.logical, 0, 0);
    let last = Key::new(chunk.end().saturating_sub(1), u8::MAX, u64::MAX);
    for item in extent_tree.range(first, last)? {
        let key = item?.key;
        let length = match key.kind {
            kind::EXTENT => key.offset,
            kind::METADATA_EXTENT => volume.superblock.node_bytes as u64,
            _ => continue,
        };
        let end = key
            .object
            .checked_add(length)
            .filter(|end| *end <= chunk.end());
        let end = end.ok_or_else(|| {
            Error::corrupt("btrfs extent", key.object, "it ends behind its chunk")
        })?;
        while let Some(logged) = logged.next_if(|logged| logged.start <= key.object) {
            tell(logged);
        }
        tell(key.object..end);
    }
    logged.for_each(tell);
    Ok(())
}

/// The bytes that are free for files: in chunks for data, and in what no chunk has yet.
pub(super) fn free_bytes(volume: &Volume<'_>) -> Result<u64> {
    let tree = volume.tree(match volume.superblock.has_block_group_tree() {
        true => object::BLOCK_GROUP_TREE,
        false => object::EXTENT_TREE,
    })?;
    let mut free: u64 = 0;
    let mut newest = None;
    for chunk in volume.chunks.iter().filter(|chunk| chunk.holds_data()) {
        let key = Key::new(chunk.logical, kind::BLOCK_GROUP, chunk.length);
        let used = tree
            .get(key)?
            .map_or(chunk.length, |item| Fields(item.data()).u64(0));
        free = free.saturating_add(chunk.length.saturating_sub(used));
        newest = Some(chunk);
    }
    let later = newest.map_or(0, |chunk| room_like(chunk, &volume.unallocated_bytes));
    Ok(free.saturating_add(later))
}

/// How much fits into what no chunk has, in chunks as this one.
fn room_like(chunk: &Chunk, unallocated: &[u64]) -> u64 {
    let devices: Vec<u128> = unallocated
        .iter()
        .map(|bytes| bytes.saturating_sub(RESERVED_BYTES).into())
        .collect();
    // No device can have more than its share of the copies: what is left of a large one is lost.
    let per_byte = u128::from(chunk.devices_per_byte());
    let taken = |share: u128| devices.iter().map(|bytes| *bytes.min(&share)).sum::<u128>();
    let (mut fits, mut too_large) = (0, devices.iter().sum::<u128>() + 1);
    while fits + 1 < too_large {
        let middle = fits.midpoint(too_large);
        match taken(middle) >= middle * per_byte {
            true => fits = middle,
            false => too_large = middle,
        }
    }
    // RAID5, RAID6 and DUP take more than one byte on their devices for each of a file.
    let raw = u128::from(chunk.stripe_bytes()) * chunk.stripes.len() as u128;
    let room = fits * per_byte * u128::from(chunk.length) / raw.max(1);
    u64::try_from(room).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::chunk::tests::chunk;
    use super::room_like;

    const GIB: u64 = 1 << 30;

    #[rstest]
    #[case::single(0, 1, &[9, 3], 12)]
    #[case::dup(0x20, 2, &[9, 3], 6)]
    #[case::raid0(0x8, 2, &[9, 3], 12)]
    #[case::raid1(0x10, 2, &[9, 3], 3)]
    #[case::raid1_of_three(0x10, 2, &[9, 5, 3], 8)]
    #[case::raid1c3(0x200, 3, &[9, 5, 3], 3)]
    #[case::raid5(0x80, 3, &[3, 3, 3], 6)]
    #[case::nothing(0x10, 2, &[], 0)]
    fn what_fits_depends_on_the_copies_and_on_the_devices_that_have_room(
        #[case] flags: u64,
        #[case] stripes: u16,
        #[case] unallocated_gib: &[u64],
        #[case] expected_gib: u64,
    ) {
        let unallocated: Vec<u64> = unallocated_gib
            .iter()
            .map(|gib| gib * GIB + super::RESERVED_BYTES)
            .collect();
        let found = room_like(&chunk(flags, stripes), &unallocated);
        assert!(found.abs_diff(expected_gib * GIB) < 4096, "{found}");
    }
}
