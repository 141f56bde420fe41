// SPDX-License-Identifier: MIT OR Apache-2.0
//! The header of a qcow2 image.
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `QFI\xfb` |
//! | 4 | 4 | version |
//! | 8, 16 | 8, 4 | offset and length of the backing file's name |
//! | 20 | 4 | log2 of the cluster size |
//! | 24 | 8 | size of the disk in bytes |
//! | 32 | 4 | encryption |
//! | 36, 40 | 4, 8 | entries and offset of the L1 table |
//! | 48, 56 | 8, 4 | offset and clusters of the refcount table |
//! | 60, 64 | 4, 8 | snapshots |
//! | 72, 80, 88 | 8 each | incompatible, compatible, autoclear features (version 3) |
//! | 96 | 4 | log2 of the bits of a refcount (version 3) |
//! | 100 | 4 | length of the header (version 3) |
//! | 104 | 1 | compression type (version 3) |
//!
//! Extensions follow: type, length, bytes padded to 8; type 0 ends them.

use crate::block::array_at;
use crate::error::{Error, Result};

/// The first bytes of the file.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// The header and its extensions are read from this many bytes; QEMU keeps them in the first
/// cluster, and the name of a backing file is at most 1023 bytes long.
pub(crate) const HEADER_LIMIT_BYTES: usize = 64 << 10;

/// What QEMU allows for the L1 table.
pub(crate) const L1_LIMIT_BYTES: u64 = 32 << 20;

const BACKING_NAME_LIMIT_BYTES: u32 = 1023;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

pub(crate) const INCOMPATIBLE_DIRTY: u64 = 1 << 0;
pub(crate) const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
pub(crate) const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
pub(crate) const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
pub(crate) const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Deflate,
    Zstd,
}

/// What the header says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    /// The size of the disk.
    pub(crate) size_bytes: u64,
    pub(crate) l1_entries: u32,
    pub(crate) l1_offset: u64,
    pub(crate) extended_l2: bool,
    pub(crate) compression: Compression,
    pub(crate) backing_name: Option<String>,
    pub(crate) backing_format: Option<String>,
}

impl Header {
    /// Parses the beginning of an image: its first [`HEADER_LIMIT_BYTES`], or all of a shorter one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if array_at::<4>(bytes, 0) != MAGIC {
            return Err(corrupt(0, "expected the magic `QFI\\xfb`, found none"));
        }
        let version = be_u32(bytes, 4);
        let shortest = if version == 3 { 104 } else { 72 };
        if bytes.len() < shortest {
            return Err(corrupt(
                0,
                format!("expected {shortest} bytes, found {}", bytes.len()),
            ));
        }
        if !matches!(version, 2 | 3) {
            return Err(Error::unsupported("qcow2", format!("version {version}")));
        }
        if be_u32(bytes, 32) != 0 {
            return Err(Error::unsupported("qcow2", "encryption"));
        }
        let features = Features::from_bytes(bytes, version)?;
        let cluster_bits = cluster_bits(bytes, features.extended_l2)?;
        let header = Self {
            version,
            cluster_bits,
            size_bytes: be_u64(bytes, 24),
            l1_entries: be_u32(bytes, 36),
            l1_offset: be_u64(bytes, 40),
            extended_l2: features.extended_l2,
            compression: features.compression,
            backing_name: backing_name(bytes)?,
            backing_format: backing_format(bytes, features.length)?,
        };
        header.check_l1()?;
        Ok(header)
    }

    /// The size of a cluster in bytes.
    pub(crate) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// How many clusters of the disk one L2 table describes.
    pub(crate) fn clusters_per_l2(&self) -> u64 {
        self.cluster_size() / if self.extended_l2 { 16 } else { 8 }
    }

    /// How many bytes of the disk one L2 table describes: at most 2^39, so it cannot overflow.
    pub(crate) fn bytes_per_l2(&self) -> u64 {
        self.cluster_size() * self.clusters_per_l2()
    }

    /// How many entries of the L1 table the disk's size needs.
    pub(crate) fn l1_entries_needed(&self) -> u64 {
        self.size_bytes.div_ceil(self.bytes_per_l2())
    }

    fn check_l1(&self) -> Result<()> {
        let needed = self.l1_entries_needed();
        if needed > L1_LIMIT_BYTES / 8 {
            return Err(corrupt(
                24,
                format!(
                    "expected a disk whose L1 table has at most {} entries, found one of {} bytes \
                     that needs {needed}",
                    L1_LIMIT_BYTES / 8,
                    self.size_bytes
                ),
            ));
        }
        if u64::from(self.l1_entries) < needed {
            return Err(corrupt(
                36,
                format!(
                    "expected at least {needed} entries of the L1 table, found {}",
                    self.l1_entries
                ),
            ));
        }
        if !self.l1_offset.is_multiple_of(self.cluster_size())
            || (needed > 0 && self.l1_offset == 0)
        {
            return Err(corrupt(
                40,
                format!(
                    "expected the L1 table at a cluster of its own, found byte {:#x}",
                    self.l1_offset
                ),
            ));
        }
        Ok(())
    }
}

