// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole way, with real servers: a disk is imported, converted, and passes a drill.

use std::env;
use std::fs;
use std::path::Path;

use e2e::results::keep_recovery;
use e2e::{
    Library, Program, Runbook, SampleServer, disks_in, files_ending, have_tool,
    one_machine_at_a_time, skip, work_dir,
};
use rstest::rstest;
use serde_json::Value;

/// Makes a test of what holds for every sample server.
macro_rules! of_every_server {
    ($test:ident, $holds:expr) => {
        #[rstest]
        fn $test(
            #[values(
                "sample",
                "md-raid1",
                "systemd-boot",
                "i386-hda",
                "uefi-xfs",
                "lvm-xfs",
                "btrfs",
                "luks-lvm",
                "extlinux",
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
            if let Some(server) = SampleServer::find(name) {
                $holds(&server);
            }
        }
    };
}

of_every_server!(a_server_passes_its_drill, passes_its_drill);
of_every_server!(
    a_converted_disk_needs_no_further_change,
    needs_no_further_change
);
of_every_server!(
    a_server_does_not_start_on_virtio_unconverted,
    does_not_start_on_virtio
);

fn passes_its_drill(server: &SampleServer) {
    if !have_tool("qemu-system-x86_64") {
        return;
    }
    let _slot = one_machine_at_a_time();
    let work = work_dir();
    let (library, name) = (Library::create(work.path()), &server.name);
    let report = work.path().join("report");
    library.import_all(name, &server.disks());

    let drill = with_key(library.relevo().args("drill run"), server)
        .arg(Runbook::for_server(server).write(work.path()))
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
    let told = files_ending(&report, ".json");
    assert!(!told.is_empty(), "no JSON in {}", report.display());
    library.gives_back_all(name, &server.disks(), work.path());
    if env::var_os("E2E_RESULTS").is_some() {
        keep_recovery(name, &row(server, &told[0]));
    }
    nothing_is_left_running(library.folder());
}

fn needs_no_further_change(server: &SampleServer) {
    if !have_tool("e2fsck") || !have_tool("qemu-img") {
        return;
    }
    let work = work_dir();
    let library = Library::create(work.path());
    let converted = work.path().join("converted");
    library.import_all("original", &server.disks());
    let plan = with_key(library.relevo().args("convert original --plan"), server).succeeds();
    assert!(
        plan.stdout.contains("fstab") || plan.stdout.contains("initr"),
        "{plan}"
    );

    let convert = library
        .relevo()
        .args("convert original --to qcow2 --check -o");
    with_key(convert.arg(&converted), server).succeeds();

    let disks = disks_in(&converted);
    for disk in &disks {
        Program::tool("qemu-img").arg("check").arg(disk).succeeds();
    }
    library.import_all("again", &disks);
    let again = library.relevo().args("convert again --plan --json");
    let second = with_key(again, server).succeeds();
    assert_eq!(edits_in(&second.json()), Some(0), "{second}");
}

fn does_not_start_on_virtio(server: &SampleServer) {
    let (proof, name) = (server.proof_that_it_needs_conversion(), &server.name);
    if !proof.exists() {
        skip(&format!(
            "the sample server {name} was not yet tried on virtio (prove-virtio-fails.sh)"
        ));
        return;
    }
    let told = fs::read_to_string(proof).expect("it is there");
    let reason = match name.as_str() {
        "md-raid1" => "ALERT!  /dev/md0 does not exist",
        "systemd-boot" | "btrfs" => "ALERT!  /dev/sda2 does not exist",
        "uefi-xfs" => "Shell>",
        "lvm-xfs" => "Entering emergency mode",
        "luks-lvm" => "ALERT!  /dev/mapper/vg0-root does not exist",
        "installer-gpt" | "installer-mbr" => "No web page: ",
        _ => "ALERT!  /dev/sda1 does not exist",
    };
    assert!(told.contains(reason), "{told}");
}

/// With the key of what is encrypted on the server's disks.
fn with_key(program: Program, server: &SampleServer) -> Program {
    match server.key() {
        Some(key) => program.arg("--key").arg(key),
        None => program,
    }
}

/// What the page of recovered servers says of one.
fn row(server: &SampleServer, report: &Path) -> Vec<String> {
    let report = fs::read_to_string(report).expect("the report was just found");
    let report: Value = serde_json::from_str(&report).expect("a report in JSON is JSON");
    let attempts = report
        .pointer("/servers/0/attempts")
        .and_then(Value::as_array);
    let attempt = attempts
        .and_then(|all| all.last())
        .expect("the drill passed");
    let text = |value: &Value, place: &str| {
        let found = value.pointer(place).and_then(Value::as_str);
        found.unwrap_or("?").to_owned()
    };
    let page_ms = attempt
        .pointer("/checks/0/after_start_ms")
        .and_then(Value::as_u64);
    let proof = fs::read_to_string(server.proof_that_it_needs_conversion()).unwrap_or_default();
    let ending = proof
        .lines()
        .find_map(|line| line.strip_prefix("No web page: "));
    let ending = ending.and_then(|line| line.split(". The screen").next());
    let kernel = server
        .status
        .iter()
        .find_map(|line| Some(line.strip_prefix("kernel: ")?.to_owned()));
    let SampleServer {
        suite,
        table,
        firmware,
        disk_count,
        ..
    } = server;
    vec![
        format!("{suite}, {table}, {firmware}, disks: {disk_count}"),
        ending.unwrap_or("not tried").to_owned(),
        server.physical_boot_seconds.to_string(),
        page_ms.map_or_else(|| "?".to_owned(), |ms| (ms / 1000).to_string()),
        text(attempt, "/profile"),
        text(&report, "/started_at").chars().take(10).collect(),
        format!(
            "{}, QEMU {}{}",
            text(&report, "/program"),
            text(&report, "/platform/version"),
            kernel.map_or_else(String::new, |kernel| format!(", Linux {kernel}")),
        ),
    ]
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
