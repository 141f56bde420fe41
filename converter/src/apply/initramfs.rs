// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the archive that is appended to an initramfs: modules, indexes, small files.
//!
//! The indexes replace those inside, so they cover all modules: those inside already, and the new
//! ones. What they say comes from the kernel's own indexes on the root filesystem; for a module that
//! these do not know, from the indexes inside the initramfs.
//!
//! Modules are added uncompressed, because the initramfs may have a modprobe without the
//! decompressor, and otherwise unchanged, because of their signature.

use crate::apply::{ApplyOptions, Volumes};
use crate::error::{Error, Result};
use crate::guest::compression::{self, Compression};
use crate::guest::cpio::FileKind;
use crate::guest::initramfs::{Additions, Appended, Initramfs, Limits};
use crate::guest::kmod::depmod::{self, KernelFiles};
use crate::guest::kmod::{IndexFiles, ModuleFacts, ModuleIndex, ModuleName};
use crate::inspect::FilePlace;
use crate::plan::{AddedModule, InitramfsAppend};

const MODULE_BYTES_MAX: u64 = 64 << 20;
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The bytes that follow the file.
pub(crate) fn build(
    place: &FilePlace,
    file: &[u8],
    append: &InitramfsAppend,
    volumes: &Volumes,
    options: &ApplyOptions,
) -> Result<Appended> {
    let guest = |source| Error::Guest {
        place: place.guest_path.clone(),
        source,
    };
    let wanted = |path: &str| path.contains("/modules.") && !path.ends_with(".bin");
    let archive = Initramfs::read(file, &wanted, Limits::default()).map_err(guest)?;
    let mut additions = Additions::default();
    let directory = match &append.module_directory {
        Some(_) => archive.module_directory(&append.kernel) + "/",
        None => String::new(),
    };
    for module in &append.modules {
        let bytes = module_bytes(module, volumes)?;
        additions.file(format!("{directory}{}", module.path), 0o644, bytes);
    }
    if !append.modules.is_empty() && append.module_directory.is_some() {
        for (name, bytes) in indexes(&archive, &directory, append, volumes)?.iter() {
            additions.file(format!("{directory}{name}"), 0o644, bytes);
        }
    }
    for inner in &append.files {
        let mode = permissions(&archive, &inner.path);
        additions.file(inner.path.clone(), mode, inner.text.as_bytes());
    }
    let mtime = u32::try_from(options.now_unix_seconds).unwrap_or(0);
    archive.append(&additions, mtime).map_err(guest)
}

/// A file that is replaced keeps its permissions: `/init` must stay a program.
fn permissions(archive: &Initramfs, path: &str) -> u32 {
    let file = archive.entry(path);
    file.filter(|node| node.kind == FileKind::File)
        .map_or(0o644, |node| node.mode & 0o7777)
}

fn module_bytes(module: &AddedModule, volumes: &Volumes) -> Result<Vec<u8>> {
    let bytes = volumes.read(&module.file, MODULE_BYTES_MAX)?;
    match Compression::detect(&bytes) {
        Compression::None => Ok(bytes),
        packed => compression::decompress(&bytes, packed, MODULE_BYTES_MAX)
            .map(|(bytes, _)| bytes)
            .map_err(Error::guest(&module.file.guest_path)),
    }
}

fn indexes(
    archive: &Initramfs,
    directory: &str,
    append: &InitramfsAppend,
    volumes: &Volumes,
) -> Result<depmod::Indexes> {
    let root = |name: &str| match &append.module_directory {
        Some(place) => read_optional(place, name, volumes),
        None => Ok(Vec::new()),
    };
    let known = IndexTexts::read(&root)?;
    let inside = IndexTexts::read(&|name: &str| {
        let contents = archive.contents(&format!("{directory}{name}"));
        Ok(contents.map(<[u8]>::to_vec).unwrap_or_default())
    })?;
    let (known, inside) = (known.index(), inside.index());
    let mut modules: Vec<ModuleFacts> = Vec::new();
    for module in archive.modules() {
        if module.version.as_deref() == Some(append.kernel.as_str()) {
            modules.push(facts(&module.name, module.relative, &known, &inside));
        }
    }
    for module in &append.modules {
        let name = ModuleName::new(&module.name);
        modules.push(facts(&name, module.path.clone(), &known, &inside));
    }
    let order = root("modules.order")?;
    let (builtin, modinfo) = (root("modules.builtin")?, root("modules.builtin.modinfo")?);
    let kernel = KernelFiles {
        order: &order,
        builtin: &builtin,
        builtin_modinfo: &modinfo,
    };
    depmod::generate(&modules, &kernel).map_err(Error::guest("modules.dep"))
}

/// What is known about a module, at the path that it has inside.
fn facts(
    name: &ModuleName,
    path: String,
    known: &ModuleIndex,
    inside: &ModuleIndex,
) -> ModuleFacts {
    match known.facts(name).or_else(|| inside.facts(name)) {
        Some(facts) => ModuleFacts {
            path,
            ..facts.clone()
        },
        None => ModuleFacts {
            path,
            name: name.clone(),
            aliases: Vec::new(),
            softdeps: Vec::new(),
            weakdeps: Vec::new(),
            exports: Vec::new(),
            dependencies: Vec::new(),
        },
    }
}

/// A file of a directory; empty where there is none.
fn read_optional(directory: &FilePlace, name: &str, volumes: &Volumes) -> Result<Vec<u8>> {
    let file = FilePlace {
        volume: directory.volume,
        path: format!("{}/{name}", directory.path),
        guest_path: format!("{}/{name}", directory.guest_path),
    };
    match volumes.read(&file, INDEX_BYTES_MAX) {
        Err(Error::Guest {
            source: disk::Error::NotFound { .. },
            ..
        }) => Ok(Vec::new()),
        other => other,
    }
}

/// The text indexes of a kernel's modules.
#[derive(Debug, Default)]
struct IndexTexts {
    dep: Vec<u8>,
    alias: Vec<u8>,
    symbols: Vec<u8>,
    softdep: Vec<u8>,
    weakdep: Vec<u8>,
    builtin: Vec<u8>,
}

impl IndexTexts {
    fn read(read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Self> {
        Ok(Self {
            dep: read("modules.dep")?,
            alias: read("modules.alias")?,
            symbols: read("modules.symbols")?,
            softdep: read("modules.softdep")?,
            weakdep: read("modules.weakdep")?,
            builtin: read("modules.builtin")?,
        })
    }

    fn index(&self) -> ModuleIndex {
        ModuleIndex::from_files(&IndexFiles {
            dep: &self.dep,
            alias: &self.alias,
            symbols: &self.symbols,
            softdep: &self.softdep,
            weakdep: &self.weakdep,
            builtin: &self.builtin,
            builtin_modinfo: &[],
        })
    }
}
