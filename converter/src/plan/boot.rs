// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel command lines: `root=` and `resume=` by UUID, and a console on the serial port, in every
//! entry of GRUB 2 and in the defaults that the guest makes its next configuration from.

use disk::{Finding, Level};

use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{BootloaderKind, Inspection, TextFile};
use crate::plan::PlanOptions;
use crate::plan::devices::{Named, stable};
use crate::plan::edit::Rewrites;

const CONSOLE: &str = "ttyS0,115200";

/// Plans the edits.
pub(crate) fn plan(
    inspection: &Inspection,
    names: DeviceNames<'_>,
    options: &PlanOptions,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) {
    let grub2 = inspection
        .bootloaders
        .iter()
        .filter(|bootloader| bootloader.kind == BootloaderKind::Grub2);
    for bootloader in grub2 {
        configuration(&bootloader.configuration, names, options, rewrites, findings);
    }
    for file in &inspection.files.grub_defaults {
        defaults(file, names, options, rewrites);
    }
}

/// The kernels that the entries of a GRUB 2 configuration start, in their order.
pub(crate) fn kernel_paths(configuration: &str) -> impl Iterator<Item = &str> {
    configuration
        .lines()
        .filter_map(|line| linux_arguments(line)?.split_whitespace().next())
}

/// What follows the command that loads a kernel.
fn linux_arguments(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (command, arguments) = line.split_once([' ', '\t'])?;
    matches!(command, "linux" | "linux16" | "linuxefi").then(|| arguments.trim_start())
}

fn configuration(
    file: &TextFile,
    names: DeviceNames<'_>,
    options: &PlanOptions,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) {
    let mut unknown = Vec::new();
    let renamed = map_entries(&file.text, |arguments| {
        with_stable_devices(arguments, names, &mut unknown)
    });
    unknown.sort();
    unknown.dedup();
    for device in unknown {
        findings.push(
            finding(
                Level::Error,
                "boot.device.unknown",
                file.place.guest_path.clone(),
                format!("{device} is on none of the image's disks"),
            )
            .remedy("take that disk into the image"),
        );
    }
    rewrites.change(
        file,
        renamed.clone(),
        "every entry names its root and its swap space by UUID: the disk's name changes",
    );
    if options.serial_console {
        rewrites.change(
            file,
            map_entries(&renamed, with_console),
            "every entry has a console on the first serial port, for the operator",
        );
    }
}

fn map_entries(text: &str, mut change: impl FnMut(&str) -> String) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        let Some(arguments) = linux_arguments(line) else {
            return line.to_owned();
        };
        let head = &line[..line.len() - arguments.len()];
        let body = arguments.trim_end_matches(['\n', '\r']);
        let end = &arguments[body.len()..];
        [head, &change(body), end].concat()
    });
    lines.collect()
}

/// The arguments with `root=` and `resume=` by names that stay.
fn with_stable_devices(
    arguments: &str,
    names: DeviceNames<'_>,
    unknown: &mut Vec<String>,
) -> String {
    let words = arguments.split(' ').map(|word| {
        let Some((key, device)) = word.split_once('=') else {
            return word.to_owned();
        };
        if !matches!(key, "root" | "resume") {
            return word.to_owned();
        }
        match stable(device, names) {
            Named::Stays => word.to_owned(),
            Named::Becomes(name) => format!("{key}={name}"),
            Named::Unknown => {
                unknown.push(device.to_owned());
                word.to_owned()
            }
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The arguments with a console on the first serial port. What is there stays; the last console
/// is where the kernel's and the init system's messages go.
fn with_console(arguments: &str) -> String {
    let consoles: Vec<&str> = arguments
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("console="))
        .collect();
    if consoles.iter().any(|console| console.starts_with("ttyS0")) {
        return arguments.to_owned();
    }
    let screen = if consoles.is_empty() { " console=tty0" } else { "" };
    format!("{}{screen} console={CONSOLE}", arguments.trim_end())
}

/// `/etc/default/grub`: what the guest's next `update-grub` makes entries from.
fn defaults(
    file: &TextFile,
    names: DeviceNames<'_>,
    options: &PlanOptions,
    rewrites: &mut Rewrites,
) {
    let mut uuid = String::new();
    let mut console = String::new();
    let has_serial = file.text.contains("console=ttyS0");
    for line in file.text.split_inclusive('\n') {
        let renamed = match assignment(line) {
            Some(("GRUB_DISABLE_LINUX_UUID", value)) if value.contains("true") => {
                line.replace("true", "false")
            }
            Some((key, value)) if is_command_line(key) => {
                let inner = value.trim_matches(['"', '\'']);
                line.replace(inner, &with_stable_devices(inner, names, &mut Vec::new()))
            }
            _ => line.to_owned(),
        };
        uuid.push_str(&renamed);
        match assignment(&renamed) {
            Some(("GRUB_CMDLINE_LINUX", value)) if !has_serial => {
                let inner = value.trim_matches(['"', '\'']);
                let added = with_console(inner);
                console.push_str(&format!("GRUB_CMDLINE_LINUX=\"{}\"", added.trim_start()));
                console.push_str(&renamed[renamed.trim_end().len()..]);
            }
            _ => console.push_str(&renamed),
        }
    }
    rewrites.change(
        file,
        uuid,
        "entries that the guest makes later name the root by UUID too",
    );
    if options.serial_console {
        rewrites.change(file, console, "entries that the guest makes later have the console too");
    }
}

fn is_command_line(key: &str) -> bool {
    matches!(
        key,
        "GRUB_CMDLINE_LINUX" | "GRUB_CMDLINE_LINUX_DEFAULT" | "GRUB_CMDLINE_LINUX_RECOVERY"
    )
}

/// Name and value of a shell assignment.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (key, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    (!key.starts_with('#')).then_some((key, value))
}
