// SPDX-License-Identifier: MIT OR Apache-2.0
//! What to change so that the guest boots as a virtual machine: a pure function of what was found.
//!
//! A plan is complete before anything is written, can be printed, and is carried out exactly as
//! printed. Planning over the result of a plan gives no edits.

mod boot;
mod devices;
mod drivers;
mod edit;
mod leftovers;
mod network;
mod print;
#[cfg(test)]
mod tests;
mod vm;

use std::fmt;

use disk::{Finding, Level};
use serde::{Deserialize, Serialize};

use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{BootloaderKind, Inspection, Kernel};
use crate::plan::edit::Rewrites;
use crate::vm::{Firmware, VmDefinition};

pub use edit::{AddedModule, Change, Edit, InitramfsAppend};

/// Whether the guest will boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it is.
    Ready,
    /// After the plan's edits.
    ReadyWithChanges,
    /// Somebody has to decide or add something first; the findings say what.
    NeedsInput,
    /// Not at all; the findings say why.
    NotConvertible,
}

impl Verdict {
    /// Whether a plan with this verdict can be applied.
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::ReadyWithChanges)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready as it is",
            Self::ReadyWithChanges => "ready with the changes below",
            Self::NeedsInput => "needs a decision first",
            Self::NotConvertible => "cannot be converted",
        })
    }
}

/// What a plan may choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOptions {
    /// The server: names the virtual machine.
    pub server_name: String,
    /// Whether the guest gets a console on the first serial port.
    pub serial_console: bool,
    /// Virtual processors at most.
    pub cpus_max: u32,
    /// Memory in bytes at most.
    pub memory_bytes_max: u64,
}

impl PlanOptions {
    /// The defaults for a server.
    #[must_use]
    pub fn new(server_name: impl Into<String>) -> Self {
        Self {
            server_name: server_name.into(),
            serial_console: true,
            cpus_max: 16,
            memory_bytes_max: 64 << 30,
        }
    }
}

/// What is to be changed, and the virtual machine that comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Whether the guest will boot.
    pub verdict: Verdict,
    /// What was noticed, inspection included.
    pub findings: Vec<Finding>,
    /// The edits, in the order in which they are made.
    pub edits: Vec<Edit>,
    /// The virtual machine.
    pub vm: VmDefinition,
}

/// Findings of this level [`Level::Error`] that somebody can decide about.
const DECIDABLE: [&str; 4] = [
    "fstab.device.unknown",
    "crypttab.device.unknown",
    "boot.device.unknown",
    "boot.uefi.nvram-only",
];

/// Plans the conversion.
#[must_use]
pub fn plan(inspection: &Inspection, options: &PlanOptions) -> Plan {
    let mut findings = inspection.findings.clone();
    let kernel = default_kernel(inspection);
    let network = network::plan(inspection, &options.server_name, &mut findings);
    let mut edits = Vec::new();
    if inspection.root.is_some() {
        check_system(inspection, &mut findings);
        leftovers::plan(inspection, &mut findings);
        let names = DeviceNames::new(&inspection.disks, inspection.machine.as_ref());
        let mut rewrites = Rewrites::default();
        devices::plan(inspection, names, &mut rewrites, &mut findings);
        boot::plan(inspection, names, options, &mut rewrites, &mut findings);
        let inner = &network.inner_files;
        let appends = drivers::plan(inspection, names, inner, &mut rewrites, &mut findings);
        edits.extend(rewrites.into_edits());
        edits.extend(network.edits);
        edits.extend(appends);
    }
    let vm = vm::define(inspection, kernel, network.nics, options);
    if inspection.root.is_some() && kernel.is_some() && vm.profiles.is_empty() {
        findings.push(no_profile(kernel));
    }
    let verdict = verdict(&findings, &edits);
    if !verdict.is_ready() {
        edits.clear();
    }
    Plan {
        verdict,
        findings,
        edits,
        vm,
    }
}

/// The kernel that the boot loader starts by default: the first that an entry names, else the
/// newest.
pub(crate) fn default_kernel(inspection: &Inspection) -> Option<&Kernel> {
    let named = inspection.bootloaders.iter().find_map(|bootloader| {
        let paths = boot::kernel_paths(&bootloader.configuration.text);
        paths.iter().find_map(|path| {
            let file = path.rsplit('/').next()?;
            let mut kernels = inspection.kernels.iter();
            kernels.find(|kernel| kernel.image.guest_path.ends_with(&format!("/{file}")))
        })
    });
    named.or_else(|| inspection.kernels.first())
}

fn check_system(inspection: &Inspection, findings: &mut Vec<Finding>) {
    if inspection.kernels.is_empty() {
        findings.push(
            finding(
                Level::Error,
                "kernel.none",
                "/boot",
                "there is no kernel (vmlinuz-*)",
            )
            .remedy(
                "if /boot is a partition of its own, take its disk into the image; else install a \
                 kernel on the server",
            ),
        );
    }
    let grub2 = |kind| kind == BootloaderKind::Grub2;
    if !inspection
        .bootloaders
        .iter()
        .any(|bootloader| grub2(bootloader.kind))
    {
        findings.push(unsupported_bootloader(inspection));
    }
    let efi = inspection.efi.as_ref();
    if inspection.firmware == Firmware::Uefi && !efi.is_some_and(|efi| efi.removable_loader) {
        findings.push(
            finding(
                Level::Error,
                "boot.uefi.nvram-only",
                "EFI system partition",
                "only the firmware's own memory names the boot loader; a virtual machine starts \
                 with an empty one and looks for /EFI/BOOT/BOOTX64.EFI",
            )
            .remedy("on the server: grub-install --removable, then take a new image"),
        );
    }
    let architecture = inspection
        .system
        .as_ref()
        .and_then(|s| s.architecture.as_deref());
    if let Some(other) = architecture.filter(|name| !matches!(*name, "x86_64" | "i386")) {
        findings.push(finding(
            Level::Error,
            "system.architecture",
            "the operating system",
            format!("is made for {other}; virtual machines are x86 here"),
        ));
    }
}

fn unsupported_bootloader(inspection: &Inspection) -> Finding {
    match inspection.bootloaders.first() {
        Some(other) => finding(
            Level::Error,
            "boot.loader.unsupported",
            other.configuration.place.guest_path.clone(),
            format!(
                "the guest starts with {}; only GRUB 2 is known yet",
                other.kind
            ),
        )
        .remedy("install GRUB 2 on the server and take a new image"),
        None => finding(
            Level::Error,
            "boot.loader.none",
            "/boot",
            "there is no configuration of a boot loader that we know",
        )
        .remedy("check that the image has the disk that the server starts from"),
    }
}

fn no_profile(kernel: Option<&Kernel>) -> Finding {
    let version = kernel
        .map(|kernel| kernel.version.clone())
        .unwrap_or_default();
    finding(
        Level::Error,
        "kernel.no-drivers",
        version,
        "this kernel has drivers for none of the disk controllers of a virtual machine",
    )
    .remedy("install the distribution's own kernel on the server and take a new image")
}

fn verdict(findings: &[Finding], edits: &[Edit]) -> Verdict {
    let mut errors = findings
        .iter()
        .filter(|f| f.level == Level::Error)
        .peekable();
    if errors.peek().is_some() {
        return if errors.all(|error| DECIDABLE.contains(&error.code.as_str())) {
            Verdict::NeedsInput
        } else {
            Verdict::NotConvertible
        };
    }
    if edits.is_empty() {
        Verdict::Ready
    } else {
        Verdict::ReadyWithChanges
    }
}
