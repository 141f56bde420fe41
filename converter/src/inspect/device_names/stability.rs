// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of a name when the hardware changes: a tag names content, a kernel's name does not.

use super::kernel_name::KernelName;
use crate::inspect::map_name::MapName;

/// What becomes of a name when the hardware changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stability {
    /// It names content, and stays true: `UUID=`, `LABEL=`.
    Stable,
    /// It names hardware, and will be wrong: `/dev/sda1`, by-id, by-path.
    Volatile,
    /// A device stacked on others: LVM, md, device mapper.
    Stacked,
    /// Not a block device: `tmpfs`, `server:/export`.
    NotADevice,
}

/// What becomes of a name when the hardware changes.
pub(crate) fn stability(spec: &str) -> Stability {
    if tag_of(spec).is_some() {
        return Stability::Stable;
    }
    let Some(name) = spec.strip_prefix("/dev/") else {
        return Stability::NotADevice;
    };
    let link = name
        .strip_prefix("disk/by-id/")
        .or_else(|| name.strip_prefix("disk/by-path/"));
    if let Some(link) = link {
        let stacked = ["dm-", "md-", "lvm-"].iter().any(|p| link.starts_with(p));
        return if stacked {
            Stability::Stacked
        } else {
            Stability::Volatile
        };
    }
    if KernelName::parse(name).is_some() {
        return Stability::Volatile;
    }
    let other = [
        "fd", "sr", "cdrom", "scd", "dvd", "loop", "ram", "zram", "shm", "pts",
    ];
    if other.iter().any(|prefix| name.starts_with(prefix)) {
        return Stability::NotADevice;
    }
    Stability::Stacked
}

/// Whether a name is one that the kernel gives by the order in which disks are found, or a link by
/// hardware.
pub(crate) fn is_volatile(spec: &str) -> bool {
    MapName::parse(spec, &[]).is_some() || stability(spec) == Stability::Volatile
}

/// `UUID="x"` and `/dev/disk/by-uuid/x` as the pair of tag and value.
pub(super) fn tag_of(spec: &str) -> Option<(&'static str, String)> {
    const TAGS: [(&str, &str, &str); 4] = [
        ("UUID", "UUID=", "/dev/disk/by-uuid/"),
        ("LABEL", "LABEL=", "/dev/disk/by-label/"),
        ("PARTUUID", "PARTUUID=", "/dev/disk/by-partuuid/"),
        ("PARTLABEL", "PARTLABEL=", "/dev/disk/by-partlabel/"),
    ];
    for (tag, prefix, directory) in TAGS {
        if let Some(value) = spec.strip_prefix(prefix) {
            return Some((tag, value.trim_matches(['"', '\'']).to_owned()));
        }
        if let Some(value) = spec.strip_prefix(directory) {
            return Some((tag, unescape(value)));
        }
    }
    None
}

/// Undoes udev's `\x20` in link names.
fn unescape(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail
            .strip_prefix(b"x")
            .and_then(|hex| hex.get(..2))
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
