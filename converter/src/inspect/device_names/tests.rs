// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names as servers have them, on disks of one, two and several names.

use disk::SectorSize;
use disk::filesystem::FilesystemKind;
use rstest::rstest;

use super::*;
use crate::inspect::inspection::{
    AssembledFacts, AssembledKind, DiskFacts, PartitionPurpose, TableKind, VolumeContent,
    VolumeFacts,
};

fn volume(disk: u16, number: u32, uuid: &str) -> VolumeFacts {
    VolumeFacts {
        id: VolumeId::on_disk(DiskIndex(disk), Some(number)),
        start_bytes: 0,
        size_bytes: 1,
        purpose: PartitionPurpose::Other,
        partition_uuid: Some(format!("0badcafe-{disk}{number}")),
        partition_label: Some(format!("part {number}")),
        content: Some(VolumeContent {
            kind: FilesystemKind::Ext4,
            uuid: Some(uuid.to_owned()),
            label: Some(format!("label{disk}{number}")),
            free_bytes: None,
            journal_dirty: false,
        }),
    }
}

fn disk(index: u16, name: Option<&str>, uuids: &[&str]) -> DiskFacts {
    DiskFacts {
        index: DiskIndex(index),
        name: name.map(str::to_owned),
        size_bytes: 1,
        sector_size: SectorSize::B512,
        table: TableKind::Mbr,
        boot_code: true,
        boot_code_of: None,
        volumes: (1..)
            .zip(uuids)
            .map(|(number, uuid)| volume(index, number, uuid))
            .collect(),
    }
}

fn id(disk: u16, partition: u32) -> Option<VolumeId> {
    Some(VolumeId::on_disk(DiskIndex(disk), Some(partition)))
}

fn names(disks: &[DiskFacts]) -> DeviceNames<'_> {
    let volumes = Volumes {
        disks,
        assembled: &[],
    };
    DeviceNames::new(volumes, None)
}

#[test]
fn volumes_that_were_put_together_have_their_own_names() {
    let disks = [disk(0, None, &["a-1"])];
    let part = id(0, 1).expect("it is some");
    let root = VolumeId::Assembled { number: 0 };
    let assembled = [AssembledFacts {
        id: root,
        kind: AssembledKind::LogicalVolume,
        name: "vg/root".to_owned(),
        nodes: vec!["vg/root".to_owned(), "mapper/vg-root".to_owned()],
        parts: vec![part],
        size_bytes: 1,
        content: Some(VolumeContent {
            kind: FilesystemKind::Ext4,
            uuid: Some("c-1".to_owned()),
            label: None,
            free_bytes: None,
            journal_dirty: false,
        }),
    }];
    let volumes = Volumes {
        disks: &disks,
        assembled: &assembled,
    };
    let names = DeviceNames::new(volumes, None);
    for name in ["/dev/mapper/vg-root", "/dev/vg/root", "UUID=c-1"] {
        assert_eq!(names.resolve(name), Some(root), "{name}");
    }
    assert_eq!(names.resolve("/dev/vg/swap"), None);
    assert_eq!(names.stable_name(root).as_deref(), Some("UUID=c-1"));
    assert_eq!(volumes.disks_of(root), [DiskIndex(0)]);
}

#[rstest]
#[case("/dev/sda1", id(0, 1))]
#[case("/dev/sdb2", id(1, 2))]
#[case("/dev/nvme1n1p2", id(1, 2))]
#[case("/dev/cciss/c0d1p1", id(1, 1))]
#[case("/dev/mmcblk0p1", id(0, 1))]
#[case("/dev/xvda2", id(0, 2))]
#[case("/dev/sdc1", None)]
#[case("/dev/sda9", None)]
#[case("/dev/sda01", None)]
#[case("UUID=b-1", id(1, 1))]
#[case("UUID=\"B-1\"", id(1, 1))]
#[case("LABEL=label02", id(0, 2))]
#[case("/dev/disk/by-label/label02", id(0, 2))]
#[case("/dev/disk/by-uuid/a-2", id(0, 2))]
#[case("PARTUUID=0badcafe-12", id(1, 2))]
#[case("/dev/disk/by-partlabel/part\\x201", None)]
#[case("/dev/disk/by-id/ata-X-part1", None)]
#[case("/dev/mapper/vg-root", None)]
fn names_mean_what_they_meant_on_the_server(
    #[case] spec: &str,
    #[case] expected: Option<VolumeId>,
) {
    let disks = [
        disk(0, None, &["a-1", "a-2"]),
        disk(1, None, &["b-1", "b-2"]),
    ];
    assert_eq!(names(&disks).resolve(spec), expected);
}

#[test]
fn known_names_of_disks_count_more_than_their_order() {
    let disks = [
        disk(0, Some("sdb"), &["a-1"]),
        disk(1, Some("nvme0n1"), &["b-1"]),
    ];
    let names = names(&disks);
    assert_eq!(names.resolve("/dev/sdb1"), id(0, 1));
    assert_eq!(names.resolve("/dev/nvme0n1p1"), id(1, 1));
    assert_eq!(names.resolve("/dev/sda1"), None);
}

