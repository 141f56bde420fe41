// SPDX-License-Identifier: MIT OR Apache-2.0
//! What to change so that the guest boots as a virtual machine: a pure function of what was found.
//!
//! A plan is complete before anything is written, can be printed, and is carried out exactly as
//! printed. Planning over the result of a plan gives no edits.

mod boot;
mod devices;
mod drivers;
mod edit;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod hardware_tests;
mod leftovers;
mod mount_options;
mod network;
mod other_names;
mod print;
mod report;
mod selinux;
mod services;
#[cfg(test)]
mod tests;
mod vm;
mod writing;

use std::fmt;

use disk::{Finding, Level};
use serde::{Deserialize, Serialize};

use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{Inspection, Kernel, LUKS_LOCKED};
use crate::plan::edit::Rewrites;
use crate::vm::VmDefinition;

pub(crate) use boot::default_kernel;
pub use edit::{AddedModule, Change, Edit, InitramfsAppend};
pub use report::Report;
pub use writing::{LoadedModule, SmallVm, WrittenVolume};

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
    /// Whether services of the physical server's hardware stay on.
    #[serde(default)]
    pub keep_services: bool,
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
            keep_services: false,
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
    /// The small virtual machine that makes the edits of some volumes; those of all others are made
    /// natively.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub small_vm: Option<SmallVm>,
}

/// Findings of this level [`Level::Error`] that somebody can decide about.
const DECIDABLE: [&str; 5] = [
    LUKS_LOCKED,
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
    let mut rewrites = Rewrites::default();
    let server_name = &options.server_name;
    let network = network::plan(inspection, server_name, &mut rewrites, &mut findings);
    let mut edits = Vec::new();
    let mut direct_boot = None;
    if inspection.root.is_some() {
        check_system(inspection, &mut findings);
        let switches = leftovers::plan(inspection, options, &mut findings);
        let names = DeviceNames::new(inspection.volumes(), inspection.machine.as_ref())
            .with_aliases(&inspection.device_files.multipath_aliases);
        devices::plan(inspection, names, &mut rewrites, &mut findings);
        let start = boot::plan(inspection, names, options, &mut rewrites, &mut findings);
        let inner = &network.inner_files;
        let appends = drivers::plan(inspection, names, inner, &mut rewrites, &mut findings);
        let lilo = start.lilo.as_ref();
        direct_boot = lilo.and_then(|lilo| lilo.direct_boot(&appends, &mut findings));
        edits.extend(rewrites.into_edits());
        edits.extend(start.edits);
        edits.extend(network.edits);
        edits.extend(other_names::new_files(inspection));
        edits.extend(switches);
        edits.extend(appends);
        selinux::plan(inspection, &mut edits, &mut findings);
    }
    let mut vm = vm::define(inspection, kernel, network.nics, options);
    vm.direct_boot = direct_boot;
    if inspection.root.is_some() && kernel.is_some() && vm.profiles.is_empty() {
        findings.push(no_profile(kernel));
    }
    let mut small_vm = writing::plan(inspection, &edits, &mut findings);
    let verdict = verdict(&findings, &edits);
    if !verdict.is_ready() {
        edits.clear();
        small_vm = None;
    }
    Plan {
        verdict,
        findings,
        edits,
        vm,
        small_vm,
    }
}

fn check_system(inspection: &Inspection, findings: &mut Vec<Finding>) {
    if inspection.kernels.is_empty() && inspection.ukis.is_empty() {
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
    boot::check_loader(inspection, findings);
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
