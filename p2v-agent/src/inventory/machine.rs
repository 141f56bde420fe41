// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hardware besides disks and network: model, firmware, Secure Boot, TPM, processors, memory.

use std::collections::BTreeSet;

use image_library::machine::{Cpu, Firmware};

use crate::inventory::root::Root;

/// Secure Boot's state: variable of the EFI global namespace, four bytes of attributes before it.
const SECURE_BOOT: &str =
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// What DMI has where nobody filled it in.
const FILLERS: [&str; 6] = [
    "to be filled by o.e.m.",
    "default string",
    "system product name",
    "system manufacturer",
    "not specified",
    "none",
];

/// Vendor and model by DMI.
pub(crate) fn hardware(root: &Root) -> Option<String> {
    let parts: Vec<String> = ["sys_vendor", "product_name"]
        .iter()
        .filter_map(|file| root.line(&format!("/sys/class/dmi/id/{file}")))
        .filter(|text| !FILLERS.contains(&text.to_ascii_lowercase().as_str()))
        .collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// How it started.
pub(crate) fn firmware(root: &Root) -> Firmware {
    if root.exists("/sys/firmware/efi") {
        Firmware::Uefi
    } else {
        Firmware::Bios
    }
}

/// Whether Secure Boot is on.
pub(crate) fn secure_boot(root: &Root) -> Option<bool> {
    let variable = root.bytes(SECURE_BOOT)?;
    variable.get(4).map(|state| *state == 1)
}

/// Version of the first TPM.
pub(crate) fn tpm(root: &Root) -> Option<String> {
    let name = root.names("/sys/class/tpm").into_iter().next()?;
    let directory = format!("/sys/class/tpm/{name}");
    let version = match root.number(&format!("{directory}/tpm_version_major")) {
        Some(2) => "2.0",
        Some(1) => "1.2",
        // Kernels before 5.6 do not say; only TPM 1.2 has these capabilities in sysfs.
        _ if root.exists(&format!("{directory}/device/caps")) => "1.2",
        _ => "2.0",
    };
    Some(version.to_owned())
}

/// Processors, from `/proc/cpuinfo`.
pub(crate) fn cpu(root: &Root, architecture: &str) -> Cpu {
    let text = root.text("/proc/cpuinfo").unwrap_or_default();
    let mut model = String::new();
    let (mut sockets, mut cores) = (BTreeSet::new(), BTreeSet::new());
    let (mut threads, mut socket) = (0_u32, String::new());
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match key.trim() {
            "processor" => {
                threads = threads.saturating_add(1);
                socket.clear();
            }
            "model name" if model.is_empty() => value.clone_into(&mut model),
            "physical id" => {
                value.clone_into(&mut socket);
                sockets.insert(socket.clone());
            }
            "core id" => {
                cores.insert((socket.clone(), value.to_owned()));
            }
            _ => {}
        }
    }
    let threads = threads.max(1);
    let count = |found: usize| u32::try_from(found).unwrap_or(u32::MAX);
    Cpu {
        model,
        architecture: architecture.to_owned(),
        sockets: count(sockets.len()).max(1),
        cores: if cores.is_empty() {
            threads
        } else {
            count(cores.len())
        },
        threads,
    }
}

/// Main memory in bytes.
pub(crate) fn memory_bytes(root: &Root) -> u64 {
    memory_line(root, "MemTotal").unwrap_or(0)
}

/// One line of `/proc/meminfo` in bytes.
pub(crate) fn memory_line(root: &Root, name: &str) -> Option<u64> {
    let text = root.text("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::phony::PhonyServer;

    #[test]
    fn a_bios_server_without_anything_special() {
        let server = PhonyServer::new();
        server.write("/sys/class/dmi/id/sys_vendor", "Dell Inc.\n");
        server.write("/sys/class/dmi/id/product_name", "PowerEdge R630\n");
        let root = server.root();
        assert_eq!(hardware(&root).as_deref(), Some("Dell Inc. PowerEdge R630"));
        assert_eq!(firmware(&root), Firmware::Bios);
        assert_eq!(secure_boot(&root), None);
        assert_eq!(tpm(&root), None);
    }

    #[test]
    fn a_uefi_server_with_secure_boot_and_a_tpm() {
        let server = PhonyServer::new();
        server.write(SECURE_BOOT, [6, 0, 0, 0, 1]);
        server.write("/sys/class/tpm/tpm0/tpm_version_major", "2\n");
        server.write("/sys/class/dmi/id/sys_vendor", "To Be Filled By O.E.M.\n");
        let root = server.root();
        assert_eq!(firmware(&root), Firmware::Uefi);
        assert_eq!(secure_boot(&root), Some(true));
        assert_eq!(tpm(&root).as_deref(), Some("2.0"));
        assert_eq!(hardware(&root), None);
    }

    #[test]
    fn processors_are_counted_as_sockets_cores_and_threads() {
        let server = PhonyServer::new();
        let mut text = String::new();
        for (processor, (socket, core)) in [
            (0, 0),
            (0, 1),
            (1, 0),
            (1, 1),
            (0, 0),
            (0, 1),
            (1, 0),
            (1, 1),
        ]
        .iter()
        .enumerate()
        {
            text.push_str(&format!(
                "processor\t: {processor}\nmodel name\t: Xeon E5\nphysical id\t: {socket}\n\
                 core id\t\t: {core}\n\n"
            ));
        }
        server.write("/proc/cpuinfo", text);
        server.write(
            "/proc/meminfo",
            "MemTotal:       65857364 kB\nMemFree:  100 kB\n",
        );
        let cpu = cpu(&server.root(), "x86_64");
        assert_eq!((cpu.sockets, cpu.cores, cpu.threads), (2, 4, 8));
        assert_eq!(cpu.model, "Xeon E5");
        assert_eq!(memory_bytes(&server.root()), 67_437_940_736);
    }
}
