// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine of Proxmox VE: what `/etc/pve/qemu-server/VMID.conf` holds (`man qm.conf`).
//!
//! A configuration can name disks only where a storage has them already. So the lines for the disks,
//! which are `qm` commands that import them, stand in the comment; Proxmox VE keeps a comment as
//! the machine's notes.

use std::fmt::Write as _;

use super::hardware::{Card, Controller, Hardware};
use super::{DiskFile, Export, text};
use crate::vm::{Firmware, Mainboard};

/// What stands in the commands for what the reader chooses.
const VMID: &str = "100";
const STORAGE: &str = "local-lvm";

/// Writes the configuration.
pub(super) fn configuration(export: &Export<'_>, hardware: &Hardware) -> String {
    let vm = export.vm;
    let mut text = comment(export, hardware);
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name}: {value}");
    line("name", &text::kubernetes_name(&vm.name));
    let kernel = export.guest.kernel.as_deref();
    line(
        "ostype",
        match kernel {
            Some(version) if version.starts_with("2.4.") => "l24",
            Some(_) => "l26",
            None => "other",
        },
    );
    match vm.firmware {
        Firmware::Bios => line("bios", "seabios"),
        Firmware::Uefi => line("bios", "ovmf"),
    }
    if vm.mainboard == Mainboard::Q35 && hardware.controller != Controller::Ide {
        line("machine", "q35");
    } else {
        line("machine", "pc");
    }
    line("cpu", "host");
    line("sockets", "1");
    line("cores", &vm.cpus.to_string());
    line("memory", &text::mebibytes(vm.memory_bytes).to_string());
    line("balloon", "0");
    line("localtime", if vm.clock_utc { "0" } else { "1" });
    line("scsihw", scsi_controller(hardware.controller));
    let sectors = sector_arguments(export, hardware.controller);
    if !sectors.is_empty() {
        line("args", &sectors);
    }
    for (index, nic) in vm.nics.iter().enumerate() {
        let bridge = export.networks.of(nic).unwrap_or("vmbr0");
        let model = model(hardware.card);
        let model = match text::mac(&nic.mac) {
            Some(mac) => format!("{model}={}", mac.to_uppercase()),
            None => model.to_owned(),
        };
        line(&format!("net{index}"), &format!("{model},bridge={bridge}"));
    }
    line("serial0", "socket");
    line("vga", "std");
    let uuid = text::machine_uuid(&vm.name);
    line("smbios1", &format!("uuid={uuid}"));
    text
}

fn comment(export: &Export<'_>, hardware: &Hardware) -> String {
    let name = &export.vm.name;
    let mut text = format!(
        "# {name}: a machine of Proxmox VE. On a node, in the directory of these files, with a free \
         number for {VMID} and a\n# storage of yours for {STORAGE}:\n"
    );
    let mut line = |command: String| _ = writeln!(text, "#   {command}");
    line(format!("cp {name}.conf /etc/pve/qemu-server/{VMID}.conf"));
    if export.vm.firmware == Firmware::Uefi {
        line(format!(
            "qm set {VMID} --efidisk0 {STORAGE}:1,efitype=4m,pre-enrolled-keys=0"
        ));
    }
    for (index, disk) in export.disks.iter().enumerate() {
        line(import(hardware.controller, index, disk));
    }
    line(format!(
        "qm set {VMID} --boot order={}",
        slot(hardware.controller, 0)
    ));
    line(format!("qm start {VMID}"));
    text
}

fn import(controller: Controller, index: usize, disk: &DiskFile) -> String {
    let serial = disk.serial.as_ref();
    let serial = serial.map_or_else(String::new, |serial| format!(",serial={serial}"));
    let discard = match controller {
        Controller::Ide => "",
        _ => ",discard=on",
    };
    format!(
        "qm set {VMID} --{} \"{STORAGE}:0,import-from=$PWD/{}{discard}{serial}\"",
        slot(controller, index),
        disk.name
    )
}

fn slot(controller: Controller, index: usize) -> String {
    let bus = match controller {
        Controller::Sata => "sata",
        Controller::Ide => "ide",
        Controller::VirtioScsi | Controller::Lsi53c895a => "scsi",
        _ => "virtio",
    };
    format!("{bus}{index}")
}

const fn scsi_controller(controller: Controller) -> &'static str {
    match controller {
        Controller::Lsi53c895a => "lsi",
        _ => "virtio-scsi-pci",
    }
}

const fn model(card: Card) -> &'static str {
    match card {
        Card::E1000e => "e1000e",
        Card::E1000 => "e1000",
        Card::Rtl8139 => "rtl8139",
        _ => "virtio",
    }
}

/// Proxmox VE has no setting for sectors; QEMU is told behind its back, by the names that
/// Proxmox VE gives to the devices.
fn sector_arguments(export: &Export<'_>, controller: Controller) -> String {
    let large = export.disks.iter().enumerate().filter_map(|(index, disk)| {
        let bytes = disk.sector_size.bytes();
        let slot = slot(controller, index);
        (bytes != 512).then(|| {
            format!(
                "-set device.{slot}.logical_block_size={bytes} \
                 -set device.{slot}.physical_block_size={bytes}"
            )
        })
    });
    large.collect::<Vec<_>>().join(" ")
}
