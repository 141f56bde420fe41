// SPDX-License-Identifier: MIT OR Apache-2.0
//! Can this server be imaged now, and what would be refused and why.
//!
//! | code | level | what |
//! |---|---|---|
//! | `agent.user.not-root` | error | block devices are readable by root only |
//! | `agent.disks.none` | error | no disk to take a snapshot of |
//! | `agent.disk.mounted`, `.swap`, `.held` | error | the disk is in use |
//! | `agent.disk.unreadable` | error | the disk cannot be opened |
//! | `agent.library.unreachable` | error | the library cannot be opened |
//! | `agent.library.ready` | note | the library answers |

use disk::{Finding, Level};
use image_library::machine::MachineDescription;
use image_library::{LibraryAccess, open_library};

use crate::error::Error;
use crate::inventory::root::Root;
use crate::source::{InUse, open_source};
use crate::usage::disk_use;

/// Looks at the disks and, where one is named, at the library; changes nothing.
#[must_use]
pub fn check(
    machine: &MachineDescription,
    library: Option<&str>,
    access: &LibraryAccess,
) -> Vec<Finding> {
    let root = Root::new("/");
    let mut findings = Vec::new();
    if !rustix::process::geteuid().is_root() {
        findings.push(error(
            "agent.user.not-root",
            "this user",
            "is not root: disks cannot be read".to_owned(),
            Some("run the agent as root".to_owned()),
        ));
    }
    if machine.disks.is_empty() {
        findings.push(error(
            "agent.disks.none",
            "/sys/block",
            "shows no disk".to_owned(),
            Some("name disk image files with `snapshot --disk`".to_owned()),
        ));
    }
    for disk in &machine.disks {
        findings.extend(disk_use(&root, machine, disk).findings);
        if let Err(problem) = open_source(&root, machine, &disk.name, InUse::Accept) {
            findings.push(from_error("agent.disk.unreadable", &disk.name, &problem));
        }
    }
    findings.extend(library.map(|location| check_library(location, access)));
    findings
}

fn check_library(location: &str, access: &LibraryAccess) -> Finding {
    match open_library(location, access) {
        Ok(library) => Finding {
            level: Level::Note,
            code: "agent.library.ready".to_owned(),
            place: location.to_owned(),
            problem: format!(
                "answers, with chunks of {} bytes",
                library.chunk_size_bytes()
            ),
            remedy: None,
        },
        Err(problem) => from_error("agent.library.unreachable", location, &problem.into()),
    }
}

fn error(code: &str, place: &str, problem: String, remedy: Option<String>) -> Finding {
    Finding {
        level: Level::Error,
        code: code.to_owned(),
        place: place.to_owned(),
        problem,
        remedy,
    }
}

fn from_error(code: &str, place: &str, problem: &Error) -> Finding {
    let text = image_library::terminal::chain_text(problem);
    error(code, place, text, problem.hint())
}