/// The fields that only version 3 has.
struct Features {
    length: usize,
    extended_l2: bool,
    compression: Compression,
}

impl Features {
    fn from_bytes(bytes: &[u8], version: u32) -> Result<Self> {
        if version == 2 {
            return Ok(Self {
                length: 72,
                extended_l2: false,
                compression: Compression::Deflate,
            });
        }
        let length = be_u32(bytes, 100);
        // Longer than any version of the format, and what follows must lie in the first cluster.
        if !(104..=4096).contains(&length) || !length.is_multiple_of(8) {
            return Err(corrupt(
                100,
                format!("expected a header length of 104 to 4096, found {length}"),
            ));
        }
        let incompatible = be_u64(bytes, 72);
        check_incompatible(incompatible)?;
        let compression = match array_at::<1>(bytes, 104) {
            _ if incompatible & INCOMPATIBLE_COMPRESSION == 0 || length == 104 => {
                Compression::Deflate
            }
            [0] => Compression::Deflate,
            [1] => Compression::Zstd,
            [other] => {
                return Err(Error::unsupported(
                    "qcow2",
                    format!("compression type {other}"),
                ));
            }
        };
        Ok(Self {
            length: usize::try_from(length).unwrap_or(usize::MAX),
            extended_l2: incompatible & INCOMPATIBLE_EXTENDED_L2 != 0,
            compression,
        })
    }
}

/// "Dirty" is allowed: it says that refcounts may be wrong, which reading does not use.
fn check_incompatible(incompatible: u64) -> Result<()> {
    if incompatible & INCOMPATIBLE_CORRUPT != 0 {
        return Err(corrupt(
            72,
            "expected a sound image, found that it is marked as corrupt",
        ));
    }
    if incompatible & INCOMPATIBLE_DATA_FILE != 0 {
        return Err(Error::unsupported("qcow2", "an external data file"));
    }
    let known = INCOMPATIBLE_DIRTY | INCOMPATIBLE_COMPRESSION | INCOMPATIBLE_EXTENDED_L2;
    match incompatible & !known {
        0 => Ok(()),
        unknown => Err(Error::unsupported(
            "qcow2",
            format!("incompatible feature {:#x}", unknown),
        )),
    }
}

fn cluster_bits(bytes: &[u8], extended_l2: bool) -> Result<u32> {
    // An extended L2 entry divides a cluster in 32, and a part has at least 512 bytes.
    let smallest = if extended_l2 { 14 } else { 9 };
    match be_u32(bytes, 20) {
        bits if (smallest..=21).contains(&bits) => Ok(bits),
        bits => Err(corrupt(
            20,
            format!("expected cluster bits from {smallest} to 21, found {bits}"),
        )),
    }
}

fn backing_name(bytes: &[u8]) -> Result<Option<String>> {
    let (offset, length) = (be_u64(bytes, 8), be_u32(bytes, 16));
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    let name = (length <= BACKING_NAME_LIMIT_BYTES)
        .then(|| range(bytes, offset, u64::from(length)))
        .flatten()
        .ok_or_else(|| {
            corrupt(
                8,
                format!(
                    "expected the backing file's name in the first cluster, found it at byte \
                     {offset:#x}, {length} bytes long"
                ),
            )
        })?;
    match std::str::from_utf8(name) {
        Ok(name) => Ok(Some(name.to_owned())),
        Err(_) => Err(Error::unsupported(
            "qcow2",
            "a backing file whose name is not UTF-8",
        )),
    }
}

/// Walks the extensions; each advances by at least 8 bytes, so the walk ends.
fn backing_format(bytes: &[u8], header_length: usize) -> Result<Option<String>> {
    let mut at = header_length as u64;
    while range(bytes, at, 8).is_some() {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let (kind, length) = (be_u32(bytes, start), u64::from(be_u32(bytes, start + 4)));
        if kind == 0 {
            break;
        }
        let Some(value) = range(bytes, at + 8, length) else {
            return Err(corrupt(
                at,
                format!("expected an extension within the first cluster, found {length} bytes"),
            ));
        };
        if kind == EXTENSION_BACKING_FORMAT {
            return Ok(Some(String::from_utf8_lossy(value).into_owned()));
        }
        at += 8 + length.next_multiple_of(8);
    }
    Ok(None)
}

fn range(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(length)?).ok()?;
    bytes.get(start..end)
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

fn be_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, at))
}

