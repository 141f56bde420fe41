// SPDX-License-Identifier: MIT OR Apache-2.0
//! Services that belong to the hardware of the physical server are switched off in virtual
//! machines, so that nothing is lost and a failback to a physical machine has them again:
//!
//! - systemd: a drop-in with `ConditionVirtualization=no`. It works for units of its own, for those
//!   made of System V scripts, and replaces no file of an administrator, as masking would.
//! - upstart of Ubuntu: a file `NAME.override` with `manual`.
//! - System V: they are named. Every level has a link of its own for each, and a tool to keep them.
//!
//! Also told: tuned's profile, memory that is reserved for crash dumps, other hypervisors' tools.

use std::collections::BTreeMap;

use disk::{Finding, Level};

use crate::inspect::Inspection;
use crate::inspect::findings::{WithRemedy, finding};
use crate::plan::PlanOptions;
use crate::plan::edit::{Change, Edit};
use crate::plan::services::{Fate, kind_of};

/// Machines that were virtual already.
const OTHER_HYPERVISORS: [&str; 5] = [
    "open-vm-tools",
    "vmtoolsd",
    "vmware-tools",
    "vboxadd",
    "xe-daemon",
];
/// More than this part of the memory is a large reservation.
const RESERVED_PARTS: u64 = 8;

/// Plans what switches services off.
pub(crate) fn plan(
    inspection: &Inspection,
    options: &PlanOptions,
    findings: &mut Vec<Finding>,
) -> Vec<Edit> {
    let mut edits = Vec::new();
    // Reasons with the services of each, in the order of the services.
    let mut off: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut left: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for service in &inspection.services {
        let Some(kind) = kind_of(service) else {
            continue;
        };
        let switch = match kind.fate {
            Fate::Off if !options.keep_services => Switch::of(service, inspection),
            Fate::Off | Fate::Named => None,
        };
        match switch {
            Some(switch) => {
                off.entry(kind.reason).or_default().push(service);
                edits.extend(switch.edits(service, inspection));
            }
            None => left.entry(kind.reason).or_default().push(service),
        }
    }
    for (reason, services) in off {
        findings.push(
            finding(
                Level::Note,
                "services.switched-off",
                services.join(", "),
                reason,
            )
            .remedy("--keep-services leaves them on"),
        );
    }
    for (reason, services) in left {
        findings.push(
            finding(
                Level::Note,
                "services.hardware",
                services.join(", "),
                reason,
            )
            .remedy("switch them off in the virtual machine if they disturb"),
        );
    }
    hypervisors(inspection, findings);
    tuned(inspection, findings);
    crash_kernel(inspection, options, findings);
    edits
}

/// How a service is switched off.
#[derive(Debug, Clone, Copy)]
enum Switch {
    Systemd,
    Upstart,
}

impl Switch {
    fn of(service: &str, inspection: &Inspection) -> Option<Self> {
        let is_systemd = inspection
            .system
            .as_ref()
            .is_some_and(|system| system.systemd);
        let jobs = &inspection.service_facts.upstart_jobs;
        if is_systemd {
            Some(Self::Systemd)
        } else {
            jobs.iter()
                .any(|job| job == service)
                .then_some(Self::Upstart)
        }
    }

    fn edits(self, service: &str, inspection: &Inspection) -> Vec<Edit> {
        let file = |path: String, content: &str, reason: String| {
            Some(Edit {
                place: inspection.place_on_root(path)?,
                reasons: vec![reason],
                change: Change::Create {
                    content: content.to_owned(),
                    mode: 0o644,
                },
            })
        };
        match self {
            Self::Upstart => Vec::from_iter(file(
                format!("/etc/init/{service}.override"),
                "manual\n",
                format!("{service} does not start by itself"),
            )),
            Self::Systemd => units(service)
                .into_iter()
                .filter(|unit| !inspection.service_facts.switched_off.contains(unit))
                .filter_map(|unit| {
                    file(
                        format!("/etc/systemd/system/{unit}.d/relevo.conf"),
                        "# For the hardware of a physical server.\n[Unit]\n\
                         ConditionVirtualization=no\n",
                        format!("{unit} starts on physical machines only"),
                    )
                })
                .collect(),
        }
    }
}

