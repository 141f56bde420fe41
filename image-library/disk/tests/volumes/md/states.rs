// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arrays that are not just whole: failed members, rebuilds, bad blocks, journals.

use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::filesystem::{FilesystemKind, detect};
use disk::volume::ReadOnly;
use disk::volume::md::{Array, MemberState, assemble, firmware};
use disk::{ReadAt, WriteAt};

use super::fixture::{all, named};
use super::{Members, assert_pattern, assert_same, one_array, read_all};

fn of(name: &str) -> (Members, Array) {
    let members = Members::of(&named(name));
    let array = one_array(&members.without(&[]));
    (members, array)
}

fn codes(array: &Array) -> Vec<&str> {
    array.findings.iter().map(|f| f.code.as_str()).collect()
}

fn fill(device: &MemoryDevice, offset: u64, length: usize) {
    device
        .write_all_at(offset, &vec![0xee; length])
        .expect("it is inside");
}

#[test]
fn a_member_that_missed_writes_is_left_out() {
    for fixture in all().iter().filter(|f| !f.fact("stale").is_empty()) {
        let stale = fixture.number("stale") as usize;
        let (members, array) = of(fixture.name);
        assert_eq!(
            array.members[stale].state,
            MemberState::Stale,
            "{}",
            fixture.name
        );
        assert!(array.is_degraded());
        assert_eq!(
            codes(&array),
            ["storage.md.stale-member", "storage.md.degraded"]
        );
        assert_pattern(&array, fixture.name);
        // Alone it is an array of its own time, as for mdadm.
        let alone = one_array(&members.without(&[(stale + 1) % 2]));
        if fixture.name.starts_with("raid1") {
            assert!(
                read_all(&*alone.open().expect("a whole copy"))
                    .iter()
                    .all(|b| *b == 0)
            );
        }
    }
}

#[test]
fn a_member_that_is_rebuilt_is_not_read_beyond_what_it_has() {
    for fixture in all().iter().filter(|f| !f.fact("rebuilding").is_empty()) {
        let rebuilt = fixture.number("rebuilding") as usize;
        let (members, array) = of(fixture.name);
        let MemberState::Rebuilding { until_bytes } = array.members[rebuilt].state else {
            panic!("{}: {:?}", fixture.name, array.members[rebuilt]);
        };
        assert_eq!(until_bytes, 128 * 1024, "{}", fixture.name);
        let data_start = 64 * 1024 + until_bytes;
        fill(&members.0[rebuilt], data_start, 200_000);
        assert_pattern(&array, fixture.name);
        // What it has counts: without the others of its copies, only that is read.
        let device = array.open().expect("enough members");
        device.write_all_at(1000, &[7; 3000]).expect("writable");
        let mut bytes = [0; 3000];
        device.read_exact_at(1000, &mut bytes).expect("readable");
        assert_eq!(bytes, [7; 3000]);
    }
}

#[test]
fn a_member_that_is_replaced_and_its_replacement_both_count() {
    let (members, array) = of("raid5-replacing");
    assert_eq!(array.members[3].role, Some(1));
    assert!(!array.is_degraded());
    assert_pattern(&array, "while it is replaced");
    let without = one_array(&members.without(&[1]));
    assert_pattern(&without, "with the part that the replacement has");
    let (_, array) = of("raid5-replaced");
    assert_eq!(array.members[1].state, MemberState::Stale);
    assert_eq!(array.members[3].state, MemberState::InSync);
    assert_pattern(&array, "after it was replaced");
}

#[test]
fn blocks_that_are_listed_as_bad_are_read_from_other_members() {
    for name in ["raid1-bad-blocks", "raid5-bad-blocks"] {
        let (members, array) = of(name);
        for (sector, count) in [(300, 24), (512, 8)] {
            fill(&members.0[1], sector * 512, count * 512);
        }
        assert_pattern(&array, name);
        let alone = one_array(&members.without(&[0]));
        let device = alone.open().expect("enough members");
        let mut bytes = vec![0; device.length_bytes() as usize];
        device
            .read_exact_at(0, &mut bytes)
            .expect_err("nobody has these blocks");
        device
            .read_exact_at(0, &mut bytes[..4096])
            .expect("before them");
    }
}

#[test]
fn a_write_journal_that_holds_data_keeps_the_array_shut() {
    let (members, array) = of("raid5-journal-clean");
    assert_eq!(array.members[3].state, MemberState::Journal);
    // What the kernel left in it is on the members, but would be written again.
    assert_pattern(&array, "a journal with old data");
    let error = array.open().expect("readable").write_all_at(0, &[1]);
    assert_eq!(
        error.expect_err("the journal is not empty").to_string(),
        "md array: writing to an array whose write journal is not empty is not supported"
    );
    let obstacle = |array: &Array| array.obstacle.clone().unwrap_or_default();
    let without = one_array(&members.without(&[3]));
    assert_eq!(obstacle(&without), "an array without its write journal");
    let (_, dirty) = of("raid5-journal-dirty");
    assert_eq!(
        obstacle(&dirty),
        "a write journal that holds data which the members lack"
    );
    assert!(dirty.open().is_err());
    // Without the first block of its journal there is nothing in it.
    let fixture = named("raid5-journal-clean");
    let members = Members::of(&fixture);
    let tail = 64 * 1024 + 472 * 512;
    fill(&members.0[3], tail, 4);
    let array = one_array(&members.without(&[]));
    let device = array.open().expect("an empty journal");
    device.write_all_at(0, &[1]).expect("writable");
}

