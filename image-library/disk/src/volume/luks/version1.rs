// SPDX-License-Identifier: MIT OR Apache-2.0
//! The header of version 1: 592 bytes at the start, big-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0, 6 | 6, 2 | magic `LUKS` 0xba 0xbe, version |
//! | 8, 40, 72 | 32 | cipher, its mode, hash |
//! | 104, 108 | 4 | where data begins (sectors), bytes of the volume key |
//! | 112, 132, 164 | 20, 32, 4 | digest of the volume key, its salt and iterations |
//! | 168 | 40 | UUID as text |
//! | 208 | 8 x 48 | slots: state, iterations, salt (32), where the key is (sectors), stripes |

use std::str::FromStr;
use std::sync::Arc;

use crate::block::WriteAt;
use crate::error::Result;
use crate::fields::{Fields, read_block, text};

use super::cipher::CipherSpec;
use super::derivation::Derivation;
use super::hash::Hash;
use super::{Area, Digest, Keyslot, Luks, Payload, corrupt};

pub(super) const MAGIC: &[u8] = b"LUKS\xba\xbe";
const HEADER_BYTES: usize = 592;
const SLOTS_OFFSET: usize = 208;
const SLOT_BYTES: usize = 48;
const SLOT_ENABLED: u32 = 0x00ac_71f3;
const SECTOR_BYTES: u64 = 512;

/// `None` where the device has no header of version 1.
pub(super) fn open(device: &Arc<dyn WriteAt>) -> Result<Option<Luks>> {
    let Some(bytes) = read_block(&**device, 0, HEADER_BYTES)? else {
        return Ok(None);
    };
    let header = Fields(&bytes);
    if header.bytes(0, 6) != MAGIC || header.u16_be(6) != 1 {
        return Ok(None);
    }
    let name = |offset| text(header.bytes(offset, 32)).unwrap_or_default();
    let cipher = format!("{}-{}", name(8), name(40));
    let hash = name(72);
    let key_bytes = header.u32_be(108);
    if key_bytes == 0 || key_bytes > 512 {
        return Err(corrupt(
            108,
            format!("expected a volume key, found one of {key_bytes} bytes"),
        ));
    }
    let offset = u64::from(header.u32_be(104)) * SECTOR_BYTES;
    let unsupported = CipherSpec::from_str(&cipher).err();
    Ok(Some(Luks {
        version: 1,
        uuid: text(header.bytes(168, 40)),
        label: None,
        keyslots: (0..8)
            .filter_map(|number| keyslot(header, number, &cipher, &hash))
            .collect(),
        cipher,
        key_bits: key_bytes * 8,
        sector_bytes: 512,
        tokens: Vec::new(),
        findings: Vec::new(),
        obstacle: match offset {
            0 => Some("a header without its device (detached)".to_owned()),
            _ => unsupported.map(super::metadata::feature_of),
        },
        payload: Payload {
            offset,
            length: None,
            iv_offset: 0,
        },
        device: Arc::clone(device),
    }))
}

fn keyslot(header: Fields<'_>, number: usize, cipher: &str, hash: &str) -> Option<Keyslot> {
    let slot = Fields(header.bytes(SLOTS_OFFSET + SLOT_BYTES * number, SLOT_BYTES));
    if slot.u32_be(0) != SLOT_ENABLED {
        return None;
    }
    let area = Hash::from_str(hash).and_then(|hash| {
        let key_bytes = header.u32_be(108) as usize;
        Ok(Area {
            derivation: Derivation::Pbkdf2 {
                hash,
                iterations: slot.u32_be(4),
                salt: slot.bytes(8, 32).to_vec(),
            },
            cipher: cipher.parse()?,
            area_key_bytes: key_bytes,
            offset: u64::from(slot.u32_be(40)) * SECTOR_BYTES,
            stripes: slot.u32_be(44) as usize,
            split_hash: hash,
            volume_key_bytes: key_bytes,
            digest: Digest {
                hash,
                salt: header.bytes(132, 32).to_vec(),
                iterations: header.u32_be(164),
                expected: header.bytes(112, 20).to_vec(),
            },
        })
    });
    Some(Keyslot {
        number: number as u32,
        derivation: format!("pbkdf2-{}", hash.to_ascii_lowercase()),
        area: area.map_err(super::metadata::feature_of),
    })
}