/// The units of a service. A socket would start the service again and again, whose condition fails.
fn units(service: &str) -> Vec<String> {
    let mut units = vec![format!("{service}.service")];
    if service == "multipathd" {
        units.push("multipathd.socket".to_owned());
    }
    units
}

fn hypervisors(inspection: &Inspection, findings: &mut Vec<Finding>) {
    let services = inspection.services.iter().map(String::as_str);
    let found: Vec<&str> = services
        .filter(|name| {
            OTHER_HYPERVISORS
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .collect();
    if !found.is_empty() {
        findings.push(finding(
            Level::Note,
            "services.hypervisor",
            "services",
            format!("for another hypervisor: {}", found.join(", ")),
        ));
    }
}

fn tuned(inspection: &Inspection, findings: &mut Vec<Finding>) {
    let profile = inspection.service_facts.tuned_profile.as_deref();
    if let Some(profile) = profile.filter(|profile| !profile.contains("guest")) {
        findings.push(
            finding(
                Level::Note,
                "services.tuned",
                "tuned",
                format!("its profile {profile} is not for a virtual machine"),
            )
            .remedy("tuned-adm profile virtual-guest, if the machine stays virtual"),
        );
    }
}

/// Memory that the kernel sets aside for a crash dump, where it is much of what the machine has.
fn crash_kernel(inspection: &Inspection, options: &PlanOptions, findings: &mut Vec<Finding>) {
    let memory = crate::plan::vm::memory_bytes(inspection, options);
    let running = inspection.machine.iter();
    let running = running.map(|machine| machine.os.kernel_command_line.as_str());
    let configured = inspection.bootloaders.iter();
    let texts = running.chain(configured.map(|b| b.configuration.text.as_str()));
    let words = texts.flat_map(str::split_whitespace);
    let mut sizes = words.filter_map(|word| {
        let value = word.strip_prefix("crashkernel=")?.trim_matches(['"', '\'']);
        reserved_bytes(value, memory)
    });
    let Some(reserved) = sizes.find(|reserved| *reserved > memory / RESERVED_PARTS) else {
        return;
    };
    findings.push(
        finding(
            Level::Warning,
            "kernel.crashkernel.large",
            "kernel command line",
            format!(
                "crashkernel= sets {} MiB aside of the virtual machine's {} MiB",
                reserved >> 20,
                memory >> 20
            ),
        )
        .remedy("give the virtual machine more memory, or lower the reservation on the server"),
    );
}

/// `512M`, `256M@16M`, `1G,high`, or `1G-4G:192M,4G-:512M`, where the machine's memory decides.
fn reserved_bytes(value: &str, memory: u64) -> Option<u64> {
    let first = value.split(['@', ',']).next()?;
    if !value.contains(':') {
        return size(first);
    }
    value.split('@').next()?.split(',').find_map(|part| {
        let (range, reserved) = part.split_once(':')?;
        let (start, end) = range.split_once('-')?;
        let holds = size(start)? <= memory && size(end).is_none_or(|end| memory < end);
        holds.then(|| size(reserved)).flatten()
    })
}

fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let shift = match text.get(digits.len()..)?.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("512M", Some(512 << 20))]
    #[case("128M@16M", Some(128 << 20))]
    #[case("1G,high", Some(1 << 30))]
    #[case("auto", None)]
    #[case("1G-4G:192M,4G-64G:256M,64G-:512M", Some(256 << 20))]
    #[case("64G-:512M", None)]
    #[case("99999999999999999999G", None)]
    #[case("18446744073709551615G", None)]
    fn a_reservation_is_read_for_eight_gigabytes(#[case] value: &str, #[case] bytes: Option<u64>) {
        assert_eq!(reserved_bytes(value, 8 << 30), bytes);
    }
}
