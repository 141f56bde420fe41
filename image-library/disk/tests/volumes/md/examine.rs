// SPDX-License-Identifier: MIT OR Apache-2.0
//! Superblocks as `mdadm --examine` prints them.

use std::fs;
use std::sync::Arc;

use disk::WriteAt;
use disk::block::MemoryDevice;
use disk::volume::md::{MemberState, assemble};

use super::fixture::{all, named};
use super::{Members, assert_pattern, one_array};
use crate::outside::{have, run};

/// What follows `name :` in what mdadm prints.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(" : "));
    fields.find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
}

fn examine(bytes: &[u8], options: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("member"), bytes).expect("room");
    run(
        folder.path(),
        "mdadm",
        &[&["--examine"], options, &["member"]].concat(),
    )
}

#[test]
fn members_are_what_mdadm_prints() {
    if !have(&["mdadm"]) {
        return;
    }
    for fixture in all().iter().filter(|f| !f.fact("level").is_empty()) {
        let array = one_array(&Members::of(fixture).without(&[]));
        for member in &array.members {
            let bytes = fixture.members().nth(member.candidate).expect("a member");
            let text = examine(bytes, &[]);
            let name = fixture.name;
            let uuid = field(&text, "Array UUID").or_else(|| field(&text, "UUID"));
            // Version 0.90 adds who made it.
            let uuid = uuid.and_then(|uuid| uuid.split(' ').next());
            assert_eq!(uuid, Some(&*array.mdadm_uuid()), "{name}");
            let events = field(&text, "Events").expect("events");
            // As two numbers for 0.90.
            let events = events.rsplit('.').next().and_then(|e| e.parse().ok());
            assert_eq!(events, Some(member.events), "{name}");
            assert_eq!(field(&text, "Raid Level"), Some(&*array.level.to_string()));
            let role = field(&text, "Device Role");
            let expected = match (member.role, member.state) {
                (_, MemberState::Stale) => continue,
                (Some(role), MemberState::Rebuilding { .. }) if name == "raid5-replacing" => {
                    format!("Replacement device {role}")
                }
                (Some(role), _) => format!("Active device {role}"),
                (None, MemberState::Journal) => "Journal".to_owned(),
                (None, _) => "spare".to_owned(),
            };
            if let Some(role) = role {
                assert_eq!(role, expected, "{name}");
            }
        }
    }
}

/// The superblock as a machine of the other byte order would have written it.
fn swapped(member: &[u8]) -> Vec<u8> {
    let mut bytes = member.to_vec();
    let start = (bytes.len() & !0xffff) - 0x10000;
    let words = &mut bytes[start..start + 4096];
    for word in words.chunks_exact_mut(4) {
        word.reverse();
    }
    // The halves of both counts of events change places, too.
    for at in [39 * 4, 41 * 4] {
        let (low, high) = words[at..at + 8].split_at_mut(4);
        low.swap_with_slice(high);
    }
    bytes
}

#[test]
fn superblocks_of_a_big_endian_machine_are_read() {
    let fixture = named("raid5-0.90");
    let members: Vec<Vec<u8>> = fixture.members().map(swapped).collect();
    let little = one_array(&Members::of(&fixture).without(&[]));
    let devices: Vec<Arc<dyn WriteAt>> = members
        .iter()
        .map(|bytes| Arc::new(MemoryDevice::from(bytes.clone())) as Arc<dyn WriteAt>)
        .collect();
    let array = one_array(&devices);
    assert_eq!(array.uuid, little.uuid);
    assert_eq!(array.members, little.members);
    assert_pattern(&array, "big-endian");
    if have(&["mdadm"]) {
        let text = examine(&members[0], &["--metadata=0.swap"]);
        let checksum = field(&text, "Checksum").expect("a checksum");
        assert!(checksum.ends_with("correct"), "{checksum}");
        let uuid = field(&text, "UUID").and_then(|uuid| uuid.split(' ').next());
        assert_eq!(uuid, Some(&*array.mdadm_uuid()));
    }
    assert_eq!(assemble(&[]).arrays.len(), 0);
}
