// SPDX-License-Identifier: MIT OR Apache-2.0
//! A filesystem of a few MiB that only the programs of one test see: it is mounted in a namespace of
//! its own, which an ordinary user may make on most computers.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Program, Running, can_mount, have_tool, wait_until};

/// A small filesystem; gone with the last program that uses it.
pub(crate) struct SmallDisk {
    holder: Running,
    directory: PathBuf,
}

impl SmallDisk {
    /// One at a directory, made if need be; `None`, and said so, where that is not possible.
    pub(crate) fn at(directory: &Path, size: &str) -> Option<Self> {
        if !can_mount() || !have_tool("nsenter") {
            return None;
        }
        fs::create_dir_all(directory).unwrap();
        let script =
            "mount -t tmpfs -o size=$0 tmpfs \"$1\" && touch \"$1/.mounted\" && exec sleep 900";
        let mut holder = Program::tool("unshare")
            .args("--mount --map-root-user sh -c")
            .arg(script)
            .arg(size)
            .arg(directory)
            .start();
        let disk = Self {
            directory: directory.to_owned(),
            holder: {
                let marker = inside(&holder, directory).join(".mounted");
                wait_until("it is mounted", || {
                    assert!(holder.is_running(), "it cannot be mounted");
                    marker.exists()
                });
                fs::remove_file(marker).unwrap();
                holder
            },
        };
        Some(disk)
    }

    /// What is in it, as seen from outside.
    pub(crate) fn path(&self) -> PathBuf {
        inside(&self.holder, &self.directory)
    }

    /// A program that sees it at its directory.
    pub(crate) fn within(&self, program: Program) -> Program {
        let target = self.holder.id().to_string();
        let arguments = [
            "--user",
            "--mount",
            "--preserve-credentials",
            "--target",
            &target,
        ];
        program.within("nsenter", &arguments)
    }

    /// Makes it as large as this.
    pub(crate) fn resize(&self, size: &str) {
        let mount = Program::tool("mount")
            .arg("-o")
            .arg(format!("remount,size={size}"));
        self.within(mount.arg(&self.directory)).succeeds();
    }

    /// Takes what room is left.
    pub(crate) fn fill(&self) {
        let dd = Program::tool("dd").args("if=/dev/zero bs=64k status=none");
        let filler = format!("of={}", self.path().join("filler").display());
        let full = dd.arg(filler).args("conv=notrunc oflag=append").run();
        assert_ne!(full.code, Some(0), "it is full: {full}");
    }

    /// Makes room again.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

fn inside(holder: &Running, directory: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
    root.join(directory.strip_prefix("/").expect("the path is absolute"))
}
