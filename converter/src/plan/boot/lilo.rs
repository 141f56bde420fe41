// SPDX-License-Identifier: MIT OR Apache-2.0
//! LILO: its configuration is brought up to date, but LILO boots by a map that only `lilo` can make.
//!
//! The map holds the sectors of each kernel and initramfs and the command line of each entry. Where one
//! of these must change, the map no longer fits, and the platform starts the kernel from outside.

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
use crate::plan::edit::{Edit, Rewrites};
use crate::vm::{DirectBoot, check_command_line};

/// What LILO starts by itself.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    loader: &'a Bootloader,
    kernel: Option<&'a Kernel>,
    /// With the arguments that a kernel from outside gets.
    entry: BootEntry,
}

/// Plans the edits; gives what is started, where LILO is the loader that counts.
pub(super) fn plan<'a>(
    loader: &'a Bootloader,
    kernel: Option<&'a Kernel>,
    setting: Setting<'a>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) -> Option<Started<'a>> {
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
    Some(Started {
        loader,
        kernel,
        entry,
    })
}

impl Started<'_> {
    /// How the kernel is started from outside, where the map does not fit; `edits` are the files that
    /// the plan writes besides texts.
    pub(crate) fn direct_boot(
        &self,
        edits: &[Edit],
        findings: &mut Vec<Finding>,
    ) -> Option<DirectBoot> {
        if self.is_map_true(edits) {
            findings.push(finding(
                Level::Note,
                "boot.lilo.map",
                self.loader.configuration.place.guest_path.clone(),
                "LILO starts by its map, which stays true; a console is in it after the next `lilo`",
            ));
            return None;
        }
        let direct = direct_boot(self.loader, &self.entry);
        findings.push(direct_finding(self.loader, &direct));
        direct.ok()
    }

    /// What the map says counts, not what the configuration says by now; and files that are written
    /// lie elsewhere, or end elsewhere, than the map has it.
    fn is_map_true(&self, edits: &[Edit]) -> bool {
        let root = self.entry.arguments.get("root");
        let is_in_map = root.is_some_and(|root| self.loader.map_roots.contains(&root));
        let named = std::iter::once(&self.entry.kernel).chain(&self.entry.initrds);
        let mut places = named.filter_map(|named| self.loader.loaded(named));
        let is_written = places.any(|place| edits.iter().any(|edit| edit.place == *place));
        is_in_map && !is_written && self.kernel.is_some_and(is_complete)
    }
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

/// The kernel to be started from outside, or why there is none.
fn direct_boot(loader: &Bootloader, entry: &BootEntry) -> Result<DirectBoot, String> {
    let loaded = |named: &String| {
        let missing = || format!("{named}, which it starts, is not found");
        loader.loaded(named).cloned().ok_or_else(missing)
    };
    let direct = DirectBoot {
        kernel: loaded(&entry.kernel)?,
        initramfs: entry.initrds.first().map(loaded).transpose()?,
        command_line: entry.arguments.as_str().to_owned(),
    };
    check_command_line(&direct.command_line)?;
    Ok(direct)
}

/// A warning, because not every platform can do it; the verdict does not depend on one.
fn direct_finding(loader: &Bootloader, direct: &Result<DirectBoot, String>) -> Finding {
    let place = loader.configuration.place.guest_path.clone();
    match direct {
        Ok(direct) => {
            let problem = format!(
                "LILO's map no longer fits; the machine is given its kernel from outside: {} with \
                 \"{}\"",
                direct.kernel, direct.command_line
            );
            finding(Level::Warning, "boot.lilo.direct", place, problem).remedy(
                "QEMU, libvirt and Xen can do that; for another platform install GRUB on the server \
                 and take a new image",
            )
        }
        Err(why) => {
            let problem = format!("LILO's map no longer fits, and {why}");
            finding(Level::Error, "boot.lilo", place, problem)
                .remedy("install GRUB on the server and take a new image")
        }
    }
}
