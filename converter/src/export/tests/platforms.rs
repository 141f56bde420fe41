// SPDX-License-Identifier: MIT OR Apache-2.0
//! The documents, read by programs and libraries of the platforms, by schemas, and by their manuals.
//!
//! | document | read by |
//! |---|---|
//! | domain XML | the parser of libvirt (its driver `test`), virt-v2v |
//! | VMX | virt-v2v; the OVA as a whole is read by it in the orchestrator's tests |
//! | xl configuration | libxlutil, which is what xl reads with |
//! | VirtualMachine | `kubevirt.schema.json`, made from KubeVirt's OpenAPI definition |
//! | Proxmox VE | what qm.conf(5) says of each key |
//!
//! The script for Hyper-V has no reader here: Debian has no PowerShell.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::kubevirt::KUBEVIRT_FIELDS;
use super::{Guest, Target, bios_virtio, guests, old_i386, several_disks, uefi_virtio};
use crate::guest::samples::skip;
use crate::vm::Firmware;

/// What a program says on its standard output; `None` where it is not installed.
fn said(command: &mut Command) -> Option<String> {
    let output: Output = command.output().ok()?;
    let (out, errors) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {errors}");
    Some(String::from_utf8(out).unwrap())
}

/// A document with its disks, small and empty, in a directory.
fn placed(guest: &Guest, target: Target, format: &str) -> Option<(tempfile::TempDir, String)> {
    let directory = tempfile::tempdir().unwrap();
    let (exported, disks) = guest.export(target);
    let document = exported.document.unwrap();
    let here = directory.path().to_str().unwrap();
    let text = document.text.replace("/var/lib/relevo/out", here);
    std::fs::write(directory.path().join(&document.name), text).unwrap();
    for disk in disks {
        let path = directory.path().join(&disk.name);
        let mut qemu_img = Command::new("qemu-img");
        said(
            qemu_img
                .args(["create", "-q", "-f", format])
                .arg(path)
                .arg("1M"),
        )?;
    }
    Some((directory, document.name))
}

#[test]
fn libvirt_takes_the_domain_and_gives_it_back() {
    for guest in guests() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("domain.xml");
        std::fs::write(&file, guest.text(Target::Libvirt)).unwrap();
        let name = &guest.vm.name;
        let commands = format!("define {}; dumpxml {name}", file.display());
        let mut virsh = Command::new("virsh");
        let virsh = virsh.args(["-q", "-c", "test:///default", &commands]);
        let Some(domain) = said(virsh.env("LC_ALL", "C")) else {
            return skip("virsh (libvirt-clients) is not installed");
        };
        let memory = guest.vm.memory_bytes >> 10;
        let clock = if guest.vm.clock_utc {
            "utc"
        } else {
            "localtime"
        };
        let mut expected = vec![
            format!("<name>{name}</name>"),
            format!("<memory unit='KiB'>{memory}</memory>"),
            format!(">{}</vcpu>", guest.vm.cpus),
            format!("<clock offset='{clock}'>"),
        ];
        let macs = guest
            .vm
            .nics
            .iter()
            .map(|nic| format!("<mac address='{}'/>", nic.mac));
        expected.extend(macs);
        let (_, disks) = guest.export(Target::Libvirt);
        let files = disks
            .iter()
            .map(|disk| format!("/var/lib/relevo/out/{}'/>", disk.name));
        expected.extend(files);
        for text in expected {
            assert!(domain.contains(&text), "{text}: {domain}");
        }
    }
}

/// What virt-v2v says of a machine before it would convert it.
fn source(guest: &Guest, target: Target, format: &str, input: &str) -> Option<String> {
    let (directory, name) = placed(guest, target, format)?;
    let mut virt_v2v = Command::new("virt-v2v");
    virt_v2v.args(["-i", input, "--print-source", &name]);
    said(virt_v2v.current_dir(directory.path()).env("LC_ALL", "C"))
}

#[test]
fn virt_v2v_reads_machines_of_libvirt_and_of_vmware() {
    if Command::new("virt-v2v").arg("--version").output().is_err() {
        // Not among the tools of the tests: it brings half a distribution with it.
        eprintln!("skipped: virt-v2v is not installed");
        return;
    }
    for guest in [bios_virtio(), uefi_virtio(), several_disks()] {
        for (target, format, input) in [
            (Target::Libvirt, "qcow2", "libvirtxml"),
            (Target::Vmx, "vmdk", "vmx"),
        ] {
            let Some(text) = source(&guest, target, format, input) else {
                return skip("qemu-img (qemu-utils) is not installed");
            };
            let firmware = match guest.vm.firmware {
                Firmware::Bios => "firmware: bios",
                Firmware::Uefi => "firmware: uefi",
            };
            let mut expected = vec![
                guest.vm.name.clone(),
                format!("vCPUs: {}", guest.vm.cpus),
                guest.vm.memory_bytes.to_string(),
            ];
            // Of libvirt's XML it takes firmware only as libvirt gives it back; of a VMX no address of a card
            // that VMware has not made.
            match target {
                Target::Vmx => expected.push(firmware.to_owned()),
                _ => expected.extend(guest.vm.nics.iter().map(|nic| nic.mac.clone())),
            }
            for expected in expected {
                assert!(text.contains(&expected), "{expected}: {text}");
            }
        }
    }
}

