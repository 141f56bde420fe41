// SPDX-License-Identifier: MIT OR Apache-2.0
//! The installed kernels: each with its modules, its initramfs, and where it has the drivers that
//! virtual hardware needs.
//!
//! Limits: 64 kernels, an initramfs of 1 GiB, index files of 64 MiB.

mod images;
mod initramfs;
mod writing;

use std::collections::BTreeSet;

use disk::{Finding, Level};

use crate::error::Result;
use crate::guest::kmod::kernel_config::builtin_drivers;
use crate::guest::kmod::{Closures, IndexFiles, ModuleIndex, ModuleName, Presence};
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::inspection::{DriverFacts, DriverPlace, FilePlace, Kernel, ModuleFacts};
use crate::inspect::kernels::images::Image;
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

/// The disk controllers of the other profiles. Their drivers go into the initramfs too, so that a
/// guest that does not start on virtio can be tried on what it knows for longer.
pub const FALLBACK_DISKS: [&str; 5] = ["ahci", "ata_piix", "sym53c8xx", "piix", "ide_disk"];

/// The network cards of the other profiles; they are loaded from the root filesystem.
const FALLBACK_CARDS: [&str; 4] = ["e1000e", "e1000", "8139cp", "8139too"];

/// What it needs where other hypervisors run it; only told, never added.
const ELSEWHERE: [&str; 8] = [
    "vmw_pvscsi",
    "mptspi",
    "vmxnet3",
    "hv_storvsc",
    "hv_netvsc",
    "tulip",
    "xen_blkfront",
    "xen_netfront",
];

const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Finds every kernel, newest first.
pub(crate) fn kernels(tree: &GuestTree, findings: &mut Vec<Finding>) -> Result<Vec<Kernel>> {
    let mut images = images::images(tree)?;
    images.sort_by_key(|image| std::cmp::Reverse(version_key(&image.version)));
    let mut kernels = Vec::new();
    for image in images {
        kernels.push(kernel(tree, image, findings)?);
    }
    Ok(kernels)
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

fn kernel(tree: &GuestTree, image: Image, findings: &mut Vec<Finding>) -> Result<Kernel> {
    let found = initramfs::read(tree, &image, findings)?;
    let described = describe(tree, &image.version, image.place, &found.inside, findings)?;
    Ok(Kernel {
        initramfs: found.facts,
        unreadable_initramfs: found.unreadable,
        ..described
    })
}

/// A kernel without its initramfs, of which the names of the modules inside are known.
pub(crate) fn describe(
    tree: &GuestTree,
    version: &str,
    image: FilePlace,
    inside: &BTreeSet<String>,
    findings: &mut Vec<Finding>,
) -> Result<Kernel> {
    let modules = tree.resolve(&format!("/lib/modules/{version}"))?;
    let mut index = match &modules {
        Some(place) => read_index(tree, &place.guest_path)?,
        None => ModuleIndex::default(),
    };
    let has_list = match &modules {
        Some(place) => tree.exists(&format!("{}/modules.builtin", place.guest_path))?,
        None => false,
    };
    if !has_list && let Some(config) = tree.text(&format!("/boot/config-{version}"))? {
        index.add_builtin(builtin_drivers(&config.text));
    }
    let mut closures = Closures::new(&index);
    let wanted = wanted_drivers(&index);
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
        .chain(&FALLBACK_DISKS)
        .chain(&FALLBACK_CARDS)
        .chain(&ELSEWHERE)
        .map(|&name| DriverFacts {
            name: name.to_owned(),
            place: driver_place(&index, &mut closures, inside, name),
        })
        .collect();
    let writing = writing::facts(tree, &index, modules.as_ref(), &image)?;
    Ok(Kernel {
        version: version.to_owned(),
        image,
        writing,
        modules,
        initramfs: None,
        unreadable_initramfs: None,
        drivers,
        closure,
    })
}

/// The drivers whose modules an initramfs gets. The old IDE drivers only where libata has none for
/// the same controller: the one that comes first takes it, and names its disks.
fn wanted_drivers(index: &ModuleIndex) -> Vec<ModuleName> {
    let has_libata = index.presence(&ModuleName::new("ata_piix")) != Presence::Absent;
    let drivers = WANTED.iter().chain(&FALLBACK_DISKS);
    drivers
        .filter(|name| !(has_libata && matches!(**name, "piix" | "ide_disk")))
        .map(|name| ModuleName::new(name))
        .collect()
}

fn missing_module(version: &str, path: &str) -> Finding {
    finding(
        Level::Warning,
        "kernel.module.missing",
        path,
        format!("modules.dep of kernel {version} names a file that is not there"),
    )
    .remedy("reinstall the kernel's package on the server")
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
}
