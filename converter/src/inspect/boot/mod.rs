// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boot loaders, the EFI system partition, and which firmware the guest is installed for.

mod efi;
mod loaders;
mod uki;

use image_library::machine::{Firmware as MachineFirmware, MachineDescription};

use crate::error::Result;
use crate::inspect::inspection::{DiskFacts, EfiFacts, PartitionPurpose};
use crate::inspect::tree::GuestTree;
use crate::vm::Firmware;

pub(crate) use efi::{efi, find_esp};
pub(crate) use loaders::{bootloaders, grub_custom, loader_defaults, read};
pub(crate) use uki::{menu_key, ukis};

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

/// The name of an entry of a directory, in whatever case it is written.
fn child(tree: &GuestTree, directory: &str, name: &str) -> Result<Option<String>> {
    let entries = tree.list(directory)?;
    let mut names = entries.into_iter().map(|entry| entry.name);
    let found = names.find(|known| known.eq_ignore_ascii_case(name));
    Ok(found.map(|name| format!("{}/{name}", directory.trim_end_matches('/'))))
}
