// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which bytes of the members of a mirror are in use: what a copy of them must have.
//!
//! Only of RAID1: on the other levels a chunk is worth reading when another one of its stripe is,
//! because of the parity, or has its copy somewhere else. Everything outside of the data of a member is in
//! use: superblocks at either end, bitmaps, logs.

use std::ops::Range;
use std::sync::Arc;

use crate::block::WriteAt;
use crate::filesystem::merged;

use super::member::MemberDevice;
use super::superblock::Superblock;
use super::{Array, Level, MemberState};

impl Array {
    /// Whether all members are there and hold the same bytes, and nothing is going on with them.
    #[must_use]
    pub fn is_clean_mirror(&self) -> bool {
        let in_sync = |member: &super::Member| member.state == MemberState::InSync;
        let mut events = self.members.iter().map(|member| member.events);
        let first = events.next();
        self.level == Level::Raid1
            && self.obstacle.is_none()
            && self.findings.is_empty()
            && self.members.len() == self.disks as usize
            && self.members.iter().all(in_sync)
            && events.all(|events| Some(events) == first)
            && self.data_of_members().is_some()
    }

    /// For each member which candidate it is and which bytes of it are in use, ascending, where of
    /// the array `used` are. `None` for an array that is no clean mirror.
    #[must_use]
    pub fn used_ranges(&self, used: &[Range<u64>]) -> Option<Vec<(usize, Vec<Range<u64>>)>> {
        if !self.is_clean_mirror() {
            return None;
        }
        let members = self.members.iter().zip(&self.sources.members);
        let ranges = members.zip(self.data_of_members()?);
        let ranges = ranges.map(|((member, (device, _)), data)| {
            let shift = |at: u64| data.start.saturating_add(at).min(data.end);
            let mut ranges = vec![0..data.start, data.end..u64::MAX];
            ranges.extend(used.iter().map(|used| shift(used.start)..shift(used.end)));
            (member.candidate, merged(ranges, device.length_bytes()))
        });
        Some(ranges.collect())
    }

    /// Where each member has the array's bytes; `None` where one has more to it than that.
    fn data_of_members(&self) -> Option<Vec<Range<u64>>> {
        let size = self.size_bytes?;
        let members = self.sources.members.iter();
        members
            .map(|(device, superblock)| plain_data(device, superblock, size))
            .collect()
    }
}

fn plain_data(device: &Arc<dyn WriteAt>, superblock: &Superblock, size: u64) -> Option<Range<u64>> {
    let data = superblock.data_offset..superblock.data_offset.checked_add(size)?;
    let is_busy = superblock.dirty
        || superblock.reshaping
        || superblock.clustered
        || superblock.replacement
        || superblock.has_journal
        || superblock.ppl.is_some();
    let own = [
        Some(superblock.offset),
        superblock.bitmap,
        superblock.bad_blocks.map(|log| log.offset),
    ];
    // A log that cannot be read may name any block.
    let has_bad_blocks =
        MemberDevice::new(device, superblock).map_or(true, |member| member.has_bad_blocks());
    let is_plain = !is_busy
        && !has_bad_blocks
        && data.end <= device.length_bytes()
        && !own.iter().flatten().any(|place| data.contains(place));
    is_plain.then_some(data)
}
