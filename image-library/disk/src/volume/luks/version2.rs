// SPDX-License-Identifier: MIT OR Apache-2.0
//! The headers of version 2: two copies of 4 KiB, big-endian, each followed by its JSON.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0, 6 | 6, 2 | magic `LUKS` or, in the second copy, `SKUL`, 0xba 0xbe; version |
//! | 8, 16 | 8 | size with the JSON, sequence number |
//! | 24, 168 | 48, 40 | label, UUID as text |
//! | 72, 448 | 32, 64 | name of the checksum, checksum of all with itself as zeros |
//! | 256 | 8 | where this copy is |
//!
//! The copy with the higher sequence number counts, of those whose checksum is right. The second
//! one begins where the first one ends, which is one of a few sizes.

use std::str::FromStr;
use std::sync::Arc;

use crate::block::WriteAt;
use crate::error::Result;
use crate::fields::{Fields, read_block, text};
use crate::finding::{Finding, Level};

use super::hash::Hash;
use super::{Luks, corrupt, metadata, version1};

const SECOND_MAGIC: &[u8] = b"SKUL\xba\xbe";
const BINARY_BYTES: usize = 4096;
const CHECKSUM_OFFSET: usize = 448;
/// All sizes that a header can have.
const SIZES: [u64; 9] = [
    0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000,
];

/// A copy whose checksum is right.
struct Header {
    bytes: Vec<u8>,
    sequence: u64,
}

/// The device's header; an error where neither copy is sound.
pub(super) fn open(device: &Arc<dyn WriteAt>) -> Result<Luks> {
    let first = header(device, 0, version1::MAGIC);
    let mut second = None;
    for offset in SIZES {
        if let Ok(found) = header(device, offset, SECOND_MAGIC) {
            second = Some(found);
            break;
        }
    }
    let (header, problem) = match (first, second) {
        (Ok(first), Some(second)) if second.sequence > first.sequence => (
            second,
            Some("the first header is older than the second one"),
        ),
        (Ok(first), Some(second)) if second.sequence < first.sequence => {
            (first, Some("the second header is older than the first one"))
        }
        (Ok(first), Some(_)) => (first, None),
        (Ok(first), None) => (first, Some("the second header is damaged")),
        (Err(_), Some(second)) => (second, Some("the first header is damaged")),
        (Err(error), None) => return Err(error),
    };
    let fields = Fields(&header.bytes);
    let json = header.bytes.get(BINARY_BYTES..).unwrap_or(&[]);
    let mut luks = metadata::read(json, device)?;
    luks.uuid = text(fields.bytes(168, 40));
    luks.label = text(fields.bytes(24, 48));
    luks.findings.extend(problem.map(|problem| Finding {
        level: Level::Warning,
        code: "storage.luks.header".to_owned(),
        place: luks.uuid.clone().unwrap_or_default(),
        problem: problem.to_owned(),
        remedy: Some("cryptsetup repair DEVICE on the server".to_owned()),
    }));
    Ok(luks)
}

fn header(device: &Arc<dyn WriteAt>, offset: u64, magic: &[u8]) -> Result<Header> {
    let missing = || corrupt(offset, "expected a header of LUKS");
    let binary = read_block(&**device, offset, BINARY_BYTES)?.ok_or_else(missing)?;
    let fields = Fields(&binary);
    if fields.bytes(0, 6) != magic {
        return Err(missing());
    }
    if fields.u16_be(6) != 2 {
        let problem = format!("expected version 1 or 2, found {}", fields.u16_be(6));
        return Err(corrupt(offset, problem));
    }
    let size = fields.u64_be(8);
    if !SIZES.contains(&size) || fields.u64_be(256) != offset {
        let problem = format!(
            "expected a header of this place, found one of {size} bytes at byte {:#x}",
            fields.u64_be(256)
        );
        return Err(corrupt(offset, problem));
    }
    let mut bytes = read_block(&**device, offset, size as usize)?.ok_or_else(missing)?;
    let hash = Hash::from_str(&text(fields.bytes(72, 32)).unwrap_or_default())?;
    bytes[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 64].fill(0);
    let sum = hash.digest(&bytes);
    if fields.bytes(CHECKSUM_OFFSET, sum.len()) != sum {
        return Err(corrupt(offset, "expected another checksum"));
    }
    Ok(Header {
        bytes,
        sequence: fields.u64_be(16),
    })
}
