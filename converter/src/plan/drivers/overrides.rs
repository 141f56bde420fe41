// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an initramfs that was made for one server says of that server's disks, overridden: the
//! devices that it waits for, its own kernel arguments, and the configuration of device managers.
//!
//! | file inside | what is changed |
//! |---|---|
//! | `conf/conf.d/*`, `etc/cmdline.d/*`, `init` of nash, `config/*.sh` of SUSE | the root and the swap space to resume from, by UUID |
//! | dracut's `finished/*.sh`, links in `*.wants` | devices that will not be there are not waited for |
//! | `etc/fstab`, `etc/crypttab` | devices by UUID |
//! | `etc/lvm/lvm.conf` | filters and the devices file, where they know only old disks |
//! | `etc/mdadm.conf` | lists of devices, where arrays have a UUID |
//! | `etc/modprobe.d/*` | lines that block a driver that is needed |
//!
//! multipath needs nothing: its own rules leave virtual disks alone. But `/dev/mapper/mpatha` is a name
//! that nothing will have, whatever it was.

use crate::guest::crypttab::Crypttab;
use crate::guest::fstab::Fstab;
use crate::guest::initramfs::dracut::{self, Awaited};
use crate::guest::initramfs::{Generator, nash, suse_mkinitrd};
use crate::guest::kernel_cmdline::{CommandLine, Quoting};
use crate::guest::kmod::ModuleName;
use crate::guest::kmod::blocked::unblocked;
use crate::guest::lvm_conf::{without_devices_file, without_hardware_filters};
use crate::guest::mdadm_conf;
use crate::inspect::device_names::DeviceNames;
use crate::inspect::{InnerFile, Kernel};
use crate::plan::devices::{Named, options_of, resume_setting, stable, text_of};

use super::{Draft, NASH_SCRIPT, SUSE_SCRIPT};

const RESUMES: &str = "the swap space to resume from is named by its UUID";
const NAMES: &str = "it names its disks by UUID: their names change";
const WAITS: &str = "it does not wait for disks of the physical server";
const MANAGERS: &str = "LVM and md look at all disks, not only at those of the physical server";
const BLOCKS: &str = "it may load the drivers that it needs";

const DEVICES_FILE: &str = "etc/lvm/devices/system.devices";
const LVM_CONF: &str = "etc/lvm/lvm.conf";
/// Kinds of ids in a devices file that stay true on other hardware.
const LASTING_IDS: [&str; 4] = ["md_uuid", "crypt_mpath_uuid", "crypt_uuid", "lvmlv_uuid"];

/// Plans the overrides.
pub(super) fn plan(draft: &mut Draft<'_>, kernel: &Kernel, names: DeviceNames<'_>) {
    let files = draft.initramfs.files.clone();
    for InnerFile { path, .. } in &files {
        let text = draft.text(path).unwrap_or_default().to_owned();
        if let Some((after, reason)) = overridden(draft, path, &text, names) {
            draft.change(path, after, reason);
        }
        if path.contains("modprobe.d/") || path.starts_with("etc/modprobe.conf") {
            let drivers: Vec<ModuleName> = kernel
                .closure
                .iter()
                .map(|module| ModuleName::new(&module.name))
                .collect();
            draft.change(path, unblocked(&text, &drivers), BLOCKS);
        }
    }
    lvm(draft);
    for link in &draft.initramfs.waits {
        let device = dracut::wanted_device(link).unwrap_or_default();
        if awaited(&device, names) == Awaited::Stays {
            continue;
        }
        draft.change(link, String::new(), WAITS);
        if let Some(path) = dracut::timeout_path(link) {
            draft.change(&path, dracut::TIMEOUT.to_owned(), WAITS);
        }
    }
}

