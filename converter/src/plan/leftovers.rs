// SPDX-License-Identifier: MIT OR Apache-2.0
//! Services that belong to the hardware of the physical server. A virtual machine has no use for
//! them; most end at once, some (a watchdog, multipath) can do harm. They are listed, not changed.

use disk::{Finding, Level};

use crate::inspect::Inspection;
use crate::inspect::findings::{WithRemedy, finding};

/// Beginnings of the names of services.
const HARDWARE: [&str; 27] = [
    "amsd",
    "cpqScsi",
    "dataeng",
    "dcismeng",
    "dsm_",
    "fancontrol",
    "hp-",
    "hpasm",
    "hpsmh",
    "hpssa",
    "ipmi",
    "lm-sensors",
    "lsi_",
    "mcelog",
    "megaraid",
    "mpt-status",
    "mrmonitor",
    "multipath",
    "nvidia-",
    "openipmi",
    "smad",
    "smartd",
    "smartmontools",
    "srvadmin",
    "tw_cli",
    "vivaldiframework",
    "watchdog",
];
/// The same for machines that were virtual already.
const OTHER_HYPERVISORS: [&str; 5] = [
    "open-vm-tools",
    "vmtoolsd",
    "vmware-tools",
    "vboxadd",
    "xe-daemon",
];

/// Lists the services.
pub(crate) fn plan(inspection: &Inspection, findings: &mut Vec<Finding>) {
    let named = |prefixes: &[&str]| -> Vec<&str> {
        let services = inspection.services.iter().map(String::as_str);
        services
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .collect()
    };
    let hardware = named(&HARDWARE);
    if !hardware.is_empty() {
        findings.push(
            finding(
                Level::Note,
                "services.hardware",
                "services",
                format!(
                    "for the physical server's hardware: {}",
                    hardware.join(", ")
                ),
            )
            .remedy("switch them off in the virtual machine if they disturb"),
        );
    }
    let hypervisor = named(&OTHER_HYPERVISORS);
    if !hypervisor.is_empty() {
        findings.push(finding(
            Level::Note,
            "services.hypervisor",
            "services",
            format!("for another hypervisor: {}", hypervisor.join(", ")),
        ));
    }
}
