// SPDX-License-Identifier: MIT OR Apache-2.0
//! The installed kernels: each with its modules, its initramfs, and where it has the drivers that
//! virtual hardware needs.
//!
//! Limits: an initramfs of 1 GiB, index files of 64 MiB.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use crate::error::Result;
use crate::guest::initramfs::{Initramfs, Limits};
use crate::guest::kmod::{Closures, IndexFiles, ModuleIndex, ModuleName, Presence};
use crate::inspect::inspection::{
    DriverFacts, DriverPlace, FilePlace, InitramfsFacts, InnerFile, Kernel, ModuleFacts,
};
use crate::inspect::tree::GuestTree;

/// What a guest needs on virtio, in the order in which it is loaded. `sd_mod` makes disks of what
/// virtio-scsi finds; a server with NVMe disks only has no use for it in its initramfs.
pub const WANTED: [&str; 5] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "virtio_net",
];

/// What it needs on the other profiles.
const FALLBACK: [&str; 7] = [
    "ahci",
    "ata_piix",
    "sym53c8xx",
    "e1000e",
    "e1000",
    "8139cp",
    "8139too",
];

const INITRAMFS_BYTES_MAX: u64 = 1 << 30;
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Finds every kernel, newest first.
pub(crate) fn kernels(tree: &GuestTree, findings: &mut Vec<Finding>) -> Result<Vec<Kernel>> {
    let mut kernels = Vec::new();
    let names = tree.list("/boot")?;
    let mut versions: Vec<&str> = names
        .iter()
        .filter_map(|entry| entry.name.strip_prefix("vmlinuz-"))
        .filter(|version| !is_leftover(version))
        .collect();
    versions.sort_by_key(|version| std::cmp::Reverse(version_key(version)));
    for version in versions {
        let Some(image) = tree.resolve(&format!("/boot/vmlinuz-{version}"))? else {
            continue;
        };
        kernels.push(kernel(tree, version, image, findings)?);
    }
    Ok(kernels)
}

/// What package managers leave beside a kernel.
fn is_leftover(version: &str) -> bool {
    let ends = [
        ".old",
        ".bak",
        ".dpkg-new",
        ".dpkg-old",
        ".dpkg-tmp",
        ".rpmsave",
        ".rpmnew",
    ];
    version.starts_with("0-rescue") || ends.iter().any(|end| version.ends_with(end))
}

/// Versions ordered as numbers where they are numbers: 6.1.0-9 before 6.1.0-28.
pub(crate) fn version_key(version: &str) -> Vec<(u64, String)> {
    version
        .split(['.', '-', '_', '+', '~'])
        .map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            let rest = part.get(digits.len()..).unwrap_or_default().to_owned();
            (digits.parse().unwrap_or(0), rest)
        })
        .collect()
}

fn kernel(
    tree: &GuestTree,
    version: &str,
    image: FilePlace,
    findings: &mut Vec<Finding>,
) -> Result<Kernel> {
    let modules = tree.resolve(&format!("/lib/modules/{version}"))?;
    let index = match &modules {
        Some(place) => read_index(tree, &place.guest_path)?,
        None => ModuleIndex::default(),
    };
    let (initramfs, inside) = initramfs(tree, version, findings)?;
    let wanted = WANTED.map(ModuleName::new);
    let mut closures = Closures::new(&index);
    let mut closure = Vec::new();
    if let Some(directory) = &modules {
        for name in closures.of(&wanted).modules {
            let path = index.facts(&name).map(|facts| facts.path.clone());
            let Some(path) = path else { continue };
            let full = format!("{}/{path}", directory.guest_path);
            let Some((file, metadata)) = tree.metadata(&full)? else {
                findings.push(missing_module(version, &full));
                continue;
            };
            closure.push(ModuleFacts {
                in_initramfs: inside.contains(name.as_str()),
                name: name.as_str().to_owned(),
                size_bytes: metadata.size_bytes,
                path,
                file,
            });
        }
    }
    let drivers = WANTED
        .iter()
        .chain(&FALLBACK)
        .map(|&name| DriverFacts {
            name: name.to_owned(),
            place: driver_place(&index, &mut closures, &inside, name),
        })
        .collect();
    Ok(Kernel {
        version: version.to_owned(),
        image,
        modules,
        initramfs,
        drivers,
        closure,
    })
}

