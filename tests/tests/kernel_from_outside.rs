// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server of LILO's, whose map of sectors no longer fits: its machine is given the kernel, in drills,
//! on the way to this computer, without the library, and in exports.
//!
//! The server is the sample with LILO's configuration and boot sector in place of GRUB's. A real map
//! cannot be made here, because Debian has no LILO any more; nothing here reads one.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{
    CleanUp, Library, PhonyServer, Program, Runbook, SampleServer, free_port, have_tool,
    one_machine_at_a_time, overwrite, shows_page, work_dir,
};

/// Where the sample's root begins.
const ROOT_AT: usize = 1 << 20;
/// `/etc/lilo.conf` as Debian's installer wrote it.
const LILO: &str = "boot=/dev/sda\nroot=/dev/sda1\nmap=/boot/map\ndefault=Linux\n\n\
                    image=/vmlinuz\n\tlabel=Linux\n\tread-only\n\tinitrd=/initrd.img\n";

/// The sample, which LILO would have started: what is in its boot sector now waits for ever. `None`
/// where this computer cannot run it.
fn server(work: &Path) -> Option<(SampleServer, PathBuf)> {
    let server = SampleServer::find("sample")?;
    if !have_tool("qemu-system-x86_64") || !have_tool("debugfs") {
        return None;
    }
    let disk = server.copy_disk(work);
    let (configuration, commands) = (work.join("lilo.conf"), work.join("commands"));
    fs::write(&configuration, LILO).expect("the work directory can be written to");
    let text = format!(
        "rm /boot/grub/grub.cfg\nwrite {} /etc/lilo.conf\nstat /etc/lilo.conf\n",
        configuration.display()
    );
    fs::write(&commands, text).expect("the work directory can be written to");
    let path = std::env::var("PATH").unwrap_or_default();
    let edited = Program::tool("debugfs")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args("-w -f")
        .arg(&commands)
        .arg(format!("{}?offset={ROOT_AT}", disk.display()))
        .succeeds();
    assert!(edited.stdout.contains("Type: regular"), "{edited}");
    // Up to the disk's signature, and all behind the partition table: GRUB is nowhere any more.
    let mut code = [0; 440];
    code[..10].copy_from_slice(b"\xeb\xfe\0\0\0\0LILO");
    overwrite(&disk, 0, &code);
    overwrite(&disk, 512, &vec![0; ROOT_AT - 512]);
    Some((server, disk))
}

#[test]
fn a_server_of_lilos_passes_its_drill() {
    let work = work_dir();
    let work = work.path();
    let Some((server, disk)) = server(work) else {
        return;
    };
    let _slot = one_machine_at_a_time();
    let library = Library::create(work);
    library.import(&server.name, &disk);

    let inspect = library.relevo().args("inspect --json").arg(&server.name);
    let report = inspect.succeeds().json();
    assert_eq!(report["verdict"], "ready-with-changes");
    let command_line = report["vm"]["direct_boot"]["command_line"].as_str();
    assert!(command_line.is_some_and(|line| line.contains("root=UUID=")));
    let findings = report["findings"].as_array().expect("a list");
    let direct = findings
        .iter()
        .find(|finding| finding["code"] == "boot.lilo.direct");
    assert_eq!(direct.expect("it is told")["level"], "warning");

    let drill = library.relevo().args("drill run");
    let drill = drill.arg(Runbook::for_server(&server).write(work));
    drill.arg("--report").arg(work.join("report")).succeeds();
    library.gives_back(&server.name, &disk, work);
}

#[test]
fn its_kernel_comes_along_when_its_disks_are_moved_and_the_library_is_gone() {
    let work = work_dir();
    let work = work.path();
    let Some((server, disk)) = server(work) else {
        return;
    };
    let _slot = one_machine_at_a_time();
    let library = Library::create(work);
    let _clean_up = CleanUp(&library);
    library.import("web", &disk);
    let (disks, port) = (work.join("disks"), free_port());
    let forward = format!("{port}:80");
    let boot = |library: Program, words: &str| {
        let relevo = library.args("boot --memory 512MiB --cpus 2 --forward");
        relevo.arg(&forward).args(words).arg(&disks).start()
    };

    // Its command is killed on the way: another one takes it over.
    let mut booting = boot(library.relevo(), "web --to");
    booting.brings("its page", |_| shows_page(port, &server.page));
    booting.kill();
    let mut attached = library.relevo().args("attach").start();
    attached.brings("its disks", |attached| {
        attached.stderr_so_far().contains("is not needed any more")
    });
    let ended = attached.interrupt();
    assert_eq!(ended.code, Some(0), "{ended}");

    fs::rename(library.folder(), work.join("gone")).unwrap();
    let mut again = boot(library.relevo_with(work.join("nowhere")), "--from");
    again.brings("its page again", |_| shows_page(port, &server.page));
    let ended = again.interrupt();
    assert_eq!(ended.code, Some(0), "{ended}");
}

#[test]
fn its_kernel_is_written_for_platforms_that_have_a_place_for_one_and_others_are_refused() {
    let work = work_dir();
    let work = work.path();
    let Some(library) = Library::with_server(work, PhonyServer::started_by_lilo) else {
        return;
    };
    let convert = |target: &str, out: &Path| {
        let words = format!("convert web01 --json --to {target} -o");
        library.relevo().args(&words).arg(out)
    };
    // The same for Xen, whose drivers this guest has not, is tested where exports are made.
    for target in ["libvirt", "qcow2", "raw"] {
        let out = work.join(target);
        let written = convert(target, &out).succeeds();
        let files = written.json()["export"]["files"].clone();
        let kinds = files.as_array().expect("a list").iter();
        let kinds: Vec<&str> = kinds.filter_map(|file| file["kind"].as_str()).collect();
        let expected: &[&str] = match target {
            "libvirt" => &["disk", "kernel", "document", "machine"],
            _ => &["disk", "kernel", "machine"],
        };
        assert_eq!(kinds, expected, "{target}");
        let kernel = fs::read(out.join("kernel")).expect("it was written");
        assert_eq!(kernel[0x202..0x206], *b"HdrS");
        let is_told = written.stderr.contains("export.kernel.from-outside");
        assert_eq!(is_told, target != "libvirt", "{written}");
    }
    let domain = fs::read_to_string(work.join("libvirt/web01.xml")).expect("it was written");
    assert!(domain.contains("/libvirt/kernel</kernel>"), "{domain}");
    assert!(domain.contains("<cmdline>root="), "{domain}");

    let out = work.join("refused");
    convert("proxmox", &out)
        .run()
        .is_one_clear_error(2, &["Proxmox VE", "export.kernel.no-place", "GRUB"]);
    assert!(!out.exists());
}
