// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden plans of every boot loader, and what must hold for each.

use disk::Level;
use disk::filesystem::Filesystem;

use crate::guest::boot_sector::BootCode;
use crate::inspect::BootloaderKind;
use crate::phony::loaders::{
    ROOT, alpine, arch, centos_6, centos_6_uefi, debian_lilo, fedora_uki, fedora_uki_by_device,
    rhel_5, rhel_7, rhel_8, rhel_9, rhel_9_uefi, sles_11, sles_12, sles_15, ubuntu_jammy,
};
use crate::phony::{PhonyGuest, PhonyKernel, VIRTIO};
use crate::plan::{Change, Plan, PlanOptions, Verdict, default_kernel, plan};

/// Makes a guest.
type Make = fn() -> PhonyGuest;

fn planned(guest: &PhonyGuest) -> Plan {
    plan(&guest.inspect(), &PlanOptions::new("server"))
}

fn codes(plan: &Plan, level: Level) -> Vec<&str> {
    let matching = plan
        .findings
        .iter()
        .filter(|finding| finding.level == level);
    matching.map(|finding| finding.code.as_str()).collect()
}

fn default_version(guest: &PhonyGuest) -> String {
    let inspection = guest.inspect();
    let kernel = default_kernel(&inspection).expect("there is a kernel");
    kernel.version.clone()
}

#[test]
fn rhel_5_with_grub_legacy() {
    insta::assert_snapshot!(planned(&rhel_5()));
}

#[test]
fn centos_6_with_grub_legacy() {
    insta::assert_snapshot!(planned(&centos_6()));
}

#[test]
fn centos_6_with_grub_legacy_and_uefi() {
    insta::assert_snapshot!(planned(&centos_6_uefi()));
}

#[test]
fn rhel_7_with_its_configuration_on_the_efi_system_partition() {
    insta::assert_snapshot!(planned(&rhel_7()));
}

#[test]
fn rhel_8_with_shared_arguments() {
    insta::assert_snapshot!(planned(&rhel_8()));
}

#[test]
fn rhel_9_with_entries_in_files() {
    insta::assert_snapshot!(planned(&rhel_9()));
}

#[test]
fn rhel_9_whose_loader_only_the_firmware_knew() {
    insta::assert_snapshot!(planned(&rhel_9_uefi()));
}

#[test]
fn sles_11_with_grub_legacy() {
    insta::assert_snapshot!(planned(&sles_11()));
}

#[test]
fn sles_12_with_grub_2() {
    insta::assert_snapshot!(planned(&sles_12()));
}

#[test]
fn sles_15_whose_loader_only_the_firmware_knew() {
    insta::assert_snapshot!(planned(&sles_15()));
}

#[test]
fn debian_with_lilo() {
    insta::assert_snapshot!(planned(&debian_lilo()));
}

#[test]
fn alpine_with_extlinux() {
    insta::assert_snapshot!(planned(&alpine()));
}

#[test]
fn arch_with_systemd_boot() {
    insta::assert_snapshot!(planned(&arch()));
}

#[test]
fn ubuntu_whose_loader_only_the_firmware_knew() {
    insta::assert_snapshot!(planned(&ubuntu_jammy()));
}

#[test]
fn fedora_with_a_unified_image_that_needs_nothing() {
    insta::assert_snapshot!(planned(&fedora_uki()));
}

#[test]
fn fedora_with_a_unified_image_that_cannot_start() {
    insta::assert_snapshot!(planned(&fedora_uki_by_device()));
}

const ALL: [Make; 15] = [
    rhel_5,
    centos_6,
    centos_6_uefi,
    rhel_7,
    rhel_8,
    rhel_9,
    rhel_9_uefi,
    sles_11,
    sles_12,
    sles_15,
    debian_lilo,
    alpine,
    arch,
    ubuntu_jammy,
    fedora_uki,
];

#[test]
fn what_was_planned_once_needs_no_second_time() {
    for (number, make) in ALL.into_iter().enumerate() {
        let guest = make();
        let first = planned(&guest);
        assert!(first.verdict.is_ready(), "guest {number}: {first}");
        guest.apply(&first).unwrap();
        let second = planned(&guest);
        assert_eq!(second.edits, [], "guest {number}");
        assert_eq!(second.verdict, Verdict::Ready, "guest {number}");
        assert_eq!(second.vm, first.vm, "guest {number}");
    }
}

