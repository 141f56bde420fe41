// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was found of a guest's disks, and of the volumes on them.

use std::fmt;

use disk::SectorSize;
use disk::filesystem::FilesystemKind;
use image_library::DiskIndex;
use serde::{Deserialize, Serialize};

use crate::guest::boot_sector::BootCode;

/// A place that can hold a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum VolumeId {
    /// A disk without partition table.
    Disk {
        /// Which disk.
        disk: DiskIndex,
    },
    /// A partition of a disk.
    Partition {
        /// The disk.
        disk: DiskIndex,
        /// The partition's number.
        number: u32,
    },
    /// A volume that is made of others.
    Assembled {
        /// Its place in [`Inspection::assembled`](super::Inspection::assembled).
        number: u16,
    },
}

impl VolumeId {
    /// A partition, or with `None` the whole disk.
    #[must_use]
    pub fn on_disk(disk: DiskIndex, partition: Option<u32>) -> Self {
        match partition {
            Some(number) => Self::Partition { disk, number },
            None => Self::Disk { disk },
        }
    }

    /// The number of a partition of a disk.
    #[must_use]
    pub fn partition(self) -> Option<u32> {
        match self {
            Self::Partition { number, .. } => Some(number),
            Self::Disk { .. } | Self::Assembled { .. } => None,
        }
    }

    /// The disk, where it is on a single one by itself.
    #[must_use]
    pub fn disk(self) -> Option<DiskIndex> {
        match self {
            Self::Disk { disk } | Self::Partition { disk, .. } => Some(disk),
            Self::Assembled { .. } => None,
        }
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { disk } => write!(f, "disk {disk}"),
            Self::Partition { disk, number } => write!(f, "disk {disk} partition {number}"),
            Self::Assembled { number } => write!(f, "assembled volume {number}"),
        }
    }
}

/// The kind of a disk's partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Master boot record.
    Mbr,
    /// GUID partition table.
    Gpt,
    /// No table: the whole disk is one volume, or nothing known.
    None,
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
            Self::None => "no partition table",
        })
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Its place among the server's disks.
    pub index: DiskIndex,
    /// Its name on the server, where known.
    pub name: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size.
    pub sector_size: SectorSize,
    /// Its partition table.
    pub table: TableKind,
    /// Whether the first sector holds boot code.
    pub boot_code: bool,
    /// Whose boot code that is, where it is known.
    #[serde(default)]
    pub boot_code_of: Option<BootCode>,
    /// Its volumes: the partitions, or the disk itself.
    pub volumes: Vec<VolumeFacts>,
}

/// What a partition is for, as its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionPurpose {
    /// An EFI system partition.
    EfiSystem,
    /// Where GRUB keeps its core on GPT disks started by a BIOS.
    BiosBoot,
    /// Anything else.
    Other,
}

/// A partition, or a disk without table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFacts {
    /// Which.
    pub id: VolumeId,
    /// First byte on its disk.
    pub start_bytes: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What it is for.
    pub purpose: PartitionPurpose,
    /// `PARTUUID` as `blkid` prints it.
    pub partition_uuid: Option<String>,
    /// `PARTLABEL`, on GPT.
    pub partition_label: Option<String>,
    /// What it holds, `None` when that is not known.
    pub content: Option<VolumeContent>,
}

/// What put a volume together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssembledKind {
    /// An md array.
    MdArray,
    /// A partition of a volume that was put together.
    Partition,
    /// A logical volume of LVM2.
    LogicalVolume,
    /// What a LUKS volume is when it is opened.
    Encrypted,
}

/// A volume that is made of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssembledFacts {
    /// Which.
    pub id: VolumeId,
    /// What put it together.
    pub kind: AssembledKind,
    /// What people call it: `vg0/root`, `md0`.
    pub name: String,
    /// Every name of its device node, below `/dev/`.
    pub nodes: Vec<String>,
    /// What it is made of.
    pub parts: Vec<VolumeId>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What it holds, `None` when that is not known.
    pub content: Option<VolumeContent>,
}

/// What a superblock says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeContent {
    /// Which filesystem, or container.
    pub kind: FilesystemKind,
    /// The UUID as `blkid` prints it.
    pub uuid: Option<String>,
    /// The label.
    pub label: Option<String>,
    /// Bytes free for files, where that was asked.
    pub free_bytes: Option<u64>,
    /// Whether a journal must be replayed before it can be written.
    pub journal_dirty: bool,
}
