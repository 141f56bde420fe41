// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images are prepared as they come in: once, told at once when they cannot be, and shown afterwards.

use std::time::Duration;

use e2e::{Library, Outcome, PhonyServer, free_port, have_tool, wait_until, work_dir};
use serde_json::Value;

/// The values of each line.
fn lines(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn a_server_that_cannot_be_converted_is_told_at_once_and_shown_afterwards() {
    let work = work_dir();
    let Some(library) = Library::with_server(work.path(), PhonyServer::without_kernel) else {
        return;
    };
    let before = library.relevo().args("status").succeeds();
    assert!(before.stdout.contains("not prepared yet"), "{before}");

    let first = library.relevo().args("serve --once").run();

    assert_eq!(first.code, Some(1), "{first}");
    for word in ["prepare.not-ready", "web01@", "kernel.none", "remedy:"] {
        assert!(first.stdout.contains(word), "{word}: {first}");
    }
    // It stands, so the next round of another process says it again, and does nothing.
    let second = library.relevo().args("serve --once --json").run();
    assert_eq!(second.code, Some(1), "{second}");
    let [news] = &lines(&second)[..] else {
        panic!("one line: {second}");
    };
    assert_eq!(news["event"], "known");
    assert_eq!(news["server"], "web01");
    assert_eq!(news["problem"]["code"], "prepare.not-ready");

    let status = library.relevo().args("status").run();
    assert_eq!(status.code, Some(1), "{status}");
    assert!(status.stdout.contains("cannot be converted"), "{status}");
    let status = library.relevo().args("status --json").run();
    assert_eq!(status.code, Some(1), "{status}");
    let server = &status.json()[0];
    assert_eq!(server["prepared"], "yes");
    assert_eq!(server["verdict"], "not-convertible");
    assert_eq!(server["problem"]["code"], "prepare.not-ready");
    assert!(server["age_seconds"].is_u64(), "{status}");
}

#[test]
fn a_server_that_can_be_converted_is_prepared_once_and_the_image_stays_whole() {
    let work = work_dir();
    let Some(library) = Library::with_server(work.path(), PhonyServer::with_drivers_built_in)
    else {
        return;
    };

    let first = library.relevo().args("serve --once").succeeds();

    assert!(first.stdout.contains("ready with"), "{first}");
    let second = library.relevo().args("serve --once").succeeds();
    assert_eq!(second.stdout, "");
    let convert = library.relevo().args("convert web01").succeeds();
    assert!(convert.stdout.contains("was kept"), "{convert}");
    let status = library.relevo().args("status --json").succeeds();
    let server = &status.json()[0];
    assert_eq!(server["verdict"], "ready-with-changes");
    let blocks = server["reads"]["block_count"].as_u64().unwrap();
    assert!((1..200).contains(&blocks), "{status}");
    library.relevo().args("image verify").succeeds();
}

#[test]
fn one_round_does_not_wait_for_a_library_that_is_away() {
    let address = format!("https://127.0.0.1:{}", free_port());
    let work = work_dir();
    let library = Library::create(work.path());

    library
        .relevo_with(&address)
        .args("serve --once")
        .run()
        .is_one_clear_error(2, &[&address]);
    library
        .relevo_with(work.path().join("nowhere"))
        .args("serve")
        .run()
        .is_one_clear_error(2, &["nowhere"]);
}

#[test]
fn the_service_waits_for_its_library_prepares_what_comes_in_and_ends_when_it_is_asked() {
    if !have_tool("mke2fs") {
        return;
    }
    let work = work_dir();
    let library = Library::create(work.path());
    let disk = PhonyServer::with_drivers_built_in(work.path()).on_disk(work.path());
    let port = free_port();
    let address = format!("https://127.0.0.1:{port}");
    let service = library
        .relevo_with(&address)
        .args("serve --interval 1s --json")
        .start();
    std::thread::sleep(Duration::from_secs(3));
    let (server, _) = library.serve_on(port);

    library.import("web01", &disk);
    wait_until("the image is prepared", || {
        let status = library.relevo().args("status --json").run();
        status.json()[0]["verdict"] == "ready-with-changes"
    });
    let ended = service.interrupt();

    server.kill();
    assert!(ended.usage.wall < Duration::from_secs(30), "{ended}");
    assert_eq!(ended.code, Some(0), "{ended}");
    let lines = lines(&ended);
    let events: Vec<&str> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["library-away", "library-back", "prepared"]);
}
