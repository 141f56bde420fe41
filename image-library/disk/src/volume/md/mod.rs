// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux software RAID ("md"), put together from devices without a kernel.
//!
//! ```text
//! candidates -> superblock (version0, version1) -> assembly (who belongs to which array, who is
//!     up to date) -> Array -> open -> striping (linear, raid0, raid1, raid10)
//!                                 \-> parity (raid4, raid5, raid6)
//! ```
//!
//! What `mdadm --assemble` would leave out is left out: members that missed writes, spares, members
//! that failed. What the kernel would not start is not opened: [`Array::obstacle`] says why. An
//! array that lacks members is read and written as the kernel does it, from what the others know.
//!
//! **Limits.** Arrays that are being reshaped, of clusters, and with a write journal that holds
//! data, are told and not opened. Superblocks are never changed: who writes an array hands on
//! exactly the devices that it was assembled from, so that those that were left out now
//! are left out again.

mod assembly;
mod bitmap;
mod device;
pub mod firmware;
mod journal;
mod member;
mod open;
mod parity;
mod parity_array;
mod striping;
pub(crate) mod superblock;
mod used;
mod version0;
mod version1;

use std::fmt;
use std::sync::Arc;

use crate::block::WriteAt;
use crate::error::Result;
use crate::finding::Finding;

pub use assembly::assemble;

/// Everything that devices say about software RAID.
#[derive(Debug)]
pub struct Assembly {
    /// The arrays, in the order of their first members.
    pub arrays: Vec<Array>,
    /// What was noticed on devices that became part of no array.
    pub findings: Vec<Finding>,
}

/// The format of a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metadata {
    /// At the end, in the byte order of the machine.
    V0_90,
    /// At the end.
    V1_0,
    /// At the start.
    V1_1,
    /// 4 KiB from the start.
    V1_2,
}

impl fmt::Display for Metadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V0_90 => "0.90",
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        })
    }
}

/// How an array spreads its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// One member after the other.
    Linear,
    /// Chunks in turn.
    Raid0,
    /// Everything on every member.
    Raid1,
    /// Parity on one member.
    Raid4,
    /// Parity on all members in turn.
    Raid5,
    /// Two parities.
    Raid6,
    /// Chunks in turn, more than once.
    Raid10,
    /// What is not read: multipath (-4), faulty (-5), anything else.
    Other(i32),
}

impl From<i32> for Level {
    fn from(level: i32) -> Self {
        match level {
            -1 => Self::Linear,
            0 => Self::Raid0,
            1 => Self::Raid1,
            4 => Self::Raid4,
            5 => Self::Raid5,
            6 => Self::Raid6,
            10 => Self::Raid10,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear => formatter.write_str("linear"),
            Self::Raid0 => formatter.write_str("raid0"),
            Self::Raid1 => formatter.write_str("raid1"),
            Self::Raid4 => formatter.write_str("raid4"),
            Self::Raid5 => formatter.write_str("raid5"),
            Self::Raid6 => formatter.write_str("raid6"),
            Self::Raid10 => formatter.write_str("raid10"),
            Self::Other(level) => write!(formatter, "level {level}"),
        }
    }
}

/// How a RAID0 of members of different sizes is laid out after its first zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Raid0Layout {
    /// As Linux did before 3.14.
    Original,
    /// As Linux does since 3.14.
    Alternate,
}

/// What a member is to its array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberState {
    /// Has everything of its position.
    InSync,
    /// Has its position's data up to here, in bytes.
    Rebuilding {
        /// Where it ends.
        until_bytes: u64,
    },
    /// Waits for another one to fail.
    Spare,
    /// Has the write journal.
    Journal,
    /// Missed writes, or the others say that it failed; left out.
    Stale,
    /// Says the same as another member, or what cannot be; left out.
    Ignored,
}

/// A device of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which of the devices that were given.
    pub candidate: usize,
    /// Its UUID; version 0.90 has none.
    pub device_uuid: Option<String>,
    /// Its position in the array.
    pub role: Option<u32>,
    /// How many changes of the array it has seen.
    pub events: u64,
    /// What it is to the array.
    pub state: MemberState,
}

/// A software RAID.
#[derive(Debug)]
pub struct Array {
    /// As `blkid` prints it; see also [`Array::mdadm_uuid`].
    pub uuid: String,
    /// The name, often `host:name`; version 0.90 has none.
    pub name: Option<String>,
    /// The number that version 0.90 asks for: 0 for `/dev/md0`.
    pub preferred_minor: Option<u32>,
    /// The format of the superblocks.
    pub metadata: Metadata,
    /// The level.
    pub level: Level,
    /// The layout, as the level numbers it; `None` for a RAID0 that does not say.
    pub layout: Option<u32>,
    /// The size of a chunk, 0 where the level has none.
    pub chunk_bytes: u64,
    /// The size of the array, where it can be told.
    pub size_bytes: Option<u64>,
    /// How many members the array has when it is whole.
    pub disks: u32,
    /// The devices that name this array.
    pub members: Vec<Member>,
    /// What somebody should know.
    pub findings: Vec<Finding>,
    /// Why it cannot be opened, if it cannot.
    pub obstacle: Option<String>,
    sources: assembly::Sources,
}

impl Array {
    /// The array as a device.
    ///
    /// Several may be open, but a write through one is not seen as one by the others: parity that
    /// both change at a time is wrong.
    pub fn open(&self) -> Result<Arc<dyn WriteAt>> {
        open::open(self)
    }

    /// Decides how a RAID0 is laid out that does not say so.
    pub fn set_raid0_layout(&mut self, layout: Raid0Layout) {
        if self.level == Level::Raid0 && self.layout.is_none() {
            self.layout = Some(match layout {
                Raid0Layout::Original => 1,
                Raid0Layout::Alternate => 2,
            });
            open::judge(self);
        }
    }

    /// Whether it lacks members.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        (0..self.disks).any(|role| !self.has(role))
    }

    /// Whether a member has everything of a position.
    fn has(&self, role: u32) -> bool {
        let mut members = self.members.iter();
        members.any(|m| m.role == Some(role) && m.state == MemberState::InSync)
    }

    /// The UUID as in `mdadm.conf`: four groups of eight digits.
    #[must_use]
    pub fn mdadm_uuid(&self) -> String {
        let digits: Vec<char> = self.uuid.chars().filter(|c| *c != '-').collect();
        let groups = digits
            .chunks(8)
            .map(|group| group.iter().collect::<String>());
        groups.collect::<Vec<_>>().join(":")
    }
}
