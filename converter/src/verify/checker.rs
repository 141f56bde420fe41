// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a filesystem's own checker on every volume that was written, read-only, on a sparse copy.
//!
//! This is the one place of the package that starts programs, and only on request. A checker that
//! is not installed is a finding, not an error.

use std::path::Path;
use std::process::Command;

use disk::block::copy_to_raw;
use disk::filesystem::{self, FilesystemKind};
use disk::{Finding, Level, Monitor};

use crate::apply::Applied;
use crate::error::{Error, Result};
use crate::guest_disk::GuestDisk;
use crate::inspect::VolumeId;
use crate::inspect::findings::{WithRemedy, finding};
use crate::verify::merged_volumes;

/// Lines of a checker's output that are shown.
const LINES_MAX: usize = 20;

/// Checks every volume that was written; the copies are made in `directory` and removed.
pub fn check(
    applied: &Applied,
    disks: &[GuestDisk],
    directory: &Path,
    monitor: &dyn Monitor,
) -> Result<Vec<Finding>> {
    let mut volumes: Vec<VolumeId> = applied
        .summary
        .files
        .iter()
        .map(|file| file.place.volume)
        .collect();
    volumes.sort();
    volumes.dedup();
    let devices = merged_volumes(applied, disks)?;
    let mut findings = Vec::new();
    for (number, id) in volumes.into_iter().enumerate() {
        let device = devices.open(id)?;
        let identity = filesystem::detect(&device).map_err(Error::guest(id.to_string()))?;
        let Some((program, arguments)) = identity.and_then(|identity| checker(identity.kind))
        else {
            continue;
        };
        let name = format!("check-{number}.raw");
        let copy = directory.join(name);
        copy_to_raw(&*device, &copy, monitor).map_err(Error::guest(id.to_string()))?;
        let found = run(program, arguments, &copy, id);
        std::fs::remove_file(&copy).map_err(|source| Error::Local {
            action: "remove",
            path: copy.clone(),
            source,
        })?;
        findings.extend(found);
    }
    Ok(findings)
}

fn checker(kind: FilesystemKind) -> Option<(&'static str, &'static [&'static str])> {
    match kind {
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
            Some(("e2fsck", &["-f", "-n"]))
        }
        FilesystemKind::Fat => Some(("fsck.fat", &["-n"])),
        FilesystemKind::Xfs => Some(("xfs_repair", &["-n"])),
        FilesystemKind::Btrfs => Some(("btrfs", &["check", "--readonly"])),
        _ => None,
    }
}

fn run(program: &str, arguments: &[&str], file: &Path, id: VolumeId) -> Option<Finding> {
    let output = locate(program).and_then(|program| {
        Command::new(program)
            .args(arguments)
            .arg(file)
            .env_clear()
            .env("LC_ALL", "C")
            .output()
            .ok()
    });
    let Some(output) = output else {
        return Some(
            finding(
                Level::Warning,
                "check.tool-missing",
                id.to_string(),
                format!("{program} is not installed, so the filesystem was not checked"),
            )
            .remedy(format!("install the package that has {program}")),
        );
    };
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().take(LINES_MAX).collect();
    Some(finding(
        Level::Error,
        "check.filesystem-damaged",
        id.to_string(),
        format!("{program} says: {}", lines.join(" | ")),
    ))
}

/// The program in the directories where administration's programs are; ordinary users rarely
/// have these in their path.
fn locate(program: &str) -> Option<std::path::PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use disk::filesystem::FilesystemKind;
    use image_library::DiskIndex;

    use super::*;

    fn code(program: &str) -> Option<String> {
        let id = VolumeId::on_disk(DiskIndex(0), Some(1));
        run(program, &[], Path::new("/dev/null"), id).map(|finding| finding.code)
    }

    #[test]
    fn what_a_checker_says_is_a_finding_and_so_is_a_missing_one() {
        assert_eq!(code("true"), None);
        assert_eq!(code("false").as_deref(), Some("check.filesystem-damaged"));
        assert_eq!(
            code("fsck.of-no-filesystem").as_deref(),
            Some("check.tool-missing")
        );
        assert!(checker(FilesystemKind::Ext4).is_some());
    }
}
