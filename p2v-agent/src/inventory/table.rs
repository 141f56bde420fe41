// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inventory as a text for people.

use std::fmt::Write;

use image_library::machine::{Disk, Firmware, Interface, MachineDescription};
use image_library::terminal::bytes_text;

/// The inventory as lines: one idea each, the most important first.
#[must_use]
pub fn inventory_table(machine: &MachineDescription) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("server", &machine.hostname);
    line("hardware", machine.hardware.as_deref().unwrap_or("unknown"));
    line("firmware", &firmware(machine));
    let cpu = &machine.cpu;
    line(
        "cpu",
        &format!(
            "{}, {} sockets, {} cores, {} threads",
            cpu.model, cpu.sockets, cpu.cores, cpu.threads
        ),
    );
    line("memory", &bytes_text(machine.memory_bytes));
    let os = &machine.os;
    line("system", &format!("{}, kernel {}", os.name, os.kernel));
    line("kernels", &listed(&os.kernels));
    let generator = os.initramfs_generator.as_deref().unwrap_or("unknown");
    let bootloader = os.bootloader.as_deref().unwrap_or("unknown");
    line("boot", &format!("{bootloader}, initramfs by {generator}"));
    for disk in &machine.disks {
        line("disk", &disk_text(disk));
        for partition in &disk.partitions {
            let filesystem = partition.filesystem.as_deref().unwrap_or("");
            let size = bytes_text(partition.size_bytes);
            line(
                "",
                &format!("{:<12} {size:>10}  {filesystem}", partition.name),
            );
        }
        if !disk.holders.is_empty() {
            line("", &format!("below {}", listed(&disk.holders)));
        }
    }
    for interface in &machine.interfaces {
        line("network", &interface_text(interface));
    }
    for route in &machine.routes {
        let gateway = route
            .gateway
            .as_deref()
            .map(|gateway| format!(" by {gateway}"));
        let gateway = gateway.unwrap_or_default();
        line(
            "route",
            &format!("{}{gateway} on {}", route.destination, route.interface),
        );
    }
    for mount in &machine.mounts {
        let used = match (mount.used_bytes, mount.size_bytes) {
            (Some(used), Some(size)) => {
                format!(", {} of {} used", bytes_text(used), bytes_text(size))
            }
            _ => String::new(),
        };
        line(
            "mount",
            &format!(
                "{} on {} ({}{used})",
                mount.source, mount.target, mount.filesystem
            ),
        );
    }
    line("swap", &listed(&machine.swaps));
    line("services", &listed(&machine.enabled_services));
    if let Some(load) = &machine.load {
        let text = format!(
            "cpu {}.{} %, memory {}, disks {}/s read, {}/s written, network {}/s in, {}/s out",
            load.cpu_permille / 10,
            load.cpu_permille % 10,
            bytes_text(load.memory_used_bytes),
            bytes_text(load.disk_read_bytes_per_second),
            bytes_text(load.disk_write_bytes_per_second),
            bytes_text(load.network_receive_bytes_per_second),
            bytes_text(load.network_send_bytes_per_second),
        );
        line("load", &text);
    }
    text
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
