// SPDX-License-Identifier: MIT OR Apache-2.0
//! A new qcow2 image, written front to back.
//!
//! Version 3, uncompressed, clusters of 64 KiB. Every cluster of the file is used once, so all
//! refcounts are 1 and are written last:
//!
//! ```text
//! cluster 0   header, backing name    rewritten at the end: it stands only over a whole image
//! 1 ..        data and L2 tables      a table follows the last cluster that it describes
//!             L1 table
//!             refcount blocks, refcount table
//! ```
//!
//! Only L2 tables of parts of the disk that hold something are written: an overlay over a disk
//! of 1 TiB costs 64 KiB per touched 512 MiB, and 16 KiB for the L1 table.

use std::io::{self, Seek, SeekFrom, Write};

use super::header::{L1_LIMIT_BYTES, MAGIC};
use crate::error::{Error, Result};

/// The size of a cluster: QEMU's own default.
pub(crate) const CLUSTER_SIZE: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
const CLUSTERS_PER_L2: u64 = CLUSTER_SIZE / 8;
/// 16 bits per count, QEMU's default.
const REFCOUNT_ORDER: u32 = 4;
const REFCOUNTS_PER_BLOCK: u64 = CLUSTER_SIZE / 2;
const HEADER_LENGTH: u32 = 104;
const COPIED: u64 = 1 << 63;
const ZERO: u64 = 1;
static ZEROS: [u8; CLUSTER_SIZE as usize] = [0; CLUSTER_SIZE as usize];
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

/// The file that an image goes on in where it holds nothing itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// A path, relative to the image, or a URI that QEMU understands.
    pub name: String,
    /// Its format as QEMU calls it: `raw`, `qcow2`.
    pub format: String,
}

/// Writes one image; clusters come in the order of the disk.
pub(crate) struct Qcow2Writer<'w, W> {
    target: &'w mut W,
    size_bytes: u64,
    backing: Option<Backing>,
    /// Where the next cluster of the file goes, in bytes.
    end: u64,
    /// Offsets of the L2 tables.
    l1: Vec<u64>,
    /// The table that is being filled, and which one it is.
    l2: Vec<u64>,
    l2_index: u64,
    next_cluster: u64,
}

impl<'w, W: Write + Seek> Qcow2Writer<'w, W> {
    /// Begins an image of a disk of `size_bytes` at the start of `target`, which is empty.
    pub(crate) fn new(
        target: &'w mut W,
        size_bytes: u64,
        backing: Option<Backing>,
    ) -> Result<Self> {
        if !size_bytes.is_multiple_of(512) {
            return Err(Error::unsupported(
                "qcow2",
                format!("a disk of {size_bytes} bytes, no multiple of 512,"),
            ));
        }
        let entries = size_bytes.div_ceil(CLUSTER_SIZE * CLUSTERS_PER_L2);
        if entries > L1_LIMIT_BYTES / 8 {
            return Err(Error::Limit {
                what: "the entries of the image's L1 table",
                limit: L1_LIMIT_BYTES / 8,
            });
        }
        check_backing(backing.as_ref())?;
        let mut writer = Self {
            target,
            size_bytes,
            backing,
            end: 0,
            l1: vec![0; usize::try_from(entries).expect("the L1 table is limited")],
            l2: Vec::new(),
            l2_index: 0,
            next_cluster: 0,
        };
        writer.append(&ZEROS)?;
        Ok(writer)
    }

    /// Writes cluster number `cluster` of the disk: at most [`CLUSTER_SIZE`] bytes, the rest zeros.
    pub(crate) fn data(&mut self, cluster: u64, bytes: &[u8]) -> Result<()> {
        self.go_to(cluster)?;
        let entry = COPIED | self.end;
        self.append(bytes)?;
        self.set(cluster, entry);
        Ok(())
    }

    /// Says that cluster number `cluster` of the disk is zeros, whatever is in the backing file.
    pub(crate) fn zero(&mut self, cluster: u64) -> Result<()> {
        self.go_to(cluster)?;
        self.set(cluster, ZERO);
        Ok(())
    }

