// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel command lines: `root=` and `resume=` by UUID, and a console on the serial port, in every
//! entry of GRUB 2 and in the defaults that the guest makes its next configuration from.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use crate::guest::grub_cfg::{CommandKind, GrubCfg};
use crate::guest::kernel_cmdline::{CommandLine, Quoting};
use crate::guest::shell_config::ShellConfig;
use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{BootloaderKind, Inspection, TextFile};
use crate::plan::PlanOptions;
use crate::plan::devices::{Named, stable, text_of};
use crate::plan::edit::Rewrites;

const CONSOLE: &str = "ttyS0,115200";
/// The variables of `/etc/default/grub` that hold arguments; the first is in every entry.
const COMMAND_LINES: [&str; 3] = [
    "GRUB_CMDLINE_LINUX",
    "GRUB_CMDLINE_LINUX_DEFAULT",
    "GRUB_CMDLINE_LINUX_RECOVERY",
];

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
        configuration(
            &bootloader.configuration,
            names,
            options,
            rewrites,
            findings,
        );
    }
    let files = &inspection.files.grub_defaults;
    // The console belongs into one of them, the first: later ones are read after it and may add.
    let mut has_console = files.iter().any(|file| file.text.contains("console=ttyS0"));
    for file in files {
        defaults(file, names, options, has_console, rewrites);
        has_console = true;
    }
}

/// The kernels that the entries of a GRUB 2 configuration start, in their order.
pub(crate) fn kernel_paths(configuration: &str) -> Vec<String> {
    let commands = GrubCfg::parse(configuration.as_bytes());
    let paths = commands
        .commands()
        .filter_map(|command| match command.kind {
            CommandKind::Linux { path, .. } => Some(path),
            _ => None,
        });
    paths.collect()
}

fn configuration(
    file: &TextFile,
    names: DeviceNames<'_>,
    options: &PlanOptions,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) {
    let mut unknown = BTreeSet::new();
    let renamed = map_entries(&file.text, |arguments| {
        unknown.extend(name_devices(arguments, names));
    });
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
            map_entries(&renamed, add_console),
            "every entry has a console on the first serial port, for the operator",
        );
    }
}

fn map_entries(text: &str, mut change: impl FnMut(&mut CommandLine)) -> String {
    let mut configuration = GrubCfg::parse(text.as_bytes());
    let commands: Vec<_> = configuration.commands().collect();
    for command in commands {
        if let CommandKind::Linux { mut arguments, .. } = command.kind {
            let before = arguments.as_str().to_owned();
            change(&mut arguments);
            if arguments.as_str() != before {
                configuration.set_arguments(command.line, &arguments);
            }
        }
    }
    text_of(configuration.to_bytes(), text)
}

/// Gives `root=` and `resume=` names that stay; returns those that are not known.
fn name_devices(arguments: &mut CommandLine, names: DeviceNames<'_>) -> Vec<String> {
    let mut unknown = Vec::new();
    for key in ["root", "resume"] {
        for device in arguments.get_all(key) {
            if stable(&device, names) == Named::Unknown {
                unknown.push(device);
            }
        }
        arguments.replace(key, |device| match stable(device, names) {
            Named::Becomes(name) => Some(name),
            Named::Stays | Named::Unknown => None,
        });
    }
    unknown
}

/// Adds a console on the first serial port. What is there stays; the last console is where the
/// messages of the kernel and of the init system go.
fn add_console(arguments: &mut CommandLine) {
    let consoles = arguments.get_all("console");
    if consoles.iter().any(|console| console.starts_with("ttyS0")) {
        return;
    }
    if consoles.is_empty() {
        arguments.add("console=tty0");
    }
    arguments.add(&format!("console={CONSOLE}"));
}

/// `/etc/default/grub`: what the guest's next `update-grub` makes entries from.
fn defaults(
    file: &TextFile,
    names: DeviceNames<'_>,
    options: &PlanOptions,
    has_console: bool,
    rewrites: &mut Rewrites,
) {
    let mut config = ShellConfig::parse(file.text.as_bytes());
    let is_true = |value: &str| value == "true";
    config.replace("GRUB_DISABLE_LINUX_UUID", |value| {
        is_true(value).then(|| "false".to_owned())
    });
    for key in COMMAND_LINES {
        config.replace(key, |value| {
            let mut arguments = CommandLine::parse(value, Quoting::Kernel);
            name_devices(&mut arguments, names);
            Some(arguments.as_str().to_owned()).filter(|after| after != value)
        });
    }
    let renamed = text_of(config.to_bytes(), &file.text);
    rewrites.change(
        file,
        renamed,
        "entries that the guest makes later name the root by UUID too",
    );
    let value = config.get(COMMAND_LINES[0]);
    if options.serial_console && !has_console && value.is_some() {
        let mut arguments = CommandLine::parse(value.unwrap_or_default(), Quoting::Kernel);
        add_console(&mut arguments);
        config.set(COMMAND_LINES[0], arguments.as_str().trim());
        let after = text_of(config.to_bytes(), &file.text);
        rewrites.change(
            file,
            after,
            "entries that the guest makes later have the console too",
        );
    }
}