#[test]
fn the_library_of_xl_reads_what_is_written_for_xl() {
    const SCRIPT: &str = include_str!("xl.py");
    let libraries = std::fs::read_dir("/usr/lib/x86_64-linux-gnu");
    let is_it = |name: &str| name.starts_with("libxlutil.so.");
    let has_library = libraries.is_ok_and(|mut files| {
        files.any(|file| file.is_ok_and(|file| is_it(&file.file_name().to_string_lossy())))
    });
    if !has_library {
        return skip("libxlutil (libxenmisc) is not installed");
    }
    let keys = "name uuid type bios vcpus memory localtime boot disk vif serial vga vnc vnclisten \
                on_poweroff on_reboot on_crash";
    for guest in guests() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("xl.cfg");
        let text = guest.text(Target::Xen);
        std::fs::write(&file, &text).unwrap();
        let mut python = Command::new("python3");
        python
            .args(["-c", SCRIPT])
            .arg(&file)
            .args(keys.split_whitespace());
        let Some(read) = said(&mut python) else {
            return skip("python3 is not installed");
        };
        let read: Value = serde_json::from_str(&read).unwrap();
        for key in keys.split_whitespace() {
            assert!(!read[key].is_null(), "{key}: {text}");
        }
        assert_eq!(read["name"], guest.vm.name);
        assert_eq!(read["vcpus"], guest.vm.cpus);
        assert_eq!(read["localtime"], u8::from(!guest.vm.clock_utc));
        let (_, disks) = guest.export(Target::Xen);
        let files = disks
            .iter()
            .map(|disk| format!("/var/lib/relevo/out/{}", disk.name));
        let found = read["disks"].as_array().unwrap().iter();
        let found = found.map(|disk| disk[0].as_str().unwrap().to_owned());
        assert_eq!(found.collect::<Vec<_>>(), files.collect::<Vec<_>>());
        let devices = read["disks"].as_array().unwrap().iter();
        let mut devices: Vec<&str> = devices.map(|disk| disk[1].as_str().unwrap()).collect();
        let count = devices.len();
        devices.sort_unstable();
        devices.dedup();
        assert_eq!(devices.len(), count, "{text}");
        assert_eq!(read["vif"].as_array().unwrap().len(), guest.vm.nics.len());
    }
}

#[test]
fn virtual_machines_are_valid_by_the_definition_of_kubevirt() {
    let schema = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/export/tests/kubevirt.schema.json"
    );
    let directory = tempfile::tempdir().unwrap();
    let validate = |name: &str, value: &Value| {
        let file = directory.path().join(name);
        std::fs::write(&file, value.to_string()).unwrap();
        let mut command = Command::new("jsonschema");
        command.arg("-i").arg(file).arg(schema);
        command.env("PYTHONWARNINGS", "ignore").output().ok()
    };
    for guest in guests() {
        let text = guest.text(Target::Kubevirt);
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let Some(output) = validate(&guest.vm.name, &value) else {
            return skip("jsonschema (python3-jsonschema) is not installed");
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}\n{text}");
    }
    // It does find what is wrong.
    let text = bios_virtio().text(Target::Kubevirt);
    for (right, wrong) in [
        ("runStrategy", "runstrategy"),
        ("cores: 2", "cores: \"2\""),
        ("bus: virtio", "bus: ide"),
        ("pod: {}", "pod: lan"),
    ] {
        let value: Value = serde_saphyr::from_str(&text.replacen(right, wrong, 1)).unwrap();
        let output = validate("wrong", &value).unwrap();
        assert!(!output.status.success(), "{wrong}");
    }
}

