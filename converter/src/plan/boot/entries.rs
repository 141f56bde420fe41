// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of a boot loader: devices by names that stay, and a console, in each of them.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use super::command_line::{Form, add_console, blacklisted, has_console};
use super::{Setting, kernelopts};
use crate::guest::boot_configuration::{BootConfiguration, BootEntry};
use crate::guest::grub_legacy::GrubLegacy;
use crate::guest::kernel_cmdline::CommandLine;
use crate::inspect::boot::read;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{Bootloader, BootloaderKind, TextFile};
use crate::plan::devices::text_of;
use crate::plan::edit::Rewrites;

const NAMED: &str =
    "every entry names its root and its swap space by UUID: the disk's name changes";
const CONSOLE: &str = "every entry has a console on the first serial port, for the operator";

/// Plans the edits of all files of a boot loader.
pub(super) fn plan(
    loader: &Bootloader,
    setting: Setting<'_>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) {
    let shared = kernelopts::plan(loader, setting, rewrites, findings);
    for file in loader.files() {
        let mut noticed = Noticed::default();
        rewrites.change(file, NAMED, |text| {
            let renamed = edit(loader.kind, file, text, |entry, arguments| {
                let naming = setting.naming(form(loader.kind, setting, entry));
                noticed.unknown.extend(naming.apply(arguments));
                noticed.blacklisted.extend(blacklisted(arguments));
                noticed.without_initramfs |= naming.form == Form::PartUuid
                    && arguments
                        .get("root")
                        .is_some_and(|root| root.starts_with("PARTUUID="))
                    && *arguments != entry.arguments;
            });
            match loader.kind {
                BootloaderKind::GrubLegacy => automagic(&renamed, |_, arguments| {
                    setting.naming(Form::Uuid).apply(arguments);
                }),
                _ => renamed,
            }
        });
        noticed.report(file, findings);
        if setting.serial_console {
            rewrites.change(file, CONSOLE, |text| {
                with_consoles(loader.kind, file, text, shared.has_console)
            });
        }
    }
}

/// The text of a file with a console in every entry that does not have it with shared arguments.
fn with_consoles(kind: BootloaderKind, file: &TextFile, text: &str, is_shared: bool) -> String {
    let after = edit(kind, file, text, |_, arguments| {
        if !is_shared || !kernelopts::is_used(arguments) {
            add_console(arguments);
        }
    });
    match kind {
        BootloaderKind::GrubLegacy => automagic(&after, |name, arguments| {
            if name.starts_with("kopt") && !has_console(arguments) {
                add_console(arguments);
            }
        }),
        _ => after,
    }
}

/// The text of a file with the command line of every entry changed.
pub(super) fn edit(
    kind: BootloaderKind,
    file: &TextFile,
    text: &str,
    mut change: impl FnMut(&BootEntry, &mut CommandLine),
) -> String {
    let mut configuration = read(kind, file, text);
    // From the last to the first: a line may be added.
    for entry in configuration.entries().into_iter().rev() {
        let mut arguments = entry.arguments.clone();
        change(&entry, &mut arguments);
        if arguments != entry.arguments {
            configuration.set_arguments(entry.line, &arguments);
        }
    }
    text_of(configuration.to_bytes(), text)
}

/// The comments that Debian's update-grub of GRUB legacy makes entries from.
fn automagic(text: &str, change: impl Fn(&str, &mut CommandLine)) -> String {
    let mut configuration = GrubLegacy::parse(text);
    for comment in configuration.automagic() {
        let mut arguments = comment.arguments.clone();
        change(&comment.name, &mut arguments);
        if arguments != comment.arguments {
            configuration.set_automagic(comment.line, &arguments);
        }
    }
    text_of(configuration.to_bytes(), text)
}

/// What the reader of an entry's command line understands.
fn form(kind: BootloaderKind, setting: Setting<'_>, entry: &BootEntry) -> Form {
    match kind {
        _ if entry.initrds.is_empty() => Form::PartUuid,
        // SUSE used GRUB legacy as long as it used mkinitrd.
        BootloaderKind::GrubLegacy if is_suse(setting) => Form::Link,
        _ => Form::Uuid,
    }
}

/// Old systems have no os-release, but their own files.
fn is_suse(setting: Setting<'_>) -> bool {
    let mut files = setting.inspection.files.loader_defaults.iter();
    files.any(|file| file.place.guest_path == "/etc/sysconfig/bootloader")
}

/// What was noticed in one file, said once.
#[derive(Debug, Default)]
struct Noticed {
    unknown: BTreeSet<String>,
    blacklisted: BTreeSet<String>,
    without_initramfs: bool,
}

impl Noticed {
    fn report(self, file: &TextFile, findings: &mut Vec<Finding>) {
        let place = || file.place.guest_path.clone();
        for device in self.unknown {
            let problem = format!("{device} is on none of the image's disks");
            findings.push(
                finding(Level::Error, "boot.device.unknown", place(), problem)
                    .remedy("take that disk into the image"),
            );
        }
        if !self.blacklisted.is_empty() {
            let names: Vec<String> = self.blacklisted.into_iter().collect();
            let problem = format!("an entry switches off {}", names.join(", "));
            findings.push(
                finding(Level::Warning, "boot.virtio-blacklisted", place(), problem).remedy(
                    "take it from the command line on the server, if the server does without",
                ),
            );
        }
        if self.without_initramfs {
            findings.push(finding(
                Level::Note,
                "boot.no-initramfs",
                place(),
                "an entry starts its kernel without an initramfs; its root is named by PARTUUID, \
                 which Linux knows from 3.8 on",
            ));
        }
    }
}
