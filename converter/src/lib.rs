// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the image of a physical server boot as a virtual machine.
//!
//! ```text
//! GuestDisk (image + overlay) -> inspect -> Inspection -> plan -> Plan -> apply -> Applied
//!                                                          `-> VmDefinition -> export
//! ```
//!
//! `inspect` reads, `plan` thinks, `apply` writes, `verify` reads again. Nothing of a guest is
//! ever executed.
#![forbid(unsafe_code)]

pub mod apply;
mod error;
pub mod export;
pub mod guest;
mod guest_disk;
pub mod inspect;
#[cfg(test)]
mod phony;
pub mod plan;
pub mod prepare;
mod secrets;
mod stack;
pub mod verify;
pub mod vm;

pub use error::{Error, Result};
pub use guest_disk::{GuestDisk, MeteredDisks};
pub use secrets::{Secret, Secrets};
pub use stack::GuestVolumes;
