// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was found of a guest's kernels: drivers, modules, initramfs.

use disk::filesystem::FilesystemKind;
use serde::{Deserialize, Serialize};

use crate::guest::compression::Compression;
use crate::guest::initramfs::Generator;
use crate::inspect::FilePlace;
use crate::vm::DiskController;

/// Where a kernel has a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverPlace {
    /// Built into the kernel.
    BuiltIn,
    /// A module that is inside the initramfs.
    InInitramfs,
    /// A module of the root filesystem only.
    Module,
    /// Nowhere.
    Absent,
}

/// A driver of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverFacts {
    /// The module's name (`virtio_blk`).
    pub name: String,
    /// Where it is.
    pub place: DriverPlace,
}

/// A module that a driver needs, itself included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleFacts {
    /// The module's name.
    pub name: String,
    /// Its path below `/lib/modules/<version>/`, as it is (`kernel/.../virtio_blk.ko.xz`).
    pub path: String,
    /// Where the file is.
    pub file: FilePlace,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// Whether it is inside the initramfs already.
    pub in_initramfs: bool,
}

/// A kernel with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The release (`6.1.0-28-amd64`).
    pub version: String,
    /// `/boot/vmlinuz-<version>`, or what it is called on this system.
    pub image: FilePlace,
    /// `/lib/modules/<version>` as a place.
    pub modules: Option<FilePlace>,
    /// Its initramfs.
    pub initramfs: Option<InitramfsFacts>,
    /// The path of an initramfs that is there and cannot be read.
    #[serde(default)]
    pub unreadable_initramfs: Option<String>,
    /// The drivers that virtual hardware needs.
    pub drivers: Vec<DriverFacts>,
    /// What those drivers need that are modules, dependencies before dependants.
    pub closure: Vec<ModuleFacts>,
    /// What it can write; only looked for where a guest has filesystems that nothing else writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writing: Option<WritingFacts>,
}

/// How a kernel writes filesystems in the small virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WritingFacts {
    /// Whether it is a 64-bit kernel of x86; `None` where that is not known.
    pub is_64_bit: Option<bool>,
    /// The disks that it reads and writes; `None`: none of those that we can give it.
    pub controller: Option<DiskController>,
    /// The filesystems that it knows, of those that the guest has.
    pub filesystems: Vec<FilesystemKind>,
    /// The modules for both, in load order.
    pub modules: Vec<ModuleFacts>,
}

impl Kernel {
    /// Where it has a driver.
    #[must_use]
    pub fn driver(&self, name: &str) -> DriverPlace {
        self.drivers
            .iter()
            .find(|driver| driver.name == name)
            .map_or(DriverPlace::Absent, |driver| driver.place)
    }
}

/// An initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitramfsFacts {
    /// Where it is.
    pub file: FilePlace,
    /// Size in bytes.
    pub size_bytes: u64,
    /// BLAKE3 of the file, in hexadecimal.
    pub hash: String,
    /// How its last archive, the main one, is compressed.
    pub compression: Compression,
    /// What built it.
    pub generator: Generator,
    /// How many modules of its kernel are inside.
    pub module_count: usize,
    /// Small configuration files inside that a plan may override: path without leading slash,
    /// and content.
    pub files: Vec<InnerFile>,
    /// Links inside that make systemd wait for a device.
    #[serde(default)]
    pub waits: Vec<String>,
    /// Whether a signature of the file is beside it.
    #[serde(default)]
    pub signed: bool,
}

impl InitramfsFacts {
    /// A configuration file inside, by its path without leading slash.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&InnerFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// A text file inside an initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerFile {
    /// Its path inside, without leading slash.
    pub path: String,
    /// Its content.
    pub text: String,
}
