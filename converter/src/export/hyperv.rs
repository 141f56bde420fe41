// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PowerShell script that makes a machine of Hyper-V, which has no file format of its own to
//! define one.
//!
//! BIOS is generation 1, which starts from IDE only and has room for four disks there; those behind
//! them are on SCSI. UEFI is generation 2, with SCSI only.

use std::fmt::Write as _;

use super::hardware::{Card, Hardware};
use super::{Export, text};
use crate::vm::Firmware;

const IDE_DISKS: usize = 4;
/// Hyper-V wants memory in multiples of 2 MiB.
const MEMORY_MEBIBYTES: u64 = 2;

/// Writes the script.
pub(super) fn script(export: &Export<'_>, hardware: &Hardware) -> String {
    let vm = export.vm;
    let name = &vm.name;
    let generation = match vm.firmware {
        Firmware::Bios => 1,
        Firmware::Uefi => 2,
    };
    let memory = text::mebibytes(vm.memory_bytes).next_multiple_of(MEMORY_MEBIBYTES);
    let mut text = format!(
        "# {name}: a machine of Hyper-V. As an administrator, in the directory of these files, where the \
         disks will stay:\n\
         #   powershell -ExecutionPolicy Bypass -File {name}.ps1\n\
         #   Start-VM {name}\n\
         # The guest expects its hardware clock in {}.\n\
         $ErrorActionPreference = 'Stop'\n\
         $vm = New-VM -Name {} -Generation {generation} -MemoryStartupBytes {memory}MB -NoVHD\n\
         Set-VM -VM $vm -ProcessorCount {} -StaticMemory -AutomaticCheckpointsEnabled $false\n\
         Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter\n\
         Get-VMDvdDrive -VM $vm | Remove-VMDvdDrive\n",
        if vm.clock_utc { "UTC" } else { "local time" },
        quoted(name),
        vm.cpus
    );
    disks(export, &mut text);
    cards(export, hardware.card, &mut text);
    if vm.firmware == Firmware::Uefi {
        text.push_str(
            "Set-VMFirmware -VM $vm -EnableSecureBoot Off -FirstBootDevice \
             (Get-VMHardDiskDrive -VM $vm | Select-Object -First 1)\n",
        );
    }
    let pipe = format!(r"\\.\pipe\{name}-serial");
    let _ = writeln!(
        text,
        "Set-VMComPort -VM $vm -Number 1 -Path {}",
        quoted(&pipe)
    );
    text
}

/// Between single quotes nothing has a meaning but the quote, of which there are more than one.
fn quoted(value: &str) -> String {
    let mut quoted = String::from("'");
    for c in value.chars() {
        match c {
            '\'' | '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}' => quoted.extend([c, c]),
            c if c.is_control() => quoted.push('?'),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

fn disks(export: &Export<'_>, text: &mut String) {
    for (index, disk) in export.disks.iter().enumerate() {
        let place = match (export.vm.firmware, index) {
            (Firmware::Bios, 0..IDE_DISKS) => format!(
                "-ControllerType IDE -ControllerNumber {} -ControllerLocation {}",
                index / 2,
                index % 2
            ),
            (Firmware::Bios, _) => format!(
                "-ControllerType SCSI -ControllerNumber 0 -ControllerLocation {}",
                index - IDE_DISKS
            ),
            (Firmware::Uefi, _) => {
                format!("-ControllerType SCSI -ControllerNumber 0 -ControllerLocation {index}")
            }
        };
        let path = quoted(&disk.name);
        let _ = writeln!(
            text,
            "Add-VMHardDiskDrive -VM $vm {place} -Path (Join-Path $PSScriptRoot {path})"
        );
    }
}

fn cards(export: &Export<'_>, card: Card, text: &mut String) {
    let legacy = match card {
        Card::Dec21140 => " -IsLegacy $true",
        _ => "",
    };
    for (index, nic) in export.vm.nics.iter().enumerate() {
        // Names from the guest stay out of a program.
        let mac = text::mac(&nic.mac).map(|mac| mac.replace(':', "").to_uppercase());
        let mac = mac.map_or_else(String::new, |mac| format!(" -StaticMacAddress {mac}"));
        let switch = export.networks.of(nic).unwrap_or("Default Switch");
        let _ = writeln!(
            text,
            "Add-VMNetworkAdapter -VM $vm -Name nic{index}{legacy} -SwitchName {}{mac}",
            quoted(switch)
        );
    }
}
