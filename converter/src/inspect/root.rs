// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which volume is the guest's root.
//!
//! A root has an init system and `/etc/fstab` or os-release. Where several have (a rescue system,
//! an older release on another partition), the one that its own GRUB configuration names wins.

use disk::filesystem::FilesystemKind;
use disk::{Finding, Level};

use crate::error::Result;
use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::guest_names;
use crate::inspect::inspection::{VolumeId, Volumes};
use crate::inspect::tree::GuestTree;

/// Finds the root and makes it the tree's; says in a finding why there is none, unless it may be on a
/// volume that is locked.
pub(crate) fn find(
    tree: &mut GuestTree,
    volumes: Volumes<'_>,
    is_locked: bool,
    findings: &mut Vec<Finding>,
) -> Result<Option<VolumeId>> {
    let mut candidates = Vec::new();
    for volume in tree.volumes() {
        tree.set_root(volume);
        if is_root(tree)? {
            candidates.push((starts_itself(tree, volume, volumes)?, volume));
        }
    }
    // The first of those that start themselves, else the first.
    candidates.sort_by_key(|(itself, volume)| (!itself, *volume));
    let Some(&(_, root)) = candidates.first() else {
        tree.clear_mounts();
        if !is_locked {
            findings.extend(why_no_root(volumes));
        }
        return Ok(None);
    };
    tree.set_root(root);
    if candidates.len() > 1 {
        let others: Vec<String> = candidates
            .iter()
            .skip(1)
            .map(|(_, v)| volumes.name(*v))
            .collect();
        findings.push(
            finding(
                Level::Warning,
                "guest.root.several",
                volumes.name(root),
                format!(
                    "taken as the root; an operating system is also on {}",
                    others.join(", ")
                ),
            )
            .remedy("if another one is meant, leave this disk or partition out of the image"),
        );
    }
    Ok(Some(root))
}

fn is_root(tree: &GuestTree) -> Result<bool> {
    let any = |paths: &[&str]| -> Result<bool> {
        for path in paths {
            if tree.exists(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let identity = any(&["/etc/fstab", "/etc/os-release", "/usr/lib/os-release"])?;
    // A separate /usr hides the init system behind a link; /etc/passwd does not move.
    let system = any(&[
        "/sbin/init",
        "/usr/lib/systemd",
        "/lib/systemd",
        "/etc/passwd",
    ])?;
    Ok(identity && system)
}

/// Whether this root's own GRUB entries name this root.
fn starts_itself(tree: &GuestTree, volume: VolumeId, volumes: Volumes<'_>) -> Result<bool> {
    let named = guest_names::named(tree, Some(volume), volumes)?;
    let volumes = Volumes {
        assembled: &named,
        ..volumes
    };
    let names = DeviceNames::new(volumes, None);
    let Some(configuration) = tree.text("/boot/grub/grub.cfg")? else {
        return Ok(false);
    };
    let mut roots = configuration
        .text
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("root="));
    Ok(roots.any(|spec| names.resolve(spec) == Some(volume)))
}

/// Says what is there instead of a root.
fn why_no_root(volumes: Volumes<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = volumes
        .contents()
        .filter(|(id, _)| !volumes.is_part(*id))
        .filter_map(|(id, content)| {
            unsupported_root(content.kind).map(|(code, problem)| {
                finding(Level::Error, code, volumes.name(id), problem).remedy(
                    "this kind of storage cannot be converted yet; the image stays complete in the \
                     library",
                )
            })
        })
        .collect();
    if found.is_empty() {
        let anything = volumes.contents().next().is_some();
        let (code, problem) = if anything {
            (
                "guest.root.not-found",
                "no filesystem holds an operating system that we know",
            )
        } else {
            (
                "disk.no-filesystem",
                "there is no filesystem that we know on any disk",
            )
        };
        found.push(
            finding(Level::Error, code, "all disks", problem)
                .remedy("check that the image has the server's system disk"),
        );
    }
    found
}

fn unsupported_root(kind: FilesystemKind) -> Option<(&'static str, &'static str)> {
    match kind {
        FilesystemKind::Lvm2Member => Some(("storage.lvm", "an LVM physical volume")),
        FilesystemKind::MdMember => Some(("storage.md", "a member of an md array")),
        FilesystemKind::Luks => Some(("storage.luks", "an encrypted volume that cannot be opened")),
        FilesystemKind::Xfs => Some(("filesystem.xfs", "an XFS filesystem")),
        FilesystemKind::Btrfs => Some(("filesystem.btrfs", "a btrfs filesystem")),
        FilesystemKind::Ntfs => Some(("filesystem.ntfs", "an NTFS filesystem")),
        _ => None,
    }
}
