// SPDX-License-Identifier: MIT OR Apache-2.0
//! relevo: runs runbooks, drills and recovered machines.
//!
//! ```text
//! Runbook -> images -> guests (prepared overlays) -> platform (virtual machines) -> checks -> Report
//!                              `------------ journal: what runs, so that nothing is left running
//! ```
//!
//! Only [`platform`] starts virtual machines. Nothing here prints: the program's command-line
//! modules do. Time comes in as a parameter where a result depends on it.
#![forbid(unsafe_code)]

pub mod boot;
pub mod browse;
pub mod cache;
pub mod capacity;
pub mod check;
pub mod config;
pub mod drill;
mod error;
pub mod export;
mod file;
pub mod guest;
pub mod hosted;
pub mod interrupt;
pub mod journal;
pub mod keeper;
pub mod keys;
pub mod nbd;
pub mod network;
pub mod platform;
mod process;
pub mod readiness;
pub mod report;
pub mod runbook;
pub mod select;
pub mod state;

pub use error::{Error, Result};
pub use process::Lifetime;
