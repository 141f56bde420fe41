// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent on a physical server: inventory and snapshots into an image library.
