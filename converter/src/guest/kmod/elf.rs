// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel module's own file says: an ELF object with the sections that matter here.
//!
//! | section | holds |
//! |---|---|
//! | `.modinfo` | `key=value`, each ended by zero bytes: alias, depends, softdep, name, vermagic |
//! | `.symtab`, `.strtab` | undefined symbols: needed; `__crc_NAME`: exported |
//! | `__ksymtab_strings` | exported names, where there are no `__crc_` symbols |
//! | `__versions` | 64 bytes each: checksum and name of a needed symbol |
//!
//! 32 and 64 bits, both byte orders. What is appended (a signature) is not looked at.
//!
//! Limits: [`SYMBOLS_MAX`] symbols.

use std::collections::{BTreeMap, BTreeSet};

use disk::{Error, Result};

use super::{ModuleFacts, ModuleName};

const STRUCTURE: &str = "kernel module";
/// More symbols than this are an error.
pub const SYMBOLS_MAX: usize = 1 << 20;
const VERSION_ENTRY_LENGTH: usize = 64;
const MACHINE_SPARC: [u64; 2] = [2, 43];
const SYMBOL_TYPE_REGISTER: u8 = 13;

/// What one module's file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ElfModule {
    /// The pairs of `.modinfo`, in their order.
    pub info: Vec<(String, String)>,
    /// Symbols that it exports.
    pub exports: Vec<String>,
    /// Symbols that it needs.
    pub needs: Vec<String>,
}

impl ElfModule {
    /// Reads an uncompressed module.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let elf = Elf::open(bytes)?;
        let mut module = Self::default();
        if let Some(section) = elf.section(".modinfo") {
            module.info = strings(section)
                .filter_map(|text| {
                    let (key, value) = text.split_once('=')?;
                    Some((key.to_owned(), value.to_owned()))
                })
                .collect();
        }
        let symbols = elf.symbols()?;
        module.exports = exported(&elf, &symbols);
        module.needs = needed(&elf, &symbols);
        Ok(module)
    }

    /// The values of one key of `.modinfo`.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.info.iter();
        pairs
            .filter(move |(found, _)| found == key)
            .map(|(_, value)| value.as_str())
    }

    /// The modules in `depends`: what the build found it to need.
    #[must_use]
    pub fn depends(&self) -> Vec<ModuleName> {
        self.values("depends")
            .flat_map(|value| value.split(','))
            .filter(|name| !name.is_empty())
            .map(ModuleName::new)
            .collect()
    }

    /// The kernel version it was built for: the first word of `vermagic`.
    #[must_use]
    pub fn kernel_version(&self) -> Option<&str> {
        self.values("vermagic").next()?.split(' ').next()
    }

    /// What the indexes say of it, with the dependencies of `depends`; `None` if the path is not
    /// that of a module.
    #[must_use]
    pub fn facts(&self, path: &str) -> Option<ModuleFacts> {
        let owned = |key| self.values(key).map(str::to_owned).collect();
        Some(ModuleFacts {
            path: path.to_owned(),
            name: ModuleName::from_path(path)?,
            aliases: owned("alias"),
            softdeps: owned("softdep"),
            weakdeps: owned("weakdep"),
            exports: self.exports.clone(),
            dependencies: self.depends(),
        })
    }
}

/// The facts of all these modules, with the dependencies found by symbol, as depmod finds them.
///
/// `modules` are in the order of modules.order: of two that export a symbol, the last has it.
#[must_use]
pub fn facts_by_symbols(modules: &[(String, ElfModule)]) -> Vec<ModuleFacts> {
    let mut owners: BTreeMap<&str, ModuleName> = BTreeMap::new();
    for (path, module) in modules {
        if let Some(name) = ModuleName::from_path(path) {
            for symbol in &module.exports {
                owners.insert(symbol, name.clone());
            }
        }
    }
    let facts = |(path, module): &(String, ElfModule)| {
        let mut facts = module.facts(path)?;
        let mut seen = BTreeSet::new();
        facts.dependencies = module
            .needs
            .iter()
            // `.name` is a function descriptor's code on 64-bit PowerPC.
            .filter_map(|symbol| owners.get(symbol.strip_prefix('.').unwrap_or(symbol)))
            .filter(|owner| seen.insert((*owner).clone()))
            .cloned()
            .collect();
        Some(facts)
    };
    modules.iter().filter_map(facts).collect()
}

fn exported(elf: &Elf<'_>, symbols: &[Symbol]) -> Vec<String> {
    let with_checksum: Vec<String> = symbols
        .iter()
        .filter_map(|symbol| symbol.name.strip_prefix("__crc_"))
        .map(str::to_owned)
        .collect();
    if !with_checksum.is_empty() {
        return with_checksum;
    }
    let section = elf.section("__ksymtab_strings").unwrap_or(&[]);
    strings(section).collect()
}

