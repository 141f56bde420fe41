// SPDX-License-Identifier: MIT OR Apache-2.0
//! The four checksums that a btrfs can be made with.
//!
//! A checksum stands in the first 32 bytes of a superblock or tree block and covers what follows them;
//! those of data are packed one after the other.
//!
//! Source: Linux, fs/btrfs/fs.c (`btrfs_csums`) and disk-io.c (`csum_tree_block`).

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest as _};
use sha2::{Digest as _, Sha256};
use twox_hash::XxHash64;

use super::SUPERBLOCK;
use crate::error::{Error, Result};

/// What a structure keeps free for its checksum, in bytes.
pub(super) const FIELD_BYTES: usize = 32;

/// Which checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c,
    Xxhash64,
    Sha256,
    Blake2b,
}

impl Checksum {
    pub(super) fn from_number(number: u16) -> Result<Self> {
        match number {
            0 => Ok(Self::Crc32c),
            1 => Ok(Self::Xxhash64),
            2 => Ok(Self::Sha256),
            3 => Ok(Self::Blake2b),
            other => Err(Error::unsupported(
                SUPERBLOCK,
                format!("checksum type {other}"),
            )),
        }
    }

    pub(super) const fn length(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Xxhash64 => 8,
            Self::Sha256 | Self::Blake2b => 32,
        }
    }

    /// Whether the first bytes of `stored` are the checksum of `bytes`.
    pub(super) fn matches(self, stored: &[u8], bytes: &[u8]) -> bool {
        let stored = stored.get(..self.length()).unwrap_or_default();
        match self {
            Self::Crc32c => stored == crc32c::crc32c(bytes).to_le_bytes(),
            Self::Xxhash64 => stored == XxHash64::oneshot(0, bytes).to_le_bytes(),
            Self::Sha256 => stored == Sha256::digest(bytes).as_slice(),
            Self::Blake2b => stored == Blake2b::<U32>::digest(bytes).as_slice(),
        }
    }

    /// Whether a superblock or tree block is what was written.
    pub(super) fn matches_structure(self, bytes: &[u8]) -> bool {
        match bytes.split_at_checked(FIELD_BYTES) {
            Some((stored, content)) => self.matches(stored, content),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Checksum;

    // The check values of each algorithm's own document.
    #[rstest]
    #[case(Checksum::Crc32c, "123456789", "839206e3")]
    #[case(Checksum::Xxhash64, "", "99e9d85137db46ef")]
    #[case(
        Checksum::Sha256,
        "abc",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )]
    #[case(
        Checksum::Blake2b,
        "",
        "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
    )]
    fn checksums_are_those_of_their_documents(
        #[case] checksum: Checksum,
        #[case] text: &str,
        #[case] hexadecimal: &str,
    ) {
        let stored: Vec<u8> = (0..hexadecimal.len() / 2)
            .map(|at| u8::from_str_radix(&hexadecimal[2 * at..2 * at + 2], 16).expect("two digits"))
            .collect();
        assert!(checksum.matches(&stored, text.as_bytes()));
        assert!(!checksum.matches(&stored, b"something else"));
        assert!(!checksum.matches(&stored[1..], text.as_bytes()));
    }
}
