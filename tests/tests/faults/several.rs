// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several machines of one image, and several disks of one machine.

use std::fs;

use e2e::bytes_below;
use serde_json::json;

use crate::guest::{DATA_BYTES, Habits, MIB};
use crate::site::Site;

#[test]
fn machines_of_one_image_write_each_for_itself_and_share_what_was_fetched() {
    let Some(site) = Site::new(Habits::default()) else {
        return;
    };
    let (_serving, url) = site.library.serve();
    let boot = || site.library.relevo_with(&url).args("boot web");
    let first = site.start_early(boot());
    let second = site.start_early(boot());
    for machine in [&first, &second] {
        machine.waits_for("a whole turn", |machine| machine.count('.') > 40);
        machine.goes_on();
    }
    assert_ne!(first.guest(), second.guest());

    let third = site.start(boot());
    third.waits_for("a whole turn from the cache", |machine| {
        machine.status()["cache"]["disk_hit_count"].as_u64() > Some(20)
    });
    let cache = third.status()["cache"].clone();
    assert_eq!(cache["fetched_bytes"], 0, "{cache}");
    for machine in [first, second, third] {
        machine.goes_on();
        assert_eq!(machine.end().code, Some(0));
    }
}

#[test]
fn all_disks_of_a_server_change_over_at_once_and_need_no_library_then() {
    let Some(site) = Site::new(Habits {
        disks: 2,
        ..Habits::default()
    }) else {
        return;
    };
    let disks = site.path("disks");
    let relevo = site.library.relevo().args("boot web --to").arg(&disks);
    let machine = site.start(relevo);
    machine.waits_for("the disks", |machine| {
        machine.status()["moving"]["is_complete"] == true
    });
    let moved = fs::read(disks.join("moved.json")).unwrap();
    let moved: serde_json::Value = serde_json::from_slice(&moved).unwrap();
    assert_eq!(moved, json!({"disks": [true, true]}));

    fs::rename(site.library.folder(), site.path("gone")).unwrap();
    machine.goes_on();
    assert_eq!(machine.end().code, Some(0));
    let again = site.library.relevo_with(site.path("nowhere"));
    let again = site.start(again.args("boot --from").arg(&disks));
    again.goes_on();
    assert_eq!(again.end().code, Some(0));
}

#[test]
fn a_disk_that_cannot_be_moved_leaves_all_where_they_are() {
    let Some(site) = Site::new(Habits {
        disks: 2,
        ..Habits::default()
    }) else {
        return;
    };
    let disks = site.path("disks");
    let relevo = site.library.relevo().args("boot web --to").arg(&disks);
    let machine = site.start(relevo);
    fs::remove_file(disks.join("disk1.qcow2")).unwrap();
    let problem = |machine: &crate::site::Machine| machine.status()["moving"]["problem"].clone();
    machine.waits_for("the problem", |machine| problem(machine).is_string());
    let said = problem(&machine);
    assert!(said.to_string().contains("disk1.qcow2"), "{said}");

    machine.goes_on();
    assert!(!disks.join("moved.json").exists());
    let ended = machine.end();
    assert!(ended.stderr.contains("are not moved"), "{ended}");
    let again = site.library.relevo().args("boot --from").arg(&disks);
    let again = site.start(again);
    again.waits_for("the disks", |machine| {
        machine.status()["moving"]["is_complete"] == true
    });
    again.goes_on();
    assert_eq!(again.end().code, Some(0));
}

#[test]
fn a_damaged_chunk_of_one_disk_is_an_error_there_only_and_no_disk_is_moved() {
    let Some(site) = Site::new(Habits {
        disks: 2,
        reads: 632,
        ..Habits::default()
    }) else {
        return;
    };
    site.damage();
    let disks = site.path("disks");
    let relevo = site.library.relevo().args("boot web --to").arg(&disks);
    let machine = site.start(relevo);

    machine.waits_for("the damage", |machine| machine.count('E') > 0);
    machine.waits_for("the problem", |machine| {
        machine.status()["moving"]["problem"].is_string()
    });
    let turns = machine.count('.') / 632;
    machine.waits_for("another turn", |machine| {
        machine.count('.') / 632 > turns + 1
    });
    // A chunk is two blocks of the guest's.
    let (errors, reads) = (machine.count('E'), machine.count('.'));
    assert!(errors <= 2 * (reads / 632 + 1), "{errors} beside {reads}");
    assert_eq!(machine.count('W') + machine.count('X'), 0);

    let status = machine.status();
    let findings = status["findings"].as_array().unwrap();
    let damage = findings
        .iter()
        .find(|finding| finding["code"] == "boot.chunk.damaged");
    let damage = damage.unwrap().to_string();
    for word in ["image ", "disk 1", "byte 0x", "pack ", "chunk"] {
        assert!(damage.contains(word), "{word}: {damage}");
    }
    assert!(!disks.join("moved.json").exists());
    let copies = ["disk0.qcow2", "disk1.qcow2"].map(|name| disks.join(name));
    assert!(copies.iter().all(|copy| !copy.exists()), "copies are left");
    assert!(bytes_below(&disks) < DATA_BYTES / MIB * MIB);
    let ended = machine.end();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(ended.stderr.contains("are not moved"), "{ended}");
}
