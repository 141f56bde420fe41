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
        if !matches!(version, 2 | 3) {
            return Err(Error::unsupported("qcow2", format!("version {version}")));
        }
        let shortest = if version == 2 { 72 } else { 104 };
        if bytes.len() < shortest {
            return Err(corrupt(
                0,
                format!("expected {shortest} bytes, found {}", bytes.len()),
            ));
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
        if self.l1_offset % self.cluster_size() != 0 || (needed > 0 && self.l1_offset == 0) {
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
        if !(104..=4096).contains(&length) || length % 8 != 0 {
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
