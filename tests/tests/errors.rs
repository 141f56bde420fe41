// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong on the way: each time one clear message that says what and where, a hint, the
//! documented exit code, nothing lost and nothing left running.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{
    Library, Outcome, PhonyServer, Program, Runbook, SampleServer, can_mount, free_port, have_tool,
    overwrite, raw_disk, truncate_to_half, wait_until, work_dir,
};

const COULD_NOT: i32 = 2;

/// Imports a disk and converts it, until one of the two says why not.
fn recover(disk: &Path, work: &Path) -> Outcome {
    let library = Library::create(work);
    let import = library
        .relevo()
        .args("image import --server x")
        .arg(disk)
        .run();
    if import.code != Some(0) {
        let images = library.relevo().args("image list --json").succeeds();
        assert!(
            !images.stdout.contains("\"x\""),
            "half an image was kept\n{images}"
        );
        return import;
    }
    let outcome = library
        .relevo()
        .args("convert x --to qcow2 -o")
        .arg(work.join("out"))
        .run();
    // The image itself is whole, whatever became of its conversion.
    library.relevo().args("image verify").succeeds();
    outcome
}

#[test]
fn a_file_that_is_no_disk_is_refused() {
    let work = work_dir();
    let file = work.path().join("notes.txt");
    fs::write(&file, "call the electrician\n").unwrap();

    recover(&file, work.path()).is_one_clear_error(COULD_NOT, &["notes.txt"]);
}

#[test]
fn an_empty_disk_has_nothing_to_recover() {
    let work = work_dir();
    let disk = raw_disk(work.path(), "empty.raw", 64);

    recover(&disk, work.path()).is_one_clear_error(COULD_NOT, &["partition"]);
}

#[test]
fn a_truncated_qcow2_is_named_with_the_place_it_ends() {
    if !have_tool("qemu-img") {
        return;
    }
    let work = work_dir();
    let raw = raw_disk(work.path(), "whole.raw", 64);
    overwrite(&raw, 0, &vec![7; 8 << 20]);
    let disk = work.path().join("half.qcow2");
    let made = Command::new("qemu-img")
        .args(["convert", "-O", "qcow2"])
        .args([&raw, &disk])
        .status()
        .unwrap();
    assert!(made.success());
    truncate_to_half(&disk);

    recover(&disk, work.path()).is_one_clear_error(COULD_NOT, &["half.qcow2"]);
}

#[test]
fn a_gpt_damaged_at_both_ends_is_refused() {
    if !have_tool("sfdisk") {
        return;
    }
    let work = work_dir();
    let disk = gpt_disk(work.path());
    let length = fs::metadata(&disk).unwrap().len();
    overwrite(&disk, 512 + 16, &[0xFF; 4]);
    overwrite(&disk, length - 512 + 16, &[0xFF; 4]);

    recover(&disk, work.path()).is_one_clear_error(COULD_NOT, &["gpt"]);
}

#[test]
fn a_gpt_damaged_at_its_start_is_read_from_its_end_and_reported() {
    let Some(server) = SampleServer::find("trixie-gpt") else {
        return;
    };
    let work = work_dir();
    let library = Library::create(work.path());
    let disk = server.copy_disk(work.path());
    overwrite(&disk, 512 + 16, &[0xFF; 4]);
    library.import("x", &disk);

    let inspected = library.relevo().args("inspect x").run();

    let said = format!("{}{}", inspected.stdout, inspected.stderr).to_lowercase();
    assert!(
        said.contains("gpt") && said.contains("backup"),
        "{inspected}"
    );
    library.relevo().args("convert x --plan").succeeds();
}

#[test]
fn an_unknown_filesystem_is_named_with_its_partition() {
    if !have_tool("sfdisk") {
        return;
    }
    let work = work_dir();
    let disk = gpt_disk(work.path());
    overwrite(&disk, 1 << 20, &vec![0x5A; 1 << 20]);

    recover(&disk, work.path()).is_one_clear_error(COULD_NOT, &["filesystem"]);
}

#[test]
fn a_server_without_a_kernel_is_refused() {
    if !have_tool("mke2fs") {
        return;
    }
    let work = work_dir();
    let disk = PhonyServer::without_kernel(work.path()).on_disk(work.path());

    recover(&disk, work.path()).is_one_clear_error(COULD_NOT, &["kernel"]);
}

#[test]
fn a_server_without_an_initramfs_is_refused() {
    if !have_tool("mke2fs") {
        return;
    }
    let work = work_dir();
    let disk = PhonyServer::without_initramfs(work.path()).on_disk(work.path());

    recover(&disk, work.path()).is_one_clear_error(COULD_NOT, &["initr", "6.1.0-18-amd64"]);
}

