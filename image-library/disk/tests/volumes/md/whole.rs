// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arrays of every level and layout: read whole, read without members, written.

use disk::WriteAt;
use disk::volume::md::{Array, Level, MemberState};

use super::fixture::{Fixture, all, content};
use super::{Members, assert_pattern, assert_same, one_array, read_all};
use crate::next;

fn plain() -> Vec<Fixture> {
    all().into_iter().filter(Fixture::is_plain).collect()
}

/// How many members may be missing, whichever they are.
fn spare_members(fixture: &Fixture) -> usize {
    match fixture.fact("level") {
        "raid1" => fixture.number("disks") as usize - 1,
        "raid4" | "raid5" => 1,
        "raid6" => 2,
        "raid10" => {
            let layout = fixture.number("layout") as usize;
            (layout & 0xff) * (layout >> 8 & 0xff) - 1
        }
        _ => 0,
    }
}

fn positions(array: &Array) -> Vec<usize> {
    let members = array.members.iter();
    members
        .filter(|member| member.role.is_some())
        .map(|member| member.candidate)
        .collect()
}

#[test]
fn arrays_are_what_the_kernel_says_and_read_as_it_wrote_them() {
    for fixture in plain() {
        let name = fixture.name;
        let array = one_array(&Members::of(&fixture).without(&[]));
        assert_eq!(array.level.to_string(), fixture.fact("level"), "{name}");
        let layout = array.layout.map_or(-1, i64::from);
        assert_eq!(layout, fixture.number("layout"), "{name}");
        assert_eq!(array.chunk_bytes as i64, fixture.number("chunk"), "{name}");
        assert_eq!(i64::from(array.disks), fixture.number("disks"), "{name}");
        assert_eq!(
            array.metadata.to_string(),
            fixture.fact("metadata"),
            "{name}"
        );
        assert_eq!(
            array.size_bytes.map(u64::cast_signed),
            Some(fixture.number("bytes")),
            "{name}"
        );
        assert!(!array.is_degraded(), "{name}");
        assert_eq!(array.findings, [], "{name}");
        match fixture.fact("metadata") {
            "0.90" => assert_eq!((array.name.clone(), array.preferred_minor), (None, Some(0))),
            // mdadm leaves out the host where both do not fit into 32 bytes.
            _ if name.len() >= 24 => assert_eq!(array.name.as_deref(), Some(name)),
            _ => assert_eq!(array.name, Some(format!("fixture:{name}"))),
        }
        assert_pattern(&array, name);
    }
}

#[test]
fn arrays_are_read_without_any_one_and_any_two_members() {
    for fixture in plain() {
        let members = Members::of(&fixture);
        let all = positions(&one_array(&members.without(&[])));
        for first in &all {
            for second in all.iter().filter(|second| *second >= first) {
                let left_out = [*first, *second];
                if left_out.len() >= all.len() && first != second {
                    continue;
                }
                let array = one_array(&members.without(&left_out));
                let what = format!("{} without {left_out:?}", fixture.name);
                let lacks = if first == second { 1 } else { 2 };
                assert!(array.is_degraded(), "{what}");
                if lacks <= spare_members(&fixture) {
                    assert_pattern(&array, &what);
                } else if array.obstacle.is_some() {
                    array.open().expect_err("members are missing");
                    let codes: Vec<&str> = array.findings.iter().map(|f| &*f.code).collect();
                    assert!(codes.contains(&"storage.md.unusable"), "{what}: {codes:?}");
                } else {
                    // The members that are missing do not hold the same chunks.
                    assert_eq!(array.level, Level::Raid10, "{what}");
                    assert_pattern(&array, &what);
                }
            }
        }
    }
}

/// Writes here and there, of few and of many bytes; gives what the array holds then.
fn scribble(device: &dyn WriteAt, seed: u64) -> Vec<u8> {
    let mut model = content(device.length_bytes() as usize);
    let mut state = seed | 1;
    for round in 0..24 {
        let most = [3, 600, 20_000, 150_000][round % 4];
        let length = 1 + next(&mut state) as usize % most;
        let start = next(&mut state) as usize % (model.len() - length);
        let bytes: Vec<u8> = (0..length).map(|_| next(&mut state) as u8).collect();
        device.write_all_at(start as u64, &bytes).expect("writable");
        model[start..start + length].copy_from_slice(&bytes);
    }
    let end = model.len() as u64;
    assert!(device.write_all_at(end - 1, &[0; 2]).is_err());
    device.flush().expect("memory");
    assert_same(&read_all(device), &model, "what was just written");
    model
}

#[test]
fn what_is_written_is_on_every_copy_and_in_the_parity() {
    for (seed, fixture) in plain().into_iter().enumerate() {
        let members = Members::of(&fixture);
        let array = one_array(&members.without(&[]));
        let model = scribble(&*array.open().expect("it is whole"), seed as u64);
        for left_out in positions(&array) {
            let array = one_array(&members.without(&[left_out]));
            if spare_members(&fixture) > 0 {
                let bytes = read_all(&*array.open().expect("one may be missing"));
                let what = format!("{} written, then without {left_out}", fixture.name);
                assert_same(&bytes, &model, &what);
            }
        }
        let whole = one_array(&members.without(&[])).open().expect("whole");
        assert_same(&read_all(&*whole), &model, fixture.name);
    }
}

#[test]
fn what_is_written_without_a_member_is_read_without_it_and_another_one() {
    for (seed, fixture) in plain().into_iter().enumerate() {
        let spare = spare_members(&fixture);
        if spare == 0 {
            continue;
        }
        let all = positions(&one_array(&Members::of(&fixture).without(&[])));
        for left_out in &all {
            let members = Members::of(&fixture);
            let array = one_array(&members.without(&[*left_out]));
            let model = scribble(&*array.open().expect("one may be missing"), seed as u64);
            let next = all
                .iter()
                .position(|member| member == left_out)
                .expect("one of them")
                + 1;
            for also in [left_out, &all[next % all.len()]] {
                if also != left_out && spare < 2 {
                    continue;
                }
                let array = one_array(&members.without(&[*left_out, *also]));
                let bytes = read_all(&*array.open().expect("so many may be missing"));
                let what = format!("{} without {left_out} and {also}", fixture.name);
                assert_same(&bytes, &model, &what);
            }
        }
    }
}

#[test]
fn a_spare_is_told_and_not_used() {
    let fixture = super::fixture::named("raid1-spare");
    let array = one_array(&Members::of(&fixture).without(&[]));
    let states: Vec<MemberState> = array.members.iter().map(|m| m.state).collect();
    assert_eq!(
        states,
        [MemberState::InSync, MemberState::InSync, MemberState::Spare]
    );
    assert_eq!(array.members[2].role, None);
}
