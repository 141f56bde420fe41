// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every boot loader whose configuration is there, with all files that it reads.
//!
//! Limits: 256 entries of the Boot Loader Specification, 16 included files, a map of 1 MiB.

use std::collections::BTreeSet;

use disk::filesystem::FileType;

use super::child;
use crate::error::Result;
use crate::guest::bls::BlsEntry;
use crate::guest::boot_configuration::BootConfiguration;
use crate::guest::grub_cfg::GrubCfg;
use crate::guest::grub_legacy::GrubLegacy;
use crate::guest::lilo::Lilo;
use crate::guest::syslinux::Syslinux;
use crate::inspect::inspection::{
    Bootloader, BootloaderKind, EfiFacts, FilePlace, LoadedFile, TextFile,
};
use crate::inspect::tree::GuestTree;

const ENTRIES_MAX: usize = 256;
const INCLUDES_MAX: usize = 16;
const MAP_BYTES_MAX: u64 = 1 << 20;
const BLS_ENTRIES: &str = "/boot/loader/entries";

/// Where configurations are that do not depend on the EFI system partition.
const FILES: [(&str, BootloaderKind); 14] = [
    ("/boot/grub/grub.cfg", BootloaderKind::Grub2),
    ("/boot/grub2/grub.cfg", BootloaderKind::Grub2),
    ("/boot/grub/menu.lst", BootloaderKind::GrubLegacy),
    ("/boot/grub/grub.conf", BootloaderKind::GrubLegacy),
    ("/etc/lilo.conf", BootloaderKind::Lilo),
    ("/boot/extlinux/extlinux.conf", BootloaderKind::Extlinux),
    ("/boot/extlinux.conf", BootloaderKind::Extlinux),
    ("/extlinux.conf", BootloaderKind::Extlinux),
    ("/boot/syslinux/extlinux.conf", BootloaderKind::Extlinux),
    ("/boot/syslinux/syslinux.cfg", BootloaderKind::Extlinux),
    ("/boot/syslinux.cfg", BootloaderKind::Extlinux),
    ("/etc/elilo.conf", BootloaderKind::Elilo),
    ("/boot/loader/loader.conf", BootloaderKind::SystemdBoot),
    ("/efi/loader/loader.conf", BootloaderKind::SystemdBoot),
];

/// Every boot loader whose configuration is there.
pub(crate) fn bootloaders(tree: &GuestTree, efi: Option<&EfiFacts>) -> Result<Vec<Bootloader>> {
    let mut files: Vec<(String, BootloaderKind)> = Vec::new();
    files.extend(FILES.map(|(path, kind)| (path.to_owned(), kind)));
    if let Some(efi) = efi {
        files.extend(on_esp(tree, efi)?);
    }
    let mut found: Vec<Bootloader> = Vec::new();
    let mut seen: BTreeSet<FilePlace> = BTreeSet::new();
    for (path, kind) in files {
        let Some(configuration) = tree.text(&path)? else {
            continue;
        };
        if seen.insert(configuration.place.clone()) {
            found.push(bootloader(tree, kind, configuration, efi)?);
        }
    }
    let has = |kind| found.iter().any(|loader: &Bootloader| loader.kind == kind);
    if !has(BootloaderKind::SystemdBoot) && !has(BootloaderKind::Bls) {
        found.extend(without_configuration(tree, efi)?);
    }
    for loader in &mut found {
        loader.loaded = loaded(tree, loader, efi)?;
        if loader.kind == BootloaderKind::Lilo {
            loader.map_roots = map_roots(tree, &loader.configuration.text)?;
        }
    }
    Ok(found)
}

/// The configurations in the loaders' own directories of the EFI system partition.
fn on_esp(tree: &GuestTree, efi: &EfiFacts) -> Result<Vec<(String, BootloaderKind)>> {
    let mut files = Vec::new();
    let mut directories: Vec<&str> = efi
        .loaders
        .iter()
        .filter_map(|path| path.rsplit_once('/').map(|(directory, _)| directory))
        .collect();
    directories.dedup();
    for directory in directories {
        let directory = format!("{}{directory}", efi.mount_point);
        let known = [
            ("grub.cfg", BootloaderKind::Grub2),
            ("grub.conf", BootloaderKind::GrubLegacy),
            ("bootx64.conf", BootloaderKind::GrubLegacy),
            ("syslinux.cfg", BootloaderKind::Extlinux),
            ("elilo.conf", BootloaderKind::Elilo),
        ];
        for (name, kind) in known {
            files.extend(child(tree, &directory, name)?.map(|path| (path, kind)));
        }
    }
    let loader = format!("{}/loader/loader.conf", efi.mount_point);
    files.push((loader, BootloaderKind::SystemdBoot));
    Ok(files)
}

