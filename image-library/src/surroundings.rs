// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a library takes from the machine besides its store and its clock. Programs that people run
//! have [`Machine`]; a simulation gives its own, so that a run can be replayed and packs are small
//! enough for many of them to be in play.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::crypto::random_bytes;
use crate::error::Result;
use crate::pack::PACK_LENGTH_TARGET;

/// Randomness, durability, and how packs are cut.
pub(crate) trait Surroundings: Debug + Send + Sync {
    /// Random bytes for the header of a pack or document.
    fn salt(&self) -> Result<[u8; 32]>;

    /// Returns when the bytes of a file are durable.
    fn sync(&self, file: &File, path: &Path) -> io::Result<()>;

    /// A pack is finished once it has so many bytes.
    fn pack_length(&self) -> u64;

    /// Whether a pack is made durable while the next one fills.
    fn packs_overlap(&self) -> bool;
}

/// The machine that the program runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine;

impl Surroundings for Machine {
    fn salt(&self) -> Result<[u8; 32]> {
        random_bytes()
    }

    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_all()
    }

    fn pack_length(&self) -> u64 {
        u64::from(PACK_LENGTH_TARGET)
    }

    fn packs_overlap(&self) -> bool {
        true
    }
}
