// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the guest starts: kernel command lines with disks by names that stay and a console on the
//! serial port, in every entry of every boot loader and in what the guest makes its next entries from;
//! and a loader where the firmware of a virtual machine looks for one.

mod command_line;
mod default_kernel;
mod defaults;
mod efi;
mod entries;
mod kernelopts;
mod lilo;
#[cfg(test)]
mod tests;
mod uki;

use disk::{Finding, Level};

use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{Bootloader, BootloaderKind, Inspection};
use crate::plan::PlanOptions;
use crate::plan::boot::command_line::{Form, Naming};
use crate::plan::edit::{Edit, Rewrites};

pub(crate) use default_kernel::default_kernel;

/// What a plan of starting is besides its changes of text files.
#[derive(Debug, Default)]
pub(crate) struct BootPlan<'a> {
    /// Files that are made.
    pub(crate) edits: Vec<Edit>,
    /// What LILO starts, which depends on what else is written.
    pub(crate) lilo: Option<lilo::Started<'a>>,
}

/// What all of these plans are made with.
#[derive(Debug, Clone, Copy)]
struct Setting<'a> {
    inspection: &'a Inspection,
    names: DeviceNames<'a>,
    serial_console: bool,
}

impl<'a> Setting<'a> {
    fn naming(&self, form: Form) -> Naming<'a> {
        Naming {
            names: self.names,
            inspection: self.inspection,
            form,
        }
    }
}

/// Plans the edits.
pub(crate) fn plan<'a>(
    inspection: &'a Inspection,
    names: DeviceNames<'a>,
    options: &PlanOptions,
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) -> BootPlan<'a> {
    let setting = Setting {
        inspection,
        names,
        serial_console: options.serial_console,
    };
    let kernel = default_kernel(inspection);
    let mut started = None;
    for loader in &inspection.bootloaders {
        match loader.kind {
            BootloaderKind::Lilo => {
                let by_lilo = lilo::plan(loader, kernel, setting, rewrites, findings);
                started = started.or(by_lilo);
            }
            BootloaderKind::Elilo => {}
            _ => entries::plan(loader, setting, rewrites, findings),
        }
    }
    uki::plan(kernel, setting, findings);
    defaults::plan(setting, rewrites, findings);
    BootPlan {
        edits: efi::plan(inspection, rewrites, findings),
        lilo: started,
    }
}

/// Whether there is a boot loader that is known.
pub(crate) fn check_loader(inspection: &Inspection, findings: &mut Vec<Finding>) {
    let is_known = |loader: &&Bootloader| loader.kind != BootloaderKind::Elilo;
    let mut loaders = inspection.bootloaders.iter();
    if loaders.any(|loader| is_known(&loader)) || !inspection.ukis.is_empty() {
        return;
    }
    findings.push(match inspection.bootloaders.first() {
        Some(other) => finding(
            Level::Error,
            "boot.loader.unsupported",
            other.configuration.place.guest_path.clone(),
            format!("the guest starts with {}, which is not known", other.kind),
        )
        .remedy("install GRUB 2 on the server and take a new image"),
        None => finding(
            Level::Error,
            "boot.loader.none",
            "/boot",
            "there is no configuration of a boot loader that we know",
        )
        .remedy("check that the image has the disk that the server starts from"),
    });
}
