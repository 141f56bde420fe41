// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keeper of a machine: a process of its own that serves the machine's disks and watches it, so
//! that a command that is killed stops no machine.
//!
//! ```text
//! guest -> QEMU: overlay -> NBD -> [ keeper: trace <- chunk cache <- patience <- image ] -> library
//!            `------ monitor -----> [ keeper: stop and go on, move the disks, notice the end ]
//! ```
//!
//! A keeper is started with an [`KeeperOrder`] in a file, tells how it is in a [`KeeperStatus`] in
//! another, and ends when its machine has ended. QEMU connects again to a keeper that was started
//! anew in its place, and holds the guest's reads until then.

mod ahead;
mod cached;
mod moving;
mod nodes;
mod notice;
mod process;
mod room;
mod run;
mod source;
mod trace;

use std::path::PathBuf;

use disk::{Finding, SectorSize};
use image_library::{DiskIndex, ImageId};
use serde::{Deserialize, Serialize};

use crate::cache::{CacheCounters, CacheOptions};
use crate::nbd::Reads;

pub use moving::{MoveOrder, Moved, Moving};
pub use notice::Notices;
pub use process::{Keeper, KeeperProgram, Keepers, read_order};
pub use run::run;
pub use source::{KeptDisk, KeptHashes, KeptImage, Open, Source};
pub use trace::{BLOCK_BYTES, Recorder, Run, TRACE_NAME, Trace};

/// What a keeper is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperOrder {
    /// Of which image.
    pub image: ImageId,
    /// The disks, in the machine's order: export `disk0` and so on.
    pub disks: Vec<KeptDiskOrder>,
    /// The socket on which they are served.
    pub nbd: PathBuf,
    /// The socket of the machine's monitor that is the keeper's.
    pub monitor: PathBuf,
    /// Where the keeper writes its status.
    pub status: PathBuf,
    /// Whether the guest's controller gives up on a disk that does not answer (SATA, IDE, SCSI): the
    /// machine is stopped then for as long as the library is away.
    pub controller_gives_up: bool,
    /// Move the disks to local files while the machine runs.
    pub move_disks: Option<MoveOrder>,
    /// Where chunks are kept on the way.
    #[serde(default)]
    pub cache: CacheOrder,
    /// It takes the place of a keeper that is gone: the library need not be there now.
    pub takes_over: bool,
}

/// The chunk cache of a keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheOrder {
    /// Where its files are, shared by all keepers; `None`: in memory only.
    pub directory: Option<PathBuf>,
    /// What the files may take, in bytes.
    pub disk_bytes_max: u64,
    /// What the keeper may hold in memory, in bytes.
    pub memory_bytes_max: u64,
    /// The library is behind a server, which is asked for larger pieces.
    pub is_served: bool,
}

impl Default for CacheOrder {
    /// In memory only.
    fn default() -> Self {
        Self {
            directory: None,
            disk_bytes_max: 32 << 30,
            memory_bytes_max: 192 << 20,
            is_served: false,
        }
    }
}

impl CacheOrder {
    fn options(&self) -> CacheOptions {
        CacheOptions {
            directory: self.directory.clone(),
            disk_bytes_max: self.disk_bytes_max,
            memory_bytes_max: self.memory_bytes_max,
            ..CacheOptions::default()
        }
    }
}

/// One disk of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDiskOrder {
    /// Which disk of the image.
    pub index: DiskIndex,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its logical sector size.
    pub sector_size: SectorSize,
}

/// How a keeper is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeeperStatus {
    /// What was read of the disks.
    pub reads: Reads,
    /// What the chunk cache was good for.
    pub cache: CacheCounters,
    /// For how many seconds reads have been waiting for the library, and why; `None`: they are not.
    pub waiting: Option<(u64, String)>,
    /// Whether the machine is stopped until the library is back.
    pub is_stopped: bool,
    /// How far the disks are moved, if they are to be.
    pub moving: Option<Moving>,
    /// What was noticed.
    pub findings: Vec<Finding>,
    /// The machine has ended, and so has the keeper.
    pub is_over: bool,
}
