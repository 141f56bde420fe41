// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden plans, and what must hold for every guest.

use disk::filesystem::{Filesystem, FilesystemKind};
use disk::{Finding, Level, SectorSize};
use image_library::DiskIndex;
use image_library::machine::MachineDescription;

use crate::guest::initramfs::{Initramfs, Limits};
use crate::inspect::{DriverPlace, Inspection};
use crate::phony::{self, PhonyGuest, debian_bookworm, debian_bullseye, debian_trixie, ubuntu};
use crate::plan::{Change, Plan, PlanOptions, Verdict, plan};
use crate::vm::{DiskController, Firmware, NicModel};

fn options() -> PlanOptions {
    PlanOptions::new("server")
}

fn planned(guest: &PhonyGuest) -> Plan {
    plan(&guest.inspect(), &options())
}

fn codes(plan: &Plan, level: Level) -> Vec<&str> {
    let matching = plan
        .findings
        .iter()
        .filter(|finding| finding.level == level);
    matching.map(|finding| finding.code.as_str()).collect()
}

#[test]
fn everything_of_debian_12_that_is_named_by_device_is_named_by_uuid() {
    insta::assert_snapshot!(planned(&debian_bookworm()));
}

#[test]
fn debian_11_as_installed_gets_drivers_a_console_and_the_names_of_its_bond() {
    insta::assert_snapshot!(planned(&debian_bullseye()));
}

#[test]
fn debian_13_with_its_own_boot_partition_and_packed_modules_is_planned() {
    insta::assert_snapshot!(planned(&debian_trixie()));
}

#[test]
fn an_inspection_reads_as_text() {
    insta::assert_snapshot!(debian_bookworm().inspect());
}

#[test]
fn a_guest_with_virtio_built_in_and_names_by_mac_is_ready_as_it_is() {
    let plan = planned(&ubuntu());
    assert_eq!(plan.edits, []);
    assert_eq!(plan.verdict, Verdict::Ready);
    assert_eq!(plan.vm.firmware, Firmware::Uefi);
    assert_eq!(plan.vm.nics[0].mac, "00:16:3e:11:22:33");
    assert_eq!(plan.vm.nics[0].addresses, ["172.16.5.9/16"]);
    assert_eq!(plan.vm.nics[0].gateway.as_deref(), Some("172.16.0.1"));
}

#[test]
fn planning_over_the_result_of_a_plan_changes_nothing() {
    for guest in [
        debian_bookworm(),
        debian_bullseye(),
        debian_trixie(),
        ubuntu(),
    ] {
        let first = planned(&guest);
        guest.apply(&first).unwrap();
        let second = planned(&guest);
        assert_eq!(second.edits, []);
        assert_eq!(second.verdict, Verdict::Ready);
        assert_eq!(second.vm, first.vm);
    }
}

#[test]
fn after_the_plan_every_kernel_has_its_virtio_drivers_in_the_initramfs() {
    for guest in [debian_bookworm(), debian_bullseye(), debian_trixie()] {
        guest.apply(&planned(&guest)).unwrap();
        for kernel in guest.inspect().kernels {
            for driver in [
                "virtio_pci",
                "virtio_blk",
                "virtio_scsi",
                "sd_mod",
                "virtio_net",
            ] {
                assert_eq!(kernel.driver(driver), DriverPlace::InInitramfs, "{driver}");
            }
        }
    }
}

#[test]
fn an_initramfs_keeps_its_modules_list_and_gets_whole_indexes_and_unpacked_modules() {
    let guest = debian_trixie();
    guest.apply(&planned(&guest)).unwrap();
    let file = guest
        .partition(1)
        .read("/initrd.img-6.12.48+deb13-amd64", u64::MAX)
        .unwrap();
    let archive = Initramfs::read(&file, &|_| true, Limits::default()).unwrap();
    let directory = "usr/lib/modules/6.12.48+deb13-amd64";
    let text = |path: &str| {
        let bytes = archive
            .contents(path)
            .unwrap_or_else(|| panic!("{path} is inside"));
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    assert_eq!(
        text(&format!("{directory}/kernel/drivers/block/virtio_blk.ko")),
        "module drivers/block/virtio_blk of 6.12.48+deb13-amd64"
    );
    let dep = text(&format!("{directory}/modules.dep"));
    assert!(
        dep.contains("kernel/drivers/block/virtio_blk.ko: "),
        "{dep}"
    );
    assert!(
        dep.contains("kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko:"),
        "{dep}"
    );
    assert!(text(&format!("{directory}/modules.alias")).contains("virtio:d00000002v*"));
    assert_eq!(
        text("conf/modules"),
        "# Drivers of virtual hardware\nvirtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\nvirtio_net\n"
    );
    let lib = archive
        .entries()
        .find(|(path, _)| *path == "lib")
        .map(|(_, node)| node);
    assert!(
        lib.is_some_and(|node| node.target.as_deref() == Some("usr/lib")),
        "lib stays a link"
    );
}

#[test]
fn a_file_that_changed_since_the_inspection_is_not_overwritten() {
    let guest = debian_bookworm();
    let plan = planned(&guest);
    guest
        .partition(1)
        .file("/etc/fstab", "# emptied meanwhile\n");
    let error = guest.apply(&plan).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/etc/fstab is not as it was when the plan was made"
    );
    assert_eq!(guest.text(1, "/etc/fstab"), "# emptied meanwhile\n");
    assert!(
        guest
            .text(1, "/etc/default/grub")
            .contains("GRUB_DISABLE_LINUX_UUID=true")
    );
}