/// systemd-boot does without its `loader.conf`.
fn without_configuration(tree: &GuestTree, efi: Option<&EfiFacts>) -> Result<Option<Bootloader>> {
    let is_installed = efi.is_some_and(|efi| {
        let mut loaders = efi.loaders.iter();
        loaders.any(|path| path.to_ascii_lowercase().contains("/systemd-boot"))
    });
    let entries = match is_installed {
        true => bls_entries(tree, efi)?,
        false => Vec::new(),
    };
    Ok(entries.first().cloned().map(|configuration| Bootloader {
        kind: BootloaderKind::SystemdBoot,
        configuration,
        entries: entries.clone(),
        environment: None,
        loaded: Vec::new(),
        map_roots: Vec::new(),
    }))
}

fn bootloader(
    tree: &GuestTree,
    kind: BootloaderKind,
    configuration: TextFile,
    efi: Option<&EfiFacts>,
) -> Result<Bootloader> {
    let directory = match configuration.place.guest_path.rsplit_once('/') {
        Some((directory, _)) => directory.to_owned(),
        None => String::new(),
    };
    let mut lines = configuration.text.lines();
    let has_bls = lines.any(|line| line.trim_start().starts_with("blscfg"));
    let (kind, entries, environment) = match kind {
        BootloaderKind::Grub2 => {
            let mut entries = match has_bls {
                true => bls_entries(tree, None)?,
                false => Vec::new(),
            };
            entries.extend(tree.text(&format!("{directory}/custom.cfg"))?);
            let environment = tree.text(&format!("{directory}/grubenv"))?;
            let kind = if has_bls { BootloaderKind::Bls } else { kind };
            (kind, entries, environment)
        }
        BootloaderKind::GrubLegacy => {
            let environment = tree.text(&format!("{directory}/default"))?;
            (kind, Vec::new(), environment)
        }
        BootloaderKind::Extlinux => {
            let included = included(tree, &directory, &configuration)?;
            (kind, included, None)
        }
        BootloaderKind::SystemdBoot => (kind, bls_entries(tree, efi)?, None),
        BootloaderKind::Bls | BootloaderKind::Lilo | BootloaderKind::Elilo => {
            (kind, Vec::new(), None)
        }
    };
    Ok(Bootloader {
        kind,
        configuration,
        entries,
        environment,
        loaded: Vec::new(),
        map_roots: Vec::new(),
    })
}

/// The entries of the Boot Loader Specification, on `/boot` and on the EFI system partition.
fn bls_entries(tree: &GuestTree, efi: Option<&EfiFacts>) -> Result<Vec<TextFile>> {
    let mut entries = tree.texts(BLS_ENTRIES, ".conf")?;
    if let Some(efi) = efi.filter(|efi| efi.mount_point != "/boot") {
        let directory = format!("{}/loader/entries", efi.mount_point);
        entries.extend(tree.texts(&directory, ".conf")?);
    }
    entries.truncate(ENTRIES_MAX);
    Ok(entries)
}

/// The files that a configuration of Syslinux includes, and those that these include.
fn included(tree: &GuestTree, directory: &str, first: &TextFile) -> Result<Vec<TextFile>> {
    let mut found: Vec<TextFile> = Vec::new();
    let mut names = Syslinux::parse(&first.text).includes();
    while let Some(name) = names.pop() {
        if found.len() >= INCLUDES_MAX {
            break;
        }
        let paths = match name.starts_with('/') {
            true => vec![name.clone(), format!("/boot{name}")],
            false => vec![format!("{directory}/{name}")],
        };
        for path in paths {
            let Some(file) = tree.text(&path)? else {
                continue;
            };
            let mut known = std::iter::once(first).chain(&found);
            if !known.any(|known| known.place == file.place) {
                names.extend(Syslinux::parse(&file.text).includes());
                found.push(file);
            }
            break;
        }
    }
    Ok(found)
}

