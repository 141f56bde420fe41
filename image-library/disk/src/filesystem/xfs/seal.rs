// SPDX-License-Identifier: MIT OR Apache-2.0
//! What proves a block of metadata of version 5: checksum, own address, owner, UUID.
//!
//! Every kind of block has these at its own places; the magic at its start, or that of a hash tree
//! at byte 8, tells the kind. Facts: Linux, `fs/xfs/libxfs/xfs_format.h`, `xfs_da_format.h`; which
//! sequence numbers count in a replay: `fs/xfs/xfs_buf_item_recover.c`.

use super::super::superblock::xfs::{Superblock, checksum};
use crate::error::{Error, Result};
use crate::fields::Fields;

/// Where a kind of block keeps its proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    checksum: usize,
    /// The log sequence number of the last write.
    sequence: usize,
    uuid: usize,
    /// The address, in units of 512 bytes.
    address: Option<usize>,
    /// The inode that it belongs to.
    owner: Option<usize>,
}

const fn seal(checksum: usize, sequence: usize, uuid: usize) -> Seal {
    Seal {
        checksum,
        sequence,
        uuid,
        address: None,
        owner: None,
    }
}

const fn placed(seal: Seal, address: usize, owner: Option<usize>) -> Seal {
    Seal {
        address: Some(address),
        owner,
        ..seal
    }
}

const SUPERBLOCK: Seal = seal(224, 240, 32);
const GROUP_FREE: Seal = seal(216, 208, 64);
const GROUP_INODES: Seal = seal(312, 320, 296);
const GROUP_FREE_LIST: Seal = seal(32, 24, 8);
const SHORT_TREE: Seal = placed(seal(52, 24, 32), 16, None);
/// Its owner may be another inode for a while: the kernel does not compare it either.
const LONG_TREE: Seal = placed(seal(64, 32, 40), 24, None);
const DIRECTORY: Seal = placed(seal(4, 16, 24), 8, Some(40));
const HASH_TREE: Seal = placed(seal(12, 24, 32), 16, Some(48));
/// A symbolic link's target, or a large attribute's value.
const REMOTE: Seal = placed(seal(12, 48, 16), 40, Some(32));

impl Seal {
    /// The seal of a block, by its magic.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes);
        Some(match fields.bytes(0, 4) {
            b"XFSB" => SUPERBLOCK,
            b"XAGF" => GROUP_FREE,
            b"XAGI" => GROUP_INODES,
            b"XAFL" => GROUP_FREE_LIST,
            b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC" => SHORT_TREE,
            b"BMA3" => LONG_TREE,
            b"XDB3" | b"XDD3" | b"XDF3" => DIRECTORY,
            b"XSLM" | b"XARM" => REMOTE,
            _ => match fields.u16_be(8) {
                0x3df1 | 0x3dff | 0x3ebe | 0x3bee => HASH_TREE,
                _ => return None,
            },
        })
    }

    /// The sequence number of the last write, where it can be trusted to order writes.
    pub(super) fn sequence_of(bytes: &[u8], superblock: &Superblock) -> Option<u64> {
        // A large value is written without the log; its number says nothing.
        if !superblock.has_checksums || bytes.starts_with(b"XARM") {
            return None;
        }
        let seal = Self::of(bytes)?;
        let fields = Fields(bytes);
        let same = seal == SUPERBLOCK || fields.bytes(seal.uuid, 16) == superblock.metadata_uuid;
        same.then(|| fields.u64_be(seal.sequence))
    }

    /// Compares all that the block says about itself.
    pub(super) fn check(
        structure: &'static str,
        bytes: &[u8],
        offset: u64,
        owner: Option<u64>,
        superblock: &Superblock,
    ) -> Result<()> {
        let broken = |problem: String| Err(Error::corrupt(structure, offset, problem));
        let Some(seal) = Self::of(bytes) else {
            return broken("expected a magic of version 5, found none".to_owned());
        };
        let fields = Fields(bytes);
        let (expected, found) = (checksum(bytes, seal.checksum), fields.u32(seal.checksum));
        if expected != found {
            return broken(format!(
                "expected checksum {expected:#010x}, found {found:#010x}"
            ));
        }
        if fields.bytes(seal.uuid, 16) != superblock.metadata_uuid {
            return broken("expected this filesystem's UUID, found another".to_owned());
        }
        if let Some(found) = seal.address.map(|at| fields.u64_be(at))
            && found != offset / 512
        {
            return broken(format!("it says that it is sector {found:#x}"));
        }
        match (owner, seal.owner.map(|at| fields.u64_be(at))) {
            (Some(expected), Some(found)) if expected != found => {
                broken(format!("expected owner {expected}, found {found}"))
            }
            _ => Ok(()),
        }
    }
}