#[test]
fn a_full_disk_stops_the_conversion_and_the_next_try_succeeds() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    if !can_mount() {
        return;
    }
    let work = work_dir();
    let library = Library::create(work.path());
    let out = work.path().join("out");
    fs::create_dir(&out).unwrap();
    library.import("x", &server.disk());
    let mount_and_run = format!(
        "mount -t tmpfs -o size=64k tmpfs {} && exec \"$@\"",
        out.display()
    );

    let outcome = library
        .relevo()
        .args("convert x --to qcow2 -o")
        .arg(&out)
        .within(
            "unshare",
            &[
                "--mount",
                "--map-root-user",
                "sh",
                "-c",
                &mount_and_run,
                "sh",
            ],
        )
        .run();

    outcome.is_one_clear_error(COULD_NOT, &["space"]);
    library.relevo().args("image verify").succeeds();
    library
        .relevo()
        .args("convert x --to qcow2 -o")
        .arg(&out)
        .succeeds();
}

#[test]
fn a_library_that_does_not_answer_is_named() {
    let address = format!("https://127.0.0.1:{}", free_port());
    let work = work_dir();
    let library = Library::create(work.path());
    let disk = raw_disk(work.path(), "disk.raw", 64);

    library
        .relevo_with(&address)
        .args("image list")
        .run()
        .is_one_clear_error(COULD_NOT, &[&address]);
    library
        .snapshot(&address, &disk)
        .run()
        .is_one_clear_error(COULD_NOT, &[&address]);
}

#[test]
fn a_library_folder_that_does_not_exist_is_named() {
    let work = work_dir();
    let missing = work.path().join("nowhere");

    Library::create(work.path())
        .relevo_with(&missing)
        .args("image list")
        .run()
        .is_one_clear_error(COULD_NOT, &["nowhere"]);
}

#[test]
fn a_server_killed_in_mid_upload_loses_nothing() {
    let Some(server) = SampleServer::find("sample") else {
        return;
    };
    let work = work_dir();
    let library = Library::create(work.path());
    let port = free_port();
    let (first_server, address) = library.serve_on(port);
    let agent = library.snapshot(&address, &server.disk()).start();
    wait_until("20 MiB are stored", || library.stored_bytes() > 20 << 20);
    first_server.kill();

    agent.wait().is_one_clear_error(COULD_NOT, &[&address]);

    let images = library.relevo().args("image list --json").succeeds();
    assert!(
        !images.stdout.contains("\"x\""),
        "half an image was committed\n{images}"
    );
    let (second_server, address) = library.serve_on(port);
    library.snapshot(&address, &server.disk()).succeeds();
    second_server.kill();
    library.gives_back_what_is_used("x", &server.disk(), 1 << 20, work.path());
}

#[test]
fn a_runbook_with_an_unknown_key_is_refused_with_its_line() {
    let work = work_dir();
    let runbook = phony_runbook()
        .replace("    network: [lan]", "    netwrok: [lan]")
        .write(work.path());

    Program::relevo()
        .args("runbook check")
        .arg(&runbook)
        .run()
        .is_one_clear_error(COULD_NOT, &["runbook.yaml", "netwrok", "12"]);
}

#[test]
fn a_runbook_whose_server_is_not_in_the_library_is_refused_before_anything_starts() {
    let work = work_dir();
    let library = Library::create(work.path());
    let disk = raw_disk(work.path(), "other.raw", 64);
    library.import("other", &disk);
    let runbook = phony_runbook().write(work.path());

    library
        .relevo()
        .args("drill run")
        .arg(&runbook)
        .run()
        .is_one_clear_error(COULD_NOT, &["phony"]);
}

fn phony_runbook() -> Runbook {
    let server: SampleServer = serde_json::from_str(
        r#"{ "name": "phony", "suite": "bookworm", "table": "mbr",
             "mac": "52:54:00:00:00:01", "address": "10.20.0.5", "page": "open" }"#,
    )
    .expect("every field is there");
    Runbook::for_server(&server)
}

/// A small disk with a GUID partition table and one Linux partition at 1 MiB.
fn gpt_disk(work: &Path) -> std::path::PathBuf {
    let disk = raw_disk(work, "gpt.raw", 64);
    let made = Command::new("sh")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args([
            "-c",
            "printf 'label: gpt\\nstart=1MiB, size=32MiB, type=L\\n' | sfdisk -q \"$0\"",
        ])
        .arg(&disk)
        .status()
        .expect("sh can be run");
    assert!(made.success());
    disk
}

#[test]
fn results_that_cannot_be_written_are_an_error_of_every_program() {
    let work = work_dir();
    let library = Library::create(work.path());
    library.import("x", &raw_disk(work.path(), "empty.raw", 64));
    let programs = [
        library.relevo().args("image list"),
        Program::library()
            .args("stats --json")
            .arg(library.folder()),
        Program::agent().args("inventory"),
    ];
    for program in programs {
        program
            .within("sh", &["-c", "exec \"$0\" \"$@\" > /dev/full"])
            .run()
            .is_one_clear_error(COULD_NOT, &["standard output", "no space"]);
    }
}
