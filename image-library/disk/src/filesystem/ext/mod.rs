// SPDX-License-Identifier: MIT OR Apache-2.0
//! ext2, ext3 and ext4: reading, writing, and which blocks are in use.

mod allocation;
mod directory;
mod features;
#[cfg(test)]
mod fixtures;
mod group;
mod journal;
mod library;
mod mapped;
mod reader;
mod replayed;
mod writer;

pub(crate) use allocation::used_extents;
pub(crate) use writer::ExtWriter;

use std::sync::Arc;

use super::Filesystem;
use super::superblock::{self, ext::Superblock};
use crate::block::ReadAt;
use crate::error::{Error, Result};

/// Below this the reading library has no room for the fields that it wants.
const READER_INODE_BYTES_MIN: u64 = 256;

/// Opens for reading: through the more careful library, or, for what that refuses, the other.
pub(crate) fn open(
    device: Arc<dyn ReadAt>,
    superblock: &Superblock,
) -> Result<Box<dyn Filesystem>> {
    if superblock.needs_recovery() {
        let replayed: Arc<dyn ReadAt> = Arc::new(replayed::Replayed::new(device, superblock)?);
        return match superblock::ext::read(&*replayed)? {
            Some(superblock) => open_clean(replayed, &superblock),
            None => Err(Error::corrupt(
                STRUCTURE,
                superblock::ext::OFFSET,
                "its journal holds another",
            )),
        };
    }
    open_clean(device, superblock)
}

fn open_clean(device: Arc<dyn ReadAt>, superblock: &Superblock) -> Result<Box<dyn Filesystem>> {
    if superblock.inode_size >= READER_INODE_BYTES_MIN {
        match reader::ExtReader::open(Arc::clone(&device), superblock) {
            Err(Error::Unsupported { .. }) => {}
            opened => return Ok(Box::new(opened?)),
        }
    }
    Ok(Box::new(ExtWriter::open_for_reading(device, superblock)?))
}

const STRUCTURE: &str = "ext filesystem";
