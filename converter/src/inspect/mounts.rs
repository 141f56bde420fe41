// SPDX-License-Identifier: MIT OR Apache-2.0
//! Composes the guest's tree as its fstab says.

use disk::filesystem::FilesystemKind;
use disk::{Finding, Level};
use image_library::machine::MachineDescription;

use crate::error::Result;
use crate::guest::fstab::Fstab;
use crate::inspect::device_names::{DeviceNames, Stability, stability};
use crate::inspect::findings::{LUKS_LOCKED, WithRemedy, finding};
use crate::inspect::inspection::{MountFacts, Volumes};
use crate::inspect::root::Root;
use crate::inspect::subvolumes;
use crate::inspect::tree::GuestTree;

const MOUNTS_MAX: usize = 256;

/// Mounts what `/etc/fstab` names, parents before children.
pub(crate) fn compose(
    tree: &mut GuestTree,
    root: &Root,
    volumes: Volumes<'_>,
    machine: Option<&MachineDescription>,
    findings: &mut Vec<Finding>,
) -> Result<Vec<MountFacts>> {
    let names = DeviceNames::new(volumes, machine);
    let fstab = tree
        .text("/etc/fstab")?
        .map(|file| file.text)
        .unwrap_or_default();
    let mut entries = entries(&fstab);
    entries.sort_by_key(|entry| entry.target.matches('/').count());
    let mut mounts = vec![MountFacts {
        mount_point: "/".to_owned(),
        volume: root.volume,
        spec: None,
        directory: root.directory.clone(),
    }];
    for Mounted {
        spec,
        target,
        options,
    } in entries.into_iter().take(MOUNTS_MAX)
    {
        if target == "/" {
            mounts[0].spec = Some(spec);
            continue;
        }
        let Some(volume) = names.resolve(&spec) else {
            findings.extend(unresolved(&spec, &target, volumes));
            continue;
        };
        // Another entry for a path that is mounted already hides nothing here.
        if mounts.iter().any(|mount| mount.mount_point == target) {
            continue;
        }
        let options = options.iter().map(String::as_str);
        let Some(directory) = subvolumes::mounted(&tree.subvolumes(volume)?, options) else {
            findings.push(no_subvolume(&spec, &target));
            continue;
        };
        if tree.mount_directory(&target, volume, &directory) {
            mounts.push(MountFacts {
                mount_point: target,
                volume,
                spec: Some(spec),
                directory,
            });
        }
    }
    Ok(mounts)
}

/// A line of fstab that mounts something.
struct Mounted {
    spec: String,
    target: String,
    options: Vec<String>,
}

fn entries(fstab: &str) -> Vec<Mounted> {
    let table = Fstab::parse(fstab.as_bytes());
    let mounted = table
        .entries()
        .filter(|entry| entry.file.starts_with('/') && entry.kind != "swap");
    let lines = mounted.map(|entry| Mounted {
        spec: entry.spec,
        target: match entry.file.trim_end_matches('/') {
            "" => "/".to_owned(),
            target => target.to_owned(),
        },
        options: entry.options,
    });
    lines.collect()
}

fn no_subvolume(spec: &str, target: &str) -> Finding {
    let problem = format!("{spec} has no such subvolume");
    finding(
        Level::Warning,
        "fstab.subvolume.missing",
        format!("/etc/fstab: {target}"),
        problem,
    )
    .remedy("correct `subvol=` or `subvolid=` on the server")
}

/// What the conversion itself needs must be found; the rest is the guest's affair.
fn unresolved(spec: &str, target: &str, volumes: Volumes<'_>) -> Option<Finding> {
    match stability(spec) {
        Stability::NotADevice => None,
        _ if matches!(target, "/boot" | "/boot/efi" | "/usr" | "/etc") => {
            let (code, remedy) = why_unresolved(volumes);
            let place = format!("/etc/fstab: {target}");
            let problem = format!("{spec} is on none of the image's disks that we can read");
            Some(finding(Level::Error, code, place, problem).remedy(remedy))
        }
        _ => None,
    }
}

/// What can hide a volume: an encrypted one that is locked, others that cannot be put together.
fn why_unresolved(volumes: Volumes<'_>) -> (&'static str, &'static str) {
    let unused = volumes.contents().filter(|(id, _)| !volumes.is_part(*id));
    let kinds: Vec<FilesystemKind> = unused.map(|(_, content)| content.kind).collect();
    let all_disks = "take all disks of the server into the image";
    if kinds.contains(&FilesystemKind::Luks) {
        let remedy = "give the key of the encrypted volume: `--key UUID=FILE`, `--key ask`, or `keys` \
                      in relevo.toml";
        return (LUKS_LOCKED, remedy);
    }
    let is_stacked = [FilesystemKind::Lvm2Member, FilesystemKind::MdMember];
    match kinds.iter().any(|kind| is_stacked.contains(kind)) {
        true => ("storage.stacked", all_disks),
        false => ("fstab.device.unknown", all_disks),
    }
}
