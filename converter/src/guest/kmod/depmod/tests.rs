// SPDX-License-Identifier: MIT OR Apache-2.0
//! Indexes of modules against what `depmod` writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::guest::kmod::elf::{ElfModule, facts_by_symbols};
use crate::guest::kmod::elf_fixture::ModuleFixture;
use crate::guest::kmod::lists::{IndexFiles, ModuleIndex};
use crate::guest::samples::skip;
use crate::guest::{compression, compression::Compression};

/// A directory `lib/modules/<version>` with real modules. Only a named one: thousands of modules
/// take longer than all other tests of this tier together.
fn module_tree() -> Option<PathBuf> {
    std::env::var_os("E2E_MODULE_TREE").map(PathBuf::from)
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
        return skip("needs depmod, and E2E_MODULE_TREE to name a directory lib/modules/VERSION");
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
