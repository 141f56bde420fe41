// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modules that an initramfs has and those that it gets: what its new indexes are about.
//!
//! An index that is appended hides the one that was there, so it must know all modules. What the
//! guest's `/lib/modules/<version>` says of a module is taken first; a module that only the
//! initramfs knows (built for it, or since removed from the guest) is described by the
//! initramfs's own old indexes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Closure, ModuleFacts, ModuleIndex, ModuleName};

/// The modules of an initramfs, old and new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Union {
    /// All of them, for [`super::depmod::generate`].
    pub facts: Vec<ModuleFacts>,
    /// Those to add, in load order: path in the guest's `/lib/modules/<version>`, and path in the
    /// initramfs's. They are added unpacked: whatever loads them there may know no compression.
    pub added: Vec<Added>,
    /// Paths of modules that no index describes; read their files, or they will not be found.
    pub unknown: Vec<String>,
}

/// One module to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The module.
    pub name: ModuleName,
    /// Its file below `/lib/modules/<version>` of the guest, maybe compressed.
    pub source: String,
    /// Where it goes, below the same directory of the initramfs.
    pub target: String,
}

impl Union {
    /// What comes of modules that an initramfs has (`present`: paths below its
    /// `lib/modules/<version>`) and those of a closure.
    #[must_use]
    pub fn new(
        guest: &ModuleIndex,
        initramfs: &ModuleIndex,
        present: &[String],
        wanted: &Closure,
    ) -> Self {
        let mut union = Self::default();
        let mut names = BTreeSet::new();
        for path in present {
            let Some(name) = ModuleName::from_path(path) else {
                continue;
            };
            match guest.facts(&name).or_else(|| initramfs.facts(&name)) {
                Some(facts) => union.facts.push(ModuleFacts {
                    path: path.clone(),
                    ..facts.clone()
                }),
                None => union.unknown.push(path.clone()),
            }
            names.insert(name);
        }
        let new = wanted.modules.iter().filter(|name| !names.contains(*name));
        for facts in new.filter_map(|name| guest.facts(name)) {
            let target = uncompressed(&facts.path).to_owned();
            union.facts.push(ModuleFacts {
                path: target.clone(),
                ..facts.clone()
            });
            union.added.push(Added {
                name: facts.name.clone(),
                source: facts.path.clone(),
                target,
            });
        }
        union
    }

    /// Where each module is below `lib/modules/<version>` of the initramfs.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<&ModuleName, &str> {
        let facts = self.facts.iter();
        facts
            .map(|facts| (&facts.name, facts.path.as_str()))
            .collect()
    }
}

/// `kernel/a.ko` of `kernel/a.ko.xz`.
pub(super) fn uncompressed(path: &str) -> &str {
    path.rfind(".ko.").map_or(path, |end| &path[..end + 3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::kmod::IndexFiles;

    fn index(dep: &str, alias: &str) -> ModuleIndex {
        ModuleIndex::from_files(&IndexFiles {
            dep: dep.as_bytes(),
            alias: alias.as_bytes(),
            ..IndexFiles::default()
        })
    }

    #[test]
    fn present_modules_keep_their_paths_and_new_ones_are_unpacked() {
        let guest = index(
            "kernel/virtio.ko.xz:\nkernel/virtio_blk.ko.xz: kernel/virtio.ko.xz\nkernel/ahci.ko.xz:\n",
            "alias pci:ahci ahci\n",
        );
        let initramfs = index(
            "kernel/raid.ko:\nkernel/ahci.ko:\n",
            "alias pci:raid raid\n",
        );
        let present = [
            "kernel/ahci.ko",
            "kernel/raid.ko",
            "kernel/odd.ko",
            "firmware/x.bin",
        ];
        let closure = guest.closure(&[ModuleName::new("virtio_blk"), ModuleName::new("ahci")]);
        let union = Union::new(&guest, &initramfs, &present.map(str::to_owned), &closure);
        let facts: Vec<(&str, usize)> = union
            .facts
            .iter()
            .map(|facts| (facts.path.as_str(), facts.aliases.len()))
            .collect();
        assert_eq!(
            facts,
            [
                ("kernel/ahci.ko", 1),
                ("kernel/raid.ko", 1),
                ("kernel/virtio.ko", 0),
                ("kernel/virtio_blk.ko", 0),
            ]
        );
        assert_eq!(union.unknown, ["kernel/odd.ko"]);
        let sources: Vec<&str> = union
            .added
            .iter()
            .map(|added| added.source.as_str())
            .collect();
        assert_eq!(sources, ["kernel/virtio.ko.xz", "kernel/virtio_blk.ko.xz"]);
    }
}
