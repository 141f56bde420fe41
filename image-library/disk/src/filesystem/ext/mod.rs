// SPDX-License-Identifier: MIT OR Apache-2.0
//! ext2, ext3 and ext4: reading, writing, and which blocks are in use.

mod allocation;
mod group;
mod journal;
mod mapped;
mod reader;
mod writer;

pub(crate) use allocation::used_extents;
pub(crate) use reader::ExtReader;
pub(crate) use writer::ExtWriter;

const STRUCTURE: &str = "ext filesystem";
