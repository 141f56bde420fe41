// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which volume is the guest's root.
//!
//! A root has an init system and `/etc/fstab` or os-release. Where several have (a rescue system,
//! an older release on another partition), the one that its own GRUB configuration names wins. Of
//! the subvolumes of a btrfs, of which snapshots are roots too, it is the one that its own GRUB or
//! fstab names, else the default one.

use disk::filesystem::FilesystemKind;
use disk::filesystem::btrfs::Subvolume;
use disk::{Finding, Level};

use crate::error::Result;
use crate::guest::fstab::Fstab;
use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::guest_names;
use crate::inspect::inspection::{VolumeId, Volumes};
use crate::inspect::subvolumes;
use crate::inspect::tree::GuestTree;

/// Snapshots by the thousand are no roots that somebody starts.
const SUBVOLUMES_TRIED_MAX: usize = 256;

/// A root: a volume, and the directory of its filesystem that is mounted (a subvolume, else `""`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) volume: VolumeId,
    pub(crate) directory: String,
}

/// What speaks for a root, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    /// Its own boot loader's configuration names it.
    Loader,
    /// Its own fstab names its subvolume.
    Fstab,
    /// It is what is mounted where nothing is said.
    Default,
    /// It looks like one.
    Looks,
}

/// Finds the root and makes it the tree's; says in a finding why there is none, unless it may be on a
/// volume that is locked.
pub(crate) fn find(
    tree: &mut GuestTree,
    volumes: Volumes<'_>,
    is_locked: bool,
    findings: &mut Vec<Finding>,
) -> Result<Option<Root>> {
    let mut candidates = Vec::new();
    for volume in tree.volumes() {
        candidates.extend(best_of(tree, volume, volumes)?);
    }
    // The first of those that start themselves, else the first.
    candidates.sort_by_key(|(evidence, root)| (*evidence != Evidence::Loader, root.volume));
    let Some((_, root)) = candidates.first().cloned() else {
        tree.clear_mounts();
        if !is_locked {
            findings.extend(why_no_root(volumes));
        }
        return Ok(None);
    };
    tree.set_root_to(root.volume, &root.directory);
    if candidates.len() > 1 {
        let others: Vec<String> = candidates
            .iter()
            .skip(1)
            .map(|(_, other)| volumes.name(other.volume))
            .collect();
        findings.push(
            finding(
                Level::Warning,
                "guest.root.several",
                volumes.name(root.volume),
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

/// The root on a volume, of the best of its subvolumes if it has such.
fn best_of(
    tree: &mut GuestTree,
    volume: VolumeId,
    volumes: Volumes<'_>,
) -> Result<Option<(Evidence, Root)>> {
    let mut best: Option<(Evidence, Root)> = None;
    let known = tree.subvolumes(volume)?;
    for directory in directories(&known) {
        tree.set_root_to(volume, &directory);
        if !is_root(tree)? {
            continue;
        }
        let root = Root { volume, directory };
        let evidence = evidence(tree, &root, &known, volumes)?;
        if best.as_ref().is_none_or(|(before, _)| evidence < *before) {
            best = Some((evidence, root));
        }
    }
    Ok(best)
}

/// What may be mounted as the root: all that can be written, and the default one.
fn directories(subvolumes: &[Subvolume]) -> Vec<String> {
    if subvolumes.is_empty() {
        return vec![String::new()];
    }
    let tried = subvolumes
        .iter()
        .filter(|subvolume| subvolume.is_default || !subvolume.read_only);
    tried
        .take(SUBVOLUMES_TRIED_MAX)
        .map(subvolumes::directory)
        .collect()
}

fn evidence(
    tree: &GuestTree,
    root: &Root,
    known: &[Subvolume],
    volumes: Volumes<'_>,
) -> Result<Evidence> {
    if starts_itself(tree, root, known, volumes)? {
        return Ok(Evidence::Loader);
    }
    let fstab = tree.text("/etc/fstab")?;
    let fstab = Fstab::parse(fstab.map(|file| file.text).unwrap_or_default().as_bytes());
    let own = fstab.entries().find(|entry| entry.file == "/");
    let options = own.map(|entry| entry.options).unwrap_or_default();
    let mounted = subvolumes::mounted(known, options.iter().map(String::as_str));
    let is_it = mounted.as_ref() == Some(&root.directory);
    Ok(match (is_it, subvolumes::is_chosen(&options.join(","))) {
        (true, true) => Evidence::Fstab,
        (true, false) => Evidence::Default,
        (false, _) => Evidence::Looks,
    })
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

/// Whether this root's own GRUB entries name this root, and its subvolume.
fn starts_itself(
    tree: &GuestTree,
    root: &Root,
    known: &[Subvolume],
    volumes: Volumes<'_>,
) -> Result<bool> {
    let named = guest_names::named(tree, Some(root.volume), volumes)?;
    let volumes = Volumes {
        assembled: &named,
        ..volumes
    };
    let names = DeviceNames::new(volumes, None);
    let configuration = match tree.text("/boot/grub/grub.cfg")? {
        None if !known.is_empty() => tree.text("/boot/grub2/grub.cfg")?,
        found => found,
    };
    let Some(configuration) = configuration else {
        return Ok(false);
    };
    let values = |key: &'static str| {
        let words = configuration.text.split_whitespace();
        words.filter_map(move |word| word.strip_prefix(key))
    };
    let mut roots = values("root=");
    let is_named = roots.any(|spec| names.resolve(spec) == Some(root.volume));
    // Of flags that say nothing of a subvolume, fstab knows as much.
    let mut flags = values("rootflags=").filter(|flags| subvolumes::is_chosen(flags));
    let is_mounted = known.is_empty()
        || flags.any(|flags| {
            let mounted = subvolumes::mounted(known, flags.split(','));
            mounted.as_ref() == Some(&root.directory)
        });
    Ok(is_named && is_mounted)
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
        FilesystemKind::Ntfs => Some(("filesystem.ntfs", "an NTFS filesystem")),
        _ => None,
    }
}