/// Undefined symbols, and then those of `__versions` that are not among them.
fn needed(elf: &Elf<'_>, symbols: &[Symbol]) -> Vec<String> {
    let is_sparc = MACHINE_SPARC.contains(&elf.machine);
    let mut needs: Vec<String> = symbols
        .iter()
        .filter(|symbol| symbol.is_undefined && !symbol.name.is_empty())
        .filter(|symbol| !(is_sparc && symbol.kind == SYMBOL_TYPE_REGISTER))
        .map(|symbol| symbol.name.clone())
        .collect();
    let known: BTreeSet<String> = needs.iter().cloned().collect();
    let checksum_length = elf.class.word_length();
    let versions = elf.section("__versions").unwrap_or(&[]);
    if versions.len().is_multiple_of(VERSION_ENTRY_LENGTH) {
        let names = versions.chunks_exact(VERSION_ENTRY_LENGTH);
        let names = names.filter_map(|entry| strings(&entry[checksum_length..]).next());
        needs.extend(names.filter(|name| !known.contains(name)));
    }
    needs
}

/// The strings of a section, separated by zero bytes.
fn strings(section: &[u8]) -> impl Iterator<Item = String> {
    section
        .split(|byte| *byte == 0)
        .filter(|text| !text.is_empty())
        .map(|text| String::from_utf8_lossy(text).into_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Bits32,
    Bits64,
}

impl Class {
    fn word_length(self) -> usize {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    /// Picks what differs between the two layouts.
    fn pick<T>(self, bits32: T, bits64: T) -> T {
        match self {
            Self::Bits32 => bits32,
            Self::Bits64 => bits64,
        }
    }
}

struct Section {
    name_offset: usize,
    offset: usize,
    length: usize,
}

struct Symbol {
    name: String,
    kind: u8,
    is_undefined: bool,
}

struct Elf<'a> {
    bytes: &'a [u8],
    class: Class,
    is_big_endian: bool,
    machine: u64,
    sections: Vec<Section>,
    names: &'a [u8],
}

impl<'a> Elf<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        let (class, is_big_endian) = match bytes {
            [0x7f, b'E', b'L', b'F', class @ 1..=2, order @ 1..=2, ..] => (
                if *class == 1 {
                    Class::Bits32
                } else {
                    Class::Bits64
                },
                *order == 2,
            ),
            _ => return Err(Error::corrupt(STRUCTURE, 0, "expected an ELF file")),
        };
        let mut elf = Self {
            bytes,
            class,
            is_big_endian,
            machine: 0,
            sections: Vec::new(),
            names: &[],
        };
        elf.machine = elf.number(18, 2)?;
        elf.sections = elf.read_sections()?;
        let names_section = elf.number(class.pick(50, 62), 2)? as usize;
        elf.names = elf
            .sections
            .get(names_section)
            .and_then(|section| elf.data(section))
            .ok_or_else(|| Error::corrupt(STRUCTURE, 0, "has no names of sections"))?;
        Ok(elf)
    }

    fn read_sections(&self) -> Result<Vec<Section>> {
        let class = self.class;
        let word = class.word_length();
        let table = to_usize(self.number(class.pick(32, 40), word)?);
        let entry_length = self.number(class.pick(46, 58), 2)? as usize;
        let count = self.number(class.pick(48, 60), 2)? as usize;
        if entry_length != class.pick(40, 64) {
            let problem = format!(
                "expected section headers of {} bytes, found {entry_length}",
                class.pick(40, 64)
            );
            return Err(Error::corrupt(STRUCTURE, 0, problem));
        }
        // At most 65535 of them.
        let end = table.saturating_add(count * entry_length);
        if end > self.bytes.len() {
            let problem = format!("the section headers end at {end:#x}, behind the file");
            return Err(Error::corrupt(STRUCTURE, table as u64, problem));
        }
        (0..count)
            .map(|index| {
                let header = table.saturating_add(index * entry_length);
                Ok(Section {
                    name_offset: self.number(header, 4)? as usize,
                    offset: to_usize(self.number(header.saturating_add(class.pick(16, 24)), word)?),
                    length: to_usize(self.number(header.saturating_add(class.pick(20, 32)), word)?),
                })
            })
            .collect()
    }

    fn section(&self, name: &str) -> Option<&'a [u8]> {
        self.sections
            .iter()
            .skip(1)
            .find(|section| text_at(self.names, section.name_offset) == Some(name.as_bytes()))
            .and_then(|section| self.data(section))
    }

    fn data(&self, section: &Section) -> Option<&'a [u8]> {
        self.bytes
            .get(section.offset..section.offset.checked_add(section.length)?)
    }

    fn symbols(&self) -> Result<Vec<Symbol>> {
        let (Some(table), Some(names)) = (self.section(".symtab"), self.section(".strtab")) else {
            return Ok(Vec::new());
        };
        let entry_length = self.class.pick(16, 24);
        let count = table.len() / entry_length;
        if count > SYMBOLS_MAX || !table.len().is_multiple_of(entry_length) {
            let problem = format!("has a symbol table of {} bytes", table.len());
            return Err(Error::corrupt(STRUCTURE, 0, problem));
        }
        table
            .chunks_exact(entry_length)
            .skip(1)
            .map(|entry| {
                let name = text_at(names, self.number_in(entry, 0, 4)? as usize);
                let name = name.ok_or_else(|| {
                    Error::corrupt(STRUCTURE, 0, "a symbol's name is outside of .strtab")
                })?;
                Ok(Symbol {
                    name: String::from_utf8_lossy(name).into_owned(),
                    kind: entry[self.class.pick(12, 4)] & 0xf,
                    is_undefined: self.number_in(entry, self.class.pick(14, 6), 2)? == 0,
                })
            })
            .collect()
    }

    fn number(&self, offset: usize, length: usize) -> Result<u64> {
        self.number_in(self.bytes, offset, length)
    }

    fn number_in(&self, bytes: &[u8], offset: usize, length: usize) -> Result<u64> {
        let bytes = offset
            .checked_add(length)
            .and_then(|end| bytes.get(offset..end))
            .ok_or_else(|| Error::corrupt(STRUCTURE, offset as u64, "the file ends early"))?;
        let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Ok(if self.is_big_endian {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        })
    }
}