#[test]
fn the_kernel_that_starts_is_that_of_the_default_entry() {
    let expected: [(Make, &str); 8] = [
        (rhel_5, "2.6.18-398.el5"),
        (rhel_7, "3.10.0-1160.el7.x86_64"),
        (rhel_8, "4.18.0-80.el8.x86_64"),
        (rhel_9, "5.14.0-427.13.1.el9_4.x86_64"),
        (debian_lilo, "2.6.18-6-686"),
        (alpine, "lts"),
        (arch, "linux-lts"),
        (fedora_uki, "6.11.4-301.fc41.x86_64"),
    ];
    for (make, version) in expected {
        assert_eq!(default_version(&make()), version);
    }
}

#[test]
fn the_boot_sector_tells_which_of_two_loaders_counts() {
    let mut guest = debian_lilo();
    guest.partition(1).file(
        "/boot/grub/menu.lst",
        "default 0\ntitle new\nkernel /boot/vmlinuz-2.6.26-2-686 root=/dev/hda1\n\
         initrd /boot/initrd.img-2.6.26-2-686\n",
    );
    for (code, version) in [
        (Some(BootCode::Lilo), "2.6.18-6-686"),
        (Some(BootCode::Grub), "2.6.26-2-686"),
        (None, "2.6.26-2-686"),
    ] {
        guest.disks[0].boot_code_of = code;
        assert_eq!(default_version(&guest), version, "{code:?}");
        let direct = planned(&guest).vm.direct_boot;
        assert_eq!(direct.is_some(), code == Some(BootCode::Lilo), "{code:?}");
    }
}

#[test]
fn a_kernel_from_outside_is_in_the_plan_and_stays_there() {
    let guest = debian_lilo();
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::ReadyWithChanges);
    assert!(codes(&plan, Level::Warning).contains(&"boot.lilo.direct"));
    guest.apply(&plan).unwrap();
    let again = planned(&guest);
    assert_eq!(again.edits, []);
    assert_eq!(again.vm.direct_boot, plan.vm.direct_boot);
}

#[test]
fn a_command_line_that_no_kernel_takes_is_refused() {
    for (append, accepted) in [
        ("vt.default_utf8=1", true),
        ("quiet\u{0}init=/bin/sh", false),
        ("quiet\rinit=/bin/sh", false),
        (&"a=b ".repeat(600), false),
    ] {
        let guest = debian_lilo();
        let text = guest.text(1, "/etc/lilo.conf");
        let text = text.replace("lba32\n", &format!("lba32\nappend=\"{append}\"\n"));
        guest.partition(1).file("/etc/lilo.conf", text);
        let plan = planned(&guest);
        assert_eq!(plan.vm.direct_boot.is_some(), accepted, "{append:.20}");
        assert_eq!(codes(&plan, Level::Error).contains(&"boot.lilo"), !accepted);
    }
}

#[test]
fn lilo_without_the_kernel_that_it_starts_cannot_be_started_at_all() {
    let guest = debian_lilo();
    guest.partition(1).take("/vmlinuz");
    assert!(codes(&planned(&guest), Level::Error).contains(&"boot.lilo"));
}

#[test]
fn a_map_of_lilo_that_stays_true_is_left_alone() {
    let guest = debian_lilo();
    let text = guest.text(1, "/etc/lilo.conf");
    let by_uuid = text.replace("root=/dev/hda1", &format!("root=\"UUID={ROOT}\""));
    guest.partition(1).file("/etc/lilo.conf", by_uuid);
    assert!(
        planned(&guest).vm.direct_boot.is_some(),
        "the map does not say so"
    );
    let map = format!("LILO\0\0ro root=UUID={ROOT} \0");
    guest.partition(1).file("/boot/map", map);
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::ReadyWithChanges);
    assert!(codes(&plan, Level::Note).contains(&"boot.lilo.map"));
    assert_eq!(plan.vm.direct_boot, None);
    // All drivers are there, but something else in the initramfs must change.
    let kernel = PhonyKernel {
        version: "2.6.18-6-686",
        builtin: VIRTIO,
        files: &[("conf/conf.d/resume", "RESUME=/dev/hda2\n")],
        ..PhonyKernel::default()
    };
    kernel.install(&guest);
    assert!(planned(&guest).vm.direct_boot.is_some(), "the map is stale");
}

#[test]
fn a_loader_that_is_not_known_is_named() {
    let guest = centos_6();
    guest.partition(1).take("/grub/grub.conf");
    guest
        .partition(2)
        .file("/etc/elilo.conf", "image=vmlinuz\n");
    let plan = planned(&guest);
    assert_eq!(codes(&plan, Level::Error), ["boot.loader.unsupported"]);
    assert_eq!(plan.verdict, Verdict::NotConvertible);
}