#[test]
fn a_plan_and_an_inspection_survive_json() {
    let inspection = debian_bookworm().inspect();
    let text = serde_json::to_string(&inspection).unwrap();
    assert_eq!(
        serde_json::from_str::<Inspection>(&text).unwrap(),
        inspection
    );
    let plan = plan(&inspection, &options());
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn a_guest_without_kernel_says_so() {
    let guest = debian_bookworm();
    for version in ["6.1.0-28-amd64", "6.1.0-9-amd64"] {
        guest.partition(1).take(&format!("/boot/vmlinuz-{version}"));
    }
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::NotConvertible);
    assert_eq!(codes(&plan, Level::Error), ["kernel.none"]);
    assert_eq!(plan.edits, []);
}

#[test]
fn the_kernel_that_starts_must_have_an_initramfs_and_another_one_should() {
    let guest = debian_bookworm();
    guest.partition(1).take("/boot/initrd.img-6.1.0-9-amd64");
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::ReadyWithChanges);
    assert_eq!(codes(&plan, Level::Warning), ["kernel.no-initramfs"]);
    guest.partition(1).take("/boot/initrd.img-6.1.0-28-amd64");
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::NotConvertible);
    assert!(codes(&plan, Level::Error).contains(&"kernel.no-initramfs"));
}

#[test]
fn a_broken_initramfs_is_an_error_with_its_place() {
    let guest = debian_bookworm();
    guest.partition(1).file(
        "/boot/initrd.img-6.1.0-28-amd64",
        "garbage that is no archive",
    );
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::NotConvertible);
    let finding = plan
        .findings
        .iter()
        .find(|f| f.code == "initramfs.unreadable")
        .unwrap();
    assert_eq!(finding.place, "/boot/initrd.img-6.1.0-28-amd64");
}

#[test]
fn other_boot_loaders_are_named_and_none_is_too() {
    let guest = debian_bullseye();
    guest.partition(1).take("/boot/grub/grub.cfg");
    assert_eq!(codes(&planned(&guest), Level::Error), ["boot.loader.none"]);
    guest
        .partition(1)
        .file("/etc/elilo.conf", "default=linux\n");
    let plan = planned(&guest);
    let finding = plan
        .findings
        .iter()
        .find(|f| f.code == "boot.loader.unsupported")
        .unwrap();
    assert!(finding.problem.contains("ELILO"), "{}", finding.problem);
}

#[test]
fn a_loader_that_only_nvram_names_and_that_cannot_be_copied_needs_a_decision() {
    let guest = ubuntu();
    guest.partition(1).take("/EFI/BOOT/BOOTX64.EFI");
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::NeedsInput);
    assert_eq!(codes(&plan, Level::Error), ["boot.uefi.nvram-only"]);
}

#[test]
fn a_disk_that_is_not_in_the_image_needs_a_decision_unless_the_mount_may_fail() {
    let guest = debian_bookworm();
    let fstab = guest.text(1, "/etc/fstab");
    let with = |line: &str| {
        guest
            .partition(1)
            .file("/etc/fstab", format!("{fstab}{line}"));
    };
    with("/dev/sdb1 /srv ext4 defaults 0 2\n");
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::NeedsInput);
    assert_eq!(codes(&plan, Level::Error), ["fstab.device.unknown"]);
    with("/dev/sdb1 /srv ext4 defaults,nofail 0 2\n");
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::ReadyWithChanges);
    assert!(codes(&plan, Level::Note).contains(&"fstab.device.optional"));
}

#[test]
fn storage_that_is_not_known_yet_is_named() {
    for (kind, code) in [
        (FilesystemKind::Lvm2Member, "storage.lvm"),
        (FilesystemKind::MdMember, "storage.md"),
        (FilesystemKind::Luks, "storage.luks"),
        (FilesystemKind::Ntfs, "filesystem.ntfs"),
    ] {
        let guest = PhonyGuest::new(
            crate::inspect::TableKind::Mbr,
            vec![crate::phony::volume(kind, "1")],
        );
        let plan = planned(&guest);
        assert_eq!(plan.verdict, Verdict::NotConvertible);
        assert_eq!(codes(&plan, Level::Error), [code]);
    }
}

#[test]
fn a_damaged_disk_that_the_system_starts_without_is_a_warning() {
    let mut guest = debian_bookworm();
    let damaged = |disk: u16| Finding {
        level: Level::Error,
        code: "disk.table.damaged".to_owned(),
        place: format!("disk {disk}"),
        problem: "no table".to_owned(),
        remedy: None,
    };
    guest.noticed = vec![(DiskIndex(1), damaged(1))];
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::ReadyWithChanges);
    assert!(codes(&plan, Level::Warning).contains(&"disk.table.damaged"));

    guest.noticed = vec![(DiskIndex(0), damaged(0))];
    assert_eq!(planned(&guest).verdict, Verdict::NotConvertible);
}

