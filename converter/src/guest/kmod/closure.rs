// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which modules are needed for some drivers, and in which order they are loaded.
//!
//! Hard dependencies come from modules.dep. Soft ones (`pre:`, `post:`) are not in it, and matter
//! as much: without crc32c, libcrc32c loads but no XFS is mounted. A soft dependency may name a
//! module or an alias that several modules answer to; all of them are taken, as modprobe does.
//! A soft dependency that nothing answers to is no error, a hard one is.

use std::collections::{BTreeMap, BTreeSet};

use super::lists::ModuleIndex;
use super::{ModuleFacts, ModuleName};

/// Where a driver is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Linked into the kernel: nothing to load.
    Builtin,
    /// In a module file.
    Module,
    /// In neither.
    Absent,
}

/// All that is needed for some drivers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// The modules to load, in the order that satisfies all dependencies.
    pub modules: Vec<ModuleName>,
    /// Which of the wanted ones are linked into the kernel.
    pub builtin: Vec<ModuleName>,
    /// Which of the wanted ones do not exist.
    pub absent: Vec<ModuleName>,
    /// Hard dependencies that have no file: whoever needs them, and what is missing.
    pub broken: Vec<(ModuleName, ModuleName)>,
}

impl ModuleIndex {
    /// Where a driver is.
    #[must_use]
    pub fn presence(&self, name: &ModuleName) -> Presence {
        if self.facts(name).is_some() {
            Presence::Module
        } else if self.is_builtin(name) {
            Presence::Builtin
        } else {
            Presence::Absent
        }
    }

    /// The modules that some drivers need, themselves included, in load order.
    #[must_use]
    pub fn closure(&self, wanted: &[ModuleName]) -> Closure {
        Closures::new(self).of(wanted)
    }

    /// The modules that answer to a name or an alias.
    #[must_use]
    pub fn lookup(&self, alias: &str) -> Vec<ModuleName> {
        let name = ModuleName::new(alias);
        if self.facts(&name).is_some() {
            return vec![name];
        }
        self.modules()
            .filter(|facts| {
                let mut patterns = facts.aliases.iter();
                patterns.any(|pattern| matches_pattern(pattern, alias))
            })
            .map(|facts| facts.name.clone())
            .collect()
    }
}

/// Several closures of one index: a kernel's list of aliases is long, and gone through once for each
/// soft dependency, however many drivers have it.
#[derive(Debug)]
pub struct Closures<'a> {
    index: &'a ModuleIndex,
    answers: BTreeMap<String, Vec<ModuleName>>,
}

impl<'a> Closures<'a> {
    /// Those of an index.
    #[must_use]
    pub const fn new(index: &'a ModuleIndex) -> Self {
        Self {
            index,
            answers: BTreeMap::new(),
        }
    }

    /// The same as [`ModuleIndex::closure`].
    pub fn of(&mut self, wanted: &[ModuleName]) -> Closure {
        let mut closure = Closure::default();
        let mut walk = Walk {
            index: self.index,
            answers: &mut self.answers,
            seen: BTreeSet::new(),
            tasks: Vec::new(),
        };
        for name in wanted {
            match self.index.presence(name) {
                Presence::Builtin => closure.builtin.push(name.clone()),
                Presence::Absent => closure.absent.push(name.clone()),
                Presence::Module => walk.load(name, &mut closure),
            }
        }
        closure
    }
}

enum Task {
    Visit(ModuleName),
    Done(ModuleName),
}

/// A walk in depth without recursion: a guest's indexes may hold a chain of any length.
struct Walk<'a> {
    index: &'a ModuleIndex,
    answers: &'a mut BTreeMap<String, Vec<ModuleName>>,
    seen: BTreeSet<ModuleName>,
    tasks: Vec<Task>,
}

impl Walk<'_> {
    fn load(&mut self, name: &ModuleName, closure: &mut Closure) {
        self.tasks.push(Task::Visit(name.clone()));
        while let Some(task) = self.tasks.pop() {
            match task {
                Task::Done(name) => closure.modules.push(name),
                Task::Visit(name) => self.visit(&name, closure),
            }
        }
    }

    fn visit(&mut self, name: &ModuleName, closure: &mut Closure) {
        let Some(facts) = self.index.facts(name) else {
            return;
        };
        if !self.seen.insert(name.clone()) {
            return;
        }
        let soft = SoftDependencies::of(facts);
        // Tasks are taken from the end: what is pushed first is done last.
        self.push_soft(&soft.post);
        self.tasks.push(Task::Done(name.clone()));
        for needed in &facts.dependencies {
            if self.index.presence(needed) == Presence::Absent {
                closure.broken.push((name.clone(), needed.clone()));
            }
            self.tasks.push(Task::Visit(needed.clone()));
        }
        self.push_soft(&soft.pre);
    }

    fn push_soft(&mut self, names: &[String]) {
        for name in names.iter().rev() {
            if !self.answers.contains_key(name) {
                self.answers.insert(name.clone(), self.index.lookup(name));
            }
            let modules = self.answers.get(name).into_iter().flatten();
            let visits = modules.rev().cloned().map(Task::Visit);
            self.tasks.extend(visits);
        }
    }
}

/// The two lists of a module's soft dependencies.
#[derive(Debug, Default)]
struct SoftDependencies {
    pre: Vec<String>,
    post: Vec<String>,
}

