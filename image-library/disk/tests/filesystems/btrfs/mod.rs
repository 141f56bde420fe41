// SPDX-License-Identifier: MIT OR Apache-2.0
//! btrfs: what a kernel wrote, what `mkfs.btrfs` makes, and what is damaged.

mod fixture;
mod hostile;
mod kernel;
mod space;
mod tools;
