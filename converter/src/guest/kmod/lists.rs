// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text indexes of `/lib/modules/<version>`, and what they say together.
//!
//! | file | line |
//! |---|---|
//! | modules.dep | `kernel/a.ko: kernel/b.ko kernel/c.ko`: all it needs, the last is loaded first |
//! | modules.alias | `alias PATTERN MODULE` |
//! | modules.symbols | `alias symbol:NAME MODULE` |
//! | modules.softdep | `softdep MODULE pre: A B post: C` |
//! | modules.weakdep | `weakdep MODULE A` |
//! | modules.builtin | `kernel/d.ko`: linked into the kernel |
//! | modules.builtin.modinfo | `module.key=value`, each ended by a zero byte |
//! | modules.order | `kernel/a.ko`: which of several matching modules comes first |
//!
//! Old tools wrote absolute paths into modules.dep; these become relative. A line that is none of
//! these is ignored, as modprobe ignores it.

use std::collections::{BTreeMap, BTreeSet};

use super::{ModuleFacts, ModuleName};

/// The index files of one kernel version; an absent file is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct IndexFiles<'a> {
    /// modules.dep
    pub dep: &'a [u8],
    /// modules.alias
    pub alias: &'a [u8],
    /// modules.symbols
    pub symbols: &'a [u8],
    /// modules.softdep
    pub softdep: &'a [u8],
    /// modules.weakdep
    pub weakdep: &'a [u8],
    /// modules.builtin
    pub builtin: &'a [u8],
    /// modules.builtin.modinfo
    pub builtin_modinfo: &'a [u8],
}

/// What the indexes of one kernel version say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleIndex {
    modules: BTreeMap<ModuleName, ModuleFacts>,
    builtin: BTreeSet<ModuleName>,
    builtin_aliases: Vec<(String, ModuleName)>,
}

impl ModuleIndex {
    /// Reads the index files.
    #[must_use]
    pub fn from_files(files: &IndexFiles<'_>) -> Self {
        let mut index = Self::default();
        for (path, dependencies) in dependency_lines(files.dep) {
            index.add_module(&path, &dependencies);
        }
        for (alias, module) in alias_lines(files.alias) {
            index.change(&module, |facts| facts.aliases.push(alias));
        }
        for (alias, module) in alias_lines(files.symbols) {
            if let Some(symbol) = alias.strip_prefix("symbol:") {
                index.change(&module, |facts| facts.exports.push(symbol.to_owned()));
            }
        }
        for (module, rest) in keyword_lines(files.softdep, "softdep") {
            index.change(&ModuleName::new(&module), |facts| facts.softdeps.push(rest));
        }
        for (module, rest) in keyword_lines(files.weakdep, "weakdep") {
            index.change(&ModuleName::new(&module), |facts| facts.weakdeps.push(rest));
        }
        index.builtin = lines(files.builtin)
            .filter_map(|line| ModuleName::from_path(&line))
            .collect();
        index.builtin_aliases = builtin_aliases(files.builtin_modinfo);
        index
    }

    /// Adds a module that the index files do not know, or replaces what they say.
    pub fn insert(&mut self, facts: ModuleFacts) {
        self.modules.insert(facts.name.clone(), facts);
    }

    /// Adds drivers that are linked into the kernel, where modules.builtin does not say so.
    pub fn add_builtin(&mut self, names: impl IntoIterator<Item = ModuleName>) {
        self.builtin.extend(names);
    }

    /// What is known of a module that has a file.
    #[must_use]
    pub fn facts(&self, name: &ModuleName) -> Option<&ModuleFacts> {
        self.modules.get(name)
    }

    /// All modules that have a file, by name.
    pub fn modules(&self) -> impl Iterator<Item = &ModuleFacts> {
        self.modules.values()
    }

    /// True where a module is linked into the kernel.
    #[must_use]
    pub fn is_builtin(&self, name: &ModuleName) -> bool {
        self.builtin.contains(name)
    }

    /// The aliases of what is linked into the kernel, and whose they are.
    #[must_use]
    pub fn builtin_aliases(&self) -> &[(String, ModuleName)] {
        &self.builtin_aliases
    }

    fn add_module(&mut self, path: &str, dependencies: &[String]) {
        let Some(name) = ModuleName::from_path(path) else {
            return;
        };
        let facts = ModuleFacts {
            path: path.to_owned(),
            name: name.clone(),
            aliases: Vec::new(),
            softdeps: Vec::new(),
            weakdeps: Vec::new(),
            exports: Vec::new(),
            dependencies: dependencies
                .iter()
                .filter_map(|path| ModuleName::from_path(path))
                .collect(),
        };
        self.modules.insert(name, facts);
    }

    fn change(&mut self, module: &ModuleName, change: impl FnOnce(&mut ModuleFacts)) {
        if let Some(facts) = self.modules.get_mut(module) {
            change(facts);
        }
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = String> {
    text.split(|byte| *byte == b'\n')
        .map(|line| String::from_utf8_lossy(line).trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The lines of modules.dep: a path, and the paths that it needs.
fn dependency_lines(text: &[u8]) -> impl Iterator<Item = (String, Vec<String>)> {
    lines(text).filter_map(|line| {
        let (path, dependencies) = line.split_once(':')?;
        let dependencies = dependencies.split_whitespace().map(relative_path);
        Some((relative_path(path), dependencies.collect()))
    })
}

/// `/lib/modules/2.6.18/kernel/a.ko` is `kernel/a.ko`.
fn relative_path(path: &str) -> String {
    path.split_once("/lib/modules/")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map_or(path, |(_, relative)| relative)
        .to_owned()
}

fn alias_lines(text: &[u8]) -> impl Iterator<Item = (String, ModuleName)> {
    lines(text).filter_map(|line| {
        // An alias has no space; what is after the last one is the module.
        let (alias, module) = line.strip_prefix("alias ")?.trim().rsplit_once(' ')?;
        Some((alias.trim().to_owned(), ModuleName::new(module)))
    })
}

fn keyword_lines(text: &[u8], keyword: &str) -> impl Iterator<Item = (String, String)> {
    lines(text).filter_map(move |line| {
        let rest = line.strip_prefix(keyword)?.strip_prefix(' ')?;
        let (module, rest) = rest.trim().split_once(' ')?;
        Some((module.to_owned(), rest.trim().to_owned()))
    })
}

/// The `alias` values of modules.builtin.modinfo.
pub(super) fn builtin_aliases(modinfo: &[u8]) -> Vec<(String, ModuleName)> {
    modinfo
        .split(|byte| *byte == 0)
        .filter_map(|record| {
            let record = String::from_utf8_lossy(record);
            let (module, rest) = record.split_once('.')?;
            let alias = rest.strip_prefix("alias=")?;
            (!module.is_empty() && !alias.is_empty())
                .then(|| (alias.to_owned(), ModuleName(module.to_owned())))
        })
        .collect()
}
