// SPDX-License-Identifier: MIT OR Apache-2.0
//! Composes the guest's tree as its fstab says.

use disk::filesystem::FilesystemKind;
use disk::{Finding, Level};
use image_library::machine::MachineDescription;

use crate::error::Result;
use crate::guest::fstab::Fstab;
use crate::inspect::device_names::{DeviceNames, Stability, stability};
use crate::inspect::findings::{LUKS_LOCKED, WithRemedy, finding};
use crate::inspect::inspection::{MountFacts, VolumeId, Volumes};
use crate::inspect::tree::GuestTree;

const MOUNTS_MAX: usize = 256;

/// Mounts what `/etc/fstab` names, parents before children.
pub(crate) fn compose(
    tree: &mut GuestTree,
    root: VolumeId,
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
    entries.sort_by_key(|(_, target)| target.matches('/').count());
    let mut mounts = vec![MountFacts {
        mount_point: "/".to_owned(),
        volume: root,
        spec: None,
    }];
    for (spec, target) in entries.into_iter().take(MOUNTS_MAX) {
        if target == "/" {
            mounts[0].spec = Some(spec);
            continue;
        }
        let Some(volume) = names.resolve(&spec) else {
            findings.extend(unresolved(&spec, &target, volumes));
            continue;
        };
        // Another entry for a path that is mounted already hides nothing here.
        let known = mounts.iter().any(|mount| mount.mount_point == target);
        if !known && tree.mount(&target, volume) {
            mounts.push(MountFacts {
                mount_point: target,
                volume,
                spec: Some(spec),
            });
        }
    }
    Ok(mounts)
}

/// Device and mount point of every line that mounts something.
fn entries(fstab: &str) -> Vec<(String, String)> {
    let table = Fstab::parse(fstab.as_bytes());
    let mounted = table
        .entries()
        .filter(|entry| entry.file.starts_with('/') && entry.kind != "swap");
    let pairs = mounted.map(|entry| match entry.file.trim_end_matches('/') {
        "" => (entry.spec, "/".to_owned()),
        target => (entry.spec, target.to_owned()),
    });
    pairs.collect()
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
