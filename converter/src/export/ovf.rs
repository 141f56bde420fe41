// SPDX-License-Identifier: MIT OR Apache-2.0
//! The OVF descriptor of an OVA (DMTF DSP0243, version 1.0 of the namespaces) and its manifest.
//!
//! VMware and VirtualBox read it differently: a controller is known to VMware by `ResourceSubType`,
//! to VirtualBox by `Caption` as well; the elements of an item are in the order of their names, which
//! the schema demands. VMware takes the firmware from `vmw:Config`; VirtualBox ignores that.
//!
//! | resource type | |
//! |---|---|
//! | 3, 4 | processors, memory in MiB |
//! | 5, 6, 20 | controllers: IDE, SCSI, others (SATA) |
//! | 10, 17 | network card, disk |

use std::fmt::Write as _;

use super::hardware::{Card, Controller, Hardware};
use super::xml::Xml;
use super::{Export, system, text};
use crate::vm::Firmware;

const ENVELOPE: &str = "http://schemas.dmtf.org/ovf/envelope/1";
const CIM: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2";
const VMDK: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
/// The controller's own unit on a SCSI bus.
const SCSI_OWN_UNIT: usize = 7;
const FIRST_CONTROLLER: usize = 3;

/// A disk file that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvfFile {
    /// Its size in bytes.
    pub file_bytes: u64,
}

/// The manifest of an OVA: names and SHA-256 digests in hexadecimal, in the order of the archive.
#[must_use]
pub fn manifest(files: &[(String, String)]) -> String {
    let line = |(name, digest): &(String, String)| format!("SHA256({name})= {digest}\n");
    files.iter().map(line).collect()
}

/// Writes the descriptor; the files as far as they are known.
pub(super) fn descriptor(export: &Export<'_>, hardware: &Hardware, files: &[OvfFile]) -> String {
    let mut xml = Xml::new(&comment(export));
    let rasd = format!("{CIM}/CIM_ResourceAllocationSettingData");
    let vssd = format!("{CIM}/CIM_VirtualSystemSettingData");
    xml.open(
        "Envelope",
        &[
            ("xmlns", ENVELOPE),
            ("xmlns:ovf", ENVELOPE),
            ("xmlns:rasd", &rasd),
            ("xmlns:vssd", &vssd),
            ("xmlns:vmw", "http://www.vmware.com/schema/ovf"),
        ],
    );
    references(&mut xml, export, files);
    disks(&mut xml, export);
    networks(&mut xml, export);
    xml.open("VirtualSystem", &[("ovf:id", &export.vm.name)]);
    xml.text("Info", &[], "A virtual machine");
    xml.text("Name", &[], &export.vm.name);
    let (system, number) = system::ovf_names(export.guest);
    let number = number.to_string();
    let attributes = [("ovf:id", &*number), ("vmw:osType", &*system)];
    xml.open("OperatingSystemSection", &attributes);
    xml.text("Info", &[], "The guest's operating system");
    xml.close();
    machine(&mut xml, export, hardware);
    xml.finish()
}

fn comment(export: &Export<'_>) -> Vec<String> {
    let name = &export.vm.name;
    let mut lines = vec![
        format!("{name}: for VMware and VirtualBox."),
        format!(
            "  ovftool {name}.ova vi://USER@HOST/, or \"Deploy OVF template\" in a VMware client"
        ),
        format!("  VBoxManage import {name}.ova"),
    ];
    if export.vm.firmware == Firmware::Uefi {
        lines.push(format!("  VBoxManage modifyvm {name} --firmware efi"));
    }
    if !export.vm.nics.is_empty() {
        lines.push(
            "The guest knows its cards by these MAC addresses; set them before the first start:"
                .into(),
        );
    }
    for (index, nic) in export.vm.nics.iter().enumerate() {
        let mac = text::mac(&nic.mac).unwrap_or_else(|| "unknown".to_owned());
        lines.push(format!(
            "  adapter {}: {mac} ({})",
            index + 1,
            text::comment(&nic.name)
        ));
    }
    lines
}

fn references(xml: &mut Xml, export: &Export<'_>, files: &[OvfFile]) {
    xml.open("References", &[]);
    for (index, disk) in export.disks.iter().enumerate() {
        let id = format!("file{index}");
        let size = files.get(index).map(|file| file.file_bytes.to_string());
        let mut attributes = vec![("ovf:id", id.as_str()), ("ovf:href", &disk.name)];
        if let Some(size) = &size {
            attributes.push(("ovf:size", size));
        }
        xml.empty("File", &attributes);
    }
    xml.close();
}

fn disks(xml: &mut Xml, export: &Export<'_>) {
    xml.open("DiskSection", &[]);
    xml.text("Info", &[], "The virtual disks");
    for (index, disk) in export.disks.iter().enumerate() {
        let (id, file) = (format!("disk{index}"), format!("file{index}"));
        let capacity = disk.size_bytes.to_string();
        xml.empty(
            "Disk",
            &[
                ("ovf:diskId", &*id),
                ("ovf:fileRef", &*file),
                ("ovf:capacity", &*capacity),
                ("ovf:capacityAllocationUnits", "byte"),
                ("ovf:format", VMDK),
            ],
        );
    }
    xml.close();
}

