// SPDX-License-Identifier: MIT OR Apache-2.0
//! LVM2: volume groups on devices, and their logical volumes as devices, without root and without a
//! kernel.
//!
//! ```text
//! candidates -> label -> area -> config -> metadata, segment -> scan -> group -> open -> a device
//!                                                               raid, thin, snapshot -/
//! ```
//!
//! | volume | read | written |
//! |---|---|---|
//! | linear, striped, zero | yes | yes |
//! | mirror, raid1, raid10 | from a leg that is in sync | to every leg; refused without one that no record calls lost |
//! | raid0 | yes | yes |
//! | raid4, raid5, raid6 | also without as many legs as it has parity | with parity; refused without a leg |
//! | thin | yes; holes are told | where it has blocks of its own, and zeros in holes |
//! | snapshot, and its origin | yes | yes: the snapshot's store is kept right |
//! | cache, writecache, vdo, integrity | refused | refused |
//! | a RAID being reshaped, a snapshot being merged | refused | refused |
//!
//! Metadata is only read: writing to a volume changes no label, metadata area or RAID superblock.

mod area;
mod checksum;
pub mod config;
mod group;
mod label;
mod metadata;
mod open;
mod raid;
#[cfg(test)]
pub(crate) mod sample;
mod scan;
mod segment;
mod snapshot;
#[cfg(test)]
mod tests;
mod thin;
mod used;

pub use group::{LogicalVolume, LogicalVolumeKind, PhysicalVolume, VolumeGroup};
pub use scan::{Scan, scan};
