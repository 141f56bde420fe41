// SPDX-License-Identifier: MIT OR Apache-2.0
//! What these tests need of the machine; a test without it is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt, fs};

use super::super::{Qemu, SmallVm, program};
use crate::interrupt::Interrupt;

/// Says why a test does not run; counted by the tests' script.
pub(super) fn skip<T>(reason: impl fmt::Display) -> Option<T> {
    eprintln!("skipped: {reason}");
    assert_ne!(std::env::var("E2E_REQUIRE").as_deref(), Ok("all"));
    None
}

/// Runs a tool; `None` where it is not installed.
pub(super) fn tool(program: &str, arguments: &[&str]) -> Option<()> {
    let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let run = Command::new(program)
        .args(arguments)
        .env("PATH", search)
        .output();
    let output = match run {
        Ok(output) => output,
        Err(error) => return skip(format!("{program}: {error}")),
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    Some(())
}

/// The machine lock of the sample servers: one at a time.
pub(super) fn lock() -> Option<fs::File> {
    let cache = PathBuf::from(std::env::var_os("HOME")?).join(".cache/relevo");
    fs::create_dir_all(&cache).ok()?;
    let file = fs::File::create(cache.join("machine.lock")).ok()?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// A kernel with its modules: the image, the folder of its modules, its version.
pub(super) fn kernel() -> Option<(PathBuf, PathBuf, String)> {
    let named = std::env::var_os("E2E_MODULE_TREE").map(PathBuf::from);
    let in_cache = || {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        let folder = home.join(".cache/relevo/appliance/lib/modules");
        Some(fs::read_dir(folder).ok()?.next()?.ok()?.path())
    };
    let Some(modules) = named.or_else(in_cache) else {
        return skip("there is no kernel: E2E_MODULE_TREE names none");
    };
    let version = modules.file_name()?.to_str()?.to_owned();
    let mut above = modules.ancestors();
    let image = above.find_map(|folder| {
        let image = folder.join(format!("boot/vmlinuz-{version}"));
        image.exists().then_some(image)
    });
    match image {
        Some(image) => Some((image, modules, version)),
        None => skip(format!("{} has no kernel", modules.display())),
    }
}

/// A module's file below the folder of its kernel's modules: some kernels come with packed ones.
pub(super) fn module(modules: &Path, name: &str) -> Option<PathBuf> {
    let plain = modules.join(format!("kernel/{name}.ko"));
    let packed = plain.with_extension("ko.xz");
    let found = [plain, packed].into_iter().find(|file| file.exists());
    found.or_else(|| skip(format!("{} has no module {name}", modules.display())))
}

/// Whether a kernel needs no file for a module.
pub(super) fn is_built_in(modules: &Path, name: &str) -> bool {
    let list = fs::read_to_string(modules.join("modules.builtin")).unwrap_or_default();
    list.lines().any(|line| line == format!("kernel/{name}.ko"))
}

/// What a module is to the kernel.
pub(super) fn unpacked(module: &Path) -> Option<Vec<u8>> {
    if module
        .extension()
        .is_some_and(|extension| extension == "ko")
    {
        return Some(fs::read(module).unwrap());
    }
    let run = Command::new("xz").arg("-dc").arg(module).output();
    match run {
        Ok(output) => {
            assert!(output.status.success(), "{}", module.display());
            Some(output.stdout)
        }
        Err(error) => skip(format!("xz: {error}")),
    }
}

pub(super) fn small_vm() -> Option<SmallVm> {
    if crate::platform::qemu::probe::version(Path::new(crate::platform::qemu::BINARY)).is_err() {
        return skip("QEMU is not installed");
    }
    let named = std::env::var_os("RELEVO_GUEST_WRITER").map(PathBuf::from);
    let built = std::env::current_exe().ok()?;
    let beside = built
        .ancestors()
        .map(|folder| folder.join("libexec/relevo/relevo-guest-writer"));
    let programs: Vec<PathBuf> = named.into_iter().chain(beside).collect();
    if let Err(problem) = program(&programs) {
        return skip(problem);
    }
    let open = || {
        let cache = std::env::temp_dir().join("relevo-small-vm-host.json");
        Qemu::open(&crate::config::QemuConfiguration::default(), &cache)
    };
    Some(SmallVm {
        open: Box::new(open),
        programs,
        temporary: std::env::temp_dir(),
        interrupt: Interrupt::default(),
    })
}