fn corrupt(offset: u64, problem: impl Into<String>) -> Error {
    Error::corrupt("qcow2 header", offset, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, proptest};
    use rstest::rstest;

    /// A sound version 3 header of a disk of 1 MiB in clusters of 64 KiB, backing `base.raw`.
    fn sound() -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[..4].copy_from_slice(&MAGIC);
        put(&mut bytes, 4, &3_u32.to_be_bytes());
        put(&mut bytes, 8, &0x200_u64.to_be_bytes());
        put(&mut bytes, 16, &8_u32.to_be_bytes());
        put(&mut bytes, 20, &16_u32.to_be_bytes());
        put(&mut bytes, 24, &0x10_0000_u64.to_be_bytes());
        put(&mut bytes, 36, &1_u32.to_be_bytes());
        put(&mut bytes, 40, &0x3_0000_u64.to_be_bytes());
        put(&mut bytes, 96, &4_u32.to_be_bytes());
        put(&mut bytes, 100, &112_u32.to_be_bytes());
        put(&mut bytes, 112, &0x6803_f857_u32.to_be_bytes());
        put(&mut bytes, 116, &3_u32.to_be_bytes());
        put(&mut bytes, 128, &EXTENSION_BACKING_FORMAT.to_be_bytes());
        put(&mut bytes, 132, &3_u32.to_be_bytes());
        put(&mut bytes, 136, b"raw");
        put(&mut bytes, 0x200, b"base.raw");
        bytes
    }

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn a_sound_header_is_read() {
        let header = Header::from_bytes(&sound()).expect("it is sound");
        let expected = Header {
            version: 3,
            cluster_bits: 16,
            size_bytes: 1 << 20,
            l1_entries: 1,
            l1_offset: 0x3_0000,
            extended_l2: false,
            compression: Compression::Deflate,
            backing_name: Some("base.raw".to_owned()),
            backing_format: Some("raw".to_owned()),
        };
        assert_eq!(header, expected);
    }

    #[rstest]
    #[case::magic(0, &[0], "qcow2 header at byte 0x0: expected the magic `QFI\\xfb`, found none")]
    #[case::version(7, &[4], "qcow2: version 4 is not supported")]
    #[case::encryption(35, &[1], "qcow2: encryption is not supported")]
    #[case::corrupt_bit(79, &[2], "qcow2 header at byte 0x48: expected a sound image, found that it is marked as corrupt")]
    #[case::data_file(79, &[4], "qcow2: an external data file is not supported")]
    #[case::unknown_feature(79, &[0x40], "qcow2: incompatible feature 0x40 is not supported")]
    #[case::small_clusters(23, &[8], "qcow2 header at byte 0x14: expected cluster bits from 9 to 21, found 8")]
    #[case::large_clusters(23, &[22], "qcow2 header at byte 0x14: expected cluster bits from 9 to 21, found 22")]
    #[case::no_l1_entries(39, &[0], "qcow2 header at byte 0x24: expected at least 1 entries of the L1 table, found 0")]
    #[case::l1_in_header(45, &[0], "qcow2 header at byte 0x28: expected the L1 table at a cluster of its own, found byte 0x0")]
    #[case::l1_unaligned(47, &[1], "qcow2 header at byte 0x28: expected the L1 table at a cluster of its own, found byte 0x30001")]
    #[case::header_length(103, &[0], "qcow2 header at byte 0x64: expected a header length of 104 to 4096, found 0")]
    #[case::name_outside(12, &[1], "qcow2 header at byte 0x8: expected the backing file's name in the first cluster, found it at byte 0x1000200, 8 bytes long")]
    #[case::name_not_text(0x200, &[0xff], "qcow2: a backing file whose name is not UTF-8 is not supported")]
    #[case::long_extension(116, &[1], "qcow2 header at byte 0x70: expected an extension within the first cluster, found 16777219 bytes")]
    #[case::huge_disk(24, &[0xff], "qcow2 header at byte 0x18: expected a disk whose L1 table has at most 4194304 entries, found one of 18374686479672672256 bytes that needs 34225520641")]
    fn a_broken_header_says_where(#[case] at: usize, #[case] value: &[u8], #[case] text: &str) {
        let mut bytes = sound();
        put(&mut bytes, at, value);
        let error = Header::from_bytes(&bytes).expect_err("it is broken");
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_compression_type_counts_only_with_its_feature_bit() {
        let mut bytes = sound();
        bytes[104] = 1;
        let header = Header::from_bytes(&bytes).expect("the byte is not used");
        assert_eq!(header.compression, Compression::Deflate);
        bytes[79] = 1 << 3;
        let header = Header::from_bytes(&bytes).expect("zstd");
        assert_eq!(header.compression, Compression::Zstd);
        bytes[104] = 2;
        let error = Header::from_bytes(&bytes).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "qcow2: compression type 2 is not supported"
        );
    }

    #[test]
    fn extended_tables_need_clusters_that_can_be_divided() {
        let mut bytes = sound();
        bytes[79] = 1 << 4;
        assert!(Header::from_bytes(&bytes).expect("64 KiB").extended_l2);
        bytes[23] = 13;
        assert!(Header::from_bytes(&bytes).is_err());
    }

    #[test]
    fn a_short_header_is_an_error() {
        for length in [0, 3, 4, 71, 72, 103] {
            assert!(Header::from_bytes(&sound()[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(
            changes in prop::collection::vec((0..600_usize, any::<u8>()), 1..20),
        ) {
            let mut bytes = sound();
            for (at, value) in changes {
                bytes[at] = value;
            }
            if let Ok(header) = Header::from_bytes(&bytes) {
                assert!(header.l1_entries_needed() <= 4 << 20);
            }
        }
    }
}
