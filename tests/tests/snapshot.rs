// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent: a disk becomes an image of a library, in a directory or behind a URL; the next image
//! sends what changed; a killed run is taken up again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::{Program, Running, SampleServer, free_port, scatter_writes, work_dir};

const MIB: u64 = 1 << 20;

#[test]
fn a_snapshot_into_a_directory_gives_the_disk_back() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let work = work_dir();
    let library = work.path().join("library");

    snapshot(&library.to_string_lossy(), &server.disk()).succeeds();

    gives_back(&library, &server.disk(), work.path());
    let stored = stored_bytes(&library);
    assert!(
        stored < 400 * MIB,
        "{} MiB stored of a disk that has 400 in use",
        stored / MIB
    );
}

#[test]
fn a_snapshot_to_a_url_gives_the_disk_back() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let work = work_dir();
    let library = work.path().join("library");
    let (serving, address) = serve(&library);

    snapshot(&address, &server.disk()).succeeds();

    serving.kill();
    gives_back(&library, &server.disk(), work.path());
}

#[test]
fn the_next_snapshot_sends_only_what_changed() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let work = work_dir();
    let library = work.path().join("library");
    let disk = server.copy_disk(work.path());
    let (serving, address) = serve(&library);
    snapshot(&address, &disk).succeeds();
    let first = stored_bytes(&library);
    // The swap partition, so that the filesystem stays sound; 64 blocks in 64 chunks of 64 KiB.
    let swap = 1793 * MIB..2046 * MIB;
    scatter_writes(&disk, swap, 64);

    snapshot(&address, &disk).succeeds();

    serving.kill();
    let grown = stored_bytes(&library) - first;
    assert!(
        grown < 64 * 64 * 1024 * 11 / 10 + MIB,
        "{} KiB for 64 chunks",
        grown / 1024
    );
    gives_back(&library, &disk, work.path());
}

#[test]
fn an_agent_killed_in_mid_run_is_taken_up_again() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let work = work_dir();
    let library = work.path().join("library");
    let (serving, address) = serve(&library);
    let agent = snapshot(&address, &server.disk()).start();
    wait_until(|| stored_bytes(&library) > 40 * MIB);
    agent.kill();
    let before = stored_bytes(&library);

    snapshot(&address, &server.disk()).succeeds();

    serving.kill();
    gives_back(&library, &server.disk(), work.path());
    let whole = work.path().join("whole");
    snapshot(&whole.to_string_lossy(), &server.disk()).succeeds();
    let (resumed, at_once) = (stored_bytes(&library), stored_bytes(&whole));
    // What was stored before the kill is used, but for the pack that was being filled.
    assert!(
        resumed < at_once + at_once / 10 + 2 * 17 * MIB && before > 0,
        "{} MiB in two runs, {} MiB at once",
        resumed / MIB,
        at_once / MIB
    );
}

fn snapshot(library: &str, disk: &Path) -> Program {
    Program::agent()
        .args("snapshot --server x --library")
        .arg(library)
        .arg("--disk")
        .arg(disk)
}

fn serve(library: &Path) -> (Running, String) {
    let port = free_port();
    let running = Program::library()
        .args("serve --library")
        .arg(library)
        .args(&format!("--listen 127.0.0.1:{port}"))
        .start();
    wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (running, format!("http://127.0.0.1:{port}"))
}

fn gives_back(library: &Path, disk: &Path, work: &Path) {
    let exported = work.join("exported");
    Program::relevo(library).args("image verify").succeeds();
    Program::relevo(library)
        .args("image export x -o")
        .arg(&exported)
        .succeeds();
    let copy = only_file(&exported, "raw");
    let same = Command::new("cmp").arg(disk).arg(&copy).output().unwrap();
    assert!(
        same.status.success(),
        "{}",
        String::from_utf8_lossy(&same.stdout)
    );
}

fn only_file(folder: &Path, extension: &str) -> PathBuf {
    let files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    assert_eq!(
        files.len(),
        1,
        "one .{extension} expected in {}",
        folder.display()
    );
    files[0].clone()
}

fn stored_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => stored_bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

fn wait_until(mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it did not happen within a minute"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
