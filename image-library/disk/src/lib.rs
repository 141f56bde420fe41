// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks, partitions and filesystems of servers: from bytes at an offset to files.
//!
//! The crate is a leaf: it knows no image, virtual machine or operating system, starts no process
//! and reads no network. What it is given may be hostile, so every parser is bounded and every
//! problem is an [`Error`] that names the structure and the byte where it stands.
//!
//! ```text
//! ReadAt (a disk file, an image, an overlay) -> partition::PartitionTable -> Slice -> Filesystem
//!                                                             \-> volume (LVM2, md, LUKS) -/
//! ```
#![forbid(unsafe_code)]

pub mod block;
mod error;
mod fields;
pub mod filesystem;
mod finding;
mod monitor;
pub mod partition;
pub mod volume;
mod worth_reading;

pub use block::{ReadAt, SectorSize, WriteAt};
pub use error::{Error, Result};
pub use finding::{Finding, Level};
pub use monitor::{Monitor, Recorder, Silent, Unit};
pub use worth_reading::{DiskToRead, worth_reading};
