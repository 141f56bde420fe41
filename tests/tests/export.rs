// SPDX-License-Identifier: MIT OR Apache-2.0
//! A converted image as files for other platforms, by the command line.

use std::fs;

use e2e::{Library, PhonyServer, Program, have_tool, work_dir};

#[test]
fn a_server_is_written_for_libvirt_beside_its_disk() {
    let work = work_dir();
    let Some(library) = Library::with_server(work.path(), PhonyServer::with_drivers_built_in)
    else {
        return;
    };
    let out = work.path().join("out");
    let convert = |words: &str| library.relevo().args(words).arg(&out);

    let planned = convert("convert web01 --to libvirt --dry-run -o").succeeds();
    assert!(planned.stdout.contains("would write"), "{planned}");
    assert!(planned.stdout.contains("web01.xml"), "{planned}");
    assert!(!out.exists());

    let written = convert("convert web01 --to libvirt --network lan --json -o").succeeds();
    let export = &written.json()["export"];
    assert_eq!(export["hardware"]["controller"], "virtio-blk", "{written}");
    let files = export["files"].as_array().expect("a list");
    let kinds: Vec<&str> = files
        .iter()
        .filter_map(|file| file["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["disk", "document", "machine"]);
    for file in files {
        let path = file["path"].as_str().expect("a path");
        assert!(fs::metadata(path).is_ok(), "{path}");
    }
    let domain = fs::read_to_string(out.join("web01.xml")).expect("it was written");
    assert!(domain.contains("network=\"lan\""), "{domain}");
    let disk = out.join("disk0.qcow2");
    assert!(domain.contains(&disk.display().to_string()), "{domain}");

    convert("convert web01 --to libvirt -o")
        .run()
        .is_one_clear_error(2, &["disk0.qcow2", "exists already"]);
}

#[test]
fn a_guest_without_drivers_for_a_platform_is_refused_before_anything_is_written() {
    let work = work_dir();
    let Some(library) = Library::with_server(work.path(), PhonyServer::with_drivers_built_in)
    else {
        return;
    };
    let out = work.path().join("out");

    library
        .relevo()
        .args("convert web01 --to vhdx -o")
        .arg(&out)
        .run()
        .is_one_clear_error(2, &["Hyper-V", "export.controller.no-driver"]);

    assert!(!out.exists());
}

#[test]
fn without_qemu_img_its_formats_are_refused_with_what_to_install() {
    let work = work_dir();
    let Some(library) = Library::with_server(work.path(), PhonyServer::with_drivers_built_in)
    else {
        return;
    };
    let out = work.path().join("out");

    let outcome = library
        .relevo()
        .env("PATH", work.path())
        .args("convert web01 --to vdi -o")
        .arg(&out)
        .run();

    outcome.is_one_clear_error(2, &["qemu-img", "qemu-utils"]);
    assert!(!out.exists());
}

#[test]
fn a_disk_for_virtualbox_is_the_same_as_the_disk_for_qemu() {
    if !have_tool("qemu-img") {
        return;
    }
    let work = work_dir();
    let Some(library) = Library::with_server(work.path(), PhonyServer::with_drivers_built_in)
    else {
        return;
    };
    let out = work.path().join("out");
    for format in ["raw", "vdi", "vhd"] {
        let words = format!("convert web01 --to {format} -o");
        library.relevo().args(&words).arg(&out).succeeds();
    }
    for (format, ending) in [("vdi", "vdi"), ("vpc", "vhd")] {
        Program::tool("qemu-img")
            .args("compare -f raw -F")
            .arg(format)
            .arg(out.join("disk0.raw"))
            .arg(out.join(format!("disk0.{ending}")))
            .succeeds();
    }
}
