// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel modules of a guest: which driver needs which, and the indexes that modprobe reads.
//!
//! ```text
//! modules.dep, .softdep, .alias, .builtin ─► ModuleIndex ─► closure(wanted) ─► load order
//!                 *.ko (ELF, .modinfo) ─► elf::ElfModule ─┐
//! ModuleIndex::facts ─────────────────────────────────────┴► ModuleFacts ─► depmod::generate
//! ```
//! What a kernel's own indexes say is read from them: a few hundred kilobytes instead of every
//! module. The ELF files are for modules that the indexes do not know.

pub mod blocked;
pub mod closure;
pub mod depmod;
pub mod elf;
#[cfg(test)]
pub(crate) mod elf_fixture;
pub mod kernel_config;
pub mod lists;
pub mod trie;
pub mod union;

use std::fmt;

pub use closure::{Closure, Closures, Presence};
pub use lists::{IndexFiles, ModuleIndex};
pub use union::Union;

/// Ends of a module's file name.
const SUFFIXES: [&str; 5] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst", ".ko.bz2"];

/// The name of a kernel module, with `_` where its file name may have `-`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct ModuleName(String);

impl ModuleName {
    /// A name as it is written anywhere: `virtio-pci` and `virtio_pci` are the same.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.replace('-', "_"))
    }

    /// The name in the path of a module's file; `None` for any other file.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let file = path.rsplit('/').next().unwrap_or(path);
        SUFFIXES
            .iter()
            .find_map(|suffix| file.strip_suffix(suffix))
            .filter(|stem| !stem.is_empty())
            // As kmod does: the name ends at the first point.
            .map(|stem| Self::new(stem.split('.').next().unwrap_or(stem)))
    }

    /// The name, normalised.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What the indexes say about one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFacts {
    /// Path of its file below `lib/modules/<version>`.
    pub path: String,
    /// Its name.
    pub name: ModuleName,
    /// Names and device patterns that it answers to.
    pub aliases: Vec<String>,
    /// Soft dependencies, as `pre: a b post: c`.
    pub softdeps: Vec<String>,
    /// Weak dependencies: names.
    pub weakdeps: Vec<String>,
    /// Symbols that it exports.
    pub exports: Vec<String>,
    /// Modules that it needs, directly or not.
    pub dependencies: Vec<ModuleName>,
}
