// SPDX-License-Identifier: MIT OR Apache-2.0
//! The documents of a machine that is given its kernel, and what their readers say to them.

use std::process::Command;

use disk::SectorSize;
use image_library::DiskIndex;

use super::*;
use crate::export::{Exported, GuestFacts, Networks, disk_files, export};
use crate::inspect::{DriverFacts, DriverPlace, FilePlace, VolumeId};
use crate::vm::{
    DirectBoot, DiskController, Firmware, Mainboard, NicModel, Profile, VmDisk, VmNic,
};

fn place(path: &str) -> FilePlace {
    FilePlace {
        volume: VolumeId::on_disk(DiskIndex(0), Some(1)),
        path: path.to_owned(),
        guest_path: path.to_owned(),
    }
}

fn vm(command_line: &str) -> VmDefinition {
    VmDefinition {
        name: "fax".to_owned(),
        firmware: Firmware::Bios,
        mainboard: Mainboard::Q35,
        cpus: 1,
        memory_bytes: 1 << 30,
        profiles: vec![Profile {
            disk: DiskController::VirtioBlk,
            nic: NicModel::Virtio,
        }],
        disks: vec![VmDisk {
            index: DiskIndex(0),
            size_bytes: 8 << 30,
            sector_size: SectorSize::B512,
        }],
        nics: vec![VmNic {
            name: "eth0".to_owned(),
            mac: "00:16:3e:11:22:33".to_owned(),
            addresses: Vec::new(),
            gateway: None,
        }],
        clock_utc: true,
        direct_boot: Some(DirectBoot {
            kernel: place("/boot/vmlinuz-2.6.18-6-686"),
            initramfs: Some(place("/boot/initrd.img-2.6.18-6-686")),
            command_line: command_line.to_owned(),
        }),
    }
}

fn exported(target: Target, vm: &VmDefinition) -> Exported {
    const DRIVERS: &str = "virtio_pci virtio_blk virtio_net sd_mod ahci ata_piix mptspi hv_storvsc \
                           hv_netvsc e1000 xen_blkfront xen_netfront";
    let drivers = DRIVERS.split_whitespace().map(|name| DriverFacts {
        name: name.to_owned(),
        place: DriverPlace::InInitramfs,
    });
    let guest = GuestFacts {
        kernel: Some("4.19.0-27-amd64".to_owned()),
        drivers: drivers.collect(),
        ..GuestFacts::default()
    };
    let disks = disk_files(target, vm, &guest);
    let networks = Networks::default();
    let given = Export {
        vm,
        guest: &guest,
        disks: &disks,
        networks: &networks,
        directory: "/vm/fax",
    };
    export(target, &given)
}

fn text(target: Target, vm: &VmDefinition) -> String {
    let exported = exported(target, vm);
    let errors = exported.findings.iter();
    assert!(
        errors.clone().all(|found| found.level != Level::Error),
        "{:?}",
        exported.findings
    );
    exported.document.expect("this target has one").text
}

/// The lines about the kernel.
fn lines(target: Target, vm: &VmDefinition) -> Vec<String> {
    let text = text(target, vm);
    let keys = [
        "<kernel",
        "<initrd",
        "<cmdline",
        "kernel =",
        "ramdisk =",
        "extra =",
    ];
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| keys.iter().any(|key| line.starts_with(key)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_domain_has_kernel_initramfs_and_command_line() {
    let mut vm = vm("root=UUID=0f4a ro a=\"b, <c>\"\tquiet");
    assert_eq!(
        lines(Target::Libvirt, &vm),
        [
            "<kernel>/vm/fax/kernel</kernel>",
            "<initrd>/vm/fax/initramfs</initrd>",
            "<cmdline>root=UUID=0f4a ro a=&quot;b, &lt;c&gt;&quot; quiet</cmdline>",
        ]
    );
    assert_eq!(
        lines(Target::Xen, &vm),
        [
            "kernel = \"/vm/fax/kernel\"",
            "ramdisk = \"/vm/fax/initramfs\"",
            "extra = \"root=UUID=0f4a ro a=\\\"b, <c>\\\" quiet\"",
        ]
    );
    vm.direct_boot.as_mut().unwrap().initramfs = None;
    for (target, count) in [(Target::Libvirt, 2), (Target::Xen, 2)] {
        assert_eq!(lines(target, &vm).len(), count);
        assert_eq!(kernel_files(target, &vm), [KernelFile::Kernel]);
    }
    vm.direct_boot = None;
    for target in Target::ALL {
        assert_eq!(kernel_files(target, &vm), []);
        assert_eq!(check(target, &vm), None);
    }
    assert_eq!(lines(Target::Libvirt, &vm), [""; 0]);
    assert_eq!(lines(Target::Xen, &vm), [""; 0]);
}

#[test]
fn targets_without_a_place_for_a_kernel_refuse_and_bare_disks_say_what_to_do() {
    let vm = vm("root=UUID=0f4a ro");
    for target in Target::ALL {
        let exported = exported(target, &vm);
        let found: Vec<_> = exported
            .findings
            .iter()
            .filter(|finding| finding.code.starts_with("export.kernel."))
            .collect();
        let files = kernel_files(target, &vm);
        match target {
            Target::Libvirt | Target::Xen => {
                assert!(found.is_empty(), "{found:?}");
                assert_eq!(files.len(), 2);
            }
            Target::Qcow2 | Target::Raw => {
                assert_eq!(found[0].code, "export.kernel.from-outside");
                assert_eq!(found[0].level, Level::Warning);
                assert!(found[0].problem.contains("\"root=UUID=0f4a ro\""));
                assert_eq!(files, [KernelFile::Kernel, KernelFile::Initramfs]);
            }
            _ => {
                assert_eq!(found[0].code, "export.kernel.no-place", "{target:?}");
                assert_eq!(found[0].level, Level::Error);
                assert!(found[0].remedy.as_ref().unwrap().contains("libvirt"));
                assert_eq!(files, []);
            }
        }
    }
}

#[test]
fn the_domain_is_valid_by_the_schema_of_libvirt() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("fax.xml");
    for initramfs in [true, false] {
        let mut vm = vm("root=UUID=0f4a ro console=ttyS0,115200");
        if !initramfs {
            vm.direct_boot.as_mut().unwrap().initramfs = None;
        }
        std::fs::write(&file, text(Target::Libvirt, &vm)).unwrap();
        let validated = Command::new("virt-xml-validate")
            .arg(&file)
            .arg("domain")
            .output();
        let Ok(output) = validated else {
            eprintln!("skipped: virt-xml-validate (libvirt-clients) is not installed");
            return assert_ne!(std::env::var("E2E_REQUIRE").as_deref(), Ok("all"));
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}
