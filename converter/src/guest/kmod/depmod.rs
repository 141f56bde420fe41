// SPDX-License-Identifier: MIT OR Apache-2.0
//! The index files of a set of modules, byte for byte as depmod of kmod 30 writes them.
//!
//! The order in these files is the order in which modprobe tries modules, so it is kept exactly:
//! first the modules in modules.order, then the others in the order of depmod's hash table (512
//! buckets for module names, 2048 for symbols, Paul Hsieh's SuperFastHash, sorted within a bucket).
//! Dependencies are sorted so that no module stands before one that needs it; the sort takes
//! modules without users from the end of a stack.
//!
//! With dependencies that come from a modules.dep, which lists all of them and not only the direct
//! ones, the order among independent ones can differ from depmod's; it is as valid.
//!
//! Not here: `/etc/depmod.d`, and thus the choice between several files of one module. The caller
//! gives one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use disk::Result;

use super::lists::builtin_aliases;
use super::trie::Trie;
use super::union::uncompressed;
use super::{ModuleFacts, ModuleName};

const NAME_BUCKETS: u32 = 512;
const SYMBOL_BUCKETS: u32 = 2048;
/// kmod keeps an alias in a buffer of this many bytes.
const ALIAS_LENGTH_MAX: usize = 4095;

/// What the kernel's package brings beside the modules; an absent file is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelFiles<'a> {
    /// modules.order
    pub order: &'a [u8],
    /// modules.builtin
    pub builtin: &'a [u8],
    /// modules.builtin.modinfo
    pub builtin_modinfo: &'a [u8],
}

/// The index files, by name: `modules.dep` and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes {
    files: BTreeMap<&'static str, Vec<u8>>,
}

impl Indexes {
    /// Name and contents of each file.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.files
            .iter()
            .map(|(name, contents)| (*name, contents.as_slice()))
    }

    /// The contents of one file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }
}

/// Makes the indexes of these modules. Of two with one name the first is taken.
///
/// modules.weakdep is only made when a module has weak dependencies: older tools do not know it.
pub fn generate(modules: &[ModuleFacts], kernel: &KernelFiles<'_>) -> Result<Indexes> {
    let set = ModuleSet::new(modules, kernel.order);
    let mut files = BTreeMap::new();
    let (dep, dep_bin) = set.dependencies();
    files.insert("modules.dep", dep.into_bytes());
    files.insert("modules.dep.bin", dep_bin.to_bytes()?);
    files.insert("modules.alias", set.aliases().into_bytes());
    files.insert("modules.alias.bin", set.aliases_index().to_bytes()?);
    files.insert("modules.softdep", set.soft_dependencies().into_bytes());
    let (symbols, symbols_bin) = set.symbols();
    files.insert("modules.symbols", symbols.into_bytes());
    files.insert("modules.symbols.bin", symbols_bin.to_bytes()?);
    files.insert("modules.devname", set.device_names().into_bytes());
    if let Some(weak) = set.weak_dependencies() {
        files.insert("modules.weakdep", weak.into_bytes());
    }
    files.insert("modules.builtin.bin", builtin_index(kernel.builtin)?);
    let aliases = builtin_alias_index(kernel.builtin_modinfo)?;
    files.insert("modules.builtin.alias.bin", aliases);
    Ok(Indexes { files })
}

/// The modules in depmod's order.
struct ModuleSet<'a> {
    modules: Vec<&'a ModuleFacts>,
    by_name: BTreeMap<&'a ModuleName, usize>,
}

impl<'a> ModuleSet<'a> {
    fn new(facts: &'a [ModuleFacts], order: &[u8]) -> Self {
        let mut unique: BTreeMap<&ModuleName, &ModuleFacts> = BTreeMap::new();
        for module in facts {
            unique.entry(&module.name).or_insert(module);
        }
        let ranks = ranks(order);
        let mut modules: Vec<&ModuleFacts> = unique.into_values().collect();
        modules.sort_by_cached_key(|module| {
            let rank = ranks.get(uncompressed(&module.path)).copied();
            let bucket = hash(module.name.as_str()) & (NAME_BUCKETS - 1);
            (rank.unwrap_or(usize::MAX), bucket, module.name.clone())
        });
        let by_name = modules
            .iter()
            .enumerate()
            .map(|(position, module)| (&module.name, position))
            .collect();
        Self { modules, by_name }
    }

