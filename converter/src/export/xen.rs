// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fully virtualised domain of Xen (`man xl.cfg`, `man xl-disk-configuration`).
//!
//! The first four disks are always there as emulated IDE disks too, which the firmware starts from;
//! a guest with Xen's own driver unplugs those. A guest without it finds its disks as `hda` to `hdd`.

use std::fmt::Write as _;

use super::hardware::{Card, Controller, Hardware};
use super::kernel::Kernel;
use super::text::quoted;
use super::{Export, text};
use crate::vm::Firmware;

/// Writes the configuration.
pub(super) fn xl_cfg(export: &Export<'_>, hardware: &Hardware) -> String {
    let vm = export.vm;
    let name = &vm.name;
    let mut text = format!(
        "# {name}: a domain of Xen. Its disks are in {}: where they are moved, change the paths below.\n\
         #   xl create {name}.cfg\n#   xl console -t serial {name}\n",
        text::comment(export.directory)
    );
    let mut line = |key: &str, value: &str| _ = writeln!(text, "{key} = {value}");
    line("name", &quoted(name));
    line("uuid", &quoted(&text::machine_uuid(name).to_string()));
    line("type", "\"hvm\"");
    match vm.firmware {
        Firmware::Bios => line("bios", "\"seabios\""),
        Firmware::Uefi => line("bios", "\"ovmf\""),
    }
    line("vcpus", &vm.cpus.to_string());
    line("memory", &text::mebibytes(vm.memory_bytes).to_string());
    line("localtime", if vm.clock_utc { "0" } else { "1" });
    line("boot", "\"c\"");
    if let Some(kernel) = Kernel::of(export) {
        line("kernel", &quoted(&kernel.path));
        if let Some(initramfs) = &kernel.initramfs {
            line("ramdisk", &quoted(initramfs));
        }
        line("extra", &quoted(&kernel.command_line));
    }
    line("disk", &list(disks(export, hardware)));
    line("vif", &list(cards(export, hardware)));
    line("serial", "\"pty\"");
    line("vga", "\"stdvga\"");
    line("vnc", "1");
    line("vnclisten", "\"127.0.0.1\"");
    line("on_poweroff", "\"destroy\"");
    line("on_reboot", "\"restart\"");
    line("on_crash", "\"destroy\"");
    text
}

fn list(values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values
        .map(|value| format!("  {},\n", quoted(&value)))
        .collect();
    match values.is_empty() {
        true => "[]".to_owned(),
        false => format!("[\n{}]", values.concat()),
    }
}

/// The target is last: everything behind it belongs to its name.
fn disks(export: &Export<'_>, hardware: &Hardware) -> impl Iterator<Item = String> {
    let prefix = match hardware.controller {
        Controller::XenBlock => "xvd",
        _ => "hd",
    };
    let directory = export.directory.trim_end_matches('/');
    export.disks.iter().enumerate().map(move |(index, disk)| {
        format!(
            "format=raw, vdev={prefix}{}, access=rw, target={directory}/{}",
            text::letters(index),
            disk.name
        )
    })
}

fn cards(export: &Export<'_>, hardware: &Hardware) -> impl Iterator<Item = String> {
    let model = match hardware.card {
        Card::Rtl8139 => Some("rtl8139"),
        Card::E1000 => Some("e1000"),
        // Beside Xen's own the emulated one is not used.
        _ => None,
    };
    export.vm.nics.iter().map(move |nic| {
        let mac = text::mac(&nic.mac).map(|mac| format!("mac={mac}"));
        let model = model.map(|model| format!("model={model}"));
        let bridge = export.networks.of(nic).unwrap_or("xenbr0");
        let parts = [mac, Some(format!("bridge={bridge}")), model];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    })
}
