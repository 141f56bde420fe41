// SPDX-License-Identifier: MIT OR Apache-2.0
//! Volume groups made by hand: what is missing, damaged, or never made by LVM's tools.

use std::sync::Arc;

use crate::block::{ExtentKind, MemoryDevice, ReadAt, WriteAt};
use crate::error::Error;

use super::sample::{AREA, Disk, group, logical, scanned, uuid};
use super::{LogicalVolumeKind, Scan, VolumeGroup};

const EXTENT: usize = 65536;
const SHOWN: &str = "\"READ\", \"WRITE\", \"VISIBLE\"";
const HIDDEN: &str = "\"READ\", \"WRITE\"";

fn on(volume: &str, extent: u64) -> String {
    format!("type = \"striped\" stripe_count = 1 stripes = [\"{volume}\", {extent}]")
}

fn linear(name: &str, status: &str, volume: &str, extent: u64, extents: u64) -> String {
    logical(name, status, &[(extents, &on(volume, extent))])
}

/// Two disks of 16 extents with that text; every extent of the first is filled with its number, of
/// the second with 100 and its number.
fn disks(text: &str) -> [Disk; 2] {
    ['a', 'b'].map(|letter| {
        let mut disk = Disk::new(letter, 18 * EXTENT).text(text);
        for number in 0..16 {
            let value = number as u8 + if letter == 'b' { 100 } else { 0 };
            disk = disk.extent(number, &[value; EXTENT]);
        }
        disk
    })
}

fn only(scan: Scan) -> VolumeGroup {
    assert_eq!(scan.findings, []);
    let [group] = <[_; 1]>::try_from(scan.groups).expect("one group");
    group
}

fn both(text: &str) -> VolumeGroup {
    only(scanned(disks(text).map(Disk::device)))
}

fn first_alone(text: &str) -> VolumeGroup {
    let [first, _] = disks(text);
    only(scanned([first.device()]))
}

fn open(group: &VolumeGroup, name: &str) -> Arc<dyn WriteAt> {
    let volume = group.logical_volume(name).expect(name);
    volume.open().expect(name)
}

fn refusal(group: &VolumeGroup, name: &str) -> String {
    let volume = group.logical_volume(name).expect(name);
    volume.obstacle().expect("it cannot be opened")
}

fn byte(device: &dyn ReadAt, offset: usize) -> u8 {
    let mut byte = [0];
    device
        .read_exact_at(offset as u64, &mut byte)
        .expect("inside");
    byte[0]
}

fn codes(group: &VolumeGroup) -> Vec<&str> {
    group
        .findings()
        .iter()
        .map(|finding| finding.code.as_str())
        .collect()
}

#[test]
fn volumes_that_do_not_need_the_missing_disk_open() {
    let text = group(
        3,
        2,
        &[
            linear("here", SHOWN, "pv0", 4, 2),
            linear("there", SHOWN, "pv1", 0, 1),
            logical("half", SHOWN, &[(1, &on("pv0", 0)), (1, &on("pv1", 1))]),
        ]
        .concat(),
    );
    let group = first_alone(&text);
    let volumes = group.physical_volumes();
    assert_eq!(
        (volumes[0].candidate, volumes[1].candidate),
        (Some(0), None)
    );
    assert_eq!(codes(&group), ["storage.lvm.volume-missing"]);
    assert!(group.findings()[0].problem.contains("pv1"));
    assert_eq!(byte(&open(&group, "here"), EXTENT), 5);
    for name in ["there", "half"] {
        let text = refusal(&group, name);
        let named = format!("pv1 ({}, once /dev/sdb)", uuid('b'));
        assert!(text.contains(&named) && text.contains(name), "{text}");
    }
}

#[test]
fn a_disk_that_lvm_has_as_missing_is_not_used() {
    let text = group(3, 2, &linear("there", SHOWN, "pv1", 0, 1));
    let flags = "device = \"/dev/sdb\" flags = [\"MISSING\"]";
    let group = both(&text.replace("device = \"/dev/sdb\"", flags));
    assert_eq!(group.physical_volumes()[1].candidate, Some(1));
    assert_eq!(codes(&group), ["storage.lvm.volume-missing"]);
    assert!(refusal(&group, "there").contains("missing physical volume pv1"));
}

