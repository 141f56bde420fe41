// SPDX-License-Identifier: MIT OR Apache-2.0
//! FAT12, FAT16 and FAT32: which clusters are in use, and the tree of files.

mod allocation;
mod stream;
mod volume;

pub(crate) use allocation::used_extents;
pub(crate) use volume::FatVolume;
