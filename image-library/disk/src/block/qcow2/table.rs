// SPDX-License-Identifier: MIT OR Apache-2.0
//! L2 tables: where a run of the disk's clusters lies in the file.
//!
//! An entry is 8 bytes, or 16 with extended entries:
//!
//! ```text
//! bit 63       copied (for writers)     bit 62  compressed
//! bits 9-55    offset in the file; 0: not in this image
//! bit 0        reads as zeros (version 3, not with extended entries)
//! compressed:  bits 0..x offset, x..62 number of further sectors; x = 62 - (cluster bits - 8)
//! extended:    a second word: bits 0-31 parts that are allocated, 32-63 parts that are zeros
//! ```

use super::header::Header;
use crate::block::array_at;
use crate::error::{Error, Result};

const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
pub(super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// Where bytes of the disk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not in this image: in the backing file, or zeros where there is none.
    Backing,
    /// Zeros, whatever the backing file says.
    Zero,
    /// In the file, from this byte.
    File(u64),
    /// In a compressed cluster of `length` bytes at `offset`, at byte `within` of what comes out.
    Compressed {
        offset: u64,
        length: u64,
        within: u64,
    },
}

impl Place {
    /// The same place `bytes` further on.
    pub(super) fn skip(self, bytes: u64) -> Self {
        match self {
            Self::Backing | Self::Zero => self,
            Self::File(offset) => Self::File(offset + bytes),
            Self::Compressed {
                offset,
                length,
                within,
            } => Self::Compressed {
                offset,
                length,
                within: within + bytes,
            },
        }
    }
}

/// One L2 table, every entry of which was checked against the length of the file.
pub(super) struct L2Table {
    words: Vec<u64>,
    cluster_bits: u32,
    version: u32,
    extended: bool,
}

impl L2Table {
    /// Parses the table of one cluster, found at `offset` of a file of `file_length` bytes.
    pub(super) fn from_bytes(
        bytes: &[u8],
        header: &Header,
        offset: u64,
        file_length: u64,
    ) -> Result<Self> {
        let words = bytes
            .chunks_exact(8)
            .map(|word| u64::from_be_bytes(array_at(word, 0)))
            .collect();
        let table = Self {
            words,
            cluster_bits: header.cluster_bits,
            version: header.version,
            extended: header.extended_l2,
        };
        let step = if table.extended { 2 } else { 1 };
        for index in (0..table.words.len()).step_by(step) {
            table.check(index, file_length).map_err(|problem| {
                Error::corrupt("qcow2 L2 table", offset + 8 * index as u64, problem)
            })?;
        }
        Ok(table)
    }

