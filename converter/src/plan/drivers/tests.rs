// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden plans of every kind of initramfs, and what must hold of each.

use disk::Level;
use disk::filesystem::Filesystem;

use crate::guest::compression::{Compression, compress};
use crate::guest::initramfs::{Generator, Initramfs, Limits};
use crate::inspect::DriverPlace;
use crate::phony::PhonyGuest;
use crate::phony::generators::{
    alpine, arch, centos_6, fedora, gentoo, initramfs_tools, rhel_4, rhel_5, rhel_7, rhel_9,
    sles_11, sles_15,
};
use crate::plan::{Plan, PlanOptions, Verdict, plan};
use crate::vm::DiskController;

fn planned(guest: &PhonyGuest) -> Plan {
    plan(&guest.inspect(), &PlanOptions::new("server"))
}

fn codes(plan: &Plan, level: Level) -> Vec<&str> {
    let matching = plan.findings.iter().filter(|f| f.level == level);
    matching.map(|finding| finding.code.as_str()).collect()
}

/// All guests, each with the path of its initramfs.
fn all() -> Vec<(PhonyGuest, &'static str)> {
    vec![
        (rhel_4(), "/boot/initrd-2.6.9-42.ELsmp.img"),
        (rhel_5(), "/boot/initrd-2.6.18-128.el5.img"),
        (centos_6(), "/boot/initramfs-2.6.32-754.el6.x86_64.img"),
        (rhel_7(), "/boot/initramfs-3.10.0-1160.el7.x86_64.img"),
        (rhel_9(), "/boot/initramfs-5.14.0-362.el9.x86_64.img"),
        (
            fedora(),
            "/boot/0123456789abcdef0123456789abcdef/6.8.5-301.fc40.x86_64/initrd",
        ),
        (sles_11(), "/boot/initrd-3.0.101-63-default"),
        (sles_15(), "/boot/initrd-5.14.21-150500.53-default"),
        (arch(), "/boot/initramfs-linux.img"),
        (alpine(), "/boot/initramfs-lts"),
        (
            initramfs_tools("16.04", "4.4.0-210-generic", "", Compression::Gzip),
            "/boot/initrd.img-4.4.0-210-generic",
        ),
        (
            initramfs_tools("20.04", "5.4.0-182-generic", "/usr", Compression::Lz4Legacy),
            "/boot/initrd.img-5.4.0-182-generic",
        ),
        (
            initramfs_tools("24.04", "6.8.0-31-generic", "/usr", Compression::Zstd),
            "/boot/initrd.img-6.8.0-31-generic",
        ),
    ]
}

fn archive(guest: &PhonyGuest, path: &str) -> Initramfs {
    let file = guest.partition(1).read(path, u64::MAX).unwrap();
    Initramfs::read(&file, &|_| true, Limits::default()).unwrap()
}

