// SPDX-License-Identifier: MIT OR Apache-2.0
//! What filesystems that kernels wrote say of themselves: room, logs, devices.

use disk::SectorSize;
use disk::block::MemoryDevice;
use rstest::rstest;

use super::*;
use crate::GuestVolumes;
use crate::phony::disks::{filesystem, superblock_only};

fn disks(names: &[&str]) -> Vec<GuestDisk> {
    let disk = |(number, name): (u16, &&str)| GuestDisk {
        index: DiskIndex(number),
        name: None,
        device: Arc::new(MemoryDevice::from(filesystem(name))),
        sector_size: SectorSize::B512,
        secrets: Secrets::default(),
    };
    (0..).zip(names).map(disk).collect()
}

fn codes(storage: &Storage) -> Vec<&str> {
    let findings = storage.findings.iter();
    findings.map(|(_, found)| found.code.as_str()).collect()
}

#[rstest]
#[case("xfs-used", FilesystemKind::Xfs, false)]
#[case("xfs-dirty", FilesystemKind::Xfs, true)]
#[case("btrfs/files.1", FilesystemKind::Btrfs, false)]
#[case("btrfs/log.1", FilesystemKind::Btrfs, true)]
#[case("ext4-dirty", FilesystemKind::Ext4, true)]
fn room_and_logs_are_told(
    #[case] name: &str,
    #[case] kind: FilesystemKind,
    #[case] is_dirty: bool,
) {
    let storage = open(&disks(&[name])).expect("memory can be read");
    let content = storage.disks[0].volumes[0].content.as_ref();
    let content = content.expect("a filesystem");
    assert_eq!((content.kind, content.journal_dirty), (kind, is_dirty));
    let free = content.free_bytes.expect("it is known");
    assert!(
        free > 1 << 20 && free < storage.disks[0].size_bytes,
        "{free}"
    );
    let told = codes(&storage).contains(&"filesystem.journal-dirty");
    assert_eq!(told, is_dirty);
    assert_eq!(storage.filesystems.len(), 1);
}

#[test]
fn a_filesystem_of_two_devices_is_one() {
    let disks = disks(&["btrfs/raid1.1", "btrfs/raid1.2"]);
    let storage = open(&disks).expect("memory can be read");
    assert_eq!(codes(&storage), [""; 0]);
    let first = VolumeId::on_disk(DiskIndex(0), None);
    let known: Vec<&VolumeId> = storage.filesystems.keys().collect();
    assert_eq!(known, [&first]);
    let volumes = Volumes {
        disks: &storage.disks,
        assembled: &[],
    };
    let uuid = volumes.contents().next().expect("btrfs").1.uuid.clone();
    let names = crate::inspect::device_names::DeviceNames::new(volumes, None);
    let spec = format!("UUID={}", uuid.expect("it has one"));
    for name in [spec.as_str(), "/dev/sda", "/dev/sdb"] {
        assert_eq!(names.resolve(name), Some(first), "{name}");
    }
    assert_eq!(names.stable_name(first), Some(spec));
    let opened = GuestVolumes::open(&disks).expect("memory can be read");
    let opened = opened.filesystem(first).expect("it is there");
    let entries = opened.read_directory("/").expect("it can be read");
    assert!(!entries.is_empty());
    assert!(!opened.subvolumes().expect("it can be read").is_empty());
}

#[test]
fn a_device_that_is_missing_is_told() {
    let storage = open(&disks(&["btrfs/raid1.2"])).expect("memory can be read");
    assert_eq!(codes(&storage), ["disk.btrfs.device-missing"]);
    assert_eq!(storage.filesystems.len(), 1);
}

fn codes_on(bytes: Vec<u8>) -> Vec<String> {
    let disk = GuestDisk {
        index: DiskIndex(0),
        name: None,
        device: Arc::new(MemoryDevice::from(bytes)),
        sector_size: SectorSize::B512,
        secrets: Secrets::default(),
    };
    let findings = open(&[disk]).unwrap().findings;
    findings
        .into_iter()
        .map(|(_, finding)| finding.code)
        .collect()
}

#[test]
fn a_filesystem_that_cannot_be_read_is_a_warning() {
    assert_eq!(codes_on(superblock_only()), ["filesystem.unreadable"]);
    assert_eq!(codes_on(vec![0; 1 << 20]), Vec::<String>::new());
}
