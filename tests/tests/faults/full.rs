// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks of this computer that are full.

use e2e::{bytes_below, wait_until};

use crate::guest::Habits;
use crate::site::{Site, is_alive};
use crate::small_disk::SmallDisk;

#[test]
fn a_machine_boots_and_reads_on_when_there_is_no_room_for_chunks() {
    let Some(site) = Site::new(Habits::default()) else {
        return;
    };
    let cache = site.path("cache");
    let Some(small) = SmallDisk::at(&cache, "256k") else {
        return;
    };
    site.configure(&format!(
        "[cache]\ndirectory = {cache:?}\nmemory = \"1MiB\"\n"
    ));
    let (_serving, url) = site.library.serve();

    let relevo = site.library.relevo_with(&url).args("boot web");
    let machine = site.start(small.within(relevo));

    machine.goes_on();
    let told = |status: &serde_json::Value| status.to_string().contains("cache.not-written");
    machine.waits_for("the finding", |machine| told(&machine.status()));
    let kept = bytes_below(&small.path());
    assert!((1..=256 << 10).contains(&kept), "{kept} bytes are kept");
    let ended = machine.end();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(
        ended.stderr.contains("the cache cannot be written"),
        "{ended}"
    );
}

#[test]
fn a_machine_without_room_for_its_disks_stands_still_until_there_is_some() {
    let Some(site) = Site::new(Habits {
        writes: 160,
        ..Habits::default()
    }) else {
        return;
    };
    let disks = site.path("disks");
    let Some(small) = SmallDisk::at(&disks, "4m") else {
        return;
    };
    let relevo = site.library.relevo().args("boot web --to").arg(&disks);
    let machine = site.start(small.within(relevo));

    machine.waits_for("the stop", |machine| machine.status()["is_stopped"] == true);
    let status = machine.status();
    assert!(status.to_string().contains("boot.disk.full"), "{status}");
    machine.is_unharmed();
    let moving = &status["moving"];
    assert_eq!(moving["is_complete"], false, "{moving}");

    small.resize("200m");
    machine.goes_on();
    machine.waits_for("the disks", |machine| {
        machine.status()["moving"]["is_complete"] == true
    });
    // Everything that was written has been looked at again.
    let before = machine.count('.');
    machine.waits_for("a turn", |machine| machine.count('.') > before + 8 * 160);
    machine.goes_on();
    assert_eq!(machine.status()["is_stopped"], false);
    let ended = machine.end();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.contains("no room"), "{ended}");
}

#[test]
fn a_keeper_that_cannot_write_its_status_serves_on() {
    let Some(mut site) = Site::new(Habits {
        writes: 100,
        ..Habits::default()
    }) else {
        return;
    };
    let Some(small) = SmallDisk::at(&site.path("state"), "8m") else {
        return;
    };
    site.state = small.path();
    let machine = site.start(small.within(site.library.relevo().args("boot web")));
    small.fill();
    let keeper = machine.process("keeper-started").unwrap();
    let standing = || {
        let before = (machine.count('.'), machine.status());
        std::thread::sleep(std::time::Duration::from_secs(3));
        before == (machine.count('.'), machine.status())
    };
    wait_until("it stands still", standing);
    assert!(is_alive(keeper), "the keeper has ended");

    small.empty();
    machine.goes_on();
    let before = machine.count('.');
    machine.waits_for("a turn", |machine| machine.count('.') > before + 8 * 100);
    machine.goes_on();
    assert!(is_alive(keeper), "the keeper has ended");
    assert_eq!(machine.end().code, Some(0));
}
