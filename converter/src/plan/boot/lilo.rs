// SPDX-License-Identifier: MIT OR Apache-2.0
//! LILO: its configuration is brought up to date, but LILO boots by a map that only `lilo` can make.
//!
//! The map holds the sectors of each kernel and initramfs and the command line of each entry. Where one
//! of these must change, the map no longer fits, and a platform must start the kernel from outside.

use disk::{Finding, Level};

use super::Setting;
use super::command_line::{Form, add_console};
use super::default_kernel::in_order;
use super::defaults::install_device;
use crate::guest::boot_configuration::{BootConfiguration, BootEntry, Environment};
use crate::guest::kernel_cmdline::{CommandLine, Quoting};
use crate::guest::lilo::{Lilo, LiloOption};
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{Bootloader, Kernel};
use crate::plan::devices::{Named, text_of};
use crate::plan::edit::Rewrites;
use crate::vm::DirectBoot;

/// Plans the edits, and how the kernel is started from outside where the map does not fit.
pub(super) fn plan(
    loader: &Bootloader,
    kernel: Option<&Kernel>,
    setting: Setting<'_>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) -> Option<DirectBoot> {
    let file = &loader.configuration;
    let before = Lilo::parse(&rewrites.current(file));
    let renamed = renamed(&before, setting, findings, loader);
    rewrites.change(
        file,
        "the guest's next `lilo` makes its map with the root named by UUID",
        |text| text_of(renamed.to_bytes(), text),
    );
    let mut after = renamed;
    if setting.serial_console {
        add_consoles(&mut after);
        rewrites.change(
            file,
            "the guest's next `lilo` makes its map with a console on the first serial port",
            |text| text_of(after.to_bytes(), text),
        );
    }
    let is_started = in_order(setting.inspection)
        .first()
        .is_some_and(|first| *first == loader);
    if !is_started {
        return None;
    }
    let index = after.default_entry(&Environment::new()).unwrap_or(0);
    let entry = after.entries().into_iter().nth(index)?;
    // What the map says counts, not what the configuration says by now.
    let root = entry.arguments.get("root");
    let is_in_map = root.is_some_and(|root| loader.map_roots.contains(&root));
    if is_in_map && kernel.is_some_and(is_complete) {
        findings.push(finding(
            Level::Note,
            "boot.lilo.map",
            file.place.guest_path.clone(),
            "LILO starts by its map, which stays true; a console is in it after the next `lilo`",
        ));
        return None;
    }
    let direct = direct_boot(loader, &entry);
    findings.push(direct_finding(loader, direct.as_ref(), setting));
    direct.filter(|_| setting.direct_boot)
}

/// Whether nothing is added to a kernel's initramfs.
fn is_complete(kernel: &Kernel) -> bool {
    kernel.closure.iter().all(|module| module.in_initramfs)
}

/// The same configuration with devices by names that stay.
fn renamed(
    before: &Lilo,
    setting: Setting<'_>,
    findings: &mut Vec<Finding>,
    loader: &Bootloader,
) -> Lilo {
    let place = || loader.configuration.place.guest_path.clone();
    let mut after = before.clone();
    for option in before.options() {
        let Some(value) = &option.value else { continue };
        match option.name.as_str() {
            "root" => match setting.naming(form(before, option.section)).of(value) {
                Named::Becomes(name) => {
                    after.set_value(option.line, &name);
                }
                Named::Unknown => findings.push(
                    finding(
                        Level::Error,
                        "boot.device.unknown",
                        place(),
                        format!("{value} is on none of the image's disks"),
                    )
                    .remedy("take that disk into the image"),
                ),
                Named::Stays => {}
            },
            "boot" => findings.push(install_device(&loader.configuration, value)),
            _ if holds_arguments(&option) => {
                let mut arguments = CommandLine::parse(value.clone(), Quoting::Kernel);
                setting
                    .naming(form(before, option.section))
                    .apply(&mut arguments);
                if arguments.as_str() != value {
                    after.set_value(option.line, arguments.as_str());
                }
            }
            _ => {}
        }
    }
    after
}

/// What every image of a section understands; section 0 is for all.
fn form(lilo: &Lilo, section: usize) -> Form {
    let options = lilo.options();
    let is_meant = |entry: &BootEntry| {
        let mut options = options.iter();
        let image = options.find(|option| option.line == entry.line);
        section == 0 || image.is_some_and(|image| image.section == section)
    };
    let entries = lilo.entries().into_iter().filter(is_meant);
    match entries
        .map(|entry| entry.initrds)
        .any(|initrds| initrds.is_empty())
    {
        true => Form::PartUuid,
        false => Form::Uuid,
    }
}

fn holds_arguments(option: &LiloOption) -> bool {
    matches!(option.name.as_str(), "append" | "addappend" | "literal")
}

/// A console in the arguments of every image, and in those of all that have none of their own.
fn add_consoles(lilo: &mut Lilo) {
    let options = lilo.options();
    let sets = |option: &&LiloOption| matches!(option.name.as_str(), "append" | "literal");
    let is_global = |option: &LiloOption| option.section == 0 && option.name == "append";
    for option in options.iter().filter(sets) {
        let value = option.value.clone().unwrap_or_default();
        let mut arguments = CommandLine::parse(value.clone(), Quoting::Kernel);
        add_console(&mut arguments);
        if arguments.as_str() != value {
            lilo.set_value(option.line, arguments.as_str());
        }
    }
    if options.iter().any(is_global) {
        return;
    }
    let mut arguments = CommandLine::parse("", Quoting::Kernel);
    add_console(&mut arguments);
    // Only images without arguments of their own take those of all.
    let has_own = |section: usize| {
        let mut in_section = options.iter().filter(|option| option.section == section);
        in_section.any(|option| sets(&option))
    };
    let mut images = options.iter().filter(|option| option.name == "image");
    let first = options.iter().find(|option| option.section == 0);
    if let Some(first) = first
        && images.any(|image| !has_own(image.section))
    {
        lilo.insert(first.line, "append", arguments.as_str());
    }
}

fn direct_boot(loader: &Bootloader, entry: &BootEntry) -> Option<DirectBoot> {
    let kernel = loader.loaded(&entry.kernel)?.clone();
    let initramfs = match entry.initrds.first() {
        Some(named) => Some(loader.loaded(named)?.clone()),
        None => None,
    };
    Some(DirectBoot {
        kernel,
        initramfs,
        command_line: entry.arguments.as_str().to_owned(),
    })
}

fn direct_finding(
    loader: &Bootloader,
    direct: Option<&DirectBoot>,
    setting: Setting<'_>,
) -> Finding {
    let place = loader.configuration.place.guest_path.clone();
    let remedy = "install GRUB on the server and take a new image, or run it on a platform that \
                  starts a kernel from outside";
    let Some(direct) = direct else {
        let problem = "LILO's map no longer fits, and the kernel that it starts is not found";
        return finding(Level::Error, "boot.lilo", place, problem).remedy(remedy);
    };
    let problem = format!(
        "LILO's map no longer fits; the machine must be given its kernel from outside: {} with \
         \"{}\"",
        direct.kernel, direct.command_line
    );
    match setting.direct_boot {
        true => finding(Level::Note, "boot.lilo.direct", place, problem),
        false => finding(Level::Error, "boot.lilo.direct", place, problem).remedy(remedy),
    }
}
