// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden command lines: reviewing a change of the virtual hardware is reading their diff.

use converter::vm::{Firmware, Profile, VmDefinition};
use disk::SectorSize;

use super::super::accelerator::Accelerator;
use super::*;
use crate::network::{Forward, NicPlan};
use crate::process::Lifetime;

fn order(disk: DiskController, nic: NicModel, disk_count: usize, sector_size: SectorSize) -> Order {
    let overlay = |index| PathBuf::from(format!("/run/disk{index}.qcow2"));
    let disk_order = |index| DiskOrder {
        file: overlay(index),
        is_overlay: true,
        is_kept: false,
        sector_size,
    };
    Order {
        definition: VmDefinition {
            name: "web01".to_owned(),
            firmware: Firmware::Bios,
            mainboard: Mainboard::Q35,
            cpus: 2,
            memory_bytes: 1 << 30,
            profiles: vec![],
            disks: vec![],
            nics: vec![],
            clock_utc: true,
            direct_boot: None,
        },
        profile: Profile { disk, nic },
        disks: (0..disk_count).map(disk_order).collect(),
        kernel: None,
        nics: vec![NicPlan {
            interface: "enp3s0".to_owned(),
            mac: "52:54:00:12:34:56".to_owned(),
            subnet: "10.20.0.0/24".parse().unwrap(),
            guest: "10.20.0.5".parse().unwrap(),
            host: "10.20.0.1".parse().unwrap(),
            dns: "10.20.0.2".parse().unwrap(),
            dhcp_start: "10.20.0.3".parse().unwrap(),
            forwards: vec![Forward {
                guest_port: 80,
                host_port: 40_080,
            }],
        }],
        nbd: "/tmp/relevo-1/nbd".into(),
        lifetime: Lifetime::WithCommand,
        directory: "/run".into(),
        sockets: "/tmp/relevo-1".into(),
    }
}

fn line(accelerator: Accelerator, order: &Order, firmware: Option<&Uefi>) -> String {
    let host = Host {
        boot_id: String::new(),
        version: "7.2.15".to_owned(),
        accelerator,
        reason: String::new(),
        sandbox: true,
    };
    let places = Places {
        qmp: "/tmp/relevo-1/qmp".into(),
        console: "/tmp/relevo-1/console".into(),
        console_log: "/run/a,b/console.log".into(),
        watch: "/tmp/relevo-1/watch".into(),
    };
    let arguments = arguments(&host, order, &places, firmware).unwrap();
    arguments
        .join("\n")
        .replace("\n-", "\n\n-")
        .replace("\n\n", "\u{0}")
        .replace('\n', " ")
        .replace('\u{0}', "\n")
}

#[test]
fn virtio_on_tcg_with_a_bios() {
    let order = order(
        DiskController::VirtioBlk,
        NicModel::Virtio,
        1,
        SectorSize::B512,
    );
    insta::assert_snapshot!(line(Accelerator::Tcg, &order, None));
}

#[test]
fn virtio_scsi_on_kvm_with_uefi_and_4_kib_sectors() {
    let mut order = order(
        DiskController::VirtioScsi,
        NicModel::Virtio,
        2,
        SectorSize::B4096,
    );
    order.definition.clock_utc = false;
    let uefi = Uefi {
        code: "/fw/code.fd".into(),
        vars: "/run/uefi-vars.fd".into(),
    };
    insta::assert_snapshot!(line(Accelerator::Kvm, &order, Some(&uefi)));
}

#[test]
fn seven_sata_disks_need_a_second_controller() {
    let order = order(DiskController::Sata, NicModel::E1000e, 7, SectorSize::B512);
    insta::assert_snapshot!(line(Accelerator::Tcg, &order, None));
}

#[test]
fn ide_and_an_old_card_sit_on_the_old_board() {
    let order = order(DiskController::Ide, NicModel::Rtl8139, 3, SectorSize::B512);
    insta::assert_snapshot!(line(Accelerator::Tcg, &order, None));
}

#[test]
fn a_parallel_scsi_controller() {
    let order = order(
        DiskController::ScsiLsi,
        NicModel::E1000,
        1,
        SectorSize::B512,
    );
    insta::assert_snapshot!(line(Accelerator::Tcg, &order, None));
}

fn order_with_kernel(command_line: &str) -> Order {
    Order {
        kernel: Some(KernelOrder {
            kernel: "/run/a,b/kernel".into(),
            initramfs: Some("/run/a,b/initramfs".into()),
            command_line: command_line.to_owned(),
        }),
        ..order(
            DiskController::VirtioBlk,
            NicModel::Virtio,
            1,
            SectorSize::B512,
        )
    }
}

#[test]
fn a_kernel_from_outside() {
    let order = order_with_kernel("root=UUID=0f4a ro isolcpus=1,2 a=\"b c\"\tquiet");
    insta::assert_snapshot!(line(Accelerator::Tcg, &order, None));
}

#[test]
fn a_kernel_without_initramfs_is_given_alone() {
    let mut order = order_with_kernel("ro");
    order.kernel.as_mut().unwrap().initramfs = None;
    let line = line(Accelerator::Tcg, &order, None);
    assert!(
        line.contains("-kernel /run/a,b/kernel\n-append ro\n"),
        "{line}"
    );
    assert!(!line.contains("-initrd"), "{line}");
}

#[test]
fn a_command_line_that_is_not_one_line_is_refused() {
    for text in [
        "ro\0init=/bin/sh",
        "ro\nquiet",
        "ro\rquiet",
        &"a ".repeat(4096),
    ] {
        let kernel = order_with_kernel(text).kernel.unwrap();
        let error = Arguments::default().kernel(&kernel, "web01").unwrap_err();
        assert!(error.to_string().contains("command line"), "{error}");
        assert!(error.hint().unwrap().contains("lilo.conf"), "{error}");
    }
}

#[test]
fn disks_that_a_controller_cannot_have_are_refused_with_another_profile_as_hint() {
    for (disk, count, sector) in [
        (DiskController::Ide, 5, SectorSize::B512),
        (DiskController::Sata, 1, SectorSize::B4096),
    ] {
        let error = check_disks(&order(disk, NicModel::E1000, count, sector)).unwrap_err();
        assert!(error.hint().unwrap().contains("virtio"), "{error}");
    }
}
