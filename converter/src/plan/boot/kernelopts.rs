// SPDX-License-Identifier: MIT OR Apache-2.0
//! `$kernelopts`: the command line that all entries of RHEL 8 share. It is in GRUB's environment
//! block, and `grub.cfg` sets it where the block has none.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use super::Setting;
use super::command_line::{Form, add_console, has_console};
use crate::guest::grub_cfg::{CommandKind, GrubCfg};
use crate::guest::grubenv::GrubEnv;
use crate::guest::kernel_cmdline::{CommandLine, Quoting};
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{Bootloader, BootloaderKind, TextFile};
use crate::plan::devices::text_of;
use crate::plan::edit::Rewrites;

const NAME: &str = "kernelopts";
const NAMED: &str = "the arguments that entries share name root and swap space by UUID";
const CONSOLE: &str = "the arguments that entries share have a console on the first serial port";

/// What is known of the shared arguments after the edits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shared {
    /// Whether whoever uses them has a console by them.
    pub(super) has_console: bool,
}

/// Whether an entry takes the shared arguments.
pub(super) fn is_used(arguments: &CommandLine) -> bool {
    let mut arguments = arguments.arguments().into_iter();
    arguments.any(|argument| matches!(argument.name.as_str(), "$kernelopts" | "${kernelopts}"))
}

/// Plans the edits of the shared arguments, wherever they are set.
pub(super) fn plan(
    loader: &Bootloader,
    setting: Setting<'_>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) -> Shared {
    if !matches!(loader.kind, BootloaderKind::Grub2 | BootloaderKind::Bls) {
        return Shared::default();
    }
    let mut consoles = Vec::new();
    if let Some(file) = &loader.environment {
        consoles.extend(environment(file, setting, rewrites, findings));
    }
    consoles.extend(configuration(&loader.configuration, setting, rewrites));
    Shared {
        has_console: !consoles.is_empty() && consoles.into_iter().all(|has| has),
    }
}

fn changed(value: &str, setting: Setting<'_>, console: bool) -> (CommandLine, BTreeSet<String>) {
    let mut arguments = CommandLine::parse(value, Quoting::Kernel);
    let unknown = setting.naming(Form::Uuid).apply(&mut arguments);
    if console {
        add_console(&mut arguments);
    }
    (arguments, unknown)
}

/// Changes the block; says whether its arguments have a console then, `None` where it has none.
fn environment(
    file: &TextFile,
    setting: Setting<'_>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) -> Option<bool> {
    let mut block = GrubEnv::parse(&rewrites.current(file))?;
    let value = block.get(NAME)?;
    let place = || file.place.guest_path.clone();
    let (renamed, unknown) = changed(&value, setting, false);
    for device in unknown {
        let problem = format!("{device} is on none of the image's disks");
        findings.push(
            finding(Level::Error, "boot.device.unknown", place(), problem)
                .remedy("take that disk into the image"),
        );
    }
    let is_named = block.set(NAME, renamed.as_str());
    rewrites.change(file, NAMED, |_| block.as_str().to_owned());
    let mut has = has_console(&renamed);
    let mut is_complete = true;
    if setting.serial_console && !has {
        let (with_console, _) = changed(&value, setting, true);
        is_complete = block.set(NAME, with_console.as_str());
        has = is_complete;
        rewrites.change(file, CONSOLE, |_| block.as_str().to_owned());
    }
    findings.extend(full(place(), is_named, is_complete));
    Some(has)
}

/// Without room for the names of disks nothing starts; a console can stand in the entries instead.
fn full(place: String, is_named: bool, is_complete: bool) -> Option<Finding> {
    let (level, what) = match (is_named, is_complete) {
        (true, true) => return None,
        (true, false) => (Level::Warning, "a console: every entry gets it"),
        (false, _) => (Level::Error, "the UUIDs of disks"),
    };
    let problem = format!("GRUB's environment block has no room for {what}");
    let found = finding(level, "boot.grubenv.full", place, problem);
    Some(found.remedy("shorten `kernelopts` on the server with grub2-editenv"))
}

/// Changes `set kernelopts=` in `grub.cfg`; says of each whether it has a console then.
fn configuration(file: &TextFile, setting: Setting<'_>, rewrites: &mut Rewrites) -> Vec<bool> {
    let mut consoles = Vec::new();
    for (console, reason) in [(false, NAMED), (setting.serial_console, CONSOLE)] {
        rewrites.change(file, reason, |text| {
            let mut grub = GrubCfg::parse(text.as_bytes());
            consoles.clear();
            for command in grub.commands().collect::<Vec<_>>() {
                let CommandKind::Set { name, value } = command.kind else {
                    continue;
                };
                if name != NAME || value.is_empty() {
                    continue;
                }
                let (arguments, _) = changed(&value, setting, console);
                consoles.push(has_console(&arguments));
                if arguments.as_str() != value {
                    grub.set_value(command.line, arguments.as_str());
                }
            }
            text_of(grub.to_bytes(), text)
        });
    }
    consoles
}
