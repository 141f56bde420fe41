// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `relevo`; everything it does is in the library, everything it says in `cli`.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
