// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes into filesystems that only a Linux kernel writes well: XFS and btrfs.
//!
//! A small virtual machine runs a kernel of the guest with one static program, this one, as `/init`.
//! Nothing else of the guest runs, and the host's kernel never sees the filesystem.
//!
//! ```text
//! initramfs: /init (this program)  /order.json ([`Order`])  /modules/N.ko  /content/N
//! first serial port: the kernel's messages        second: one JSON object a line ([`Report`])
//! ```
//!
//! The library half is what both sides must agree on, and [`files`], which does the operations in a
//! directory; the converter makes the order and judges the reports.
//!
//! **Limits:** the C library and the standard library inside ask for Linux 3.2 or later.
#![forbid(unsafe_code)]

pub mod files;

use serde::{Deserialize, Serialize};

/// The oldest kernel that the program runs on.
pub const KERNEL_MIN: (u64, u64) = (3, 2);
/// Where the order is in the initramfs.
pub const ORDER: &str = "order.json";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The time of everything that is written, in seconds since 1970.
    pub now_unix_seconds: i64,
    /// Kernel modules as files of the initramfs, in the order in which they are loaded.
    pub modules: Vec<String>,
    /// The filesystems.
    pub mounts: Vec<Mount>,
    /// What is done in them, in this order; nothing after the first that fails.
    pub operations: Vec<Operation>,
}

/// A filesystem that is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Its devices; the first is the one that is mounted.
    pub devices: Vec<Device>,
    /// `xfs`, `btrfs`.
    pub filesystem: String,
    /// Mount options as the kernel takes them; may be empty.
    pub options: String,
}

/// A disk, by where it is: names depend on the order in which disks are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The PCI address of its controller: `0000:00:05.0`.
    pub pci: String,
    /// Which of that controller's disks.
    pub index: usize,
    /// Its size in bytes, which tells whether it is the right one.
    pub size_bytes: u64,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// In which filesystem: its place in [`Order::mounts`].
    pub mount: usize,
    /// The file, by its absolute path inside.
    pub path: String,
    /// What is done.
    pub action: Action,
}

/// What is done with a file; the methods of `disk::filesystem::WritableFilesystem`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// It is made, or gets another content.
    Write {
        /// The file of the initramfs that has the content.
        content: String,
        /// `None` keeps what it has; a new one is `0644 root:root`.
        attributes: Option<Attributes>,
    },
    /// More is written behind its end.
    Append {
        /// The file of the initramfs that has the content.
        content: String,
    },
    /// A directory is made.
    CreateDirectory {
        /// What it gets.
        attributes: Attributes,
    },
    /// A symbolic link is made.
    CreateSymlink {
        /// Where it leads.
        target: String,
    },
    /// It is removed.
    Remove,
    /// It gets another name, and what had that name is removed.
    Rename {
        /// The new name, an absolute path inside.
        to: String,
    },
}

/// Owner, permissions and security context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The `security.selinux` attribute, where there is to be one.
    pub selinux: Option<String>,
}

/// A line that the program writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// It runs.
    Started,
    /// A module could not be loaded; whether that matters shows when something is mounted.
    Module {
        /// Its file.
        path: String,
        /// What the kernel said.
        problem: String,
    },
    /// A filesystem is mounted.
    Mounted {
        /// Its place in the order.
        mount: usize,
    },
    /// A filesystem could not be mounted, or not be unmounted.
    MountFailed {
        /// Its place in the order.
        mount: usize,
        /// What the kernel said.
        problem: String,
    },
    /// An operation is done.
    Done {
        /// Its place in the order.
        operation: usize,
    },
    /// An operation could not be done; it is the last that was tried.
    Failed {
        /// Its place in the order.
        operation: usize,
        /// What the kernel said.
        problem: String,
    },
    /// The order itself could not be read, or the machine not be set up.
    Broken {
        /// What is wrong.
        problem: String,
    },
    /// All is done, on the disks, and unmounted.
    Finished,
}
