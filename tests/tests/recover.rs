// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole way, with real servers: a disk is imported, converted, and passes a drill.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{
    Library, Runbook, SampleServer, files_ending, have_tool, one_machine_at_a_time, skip,
    the_only_disk, work_dir,
};
use rstest::rstest;

#[rstest]
fn a_server_passes_its_drill(
    #[values(
        "sample",
        "trixie-gpt",
        "bookworm-mbr",
        "bookworm-gpt",
        "bullseye-mbr",
        "bullseye-gpt",
        "installer-gpt",
        "installer-mbr"
    )]
    name: &str,
) {
    let Some(server) = SampleServer::find(name) else {
        return;
    };
    if !have_tool("qemu-system-x86_64") {
        return;
    }
    let _slot = one_machine_at_a_time();
    let work = work_dir();
    let library = Library::create(work.path());
    let report = work.path().join("report");
    library.import(name, &server.disk());

    let drill = library
        .relevo()
        .args("drill run")
        .arg(Runbook::for_server(&server).write(work.path()))
        .arg("--report")
        .arg(&report)
        .run();

    assert_eq!(
        drill.code,
        Some(0),
        "the drill of {name} did not pass\n{drill}"
    );
    let pages = files_ending(&report, ".html");
    assert!(!pages.is_empty(), "no page in {}", report.display());
    assert!(
        !files_ending(&report, ".json").is_empty(),
        "no JSON in {}",
        report.display()
    );
    library.gives_back(name, &server.disk(), work.path());
    nothing_is_left_running(library.folder());
}

#[rstest]
fn a_converted_disk_needs_no_further_change(
    #[values(
        "sample",
        "trixie-gpt",
        "bookworm-mbr",
        "bookworm-gpt",
        "bullseye-mbr",
        "bullseye-gpt",
        "installer-gpt",
        "installer-mbr"
    )]
    name: &str,
) {
    let Some(server) = SampleServer::find(name) else {
        return;
    };
    if !have_tool("e2fsck") || !have_tool("qemu-img") {
        return;
    }
    let work = work_dir();
    let library = Library::create(work.path());
    let converted = work.path().join("converted");
    library.import("original", &server.disk());
    let plan = library.relevo().args("convert original --plan").succeeds();
    assert!(
        plan.stdout.contains("fstab") || plan.stdout.contains("initr"),
        "{plan}"
    );

    library
        .relevo()
        .args("convert original --to qcow2 --check -o")
        .arg(&converted)
        .succeeds();

    let disk = the_only_disk(&converted);
    let check = Command::new("qemu-img")
        .arg("check")
        .arg(&disk)
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stderr)
    );
    library.import("again", &disk);
    let second = library
        .relevo()
        .args("convert again --plan --json")
        .succeeds();
    assert_eq!(edits_in(&second.json()), Some(0), "{second}");
}

#[test]
fn the_sample_server_does_not_start_on_virtio_unconverted() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let proof = server.proof_that_it_needs_conversion();
    if !proof.exists() {
        skip("the sample server was not yet tried on virtio (prove-virtio-fails.sh)");
        return;
    }
    let screen = fs::read_to_string(proof).unwrap();
    assert!(
        screen.contains("ALERT!  /dev/sda1 does not exist"),
        "{screen}"
    );
}

/// No process names the library in its arguments, and nothing is there to clean up.
fn nothing_is_left_running(library: &Path) {
    let path = library.to_string_lossy();
    let left: Vec<String> = fs::read_dir("/proc")
        .expect("Linux has /proc")
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(path.as_ref()))
        .collect();
    assert!(left.is_empty(), "still running: {left:#?}");
}

/// How many edits a plan has, wherever the JSON keeps the list.
fn edits_in(plan: &serde_json::Value) -> Option<usize> {
    plan.get("edits")
        .or_else(|| plan.pointer("/plan/edits"))?
        .as_array()
        .map(Vec::len)
}
