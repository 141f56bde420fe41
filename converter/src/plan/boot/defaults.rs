// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest makes its next entries from: `/etc/default/grub`, `/etc/kernel/cmdline`, the files
//! of SUSE, Alpine and Debian for other boot loaders, and entries that people wrote themselves.

use disk::{Finding, Level};

use super::Setting;
use super::command_line::{Form, add_console, has_console};
use super::entries::edit;
use crate::guest::kernel_cmdline::{CommandLine, Quoting};
use crate::guest::shell_config::ShellConfig;
use crate::inspect::findings::finding;
use crate::inspect::{BootloaderKind, TextFile};
use crate::plan::devices::{Named, text_of};
use crate::plan::edit::Rewrites;

const NAMED: &str = "entries that the guest makes later name the root by UUID too";
const CONSOLE: &str = "entries that the guest makes later have the console too";
/// The variables of `/etc/default/grub` that hold arguments; the first is in every entry.
const GRUB: [&str; 3] = [
    "GRUB_CMDLINE_LINUX",
    "GRUB_CMDLINE_LINUX_DEFAULT",
    "GRUB_CMDLINE_LINUX_RECOVERY",
];

/// What a variable of another file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Arguments of every entry: the console belongs here.
    Arguments,
    /// Other arguments.
    MoreArguments,
    /// A device.
    Device,
    /// The disk that an installer of a boot loader writes to.
    InstallDevice,
}

/// The variables of the other files, by the end of the file's path.
const OTHERS: [(&str, &str, Holds); 9] = [
    ("sysconfig/bootloader", "DEFAULT_APPEND", Holds::Arguments),
    ("sysconfig/bootloader", "FAILSAFE_APPEND", Holds::Arguments),
    (
        "sysconfig/bootloader",
        "XEN_KERNEL_APPEND",
        Holds::Arguments,
    ),
    (
        "sysconfig/bootloader",
        "IMAGED_APPEND",
        Holds::MoreArguments,
    ),
    ("sysconfig/grub", "boot", Holds::InstallDevice),
    ("default/extlinux", "EXTLINUX_ROOT", Holds::MoreArguments),
    ("default/extlinux", "EXTLINUX_PARAMETERS", Holds::Arguments),
    ("update-extlinux.conf", "root", Holds::Device),
    (
        "update-extlinux.conf",
        "default_kernel_opts",
        Holds::Arguments,
    ),
];

/// Plans the edits.
pub(super) fn plan(setting: Setting<'_>, rewrites: &mut Rewrites, findings: &mut Vec<Finding>) {
    let files = &setting.inspection.files;
    // The console belongs into one of them, the first: later ones are read after it and may add.
    let has = |text: &str| text.contains("console=ttyS0");
    let mut has_console = files.grub_defaults.iter().any(|file| has(&file.text));
    for file in &files.grub_defaults {
        grub(file, setting, has_console, rewrites);
        has_console = true;
    }
    for file in &files.grub_custom {
        custom(file, setting, rewrites);
    }
    for file in &files.loader_defaults {
        others(file, setting, rewrites, findings);
    }
    if let Some(file) = &files.kernel_cmdline {
        plain(file, setting, rewrites);
    }
}

/// `/etc/default/grub`: what the guest's next `update-grub` makes entries from.
fn grub(file: &TextFile, setting: Setting<'_>, has_console: bool, rewrites: &mut Rewrites) {
    rewrites.change(file, NAMED, |text| {
        let mut config = ShellConfig::parse(text.as_bytes());
        let is_true = |value: &str| value == "true";
        config.replace("GRUB_DISABLE_LINUX_UUID", |value| {
            is_true(value).then(|| "false".to_owned())
        });
        for key in GRUB {
            config.replace(key, |value| renamed(value, Form::Uuid, setting));
        }
        text_of(config.to_bytes(), text)
    });
    if setting.serial_console && !has_console {
        rewrites.change(file, CONSOLE, grub_with_console);
    }
}

