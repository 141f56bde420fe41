// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine descriptions for tests.

use image_library::machine::{Cpu, Disk, Firmware, Interface, MachineDescription, OperatingSystem};

/// A machine without disks and cards.
pub(crate) fn machine(hostname: &str) -> MachineDescription {
    MachineDescription {
        hostname: hostname.into(),
        machine_id: None,
        hardware: None,
        firmware: Firmware::Bios,
        secure_boot: None,
        tpm: None,
        cpu: Cpu {
            model: "x".into(),
            architecture: "x86_64".into(),
            sockets: 1,
            cores: 64,
            threads: 128,
        },
        memory_bytes: 8 << 30,
        disks: Vec::new(),
        interfaces: Vec::new(),
        routes: Vec::new(),
        mounts: Vec::new(),
        swaps: Vec::new(),
        os: OperatingSystem {
            id: "debian".into(),
            version: None,
            name: "Debian".into(),
            kernel: "6.1".into(),
            kernels: Vec::new(),
            initramfs_generator: None,
            bootloader: None,
            kernel_command_line: String::new(),
        },
        enabled_services: Vec::new(),
        load: None,
    }
}

/// A disk of a machine.
pub(crate) fn machine_disk(name: &str) -> Disk {
    Disk {
        name: name.into(),
        size_bytes: 8 << 30,
        sector_size_bytes: 512,
        physical_sector_size_bytes: 512,
        model: None,
        serial: None,
        wwn: None,
        bus: None,
        rotational: true,
        links: Vec::new(),
        partitions: Vec::new(),
        holders: Vec::new(),
    }
}

/// A network card of a machine.
pub(crate) fn ethernet(name: &str, mac: &str) -> Interface {
    Interface {
        name: name.into(),
        kind: "ethernet".into(),
        mac: Some(mac.into()),
        driver: None,
        bus_address: None,
        up: true,
        speed_mbps: None,
        addresses: Vec::new(),
        parent: None,
        members: Vec::new(),
        vlan: None,
        mtu: None,
    }
}
