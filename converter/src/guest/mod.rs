// SPDX-License-Identifier: MIT OR Apache-2.0
//! The formats inside a guest that conversion reads and writes: one module each, bytes in and
//! values out, no I/O.

pub mod bls;
pub mod boot_configuration;
pub mod boot_csv;
pub mod boot_header;
pub mod boot_sector;
pub mod compression;
pub mod cpio;
pub mod crypttab;
pub mod fstab;
pub mod grub_cfg;
pub mod grub_legacy;
pub mod grub_menu;
pub mod grubenv;
pub mod initramfs;
pub mod kernel_cmdline;
pub mod kmod;
pub mod lilo;
mod little_endian;
pub mod loader_conf;
pub mod lvm_conf;
pub mod mdadm_conf;
pub mod modprobe_conf;
pub mod multipath_conf;
pub mod network;
#[cfg(test)]
pub(crate) mod samples;
pub mod shell_config;
pub mod syslinux;
mod table;
pub mod uki;
pub mod version_order;
pub mod vmlinux;
