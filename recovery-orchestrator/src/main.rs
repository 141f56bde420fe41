// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `relevo`; everything it does is in the library, everything it says in `cli`.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives back what is freed, which matters beside a virtual machine; how it is set up is in
/// `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    cli::run()
}
