// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands and keepers that are killed, at the worst moments.

use std::fs;
use std::path::Path;

use e2e::{Program, wait_until};

use crate::guest::Habits;
use crate::site::{Machine, Site, is_alive};

/// Slow enough that a kill comes in the middle.
const SLOWLY: &str = "--rate 2MiB";

fn boot_to(site: &Site, disks: &Path) -> Program {
    let relevo = site.library.relevo().args("boot web").args(SLOWLY);
    relevo.arg("--to").arg(disks)
}

fn waits_for_copy(machine: &Machine) {
    machine.waits_for("the copy", |machine| {
        machine.status()["moving"]["done_bytes"].as_u64() > Some(0)
    });
}

fn waits_for_disks(machine: &Machine) {
    machine.waits_for("the disks", |machine| {
        machine.status()["moving"]["is_complete"] == true
    });
}

#[test]
fn a_keeper_that_is_killed_is_started_anew_by_its_command_or_by_attach() {
    let Some(site) = Site::new(Habits::default()) else {
        return;
    };
    let disks = site.path("disks");
    let mut machine = site.start(boot_to(&site, &disks));
    machine.goes_on();

    machine.kill_keeper();
    machine.goes_on();
    waits_for_copy(&machine);
    machine.kill_command();
    machine.kill_keeper();
    site.attach(site.library.relevo(), &mut machine);

    machine.goes_on();
    waits_for_disks(&machine);
    fs::rename(site.library.folder(), site.path("gone")).unwrap();
    machine.goes_on();
    let ended = machine.end();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(site.runs(), [""; 0]);
}

#[test]
fn a_directory_whose_machine_goes_on_without_its_command_is_not_started_again() {
    let Some(site) = Site::new(Habits::default()) else {
        return;
    };
    let disks = site.path("disks");
    let mut machine = site.start(boot_to(&site, &disks));
    waits_for_copy(&machine);
    machine.kill_command();

    let from = || site.library.relevo().args("boot --from").arg(&disks);
    from()
        .run()
        .is_one_clear_error(2, &["disks", "relevo attach", "relevo cleanup"]);

    site.attach(site.library.relevo(), &mut machine);
    waits_for_disks(&machine);
    machine.goes_on();
    assert_eq!(machine.end().code, Some(0));
    let again = site.start(from());
    again.goes_on();
    assert_eq!(again.end().code, Some(0));
}

#[test]
fn a_copy_that_ends_with_everything_killed_begins_anew_and_has_what_the_guest_wrote() {
    let Some(site) = Site::new(Habits::default()) else {
        return;
    };
    let disks = site.path("disks");
    let mut machine = site.start(boot_to(&site, &disks));
    waits_for_copy(&machine);
    let processes = ["machine-started", "keeper-started"].map(|event| machine.process(event));
    let guest = machine.guest();
    machine.kill_command();

    let cleaned = site.library.relevo().args("cleanup").succeeds();
    assert!(cleaned.stdout.contains("cleaned up boot-"), "{cleaned}");
    for process in processes {
        wait_until("its processes have ended", || !is_alive(process.unwrap()));
    }
    assert_eq!(site.runs(), [""; 0]);
    assert_eq!(site.writer(&disks.join("overlay0.qcow2")), guest);

    let again = site.library.relevo().args("boot --from").arg(&disks);
    let again = site.start(again);
    waits_for_disks(&again);
    again.goes_on();
    assert_eq!(again.end().code, Some(0));
}

#[test]
fn a_machine_that_was_stopped_for_its_library_goes_on_after_its_keeper_was_killed() {
    let Some(site) = Site::new(Habits {
        reads: 632,
        ..Habits::default()
    }) else {
        return;
    };
    let (serving, url) = site.library.serve();
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let relevo = || site.library.relevo_with(&url);
    let mut machine = site.start(relevo().args("boot web --profile sata"));
    serving.kill();
    machine.waits_for("the stop", |machine| machine.status()["is_stopped"] == true);

    machine.kill_command();
    machine.kill_keeper();
    let _serving = site.library.serve_on(port);
    site.attach(relevo(), &mut machine);

    machine.goes_on();
    let ended = machine.end();
    assert_eq!(ended.code, Some(0), "{ended}");
}
