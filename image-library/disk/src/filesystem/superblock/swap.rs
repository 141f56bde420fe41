// SPDX-License-Identifier: MIT OR Apache-2.0
//! Swap space: a header in the first page, its signature in the page's last ten bytes.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 1024 | 4 | version, 1; in the byte order of the machine that made it |
//! | 1028 | 4 | last page |
//! | 1036 | 16 | UUID |
//! | 1052 | 16 | label |
//! | page size - 10 | 10 | `SWAPSPACE2`, `SWAP-SPACE` (version 0), or a hibernation signature |
//!
//! The page size is the one of the kernel that ran `mkswap`: 4 to 64 KiB. A hibernated system
//! replaces the signature and keeps the header, so its swap still has a UUID.

use std::ops::Range;

use crate::block::ReadAt;
use crate::error::Result;
use crate::fields::{Fields, read_block, text, uuid};
use crate::filesystem::{FilesystemKind, Identity};

const PAGE_SIZES_BYTES: [u64; 5] = [4096, 8192, 16384, 32768, 65536];
const SIGNATURE_BYTES: u64 = 10;

/// What the signature says the space is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Version0,
    Version1,
    Hibernation,
}

/// The header of a swap space.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    page_size_bytes: u64,
    purpose: Use,
    last_page: u32,
    uuid: Option<String>,
    label: Option<String>,
}

pub(crate) fn detect(device: &dyn ReadAt) -> Result<Option<Identity>> {
    let Some(header) = read_header(device)? else {
        return Ok(None);
    };
    let pages = u64::from(header.last_page).saturating_add(1);
    Ok(Some(Identity {
        kind: FilesystemKind::Swap,
        size_bytes: Some((pages * header.page_size_bytes).min(device.length_bytes())),
        uuid: header.uuid,
        label: header.label,
    }))
}

/// The pages worth keeping: the header. `None` when a hibernated system is stored inside.
pub(crate) fn used_extents(device: &dyn ReadAt) -> Result<Option<Vec<Range<u64>>>> {
    Ok(match read_header(device)? {
        Some(header) if header.purpose != Use::Hibernation => {
            let kept = header.page_size_bytes.min(device.length_bytes());
            Some(std::iter::once(0..kept).collect())
        }
        Some(_) | None => None,
    })
}

fn read_header(device: &dyn ReadAt) -> Result<Option<Header>> {
    for page_size in PAGE_SIZES_BYTES {
        let length = SIGNATURE_BYTES as usize;
        let Some(signature) = read_block(device, page_size - SIGNATURE_BYTES, length)? else {
            return Ok(None);
        };
        let Some(purpose) = purpose(&signature) else {
            continue;
        };
        let Some(bytes) = read_block(device, 1024, 44)? else {
            return Ok(None);
        };
        return Ok(Some(from_bytes(&bytes, purpose, page_size)));
    }
    Ok(None)
}

fn purpose(signature: &[u8]) -> Option<Use> {
    match signature {
        b"SWAPSPACE2" => Some(Use::Version1),
        b"SWAP-SPACE" => Some(Use::Version0),
        _ => [&b"S1SUSPEND"[..], b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"]
            .iter()
            .any(|known| signature.starts_with(known))
            .then_some(Use::Hibernation),
    }
}

fn from_bytes(bytes: &[u8], purpose: Use, page_size_bytes: u64) -> Header {
    let fields = Fields(bytes);
    let named = purpose != Use::Version0;
    let last_page = match fields.u32(0) {
        1 => fields.u32(4),
        _ => fields.u32_be(4),
    };
    Header {
        page_size_bytes,
        purpose,
        last_page,
        uuid: named.then(|| uuid(fields.bytes(12, 16))).flatten(),
        label: named.then(|| text(fields.bytes(28, 16))).flatten(),
    }
}
