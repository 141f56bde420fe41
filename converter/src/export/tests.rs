// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden documents of five guests, what real readers say to them, and hostile values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use disk::{Level, SectorSize};
use image_library::DiskIndex;
use serde_json::Value;

use super::{Controller, DiskFile, Export, GuestFacts, Networks, Target, disk_files, export};
use crate::inspect::{DriverFacts, DriverPlace};
use crate::vm::{
    DiskController, Firmware, Mainboard, NicModel, Profile, VmDefinition, VmDisk, VmNic,
};

const GIB: u64 = 1 << 30;

struct Guest {
    vm: VmDefinition,
    facts: GuestFacts,
    networks: Networks,
}

fn nic(name: &str, mac: &str, addresses: &[&str]) -> VmNic {
    VmNic {
        name: name.to_owned(),
        mac: mac.to_owned(),
        addresses: addresses.iter().map(|&text| text.to_owned()).collect(),
        gateway: None,
    }
}

fn disk(index: u16, size_bytes: u64) -> VmDisk {
    VmDisk {
        index: DiskIndex(index),
        size_bytes,
        sector_size: SectorSize::B512,
    }
}

fn drivers(places: &[(DriverPlace, &str)]) -> Vec<DriverFacts> {
    let all = places.iter().flat_map(|(place, names)| {
        names.split(' ').map(|name| DriverFacts {
            name: name.to_owned(),
            place: *place,
        })
    });
    all.collect()
}

/// Debian 12 with everything that MODULES=most puts into an initramfs.
fn bios_virtio() -> Guest {
    Guest {
        vm: VmDefinition {
            name: "web01".to_owned(),
            firmware: Firmware::Bios,
            mainboard: Mainboard::Q35,
            cpus: 2,
            memory_bytes: 4 * GIB,
            profiles: vec![
                Profile {
                    disk: DiskController::VirtioBlk,
                    nic: NicModel::Virtio,
                },
                Profile {
                    disk: DiskController::Sata,
                    nic: NicModel::E1000e,
                },
            ],
            disks: vec![disk(0, 20 * GIB)],
            nics: vec![nic("enp3s0", "00:16:3e:11:22:33", &["10.20.0.5/24"])],
            clock_utc: true,
            direct_boot: None,
        },
        facts: GuestFacts {
            system: Some("debian".to_owned()),
            system_version: Some("12".to_owned()),
            architecture: Some("x86_64".to_owned()),
            kernel: Some("6.1.0-28-amd64".to_owned()),
            drivers: drivers(&[
                (
                    DriverPlace::InInitramfs,
                    "virtio_pci virtio_blk virtio_scsi sd_mod ahci ata_piix vmw_pvscsi mptspi \
                     hv_storvsc xen_blkfront",
                ),
                (
                    DriverPlace::Module,
                    "virtio_net e1000e e1000 8139cp vmxnet3 hv_netvsc xen_netfront",
                ),
            ]),
            serials: BTreeMap::from([(DiskIndex(0), "WD-WCC4N7HAL2".to_owned())]),
        },
        networks: Networks::default(),
    }
}

fn uefi_virtio() -> Guest {
    let mut guest = bios_virtio();
    guest.vm.name = "erp-db".to_owned();
    guest.vm.firmware = Firmware::Uefi;
    guest.networks = Networks::parse(&["lan".to_owned()]).unwrap();
    guest
}

/// A 32-bit system whose kernel has neither virtio nor AHCI.
fn old_i386() -> Guest {
    let mut guest = bios_virtio();
    guest.vm.name = "OLD_fax.1".to_owned();
    guest.vm.mainboard = Mainboard::Pc;
    guest.vm.cpus = 1;
    guest.vm.memory_bytes = 511 << 20;
    guest.vm.profiles = vec![Profile {
        disk: DiskController::Ide,
        nic: NicModel::E1000,
    }];
    guest.vm.clock_utc = false;
    guest.facts = GuestFacts {
        system: Some("debian".to_owned()),
        system_version: Some("5.0".to_owned()),
        architecture: Some("i386".to_owned()),
        kernel: Some("2.6.26-2-686".to_owned()),
        drivers: drivers(&[
            (DriverPlace::InInitramfs, "ata_piix sd_mod"),
            (DriverPlace::Module, "e1000 8139too tulip"),
        ]),
        serials: BTreeMap::new(),
    };
    guest
}

