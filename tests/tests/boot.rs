// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instant recovery with a real server: it boots from the library, which goes away and comes back; its
//! command is killed; its disks move to this computer; and in the end the library is not needed.

use std::fs;
use std::path::Path;

use e2e::{
    CleanUp, Library, SampleServer, files_called, free_port, have_tool, one_machine_at_a_time,
    shows_page, wait_for_guest, work_dir,
};

/// What the keeper of the one machine says.
fn status(work: &Path) -> serde_json::Value {
    let places = files_called(&work.join("state/runs"), "status.json");
    let text = places.first().and_then(|path| fs::read(path).ok());
    serde_json::from_slice(&text.unwrap_or_default()).unwrap_or_default()
}

#[test]
fn a_server_boots_from_a_library_that_goes_away_and_needs_it_no_more_in_the_end() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    if !have_tool("qemu-system-x86_64") {
        return;
    }
    let _slot = one_machine_at_a_time();
    let work = work_dir();
    let work = work.path();
    let library = Library::create(work);
    let _clean_up = CleanUp(&library);
    library.import("web", &server.disk());
    let (serving, url) = library.serve();
    let library_port = url.rsplit(':').next().unwrap().parse().unwrap();
    let disks = work.join("disks");
    let port = free_port();

    // SATA: a guest's driver gives up after 30 s, so the machine has to be stopped meanwhile. Moved
    // slowly, so that its command is killed while the disks are on their way.
    let mut booting = library
        .relevo_with(&url)
        .args("boot web --memory 512MiB --cpus 2 --profile sata --rate 24MiB --forward")
        .arg(format!("{port}:80"))
        .arg("--to")
        .arg(&disks)
        .start();
    booting.brings("the first reads", |_| {
        status(work)["reads"]["request_count"].as_u64() > Some(20)
    });

    // The library dies in the middle of the boot.
    serving.kill();
    booting.brings("the stop of the machine", |_| {
        status(work)["is_stopped"] == true
    });
    let (serving, _) = library.serve_on(library_port);
    booting.brings("its going on", |_| status(work)["is_stopped"] == false);
    booting.brings("its page", |_| shows_page(port, &server.page));

    // So does the command: the machine goes on, and the next command takes it over.
    booting.kill();
    wait_for_guest("its page, without a command", || {
        shows_page(port, &server.page)
    });
    let mut attached = library.relevo_with(&url).args("attach").start();
    attached.brings("its being taken over", |attached| {
        attached.stderr_so_far().contains("Took over")
    });
    attached.brings("its disks", |_| {
        status(work)["moving"]["is_complete"] == true
    });
    assert!(disks.join("moved.json").exists());

    // Now the library may burn.
    serving.kill();
    fs::rename(library.folder(), work.join("gone")).unwrap();
    attached.brings("its page without a library", |_| {
        shows_page(port, &server.page)
    });
    let ended = attached.interrupt();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.contains("is not needed any more"), "{ended}");
    assert!(
        !disks.join("overlay0.qcow2").exists(),
        "the overlay is still there"
    );

    let mut again = library
        .relevo_with(work.join("nowhere"))
        .args("boot --memory 512MiB --cpus 2 --profile sata --forward")
        .arg(format!("{port}:80"))
        .arg("--from")
        .arg(&disks)
        .start();
    again.brings("its page again", |_| shows_page(port, &server.page));
    let ended = again.interrupt();
    assert_eq!(ended.code, Some(0), "{ended}");
    let left = fs::read_dir(work.join("state/runs")).unwrap().count();
    assert_eq!(left, 0, "something of the runs is left");
}
