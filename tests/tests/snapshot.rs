// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent: a disk becomes an image of a library, in a directory or behind a URL; the next image
//! sends what changed; a killed run is taken up again.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{
    Library, LoopDevice, SampleServer, have_tool, raw_ext4, scatter_writes, wait_until, work_dir,
};

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

/// A 64 MiB filesystem with some files, as a disk without a partition table.
fn small_disk(work: &Path) -> Option<PathBuf> {
    if !have_tool("mke2fs") || !have_tool("dumpe2fs") {
        return None;
    }
    let tree = work.join("files");
    fs::create_dir(&tree).expect("the work directory is ours");
    for number in 0_u8..40 {
        let content = vec![number; 100 * KIB as usize];
        fs::write(tree.join(format!("file{number}")), content).expect("the work directory is ours");
    }
    Some(raw_ext4(work, "small.raw", 64, &tree))
}

#[test]
fn a_block_device_that_nobody_uses_is_imaged_cold_and_given_back() {
    let work = work_dir();
    let Some(disk) = small_disk(work.path()) else {
        return;
    };
    let Some(device) = LoopDevice::attach(&disk) else {
        return;
    };
    let library = Library::create(work.path());
    let place = library.folder().to_string_lossy().into_owned();

    let first = library.snapshot(&place, device.node()).arg("--json");
    let first = first.succeeds().json();
    let second = library.snapshot(&place, device.node()).arg("--json");
    let second = second.succeeds().json();

    assert_eq!(first["consistency"], "cold", "{first}");
    assert_eq!(first["disks"][0]["name"], device.name(), "{first}");
    assert_eq!(
        second["disks"][0]["sent_bytes"], 0,
        "nothing changed, so nothing is sent: {second}"
    );
    library.gives_back_what_is_used("x", &disk, 0, work.path());
}

#[test]
fn a_mounted_block_device_is_refused_unless_its_image_may_be_fuzzy() {
    let work = work_dir();
    let Some(disk) = small_disk(work.path()) else {
        return;
    };
    let Some(device) = LoopDevice::attach(&disk) else {
        return;
    };
    let directory = work.path().join("mounted");
    fs::create_dir(&directory).unwrap();
    let Some(mounted) = device.mount(&directory) else {
        return;
    };
    let library = Library::create(work.path());
    let place = library.folder().to_string_lossy().into_owned();

    let refused = library.snapshot(&place, device.node()).run();
    let words = [&*device.name(), "mounted at", &*directory.to_string_lossy()];
    refused.is_one_clear_error(2, &words);
    let images = library.relevo().args("image list --json").succeeds();
    assert_eq!(images.json().as_array().map(Vec::len), Some(0), "{images}");

    let accepted = library
        .snapshot(&place, device.node())
        .args("--crash-consistent --json")
        .succeeds();
    assert_eq!(accepted.json()["consistency"], "fuzzy", "{accepted}");
    let images = library.relevo().args("image list --json").succeeds();
    assert_eq!(images.json()[0]["consistency"], "fuzzy", "{images}");
    library.relevo().args("image verify").succeeds();
    drop(mounted);
}
