// SPDX-License-Identifier: MIT OR Apache-2.0
//! The image document: what the library keeps of one snapshot, besides the bytes.

use disk::SectorSize;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{DiskIndex, ImageId, ServerName};
use crate::machine::MachineDescription;

/// How consistent the disks of an image are with each other and with the applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// Read while it was written: nothing is promised beyond what a journal repairs.
    Fuzzy,
    /// As after a power failure: one point in time, journals to be replayed.
    Crash,
    /// Filesystems were frozen or unmounted.
    Filesystem,
    /// Applications had finished their writes as well.
    Application,
    /// The server was off, or the disk in nobody's use.
    Cold,
}

/// An image as it is committed; immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its unique name.
    pub id: ImageId,
    /// Whose image.
    pub server: ServerName,
    /// When the snapshot was taken, by the server's clock.
    pub taken_at: Timestamp,
    /// When the library committed it, by the library's clock.
    pub received_at: Timestamp,
    /// How consistent it is.
    pub consistency: Consistency,
    /// The machine, where an agent described it.
    pub machine: Option<MachineDescription>,
    /// The disks in the server's order; index is [`DiskIndex`].
    pub disks: Vec<ImageDisk>,
    /// The image it was taken as an increment of.
    pub parent: Option<ImageId>,
    /// Bytes that its upload added to the library's packs: what it cost.
    #[serde(default)]
    pub stored_bytes: u64,
    /// How many lists of condemned packs its upload had seen (FORMAT.md, section 10).
    #[serde(default)]
    pub generation: u64,
}

/// One disk of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDisk {
    /// Its place among the server's disks.
    pub index: DiskIndex,
    /// Its name on the server (`sda`) or the file it came from.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size.
    pub sector_size: SectorSize,
    /// Hash of the manifest's root, in lower-case hexadecimal.
    pub manifest: String,
    /// Bytes that are not all-zero chunks.
    pub data_bytes: u64,
}

/// What an upload asks to be committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDraft {
    /// When the snapshot was taken.
    pub taken_at: Timestamp,
    /// How consistent it is.
    pub consistency: Consistency,
    /// The machine.
    pub machine: Option<MachineDescription>,
}

/// One disk of an upload, opened before its chunks are put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDraft {
    /// Its name on the server or the file it came from.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size.
    pub sector_size: SectorSize,
}
