// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library`: serves and administers a library.
fn main() {}