/// What qm.conf(5) allows as the value of a key.
fn is_allowed(key: &str, value: &str) -> bool {
    let one_of = |words: &str| words.split(' ').any(|word| word == value);
    let is_number = |range: std::ops::RangeInclusive<u64>| {
        value.parse().is_ok_and(|number| range.contains(&number))
    };
    let letters = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = key[letters.len()..].parse::<u8>();
    match (letters, number) {
        ("name", Err(_)) => {
            let is_label = |label: &str| {
                let mut bytes = label.bytes();
                let inside = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-');
                inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
            };
            value.split('.').all(is_label)
        }
        ("ostype", Err(_)) => one_of("other l24 l26 solaris wxp w2k w2k3 w2k8 wvista win7 win8"),
        ("bios", Err(_)) => one_of("seabios ovmf"),
        ("machine", Err(_)) => one_of("pc q35"),
        ("cpu", Err(_)) => one_of("host kvm64 x86-64-v2 x86-64-v2-AES x86-64-v3"),
        ("sockets" | "cores", Err(_)) => is_number(1..=1024),
        ("memory", Err(_)) => is_number(16..=4_178_944),
        ("balloon", Err(_)) => is_number(0..=4_178_944),
        ("localtime", Err(_)) => one_of("0 1"),
        ("scsihw", Err(_)) => {
            one_of("lsi lsi53c810 virtio-scsi-pci virtio-scsi-single megasas pvscsi")
        }
        ("args", Err(_)) => value.starts_with('-'),
        ("vga", Err(_)) => one_of("cirrus qxl std virtio vmware none"),
        ("serial", Ok(0..=3)) => value == "socket" || value.starts_with("/dev/"),
        ("smbios", Ok(1)) => {
            let uuid = value.strip_prefix("uuid=");
            uuid.is_some_and(|uuid| uuid::Uuid::parse_str(uuid).is_ok())
        }
        ("net", Ok(0..=31)) => is_card(value),
        _ => false,
    }
}

/// `virtio=MAC,bridge=NAME`
fn is_card(value: &str) -> bool {
    let Some((card, bridge)) = value.split_once(",bridge=") else {
        return false;
    };
    let (model, mac) = card.split_once('=').unwrap_or((card, "02:00:00:00:00:00"));
    let mut bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let is_unicast = bytes
        .next()
        .is_some_and(|first| first.is_ok_and(|first| first & 1 == 0));
    let mut letters = bridge.bytes();
    ["e1000", "e1000e", "rtl8139", "virtio", "vmxnet3"].contains(&model)
        && is_unicast
        && bytes.filter(Result::is_ok).count() == 5
        && bridge.len() < 16
        && letters.all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[test]
fn every_key_for_proxmox_has_a_value_that_its_manual_allows() {
    for guest in guests() {
        let text = guest.text(Target::Proxmox);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once(": ").unwrap_or((line, ""));
            assert!(is_allowed(key, value), "{line}");
        }
        // What the commands in the comment put in is not there twice.
        assert!(
            !text.contains("\nboot:") && !text.contains("\nvirtio0:"),
            "{text}"
        );
    }
    assert!(!is_allowed("name", "web_01"));
    assert!(!is_allowed("net0", "virtio=01:00:5E:00:00:01,bridge=vmbr0"));
    assert!(!is_allowed("localtime", "yes"));
}

/// How each document says that the hardware clock has UTC, and that it has local time.
const CLOCKS: [(Target, &str, &str); 5] = [
    (
        Target::Libvirt,
        "<clock offset=\"utc\">",
        "<clock offset=\"localtime\">",
    ),
    (Target::Proxmox, "\nlocaltime: 0\n", "\nlocaltime: 1\n"),
    (Target::Xen, "\nlocaltime = 0\n", "\nlocaltime = 1\n"),
    (
        Target::Vhdx,
        "expects its hardware clock in UTC.",
        "expects its hardware clock in local time.",
    ),
    // Without the line it has the host's local time.
    (Target::Vmx, "\nrtc.diffFromUTC = \"0\"\n", ""),
];

#[test]
fn each_document_that_can_tells_how_the_guest_keeps_its_clock() {
    for (target, utc, local) in CLOCKS {
        let (mut in_utc, mut in_local_time) = (bios_virtio(), bios_virtio());
        in_utc.vm.clock_utc = true;
        in_local_time.vm.clock_utc = false;
        let (in_utc, in_local_time) = (in_utc.text(target), in_local_time.text(target));
        assert!(in_utc.contains(utc), "{in_utc}");
        assert!(in_local_time.contains(local), "{in_local_time}");
        assert!(!in_local_time.contains(utc), "{in_local_time}");
        assert!(local.is_empty() || !in_utc.contains(local), "{in_utc}");
    }
    // KubeVirt has no word for local time, and its guest is told of; OVF has no word for either.
    let code = "export.clock.local-time";
    let is_told = |guest: &Guest| {
        let codes = guest.codes(Target::Kubevirt);
        codes.iter().any(|(_, found)| found == code)
    };
    assert!(bios_virtio().text(Target::Kubevirt).contains("utc: {}"));
    assert!(!is_told(&bios_virtio()));
    assert!(is_told(&old_i386()));
}

#[test]
fn the_schema_of_kubevirt_names_the_fields_that_are_looked_for() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export/tests/kubevirt.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let fields = KUBEVIRT_FIELDS.iter().flat_map(|(above, needed, other)| {
        let fields = needed.split_whitespace().chain(other.split_whitespace());
        fields.map(move |field| format!("{above}{field}"))
    });
    for field in fields {
        let mut part = &schema;
        for name in field.split('.') {
            let (name, is_list) = name.strip_suffix("[]").map_or((name, false), |n| (n, true));
            part = &part["properties"][name];
            part = if is_list { &part["items"] } else { part };
        }
        assert!(part.is_object(), "{field}");
    }
}
