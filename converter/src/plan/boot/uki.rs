// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unified kernel images: nothing in them can be changed, as a signature covers all of it and the
//! guest would replace it. What would have to change is said.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use super::Setting;
use super::command_line::{Form, blacklisted, has_console};
use crate::guest::kernel_cmdline::{CommandLine, Quoting};
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{DriverPlace, Kernel, UkiFacts};

/// Says what hinders each image; it weighs less where another kernel starts.
pub(super) fn plan(default: Option<&Kernel>, setting: Setting<'_>, findings: &mut Vec<Finding>) {
    for uki in &setting.inspection.ukis {
        let is_default = default.is_some_and(|default| std::ptr::eq(default, &uki.kernel));
        let level = match is_default {
            true => Level::Error,
            false => Level::Warning,
        };
        check(uki, level, setting, findings);
    }
}

fn check(uki: &UkiFacts, level: Level, setting: Setting<'_>, findings: &mut Vec<Finding>) {
    let place = || uki.kernel.image.guest_path.clone();
    let text = uki.command_line.clone().unwrap_or_default();
    let arguments = CommandLine::parse(text, Quoting::Kernel);
    let mut renamed = arguments.clone();
    let unknown = setting.naming(Form::Uuid).apply(&mut renamed);
    let mut problems = Vec::new();
    if renamed != arguments || !unknown.is_empty() {
        problems.push("its command line names a disk by a name that changes".to_owned());
    }
    let names = blacklisted(&arguments);
    if !names.is_empty() {
        problems.push(format!("its command line switches off {}", list(&names)));
    }
    if !has_disk(&uki.kernel) {
        problems.push("the initramfs inside has no driver of a virtual disk".to_owned());
    }
    if !problems.is_empty() {
        let signed = if uki.is_signed { "signed " } else { "" };
        let problem = format!(
            "{}; a {signed}unified image is not changed",
            problems.join(", and ")
        );
        findings.push(finding(level, "boot.uki", place(), problem).remedy(
            "build it anew on the server, with root=UUID= and the virtio drivers, and take a new \
             image",
        ));
    }
    if setting.serial_console && !has_console(&arguments) {
        findings.push(finding(
            Level::Note,
            "boot.uki.console",
            place(),
            "a unified image is not changed: it gets no console on the serial port",
        ));
    }
}

/// Whether the kernel finds a disk by what is in the image.
fn has_disk(kernel: &Kernel) -> bool {
    let is_inside = |driver: &&str| {
        let place = kernel.driver(driver);
        matches!(place, DriverPlace::BuiltIn | DriverPlace::InInitramfs)
    };
    let ways: [&[&str]; 3] = [
        &["virtio_pci", "virtio_blk"],
        &["virtio_pci", "virtio_scsi", "sd_mod"],
        &["ahci", "sd_mod"],
    ];
    ways.iter().any(|drivers| drivers.iter().all(is_inside))
}

fn list(names: &BTreeSet<String>) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.join(", ")
}
