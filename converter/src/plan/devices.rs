// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of disks that will change with the hardware, in fstab, crypttab, mount units and the resume
//! setting: each becomes the UUID of what it names, or its label.

use disk::{Finding, Level};

use crate::guest::crypttab::{self, Crypttab};
use crate::guest::fstab::{self, Fstab};
use crate::guest::shell_config::ShellConfig;
use crate::inspect::device_names::{DeviceNames, Stability};
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{Inspection, TextFile};
use crate::plan::edit::Rewrites;
use crate::plan::mount_options::{Renamed, renamed};
use crate::plan::other_names;

/// Where keys are from that are new at every boot.
const RANDOM: [&str; 4] = [
    "/dev/urandom",
    "/dev/random",
    "/dev/hwrng",
    "/dev/hw_random",
];

/// Plans the edits.
pub(crate) fn plan(
    inspection: &Inspection,
    names: DeviceNames<'_>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) {
    if let Some(file) = &inspection.files.fstab {
        fstab(file, names, rewrites, findings);
    }
    if let Some(file) = &inspection.files.crypttab {
        crypttab(file, names, rewrites, findings);
    }
    for file in &inspection.files.initramfs_conf {
        rewrites.change(
            file,
            "the swap space to resume from is named by its UUID, for initramfs images made later",
            |text| resume_setting(text, names),
        );
    }
    for file in &inspection.device_files.mount_units {
        mount_unit(file, names, rewrites, findings);
    }
    other_names::plan(inspection, rewrites, findings);
    if let Some(file) = &inspection.files.device_map {
        findings.push(finding(
            Level::Note,
            "boot.device-map",
            file.place.guest_path.clone(),
            "names the disks of the physical server; only grub-install reads it",
        ));
    }
}

fn fstab(
    file: &TextFile,
    names: DeviceNames<'_>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) {
    rewrites.change_because(file, |text| {
        let mut table = Fstab::parse(text.as_bytes());
        let entries: Vec<fstab::Entry> = table.entries().collect();
        let mut changed = Vec::new();
        for entry in entries {
            match stable(&entry.spec, names) {
                Named::Stays => {}
                Named::Becomes(name) => {
                    table.set_spec(entry.line, &name);
                    changed.push(format!("{} ({})", entry.spec, entry.file));
                }
                Named::Unknown => findings.push(unknown_in_fstab(file, &entry, &entry.spec)),
            }
            let options = options_of(&entry, names);
            if !options.changed.is_empty() {
                table.set_options(entry.line, &options.options);
                changed.push(format!("{} ({})", options.changed.join(", "), entry.file));
            }
            let unknown = options.unknown.iter();
            findings.extend(unknown.map(|device| unknown_in_fstab(file, &entry, device)));
        }
        let changed = changed.join(", ");
        let reason = format!("named by UUID, because their names change: {changed}");
        (text_of(table.to_bytes(), text), reason)
    });
}

/// The options of an entry with names that stay.
pub(crate) fn options_of(entry: &fstab::Entry, names: DeviceNames<'_>) -> Renamed {
    renamed(entry.options.iter().map(String::as_str), names)
}

/// A mount that may fail is the guest's affair; any other one stops its boot.
fn unknown_in_fstab(file: &TextFile, entry: &fstab::Entry, device: &str) -> Finding {
    let optional = entry.has_option("nofail") || entry.has_option("noauto");
    let place = format!("{}: {}", file.place.guest_path, entry.file);
    let problem = format!("{device} is on none of the image's disks");
    if optional {
        return finding(Level::Note, "fstab.device.optional", place, problem);
    }
    finding(Level::Error, "fstab.device.unknown", place, problem).remedy(
        "take that disk into the image, or add `nofail` to the line on the server if it can do \
         without",
    )
}

fn crypttab(
    file: &TextFile,
    names: DeviceNames<'_>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) {
    rewrites.change(
        file,
        "encrypted volumes are named by UUID: the names of disks change",
        |text| with_stable_devices(text, &file.place.guest_path, names, findings),
    );
}

/// A crypttab with devices and keys by names that stay.
fn with_stable_devices(
    text: &str,
    place: &str,
    names: DeviceNames<'_>,
    findings: &mut Vec<Finding>,
) -> String {
    let mut table = Crypttab::parse(text.as_bytes());
    let entries: Vec<crypttab::Entry> = table.entries().collect();
    for entry in entries {
        match encrypted(&entry, names) {
            Named::Stays => {}
            Named::Becomes(name) => {
                table.set_device(entry.line, &name);
            }
            Named::Unknown => findings.push(
                finding(
                    Level::Error,
                    "crypttab.device.unknown",
                    format!("{}: {}", place, entry.name),
                    format!("{} is on none of the image's disks", entry.device),
                )
                .remedy("take that disk into the image, or remove the line on the server"),
            ),
        }
        match key(&entry, names) {
            Named::Stays => {}
            Named::Becomes(key) => {
                table.set_key_file(entry.line, &key);
            }
            Named::Unknown => findings.push(
                finding(
                    Level::Warning,
                    "crypttab.key.unknown",
                    format!("{}: {}", place, entry.name),
                    "its key is on a disk that is not in the image, as on a USB stick",
                )
                .remedy("have the passphrase at hand: it is asked for on the console"),
            ),
        }
    }
    text_of(table.to_bytes(), text)
}

