// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same machine with a local disk: what a machine from the library is compared with.
//!
//! Its command line is that of the machine which `relevo boot` has started, argument by argument, but
//! for where its files are, and for the disk: a qcow2 file without a backing file, with the same options.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::{Program, Running, the_only_disk};
use serde_json::Value;

use super::qmp::Qmp;
use super::site::Site;

/// The command line of a machine.
pub(crate) struct Recipe {
    arguments: Vec<String>,
    directory: String,
    sockets: String,
}

impl Recipe {
    /// That of the machine that runs.
    pub(crate) fn of(site: &Site) -> Self {
        let running = site.running_machine();
        let text = |key: &str| running[key].as_str().expect("it is a path").to_owned();
        let process = site.running_process();
        let line = fs::read(format!("/proc/{process}/cmdline")).expect("it runs");
        let line = String::from_utf8(line).expect("our paths are UTF-8");
        Self {
            arguments: line
                .trim_end_matches('\0')
                .split('\0')
                .skip(1)
                .map(str::to_owned)
                .collect(),
            directory: text("directory"),
            sockets: text("sockets"),
        }
    }

    /// The port on which its web page is reached.
    pub(crate) fn port(&self) -> u16 {
        let mut forwards = self.arguments.iter().filter_map(|argument| {
            let (_, forward) = argument.split_once("hostfwd=tcp:127.0.0.1:")?;
            forward.split('-').next()?.parse().ok()
        });
        forwards.next_back().expect("every machine has a forward")
    }

    /// The machine with this disk, until its processors run; its other files go into a folder.
    pub(crate) fn start(&self, disk: &Path, folder: &Path) -> LocalMachine {
        let mut standing = self.stand(disk, folder);
        let began = Instant::now();
        let running = standing.qmp.execute("cont");
        LocalMachine {
            took: standing.took + (running - began),
            process: standing.process,
        }
    }

    /// The same, but its processors do not run yet.
    pub(crate) fn stand(&self, disk: &Path, folder: &Path) -> StandingMachine {
        fs::create_dir_all(folder).expect("the folder is ours");
        let _ = fs::remove_file(folder.join("qmp"));
        let began = Instant::now();
        let arguments = self.arguments(disk, folder);
        let program = Program::tool("qemu-system-x86_64");
        let process = arguments.iter().fold(program, Program::arg).start();
        let qmp = Qmp::connect(&folder.join("qmp"));
        StandingMachine {
            took: began.elapsed(),
            qmp,
            process,
        }
    }

    fn arguments(&self, disk: &Path, folder: &Path) -> Vec<String> {
        let folder = folder.to_str().expect("our paths are UTF-8");
        let mut changed = Vec::new();
        let mut arguments = self.arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "-blockdev" {
                let node = arguments.next().expect("it has a value");
                if let Some(node) = local_node(node, disk) {
                    changed.extend(["-blockdev".to_owned(), node]);
                }
            } else {
                let moved = argument.replace(&self.directory, folder);
                changed.push(moved.replace(&self.sockets, folder));
            }
        }
        changed
    }
}

/// A node of the machine's one disk; the image's export is not needed.
fn local_node(node: &str, disk: &Path) -> Option<String> {
    let mut node: Value = serde_json::from_str(node).expect("relevo writes JSON");
    match node["driver"].as_str() {
        Some("nbd") => return None,
        Some("file") => node["filename"] = disk.to_str().expect("our paths are UTF-8").into(),
        _ => {
            node.as_object_mut()?.remove("backing");
        }
    }
    Some(node.to_string())
}

/// A machine that was started without `relevo`; killed when dropped.
pub(crate) struct LocalMachine {
    /// From the start of QEMU until the processors ran.
    pub(crate) took: Duration,
    process: Running,
}

impl LocalMachine {
    pub(crate) fn end(self) {
        self.process.kill();
    }
}

/// The same before its processors run for the first time.
pub(crate) struct StandingMachine {
    /// From the start of QEMU until its monitor answered.
    pub(crate) took: Duration,
    pub(crate) qmp: Qmp,
    pub(crate) process: Running,
}

/// Copies the converted disk out of the library; gives it, and what that took.
pub(crate) fn copy_out(relevo: Program, folder: &Path) -> (PathBuf, Duration) {
    // What an earlier round left.
    let _ = fs::remove_dir_all(folder);
    let convert = relevo.args("convert x --to qcow2 -o").arg(folder);
    let took = convert.succeeds().usage.wall;
    (the_only_disk(folder), took)
}
