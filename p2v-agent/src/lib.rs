// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent on a physical server: inventory and snapshots into an image library.
//!
//! ```text
//! /sys /proc /etc /boot -> inventory -> MachineDescription -+
//! disks -> source -> snapshot (used extents, hashes) -------+-> library: image
//! ```
//!
//! Nothing on the server is changed; the agent's only files are in its state directory.
#![forbid(unsafe_code)]

pub mod check;
mod error;
pub mod inventory;
pub mod snapshot;
mod source;
mod usage;

pub use error::{Error, Result};
pub use source::InUse;
