// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent: a disk becomes an image of a library, in a directory or behind a URL; the next image
//! sends what changed; a killed run is taken up again.

use e2e::{Library, SampleServer, scatter_writes, wait_until, work_dir};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn a_snapshot_into_a_directory_gives_the_disk_back() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let work = work_dir();
    let library = Library::create(work.path());

    library
        .snapshot(&library.folder().to_string_lossy(), &server.disk())
        .succeeds();

    library.gives_back_what_is_used("x", &server.disk(), MIB, work.path());
    let stored = library.stored_bytes();
    assert!(
        stored < 400 * MIB,
        "{} MiB stored of a disk that uses 400",
        stored / MIB
    );
}

#[test]
fn a_snapshot_to_a_url_gives_the_disk_back() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let work = work_dir();
    let library = Library::create(work.path());
    let (serving, address) = library.serve();

    library.snapshot(&address, &server.disk()).succeeds();

    serving.kill();
    library.gives_back_what_is_used("x", &server.disk(), MIB, work.path());
}

#[test]
fn the_next_snapshot_sends_only_what_changed() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let work = work_dir();
    let library = Library::create(work.path());
    let disk = server.copy_disk(work.path());
    let (serving, address) = library.serve();
    library.snapshot(&address, &disk).succeeds();
    let first = library.stored_bytes();
    // Writes with content that does not compress, in the middle of the root filesystem's inodes and
    // data: 1 % of what the server uses, each in a chunk of its own as far as there are chunks.
    let changed_chunks = 64;
    scatter_writes(&disk, 600 * MIB..1000 * MIB, changed_chunks);

    library.snapshot(&address, &disk).succeeds();

    serving.kill();
    let grown = library.stored_bytes() - first;
    let limit = changed_chunks * 64 * KIB * 11 / 10 + MIB;
    assert!(
        grown < limit,
        "{} KiB stored for {changed_chunks} chunks",
        grown / KIB
    );
}

#[test]
fn an_agent_killed_in_mid_run_is_taken_up_again() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let work = work_dir();
    let library = Library::create(work.path());
    let (serving, address) = library.serve();
    let agent = library.snapshot(&address, &server.disk()).start();
    wait_until("40 MiB are stored", || library.stored_bytes() > 40 * MIB);
    agent.kill();

    library.snapshot(&address, &server.disk()).succeeds();

    serving.kill();
    library.gives_back_what_is_used("x", &server.disk(), MIB, work.path());
    let whole = Library::create_named(work.path(), "whole");
    whole
        .snapshot(&whole.folder().to_string_lossy(), &server.disk())
        .succeeds();
    let (resumed, at_once) = (library.stored_bytes(), whole.stored_bytes());
    // What was stored before the kill is used again, but for a pack that was being filled.
    assert!(
        resumed < at_once + at_once / 20 + 32 * MIB,
        "{} MiB in two runs, {} MiB at once",
        resumed / MIB,
        at_once / MIB
    );
}