fn text(archive: &Initramfs, path: &str) -> String {
    let bytes = archive
        .contents(path)
        .unwrap_or_else(|| panic!("{path} is inside"));
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn rhel_4_without_virtio_gets_the_drivers_of_the_other_controllers() {
    insta::assert_snapshot!(planned(&rhel_4()));
}

#[test]
fn rhel_5_loads_virtio_by_its_nash_script() {
    insta::assert_snapshot!(planned(&rhel_5()));
}

#[test]
fn centos_6_waits_for_its_root_by_uuid() {
    insta::assert_snapshot!(planned(&centos_6()));
}

#[test]
fn rhel_7_made_for_its_hardware_forgets_it() {
    insta::assert_snapshot!(planned(&rhel_7()));
}

#[test]
fn rhel_9_with_packed_modules_behind_microcode_gets_drivers() {
    insta::assert_snapshot!(planned(&rhel_9()));
}

#[test]
fn fedora_with_a_directory_per_kernel_gets_drivers() {
    insta::assert_snapshot!(planned(&fedora()));
}

#[test]
fn sles_11_loads_virtio_before_udev() {
    insta::assert_snapshot!(planned(&sles_11()));
}

#[test]
fn sles_15_gets_drivers() {
    insta::assert_snapshot!(planned(&sles_15()));
}

#[test]
fn arch_gets_drivers_by_the_name_of_its_package() {
    insta::assert_snapshot!(planned(&arch()));
}

#[test]
fn alpine_gets_drivers_by_the_name_of_its_flavour() {
    insta::assert_snapshot!(planned(&alpine()));
}

#[test]
fn a_second_plan_changes_nothing_and_the_machine_stays_the_same() {
    for (guest, path) in all() {
        let first = planned(&guest);
        assert_eq!(first.verdict, Verdict::ReadyWithChanges, "{path} {first}");
        guest.apply(&first).unwrap();
        let second = planned(&guest);
        assert_eq!(second.edits, [], "{path}");
        assert_eq!(second.verdict, Verdict::Ready, "{path}");
        assert_eq!(second.vm, first.vm, "{path}");
    }
}

#[test]
fn after_the_plan_every_promised_controller_has_its_drivers_inside() {
    for (guest, path) in all() {
        guest.apply(&planned(&guest)).unwrap();
        let inspection = guest.inspect();
        let [kernel] = inspection.kernels.as_slice() else {
            panic!("{path}: one kernel");
        };
        let fallback = ["ahci", "ata_piix", "sym53c8xx"];
        for driver in ["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod"]
            .iter()
            .chain(&fallback)
        {
            let place = kernel.driver(driver);
            let is_there = [DriverPlace::InInitramfs, DriverPlace::Absent].contains(&place);
            assert!(is_there, "{path}: {driver} is {place:?}");
        }
    }
}

#[test]
fn what_was_inside_before_is_inside_after_and_links_stay_links() {
    for (guest, path) in all() {
        let before = archive(&guest, path);
        guest.apply(&planned(&guest)).unwrap();
        let after = archive(&guest, path);
        for (name, node) in before.entries() {
            let now = after.entry(name).is_some() || node.target.is_some();
            assert!(now, "{path}: {name} is lost");
        }
        let kind = |archive: &Initramfs| {
            let mut entries = archive.entries();
            entries
                .find(|(name, _)| *name == "lib")
                .map(|(_, node)| (node.kind, node.target.clone()))
        };
        assert_eq!(kind(&before), kind(&after), "{path}");
        let mode = |archive: &Initramfs| archive.entry("init").map(|node| node.mode);
        assert_eq!(mode(&before), mode(&after), "{path}: /init stays a program");
    }
}

#[test]
fn modules_are_unpacked_and_the_indexes_know_all() {
    for (guest, path, directory) in [
        (
            rhel_9(),
            "/boot/initramfs-5.14.0-362.el9.x86_64.img",
            "usr/lib/modules/5.14.0-362.el9.x86_64",
        ),
        (alpine(), "/boot/initramfs-lts", "lib/modules/6.6.31-0-lts"),
        (
            sles_15(),
            "/boot/initrd-5.14.21-150500.53-default",
            "usr/lib/modules/5.14.21-150500.53-default",
        ),
    ] {
        guest.apply(&planned(&guest)).unwrap();
        let archive = archive(&guest, path);
        let module = format!("{directory}/kernel/drivers/block/virtio_blk.ko");
        assert_eq!(text(&archive, &module), "module drivers/block/virtio_blk");
        let dep = text(&archive, &format!("{directory}/modules.dep"));
        assert!(
            dep.contains("kernel/drivers/block/virtio_blk.ko: "),
            "{dep}"
        );
        assert!(dep.contains("kernel/drivers/scsi/sd_mod.ko: "), "{dep}");
        assert!(text(&archive, &format!("{directory}/modules.alias")).contains("virtio:d00000002"));
        assert!(
            !dep.contains("virtio_net"),
            "cards are left to the root: {dep}"
        );
    }
}

#[test]
fn the_modules_of_nash_are_in_its_one_directory_and_have_no_index() {
    let guest = rhel_5();
    guest.apply(&planned(&guest)).unwrap();
    let archive = archive(&guest, "/boot/initrd-2.6.18-128.el5.img");
    assert_eq!(
        text(&archive, "lib/virtio_blk.ko"),
        "module drivers/block/virtio_blk"
    );
    assert!(archive.entry("lib/modules").is_none());
    let init = text(&archive, "init");
    let place = |needle: &str| {
        init.find(needle)
            .unwrap_or_else(|| panic!("{needle}: {init}"))
    };
    assert!(place("insmod /lib/virtio.ko") < place("insmod /lib/virtio_ring.ko"));
    assert!(place("insmod /lib/virtio_ring.ko") < place("insmod /lib/virtio_blk.ko"));
    assert!(place("insmod /lib/virtio_blk.ko") < place("stabilized"));
    assert!(place("insmod /lib/scsi_mod.ko") < place("insmod /lib/libata.ko"));
}

#[test]
fn kernels_of_all_names_are_found_with_what_belongs_to_them() {
    for (guest, version, generator) in [
        (arch(), "6.9.1-arch1-1", Generator::Mkinitcpio),
        (alpine(), "6.6.31-0-lts", Generator::Mkinitfs),
        (fedora(), "6.8.5-301.fc40.x86_64", Generator::Dracut),
        (gentoo(&[]), "5.4.97-gentoo", Generator::Genkernel),
        (rhel_7(), "3.10.0-1160.el7.x86_64", Generator::Dracut),
        (sles_15(), "5.14.21-150500.53-default", Generator::Dracut),
        (sles_11(), "3.0.101-63-default", Generator::SuseMkinitrd),
        (rhel_4(), "2.6.9-42.ELsmp", Generator::Nash),
    ] {
        let inspection = guest.inspect();
        let [kernel] = inspection.kernels.as_slice() else {
            panic!("{version}: {:?}", inspection.kernels);
        };
        assert_eq!(kernel.version, version);
        let initramfs = kernel.initramfs.as_ref().unwrap();
        assert_eq!(initramfs.generator, generator, "{version}");
        assert!(kernel.modules.is_some(), "{version}");
    }
}

#[test]
fn a_kernel_without_virtio_starts_on_what_it_has() {
    let vm = planned(&rhel_4()).vm;
    let disks: Vec<DiskController> = vm.profiles.iter().map(|profile| profile.disk).collect();
    assert_eq!(disks, [DiskController::Ide, DiskController::ScsiLsi]);
}

#[test]
fn a_generator_that_cannot_be_extended_is_an_error_unless_the_kernel_starts_without() {
    let plan = planned(&gentoo(&["scsi_mod", "sd_mod"]));
    assert_eq!(plan.verdict, Verdict::NotConvertible);
    assert!(codes(&plan, Level::Error).contains(&"initramfs.generator.unsupported"));
    let with_ahci = ["scsi_mod", "sd_mod", "libata", "libahci", "ahci"];
    let plan = planned(&gentoo(&with_ahci));
    assert_eq!(plan.verdict, Verdict::Ready);
    assert_eq!(
        codes(&plan, Level::Warning),
        ["initramfs.generator.unsupported"]
    );
    assert_eq!(plan.vm.profiles[0].disk, DiskController::Sata);
}

#[test]
fn a_script_that_is_not_as_we_know_it_is_named() {
    let guest = sles_11();
    let image = crate::phony::image::PhonyImage {
        version: "3.0.101-63-default",
        initramfs: "initrd-{}",
        usr: "",
        files: &["\n== init\n#!/bin/bash\n== mkinitrd.config\n"],
        ..Default::default()
    };
    let other = crate::phony::image::server("sles", "10", &image, "root=LABEL=x");
    let path = "/boot/initrd-3.0.101-63-default";
    let file = other.partition(1).read(path, u64::MAX).unwrap();
    guest.partition(1).file(path, file);
    assert!(codes(&planned(&guest), Level::Error).contains(&"initramfs.init.unknown"));
}

#[test]
fn a_signed_initramfs_is_not_changed() {
    let guest = rhel_9();
    let signature = "/boot/initramfs-5.14.0-362.el9.x86_64.img.sig";
    guest.partition(1).file(signature, "signature");
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::NotConvertible);
    assert!(codes(&plan, Level::Error).contains(&"initramfs.signed"));
}

#[test]
fn a_filesystem_for_a_ram_disk_is_named_and_weighs_less_beside_another_kernel() {
    let mut ext2 = vec![0; 4096];
    ext2[1080..1082].copy_from_slice(&[0x53, 0xef]);
    let ramdisk = compress(&ext2, Compression::Gzip).unwrap();
    let guest = rhel_5();
    let root = guest.partition(1);
    root.file("/boot/vmlinuz-2.4.21-4.EL", "kernel");
    root.file("/boot/initrd-2.4.21-4.EL.img", ramdisk.clone());
    let plan = planned(&guest);
    assert!(codes(&plan, Level::Warning).contains(&"initramfs.ramdisk"));
    assert_eq!(plan.verdict, Verdict::ReadyWithChanges, "{plan}");
    root.file("/boot/initrd-2.6.18-128.el5.img", ramdisk);
    let plan = planned(&guest);
    assert!(codes(&plan, Level::Error).contains(&"initramfs.ramdisk"));
}