    /// modules.dep and modules.dep.bin.
    fn dependencies(&self) -> (String, Trie) {
        let direct = self.direct_dependencies();
        let sorted = topological_positions(&direct);
        let mut text = String::new();
        let mut trie = Trie::default();
        for (priority, module) in self.modules.iter().enumerate() {
            let mut all = reachable(&direct, priority);
            all.sort_by_key(|needed| sorted[*needed]);
            let mut line = format!("{}:", module.path);
            for needed in all {
                line.push(' ');
                line.push_str(&self.modules[needed].path);
            }
            trie.insert(module.name.as_str(), &line, priority as u32);
            text.push_str(&line);
            text.push('\n');
        }
        (text, trie)
    }

    fn direct_dependencies(&self) -> Vec<Vec<usize>> {
        let positions = |(position, module): (usize, &&ModuleFacts)| {
            let mut unique = BTreeSet::new();
            module
                .dependencies
                .iter()
                .filter_map(|name| self.by_name.get(name).copied())
                .filter(|needed| *needed != position && unique.insert(*needed))
                .collect()
        };
        self.modules.iter().enumerate().map(positions).collect()
    }

    fn aliases(&self) -> String {
        let mut text = "# Aliases extracted from modules themselves.\n".to_owned();
        for module in &self.modules {
            for alias in &module.aliases {
                line(&mut text, format_args!("alias {alias} {}", module.name));
            }
        }
        text
    }

    fn aliases_index(&self) -> Trie {
        let mut trie = Trie::default();
        for (priority, module) in self.modules.iter().enumerate() {
            for alias in module
                .aliases
                .iter()
                .filter_map(|alias| normalise_alias(alias))
            {
                trie.insert(&alias, module.name.as_str(), priority as u32);
            }
        }
        trie
    }

    fn soft_dependencies(&self) -> String {
        let mut text = "# Soft dependencies extracted from modules themselves.\n".to_owned();
        for module in &self.modules {
            for softdep in &module.softdeps {
                line(&mut text, format_args!("softdep {} {softdep}", module.name));
            }
        }
        text
    }

    fn weak_dependencies(&self) -> Option<String> {
        let mut text = "# Weak dependencies extracted from modules themselves.\n".to_owned();
        let header_length = text.len();
        for module in &self.modules {
            for weakdep in &module.weakdeps {
                line(&mut text, format_args!("weakdep {} {weakdep}", module.name));
            }
        }
        (text.len() > header_length).then_some(text)
    }

    /// modules.symbols and modules.symbols.bin; of several owners of a symbol the last one counts.
    fn symbols(&self) -> (String, Trie) {
        let mut owners = BTreeMap::new();
        for (priority, module) in self.modules.iter().enumerate() {
            for symbol in &module.exports {
                let bucket = hash(symbol) & (SYMBOL_BUCKETS - 1);
                owners.insert((bucket, symbol), (priority, &module.name));
            }
        }
        let mut text = "# Aliases for symbols, used by symbol_request().\n".to_owned();
        let mut trie = Trie::default();
        for ((_, symbol), (priority, owner)) in owners {
            let alias = format!("symbol:{symbol}");
            line(&mut text, format_args!("alias {alias} {owner}"));
            trie.insert(&alias, owner.as_str(), priority as u32);
        }
        (text, trie)
    }

    fn device_names(&self) -> String {
        let mut text = String::new();
        for module in &self.modules {
            let Some((name, node)) = device_node(&module.aliases) else {
                continue;
            };
            if text.is_empty() {
                text.push_str("# Device nodes to trigger on-demand module loading.\n");
            }
            line(&mut text, format_args!("{} {name} {node}", module.name));
        }
        text
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String does not fail");
}

/// The position of each path in modules.order; of a path listed twice the last, as depmod has it.
fn ranks(order: &[u8]) -> BTreeMap<String, usize> {
    // depmod gives up on a file whose last line is not ended.
    if !order.ends_with(b"\n") {
        return BTreeMap::new();
    }
    order
        .split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(rank, path)| (String::from_utf8_lossy(path).into_owned(), rank))
        .collect()
}

/// The name and the numbers of the device node whose opening loads a module.
fn device_node(aliases: &[String]) -> Option<(&str, String)> {
    let mut name = None;
    let mut node = None;
    for alias in aliases {
        if let Some(rest) = alias.strip_prefix("devname:") {
            name = Some(rest);
        } else if let Some(numbers) = device_numbers(alias, "char-major-") {
            node = Some(format!("c{numbers}"));
        } else if let Some(numbers) = device_numbers(alias, "block-major-") {
            node = Some(format!("b{numbers}"));
        }
        if let (Some(name), Some(node)) = (name, &node) {
            return Some((name, node.clone()));
        }
    }
    None
}