/// What does not fit is outside of every file.
fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn text_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let rest = bytes.get(offset..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::guest::kmod::elf_fixture::ModuleFixture;

    fn fixture() -> ModuleFixture {
        ModuleFixture::new(
            &[
                "alias=pci:v00001AF4d*",
                "alias=virtio-pci",
                "depends=virtio_ring,virtio",
                "softdep=pre: crc32c",
                "vermagic=6.1.0-9-amd64 SMP mod_unload",
            ],
            &["vp_one", "vp_two"],
            &["register_virtio_device", "printk"],
        )
    }

    #[test]
    fn a_module_says_what_it_exports_needs_and_answers_to() {
        for (is_64_bit, has_checksums) in
            [(true, true), (true, false), (false, true), (false, false)]
        {
            let fixture = ModuleFixture {
                is_64_bit,
                has_checksums,
                ..fixture()
            };
            let module = ElfModule::from_bytes(&fixture.to_bytes()).unwrap();
            assert_eq!(module.exports, ["vp_one", "vp_two"]);
            assert_eq!(module.needs, ["register_virtio_device", "printk"]);
            assert_eq!(module.kernel_version(), Some("6.1.0-9-amd64"));
            let facts = module.facts("kernel/virtio-pci.ko.xz").unwrap();
            assert_eq!(facts.name.as_str(), "virtio_pci");
            assert_eq!(facts.aliases, ["pci:v00001AF4d*", "virtio-pci"]);
            assert_eq!(facts.softdeps, ["pre: crc32c"]);
            let dependencies: Vec<&str> =
                facts.dependencies.iter().map(ModuleName::as_str).collect();
            assert_eq!(dependencies, ["virtio_ring", "virtio"]);
        }
    }

    #[test]
    fn dependencies_are_the_owners_of_needed_symbols_in_their_order() {
        let module = |exports: &[&str], needs: &[&str]| {
            let fixture = ModuleFixture::new(&["depends=wrong"], exports, needs);
            ElfModule::from_bytes(&fixture.to_bytes()).unwrap()
        };
        let facts = facts_by_symbols(&[
            ("a.ko".to_owned(), module(&["a1", "a2"], &[])),
            ("b.ko".to_owned(), module(&["b1"], &["a1"])),
            (
                "c.ko".to_owned(),
                module(&[], &["b1", "unknown", ".a2", "a1"]),
            ),
        ]);
        let names: Vec<Vec<&str>> = facts
            .iter()
            .map(|facts| facts.dependencies.iter().map(ModuleName::as_str).collect())
            .collect();
        assert_eq!(names, [vec![], vec!["a"], vec!["b", "a"]]);
    }

    #[test]
    fn foreign_and_cut_files_are_errors() {
        let bytes = fixture().to_bytes();
        assert_eq!(
            ElfModule::from_bytes(b"#!/bin/sh").unwrap_err().to_string(),
            "kernel module at byte 0x0: expected an ELF file"
        );
        for length in 0..bytes.len() {
            assert!(ElfModule::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8)) {
            let mut bytes = fixture().to_bytes();
            for (position, value) in damage {
                let position = usize::from(position) % bytes.len();
                bytes[position] = value;
            }
            let _either = ElfModule::from_bytes(&bytes);
        }
    }
}
