// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel needs to write XFS and btrfs itself, in the small virtual machine.
//!
//! Only looked for where the guest has such a filesystem. Soft dependencies count, and so do the
//! checksums that these filesystems ask the kernel's crypto for by name: there is no modprobe that
//! could load them when they are missed.

use disk::filesystem::FilesystemKind;

use crate::error::Result;
use crate::guest::boot_header::BootHeader;
use crate::guest::compression::{self, Compression};
use crate::guest::kmod::{ModuleIndex, ModuleName, Presence};
use crate::inspect::inspection::{FilePlace, ModuleFacts, WritingFacts};
use crate::inspect::tree::GuestTree;
use crate::vm::DiskController;

/// Disk controllers with what each needs, the best first.
const CONTROLLERS: [(DiskController, &[&str]); 3] = [
    (DiskController::VirtioBlk, &["virtio_pci", "virtio_blk"]),
    (DiskController::Sata, &["ahci", "sd_mod"]),
    (DiskController::Ide, &["ata_piix", "sd_mod"]),
];
/// Filesystems with their modules, and the checksums that each may ask for.
const FILESYSTEMS: [(FilesystemKind, &str, &[&str]); 2] = [
    (FilesystemKind::Xfs, "xfs", &["crypto-crc32c"]),
    (
        FilesystemKind::Btrfs,
        "btrfs",
        &[
            "crypto-crc32c",
            "crypto-xxhash64",
            "crypto-sha256",
            "crypto-blake2b-256",
        ],
    ),
];
const MODULE_BYTES_MAX: u64 = 64 << 20;
const IMAGE_BYTES_MAX: u64 = 256 << 20;
/// `EI_CLASS` and `e_machine` of an ELF file.
const ELF_X86_64: (u8, [u8; 2]) = (2, [62, 0]);

/// `None` where the guest has no filesystem that only its kernel writes.
pub(super) fn facts(
    tree: &GuestTree,
    index: &ModuleIndex,
    directory: Option<&FilePlace>,
    image: &FilePlace,
) -> Result<Option<WritingFacts>> {
    let there = kinds(tree);
    if there.is_empty() {
        return Ok(None);
    }
    let is_there = |name: &&str| index.presence(&ModuleName::new(name)) != Presence::Absent;
    let mut wanted: Vec<ModuleName> = Vec::new();
    let controller = CONTROLLERS
        .iter()
        .find(|(_, names)| names.iter().all(&is_there));
    if let Some((_, names)) = controller {
        wanted.extend(names.iter().map(|name| ModuleName::new(name)));
    }
    let mut filesystems = Vec::new();
    for (kind, name, checksums) in FILESYSTEMS {
        if there.contains(&kind) && is_there(&name) {
            wanted.extend(checksums.iter().flat_map(|alias| index.lookup(alias)));
            wanted.push(ModuleName::new(name));
            filesystems.push(kind);
        }
    }
    let modules = modules(tree, index, directory, &wanted)?;
    Ok(Some(WritingFacts {
        is_64_bit: is_64_bit(tree, &modules, image)?,
        controller: controller.map(|(controller, _)| *controller),
        filesystems,
        modules,
    }))
}

/// The filesystems of the guest that only its kernel writes.
fn kinds(tree: &GuestTree) -> Vec<FilesystemKind> {
    let volumes = tree.volumes();
    let kinds = volumes
        .iter()
        .filter_map(|volume| Some(tree.filesystem(*volume)?.identity().kind));
    kinds
        .filter(|kind| matches!(kind, FilesystemKind::Xfs | FilesystemKind::Btrfs))
        .collect()
}

fn modules(
    tree: &GuestTree,
    index: &ModuleIndex,
    directory: Option<&FilePlace>,
    wanted: &[ModuleName],
) -> Result<Vec<ModuleFacts>> {
    let Some(directory) = directory else {
        return Ok(Vec::new());
    };
    let mut modules = Vec::new();
    for name in index.closure(wanted).modules {
        let Some(facts) = index.facts(&name) else {
            continue;
        };
        let full = format!("{}/{}", directory.guest_path, facts.path);
        // What is missing is told when it is missed.
        if let Some((file, metadata)) = tree.metadata(&full)? {
            modules.push(ModuleFacts {
                name: name.as_str().to_owned(),
                path: facts.path.clone(),
                file,
                size_bytes: metadata.size_bytes,
                in_initramfs: false,
            });
        }
    }
    Ok(modules)
}

/// By a module where there is one, else by the image.
fn is_64_bit(tree: &GuestTree, modules: &[ModuleFacts], image: &FilePlace) -> Result<Option<bool>> {
    let smallest = modules.iter().min_by_key(|module| module.size_bytes);
    if let Some(module) = smallest {
        let bytes = tree.read_place(&module.file, MODULE_BYTES_MAX)?;
        let bytes = match Compression::detect(&bytes) {
            Compression::None => bytes,
            packed => match compression::decompress(&bytes, packed, MODULE_BYTES_MAX) {
                Ok((bytes, _)) => bytes,
                // It will be told when it is to be loaded.
                Err(_) => return Ok(None),
            },
        };
        return Ok(elf_is_64_bit(&bytes));
    }
    let bytes = tree.read_place(image, IMAGE_BYTES_MAX)?;
    Ok(BootHeader::read(&bytes).and_then(|header| header.is_64_bit()))
}

fn elf_is_64_bit(bytes: &[u8]) -> Option<bool> {
    let class = *bytes.strip_prefix(b"\x7fELF")?.first()?;
    Some((class, *bytes.get(18..)?.first_chunk()?) == ELF_X86_64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_header_tells_its_bits() {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(18, 0);
        elf.extend([62, 0]);
        assert_eq!(elf_is_64_bit(&elf), Some(true));
        elf[4] = 1;
        assert_eq!(elf_is_64_bit(&elf), Some(false));
        assert_eq!(elf_is_64_bit(b"\x7fELF\x02"), None);
        assert_eq!(elf_is_64_bit(b"text"), None);
    }
}
