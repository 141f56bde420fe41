// SPDX-License-Identifier: MIT OR Apache-2.0
//! A libvirt domain (<https://libvirt.org/formatdomain.html>).
//!
//! The architecture is x86_64 for 32-bit guests too: the processor runs them as well, and the other
//! QEMU need not be installed. On a Q35 board libvirt puts virtio devices on PCI Express, where they
//! have only the interface of virtio 1.0; a guest that is older gets transitional ones.

use super::hardware::{Card, Controller, Hardware};
use super::kernel::Kernel;
use super::network::BRIDGE;
use super::xml::Xml;
use super::{DiskFile, DiskFormat, Export, text};
use crate::vm::{Firmware, Mainboard, VmNic};

/// Writes the domain.
pub(super) fn domain_xml(export: &Export<'_>, hardware: &Hardware) -> String {
    let vm = export.vm;
    let mut xml = Xml::new(&comment(export));
    xml.open("domain", &[("type", "kvm")]);
    xml.text("name", &[], &vm.name);
    xml.text("uuid", &[], &text::machine_uuid(&vm.name).to_string());
    // libvirt's own unit: some readers take any other one for it (virt-v2v 2.2).
    let memory = text::mebibytes(vm.memory_bytes) * 1024;
    xml.text("memory", &[("unit", "KiB")], &memory.to_string());
    xml.text("vcpu", &[], &vm.cpus.to_string());
    system(&mut xml, export, hardware);
    xml.open("features", &[]);
    xml.empty("acpi", &[]);
    xml.empty("apic", &[]);
    xml.close();
    xml.empty("cpu", &[("mode", "host-model")]);
    let offset = if vm.clock_utc { "utc" } else { "localtime" };
    xml.open("clock", &[("offset", offset)]);
    xml.empty("timer", &[("name", "rtc"), ("tickpolicy", "catchup")]);
    xml.empty("timer", &[("name", "pit"), ("tickpolicy", "delay")]);
    xml.empty("timer", &[("name", "hpet"), ("present", "no")]);
    xml.close();
    xml.open("devices", &[]);
    devices(&mut xml, export, hardware);
    xml.finish()
}

fn comment(export: &Export<'_>) -> Vec<String> {
    let (name, directory) = (&export.vm.name, text::comment(export.directory));
    vec![
        format!(
            "{name}: a libvirt domain. Its disks are in {directory}: where they are moved, change"
        ),
        "the paths below. The user of libvirt's QEMU must be allowed to read and write them."
            .to_owned(),
        format!("  virsh define {name}.xml"),
        format!("  virsh start {name}"),
    ]
}

fn system(xml: &mut Xml, export: &Export<'_>, hardware: &Hardware) {
    let machine = match (export.vm.mainboard, hardware.controller) {
        (Mainboard::Pc, _) | (_, Controller::Ide) => "pc",
        (Mainboard::Q35, _) => "q35",
    };
    let kind = [("arch", "x86_64"), ("machine", machine)];
    match export.vm.firmware {
        Firmware::Bios => {
            xml.open("os", &[]);
            xml.text("type", &kind, "hvm");
        }
        Firmware::Uefi => {
            xml.open("os", &[("firmware", "efi")]);
            xml.text("type", &kind, "hvm");
            xml.open("firmware", &[]);
            xml.empty("feature", &[("enabled", "no"), ("name", "secure-boot")]);
            xml.close();
        }
    }
    if let Some(kernel) = Kernel::of(export) {
        xml.text("kernel", &[], &kernel.path);
        if let Some(initramfs) = &kernel.initramfs {
            xml.text("initrd", &[], initramfs);
        }
        xml.text("cmdline", &[], &kernel.command_line);
    }
    xml.close();
}