#[test]
fn the_newest_metadata_counts_wherever_it_is() {
    let text = |seqno: u32| group(seqno, 2, &linear("root", SHOWN, "pv0", seqno.into(), 1));
    let [first, second] = disks(&text(4));
    let second = second.text(&text(9));
    let found = only(scanned([first.device(), second.device()]));
    assert_eq!(found.seqno(), 9);
    assert_eq!(codes(&found), ["storage.lvm.metadata-outdated"]);
    assert_eq!(byte(&open(&found, "root"), 0), 9);
}

#[test]
fn a_damaged_area_falls_back_to_the_second_of_the_same_disk() {
    let text = group(2, 1, &linear("root", SHOWN, "pv0", 3, 1));
    let disk = || {
        Disk::new('a', 24 * EXTENT)
            .text(&text)
            .extent(3, &[7; EXTENT])
    };
    let second_area = 22 * EXTENT as u64..24 * EXTENT as u64;
    let bytes = disk().area(second_area).text_at(&text, 70000).bytes();
    for at in [AREA.start + 3, AREA.start + 600] {
        let mut damaged = bytes.clone();
        damaged[at as usize] ^= 0xff;
        let scan = scanned([Arc::new(MemoryDevice::from(damaged))]);
        assert_eq!(scan.findings[0].code, "storage.lvm.metadata-damaged");
        assert_eq!(byte(&open(&scan.groups[0], "root"), 5), 7);
    }
    let mut gone = disk().bytes();
    gone[AREA.start as usize + 600] ^= 0xff;
    let scan = scanned([Arc::new(MemoryDevice::from(gone))]);
    assert!(scan.groups.is_empty());
    assert_eq!(scan.unassigned, [0]);
}

#[test]
fn a_disk_without_metadata_is_found_by_its_uuid() {
    let text = group(2, 2, &linear("root", SHOWN, "pv1", 3, 1));
    let [first, second] = disks(&text);
    let found = only(scanned([second.without_areas().device(), first.device()]));
    assert_eq!(found.physical_volumes()[1].candidate, Some(0));
    assert_eq!(byte(&open(&found, "root"), 0), 103);
    let spare = Disk::new('z', 2 * EXTENT).device();
    let other = Arc::new(MemoryDevice::from(vec![0; EXTENT]));
    let scan = scanned([other, spare]);
    assert!(scan.groups.is_empty() && scan.findings.is_empty());
    assert_eq!(scan.unassigned, [1]);
}

#[test]
fn the_first_of_two_devices_with_one_uuid_is_used() {
    let text = group(2, 1, &linear("root", SHOWN, "pv0", 3, 1));
    let [first, _] = disks(&text);
    let [twin, _] = disks(&text);
    let scan = scanned([first.device(), twin.extent(3, &[9; EXTENT]).device()]);
    assert_eq!(scan.findings[0].code, "storage.lvm.duplicate");
    assert_eq!(byte(&open(&scan.groups[0], "root"), 0), 3);
}

