// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong while a server runs from the library: full disks, killed processes, damaged
//! chunks, a slow library. Each with a machine whose guest reads and writes all the time and tells of
//! every error.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod change_over;
mod full;
mod guest;
mod killed;
mod several;
mod site;
mod small_disk;
mod way;