    /// Writes the tables and, last, the header that makes them an image; tells its length.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.finish_l2()?;
        let l1 = std::mem::take(&mut self.l1);
        let l1_offset = self.end;
        self.append_words(&l1)?;
        let (refcounts_offset, refcounts_clusters) = self.refcounts()?;
        let tables = Tables {
            l1_offset,
            l1_entries: l1.len() as u64,
            refcounts_offset,
            refcounts_clusters,
        };
        let header = header_bytes(self.size_bytes, &tables, self.backing.as_ref());
        self.target
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.target.write_all(&header))
            .and_then(|()| self.target.flush())
            .map_err(|source| failed(0, header.len() as u64, source))?;
        Ok(self.end)
    }

    /// Makes `cluster` one that the current L2 table describes.
    fn go_to(&mut self, cluster: u64) -> Result<()> {
        assert!(
            cluster >= self.next_cluster && cluster * CLUSTER_SIZE < self.size_bytes,
            "clusters of the disk are written in order"
        );
        self.next_cluster = cluster + 1;
        let index = cluster / CLUSTERS_PER_L2;
        if index != self.l2_index {
            self.finish_l2()?;
            self.l2_index = index;
        }
        self.l2.resize(CLUSTERS_PER_L2 as usize, 0);
        Ok(())
    }

    fn set(&mut self, cluster: u64, entry: u64) {
        self.l2[(cluster % CLUSTERS_PER_L2) as usize] = entry;
    }

    fn finish_l2(&mut self) -> Result<()> {
        if self.l2.is_empty() {
            return Ok(());
        }
        let table = std::mem::take(&mut self.l2);
        self.l1[self.l2_index as usize] = COPIED | self.end;
        self.append_words(&table)
    }

    /// Writes refcount blocks and their table for all clusters, these included.
    fn refcounts(&mut self) -> Result<(u64, u64)> {
        let used = self.end / CLUSTER_SIZE;
        let (blocks, table_clusters) = refcount_clusters(used);
        let total = used + blocks + table_clusters;
        let first_block = self.end;
        for block in 0..blocks {
            let ones = (total - block * REFCOUNTS_PER_BLOCK).min(REFCOUNTS_PER_BLOCK);
            self.append(&[0, 1].repeat(ones as usize))?;
        }
        let table_offset = self.end;
        let table: Vec<u64> = (0..blocks)
            .map(|block| first_block + block * CLUSTER_SIZE)
            .collect();
        self.append_words(&table)?;
        Ok((table_offset, table_clusters))
    }

    /// Appends whole clusters, the last one filled up with zeros.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)?;
        let length = bytes.len() as u64;
        let padded = length.next_multiple_of(CLUSTER_SIZE);
        self.write(&ZEROS[..(padded - length) as usize])?;
        self.end += padded;
        Ok(())
    }

    fn append_words(&mut self, words: &[u64]) -> Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.append(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.target
            .write_all(bytes)
            .map_err(|source| failed(self.end, bytes.len() as u64, source))
    }
}

/// How many clusters the refcount blocks and their table need, when `used` others are counted.
fn refcount_clusters(used: u64) -> (u64, u64) {
    let (mut blocks, mut table) = (1, 1);
    // Each round counts what the round before added; both only grow and soon stand still.
    loop {
        let blocks_needed = (used + blocks + table).div_ceil(REFCOUNTS_PER_BLOCK);
        let table_needed = (blocks_needed * 8).div_ceil(CLUSTER_SIZE);
        if (blocks_needed, table_needed) == (blocks, table) {
            return (blocks, table);
        }
        (blocks, table) = (blocks_needed.max(blocks), table_needed.max(table));
    }
}

/// Where the tables ended up.
#[derive(Debug, Default)]
struct Tables {
    l1_offset: u64,
    l1_entries: u64,
    refcounts_offset: u64,
    refcounts_clusters: u64,
}