#[test]
fn a_mirror_is_read_from_its_first_leg_and_written_to_all() {
    let legs = [
        linear("m_mimage_0", HIDDEN, "pv0", 1, 2),
        linear("m_mimage_1", HIDDEN, "pv1", 5, 2),
        logical(
            "m",
            SHOWN,
            &[(
                2,
                "type = \"mirror\" mirror_count = 2 mirror_log = \"m_mlog\" region_size = 64 \
                 mirrors = [\"m_mimage_0\", 0, \"m_mimage_1\", 0]",
            )],
        ),
    ];
    let text = group(2, 2, &legs.concat());
    let whole = both(&text);
    let mirror = whole.logical_volume("m").expect("it is there");
    assert_eq!(mirror.kind(), LogicalVolumeKind::Mirror);
    assert!(
        !whole
            .logical_volume("m_mimage_0")
            .expect("a leg")
            .is_visible()
    );
    let device = open(&whole, "m");
    assert_eq!((byte(&device, 0), byte(&device, EXTENT)), (1, 2));
    device.write_all_at(10, &[77]).expect("both legs are there");
    assert_eq!(byte(&open(&whole, "m_mimage_1"), 10), 77);

    let degraded = first_alone(&text);
    let device = open(&degraded, "m");
    assert_eq!(byte(&device, 0), 1);
    let error = device
        .write_all_at(0, &[1])
        .expect_err("a leg would be left behind");
    let reason = std::error::Error::source(&error)
        .expect("a reason")
        .to_string();
    assert!(reason.contains("pv1"), "{reason}");
    let known = text.replace("device = \"/dev/sdb\"", "status = [\"MISSING\"]");
    let device = open(&first_alone(&known), "m");
    device
        .write_all_at(0, &[1])
        .expect("LVM knows that the leg is gone");
}

#[test]
fn a_physical_volume_that_is_being_moved_is_read_from_where_it_was() {
    let moved = logical(
        "pvmove0",
        "\"READ\", \"WRITE\", \"PVMOVE\", \"LOCKED\"",
        &[
            (2, &on("pv1", 7)),
            (
                2,
                "type = \"mirror\" mirror_count = 2 extents_moved = 1 \
                 mirrors = [\"pv0\", 2, \"pv1\", 9]",
            ),
        ],
    );
    let root = logical(
        "root",
        SHOWN,
        &[(1, &on("pvmove0", 1)), (2, &on("pvmove0", 2))],
    );
    let found = both(&group(2, 2, &(moved + &root)));
    let device = open(&found, "root");
    let read = [0, 1, 2].map(|extent| byte(&device, extent * EXTENT));
    assert_eq!(read, [108, 2, 3]);
    device
        .write_all_at(EXTENT as u64, &[66])
        .expect("both places");
    let status = found.logical_volume("pvmove0").expect("it is there");
    assert!(status.status().contains(&"LOCKED".to_owned()));
}

#[test]
fn stripes_errors_zeros_and_read_only_volumes() {
    let text = group(
        2,
        2,
        &[
            logical(
                "stripes",
                SHOWN,
                &[(
                    4,
                    "type = \"striped\" stripe_count = 2 stripe_size = 8 \
                     stripes = [\"pv0\", 0, \"pv1\", 4]",
                )],
            ),
            logical("bad", SHOWN, &[(1, &on("pv0", 9)), (1, "type = \"error\"")]),
            logical("zero", SHOWN, &[(1, "type = \"zero\"")]),
            linear("fixed", "\"READ\", \"VISIBLE\"", "pv0", 12, 1),
        ]
        .concat(),
    );
    let found = both(&text);
    let stripes = open(&found, "stripes");
    let read = [0, 4096, 8192, 2 * EXTENT + 4096].map(|at| byte(&stripes, at));
    assert_eq!(read, [0, 104, 0, 105]);
    let bad = open(&found, "bad");
    assert_eq!(byte(&bad, 0), 9);
    assert!(bad.read_exact_at(EXTENT as u64, &mut [0]).is_err());
    let extent = open(&found, "zero").extent_at(5).expect("inside");
    assert_eq!(
        (extent.kind, extent.length),
        (ExtentKind::Zero, EXTENT as u64 - 5)
    );
    let fixed = open(&found, "fixed");
    assert_eq!(byte(&fixed, 0), 12);
    assert!(fixed.write_all_at(0, &[1]).is_err());
}

