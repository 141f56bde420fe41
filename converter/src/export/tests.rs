// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden documents of five guests, and hostile values.

mod findings;
mod kubevirt;
mod platforms;
mod readers;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use disk::{Level, SectorSize};
use image_library::DiskIndex;

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

#[test]
fn a_document_does_not_depend_on_when_it_is_made() {
    for target in DOCUMENTS {
        assert_eq!(bios_virtio().text(target), bios_virtio().text(target));
    }
}
