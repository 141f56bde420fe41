// SPDX-License-Identifier: MIT OR Apache-2.0
//! LUKS on arrays that the kernel made.

use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::filesystem::{FilesystemKind, detect};
use disk::{ReadAt, SectorSize, WriteAt};
use image_library::DiskIndex;

use crate::inspect::{AssembledKind, LUKS_LOCKED, VolumeId};
use crate::phony::disks::array_members;
use crate::phony::encrypted::{luks, secrets};
use crate::secrets::Secrets;
use crate::stack::{Assembled, Part, Stack, assemble};

const UUID: &str = "0f3a7c52-9f0e-4a5b-8a53-5e2f3c1d7b12";

fn members(name: &str) -> Vec<Part> {
    let parts = (0..).zip(array_members(name)).map(|(disk, bytes)| Part {
        id: VolumeId::on_disk(DiskIndex(disk), None),
        device: Arc::new(MemoryDevice::from(bytes)),
        sector_size: SectorSize::B512,
    });
    parts.collect()
}

fn of_kind(stack: &Stack, kind: AssembledKind) -> &Assembled {
    let mut volumes = stack.volumes.iter();
    volumes
        .find(|volume| volume.kind == kind)
        .expect("it is there")
}

fn swap() -> Vec<u8> {
    let mut swap = vec![0; 64 << 10];
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    swap[1024] = 1;
    swap[1028] = 15;
    swap
}

#[test]
fn luks_on_arrays_of_every_level_is_opened_and_written() {
    for name in [
        "linear-1.2",
        "raid0-1.2",
        "raid1-1.2",
        "raid1-0.90",
        "raid5-0.90",
        "raid6-left-symmetric",
        "raid10-f2",
    ] {
        let disks = members(name);
        assert!(disks.len() > 1, "no fixture {name}");
        let locked = assemble(&disks, &Secrets::default()).expect("memory");
        let array = of_kind(&locked, AssembledKind::MdArray);
        let container = luks(UUID, &swap());
        array.part.device.write_all_at(0, &container).expect(name);
        let array = array.part.id;

        let opened = assemble(&disks, &secrets()).expect("memory");
        let volume = of_kind(&opened, AssembledKind::Encrypted);
        assert_eq!(volume.parts, [array], "{name}");
        assert_eq!(volume.name, format!("luks-{UUID}"));
        let content = detect(&volume.part.device).expect("memory").expect("swap");
        assert_eq!(content.kind, FilesystemKind::Swap, "{name}");
        let text = b"written through both";
        let device = &volume.part.device;
        device.write_all_at(20_000, text).expect("inside");
        let again = assemble(&disks, &secrets()).expect("memory");
        let volume = of_kind(&again, AssembledKind::Encrypted);
        let mut found = [0; 20];
        volume
            .part
            .device
            .read_exact_at(20_000, &mut found)
            .expect("inside");
        assert_eq!(found, *text, "{name}");

        let locked = assemble(&disks, &Secrets::default()).expect("memory");
        let mut findings = locked.findings.iter().map(|(_, found)| found);
        let found = findings.find(|found| found.code == LUKS_LOCKED);
        let found = found.expect("it is told");
        assert_eq!(
            found.place,
            of_kind(&locked, AssembledKind::MdArray).name,
            "{name}"
        );
    }
}

#[test]
fn a_mirror_that_lacks_a_disk_still_opens() {
    let mut disks = members("raid1-1.2");
    let whole = assemble(&disks, &Secrets::default()).expect("memory");
    let array = of_kind(&whole, AssembledKind::MdArray);
    array
        .part
        .device
        .write_all_at(0, &luks(UUID, &swap()))
        .expect("inside");
    disks.remove(0);
    let opened = assemble(&disks, &secrets()).expect("memory");
    let volume = of_kind(&opened, AssembledKind::Encrypted);
    let content = detect(&volume.part.device).expect("memory").expect("swap");
    assert_eq!(content.kind, FilesystemKind::Swap);
    let codes: Vec<&str> = opened
        .findings
        .iter()
        .map(|(_, found)| &*found.code)
        .collect();
    assert!(codes.contains(&"storage.md.degraded"), "{codes:?}");
}
