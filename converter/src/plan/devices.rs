// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of disks that will change with the hardware, in fstab, crypttab and the resume setting:
//! each becomes the UUID of what it names.

use disk::{Finding, Level};

use crate::guest::crypttab::{self, Crypttab};
use crate::guest::fstab::{self, Fstab};
use crate::guest::shell_config::ShellConfig;
use crate::inspect::device_names::{DeviceNames, Stability, stability};
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{Inspection, TextFile};
use crate::plan::edit::Rewrites;

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
        let after = resume_setting(&file.text, names);
        rewrites.change(
            file,
            after,
            "the swap space to resume from is named by its UUID, for initramfs images made later",
        );
    }
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
    let mut table = Fstab::parse(file.text.as_bytes());
    let entries: Vec<fstab::Entry> = table.entries().collect();
    let mut changed = Vec::new();
    for entry in entries {
        match stable(&entry.spec, names) {
            Named::Stays => {}
            Named::Becomes(name) => {
                table.set_spec(entry.line, &name);
                changed.push(format!("{} ({})", entry.spec, entry.file));
            }
            Named::Unknown => findings.push(unknown_in_fstab(file, &entry)),
        }
    }
    let reason = format!(
        "named by UUID, because their names change: {}",
        changed.join(", ")
    );
    rewrites.change(file, text_of(table.to_bytes(), &file.text), reason);
}

/// A mount that may fail is the guest's affair; any other one stops its boot.
fn unknown_in_fstab(file: &TextFile, entry: &fstab::Entry) -> Finding {
    let optional = entry.has_option("nofail") || entry.has_option("noauto");
    let place = format!("{}: {}", file.place.guest_path, entry.file);
    let problem = format!("{} is on none of the image's disks", entry.spec);
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
    let mut table = Crypttab::parse(file.text.as_bytes());
    let entries: Vec<crypttab::Entry> = table.entries().collect();
    for entry in entries {
        match stable(&entry.device, names) {
            Named::Stays => {}
            Named::Becomes(name) => {
                table.set_device(entry.line, &name);
            }
            Named::Unknown => findings.push(
                finding(
                    Level::Error,
                    "crypttab.device.unknown",
                    format!("{}: {}", file.place.guest_path, entry.name),
                    format!("{} is on none of the image's disks", entry.device),
                )
                .remedy("take that disk into the image, or remove the line on the server"),
            ),
        }
    }
    rewrites.change(
        file,
        text_of(table.to_bytes(), &file.text),
        "encrypted volumes are named by UUID: the names of disks change",
    );
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
    if stability(spec) != Stability::Volatile {
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