/// What a file becomes, and why.
fn overridden(
    draft: &Draft<'_>,
    path: &str,
    text: &str,
    names: DeviceNames<'_>,
) -> Option<(String, &'static str)> {
    let generator = draft.initramfs.generator;
    let file = path.rsplit('/').next().unwrap_or(path);
    Some(match path {
        _ if path.starts_with("conf/conf.d/") && file == "cryptroot" => {
            (old_cryptroot(text, names), NAMES)
        }
        _ if path.starts_with("conf/conf.d/") => (resume_setting(text, names), RESUMES),
        "etc/cmdline" => (command_lines(text, names), NAMES),
        _ if path.starts_with("etc/cmdline.d/") => (command_lines(text, names), NAMES),
        "etc/fstab" | "etc/fstab.sys" => (fstab(text, names), NAMES),
        "etc/crypttab" | "cryptroot/crypttab" => (crypttab(text, names), NAMES),
        "etc/mdadm.conf" | "etc/mdadm/mdadm.conf" => (mdadm_conf::unbind(text).text, MANAGERS),
        _ if dracut::is_finished_script(path) => {
            let rename = |device: &str| awaited(device, names);
            (dracut::rename_awaited(text, rename), WAITS)
        }
        SUSE_SCRIPT => (suse(text, names), NAMES),
        _ if generator == Generator::SuseMkinitrd && path.starts_with("config/") => {
            (suse(text, names), NAMES)
        }
        NASH_SCRIPT if generator == Generator::Nash => (nash_script(text, names), NAMES),
        _ => return None,
    })
}

/// What becomes of a device that is waited for.
fn awaited(device: &str, names: DeviceNames<'_>) -> Awaited {
    if is_multipath(device) {
        return Awaited::Never;
    }
    match stable(device, names) {
        Named::Stays => Awaited::Stays,
        Named::Becomes(name) => Awaited::Becomes(device_path(&name)),
        Named::Unknown => Awaited::Never,
    }
}

/// A name that multipathd gives: `mpatha2`, or the disk's WWID.
fn is_multipath(device: &str) -> bool {
    let Some(name) = device.strip_prefix("/dev/mapper/") else {
        return device.contains("dm-uuid-") && device.contains("mpath-");
    };
    let hexadecimal = name.bytes().take_while(u8::is_ascii_hexdigit).count();
    name.starts_with("mpath") || (name.starts_with('3') && matches!(hexadecimal, 17 | 33))
}

/// `/dev/disk/by-uuid/x` of `UUID=x`.
fn device_path(name: &str) -> String {
    match name.split_once('=') {
        Some((tag, value)) => format!("/dev/disk/by-{}/{value}", tag.to_ascii_lowercase()),
        None => name.to_owned(),
    }
}

fn command_lines(text: &str, names: DeviceNames<'_>) -> String {
    let mut after = String::new();
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches('\n');
        let mut arguments = CommandLine::parse(content, Quoting::Kernel);
        for key in ["root", "resume"] {
            arguments.replace(key, |device| match stable(device, names) {
                Named::Becomes(name) => Some(name),
                Named::Stays | Named::Unknown => None,
            });
        }
        // dracut waits for minutes for a swap space that does not appear.
        arguments.remove(|argument| {
            let device = argument.value.as_deref().unwrap_or_default();
            argument.is("resume") && awaited(device, names) == Awaited::Never
        });
        after.push_str(arguments.as_str());
        after.push_str(&line[content.len()..]);
    }
    after
}

fn fstab(text: &str, names: DeviceNames<'_>) -> String {
    let mut table = Fstab::parse(text.as_bytes());
    let entries: Vec<_> = table.entries().collect();
    for entry in entries {
        if let Named::Becomes(name) = stable(&entry.spec, names) {
            table.set_spec(entry.line, &name);
        }
        let options = options_of(&entry, names);
        if !options.changed.is_empty() {
            table.set_options(entry.line, &options.options);
        }
    }
    text_of(table.to_bytes(), text)
}

fn crypttab(text: &str, names: DeviceNames<'_>) -> String {
    let mut table = Crypttab::parse(text.as_bytes());
    let entries: Vec<_> = table.entries().collect();
    for entry in entries {
        if let Named::Becomes(name) = stable(&entry.device, names) {
            table.set_device(entry.line, &name);
        }
    }
    text_of(table.to_bytes(), text)
}

/// `target=sda3_crypt,source=/dev/sda3,key=none`, up to Debian 9.
fn old_cryptroot(text: &str, names: DeviceNames<'_>) -> String {
    let rename = |option: &str| {
        let device = option.strip_prefix("source=")?;
        match stable(device, names) {
            Named::Becomes(name) => Some(format!("source={}", device_path(&name))),
            Named::Stays | Named::Unknown => None,
        }
    };
    let lines = text.split_inclusive('\n').map(|line| {
        let options = line.split(',');
        let renamed = options.map(|option| rename(option).unwrap_or_else(|| option.to_owned()));
        renamed.collect::<Vec<_>>().join(",")
    });
    lines.collect()
}

