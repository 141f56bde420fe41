// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instant recovery with a real server: it boots from the library, which goes away and comes back; its
//! command is killed; its disks move to this computer; and in the end the library is not needed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::{
    Library, Outcome, Running, SampleServer, free_port, have_tool, one_machine_at_a_time, work_dir,
};

/// How long a server may take until its page is there; processors are emulated here.
const PATIENCE: Duration = Duration::from_secs(8 * 60);

/// What a guest answers on a forwarded port; `None` while it does not.
fn page(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .ok()?;
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: guest\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.").then_some(text)
}

fn wait_for_page(port: u16, what: &str) {
    wait_for(what, || page(port).is_some_and(|page| page.contains(what)));
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(500));
    }
}

fn interrupt(running: Running) -> Outcome {
    let id = running.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status();
    assert!(sent.is_ok_and(|status| status.success()));
    running.wait()
}

/// The only file of that name below a directory.
fn find(below: &Path, name: &str) -> Option<String> {
    let output = Command::new("find")
        .arg(below)
        .args(["-name", name])
        .output()
        .expect("find runs");
    let path = String::from_utf8(output.stdout).expect("UTF-8");
    fs::read_to_string(path.trim()).ok()
}

/// What the keeper of the one machine says.
fn status(work: &Path) -> serde_json::Value {
    let text = find(&work.join("state/runs"), "status.json").unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Nothing runs on when a test fails.
struct CleanUp<'a>(&'a Library);

impl Drop for CleanUp<'_> {
    fn drop(&mut self) {
        // What it says is of no use any more.
        let _ = self.0.relevo().args("cleanup --all").run();
    }
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
    let booting = library
        .relevo_with(&url)
        .args("boot web --memory 512MiB --cpus 2 --profile sata --rate 24MiB --forward")
        .arg(format!("{port}:80"))
        .arg("--to")
        .arg(&disks)
        .start();
    wait_for("the first reads", || {
        status(work)["reads"]["request_count"].as_u64() > Some(20)
    });

    // The library dies in the middle of the boot.
    serving.kill();
    wait_for("the stop of the machine", || {
        status(work)["is_stopped"] == true
    });
    let (serving, _) = library.serve_on(library_port);
    wait_for("its going on", || status(work)["is_stopped"] == false);
    wait_for_page(port, &server.page);

    // So does the command: the machine goes on, and the next command takes it over.
    booting.kill();
    wait_for_page(port, &server.page);
    let attached = library.relevo_with(&url).args("attach").start();
    wait_for("its being taken over", || {
        attached.stderr_so_far().contains("Took over")
    });
    wait_for("the disks", || {
        status(work)["moving"]["is_complete"] == true
    });
    assert!(disks.join("moved.json").exists());

    // Now the library may burn.
    serving.kill();
    fs::rename(library.folder(), work.join("gone")).unwrap();
    wait_for_page(port, &server.page);
    let ended = interrupt(attached);
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.contains("is not needed any more"), "{ended}");
    assert!(
        !disks.join("overlay0.qcow2").exists(),
        "the overlay is still there"
    );

    let again = library
        .relevo_with(work.join("nowhere"))
        .args("boot --memory 512MiB --cpus 2 --profile sata --forward")
        .arg(format!("{port}:80"))
        .arg("--from")
        .arg(&disks)
        .start();
    wait_for_page(port, &server.page);
    let ended = interrupt(again);
    assert_eq!(ended.code, Some(0), "{ended}");
    let left = fs::read_dir(work.join("state/runs")).unwrap().count();
    assert_eq!(left, 0, "something of the runs is left");
}