/// `10:200` of `char-major-10-200`; a pattern (`char-major-10-*`) has none.
fn device_numbers(alias: &str, prefix: &str) -> Option<String> {
    let (major, minor) = alias.strip_prefix(prefix)?.split_once('-')?;
    let major: u32 = major.parse().ok()?;
    let digits = minor.bytes().take_while(u8::is_ascii_digit).count();
    let minor: u32 = minor[..digits].parse().ok()?;
    Some(format!("{major}:{minor}"))
}

/// An alias as modprobe looks it up: `_` for `-` outside brackets; `None` if a bracket is alone.
fn normalise_alias(alias: &str) -> Option<String> {
    let mut normalised = String::with_capacity(alias.len());
    let mut in_brackets = false;
    for character in alias.chars() {
        match character {
            ']' if !in_brackets => return None,
            ']' => in_brackets = false,
            '[' => in_brackets = true,
            _ => {}
        }
        normalised.push(match character {
            '-' if !in_brackets => '_',
            other => other,
        });
    }
    (!in_brackets && normalised.len() <= ALIAS_LENGTH_MAX).then_some(normalised)
}

fn builtin_index(builtin: &[u8]) -> Result<Vec<u8>> {
    if builtin.is_empty() {
        return Ok(Vec::new());
    }
    let mut trie = Trie::default();
    for path in builtin.split(|byte| *byte == b'\n') {
        let path = String::from_utf8_lossy(path);
        if let Some(name) = ModuleName::from_path(&path) {
            trie.insert(name.as_str(), "", 0);
        }
    }
    trie.to_bytes()
}

fn builtin_alias_index(modinfo: &[u8]) -> Result<Vec<u8>> {
    if modinfo.is_empty() {
        return Ok(Vec::new());
    }
    let mut trie = Trie::default();
    for (alias, module) in builtin_aliases(modinfo) {
        if let Some(alias) = normalise_alias(&alias) {
            trie.insert(&alias, module.as_str(), 0);
        }
    }
    trie.to_bytes()
}

/// Position of each module in an order where users come before what they need.
///
/// Modules in a circle, which the kernel could not load either, come last.
fn topological_positions(direct: &[Vec<usize>]) -> Vec<usize> {
    let mut users = vec![0_usize; direct.len()];
    for needed in direct.iter().flatten() {
        users[*needed] += 1;
    }
    let mut stack: Vec<usize> = (0..direct.len())
        .filter(|module| users[*module] == 0)
        .collect();
    let mut positions = vec![usize::MAX; direct.len()];
    let mut position = 0;
    while let Some(module) = stack.pop() {
        positions[module] = position;
        position += 1;
        for needed in &direct[module] {
            users[*needed] -= 1;
            if users[*needed] == 0 {
                stack.push(*needed);
            }
        }
    }
    positions
}

/// Everything a module needs, directly or not, without itself.
fn reachable(direct: &[Vec<usize>], module: usize) -> Vec<usize> {
    let mut seen = BTreeSet::from([module]);
    let mut found = Vec::new();
    let mut pending = direct[module].clone();
    while let Some(needed) = pending.pop() {
        if seen.insert(needed) {
            found.push(needed);
            pending.extend(&direct[needed]);
        }
    }
    found
}

/// SuperFastHash by Paul Hsieh, as depmod uses it on x86.
fn hash(key: &str) -> u32 {
    let bytes = key.as_bytes();
    let pair = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
    // `char` is signed there.
    let signed = |byte: u8| i32::from(byte.cast_signed()).cast_unsigned();
    let mut value = bytes.len() as u32;
    let mut quads = bytes.chunks_exact(4);
    for quad in &mut quads {
        value = value.wrapping_add(pair(quad[0], quad[1]));
        let mixed = pair(quad[2], quad[3]) << 11 ^ value;
        value = value << 16 ^ mixed;
        value = value.wrapping_add(value >> 11);
    }
    match *quads.remainder() {
        [a, b, c] => {
            value = value.wrapping_add(pair(a, b));
            value ^= value << 16;
            value ^= signed(c) << 18;
            value = value.wrapping_add(value >> 11);
        }
        [a, b] => {
            value = value.wrapping_add(pair(a, b));
            value ^= value << 11;
            value = value.wrapping_add(value >> 17);
        }
        [a] => {
            value = value.wrapping_add(signed(a));
            value ^= value << 10;
            value = value.wrapping_add(value >> 1);
        }
        _ => {}
    }
    value ^= value << 3;
    value = value.wrapping_add(value >> 5);
    value ^= value << 4;
    value = value.wrapping_add(value >> 17);
    value ^= value << 25;
    value.wrapping_add(value >> 6)
}

#[cfg(test)]
mod tests;