fn suse(text: &str, names: DeviceNames<'_>) -> String {
    suse_mkinitrd::rename_devices(text, |device| match awaited(device, names) {
        Awaited::Becomes(path) => Some(path),
        Awaited::Stays | Awaited::Never => None,
    })
}

fn nash_script(text: &str, names: DeviceNames<'_>) -> String {
    // Made by `mkrootdev` itself.
    nash::rename_devices(text, |device| match stable(device, names) {
        _ if device == "/dev/root" => nash::Renamed::Stays,
        Named::Becomes(name) => nash::Renamed::Becomes(name),
        Named::Unknown => nash::Renamed::Gone,
        Named::Stays => nash::Renamed::Stays,
    })
}

/// `lvm.conf` that finds its volumes on any disk.
fn lvm(draft: &mut Draft<'_>) {
    let knows_hardware = draft.text(DEVICES_FILE).is_some_and(names_hardware);
    let before = draft.text(LVM_CONF);
    let mut after = before.map(without_hardware_filters).unwrap_or_default();
    if knows_hardware {
        after = without_devices_file(&after);
    }
    if before.is_some() || knows_hardware {
        draft.change(LVM_CONF, after, MANAGERS);
    }
}

/// Whether a devices file has entries that other hardware does not fit.
fn names_hardware(devices: &str) -> bool {
    let mut kinds = devices
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            line.split_whitespace()
                .find_map(|w| w.strip_prefix("IDTYPE="))
        });
    kinds.any(|kind| !LASTING_IDS.contains(&kind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::*;

    #[test]
    fn a_devices_file_of_other_hardware_is_not_used() {
        assert!(names_hardware(
            "# LVM\nVERSION=1.1.1\nIDTYPE=sys_wwid IDNAME=naa.5 DEVNAME=/dev/sda2 PVID=x\n"
        ));
        assert!(!names_hardware("IDTYPE=md_uuid IDNAME=1 PVID=x\n"));
    }

    #[test]
    fn names_of_multipath_are_gone() {
        for name in [
            "/dev/mapper/mpathap2",
            "/dev/mapper/3600508b1001c1d2e3f4a5b6c7d8e9f01p1",
            "/dev/disk/by-id/dm-uuid-part2-mpath-3600508b1001",
        ] {
            assert!(is_multipath(name), "{name}");
        }
        for name in ["/dev/mapper/rhel-root", "/dev/sda1", "/dev/mapper/3com"] {
            assert!(!is_multipath(name), "{name}");
        }
    }

    proptest! {
        /// Every text of a guest may be anything.
        #[test]
        fn no_text_makes_an_editor_panic(
            text in "(insmod|mkrootdev|resume|filter|\\[ -e |='|\\]|\"|/dev/sda1|r\\|\\.\\*\\||DEVICE |ARRAY uuid=| |\n|\\\\x|ü|\\PC){0,30}",
        ) {
            let text = format!("#!/bin/nash\n{text}");
            let filtered = without_hardware_filters(&text);
            assert_eq!(without_hardware_filters(&filtered), filtered);
            let unused = without_devices_file(&text);
            assert_eq!(without_devices_file(&unused), unused);
            let modules = ["lib/a.ko".to_owned()];
            if let Some(script) = nash::with_modules(&text, &modules) {
                assert_eq!(nash::with_modules(&script, &modules), Some(script));
            }
            let _texts = [
                nash::rename_devices(&text, |_| nash::Renamed::Becomes("UUID=1".to_owned())),
                suse_mkinitrd::rename_devices(&text, |_| Some("/dev/disk/by-uuid/1".to_owned())),
                dracut::rename_awaited(&text, |_| Awaited::Never),
                unblocked(&text, &[ModuleName::new("a")]),
            ];
            let unit = format!("etc/systemd/system/a.wants/dev-{text}.device");
            let _found = (dracut::wanted_device(&unit), is_multipath(&text));
        }
    }
}
