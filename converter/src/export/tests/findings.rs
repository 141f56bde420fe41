// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which hardware is chosen, and what is told where there is none.

use disk::Level;

use super::{
    Controller, DriverPlace, GIB, GuestFacts, Networks, NicModel, Target, bios_virtio, disk,
    drivers, old_i386, uefi_virtio,
};

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
