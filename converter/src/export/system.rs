// SPDX-License-Identifier: MIT OR Apache-2.0
//! What platforms call the guest's operating system, and what of the machine they do not have.

use disk::{Finding, Level};

use super::guest::GuestFacts;
use super::{Export, Platform, Target};
use crate::inspect::findings::{WithRemedy, finding};
use crate::vm::Firmware;

/// An operating system by its names: `os-release`, VMware (64 bits), the numbers of the CIM schema's
/// `CIM_OperatingSystem.OSType` (32 and 64 bits), which OVF uses.
struct Known {
    id: &'static str,
    vmware: &'static str,
    cim: (u16, u16),
}

/// `CIM_OperatingSystem.OSType`: LINUX, and Linux 64-Bit.
const LINUX: (u16, u16) = (36, 101);
/// Other, and Other 64-Bit: no Linux that we know.
const OTHER: (u16, u16) = (1, 102);

const KNOWN: [Known; 10] = [
    known("debian", "debian", (95, 96)),
    known("ubuntu", "ubuntu", (93, 94)),
    known("rhel", "rhel", (79, 80)),
    known("centos", "centos", (106, 107)),
    known("rocky", "centos", (106, 107)),
    known("almalinux", "centos", (106, 107)),
    known("ol", "oraclelinux", (108, 109)),
    known("fedora", "fedora", LINUX),
    known("sles", "sles", (84, 85)),
    known("opensuse-leap", "opensuse", (82, 83)),
];

const fn known(id: &'static str, vmware: &'static str, cim: (u16, u16)) -> Known {
    Known { id, vmware, cim }
}

fn find(guest: &GuestFacts) -> Option<&'static Known> {
    let id = guest.system.as_deref()?;
    KNOWN.iter().find(|known| known.id == id)
}

/// The name and the number of the system in an OVF descriptor: (`vmw:osType`, `ovf:id`).
pub(super) fn ovf_names(guest: &GuestFacts) -> (String, u16) {
    let unknown = if guest.kernel.is_some() { LINUX } else { OTHER };
    let (of_32, of_64) = find(guest).map_or(unknown, |known| known.cim);
    let number = if guest.is_32_bit() { of_32 } else { of_64 };
    // The API's names: `debian8_64Guest`, `ubuntu64Guest`.
    let name = match vmware_name(guest).as_deref() {
        None if guest.kernel.is_none() => {
            // The word comes before the width here.
            let name = if guest.is_32_bit() {
                "otherGuest"
            } else {
                "otherGuest64"
            };
            return (name.to_owned(), number);
        }
        None => "otherLinux".to_owned(),
        Some("oraclelinux") => "oracleLinux".to_owned(),
        Some(name) => name.to_owned(),
    };
    let width = match (
        guest.is_32_bit(),
        name.ends_with(|c: char| c.is_ascii_digit()),
    ) {
        (true, _) => "",
        (false, true) => "_64",
        (false, false) => "64",
    };
    (format!("{name}{width}Guest"), number)
}

/// `guestOS` of a VMX file.
pub(super) fn vmx_name(guest: &GuestFacts) -> String {
    let unknown = if guest.kernel.is_some() {
        "otherlinux"
    } else {
        "other"
    };
    let name = vmware_name(guest).unwrap_or_else(|| unknown.to_owned());
    match guest.is_32_bit() {
        true => name,
        false => format!("{name}-64"),
    }
}

/// VMware's name, with the version where it has one; only versions that the virtual hardware
/// that we write (version 11) knows.
fn vmware_name(guest: &GuestFacts) -> Option<String> {
    let name = find(guest)?.vmware;
    let version = guest.system_version.as_deref().unwrap_or_default();
    let major: Option<u32> = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    let latest = match name {
        "debian" => 8,
        "rhel" => 7,
        "sles" => 12,
        _ => return Some(name.to_owned()),
    };
    let major = major.unwrap_or(latest).clamp(5, latest);
    Some(match (name, major) {
        ("sles", ..10) => "sles".to_owned(),
        _ => format!("{name}{major}"),
    })
}

/// What somebody should know about disks, clock and firmware on a target.
pub(super) fn check(target: Target, export: &Export<'_>, findings: &mut Vec<Finding>) {
    let Some(platform) = target.platform() else {
        return;
    };
    let limit = target.disk_format().size_bytes_max();
    for disk in export.disks {
        if limit.is_some_and(|limit| disk.size_bytes > limit) {
            let problem = format!(
                "the disk is larger than a {} file can hold",
                disk.format.ending()
            );
            findings.push(
                finding(
                    Level::Error,
                    "export.disk.too-large",
                    disk.name.clone(),
                    problem,
                )
                .remedy("choose another format: vhdx, qcow2 or raw"),
            );
        }
    }
    // The others have a setting for it, or their guests ask the hypervisor for the time.
    if !export.vm.clock_utc && platform == Platform::Kubevirt {
        findings.push(
            finding(
                Level::Warning,
                "export.clock.local-time",
                platform.text(),
                "the guest keeps its hardware clock in local time, and KubeVirt must be told \
                 which that is",
            )
            .remedy("set spec.template.spec.domain.clock.timezone in the document"),
        );
    }
    let is_virtual_box = matches!(
        platform,
        Platform::VmwareOrVirtualBox | Platform::VirtualBox
    );
    if export.vm.firmware == Firmware::Uefi && is_virtual_box {
        findings.push(
            finding(
                Level::Note,
                "export.firmware.by-hand",
                "VirtualBox",
                "the guest starts with UEFI, which VirtualBox does not read from an import",
            )
            .remedy("VBoxManage modifyvm NAME --firmware efi"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_have_the_names_that_virtual_hardware_version_11_knows() {
        for (id, version, architecture, vmx, ovf) in [
            (
                "debian",
                "12",
                "x86_64",
                "debian8-64",
                ("debian8_64Guest", 96),
            ),
            ("debian", "7", "i386", "debian7", ("debian7Guest", 95)),
            ("rhel", "6.10", "x86_64", "rhel6-64", ("rhel6_64Guest", 80)),
            (
                "rocky",
                "9.4",
                "x86_64",
                "centos-64",
                ("centos64Guest", 107),
            ),
            (
                "ubuntu",
                "22.04",
                "x86_64",
                "ubuntu-64",
                ("ubuntu64Guest", 94),
            ),
            (
                "gentoo",
                "",
                "x86_64",
                "otherlinux-64",
                ("otherLinux64Guest", 101),
            ),
            ("gentoo", "", "i386", "otherlinux", ("otherLinuxGuest", 36)),
        ] {
            let guest = GuestFacts {
                system: Some(id.to_owned()),
                system_version: Some(version.to_owned()),
                architecture: Some(architecture.to_owned()),
                kernel: Some("6.1.0".to_owned()),
                ..GuestFacts::default()
            };
            assert_eq!(vmx_name(&guest), vmx);
            assert_eq!(ovf_names(&guest), (ovf.0.to_owned(), ovf.1));
        }
    }

    #[test]
    fn what_is_no_linux_that_we_know_has_the_name_of_anything() {
        let guest = GuestFacts::default();
        assert_eq!(vmx_name(&guest), "other-64");
        assert_eq!(ovf_names(&guest), ("otherGuest64".to_owned(), 102));
    }
}