#[test]
fn a_disk_without_any_filesystem_is_said_to_have_none() {
    let mut guest = PhonyGuest::new(crate::inspect::TableKind::None, Vec::new());
    guest.disks[0].volumes.clear();
    let plan = planned(&guest);
    assert_eq!(codes(&plan, Level::Error), ["disk.no-filesystem"]);
    assert_eq!(plan.verdict, Verdict::NotConvertible);
}

#[test]
fn the_profiles_are_those_that_the_kernel_has_drivers_for() {
    let vm = planned(&debian_bookworm()).vm;
    let profiles: Vec<_> = vm.profiles.iter().map(|p| (p.disk, p.nic)).collect();
    assert_eq!(
        profiles,
        [
            (DiskController::VirtioBlk, NicModel::Virtio),
            (DiskController::VirtioScsi, NicModel::Virtio),
            (DiskController::Sata, NicModel::E1000e),
        ]
    );
    assert_eq!(vm.disks[0].sector_size, SectorSize::B512);
}

fn machine(interfaces: Vec<(&str, &str)>) -> MachineDescription {
    let cards = interfaces.into_iter();
    MachineDescription {
        interfaces: cards
            .map(|(name, mac)| phony::ethernet(name, mac))
            .collect(),
        ..phony::machine("web01")
    }
}

#[test]
fn the_machines_mac_address_is_the_cards_and_its_size_is_bounded() {
    let machine = machine(vec![("enp2s0", "00:1b:21:00:00:07")]);
    let inspection = debian_bookworm().inspect_with(Some(&machine));
    let plan = plan(&inspection, &options());
    assert_eq!(plan.vm.nics[0].mac, "00:1b:21:00:00:07");
    assert_eq!(plan.vm.cpus, 16);
    assert_eq!(plan.vm.memory_bytes, 8 << 30);
    let links: Vec<&str> = plan
        .edits
        .iter()
        .filter(|edit| matches!(edit.change, Change::Create { .. }))
        .map(|edit| edit.place.guest_path.as_str())
        .collect();
    assert_eq!(links, ["/etc/systemd/network/10-relevo-enp2s0.link"]);
    assert!(!codes(&plan, Level::Note).contains(&"network.mac.generated"));
}

#[test]
fn a_stale_rule_of_the_guest_is_overruled_by_the_machines_own_card() {
    let machine = machine(vec![
        ("eno1", "00:25:90:aa:bb:ff"),
        ("eno2", "00:25:90:aa:bb:02"),
    ]);
    let inspection = debian_bullseye().inspect_with(Some(&machine));
    let plan = plan(&inspection, &options());
    assert_eq!(plan.vm.nics[0].mac, "00:25:90:aa:bb:ff");
    assert!(
        plan.edits
            .iter()
            .any(|edit| edit.place.path.ends_with("10-relevo-eno1.link"))
    );
}

#[test]
fn the_kernels_own_names_get_a_card_for_each_number_below() {
    let vm = planned(&debian_trixie()).vm;
    let names: Vec<&str> = vm.nics.iter().map(|nic| nic.name.as_str()).collect();
    assert_eq!(names, ["eth0", "eth1"]);
    assert_eq!(vm.nics[1].addresses, ["10.7.0.5/24"]);
}

#[test]
fn an_older_udev_gets_a_rule_instead_of_a_link_file() {
    let guest = debian_bookworm();
    guest
        .partition(1)
        .take("/usr/lib/udev/rules.d/80-net-setup-link.rules");
    let plan = planned(&guest);
    let rule = plan
        .edits
        .iter()
        .find(|edit| edit.place.path.starts_with("/etc/udev"))
        .unwrap();
    assert_eq!(
        rule.place.path,
        "/etc/udev/rules.d/71-relevo-enp2s0-net.rules"
    );
    guest.apply(&plan).unwrap();
    assert_eq!(planned(&guest).edits, []);
}

#[test]
fn without_serial_console_no_entry_gets_one() {
    let options = PlanOptions {
        serial_console: false,
        ..options()
    };
    let plan = plan(&debian_bookworm().inspect(), &options);
    assert!(!format!("{plan}").contains("ttyS0"));
}

#[test]
fn a_text_in_an_old_encoding_survives_an_edit() {
    let guest = debian_bookworm();
    let fstab: Vec<u8> = [
        b"# Gr\xfc\xdfe\n".as_slice(),
        guest.text(1, "/etc/fstab").as_bytes(),
    ]
    .concat();
    guest.partition(1).file("/etc/fstab", fstab);
    guest.apply(&planned(&guest)).unwrap();
    let after = guest.partition(1).read("/etc/fstab", u64::MAX).unwrap();
    assert!(after.starts_with(b"# Gr\xfc\xdfe\n"));
    assert!(String::from_utf8_lossy(&after).contains("UUID=6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01"));
}
