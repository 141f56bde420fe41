// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of an XFS: whether it is empty, and what a replay of it would change; nothing is
//! written.
//!
//! ```text
//! record (sectors of the log) -> transaction (items made of regions) -> replay (items -> changes)
//! ```
//!
//! The log is a ring of sectors. Each begins with the number of the round in which it was written,
//! so the newest record is found by bisection, and it names the oldest one that is still needed. An
//! unmounted filesystem's newest record says so. One that was frozen for a snapshot holds a few
//! transactions, one that was not any number.
//!
//! **Left out:** work that the log only announces (a file's extent that is to be mapped next, an
//! attribute that is to be set) is finished by the kernel after a replay. Here the inodes that it
//! is about are noted, and their content is refused.
//!
//! Facts: Linux, `fs/xfs/libxfs/xfs_log_format.h`, `xfs_log_recover.c`, `xfs_buf_item_recover.c`,
//! `xfs_inode_item_recover.c`, `xfs_icreate_item.c`.

mod changes;
mod items;
mod record;
mod replay;
#[cfg(test)]
mod tests;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use super::super::superblock::xfs::Superblock;
use crate::block::ReadAt;
use crate::error::{Error, Result};

pub(super) use changes::Changes;
use record::Log;
use replay::Replay;
use transaction::Transactions;

const STRUCTURE: &str = "XFS log";
/// Attributes that are set through the log.
const LOG_INCOMPAT_KNOWN: u32 = 1;

/// What the log of an XFS was found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogState {
    /// The filesystem was unmounted, or never written: nothing is in the log only.
    Clean,
    /// The filesystem was in use, or frozen. What is read is as after a replay, which is done in
    /// memory.
    Replayed,
    /// The log is on another device. If it is not empty, what is read may be older than it.
    External,
}

/// The state of the log, and what a replay of it changes.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) state: LogState,
    pub(super) changes: Changes,
    pub(super) unfinished: Unfinished,
}

/// Inodes that the log announces changes of, which it does not hold.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    pub(super) contents: BTreeSet<u64>,
    pub(super) attributes: BTreeSet<u64>,
}

impl Recovery {
    fn of(state: LogState) -> Self {
        Self {
            state,
            changes: Changes::default(),
            unfinished: Unfinished::default(),
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.state == LogState::Replayed
    }
}

/// Looks at the log and replays it, in memory, where it is not empty.
pub(super) fn recover<D: Deref<Target: ReadAt>>(
    device: &D,
    superblock: &Superblock,
) -> Result<Recovery> {
    let Some(range) = superblock.log.clone() else {
        return Ok(Recovery::of(LogState::External));
    };
    let log = Log::open(device, range);
    let Some(newest) = log.newest()?.filter(|newest| !newest.is_unmount()) else {
        return Ok(Recovery::of(LogState::Clean));
    };
    match superblock.log_incompat & !LOG_INCOMPAT_KNOWN {
        0 => {}
        unknown => {
            let feature = format!("the incompatible feature {unknown:#x}");
            return Err(Error::unsupported(STRUCTURE, feature));
        }
    }
    let places = log.needed(newest)?;
    let mut cancelled = BTreeMap::new();
    let mut transactions = Transactions::default();
    for place in &places {
        transactions.feed(&log.expect(*place)?, |transaction| {
            replay::count_cancelled(&transaction, &mut cancelled)
        })?;
    }
    let mut replay = Replay::new(&**device, superblock, cancelled);
    let mut transactions = Transactions::default();
    for place in places {
        transactions.feed(&log.expect(place)?, |transaction| replay.apply(transaction))?;
    }
    Ok(replay.finish())
}
