// SPDX-License-Identifier: MIT OR Apache-2.0
//! Composes the guest's tree as its fstab says.

use disk::filesystem::FilesystemKind;
use disk::{Finding, Level};
use image_library::machine::MachineDescription;

use crate::error::Result;
use crate::guest::fstab::Fstab;
use crate::inspect::device_names::{DeviceNames, Stability, stability};
use crate::inspect::findings::{WithRemedy, finding};
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
        _ if matches!(target, "/boot" | "/boot/efi" | "/usr" | "/etc") => Some(
            finding(
                Level::Error,
                if has_stacked(volumes) {
                    "storage.stacked"
                } else {
                    "fstab.device.unknown"
                },
                format!("/etc/fstab: {target}"),
                format!("{spec} is on none of the image's disks that we can read"),
            )
            .remedy("take all disks of the server into the image"),
        ),
        _ => None,
    }
}

fn has_stacked(volumes: Volumes<'_>) -> bool {
    volumes.contents().any(|(_, content)| {
        matches!(
            content.kind,
            FilesystemKind::Lvm2Member | FilesystemKind::MdMember | FilesystemKind::Luks
        )
    })
}