#[test]
fn a_driver_of_virtual_hardware_that_is_switched_off_is_noted() {
    let plan = planned(&rhel_8());
    let noted = plan
        .findings
        .iter()
        .find(|finding| finding.code == "boot.virtio-blacklisted")
        .unwrap();
    assert!(noted.problem.contains("virtio_net"), "{}", noted.problem);
    assert_eq!(noted.level, Level::Warning);
}

#[test]
fn a_kernel_without_initramfs_is_told_its_root_by_the_partition() {
    let guest = centos_6();
    let text = guest.text(1, "/grub/grub.conf");
    let line = "\tinitrd /initramfs-2.6.32-754.el6.x86_64.img\n";
    guest
        .partition(1)
        .file("/grub/grub.conf", text.replace(line, ""));
    let plan = planned(&guest);
    assert!(codes(&plan, Level::Note).contains(&"boot.no-initramfs"));
    guest.apply(&plan).unwrap();
    let text = guest.text(1, "/grub/grub.conf");
    assert!(text.contains("root=PARTUUID=c0ffee00-02"), "{text}");
}

/// RHEL 8 whose environment block has so many bytes left.
fn rhel_8_with_room(room: usize) -> PhonyGuest {
    let guest = rhel_8();
    let text = guest.text(1, "/grub2/grubenv");
    let records = text.trim_end_matches('#');
    let filler = "x".repeat(1024 - room - records.len() - "filler=\n".len());
    let padding = "#".repeat(room);
    let text = format!("{records}filler={filler}\n{padding}");
    guest.partition(1).file("/grub2/grubenv", text);
    guest
}

#[test]
fn a_full_environment_block_leaves_the_console_to_the_entries() {
    // Two names of devices become 32 bytes longer each.
    let guest = rhel_8_with_room(70);
    let plan = planned(&guest);
    assert!(codes(&plan, Level::Warning).contains(&"boot.grubenv.full"));
    guest.apply(&plan).unwrap();
    let entry = "/loader/entries/3d1f5c7e9b2a4f6081d3e5c7a9b0f2e4-4.18.0-80.el8.x86_64.conf";
    let text = guest.text(1, entry);
    assert!(
        text.contains("$kernelopts $tuned_params console=tty0 console=ttyS0"),
        "{text}"
    );
    let block = guest.text(1, "/grub2/grubenv");
    assert_eq!(block.len(), 1024);
    assert!(
        block.contains(&format!("kernelopts=root=UUID={ROOT} ro")),
        "{block}"
    );

    let plan = planned(&rhel_8_with_room(20));
    assert!(codes(&plan, Level::Error).contains(&"boot.grubenv.full"));
}

#[test]
fn a_disk_that_no_image_has_is_an_error_in_every_kind_of_file() {
    let cases: [(Make, u32, &str, &str); 5] = [
        (rhel_5, 1, "/grub/grub.conf", "/dev/sda2"),
        (rhel_8, 1, "/grub2/grubenv", "/dev/sda2"),
        (debian_lilo, 1, "/etc/lilo.conf", "/dev/hda1"),
        (alpine, 1, "/extlinux.conf", "/dev/sda2"),
        (arch, 1, "/loader/entries/arch.conf", "/dev/nvme0n1p2"),
    ];
    for (make, partition, path, from) in cases {
        let guest = make();
        let text = guest.text(partition, path);
        guest
            .partition(partition)
            .file(path, text.replace(from, "/dev/sdq7"));
        let plan = planned(&guest);
        assert!(
            codes(&plan, Level::Error).contains(&"boot.device.unknown"),
            "{path}"
        );
        assert_eq!(plan.edits, []);
    }
}

#[test]
fn with_fallback_beside_it_shim_is_copied_only_where_fallback_finds_an_entry() {
    let copied = |guest: &PhonyGuest| -> Vec<(String, String)> {
        let plan = planned(guest);
        let copies = plan.edits.iter().filter_map(|edit| match &edit.change {
            Change::Copy { from, .. } => Some((from.path.clone(), edit.place.path.clone())),
            _ => None,
        });
        copies.collect()
    };
    let pair = |from: &str, to: &str| (format!("/EFI/redhat/{from}"), format!("/EFI/BOOT/{to}"));
    let guest = rhel_9_uefi();
    guest.partition(1).file("/EFI/BOOT/fbx64.efi", "fallback");
    assert_eq!(copied(&guest), [pair("shimx64.efi", "BOOTX64.EFI")]);
    guest.partition(1).take("/EFI/redhat/BOOTX64.CSV");
    assert_eq!(copied(&guest), [pair("grubx64.efi", "BOOTX64.EFI")]);
    guest.partition(1).take("/EFI/BOOT/fbx64.efi");
    guest.partition(1).take("/EFI/redhat/shimx64.efi");
    assert_eq!(copied(&guest), [pair("grubx64.efi", "BOOTX64.EFI")]);
}

