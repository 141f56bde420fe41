// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program; everything it does is in the library.
fn main() {}