impl SoftDependencies {
    fn of(facts: &ModuleFacts) -> Self {
        let mut soft = Self::default();
        for text in &facts.softdeps {
            let mut list = None;
            for word in text.split_whitespace() {
                match word {
                    "pre:" => list = Some(&mut soft.pre),
                    "post:" => list = Some(&mut soft.post),
                    name => {
                        if let Some(list) = &mut list {
                            list.push(name.to_owned());
                        }
                    }
                }
            }
        }
        soft
    }
}

/// Shell pattern with `*`, `?` and `[..]`, as in modules.alias; `-` and `_` are the same.
#[must_use]
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    // Without copies: a kernel has tens of thousands of patterns, and hardly any has the first byte.
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at_pattern, mut at_text) = (0, 0);
    // Where to go on after the last `*`: behind it, with one more byte of text given to it.
    let mut retry: Option<(usize, usize)> = None;
    while at_text < text.len() {
        if pattern.get(at_pattern) == Some(&b'*') {
            at_pattern += 1;
            retry = Some((at_pattern, at_text));
        } else if let Some(length) = matches_one(&pattern[at_pattern..], same_dash(text[at_text])) {
            at_pattern += length;
            at_text += 1;
        } else if let Some((after_star, start)) = retry {
            at_pattern = after_star;
            at_text = start + 1;
            retry = Some((after_star, at_text));
        } else {
            return false;
        }
    }
    pattern[at_pattern..].iter().all(|byte| *byte == b'*')
}

fn same_dash(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

/// How many bytes of the pattern match this one byte.
fn matches_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().position(|byte| *byte == b']')?;
            in_set(&pattern[1..end], byte).then_some(end + 1)
        }
        literal => (same_dash(literal) == byte).then_some(1),
    }
}

/// True where a byte is in a set as `a-f0`.
fn in_set(set: &[u8], byte: u8) -> bool {
    let mut rest = set;
    while let Some((&first, tail)) = rest.split_first() {
        if let [b'-', last, after @ ..] = tail {
            if (first..=*last).contains(&byte) {
                return true;
            }
            rest = after;
        } else if first == byte {
            return true;
        } else {
            rest = tail;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::kmod::lists::IndexFiles;

    fn index() -> ModuleIndex {
        ModuleIndex::from_files(&IndexFiles {
            dep: b"kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/lib/libcrc32c.ko:
kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko
kernel/crypto/crc32c_generic.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/lost.ko: kernel/gone.ko
kernel/a.ko:
kernel/b.ko:
",
            alias: b"# Aliases\nalias crc32c crc32c_intel\nalias crc32c crc32c_generic\n",
            softdep: b"softdep libcrc32c pre: crc32c\nsoftdep a pre: b post: virtio nothing\nsoftdep b pre: a\n",
            builtin: b"kernel/drivers/scsi/sd_mod.ko\n",
            ..IndexFiles::default()
        })
    }

    fn names(texts: &[&str]) -> Vec<ModuleName> {
        texts.iter().map(|text| ModuleName::new(text)).collect()
    }

    #[test]
    fn what_is_needed_comes_first_and_only_once() {
        let closure = index().closure(&names(&[
            "virtio-pci",
            "virtio_blk",
            "sd_mod",
            "virtio_scsi",
        ]));
        assert_eq!(
            closure.modules,
            names(&["virtio", "virtio_ring", "virtio_pci", "virtio_blk"])
        );
        assert_eq!(closure.builtin, names(&["sd_mod"]));
        assert_eq!(closure.absent, names(&["virtio_scsi"]));
        assert!(closure.broken.is_empty());
    }

    #[test]
    fn a_soft_dependency_may_be_an_alias_of_several() {
        assert_eq!(
            index().closure(&names(&["xfs"])).modules,
            names(&["crc32c_generic", "crc32c_intel", "libcrc32c", "xfs"])
        );
    }

    #[test]
    fn circles_of_soft_dependencies_end_and_post_comes_after() {
        assert_eq!(
            index().closure(&names(&["a"])).modules,
            names(&["b", "a", "virtio"])
        );
    }

    #[test]
    fn a_missing_hard_dependency_is_reported() {
        let closure = index().closure(&names(&["lost"]));
        let [broken] = closure.broken.as_slice() else {
            panic!("{closure:?}");
        };
        assert_eq!((broken.0.as_str(), broken.1.as_str()), ("lost", "gone"));
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            ("virtio:d00000002v*", "virtio:d00000001v00001AF4", false),
            ("pci:v*d*sv*bc0Csc03i30*", "pci:v8086d1sv2bc0Csc03i30", true),
            ("usb:[0-9a-f]?c", "usb:dxc", true),
            ("usb:[0-9a-f]?c", "usb:gxc", false),
            ("crypto-crc32c", "crypto_crc32c", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("[", "[", false),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn absolute_paths_of_old_tools_become_relative() {
        let index = ModuleIndex::from_files(&IndexFiles {
            dep: b"/lib/modules/2.6.18-8.el5/kernel/fs/ext3/ext3.ko: /lib/modules/2.6.18-8.el5/kernel/fs/jbd/jbd.ko\n",
            ..IndexFiles::default()
        });
        let facts = index.facts(&ModuleName::new("ext3")).unwrap();
        assert_eq!(facts.path, "kernel/fs/ext3/ext3.ko");
        assert_eq!(facts.dependencies, names(&["jbd"]));
    }
}
