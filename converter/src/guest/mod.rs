// SPDX-License-Identifier: MIT OR Apache-2.0
//! The formats inside a guest that conversion reads and writes: one module each, bytes in and
//! values out, no I/O.

pub mod compression;
pub mod cpio;
pub mod crypttab;
pub mod fstab;
pub mod grub_cfg;
pub mod initramfs;
pub mod kernel_cmdline;
pub mod kmod;
pub mod network;
#[cfg(test)]
mod samples;
pub mod shell_config;
mod table;
