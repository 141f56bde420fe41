// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boot loaders, the EFI system partition, and which firmware the guest is installed for.

use disk::filesystem::{FileType, Filesystem, FilesystemKind};
use image_library::machine::{Firmware as MachineFirmware, MachineDescription};

use crate::error::{Error, Result};
use crate::inspect::inspection::{
    Bootloader, BootloaderKind, DiskFacts, EfiFacts, PartitionPurpose, VolumeFacts,
};
use crate::inspect::tree::GuestTree;
use crate::vm::Firmware;

/// The directories below `/EFI` that are looked into.
const EFI_DIRECTORIES_MAX: usize = 32;

/// Every boot loader whose configuration is there.
pub(crate) fn bootloaders(tree: &GuestTree) -> Result<Vec<Bootloader>> {
    const FILES: [(&str, BootloaderKind); 9] = [
        ("/boot/grub/grub.cfg", BootloaderKind::Grub2),
        ("/boot/grub2/grub.cfg", BootloaderKind::Grub2),
        ("/boot/grub/menu.lst", BootloaderKind::GrubLegacy),
        ("/boot/grub/grub.conf", BootloaderKind::GrubLegacy),
        ("/etc/lilo.conf", BootloaderKind::Lilo),
        ("/boot/extlinux/extlinux.conf", BootloaderKind::Extlinux),
        ("/boot/loader/loader.conf", BootloaderKind::SystemdBoot),
        ("/boot/efi/loader/loader.conf", BootloaderKind::SystemdBoot),
        ("/efi/loader/loader.conf", BootloaderKind::SystemdBoot),
    ];
    let mut found: Vec<Bootloader> = Vec::new();
    for (path, kind) in FILES {
        let Some(configuration) = tree.text(path)? else {
            continue;
        };
        if found
            .iter()
            .any(|known| known.configuration.place == configuration.place)
        {
            continue;
        }
        let bls = configuration
            .text
            .lines()
            .any(|line| line.trim_start().starts_with("blscfg"));
        let kind = if bls { BootloaderKind::Bls } else { kind };
        found.push(Bootloader {
            kind,
            configuration,
        });
    }
    Ok(found)
}

/// What is on the EFI system partition.
pub(crate) fn efi(tree: &GuestTree, disks: &[DiskFacts]) -> Result<Option<EfiFacts>> {
    let is_fat = |volume: &VolumeFacts| {
        volume
            .content
            .as_ref()
            .is_some_and(|content| content.kind == FilesystemKind::Fat)
    };
    let mounted = tree.resolve("/boot/efi/EFI")?.map(|place| place.volume);
    let volume = disks
        .iter()
        .flat_map(|disk| &disk.volumes)
        .filter(|volume| is_fat(volume))
        .filter(|volume| {
            volume.purpose == PartitionPurpose::EfiSystem || mounted == Some(volume.id)
        })
        .map(|volume| volume.id)
        .next();
    let Some(volume) = volume else {
        return Ok(None);
    };
    let Some(filesystem) = tree.filesystem(volume) else {
        return Ok(None);
    };
    let loaders = loaders(filesystem).map_err(Error::guest(volume.to_string()))?;
    let removable = |path: &String| {
        let path = path.to_ascii_lowercase();
        path == "/efi/boot/bootx64.efi" || path == "/efi/boot/bootia32.efi"
    };
    Ok(Some(EfiFacts {
        volume,
        removable_loader: loaders.iter().any(removable),
        loaders,
    }))
}

fn loaders(filesystem: &dyn Filesystem) -> disk::Result<Vec<String>> {
    let mut loaders = Vec::new();
    let root = filesystem.read_directory("/")?;
    let Some(efi) = root
        .iter()
        .find(|entry| entry.name.eq_ignore_ascii_case("EFI"))
    else {
        return Ok(loaders);
    };
    let efi = format!("/{}", efi.name);
    for vendor in filesystem
        .read_directory(&efi)?
        .iter()
        .take(EFI_DIRECTORIES_MAX)
    {
        if vendor.file_type != FileType::Directory {
            continue;
        }
        let directory = format!("{efi}/{}", vendor.name);
        for file in filesystem.read_directory(&directory)? {
            if file.name.to_ascii_lowercase().ends_with(".efi") {
                loaders.push(format!("{directory}/{}", file.name));
            }
        }
    }
    Ok(loaders)
}

/// How the guest starts, and what tells so.
pub(crate) fn firmware(
    tree: &GuestTree,
    disks: &[DiskFacts],
    efi: Option<&EfiFacts>,
    machine: Option<&MachineDescription>,
) -> Result<(Firmware, String)> {
    if let Some(machine) = machine {
        let firmware = match machine.firmware {
            MachineFirmware::Bios => Firmware::Bios,
            MachineFirmware::Uefi => Firmware::Uefi,
        };
        return Ok((firmware, "the machine description".to_owned()));
    }
    let grub_for = |platform: &str| -> Result<bool> {
        Ok(tree.exists(&format!("/boot/grub/{platform}"))?
            || tree.exists(&format!("/boot/grub2/{platform}"))?)
    };
    let for_uefi = grub_for("x86_64-efi")? || grub_for("i386-efi")?;
    let for_bios = grub_for("i386-pc")?;
    let evidence = |firmware, text: &str| Ok((firmware, text.to_owned()));
    match (for_uefi, for_bios) {
        (true, false) => return evidence(Firmware::Uefi, "GRUB is installed for UEFI only"),
        (false, true) => return evidence(Firmware::Bios, "GRUB is installed for BIOS only"),
        _ => {}
    }
    let bios_boot = disks
        .iter()
        .flat_map(|disk| &disk.volumes)
        .any(|volume| volume.purpose == PartitionPurpose::BiosBoot);
    match efi {
        _ if bios_boot => evidence(Firmware::Bios, "there is a BIOS boot partition"),
        Some(efi) if !efi.loaders.is_empty() => evidence(
            Firmware::Uefi,
            "there are loaders on an EFI system partition",
        ),
        _ => evidence(
            Firmware::Bios,
            "there is no loader on an EFI system partition",
        ),
    }
}
