// SPDX-License-Identifier: MIT OR Apache-2.0
//! relevo: runs runbooks, drills and recovered machines.
#![forbid(unsafe_code)]