#[test]
fn which_of_two_foreign_loaders_to_copy_is_a_decision() {
    let guest = ubuntu_jammy();
    for name in ["shimx64.efi", "grubx64.efi", "mmx64.efi", "grub.cfg"] {
        guest.partition(1).take(&format!("/EFI/ubuntu/{name}"));
    }
    guest
        .partition(1)
        .file("/EFI/Microsoft/bootmgfw.efi", "windows");
    assert_eq!(
        codes(&planned(&guest), Level::Error),
        ["boot.uefi.nvram-only"]
    );
    for vendor in ["debian", "fedora"] {
        guest
            .partition(1)
            .file(&format!("/EFI/{vendor}/grubx64.efi"), "grub");
    }
    let plan = planned(&guest);
    assert_eq!(plan.verdict, Verdict::NeedsInput);
    let problem = &plan.findings.last().unwrap().problem;
    assert!(problem.contains("/EFI/debian, /EFI/fedora"), "{problem}");
}

#[test]
fn a_loader_that_changed_since_the_inspection_is_not_copied() {
    let guest = ubuntu_jammy();
    let plan = planned(&guest);
    guest
        .partition(1)
        .file("/EFI/ubuntu/grubx64.efi", "another one");
    let error = guest.apply(&plan).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/boot/efi/EFI/ubuntu/grubx64.efi is not as it was when the plan was made"
    );
    assert!(guest.partition(1).read("/EFI/BOOT/BOOTX64.EFI", 1).is_err());
}

#[test]
fn random_seed_and_images_are_never_touched() {
    let guest = arch();
    guest.apply(&planned(&guest)).unwrap();
    let seed = guest.partition(1).read("/loader/random-seed", 64).unwrap();
    assert_eq!(seed, [7; 32]);
    let plan = planned(&fedora_uki());
    assert_eq!(plan.edits, []);
    assert_eq!(plan.verdict, Verdict::Ready);
}

#[test]
fn a_unified_image_that_is_not_the_default_only_warns() {
    let guest = fedora_uki();
    let other = fedora_uki_by_device();
    let path = "/EFI/Linux/fedora-6.11.4-301.fc41.x86_64.efi";
    let image = other.partition(1).read(path, u64::MAX).unwrap();
    guest.partition(1).file("/EFI/Linux/aaa-1.efi", image);
    let plan = planned(&guest);
    assert_eq!(codes(&plan, Level::Warning), ["boot.uki"]);
    assert!(codes(&plan, Level::Note).contains(&"boot.uki.console"));
    assert_eq!(plan.verdict, Verdict::Ready);
    guest
        .partition(1)
        .file("/loader/loader.conf", "default aaa*\n");
    let plan = planned(&guest);
    assert!(codes(&plan, Level::Error).contains(&"boot.uki"));
}

#[test]
fn a_broken_initramfs_inside_a_unified_image_is_noted() {
    let guest = fedora_uki();
    let path = "/EFI/Linux/fedora-6.11.4-301.fc41.x86_64.efi";
    let image = crate::guest::uki::build(
        &[
            (".linux", b"kernel"),
            (".uname", b"6.11.4-301.fc41.x86_64"),
            (".initrd", b"garbage"),
        ],
        false,
    );
    guest.partition(1).file(path, image);
    assert!(codes(&planned(&guest), Level::Warning).contains(&"boot.uki.unreadable"));
}

#[test]
fn an_inspection_lists_every_loader_and_image() {
    let inspection = fedora_uki().inspect();
    assert_eq!(inspection.ukis.len(), 1);
    assert!(
        inspection
            .to_string()
            .contains("boot image  6.11.4-301.fc41.x86_64")
    );
    let kinds: Vec<BootloaderKind> = rhel_9_uefi()
        .inspect()
        .bootloaders
        .iter()
        .map(|loader| loader.kind)
        .collect();
    assert_eq!(kinds, [BootloaderKind::Bls, BootloaderKind::Grub2]);
}