/// A kernel with virtio of before 1.0, eight disks started from the second, two cards.
fn several_disks() -> Guest {
    let mut guest = bios_virtio();
    guest.vm.name = "files".to_owned();
    guest.vm.profiles.insert(
        0,
        Profile {
            disk: DiskController::VirtioScsi,
            nic: NicModel::Virtio,
        },
    );
    guest.vm.disks = [1, 0, 2, 3, 4, 5, 6, 7]
        .map(|index| disk(index, (u64::from(index) + 1) * GIB))
        .to_vec();
    guest.vm.nics = vec![
        nic("eth0", "00:16:3e:00:00:01", &[]),
        nic("eth1", "00:16:3e:00:00:02", &["192.0.2.7/24"]),
    ];
    guest.facts.kernel = Some("2.6.32-754.el6.x86_64".to_owned());
    guest.facts.system = Some("rhel".to_owned());
    guest.facts.system_version = Some("6.10".to_owned());
    let networks = ["bridge:br0", "eth1=storage"].map(str::to_owned);
    guest.networks = Networks::parse(&networks).unwrap();
    guest
}

fn large_sectors() -> Guest {
    let mut guest = bios_virtio();
    guest.vm.name = "nvme".to_owned();
    guest.vm.disks[0].sector_size = SectorSize::B4096;
    guest.vm.nics.clear();
    guest
}

const DOCUMENTS: [Target; 7] = [
    Target::Libvirt,
    Target::Proxmox,
    Target::Kubevirt,
    Target::Xen,
    Target::Vmx,
    Target::Ova,
    Target::Vhdx,
];

impl Guest {
    fn export(&self, target: Target) -> (super::Exported, Vec<DiskFile>) {
        let disks = disk_files(target, &self.vm, &self.facts);
        let exported = export(
            target,
            &Export {
                vm: &self.vm,
                guest: &self.facts,
                disks: &disks,
                networks: &self.networks,
                directory: "/var/lib/relevo/out",
            },
        );
        (exported, disks)
    }

    fn text(&self, target: Target) -> String {
        let (exported, _) = self.export(target);
        exported.document.expect("this target has one").text
    }

    fn codes(&self, target: Target) -> Vec<(Level, String)> {
        let (exported, _) = self.export(target);
        let findings = exported.findings.into_iter();
        findings
            .map(|finding| (finding.level, finding.code))
            .collect()
    }

    fn controller(&self, target: Target) -> Controller {
        let (exported, _) = self.export(target);
        exported.hardware.expect("it has a platform").controller
    }

    /// Every document, with what was noticed before it.
    fn golden(&self) -> String {
        let mut text = String::new();
        for target in DOCUMENTS {
            let (exported, _) = self.export(target);
            let document = exported.document.expect("these have one");
            let _ = writeln!(text, "======== {} ({})", target.name(), document.name);
            for finding in &exported.findings {
                let (level, code, place) = (finding.level, &finding.code, &finding.place);
                let _ = writeln!(text, "{level:?} {code}: {place}: {}", finding.problem);
            }
            let _ = writeln!(text, "{}", document.text);
        }
        text
    }
}

fn guests() -> [Guest; 5] {
    [
        bios_virtio(),
        uefi_virtio(),
        old_i386(),
        several_disks(),
        large_sectors(),
    ]
}

#[test]
fn a_bios_guest_with_virtio() {
    insta::assert_snapshot!(bios_virtio().golden());
}

#[test]
fn a_uefi_guest_with_virtio() {
    insta::assert_snapshot!(uefi_virtio().golden());
}

#[test]
fn an_old_guest_of_32_bits_with_ide_and_e1000() {
    insta::assert_snapshot!(old_i386().golden());
}

#[test]
fn a_guest_with_several_disks_and_cards_and_old_virtio() {
    insta::assert_snapshot!(several_disks().golden());
}

#[test]
fn a_guest_with_sectors_of_4_kib() {
    insta::assert_snapshot!(large_sectors().golden());
}

#[test]
fn the_best_controller_is_one_that_the_initramfs_has_a_driver_for() {
    let guest = bios_virtio();
    for (target, expected) in [
        (Target::Libvirt, Controller::VirtioBlk),
        (Target::Vmx, Controller::Pvscsi),
        (Target::Ova, Controller::LsiLogic),
        (Target::Vdi, Controller::Sata),
        (Target::Vhdx, Controller::Ide),
        (Target::Xen, Controller::XenBlock),
    ] {
        assert_eq!(guest.controller(target), expected, "{target:?}");
    }
    assert_eq!(
        uefi_virtio().controller(Target::Vhdx),
        Controller::HyperVScsi
    );
    let old = old_i386();
    for target in [
        Target::Libvirt,
        Target::Vmx,
        Target::Ova,
        Target::Vhdx,
        Target::Xen,
    ] {
        assert_eq!(old.controller(target), Controller::Ide, "{target:?}");
    }
}