/// How a file of a boot loader is read.
pub(crate) fn read(
    kind: BootloaderKind,
    file: &TextFile,
    text: &str,
) -> Box<dyn BootConfiguration> {
    let is_entry = file.place.path.contains("/loader/entries/");
    match kind {
        BootloaderKind::Grub2 | BootloaderKind::Bls if !is_entry => {
            Box::new(GrubCfg::parse(text.as_bytes()))
        }
        BootloaderKind::GrubLegacy => Box::new(GrubLegacy::parse(text)),
        BootloaderKind::Lilo => Box::new(Lilo::parse(text)),
        BootloaderKind::Extlinux => Box::new(Syslinux::parse(text)),
        BootloaderKind::Grub2
        | BootloaderKind::Bls
        | BootloaderKind::SystemdBoot
        | BootloaderKind::Elilo => Box::new(BlsEntry::parse(text)),
    }
}

/// Where the kernels and initramfs images are that the entries name: a loader's path begins at the
/// root of some filesystem, or in the directory of the configuration.
fn loaded(
    tree: &GuestTree,
    loader: &Bootloader,
    efi: Option<&EfiFacts>,
) -> Result<Vec<LoadedFile>> {
    let configured = &loader.configuration.place.guest_path;
    let directory = configured
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory);
    let mut names: BTreeSet<String> = BTreeSet::new();
    for file in loader.files() {
        for entry in read(loader.kind, file, &file.text).entries() {
            names.insert(entry.kernel);
            names.extend(entry.initrds);
        }
    }
    let mut loaded = Vec::new();
    for named in names {
        let mut candidates = match named.starts_with('/') {
            true => vec![named.clone(), format!("/boot{named}")],
            false => vec![format!("{directory}/{named}"), format!("/boot/{named}")],
        };
        candidates.extend(tree.below_top_level(&named));
        candidates.extend(efi.map(|efi| format!("{}{named}", efi.mount_point)));
        for path in candidates {
            if let Some((place, metadata)) = tree.metadata(&path)?
                && metadata.file_type == FileType::File
            {
                loaded.push(LoadedFile { named, place });
                break;
            }
        }
    }
    Ok(loaded)
}

/// The roots that the command lines in LILO's map name: what it boots with, whatever its configuration
/// says by now.
fn map_roots(tree: &GuestTree, configuration: &str) -> Result<Vec<String>> {
    let options = Lilo::parse(configuration).options();
    let option = options.into_iter().find(|option| option.name == "map");
    let path = option.and_then(|option| option.value);
    let path = path.unwrap_or_else(|| "/boot/map".to_owned());
    let Some((place, metadata)) = tree.metadata(&path)? else {
        return Ok(Vec::new());
    };
    if metadata.file_type != FileType::File || metadata.size_bytes > MAP_BYTES_MAX {
        return Ok(Vec::new());
    }
    let bytes = tree.read_place(&place, MAP_BYTES_MAX)?;
    let texts = bytes.split(|byte| !byte.is_ascii_graphic());
    let roots = texts.filter_map(|text| text.strip_prefix(b"root="));
    let roots: BTreeSet<String> = roots
        .map(|root| String::from_utf8_lossy(root).into_owned())
        .collect();
    Ok(roots.into_iter().collect())
}

/// Entries that people wrote themselves, which `grub-mkconfig` copies.
pub(crate) fn grub_custom(tree: &GuestTree) -> Result<Vec<TextFile>> {
    let files = tree.texts("/etc/grub.d", "_custom")?;
    Ok(files.into_iter().take(INCLUDES_MAX).collect())
}

/// What other boot loaders' entries are made from. On newer systems `/etc/sysconfig/grub` is a link to
/// `/etc/default/grub`, which is known already.
pub(crate) fn loader_defaults(tree: &GuestTree, known: &[TextFile]) -> Result<Vec<TextFile>> {
    const FILES: [&str; 4] = [
        "/etc/sysconfig/bootloader",
        "/etc/sysconfig/grub",
        "/etc/default/extlinux",
        "/etc/update-extlinux.conf",
    ];
    let mut found = Vec::new();
    for path in FILES {
        let file = tree.text(path)?;
        found.extend(file.filter(|file| known.iter().all(|other| other.place != file.place)));
    }
    Ok(found)
}