#[test]
fn with_a_single_disk_a_link_by_id_needs_only_the_partitions_number() {
    let disks = [disk(0, None, &["a-1", "a-2"])];
    let names = names(&disks);
    assert_eq!(names.resolve("/dev/disk/by-id/ata-WDC_1-part2"), id(0, 2));
    assert_eq!(
        names.resolve("/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part1"),
        id(0, 1)
    );
    assert_eq!(names.resolve("/dev/disk/by-id/dm-name-x-part1"), None);
    assert_eq!(names.resolve("/dev/disk/by-id/usb-Stick-0:0-part1"), None);
    assert_eq!(names.resolve("/dev/disk/by-partlabel/part\\x201"), id(0, 1));
}

#[test]
fn a_uuid_that_two_volumes_have_names_neither() {
    let disks = [disk(0, None, &["same", "same"])];
    let names = names(&disks);
    assert_eq!(names.resolve("UUID=same"), None);
    let stable = names.stable_name(id(0, 2).expect("it is some"));
    assert_eq!(stable.as_deref(), Some("LABEL=label02"));
    let partition = names.partition_name(id(0, 2).expect("it is some"));
    assert_eq!(
        partition.as_deref(),
        Some("/dev/disk/by-partuuid/0badcafe-02")
    );
}

#[rstest]
#[case("/dev/mapper/mpatha", None)]
#[case("/dev/mapper/mpatha2", Some(2))]
#[case("/dev/mapper/mpathap2", Some(2))]
#[case("/dev/mapper/mpathaa-part2", Some(2))]
#[case("/dev/mpath/mpath0", None)]
#[case("/dev/mapper/mpath0p2", Some(2))]
#[case("/dev/mapper/3600508b1001c0a1b2c3d4e5f60718293_part2", Some(2))]
#[case("/dev/mapper/3600508b1001c0a1b2c3d4e5f60718293", None)]
#[case("/dev/mapper/system2", Some(2))]
#[case(
    "/dev/disk/by-id/dm-uuid-part2-mpath-3600508b1001c0a1b2c3d4e5f60718293",
    Some(2)
)]
#[case("/dev/disk/by-id/dm-name-mpatha-part2", Some(2))]
fn a_map_of_multipath_stands_for_the_only_disk(#[case] spec: &str, #[case] partition: Option<u32>) {
    let aliases = [MultipathAlias {
        alias: "system".to_owned(),
        wwid: "3600508b1001c0a1b2c3d4e5f60718293".to_owned(),
    }];
    let map = MapName::parse(spec, &aliases).expect("it is a map");
    assert_eq!(map.partition, partition);
    let disks = [disk(0, None, &["a-1", "a-2"])];
    let names = names(&disks).with_aliases(&aliases);
    assert_eq!(names.stability(spec), Stability::Volatile);
    assert_eq!(
        names.resolve(spec),
        partition.and_then(|number| id(0, number))
    );
}

#[rstest]
#[case("/dev/mapper/vg0-root")]
#[case("/dev/mapper/mpath")]
#[case("/dev/mapper/system2")]
#[case("/dev/mapper/luks-3600508b1001c0a1b2c3d4e5f60718293")]
#[case("/dev/mapper/sda3_crypt")]
fn other_maps_are_none_of_multipath(#[case] spec: &str) {
    assert_eq!(MapName::parse(spec, &[]), None);
}

#[test]
fn of_several_disks_the_one_with_the_maps_wwid_is_meant() {
    let disks = [
        disk(0, Some("sda"), &["a-1"]),
        disk(1, Some("sdb"), &["b-1"]),
    ];
    let mut machine = crate::phony::machine("host");
    for (name, wwn) in [
        ("sda", "0x600508b1001c0a1b2c3d4e5f60718293"),
        ("sdb", "naa.6005"),
    ] {
        machine.disks.push(image_library::machine::Disk {
            wwn: Some(wwn.to_owned()),
            ..crate::phony::machine_disk(name)
        });
    }
    let volumes = Volumes {
        disks: &disks,
        assembled: &[],
    };
    let names = DeviceNames::new(volumes, Some(&machine));
    let spec = "/dev/mapper/3600508b1001c0a1b2c3d4e5f60718293-part1";
    assert_eq!(names.resolve(spec), id(0, 1));
    assert_eq!(DeviceNames::new(volumes, None).resolve(spec), None);
}

#[test]
fn without_a_uuid_a_label_names_a_volume() {
    let mut disks = [disk(0, None, &["a-1"])];
    if let Some(content) = &mut disks[0].volumes[0].content {
        content.uuid = None;
    }
    let name = names(&disks).stable_name(id(0, 1).expect("it is some"));
    assert_eq!(name.as_deref(), Some("LABEL=label01"));
}

#[rstest]
#[case("UUID=1", Stability::Stable)]
#[case("/dev/disk/by-label/x", Stability::Stable)]
#[case("/dev/sda", Stability::Volatile)]
#[case("/dev/hda3", Stability::Volatile)]
#[case("/dev/disk/by-id/wwn-0x5-part1", Stability::Volatile)]
#[case("/dev/disk/by-id/md-uuid-1", Stability::Stacked)]
#[case("/dev/md0", Stability::Stacked)]
#[case("/dev/vg0/root", Stability::Stacked)]
#[case("/dev/sr0", Stability::NotADevice)]
#[case("tmpfs", Stability::NotADevice)]
#[case("nas:/export", Stability::NotADevice)]
fn a_names_fate_is_known(#[case] spec: &str, #[case] expected: Stability) {
    assert_eq!(stability(spec), expected);
}