fn header_bytes(size_bytes: u64, tables: &Tables, backing: Option<&Backing>) -> Vec<u8> {
    let mut extensions = Vec::new();
    let name = backing.map_or("", |backing| &backing.name);
    if let Some(Backing { format, .. }) = backing {
        extensions.extend(EXTENSION_BACKING_FORMAT.to_be_bytes());
        extensions.extend((format.len() as u32).to_be_bytes());
        extensions.extend(format.as_bytes());
        extensions.resize(extensions.len().next_multiple_of(8), 0);
    }
    extensions.extend([0; 8]);
    let name_offset = match name.len() {
        0 => 0,
        _ => u64::from(HEADER_LENGTH) + extensions.len() as u64,
    };
    let mut header = Vec::from(MAGIC);
    header.extend(3_u32.to_be_bytes());
    header.extend(name_offset.to_be_bytes());
    header.extend((name.len() as u32).to_be_bytes());
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size_bytes.to_be_bytes());
    header.extend(0_u32.to_be_bytes()); // no encryption
    header.extend((tables.l1_entries as u32).to_be_bytes());
    header.extend(tables.l1_offset.to_be_bytes());
    header.extend(tables.refcounts_offset.to_be_bytes());
    header.extend((tables.refcounts_clusters as u32).to_be_bytes());
    header.extend([0; 4 + 8]); // no snapshots
    header.extend([0; 3 * 8]); // no features
    header.extend(REFCOUNT_ORDER.to_be_bytes());
    header.extend(HEADER_LENGTH.to_be_bytes());
    header.extend(extensions);
    header.extend(name.as_bytes());
    header
}

/// The name is put into the first cluster, and QEMU takes at most 1023 bytes of it.
fn check_backing(backing: Option<&Backing>) -> Result<()> {
    match backing {
        Some(backing) if backing.name.len() > 1023 || backing.format.len() > 255 => {
            Err(Error::Limit {
                what: "the bytes of the backing file's name",
                limit: 1023,
            })
        }
        _ => Ok(()),
    }
}

pub(super) fn failed(offset: u64, length: u64, source: io::Error) -> Error {
    Error::Device {
        action: "write",
        offset,
        length,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn refcounts_count_themselves() {
        assert_eq!(refcount_clusters(1), (1, 1));
        assert_eq!(refcount_clusters(32_766), (1, 1));
        assert_eq!(refcount_clusters(32_767), (2, 1));
        // 16 TiB of data: 8193 blocks need a second cluster of the table.
        assert_eq!(refcount_clusters(1 << 28), (8193, 2));
    }

    #[test]
    fn an_image_of_one_cluster_has_the_expected_bytes() {
        let mut file = Cursor::new(Vec::new());
        let backing = Backing {
            name: "base.raw".to_owned(),
            format: "raw".to_owned(),
        };
        let mut writer = Qcow2Writer::new(&mut file, 1 << 20, Some(backing)).expect("memory");
        writer.data(2, b"changed").expect("memory");
        writer.zero(5).expect("memory");
        let length = writer.finish().expect("memory");
        let bytes = file.into_inner();
        // Header, data, L2 table, L1 table, refcount block, refcount table.
        assert_eq!(length, 6 * CLUSTER_SIZE);
        assert_eq!(bytes.len() as u64, length);
        let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        assert_eq!(&bytes[..8], b"QFI\xfb\0\0\0\x03");
        assert_eq!(&bytes[128..136], b"base.raw");
        assert_eq!(
            (word(8), word(24), word(40), word(48)),
            (128, 1 << 20, 0x3_0000, 0x5_0000)
        );
        assert_eq!(&bytes[0x1_0000..0x1_0008], b"changed\0");
        assert_eq!(word(0x2_0000 + 2 * 8), 0x8000_0000_0001_0000);
        assert_eq!(word(0x2_0000 + 5 * 8), 1);
        assert_eq!(word(0x3_0000), 0x8000_0000_0002_0000);
        assert_eq!(
            bytes[0x4_0000..0x4_000e],
            [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0]
        );
        assert_eq!(word(0x5_0000), 0x4_0000);
    }

    #[test]
    fn a_disk_that_qcow2_cannot_hold_is_refused() {
        let mut file = Cursor::new(Vec::new());
        let mut new = |size, backing| Qcow2Writer::new(&mut file, size, backing).err();
        let text = new(1000, None).map(|error| error.to_string());
        let expected = "qcow2: a disk of 1000 bytes, no multiple of 512, is not supported";
        assert_eq!(text.as_deref(), Some(expected));
        assert!(matches!(new(1 << 52, None), Some(Error::Limit { .. })));
        let backing = Backing {
            name: "x".repeat(1024),
            format: "raw".to_owned(),
        };
        assert!(matches!(new(512, Some(backing)), Some(Error::Limit { .. })));
    }
}