#[test]
fn what_is_not_supported_is_named() {
    let text = group(
        2,
        2,
        &[
            linear("plain", HIDDEN, "pv0", 0, 4),
            logical(
                "c",
                SHOWN,
                &[(1, "type = \"cache\" cache_pool = \"p\" origin = \"plain\"")],
            ),
            logical(
                "w",
                SHOWN,
                &[(1, "type = \"writecache\" origin = \"plain\"")],
            ),
            logical("v", SHOWN, &[(1, "type = \"vdo\" vdo_pool = \"p\"")]),
            logical("new", SHOWN, &[(1, "type = \"striped+FLAG\"")]),
            logical(
                "r",
                SHOWN,
                &[(
                    1,
                    "type = \"raid5+RESHAPE\" device_count = 1 raids = [\"plain\"]",
                )],
            ),
            logical(
                "p",
                SHOWN,
                &[(
                    1,
                    "type = \"thin-pool\" metadata = \"plain\" pool = \"plain\" chunk_size = 128",
                )],
            ),
            logical(
                "t",
                SHOWN,
                &[(1, "type = \"thin\" thin_pool = \"plain\" device_id = 1")],
            ),
            logical(
                "u",
                SHOWN,
                &[(1, "type = \"thin\" thin_pool = \"p\" device_id = 1")],
            ),
        ]
        .concat(),
    );
    let found = both(&text);
    let cases = [
        ("c", "a cache, which may hold newer data"),
        ("w", "a writecache, which may hold newer data"),
        ("v", "the segment type vdo"),
        ("new", "the segment type striped+FLAG"),
        ("r", "a reshape that is not finished"),
        ("p", "a thin pool by itself"),
        ("t", "expected plain to be a thin pool"),
        ("u", "thin pool superblock at byte 0x0: expected its magic"),
    ];
    for (name, expected) in cases {
        let text = refusal(&found, name);
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(
        found.logical_volume("c").expect("it is there").type_name(),
        "cache"
    );
    // A type that nobody knows may have taken any extent.
    let used = found.used_ranges();
    assert_eq!(used[0].1.last().expect("something").end, 18 * EXTENT as u64);
}

#[test]
fn merging_snapshots_are_refused_and_plain_ones_are_shown_with_the_origins_size() {
    let volumes = |key: &str| {
        [
            linear("data", SHOWN, "pv0", 0, 4),
            linear("snap", SHOWN, "pv0", 8, 1),
            logical(
                "snapshot0",
                HIDDEN,
                &[(
                    4,
                    &format!(
                        "type = \"snapshot\" chunk_size = 8 origin = \"data\" {key} = \"snap\""
                    ),
                )],
            ),
        ]
        .concat()
    };
    let merging = both(&group(2, 2, &volumes("merging_store")));
    for name in ["data", "snap", "snapshot0"] {
        assert!(refusal(&merging, name).contains("being merged"));
    }
    let plain = both(&group(2, 2, &volumes("cow_store")));
    let snap = plain.logical_volume("snap").expect("it is there");
    assert_eq!(snap.kind(), LogicalVolumeKind::Snapshot);
    assert_eq!(snap.size_bytes(), 4 * EXTENT as u64);
    assert!(refusal(&plain, "snap").contains("never activated"));
    let data = open(&plain, "data");
    assert_eq!(byte(&data, EXTENT), 1);
    let error = data
        .write_all_at(0, &[1])
        .expect_err("the snapshot would change");
    let reason = std::error::Error::source(&error)
        .expect("a reason")
        .to_string();
    assert!(reason.contains("never activated"), "{reason}");
}

#[test]
fn volumes_that_contain_themselves_or_too_many_others_are_refused() {
    let mut volumes = linear("deep0", HIDDEN, "pv0", 0, 1);
    for index in 1..40 {
        let below = format!("deep{}", index - 1);
        volumes += &linear(&format!("deep{index}"), HIDDEN, &below, 0, 1);
    }
    volumes += &linear("a", HIDDEN, "b", 0, 1);
    volumes += &linear("b", HIDDEN, "a", 0, 1);
    let mirror = |leg: &str| {
        format!(
            "type = \"mirror\" mirror_count = 3 mirrors = [\"{leg}\", 0, \"{leg}\", 0, \"{leg}\", 0]"
        )
    };
    for (name, leg) in [("m1", "deep0"), ("m2", "m1"), ("m3", "m2")] {
        volumes += &logical(name, HIDDEN, &[(1, &mirror(leg))]);
    }
    let found = both(&group(2, 2, &volumes));
    assert!(refusal(&found, "a").contains("not to be a part of itself"));
    // One by one from below, so that each finds the one under it ready.
    let opened = (0..40).map(|index| found.logical_volume(&format!("deep{index}")));
    let opened: Vec<bool> = opened
        .map(|volume| volume.expect("it is there").open().is_ok())
        .collect();
    assert_eq!(opened.iter().filter(|is_open| **is_open).count(), 16);
    assert!(found.logical_volume("m2").expect("m2").open().is_ok());
    assert!(refusal(&found, "m3").contains("so many others"));
}

#[test]
fn extents_beyond_the_device_are_told_with_the_physical_volume() {
    let beyond = |count, expected: &str| {
        let text = group(2, 1, &linear("root", SHOWN, "pv0", 15, 3));
        let text = text.replace("pe_count = 16", &format!("pe_count = {count}"));
        let found = first_alone(&text);
        let text = refusal(&found, "root");
        assert!(text.contains(expected) && text.contains("pv0"), "{text}");
        let error = found.logical_volume("root").expect("it is there").open();
        assert!(matches!(error, Err(Error::Corrupt { .. })));
    };
    beyond(16, "found 16 extents");
    beyond(20, "found its end at byte 0x120000");
}

#[test]
fn used_ranges_are_headers_metadata_and_allocated_extents() {
    let text = group(
        2,
        2,
        &[
            linear("root", SHOWN, "pv0", 1, 2),
            linear("more", SHOWN, "pv0", 3, 1),
            linear("far", SHOWN, "pv0", 8, 1),
        ]
        .concat(),
    );
    let used = both(&text).used_ranges();
    let extent = |number: u64| (number + 2) * EXTENT as u64;
    assert_eq!(used[0].0, 0);
    assert_eq!(
        used[0].1,
        [0..extent(0), extent(1)..extent(4), extent(8)..extent(9)]
    );
    let head = 0..extent(0);
    assert_eq!(used[1].1, [head]);
}

/// The damaged group is looked at in every way; answers and errors are both fine, panics are not.
fn ask_everything(bytes: &[u8]) {
    let scan = scanned([Arc::new(MemoryDevice::from(bytes.to_vec()))]);
    for group in scan.groups {
        let _ = group.used_ranges();
        for volume in group.logical_volumes() {
            let _ = (volume.kind(), volume.size_bytes(), volume.type_name());
            let Ok(device) = volume.open() else { continue };
            let length = device.length_bytes();
            for at in [0, length / 2, length.saturating_sub(1)] {
                let _ = device.read_exact_at(at, &mut [0; 512]);
                let _ = device.extent_at(at);
                let _ = device.write_all_at(at, &[1]);
            }
        }
    }
}

#[test]
fn every_changed_byte_of_metadata_gives_an_error_or_other_volumes() {
    let volumes = [
        linear("s_rmeta_0", HIDDEN, "pv0", 0, 1),
        linear("i0", HIDDEN, "pv0", 1, 1),
        linear("i1", HIDDEN, "pv0", 2, 1),
        logical(
            "r",
            SHOWN,
            &[(
                1,
                "type = \"raid1\" device_count = 2 raids = [\"s_rmeta_0\", \"i0\", \"i1\"]",
            )],
        ),
        logical(
            "s",
            SHOWN,
            &[(
                2,
                "type = \"striped\" stripe_count = 2 stripe_size = 8 stripes = [\"pv0\", 3, \"i0\", 0]",
            )],
        ),
    ];
    let text = group(2, 1, &volumes.concat());
    for at in 0..text.len() {
        for value in [b'0', b'9', b'}', b' '] {
            let mut changed = text.clone().into_bytes();
            changed[at] = value;
            let changed = String::from_utf8(changed).expect("it was ASCII");
            let disk = Disk::new('a', 8 * EXTENT).text(&changed);
            ask_everything(&disk.bytes());
        }
    }
}
