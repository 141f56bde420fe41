// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine of VMware as a VMX file, for virtual hardware version 11 (ESXi 6.0, Workstation 11), the
//! first that every product in use knows.

use std::fmt::Write as _;

use super::hardware::{Card, Controller, Hardware};
use super::{Export, system, text};
use crate::vm::Firmware;

/// The unit of a SCSI bus that is the controller's own.
const SCSI_OWN_UNIT: usize = 7;
/// VMware wants memory in multiples of this, in MiB.
const MEMORY_MEBIBYTES: u64 = 4;

/// Writes the file.
pub(super) fn configuration(export: &Export<'_>, hardware: &Hardware) -> String {
    let vm = export.vm;
    let mut text = comment(export);
    let mut line = |key: &str, value: &str| _ = writeln!(text, "{key} = \"{}\"", escaped(value));
    line(".encoding", "UTF-8");
    line("config.version", "8");
    line("virtualHW.version", "11");
    line("displayName", &vm.name);
    line("guestOS", &system::vmx_name(export.guest));
    line("uuid.bios", &uuid(&vm.name));
    // Without it a copied machine is asked about, and its identity changed.
    line("uuid.action", "keep");
    line(
        "firmware",
        match vm.firmware {
            Firmware::Bios => "bios",
            Firmware::Uefi => "efi",
        },
    );
    line("numvcpus", &vm.cpus.to_string());
    let memory = text::mebibytes(vm.memory_bytes).next_multiple_of(MEMORY_MEBIBYTES);
    line("memSize", &memory.to_string());
    if vm.clock_utc {
        line("rtc.diffFromUTC", "0");
    }
    // Cards and controllers of PCI Express have no slot without these.
    line("pciBridge0.present", "TRUE");
    for bridge in 4..8 {
        line(&format!("pciBridge{bridge}.present"), "TRUE");
        line(&format!("pciBridge{bridge}.virtualDev"), "pcieRootPort");
        line(&format!("pciBridge{bridge}.functions"), "8");
    }
    disks(export, hardware.controller, &mut line);
    cards(export, hardware.card, &mut line);
    line("serial0.present", "TRUE");
    line("serial0.fileType", "file");
    line("serial0.fileName", &format!("{}-serial.log", vm.name));
    line("serial0.tryNoRxLoss", "FALSE");
    text
}

fn comment(export: &Export<'_>) -> String {
    let name = &export.vm.name;
    let mut text = format!(
        "# {name}: a machine of VMware. Workstation and Player open it as it is, in the directory of \
         these files. For ESXi, copy\n# the directory to a datastore, and there:\n"
    );
    text.push_str(
        "#   for disk in disk*.vmdk; do\n\
         #     vmkfstools -i $disk -d thin new.vmdk && vmkfstools -U $disk && vmkfstools -E new.vmdk $disk\n\
         #   done\n",
    );
    let _ = writeln!(text, "#   vim-cmd solo/registervm \"$PWD/{name}.vmx\"");
    text
}

/// A pipe and two digits stand for a character.
fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        match c {
            '"' | '|' | '#' => _ = write!(escaped, "|{:02X}", u32::from(c)),
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Sixteen bytes in hexadecimal, a dash in the middle.
fn uuid(name: &str) -> String {
    let uuid = text::machine_uuid(name);
    let bytes: Vec<String> = uuid
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}-{}", bytes[..8].join(" "), bytes[8..].join(" "))
}

fn disks(export: &Export<'_>, controller: Controller, line: &mut dyn FnMut(&str, &str)) {
    let (bus, kind, each) = match controller {
        Controller::Pvscsi => ("scsi", Some("pvscsi"), controller.disks_each()),
        Controller::LsiLogic => ("scsi", Some("lsilogic"), controller.disks_each()),
        Controller::Ide => ("ide", None, 2),
        _ => ("sata", None, controller.disks_each()),
    };
    for number in 0..export.disks.len().div_ceil(each) {
        line(&format!("{bus}{number}.present"), "TRUE");
        if let Some(kind) = kind {
            line(&format!("{bus}{number}.virtualDev"), kind);
        }
    }
    for (index, disk) in export.disks.iter().enumerate() {
        let mut unit = index % each;
        if bus == "scsi" && unit >= SCSI_OWN_UNIT {
            unit += 1;
        }
        let device = format!("{bus}{}:{unit}", index / each);
        line(&format!("{device}.present"), "TRUE");
        line(&format!("{device}.fileName"), &disk.name);
    }
}

fn cards(export: &Export<'_>, card: Card, line: &mut dyn FnMut(&str, &str)) {
    let model = match card {
        Card::E1000 => "e1000",
        Card::E1000e => "e1000e",
        _ => "vmxnet3",
    };
    for (index, nic) in export.vm.nics.iter().enumerate() {
        let device = format!("ethernet{index}");
        line(&format!("{device}.present"), "TRUE");
        line(&format!("{device}.virtualDev"), model);
        line(&format!("{device}.startConnected"), "TRUE");
        match export.networks.of(nic) {
            Some(network) => {
                line(&format!("{device}.connectionType"), "custom");
                // What ESXi goes by, and what Workstation goes by.
                line(&format!("{device}.networkName"), network);
                line(&format!("{device}.vnet"), network);
            }
            None => {
                line(&format!("{device}.connectionType"), "bridged");
                line(&format!("{device}.networkName"), "VM Network");
            }
        }
        if let Some(mac) = text::mac(&nic.mac) {
            line(&format!("{device}.addressType"), "static");
            line(&format!("{device}.address"), &mac);
            // It is not one of VMware's own.
            line(&format!("{device}.checkMACAddress"), "FALSE");
        }
    }
}