    /// Where the byte `within` the part of the disk that this table describes is, and for how many
    /// bytes at least it goes on there (never beyond a cluster).
    pub(super) fn place_at(&self, within: u64) -> (Place, u64) {
        let cluster = within >> self.cluster_bits;
        let in_cluster = within & (self.cluster_size() - 1);
        let rest = self.cluster_size() - in_cluster;
        let index = usize::try_from(cluster).unwrap_or(usize::MAX);
        if !self.extended {
            let word = self.words.get(index).copied().unwrap_or(0);
            return (self.plain_place(word).skip(in_cluster), rest);
        }
        let at = |index| self.words.get(index).copied().unwrap_or(0);
        let (word, bitmap) = (at(2 * index), at(2 * index + 1));
        if word & COMPRESSED != 0 {
            return (self.plain_place(word).skip(in_cluster), rest);
        }
        let part_bits = self.cluster_bits - 5;
        let part = in_cluster >> part_bits;
        let part_end = (part + 1) << part_bits;
        let place = if bitmap >> (32 + part) & 1 == 1 {
            Place::Zero
        } else if bitmap >> part & 1 == 1 {
            Place::File((word & OFFSET_MASK) + in_cluster)
        } else {
            Place::Backing
        };
        (place, part_end - in_cluster)
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn plain_place(&self, word: u64) -> Place {
        if word & COMPRESSED != 0 {
            let (offset, length) = self.compressed_range(word);
            return Place::Compressed {
                offset,
                length,
                within: 0,
            };
        }
        // Version 2 has no zero flag; QEMU ignores the bit there.
        if word & ZERO != 0 && self.version >= 3 {
            return Place::Zero;
        }
        match word & OFFSET_MASK {
            0 => Place::Backing,
            offset => Place::File(offset),
        }
    }

    fn compressed_range(&self, word: u64) -> (u64, u64) {
        let offset_bits = 62 - (self.cluster_bits - 8);
        let offset = word & ((1 << offset_bits) - 1);
        let sectors = (word & (COMPRESSED - 1)) >> offset_bits;
        (offset, (sectors + 1) * 512 - (offset & 511))
    }

    fn check(&self, index: usize, file_length: u64) -> Result<(), String> {
        let word = self.words.get(index).copied().unwrap_or(0);
        let offset = if word & COMPRESSED != 0 {
            self.compressed_range(word).0
        } else {
            let offset = word & OFFSET_MASK;
            if !offset.is_multiple_of(self.cluster_size()) {
                return Err(format!(
                    "expected a cluster at a multiple of {:#x}, found {offset:#x}",
                    self.cluster_size()
                ));
            }
            self.check_bitmap(index, offset)?;
            offset
        };
        if offset >= file_length && offset != 0 {
            return Err(format!(
                "expected a cluster before the end of the file at {file_length:#x}, \
                 found {offset:#x}"
            ));
        }
        Ok(())
    }

    fn check_bitmap(&self, index: usize, offset: u64) -> Result<(), String> {
        if !self.extended {
            return Ok(());
        }
        let bitmap = self.words.get(index + 1).copied().unwrap_or(0);
        let (allocated, zero) = (bitmap & 0xffff_ffff, bitmap >> 32);
        if allocated & zero != 0 || (offset == 0 && allocated != 0) {
            return Err(format!(
                "expected parts that are either data or zeros, found the bitmap {bitmap:#x}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::qcow2::header::Compression;
    use rstest::rstest;

    const FILE_LENGTH: u64 = 0x10_0000;

    fn header(version: u32, extended_l2: bool) -> Header {
        Header {
            version,
            cluster_bits: 16,
            size_bytes: 1 << 20,
            l1_entries: 1,
            l1_offset: 0x1_0000,
            extended_l2,
            compression: Compression::Deflate,
            backing_name: None,
            backing_format: None,
        }
    }

    fn table(header: &Header, words: &[u64]) -> Result<L2Table> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.resize(0x1_0000, 0);
        L2Table::from_bytes(&bytes, header, 0x2_0000, FILE_LENGTH)
    }

    #[test]
    fn each_kind_of_entry_gives_its_place() {
        let copied = 1 << 63;
        // 54 bits of offset at this cluster size: 2 further sectors from byte 0x50123.
        let compressed = COMPRESSED | 2 << 54 | 0x5_0123;
        let words = [0, copied | 0x3_0000, ZERO, 0x4_0000 | ZERO, compressed];
        let table = table(&header(3, false), &words).expect("sound");
        let place = |cluster: u64| table.place_at(cluster * 0x1_0000 + 0x10);
        assert_eq!(place(0), (Place::Backing, 0xfff0));
        assert_eq!(place(1), (Place::File(0x3_0010), 0xfff0));
        assert_eq!(place(2), (Place::Zero, 0xfff0));
        assert_eq!(place(3), (Place::Zero, 0xfff0));
        let compressed = Place::Compressed {
            offset: 0x5_0123,
            length: 3 * 512 - 0x123,
            within: 0x10,
        };
        assert_eq!(place(4), (compressed, 0xfff0));
    }

    #[test]
    fn version_2_knows_no_zero_flag() {
        let table = table(&header(2, false), &[0x3_0000 | ZERO]).expect("sound");
        assert_eq!(table.place_at(0), (Place::File(0x3_0000), 0x1_0000));
    }

    #[test]
    fn an_extended_entry_tells_its_parts_apart() {
        // Parts of 2 KiB: 0 data, 1 zeros, 2 neither.
        let words = [0x3_0000, 1 << 33 | 1, 0, 1 << 32];
        let table = table(&header(3, true), &words).expect("sound");
        assert_eq!(table.place_at(0x7ff), (Place::File(0x3_07ff), 1));
        assert_eq!(table.place_at(0x800), (Place::Zero, 0x800));
        assert_eq!(table.place_at(0x1000), (Place::Backing, 0x800));
        assert_eq!(table.place_at(0x1_0000), (Place::Zero, 0x800));
    }

    #[rstest]
    #[case::unaligned(false, &[0, 0x3_0200], "qcow2 L2 table at byte 0x20008: expected a cluster at a multiple of 0x10000, found 0x30200")]
    #[case::beyond(false, &[0x10_0000], "qcow2 L2 table at byte 0x20000: expected a cluster before the end of the file at 0x100000, found 0x100000")]
    #[case::compressed_beyond(false, &[COMPRESSED | 0x10_0001], "qcow2 L2 table at byte 0x20000: expected a cluster before the end of the file at 0x100000, found 0x100001")]
    #[case::both(true, &[0x3_0000, 1 << 32 | 1], "qcow2 L2 table at byte 0x20000: expected parts that are either data or zeros, found the bitmap 0x100000001")]
    #[case::data_nowhere(true, &[0, 1], "qcow2 L2 table at byte 0x20000: expected parts that are either data or zeros, found the bitmap 0x1")]
    fn a_broken_entry_says_where(
        #[case] extended: bool,
        #[case] words: &[u64],
        #[case] text: &str,
    ) {
        match table(&header(3, extended), words) {
            Ok(_) => panic!("it is broken"),
            Err(error) => assert_eq!(error.to_string(), text),
        }
    }
}
