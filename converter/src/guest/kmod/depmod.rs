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
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;
    use crate::guest::kmod::elf::{ElfModule, facts_by_symbols};
    use crate::guest::kmod::elf_fixture::ModuleFixture;
    use crate::guest::kmod::lists::{IndexFiles, ModuleIndex};
    use crate::guest::samples::skip;
    use crate::guest::{compression, compression::Compression};

    /// A directory `lib/modules/<version>` with real modules: of this machine, or named.
    fn module_tree() -> Option<PathBuf> {
        if let Some(path) = std::env::var_os("E2E_MODULE_TREE") {
            return Some(PathBuf::from(path));
        }
        let mut trees = fs::read_dir("/lib/modules").ok()?.flatten();
        trees
            .find(|tree| tree.path().join("kernel").is_dir())
            .map(|tree| tree.path())
    }

    fn has_depmod() -> bool {
        let version = Command::new("depmod").arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    }

    fn module_paths(tree: &Path) -> Vec<String> {
        let mut pending = vec![tree.join("kernel")];
        let mut paths = Vec::new();
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    pending.push(path);
                } else if ModuleName::from_path(&path.to_string_lossy()).is_some() {
                    let relative = path.strip_prefix(tree).unwrap();
                    paths.push(relative.to_string_lossy().into_owned());
                }
            }
        }
        paths.sort();
        paths
    }

    fn read_module(path: &Path) -> ElfModule {
        let bytes = fs::read(path).unwrap();
        let compression = Compression::detect(&bytes);
        let (bytes, _) = compression::decompress(&bytes, compression, 1 << 30).unwrap();
        ElfModule::from_bytes(&bytes).unwrap()
    }

    /// Copies some modules of a real tree, runs depmod on the copy and compares every file.
    fn compare_with_depmod(tree: &Path, paths: &[String], with_order: bool) {
        let base = tempfile::tempdir().unwrap();
        let copy = base.path().join("lib/modules/1.0");
        for path in paths {
            fs::create_dir_all(copy.join(path).parent().unwrap()).unwrap();
            fs::copy(tree.join(path), copy.join(path)).unwrap();
        }
        let mut names = vec!["modules.builtin", "modules.builtin.modinfo"];
        names.extend(with_order.then_some("modules.order"));
        for name in names {
            if tree.join(name).exists() {
                fs::copy(tree.join(name), copy.join(name)).unwrap();
            }
        }
        run_depmod(base.path());
        let modules: Vec<_> = paths
            .iter()
            .map(|path| (path.clone(), read_module(&copy.join(path))))
            .collect();
        let indexes = generate_beside(&modules, &copy);
        for (name, contents) in indexes.iter() {
            let expected = fs::read(copy.join(name)).unwrap();
            assert!(
                expected == contents,
                "{name} differs: depmod wrote {} bytes, we {}",
                expected.len(),
                contents.len()
            );
        }
    }

    fn run_depmod(base: &Path) {
        let mut depmod = Command::new("depmod");
        let status = depmod.arg("-b").arg(base).arg("1.0").status();
        assert!(status.unwrap().success());
    }

    /// The indexes of these modules, with the kernel's files in a directory.
    fn generate_beside(modules: &[(String, ElfModule)], directory: &Path) -> Indexes {
        let file = |name: &str| fs::read(directory.join(name)).unwrap_or_default();
        let (order, builtin, modinfo) = (
            file("modules.order"),
            file("modules.builtin"),
            file("modules.builtin.modinfo"),
        );
        let kernel = KernelFiles {
            order: &order,
            builtin: &builtin,
            builtin_modinfo: &modinfo,
        };
        // An export belongs to the last module in depmod's order.
        let mut modules = modules.to_vec();
        let facts: Vec<_> = modules
            .iter()
            .filter_map(|(path, module)| module.facts(path))
            .collect();
        let set = ModuleSet::new(&facts, &order);
        modules.sort_by_key(|(path, _)| set.by_name[&ModuleName::from_path(path).unwrap()]);
        generate(&facts_by_symbols(&modules), &kernel).unwrap()
    }

    #[test]
    fn indexes_of_a_real_tree_equal_what_depmod_writes() {
        let (true, Some(tree)) = (has_depmod(), module_tree()) else {
            return skip("needs depmod and a tree of modules in /lib/modules");
        };
        let paths = module_paths(&tree);
        compare_with_depmod(&tree, &paths, true);
        compare_with_depmod(&tree, &paths, false);
        let some: Vec<String> = paths.iter().step_by(7).cloned().collect();
        compare_with_depmod(&tree, &some, true);
        compare_with_depmod(&tree, &some, false);
    }

    fn fixture_directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/kmod")
    }

    /// The modules whose indexes are in `fixtures/kmod`.
    fn fixture_modules() -> Vec<(String, Vec<u8>)> {
        let module = |path: &str, info: &[&str], exports: &[&str], needs: &[&str]| {
            let fixture = ModuleFixture::new(info, exports, needs);
            (format!("kernel/{path}"), fixture.to_bytes())
        };
        vec![
            module(
                "virtio/virtio.ko",
                &["alias=virtio:d*", "license=GPL"],
                &["register_virtio"],
                &[],
            ),
            module(
                "virtio/virtio-ring.ko",
                &["alias=a-[b-c]-d", "alias=broken]"],
                &["vring_new", "vring_del"],
                &["printk"],
            ),
            module(
                "virtio/virtio_pci.ko",
                &[
                    "alias=pci:v00001AF4d*sv*sd*bc*sc*i*",
                    "softdep=pre: virtio-blk post: net",
                ],
                &[],
                &["vring_new", "register_virtio"],
            ),
            module(
                "block/virtio_blk.ko",
                &["alias=virtio:d00000002v*"],
                &[],
                &["register_virtio", "vring_del"],
            ),
            module(
                "net/tun.ko",
                &[
                    "alias=devname:net/tun",
                    "alias=char-major-10-200",
                    "alias=char-major-10-*",
                ],
                &["tun_get"],
                &[],
            ),
            module(
                "net/vhost_net.ko",
                &["softdep=pre: tun"],
                &[],
                &["tun_get", "vring_new"],
            ),
        ]
    }

    fn assert_equal_to_fixtures(found: impl Fn(&str) -> Option<Vec<u8>>) {
        for name in FIXTURES {
            let expected = fs::read(fixture_directory().join(name)).unwrap();
            let found = found(name);
            assert!(found == Some(expected), "{name}: {found:?}");
        }
    }

    const FIXTURES: [&str; 10] = [
        "modules.alias",
        "modules.alias.bin",
        "modules.builtin.alias.bin",
        "modules.builtin.bin",
        "modules.dep",
        "modules.dep.bin",
        "modules.devname",
        "modules.softdep",
        "modules.symbols",
        "modules.symbols.bin",
    ];

    #[test]
    fn indexes_of_small_modules_equal_the_frozen_ones_of_depmod() {
        let modules: Vec<_> = fixture_modules()
            .into_iter()
            .map(|(path, bytes)| (path, ElfModule::from_bytes(&bytes).unwrap()))
            .collect();
        let indexes = generate_beside(&modules, &fixture_directory());
        assert_equal_to_fixtures(|name| indexes.get(name).map(<[u8]>::to_vec));
        for name in FIXTURES.iter().filter(|name| name.ends_with(".bin")) {
            let bytes = fs::read(fixture_directory().join(name)).unwrap();
            assert_eq!(Trie::from_bytes(&bytes).unwrap().to_bytes().unwrap(), bytes);
        }
    }

    #[test]
    fn depmod_still_writes_the_frozen_indexes() {
        if !has_depmod() {
            return skip("needs depmod");
        }
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("lib/modules/1.0");
        for (path, bytes) in fixture_modules() {
            fs::create_dir_all(tree.join(&path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), bytes).unwrap();
        }
        for name in [
            "modules.order",
            "modules.builtin",
            "modules.builtin.modinfo",
        ] {
            fs::copy(fixture_directory().join(name), tree.join(name)).unwrap();
        }
        run_depmod(base.path());
        if std::env::var_os("FREEZE_FIXTURES").is_some() {
            for name in FIXTURES {
                fs::copy(tree.join(name), fixture_directory().join(name)).unwrap();
            }
        }
        assert_equal_to_fixtures(|name| fs::read(tree.join(name)).ok());
    }

    /// Each module and all that it needs, without order.
    fn dependency_sets(dep: &[u8]) -> BTreeMap<String, BTreeSet<String>> {
        let text = String::from_utf8_lossy(dep);
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needed)| {
                (
                    path.to_owned(),
                    needed.split_whitespace().map(str::to_owned).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn indexes_from_the_indexes_of_a_kernel_say_the_same_for_some_of_its_modules() {
        let file = |name: &str| fs::read(fixture_directory().join(name)).unwrap();
        let (dep, alias, symbols, softdep) = (
            file("modules.dep"),
            file("modules.alias"),
            file("modules.symbols"),
            file("modules.softdep"),
        );
        let index = ModuleIndex::from_files(&IndexFiles {
            dep: &dep,
            alias: &alias,
            symbols: &symbols,
            softdep: &softdep,
            ..IndexFiles::default()
        });
        let all: Vec<ModuleFacts> = index.modules().cloned().collect();
        let order = file("modules.order");
        let kernel = KernelFiles {
            order: &order,
            ..KernelFiles::default()
        };
        let indexes = generate(&all, &kernel).unwrap();
        for name in [
            "modules.alias.bin",
            "modules.softdep",
            "modules.symbols",
            "modules.devname",
        ] {
            assert_eq!(indexes.get(name), Some(file(name).as_slice()), "{name}");
        }
        assert_eq!(
            dependency_sets(indexes.get("modules.dep").unwrap()),
            dependency_sets(&dep)
        );

        let closure = index.closure(&[ModuleName::new("virtio_pci")]);
        let some: Vec<ModuleFacts> = closure
            .modules
            .iter()
            .map(|name| index.facts(name).unwrap().clone())
            .collect();
        let dep = generate(&some, &kernel).unwrap();
        let sets = dependency_sets(dep.get("modules.dep").unwrap());
        let needed = &sets["kernel/virtio/virtio_pci.ko"];
        let expected = ["kernel/virtio/virtio-ring.ko", "kernel/virtio/virtio.ko"];
        assert_eq!(needed, &expected.map(str::to_owned).into());
        assert_eq!(sets.len(), 4);
    }
}