#[test]
fn a_driver_that_is_not_in_the_initramfs_does_not_count() {
    let mut guest = bios_virtio();
    guest.vm.profiles.truncate(1);
    guest.facts.drivers = drivers(&[
        (DriverPlace::InInitramfs, "virtio_pci virtio_blk sd_mod"),
        (DriverPlace::Module, "ahci virtio_net e1000 hv_netvsc"),
    ]);
    let late = (
        Level::Error,
        "export.controller.driver-not-at-boot".to_owned(),
    );
    assert!(guest.codes(Target::Ova).contains(&late));
    let none = (Level::Error, "export.controller.no-driver".to_owned());
    assert!(guest.codes(Target::Vhdx).contains(&none));
    // Whoever asks for a bare disk may know what to do with it.
    let warning = (Level::Warning, "export.controller.no-driver".to_owned());
    assert!(guest.codes(Target::Vhd).contains(&warning));
    assert_eq!(guest.codes(Target::Libvirt), []);
    assert_eq!(guest.codes(Target::Qcow2), []);
}

#[test]
fn a_profile_is_evidence_where_no_linux_kernel_is() {
    let mut guest = bios_virtio();
    guest.facts = GuestFacts::default();
    assert_eq!(guest.controller(Target::Vmx), Controller::Sata);
    let errors =
        |codes: Vec<(Level, String)>| codes.iter().any(|(level, _)| *level == Level::Error);
    assert!(!errors(guest.codes(Target::Vmx)));
    assert!(errors(guest.codes(Target::Vhdx)));
}

#[test]
fn disks_that_do_not_fit_are_told() {
    let mut guest = old_i386();
    guest.vm.disks = (0..5).map(|index| disk(index, GIB)).collect();
    let many = (Level::Error, "export.disks.too-many".to_owned());
    assert!(guest.codes(Target::Libvirt).contains(&many));
    guest.vm.disks = vec![disk(0, 3 << 40)];
    let large = (Level::Error, "export.disk.too-large".to_owned());
    assert!(guest.codes(Target::Vhd).contains(&large));
}

/// Lines are what most of these formats are made of: a value that makes one more has escaped.
#[test]
fn values_of_a_guest_cannot_leave_their_place() {
    const EVIL: &str = "a\"'`$(x)\n--> ]]> <b/> |0A #\r\nargs: -evil\u{2028}\u{0}\u{2019};";
    let mut evil = bios_virtio();
    evil.vm.nics.push(nic(EVIL, EVIL, &[EVIL]));
    evil.facts.system = Some(EVIL.to_owned());
    evil.facts.system_version = Some(EVIL.to_owned());
    evil.facts.kernel = Some(EVIL.to_owned());
    evil.facts.serials = BTreeMap::from([(DiskIndex(0), EVIL.to_owned())]);
    let mut tame = evil.vm.clone();
    tame.nics[1] = nic("tame", "none", &[]);
    let tame = Guest {
        vm: tame,
        facts: bios_virtio().facts,
        networks: Networks::default(),
    };
    for target in DOCUMENTS {
        let (evil, tame) = (evil.text(target), tame.text(target));
        assert_eq!(
            evil.lines().count(),
            tame.lines().count(),
            "{target:?}:\n{evil}"
        );
        assert!(!evil.lines().any(|line| line.starts_with("args")), "{evil}");
    }
}

fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
    assert!(
        std::env::var("E2E_REQUIRE").as_deref() != Ok("all"),
        "a required test was skipped: {reason}"
    );
}