fn missing_module(version: &str, path: &str) -> Finding {
    Finding {
        level: Level::Warning,
        code: "kernel.module.missing".to_owned(),
        place: path.to_owned(),
        problem: format!("modules.dep of kernel {version} names a file that is not there"),
        remedy: Some("reinstall the kernel's package on the server".to_owned()),
    }
}

/// A driver counts as inside only with everything that it needs.
fn driver_place(
    index: &ModuleIndex,
    closures: &mut Closures<'_>,
    inside: &BTreeSet<String>,
    name: &str,
) -> DriverPlace {
    let name = ModuleName::new(name);
    match index.presence(&name) {
        Presence::Builtin => DriverPlace::BuiltIn,
        Presence::Absent => DriverPlace::Absent,
        Presence::Module => {
            let closure = closures.of(std::slice::from_ref(&name));
            let complete = closure.modules.iter().all(|m| inside.contains(m.as_str()));
            if complete {
                DriverPlace::InInitramfs
            } else {
                DriverPlace::Module
            }
        }
    }
}

/// The module indexes of one kernel; an absent file is empty.
fn read_index(tree: &GuestTree, directory: &str) -> Result<ModuleIndex> {
    let read = |name: &str| -> Result<Vec<u8>> {
        let found = tree.read(&format!("{directory}/{name}"), INDEX_BYTES_MAX)?;
        Ok(found.map(|(_, bytes)| bytes).unwrap_or_default())
    };
    let (dep, alias) = (read("modules.dep")?, read("modules.alias")?);
    let (softdep, builtin) = (read("modules.softdep")?, read("modules.builtin")?);
    Ok(ModuleIndex::from_files(&IndexFiles {
        dep: &dep,
        alias: &alias,
        softdep: &softdep,
        builtin: &builtin,
        ..IndexFiles::default()
    }))
}

/// The initramfs of a kernel, and the names of the modules inside it.
fn initramfs(
    tree: &GuestTree,
    version: &str,
    findings: &mut Vec<Finding>,
) -> Result<(Option<InitramfsFacts>, BTreeSet<String>)> {
    let names = [
        format!("/boot/initrd.img-{version}"),
        format!("/boot/initramfs-{version}.img"),
        format!("/boot/initrd-{version}"),
        format!("/boot/initrd-{version}.img"),
    ];
    for name in names {
        let Some((file, bytes)) = tree.read(&name, INITRAMFS_BYTES_MAX)? else {
            continue;
        };
        let archive = match Initramfs::read(&bytes, &is_wanted_file, Limits::default()) {
            Ok(archive) => archive,
            Err(error) => {
                findings.push(Finding {
                    level: Level::Error,
                    code: "initramfs.unreadable".to_owned(),
                    place: name,
                    problem: error.to_string(),
                    remedy: Some("rebuild it on the server with `update-initramfs -u`".to_owned()),
                });
                return Ok((None, BTreeSet::new()));
            }
        };
        let inside: BTreeSet<String> = archive
            .modules()
            .into_iter()
            .filter(|module| module.version.as_deref() == Some(version))
            .map(|module| module.name.as_str().to_owned())
            .collect();
        let facts = InitramfsFacts {
            file,
            size_bytes: bytes.len() as u64,
            hash: blake3::hash(&bytes).to_hex().to_string(),
            compression: archive.placement().compression,
            generator: archive.generator(),
            module_count: inside.len(),
            files: inner_files(&archive),
        };
        return Ok((Some(facts), inside));
    }
    Ok((None, BTreeSet::new()))
}

/// The files inside an initramfs whose text a plan may have to override.
fn is_wanted_file(path: &str) -> bool {
    path == "conf/modules"
        || path.starts_with("conf/conf.d/")
        || (path.contains("systemd/network/") && path.ends_with(".link"))
        || path == "cryptroot/crypttab"
}

fn inner_files(archive: &Initramfs) -> Vec<InnerFile> {
    archive
        .kept()
        .map(|(path, bytes)| InnerFile {
            path: path.to_owned(),
            text: String::from_utf8_lossy(bytes).into_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let mut versions = ["6.1.0-9-amd64", "6.1.0-28-amd64", "5.10.0-33-amd64"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_key(version)));
        assert_eq!(
            versions,
            ["6.1.0-28-amd64", "6.1.0-9-amd64", "5.10.0-33-amd64"]
        );
    }

    #[test]
    fn leftovers_of_package_managers_are_no_kernels() {
        assert!(is_leftover("6.1.0-28-amd64.dpkg-tmp"));
        assert!(is_leftover("0-rescue-abc"));
        assert!(!is_leftover("6.1.0-28-amd64"));
    }
}