#[test]
fn an_array_that_was_in_use_is_read_when_it_is_whole() {
    let (members, array) = of("raid1-dirty");
    assert_eq!(codes(&array), ["storage.md.dirty"]);
    assert_pattern(&array, "raid1");
    assert_pattern(&one_array(&members.without(&[0])), "raid1 of one");
    let (members, array) = of("raid5-dirty");
    assert_eq!(codes(&array), ["storage.md.dirty"]);
    assert_pattern(&array, "raid5");
    let degraded = one_array(&members.without(&[0]));
    let error = degraded.open().expect_err("its parity cannot be trusted");
    assert_eq!(
        error.to_string(),
        "md array: an array that lacks members and was in use, so that its parity cannot be \
         trusted, is not supported"
    );
}

#[test]
fn an_array_that_is_being_reshaped_stays_shut() {
    let (_, array) = of("raid5-reshaping");
    let error = array.open().expect_err("half of it is laid out anew");
    assert_eq!(
        error.to_string(),
        "md array: an array that is being reshaped is not supported"
    );
    assert!(codes(&array).contains(&"storage.md.unusable"));
}

#[test]
fn a_write_without_a_member_sets_all_bits_of_the_bitmap() {
    let (members, array) = of("raid1-stale-bitmap");
    // 960 sectors in chunks of 64 KiB: 30 bits, 8 sectors after the superblock.
    let bits = || {
        let mut bytes = [0; 5];
        let place = 4096 + 8 * 512 + 256;
        members.0[0]
            .read_exact_at(place, &mut bytes)
            .expect("memory");
        bytes
    };
    let before = bits();
    let device = array.open().expect("one copy");
    let mut byte = [0];
    device.read_exact_at(0, &mut byte).expect("readable");
    assert_eq!(bits(), before, "reading changes nothing");
    device.write_all_at(0, &byte).expect("writable");
    assert_eq!(bits()[..4], [0xff; 4]);
    assert_pattern(&array, "the content stays");
}

#[test]
fn disks_of_firmware_raids_are_told() {
    for (name, kind) in [
        ("ddf", firmware::FirmwareRaid::Ddf),
        ("imsm", firmware::FirmwareRaid::Intel),
    ] {
        let members = Members::of(&named(name));
        assert_eq!(members.0.len(), 2, "{name}");
        for device in &members.0 {
            assert_eq!(firmware::detect(device).expect("memory"), Some(kind));
        }
        assert_eq!(assemble(&members.without(&[])).arrays.len(), 0);
    }
    let members = Members::of(&named("raid1-1.2"));
    assert_eq!(firmware::detect(&members.0[0]).expect("memory"), None);
}

#[test]
fn members_are_no_filesystems_and_one_disk_seen_twice_is_one_member() {
    for name in ["raid1-0.90", "raid1-1.0"] {
        let (members, _) = of(name);
        // The array begins with a filesystem, and so does each member.
        let xfs = [b"XFSB\0\0\x10\0\0\0\0\0\0\0\0\x64".as_slice(), &[0; 500]].concat();
        members.0[0].write_all_at(0, &xfs).expect("memory");
        let identity = detect(&members.0[0]).expect("memory").expect("known");
        assert_eq!(identity.kind, FilesystemKind::MdMember, "{name}");
    }
    let (members, _) = of("raid1-0.90");
    // A disk whose last partition is the member: both end with the superblock.
    let partition = read_all(&members.0[0]);
    let disk = [vec![0; 1 << 20], partition].concat();
    let mut devices = members.without(&[]);
    devices.insert(0, Arc::new(MemoryDevice::from(disk)));
    let array = one_array(&devices);
    assert_eq!(array.members[0].state, MemberState::Ignored);
    assert_eq!(codes(&array), ["storage.md.duplicate"]);
    assert_pattern(&array, "the partition counts");
}

#[test]
fn an_array_of_read_only_devices_is_read_and_not_written() {
    let members = Members::of(&named("raid5-left-symmetric"));
    let devices: Vec<Arc<dyn WriteAt>> = members
        .0
        .iter()
        .map(|device| {
            Arc::new(ReadOnly::new(Arc::clone(device) as Arc<dyn ReadAt>)) as Arc<dyn WriteAt>
        })
        .collect();
    let array = one_array(&devices);
    assert_pattern(&array, "read only");
    let device = array.open().expect("readable");
    assert!(device.write_all_at(0, &[1]).is_err());
    let extent = device.extent_at(5000).expect("inside");
    assert!(extent.length > 0 && extent.length <= 16384 - 5000);
    assert_same(
        &read_all(&members.0[0]),
        named("raid5-left-symmetric")
            .members()
            .next()
            .expect("four"),
        "unchanged",
    );
}
