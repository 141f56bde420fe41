// SPDX-License-Identifier: MIT OR Apache-2.0
//! Partition tables: MBR with logical partitions, GPT, or none at all.
