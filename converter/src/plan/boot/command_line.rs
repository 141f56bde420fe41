// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done to a kernel's command line, in whatever file it stands.

use std::collections::BTreeSet;

use crate::guest::kernel_cmdline::CommandLine;
use crate::inspect::Inspection;
use crate::inspect::device_names::DeviceNames;
use crate::plan::devices::{Named, stable};
use crate::plan::mount_options::renamed;

const CONSOLE: &str = "ttyS0,115200";
/// Arguments whose value is a device. `boot=` is asked for by FIPS kernels, `cryptdevice=` is Arch's.
const DEVICES: [&str; 5] = ["root", "real_root", "resume", "boot", "cryptdevice"];
/// Arguments that keep modules from being loaded.
const BLACKLISTS: [&str; 4] = [
    "modprobe.blacklist",
    "rd.driver.blacklist",
    "rdblacklist",
    "module_blacklist",
];

/// How the reader of a command line can be told a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `UUID=`: an initramfs of any distribution of the last fifteen years.
    Uuid,
    /// `/dev/disk/by-uuid/`: the initramfs of SUSE's mkinitrd, which has udev.
    Link,
    /// `PARTUUID=`: the kernel itself, which has no initramfs.
    PartUuid,
}

/// Gives devices names that stay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Naming<'a> {
    pub(super) names: DeviceNames<'a>,
    pub(super) inspection: &'a Inspection,
    pub(super) form: Form,
}

impl Naming<'_> {
    /// What becomes of a device's name.
    pub(super) fn of(&self, spec: &str) -> Named {
        let named = stable(spec, self.names);
        let Named::Becomes(name) = named else {
            return named;
        };
        match self.form {
            Form::Uuid => Named::Becomes(name),
            Form::Link => Named::Becomes(match name.strip_prefix("UUID=") {
                Some(uuid) => format!("/dev/disk/by-uuid/{uuid}"),
                None => name,
            }),
            Form::PartUuid => {
                let volume = self.names.resolve(spec);
                let mut on_disks = self.inspection.volumes().on_disks();
                let facts = on_disks.find(|facts| Some(facts.id) == volume);
                match facts.and_then(|facts| facts.partition_uuid.as_ref()) {
                    Some(uuid) => Named::Becomes(format!("PARTUUID={uuid}")),
                    None => Named::Unknown,
                }
            }
        }
    }

    /// Gives the devices of a command line names that stay; returns those that are not known.
    pub(super) fn apply(&self, arguments: &mut CommandLine) -> BTreeSet<String> {
        let mut unknown = BTreeSet::new();
        for key in DEVICES {
            for value in arguments.get_all(key) {
                let (device, _) = split(key, &value);
                if self.of(device) == Named::Unknown {
                    unknown.insert(device.to_owned());
                }
            }
            arguments.replace(key, |value| {
                let (device, rest) = split(key, value);
                match self.of(device) {
                    Named::Becomes(name) => Some(format!("{name}{rest}")),
                    Named::Stays | Named::Unknown => None,
                }
            });
        }
        // Of a filesystem on several devices the others.
        for value in arguments.get_all("rootflags") {
            unknown.extend(renamed(value.split(','), self.names).unknown);
        }
        arguments.replace("rootflags", |value| {
            let options = renamed(value.split(','), self.names);
            (!options.changed.is_empty()).then(|| options.options.join(","))
        });
        unknown
    }
}

/// The device of a value, and what follows it: `cryptdevice=/dev/sda2:root:allow-discards`.
fn split<'a>(key: &str, value: &'a str) -> (&'a str, &'a str) {
    let end = match key {
        "cryptdevice" => value.find(':').unwrap_or(value.len()),
        _ => value.len(),
    };
    value.split_at(end)
}

/// Adds a console on the first serial port. What is there stays; the last console is where the
/// messages of the kernel and of the init system go.
pub(super) fn add_console(arguments: &mut CommandLine) {
    if has_console(arguments) {
        return;
    }
    if arguments.get_all("console").is_empty() {
        arguments.add("console=tty0");
    }
    arguments.add(&format!("console={CONSOLE}"));
}

/// Whether there is a console on the first serial port.
pub(super) fn has_console(arguments: &CommandLine) -> bool {
    let consoles = arguments.get_all("console");
    consoles.iter().any(|console| console.starts_with("ttyS0"))
}

/// The drivers of virtual hardware that a command line switches off.
pub(super) fn blacklisted(arguments: &CommandLine) -> BTreeSet<String> {
    let lists = BLACKLISTS.iter().flat_map(|key| arguments.get_all(key));
    let names = lists.flat_map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>());
    names.filter(|name| name.starts_with("virtio")).collect()
}