fn grub_with_console(text: &str) -> String {
    let mut config = ShellConfig::parse(text.as_bytes());
    if GRUB.iter().all(|key| config.get(key).is_none()) {
        return text.to_owned();
    }
    let value = config.get(GRUB[0]).unwrap_or_default();
    let mut arguments = CommandLine::parse(value, Quoting::Kernel);
    add_console(&mut arguments);
    config.set(GRUB[0], arguments.as_str().trim());
    text_of(config.to_bytes(), text)
}

/// A value of arguments with devices by names that stay, where that changes it.
fn renamed(value: &str, form: Form, setting: Setting<'_>) -> Option<String> {
    let mut arguments = CommandLine::parse(value, Quoting::Kernel);
    setting.naming(form).apply(&mut arguments);
    Some(arguments.as_str().to_owned()).filter(|after| after != value)
}

/// A value of arguments with a console, where that changes it.
fn with_console(value: &str) -> Option<String> {
    let mut arguments = CommandLine::parse(value, Quoting::Kernel);
    if has_console(&arguments) {
        return None;
    }
    add_console(&mut arguments);
    Some(arguments.as_str().trim_start().to_owned())
}

/// `/etc/grub.d/40_custom`: whole entries below a first line for the shell.
fn custom(file: &TextFile, setting: Setting<'_>, rewrites: &mut Rewrites) {
    rewrites.change(file, NAMED, |text| {
        edit(BootloaderKind::Grub2, file, text, |_, arguments| {
            setting.naming(Form::Uuid).apply(arguments);
        })
    });
    if setting.serial_console {
        rewrites.change(file, CONSOLE, |text| {
            edit(BootloaderKind::Grub2, file, text, |_, arguments| {
                add_console(arguments);
            })
        });
    }
}

fn others(
    file: &TextFile,
    setting: Setting<'_>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) {
    let path = &file.place.guest_path;
    // SUSE's, of the time of mkinitrd.
    let form = match path.ends_with("sysconfig/bootloader") {
        true => Form::Link,
        false => Form::Uuid,
    };
    let known = || OTHERS.iter().filter(|(end, _, _)| path.ends_with(end));
    rewrites.change(file, NAMED, |text| {
        let mut config = ShellConfig::parse(text.as_bytes());
        for (_, key, holds) in known() {
            match holds {
                Holds::Arguments | Holds::MoreArguments => {
                    config.replace(key, |value| renamed(value, form, setting));
                }
                Holds::Device => {
                    config.replace(key, |value| match setting.naming(Form::Uuid).of(value) {
                        Named::Becomes(name) => Some(name),
                        Named::Stays | Named::Unknown => None,
                    });
                }
                Holds::InstallDevice => {
                    findings.extend(config.get(key).map(|disk| install_device(file, &disk)));
                }
            }
        }
        text_of(config.to_bytes(), text)
    });
    if setting.serial_console {
        rewrites.change(file, CONSOLE, |text| {
            let mut config = ShellConfig::parse(text.as_bytes());
            for (_, key, _) in known().filter(|(_, _, holds)| *holds == Holds::Arguments) {
                config.replace(key, with_console);
            }
            text_of(config.to_bytes(), text)
        });
    }
}

/// A disk that only the installer of a boot loader asks for.
pub(super) fn install_device(file: &TextFile, disk: &str) -> Finding {
    finding(
        Level::Note,
        "boot.install-device",
        file.place.guest_path.clone(),
        format!("names {disk} of the physical server; only the boot loader's installer reads it"),
    )
}

/// `/etc/kernel/cmdline`: arguments, and nothing else.
fn plain(file: &TextFile, setting: Setting<'_>, rewrites: &mut Rewrites) {
    let kept = |text: &str, after: Option<String>| after.unwrap_or_else(|| text.to_owned());
    rewrites.change(file, NAMED, |text| {
        kept(text, renamed(text, Form::Uuid, setting))
    });
    if setting.serial_console && !file.text.trim().is_empty() {
        rewrites.change(file, CONSOLE, |text| kept(text, with_console(text)));
    }
}
