// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of disks that will change with the hardware, in fstab, crypttab and the resume setting:
//! each becomes the UUID of what it names.

use disk::{Finding, Level};

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
    let mut after = String::new();
    let mut changed = Vec::new();
    for line in file.text.split_inclusive('\n') {
        let spec = field(line, 0).unwrap_or_default();
        match stable(spec, names) {
            Named::Stays => after.push_str(line),
            Named::Becomes(name) => {
                changed.push(format!("{spec} ({})", field(line, 1).unwrap_or_default()));
                after.push_str(&replace_field(line, 0, &name));
            }
            Named::Unknown => {
                after.push_str(line);
                findings.push(unknown_in_fstab(file, line, spec));
            }
        }
    }
    let reason = format!("named by UUID, because their names change: {}", changed.join(", "));
    rewrites.change(file, after, reason);
}

/// A mount that may fail is the guest's affair; any other one stops its boot.
fn unknown_in_fstab(file: &TextFile, line: &str, spec: &str) -> Finding {
    let target = field(line, 1).unwrap_or_default();
    let options = field(line, 3).unwrap_or_default();
    let optional = options.split(',').any(|option| matches!(option, "nofail" | "noauto"));
    let place = format!("{}: {target}", file.place.guest_path);
    let problem = format!("{spec} is on none of the image's disks");
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
    let mut after = String::new();
    for line in file.text.split_inclusive('\n') {
        let device = match field(line, 0) {
            Some(_) => field(line, 1).unwrap_or_default(),
            None => "",
        };
        match stable(device, names) {
            Named::Stays => after.push_str(line),
            Named::Becomes(name) => after.push_str(&replace_field(line, 1, &name)),
            Named::Unknown => {
                after.push_str(line);
                findings.push(
                    finding(
                        Level::Error,
                        "crypttab.device.unknown",
                        file.place.guest_path.clone(),
                        format!("{device} is on none of the image's disks"),
                    )
                    .remedy("take that disk into the image, or add `nofail` on the server"),
                );
            }
        }
    }
    rewrites.change(file, after, "encrypted volumes are named by UUID: their names change");
}

/// `RESUME=/dev/sda2` with the UUID instead.
pub(crate) fn resume_setting(text: &str, names: DeviceNames<'_>) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        let trimmed = line.trim();
        let value = trimmed.strip_prefix("RESUME=").unwrap_or_default();
        let device = value.trim_matches(['"', '\'']);
        match stable(device, names) {
            Named::Becomes(name) => line.replace(value, &name),
            Named::Stays | Named::Unknown => line.to_owned(),
        }
    });
    lines.collect()
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
    match names.resolve(spec).and_then(|volume| names.stable_name(volume)) {
        Some(name) => Named::Becomes(name),
        None => Named::Unknown,
    }
}

/// A blank-separated field of a line; none in comments.
fn field(line: &str, index: usize) -> Option<&str> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    line.split_whitespace().nth(index)
}

/// The line with one field replaced and its blanks as they were.
fn replace_field(line: &str, index: usize, new: &str) -> String {
    let Some(old) = field(line, index) else {
        return line.to_owned();
    };
    let start = old.as_ptr() as usize - line.as_ptr() as usize;
    [&line[..start], new, &line[start + old.len()..]].concat()
}