/// Runs a reader on a document; what it says when it does not like it.
fn read_by(program: &str, arguments: &[&str], text: &str) -> Option<Result<(), String>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    match command.arg(&file).args(arguments).output() {
        Ok(output) if output.status.success() => Some(Ok(())),
        Ok(output) => Some(Err(format!(
            "{}{}\n{text}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))),
        Err(_) => None,
    }
}

#[test]
fn domains_are_valid_by_the_schema_of_libvirt() {
    for guest in guests() {
        let text = guest.text(Target::Libvirt);
        match read_by("virt-xml-validate", &["domain"], &text) {
            Some(result) => assert_eq!(result, Ok(())),
            None => return skip("virt-xml-validate (libvirt-clients) is not installed"),
        }
    }
}

#[test]
fn descriptors_are_well_formed_and_what_they_refer_to_is_there() {
    for guest in guests() {
        let text = guest.text(Target::Ova);
        let values = |attribute: &str| -> Vec<&str> {
            let start = format!("{attribute}=\"");
            let parts = text.split(&start).skip(1);
            parts.filter_map(|rest| rest.split('"').next()).collect()
        };
        let elements = |name: &str| -> Vec<&str> {
            let start = format!("<{name}>");
            let parts = text.split(&start).skip(1);
            parts.filter_map(|rest| rest.split('<').next()).collect()
        };
        let files: Vec<&str> = values("<File ovf:id");
        assert_eq!(values("ovf:fileRef"), files);
        let hosts = elements("rasd:HostResource");
        let disks = values("ovf:diskId");
        let expected: Vec<String> = disks.iter().map(|id| format!("ovf:/disk/{id}")).collect();
        assert_eq!(hosts, expected);
        let instances = elements("rasd:InstanceID");
        let distinct: BTreeSet<&&str> = instances.iter().collect();
        assert_eq!(distinct.len(), instances.len());
        assert!(
            elements("rasd:Parent")
                .iter()
                .all(|parent| distinct.contains(parent))
        );
        let networks = values("<Network ovf:name");
        let connections = elements("rasd:Connection");
        assert!(
            connections
                .iter()
                .all(|connection| networks.contains(connection))
        );
        match read_by("xmllint", &["--noout"], &text) {
            Some(result) => assert_eq!(result, Ok(())),
            None => skip("xmllint (libxml2-utils) is not installed"),
        }
    }
}

/// The fields of KubeVirt's API that we use: path, and whether it must be there.
const KUBEVIRT_FIELDS: [(&str, bool); 43] = [
    ("apiVersion", true),
    ("kind", true),
    ("metadata.name", true),
    ("spec.runStrategy", true),
    ("spec.template.spec.architecture", true),
    ("spec.template.spec.domain.machine.type", true),
    ("spec.template.spec.domain.cpu.cores", true),
    ("spec.template.spec.domain.memory.guest", true),
    ("spec.template.spec.domain.clock.utc", true),
    ("spec.template.spec.domain.clock.timer.rtc.tickPolicy", true),
    ("spec.template.spec.domain.clock.timer.pit.tickPolicy", true),
    ("spec.template.spec.domain.clock.timer.hpet.present", true),
    ("spec.template.spec.domain.features.acpi", true),
    ("spec.template.spec.domain.firmware.uuid", true),
    (
        "spec.template.spec.domain.firmware.bootloader.bios.useSerial",
        false,
    ),
    (
        "spec.template.spec.domain.firmware.bootloader.efi.secureBoot",
        false,
    ),
    (
        "spec.template.spec.domain.firmware.bootloader.efi.persistent",
        false,
    ),
    (
        "spec.template.spec.domain.devices.autoattachSerialConsole",
        true,
    ),
    (
        "spec.template.spec.domain.devices.autoattachGraphicsDevice",
        true,
    ),
    (
        "spec.template.spec.domain.devices.autoattachPodInterface",
        true,
    ),
    (
        "spec.template.spec.domain.devices.useVirtioTransitional",
        false,
    ),
    ("spec.template.spec.domain.devices.rng", false),
    ("spec.template.spec.domain.devices.disks[].name", true),
    ("spec.template.spec.domain.devices.disks[].bootOrder", true),
    ("spec.template.spec.domain.devices.disks[].serial", false),
    ("spec.template.spec.domain.devices.disks[].disk.bus", true),
    (
        "spec.template.spec.domain.devices.disks[].blockSize.custom.logical",
        false,
    ),
    (
        "spec.template.spec.domain.devices.disks[].blockSize.custom.physical",
        false,
    ),
    ("spec.template.spec.domain.devices.interfaces[].name", false),
    (
        "spec.template.spec.domain.devices.interfaces[].macAddress",
        false,
    ),
    (
        "spec.template.spec.domain.devices.interfaces[].model",
        false,
    ),
    (
        "spec.template.spec.domain.devices.interfaces[].masquerade",
        false,
    ),
    (
        "spec.template.spec.domain.devices.interfaces[].bridge",
        false,
    ),
    ("spec.template.spec.networks[].name", false),
    ("spec.template.spec.networks[].pod", false),
    ("spec.template.spec.networks[].multus.networkName", false),
    ("spec.template.spec.volumes[].name", true),
    (
        "spec.template.spec.volumes[].persistentVolumeClaim.claimName",
        true,
    ),
    ("spec.template.spec.volumes", false),
    ("spec.template.spec.networks", false),
    ("spec.template.spec.domain.devices.disks", false),
    ("spec.template.spec.domain.devices.interfaces", false),
    ("spec", false),
];

fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(value, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                leaves(item, &format!("{path}[]"), found);
            }
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn virtual_machines_have_the_fields_of_kubevirt_and_no_others() {
    for guest in guests() {
        let text = guest.text(Target::Kubevirt);
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let mut found = BTreeSet::new();
        leaves(&value, "", &mut found);
        let known = |path: &String| KUBEVIRT_FIELDS.iter().any(|(field, _)| field == path);
        assert_eq!(found.iter().find(|path| !known(path)), None, "{text}");
        let missing = KUBEVIRT_FIELDS
            .iter()
            .find(|(field, must)| *must && !found.contains(*field));
        assert_eq!(missing, None, "{text}");
        let spec = &value["spec"]["template"]["spec"];
        let names = |list: &Value| -> Vec<String> {
            let items = list.as_array().cloned().unwrap_or_default();
            items.iter().map(|item| item["name"].to_string()).collect()
        };
        let devices = &spec["domain"]["devices"];
        assert_eq!(names(&devices["disks"]), names(&spec["volumes"]));
        assert_eq!(names(&devices["interfaces"]), names(&spec["networks"]));
    }
}

/// What xl understands: `key = value`, where a value is a number, a string, or a list of strings.
fn parse_xl(text: &str) -> Option<BTreeMap<String, Value>> {
    let mut keys = BTreeMap::new();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    while let Some(line) = lines.next() {
        let (key, value) = line.split_once(" = ")?;
        let value = match value {
            "[" => {
                let items = lines.by_ref().take_while(|line| *line != "]");
                let items =
                    items.map(|item| serde_json::from_str(item.trim().strip_suffix(',')?).ok());
                Value::Array(items.collect::<Option<_>>()?)
            }
            value => serde_json::from_str(value).ok()?,
        };
        keys.insert(key.to_owned(), value);
    }
    Some(keys)
}

#[test]
fn xl_understands_every_line() {
    for guest in guests() {
        let text = guest.text(Target::Xen);
        let keys = parse_xl(&text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(keys["name"], Value::from(guest.vm.name.clone()));
        let disks = keys["disk"].as_array().unwrap();
        assert_eq!(disks.len(), guest.vm.disks.len());
        for disk in disks {
            let (_, target) = disk.as_str().unwrap().split_once("target=").unwrap();
            assert!(target.starts_with("/var/lib/relevo/out/disk"));
        }
        assert_eq!(keys["vif"].as_array().unwrap().len(), guest.vm.nics.len());
    }
}

#[test]
fn each_key_of_a_line_oriented_document_is_there_once() {
    for guest in guests() {
        for (target, separator) in [(Target::Vmx, " = "), (Target::Proxmox, ": ")] {
            let text = guest.text(target);
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let keys: Vec<&str> = lines
                .map(|line| line.split_once(separator).unwrap().0)
                .collect();
            let distinct: BTreeSet<&&str> = keys.iter().collect();
            assert_eq!(distinct.len(), keys.len(), "{text}");
        }
    }
}

#[test]
fn a_document_does_not_depend_on_when_it_is_made() {
    for target in DOCUMENTS {
        assert_eq!(bios_virtio().text(target), bios_virtio().text(target));
    }
}

#[test]
fn a_guest_without_a_driver_for_any_card_is_told() {
    let mut guest = bios_virtio();
    guest.facts.drivers = drivers(&[(DriverPlace::BuiltIn, "virtio_pci virtio_blk")]);
    for profile in &mut guest.vm.profiles {
        profile.nic = NicModel::Rtl8139;
    }
    let codes = guest.codes(Target::Vhdx);
    let expected = (Level::Warning, "export.card.no-driver".to_owned());
    assert!(codes.contains(&expected), "{codes:?}");
}

#[test]
fn a_network_for_a_card_that_is_not_there_is_told() {
    let mut guest = bios_virtio();
    guest.networks = Networks::parse(&["eth9=br0".to_owned()]).unwrap();
    let codes = guest.codes(Target::Libvirt);
    let expected = (Level::Warning, "export.network.no-card".to_owned());
    assert!(codes.contains(&expected), "{codes:?}");
}

#[test]
fn a_mac_address_that_is_none_is_told() {
    let mut guest = bios_virtio();
    guest.vm.nics[0].mac = "somewhere".to_owned();
    let codes = guest.codes(Target::Libvirt);
    let expected = (Level::Warning, "export.card.mac".to_owned());
    assert!(codes.contains(&expected), "{codes:?}");
}
