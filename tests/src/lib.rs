// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole-path tests: sample servers, the harness, and the rules of the code base.
#![forbid(unsafe_code)]

pub mod tidy;
