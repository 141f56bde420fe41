// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inventory as a text for people.

use std::fmt::Write;

use image_library::machine::{Disk, Firmware, Interface, Load, MachineDescription, Mount};
use image_library::terminal::bytes_text;

/// The inventory as lines: one idea each, the most important first.
#[must_use]
pub fn inventory_table(machine: &MachineDescription) -> String {
    let mut table = Table::default();
    table.computer(machine);
    for disk in &machine.disks {
        table.disk(disk);
    }
    table.network(machine);
    for mount in &machine.mounts {
        table.line("mount", &mount_text(mount));
    }
    table.line("swap", &listed(&machine.swaps));
    table.line("services", &listed(&machine.enabled_services));
    if let Some(load) = &machine.load {
        table.line("load", &load_text(load));
    }
    table.0
}

#[derive(Default)]
struct Table(String);

impl Table {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{name:<10} {value}");
    }

    fn computer(&mut self, machine: &MachineDescription) {
        self.line("server", &machine.hostname);
        let hardware = machine.hardware.as_deref().unwrap_or("unknown");
        self.line("hardware", hardware);
        self.line("firmware", &firmware(machine));
        let cpu = &machine.cpu;
        let text = format!(
            "{}, {} sockets, {} cores, {} threads",
            cpu.model, cpu.sockets, cpu.cores, cpu.threads
        );
        self.line("cpu", &text);
        self.line("memory", &bytes_text(machine.memory_bytes));
        let os = &machine.os;
        self.line("system", &format!("{}, kernel {}", os.name, os.kernel));
        self.line("kernels", &listed(&os.kernels));
        let generator = os.initramfs_generator.as_deref().unwrap_or("unknown");
        let bootloader = os.bootloader.as_deref().unwrap_or("unknown");
        let text = format!("{bootloader}, initramfs by {generator}");
        self.line("boot", &text);
    }

    fn disk(&mut self, disk: &Disk) {
        self.line("disk", &disk_text(disk));
        for partition in &disk.partitions {
            let filesystem = partition.filesystem.as_deref().unwrap_or("");
            let size = bytes_text(partition.size_bytes);
            let text = format!("{:<12} {size:>10}  {filesystem}", partition.name);
            self.line("", &text);
        }
        if !disk.holders.is_empty() {
            self.line("", &format!("below {}", listed(&disk.holders)));
        }
    }

    fn network(&mut self, machine: &MachineDescription) {
        for interface in &machine.interfaces {
            self.line("network", &interface_text(interface));
        }
        for route in &machine.routes {
            let gateway = route.gateway.as_deref();
            let gateway = gateway.map(|gateway| format!(" by {gateway}"));
            let gateway = gateway.unwrap_or_default();
            let text = format!("{}{gateway} on {}", route.destination, route.interface);
            self.line("route", &text);
        }
    }
}

fn mount_text(mount: &Mount) -> String {
    let used = match (mount.used_bytes, mount.size_bytes) {
        (Some(used), Some(size)) => {
            format!(", {} of {} used", bytes_text(used), bytes_text(size))
        }
        _ => String::new(),
    };
    format!(
        "{} on {} ({}{used})",
        mount.source, mount.target, mount.filesystem
    )
}

fn load_text(load: &Load) -> String {
    format!(
        "cpu {}.{} %, memory {}, disks {}/s read, {}/s written, network {}/s in, {}/s out",
        load.cpu_permille / 10,
        load.cpu_permille % 10,
        bytes_text(load.memory_used_bytes),
        bytes_text(load.disk_read_bytes_per_second),
        bytes_text(load.disk_write_bytes_per_second),
        bytes_text(load.network_receive_bytes_per_second),
        bytes_text(load.network_send_bytes_per_second),
    )
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn firmware(machine: &MachineDescription) -> String {
    let mut text = match machine.firmware {
        Firmware::Bios => "BIOS".to_owned(),
        Firmware::Uefi => "UEFI".to_owned(),
    };
    match machine.secure_boot {
        Some(true) => text.push_str(", Secure Boot on"),
        Some(false) => text.push_str(", Secure Boot off"),
        None => {}
    }
    if let Some(tpm) = &machine.tpm {
        let _ = write!(text, ", TPM {tpm}");
    }
    text
}

fn disk_text(disk: &Disk) -> String {
    let known = [&disk.bus, &disk.model, &disk.serial];
    let known: Vec<&str> = known
        .into_iter()
        .filter_map(|text| text.as_deref())
        .collect();
    let size = bytes_text(disk.size_bytes);
    format!("{:<12} {size:>10}  {}", disk.name, known.join(", "))
}

fn interface_text(interface: &Interface) -> String {
    let mut text = format!("{:<12} {}", interface.name, interface.kind);
    let parts = [
        interface.mac.clone(),
        interface.driver.clone(),
        interface.vlan.map(|vlan| format!("VLAN {vlan}")),
        (!interface.members.is_empty()).then(|| format!("over {}", interface.members.join(" "))),
        interface
            .parent
            .as_ref()
            .map(|parent| format!("in {parent}")),
        (!interface.addresses.is_empty()).then(|| interface.addresses.join(" ")),
    ];
    for part in parts.into_iter().flatten() {
        let _ = write!(text, ", {part}");
    }
    text
}
