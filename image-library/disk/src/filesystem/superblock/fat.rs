// SPDX-License-Identifier: MIT OR Apache-2.0
//! The FAT boot sector, and the label from the root directory; little-endian.
//!
//! | offset | size | field | offset | size | field |
//! |---|---|---|---|---|---|
//! | 0 | 1 | jump: 0xeb or 0xe9 | 32 | 4 | sectors, when 19 is 0 |
//! | 11 | 2 | bytes per sector | 36 | 4 | sectors per table, when 22 is 0 (FAT32) |
//! | 13 | 1 | sectors per cluster | 44 | 4 | first cluster of the root directory (FAT32) |
//! | 14 | 2 | reserved sectors | 39, 67 | 4 | serial number: FAT12 and 16, FAT32 |
//! | 16 | 1 | tables | 510 | 2 | 0x55 0xaa |
//! | 17 | 2 | root directory entries | | | |
//! | 19 | 2 | sectors | | | |
//! | 22 | 2 | sectors per table | | | |
//!
//! FAT has no magic, so all of these must make sense. The count of clusters alone decides between
//! FAT12, FAT16 and FAT32.

use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::{Fields, read_block};
use crate::filesystem::{FilesystemKind, Identity};

const ENTRY_BYTES: usize = 32;
const ATTRIBUTE_VOLUME_LABEL: u8 = 0x08;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
const NAME_DELETED: u8 = 0xe5;
/// A label stands among the first entries; a root directory is not read further than this.
const LABEL_SEARCH_BYTES: u64 = 65536;

/// How wide an entry of the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Bits12,
    Bits16,
    Bits32,
}

/// The geometry of a FAT filesystem, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootSector {
    pub(crate) width: Width,
    pub(crate) cluster_bytes: u64,
    /// Clusters in the data area; numbered from 2.
    pub(crate) clusters: u64,
    pub(crate) table_offset: u64,
    pub(crate) table_bytes: u64,
    /// The fixed root directory of FAT12 and FAT16, otherwise empty.
    root_offset: u64,
    root_bytes: u64,
    root_cluster: u64,
    pub(crate) data_offset: u64,
    pub(crate) size_bytes: u64,
    serial: u32,
}

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    match read(device)? {
        Some(boot) => boot.identity(device).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn read(device: &dyn ReadAt) -> Result<Option<BootSector>> {
    let bytes = read_block(device, 0, 512)?;
    Ok(bytes.and_then(|bytes| BootSector::from_bytes(&bytes)))
}

impl BootSector {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes);
        let sector_bytes = u64::from(fields.u16(11));
        let sectors_per_cluster = fields.u8(13);
        let reserved = u64::from(fields.u16(14));
        let tables = u64::from(fields.u8(16));
        let plausible = matches!(fields.u8(0), 0xeb | 0xe9)
            && fields.u16(510) == 0xaa55
            && (512..=4096).contains(&sector_bytes)
            && sector_bytes.is_power_of_two()
            && sectors_per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=4).contains(&tables)
            && matches!(fields.u8(21), 0xf0 | 0xf8..)
            && !matches!(fields.bytes(3, 8), b"NTFS    " | b"EXFAT   ");
        if !plausible {
            return None;
        }
        let either = |short: u16, long: u32| match short {
            0 => u64::from(long),
            short => u64::from(short),
        };
        let sectors = either(fields.u16(19), fields.u32(32));
        let table_sectors = either(fields.u16(22), fields.u32(36));
        let root_sectors = (u64::from(fields.u16(17)) * 32).div_ceil(sector_bytes);
        let first_data_sector = reserved + tables * table_sectors + root_sectors;
        let data_sectors = sectors.checked_sub(first_data_sector)?;
        let clusters = data_sectors / u64::from(sectors_per_cluster);
        let fat32 = fields.u16(22) == 0;
        let width = match clusters {
            0 => return None,
            _ if fat32 => Width::Bits32,
            1..4085 => Width::Bits12,
            _ => Width::Bits16,
        };
        let table_bytes = table_sectors * sector_bytes;
        (width.entry_offset(clusters + 2) <= table_bytes).then(|| Self {
            width,
            cluster_bytes: sector_bytes * u64::from(sectors_per_cluster),
            clusters,
            table_offset: reserved * sector_bytes,
            table_bytes,
            root_offset: (first_data_sector - root_sectors) * sector_bytes,
            root_bytes: root_sectors * sector_bytes,
            root_cluster: if fat32 { fields.u32(44).into() } else { 0 },
            data_offset: first_data_sector * sector_bytes,
            size_bytes: sectors * sector_bytes,
            serial: fields.u32(if fat32 { 67 } else { 39 }),
        })
    }

    /// Where a cluster of the data area begins.
    pub(crate) fn cluster_offset(&self, cluster: u64) -> u64 {
        self.data_offset + cluster.saturating_sub(2) * self.cluster_bytes
    }

    pub(crate) fn identity(&self, device: &dyn ReadAt) -> Result<Identity> {
        Ok(Identity {
            kind: FilesystemKind::Fat,
            uuid: (self.serial != 0)
                .then(|| format!("{:04X}-{:04X}", self.serial >> 16, self.serial & 0xffff)),
            label: self.label(device)?,
            size_bytes: Some(self.size_bytes.min(device.length_bytes())),
        })
    }

    /// The label in the fixed root directory, or in the first cluster of FAT32's.
    fn label(&self, device: &dyn ReadAt) -> Result<Option<String>> {
        let (offset, length) = match self.width {
            Width::Bits12 | Width::Bits16 => (self.root_offset, self.root_bytes),
            Width::Bits32 => (self.cluster_offset(self.root_cluster), self.cluster_bytes),
        };
        let length = length.min(LABEL_SEARCH_BYTES) as usize;
        Ok(read_block(device, offset, length)?.and_then(|bytes| label_in(&bytes)))
    }
}

impl Width {
    /// Where the entry of a cluster begins in the table, rounded down to a byte.
    pub(crate) fn entry_offset(self, cluster: u64) -> u64 {
        match self {
            Self::Bits12 => cluster * 3 / 2,
            Self::Bits16 => cluster * 2,
            Self::Bits32 => cluster * 4,
        }
    }
}

fn label_in(directory: &[u8]) -> Option<String> {
    directory
        .chunks_exact(ENTRY_BYTES)
        .take_while(|entry| entry[0] != 0)
        .find(|entry| {
            entry[0] != NAME_DELETED
                && entry[11] != ATTRIBUTE_LONG_NAME
                && entry[11] & 0x18 == ATTRIBUTE_VOLUME_LABEL
        })
        .and_then(|entry| crate::fields::text(&entry[..11]))
}
