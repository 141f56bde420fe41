// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same disk converted by virt-v2v, the tool that everybody uses for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Outcome, Program, Usage, have_tool, one_machine_at_a_time, raw_disk, work_dir};

/// Where `prepare-machine.sh` has unpacked a kernel, for computers without one of their own.
const KERNEL: &str = "appliance";

/// What it takes, with its appliance and everything else that it starts; or why that is not known.
///
/// Its appliance is built beforehand: that is kept from one conversion to the next.
pub(crate) fn virt_v2v(disk: &Path) -> Result<Usage, String> {
    if !have_tool("virt-v2v") {
        return Err("it is not installed".to_owned());
    }
    let _slot = one_machine_at_a_time();
    let work = work_dir();
    let appliance = Appliance::in_folder(&work.path().join("appliance"));
    let empty = raw_disk(work.path(), "empty.raw", 64);
    // There is nothing in it to convert, which it finds out when its appliance runs.
    let _ = appliance.convert(&empty, &work.path().join("nothing"))?;
    let converted = work.path().join("converted");
    let outcome = appliance.convert(disk, &converted)?;
    let written = fs::read_dir(&converted).is_ok_and(|mut files| files.next().is_some());
    match outcome.code {
        Some(0) if written => Ok(outcome.usage),
        _ => Err(last_line(&outcome)),
    }
}

fn last_line(outcome: &Outcome) -> String {
    let mut lines = outcome.stderr.lines();
    let line = lines.rfind(|line| line.contains("error:"));
    line.unwrap_or("it failed and did not say why").to_owned()
}

/// libguestfs, started directly and emulated: a `/dev/kvm` that is there may still run no guest.
struct Appliance {
    folder: PathBuf,
    /// The kernel and its modules, where the computer has none.
    kernel: Option<(PathBuf, PathBuf)>,
}

impl Appliance {
    fn in_folder(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("the folder is ours");
        let unpacked = e2e::cache_dir().join(KERNEL);
        let first = |folder: PathBuf, start: &str| {
            let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
            let mut found = entries.filter(|entry| {
                let name = entry.file_name();
                name.to_string_lossy().starts_with(start)
            });
            found.next().map(|entry| entry.path())
        };
        let modules = first(unpacked.join("lib/modules"), "");
        Self {
            folder: folder.to_owned(),
            kernel: first(unpacked.join("boot"), "vmlinuz-").zip(modules),
        }
    }

    fn convert(&self, disk: &Path, target: &Path) -> Result<Outcome, String> {
        fs::create_dir_all(target).expect("the folder is ours");
        let program = Program::tool("virt-v2v")
            .args("-i disk")
            .arg(disk)
            .args("-o qemu -of qcow2 -os")
            .arg(target);
        program
            .run_with_family(|program| self.environment(program))
            .ok_or_else(|| "this user may make no process namespace to measure it in".to_owned())
    }

    fn environment(&self, program: Program) -> Program {
        let program = program
            .env("LIBGUESTFS_BACKEND", "direct")
            .env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
            .env("LIBGUESTFS_CACHEDIR", &self.folder)
            .env("TMPDIR", &self.folder);
        match &self.kernel {
            Some((kernel, modules)) => program
                .env("SUPERMIN_KERNEL", kernel)
                .env("SUPERMIN_MODULES", modules),
            None => program,
        }
    }
}

/// Its version, as it says itself.
pub(crate) fn version() -> String {
    let output = Command::new("virt-v2v").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "virt-v2v".to_owned())
}