/// The encrypted device. One with a new key at every boot is made anew each time, and its UUID with
/// it, if it has one at all.
fn encrypted(entry: &crypttab::Entry, names: DeviceNames<'_>) -> Named {
    let key = entry.key_file.as_deref().unwrap_or_default();
    if names.stability(&entry.device) != Stability::Volatile || !RANDOM.contains(&key) {
        return stable(&entry.device, names);
    }
    let volume = names.resolve(&entry.device);
    match volume.and_then(|volume| names.partition_name(volume)) {
        Some(name) => Named::Becomes(name),
        None => stable(&entry.device, names),
    }
}

/// The key, where a disk is named in it: `/dev/sdb1:/key` of Debian, `/key:/dev/sdb1` and
/// `/key:LABEL=stick` of systemd.
fn key(entry: &crypttab::Entry, names: DeviceNames<'_>) -> Named {
    let Some(key) = &entry.key_file else {
        return Named::Stays;
    };
    let (device, rest, in_front) = match key.split_once(":/") {
        Some((device, path)) if device.starts_with("/dev/") => (device, format!(":/{path}"), true),
        Some((path, device)) if device.starts_with("dev/") => {
            let device = key.get(path.len() + 1..).unwrap_or_default();
            (device, format!("{path}:"), false)
        }
        _ => match key.rsplit_once(':') {
            Some((path, device)) if device.contains('=') => (device, format!("{path}:"), false),
            _ => (key.as_str(), String::new(), true),
        },
    };
    // A stick is named by its label as often as by anything else.
    let is_named = names.stability(device) == Stability::Stable && !rest.is_empty();
    if is_named && names.resolve(device).is_none() {
        return Named::Unknown;
    }
    match stable(device, names) {
        Named::Becomes(name) if rest.is_empty() => Named::Becomes(device_path(&name)),
        Named::Becomes(name) if in_front => Named::Becomes(device_path(&name) + &rest),
        Named::Becomes(name) => Named::Becomes(rest + &name),
        other => other,
    }
}

/// `UUID=x` as a path, for readers that take nothing else.
fn device_path(name: &str) -> String {
    match name.split_once('=') {
        Some((tag, value)) => format!("/dev/disk/by-{}/{value}", tag.to_ascii_lowercase()),
        None => name.to_owned(),
    }
}

/// `What=` of a unit that mounts something.
fn mount_unit(
    file: &TextFile,
    names: DeviceNames<'_>,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) {
    rewrites.change(
        file,
        "the disk is named by UUID, because its name changes",
        |text| with_stable_source(text, &file.place.guest_path, names, findings),
    );
}

fn with_stable_source(
    text: &str,
    place: &str,
    names: DeviceNames<'_>,
    findings: &mut Vec<Finding>,
) -> String {
    let mut after = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let device = line.strip_prefix("What=").map(str::trim);
        match device.map(|device| (device, stable(device, names))) {
            Some((device, Named::Becomes(name))) => {
                after.push_str(&line.replace(device, &device_path(&name)));
                continue;
            }
            Some((device, Named::Unknown)) => findings.push(finding(
                Level::Note,
                "fstab.device.optional",
                place.to_owned(),
                format!("{device} is on none of the image's disks"),
            )),
            _ => {}
        }
        after.push_str(line);
    }
    after
}

/// `RESUME=/dev/sda2` with the UUID instead.
pub(crate) fn resume_setting(text: &str, names: DeviceNames<'_>) -> String {
    let mut config = ShellConfig::parse(text.as_bytes());
    config.replace("RESUME", |device| match stable(device, names) {
        Named::Becomes(name) => Some(name),
        Named::Stays | Named::Unknown => None,
    });
    text_of(config.to_bytes(), text)
}

/// What an editor of a text made of it. The editors keep what they do not edit, so it is text
/// again; if one did not, nothing is changed.
pub(crate) fn text_of(bytes: Vec<u8>, before: &str) -> String {
    String::from_utf8(bytes).unwrap_or_else(|_| before.to_owned())
}

/// What becomes of a device's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// It stays true.
    Stays,
    /// It is replaced.
    Becomes(String),
    /// It will change, and what it names is not known.
    Unknown,
}

/// The name that a device is to be given.
pub(crate) fn stable(spec: &str, names: DeviceNames<'_>) -> Named {
    if names.stability(spec) != Stability::Volatile {
        return Named::Stays;
    }
    match names
        .resolve(spec)
        .and_then(|volume| names.stable_name(volume))
    {
        Some(name) => Named::Becomes(name),
        None => Named::Unknown,
    }
}