fn devices(xml: &mut Xml, export: &Export<'_>, hardware: &Hardware) {
    let is_q35 = export.vm.mainboard == Mainboard::Q35 && hardware.controller != Controller::Ide;
    // On the older board every virtio device has both interfaces.
    let virtio = match hardware.old_virtio && is_q35 {
        true => "virtio-transitional",
        false => "virtio",
    };
    let scsi = match hardware.controller {
        Controller::VirtioScsi if virtio == "virtio" => Some("virtio-scsi"),
        Controller::VirtioScsi => Some(virtio),
        Controller::Lsi53c895a => Some("lsilogic"),
        _ => None,
    };
    for (index, disk) in export.disks.iter().enumerate() {
        device_disk(xml, export, hardware.controller, virtio, (index, disk));
    }
    if let Some(model) = scsi {
        let controllers = export
            .disks
            .len()
            .div_ceil(hardware.controller.disks_each());
        for index in 0..controllers.max(1) {
            let index = index.to_string();
            let attributes = [("type", "scsi"), ("index", &*index), ("model", model)];
            xml.empty("controller", &attributes);
        }
    }
    for nic in &export.vm.nics {
        interface(xml, export, card_model(hardware.card, virtio), nic);
    }
    xml.open("serial", &[("type", "pty")]);
    xml.empty("target", &[("port", "0")]);
    xml.close();
    xml.open("console", &[("type", "pty")]);
    xml.empty("target", &[("type", "serial"), ("port", "0")]);
    xml.close();
    let vnc = [
        ("type", "vnc"),
        ("autoport", "yes"),
        ("listen", "127.0.0.1"),
    ];
    xml.empty("graphics", &vnc);
    xml.open("video", &[]);
    xml.empty("model", &[("type", "vga")]);
    xml.close();
    let is_virtio = hardware.card == Card::Virtio;
    xml.empty(
        "memballoon",
        &[("model", if is_virtio { virtio } else { "none" })],
    );
    if is_virtio {
        xml.open("rng", &[("model", virtio)]);
        xml.text("backend", &[("model", "random")], "/dev/urandom");
        xml.close();
    }
}

fn device_disk(
    xml: &mut Xml,
    export: &Export<'_>,
    controller: Controller,
    virtio: &str,
    (index, disk): (usize, &DiskFile),
) {
    let (bus, prefix) = match controller {
        Controller::Sata => ("sata", "sd"),
        Controller::Ide => ("ide", "hd"),
        Controller::VirtioScsi | Controller::Lsi53c895a => ("scsi", "sd"),
        _ => ("virtio", "vd"),
    };
    let mut attributes = vec![("type", "file"), ("device", "disk")];
    if bus == "virtio" && virtio != "virtio" {
        attributes.push(("model", virtio));
    }
    let format = match disk.format {
        DiskFormat::Qcow2 => "qcow2",
        _ => "raw",
    };
    xml.open("disk", &attributes);
    xml.empty(
        "driver",
        &[("name", "qemu"), ("type", format), ("discard", "unmap")],
    );
    let path = format!("{}/{}", export.directory.trim_end_matches('/'), disk.name);
    xml.empty("source", &[("file", &*path)]);
    let sector = disk.sector_size.bytes().to_string();
    if disk.sector_size.bytes() != 512 {
        let sizes = [
            ("logical_block_size", &*sector),
            ("physical_block_size", &*sector),
        ];
        xml.empty("blockio", &sizes);
    }
    let device = format!("{prefix}{}", text::letters(index));
    xml.empty("target", &[("dev", &*device), ("bus", bus)]);
    if let Some(serial) = &disk.serial {
        xml.text("serial", &[], serial);
    }
    xml.empty("boot", &[("order", &*(index + 1).to_string())]);
    xml.close();
}

fn card_model(card: Card, virtio: &str) -> &str {
    match card {
        Card::E1000e => "e1000e",
        Card::E1000 => "e1000",
        Card::Rtl8139 => "rtl8139",
        _ => virtio,
    }
}

/// `bridge:br0` is a bridge of the host, anything else a network of libvirt.
fn interface(xml: &mut Xml, export: &Export<'_>, model: &str, nic: &VmNic) {
    let network = export.networks.as_named(nic).unwrap_or("default");
    let (kind, network) = match network.strip_prefix(BRIDGE) {
        Some(bridge) => ("bridge", bridge),
        None => ("network", network),
    };
    xml.open("interface", &[("type", kind)]);
    if let Some(mac) = text::mac(&nic.mac) {
        xml.empty("mac", &[("address", &*mac)]);
    }
    xml.empty("source", &[(kind, network)]);
    xml.empty("model", &[("type", model)]);
    // Nothing here boots from the network.
    xml.empty("rom", &[("enabled", "no")]);
    xml.close();
}