/// The networks that are named, each once.
fn network_names<'a>(export: &Export<'a>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for nic in &export.vm.nics {
        let name = export.networks.of(nic).unwrap_or(NETWORK);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The network that a new ESXi host has.
const NETWORK: &str = "VM Network";

fn networks(xml: &mut Xml, export: &Export<'_>) {
    xml.open("NetworkSection", &[]);
    xml.text("Info", &[], "The networks");
    for name in network_names(export) {
        xml.open("Network", &[("ovf:name", name)]);
        xml.text("Description", &[], name);
        xml.close();
    }
    xml.close();
}

fn machine(xml: &mut Xml, export: &Export<'_>, hardware: &Hardware) {
    let vm = export.vm;
    xml.open("VirtualHardwareSection", &[]);
    xml.text("Info", &[], "The virtual hardware");
    xml.open("System", &[]);
    xml.text("vssd:ElementName", &[], "Virtual Hardware Family");
    xml.text("vssd:InstanceID", &[], "0");
    xml.text("vssd:VirtualSystemIdentifier", &[], &vm.name);
    xml.text("vssd:VirtualSystemType", &[], "vmx-11");
    xml.close();
    let cpus = vm.cpus.to_string();
    let caption = format!("{cpus} virtual CPU");
    item(
        xml,
        "1",
        "3",
        &[
            ("AllocationUnits", "hertz * 10^6"),
            ("Caption", &caption),
            ("VirtualQuantity", &cpus),
        ],
    );
    let memory = text::mebibytes(vm.memory_bytes)
        .next_multiple_of(4)
        .to_string();
    let caption = format!("{memory} MB of memory");
    item(
        xml,
        "2",
        "4",
        &[
            ("AllocationUnits", "byte * 2^20"),
            ("Caption", &caption),
            ("VirtualQuantity", &memory),
        ],
    );
    let next = storage(xml, export, hardware.controller);
    cards(xml, export, hardware.card, next);
    if vm.firmware == Firmware::Uefi {
        configuration(xml, "firmware", "efi");
    }
    xml.close();
}

fn configuration(xml: &mut Xml, key: &str, value: &str) {
    let attributes = [
        ("ovf:required", "false"),
        ("vmw:key", key),
        ("vmw:value", value),
    ];
    xml.empty("vmw:Config", &attributes);
}

/// One item; the values in the order of their names, of which the identity and the type are put in
/// here.
fn item(xml: &mut Xml, instance: &str, kind: &str, values: &[(&str, &str)]) {
    let caption = values.iter().find(|(name, _)| *name == "Caption");
    let caption = caption.map_or("", |(_, caption)| *caption);
    let mut all = values.to_vec();
    all.extend([
        ("ElementName", caption),
        ("InstanceID", instance),
        ("ResourceType", kind),
    ]);
    all.sort_by_key(|(name, _)| *name);
    xml.open("Item", &[]);
    for (name, value) in all {
        xml.text(&format!("rasd:{name}"), &[], value);
    }
    xml.close();
}

/// Controllers, then disks; gives the next free instance.
fn storage(xml: &mut Xml, export: &Export<'_>, controller: Controller) -> usize {
    // The name of the first is what older VirtualBox goes by.
    let (kind, caption, sub_type, each) = match controller {
        Controller::LsiLogic => ("6", "scsiController", "lsilogic", 15),
        Controller::Pvscsi => ("6", "scsiController", "VirtualSCSI", 15),
        Controller::Ide => ("5", "ideController", "PIIX4", 2),
        _ => ("20", "sataController", "vmware.sata.ahci", 30),
    };
    let count = export.disks.len().div_ceil(each);
    for number in 0..count {
        let instance = (FIRST_CONTROLLER + number).to_string();
        let (address, caption) = (number.to_string(), format!("{caption}{number}"));
        item(
            xml,
            &instance,
            kind,
            &[
                ("Address", &address),
                ("Caption", &caption),
                ("ResourceSubType", sub_type),
            ],
        );
    }
    for index in 0..export.disks.len() {
        let mut unit = index % each;
        if kind == "6" && unit >= SCSI_OWN_UNIT {
            unit += 1;
        }
        let instance = (FIRST_CONTROLLER + count + index).to_string();
        let (unit, caption) = (unit.to_string(), format!("disk{index}"));
        let resource = format!("ovf:/disk/disk{index}");
        let parent = (FIRST_CONTROLLER + index / each).to_string();
        item(
            xml,
            &instance,
            "17",
            &[
                ("AddressOnParent", &unit),
                ("Caption", &caption),
                ("HostResource", &resource),
                ("Parent", &parent),
            ],
        );
    }
    FIRST_CONTROLLER + count + export.disks.len()
}

fn cards(xml: &mut Xml, export: &Export<'_>, card: Card, first: usize) {
    let model = match card {
        Card::E1000e => "E1000e",
        Card::E1000 => "E1000",
        _ => "VmxNet3",
    };
    for (index, nic) in export.vm.nics.iter().enumerate() {
        let instance = (first + index).to_string();
        let mut caption = String::new();
        let _ = write!(caption, "Network adapter {}", index + 1);
        let mac = text::mac(&nic.mac);
        let unit = index.to_string();
        let mut values = vec![
            ("AddressOnParent", unit.as_str()),
            ("AutomaticAllocation", "true"),
            ("Caption", &caption),
            ("Connection", export.networks.of(nic).unwrap_or(NETWORK)),
            ("ResourceSubType", model),
        ];
        if let Some(mac) = &mac {
            values.push(("Address", mac));
        }
        item(xml, &instance, "10", &values);
    }
}
