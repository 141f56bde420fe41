// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of multipath maps (`/dev/mapper/mpatha1`), which stand for a disk that has several paths to
//! it on the server, and one in a virtual machine.

use crate::guest::multipath_conf::MultipathAlias;

/// A name of a multipath map or of a partition of it.
///
/// | name | made by |
/// |---|---|
/// | `mpatha1`, `mpathap1`, `mpath0p1` | RHEL 7, 6, 5 |
/// | `mpatha-part1`, `mpatha_part1` | Debian and SUSE |
/// | `3600508b1001c0a1b2c3d4e5f60718293` and the same ends | without friendly names |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapName<'a> {
    pub(crate) name: &'a str,
    pub(crate) wwid: Option<&'a str>,
    pub(crate) partition: Option<u32>,
}

impl<'a> MapName<'a> {
    /// `None` for what is no name of a map that multipath makes.
    pub(crate) fn parse(spec: &'a str, aliases: &'a [MultipathAlias]) -> Option<Self> {
        let name = spec.strip_prefix("/dev/")?;
        if let Some(link) = name.strip_prefix("disk/by-id/dm-uuid-") {
            let (part, wwid) = link.split_once("mpath-")?;
            let number = part.strip_prefix("part").map(|n| n.trim_end_matches('-'));
            let partition = match number {
                Some(number) => Some(number.parse().ok()?),
                None => None,
            };
            return Some(Self {
                name: wwid,
                wwid: Some(wwid),
                partition,
            });
        }
        let name = ["mapper/", "mpath/", "disk/by-id/dm-name-"]
            .iter()
            .find_map(|directory| name.strip_prefix(directory))?;
        if let Some(map) = Self::of_map(name, None, aliases) {
            return Some(map);
        }
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name.get(stem.len()..).unwrap_or_default();
        let partition = Some(number.parse::<u32>().ok()?);
        ["-part", "_part", "p", ""]
            .iter()
            .filter_map(|between| stem.strip_suffix(between))
            .find_map(|stem| Self::of_map(stem, partition, aliases))
    }

    fn of_map(
        name: &'a str,
        partition: Option<u32>,
        aliases: &'a [MultipathAlias],
    ) -> Option<Self> {
        let known = aliases.iter().find(|known| known.alias == name);
        let wwid = known.map(|known| known.wwid.as_str());
        let wwid = wwid.or_else(|| is_wwid(name).then_some(name));
        let is_friendly = name.strip_prefix("mpath").is_some_and(|rest| {
            let lettered = rest.bytes().all(|b| b.is_ascii_lowercase());
            // RHEL 5 counts, and then a number alone is no partition.
            let counted = rest.bytes().all(|b| b.is_ascii_digit());
            !rest.is_empty() && (lettered || counted)
        });
        (known.is_some() || wwid.is_some() || is_friendly).then_some(Self {
            name,
            wwid,
            partition,
        })
    }
}

/// What `scsi_id` prints: the kind's number, then 16 or 32 hexadecimal digits.
fn is_wwid(name: &str) -> bool {
    matches!(name.len(), 17 | 33)
        && name.starts_with(['2', '3'])
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `scsi-3600..`, `wwn-0x600..`, `dm-uuid-mpath-3600..`.
pub(crate) fn link_has_wwid(link: &str, wwid: &str) -> bool {
    let value = ["scsi-", "dm-uuid-mpath-"]
        .iter()
        .find_map(|prefix| link.strip_prefix(prefix));
    value == Some(wwid)
        || link
            .strip_prefix("wwn-")
            .is_some_and(|wwn| same_wwn(wwn, wwid))
}

/// A WWID of `scsi_id` is a World Wide Name behind the number of its kind.
pub(crate) fn same_wwn(wwn: &str, wwid: &str) -> bool {
    let plain = ["0x", "naa.", "eui."]
        .iter()
        .find_map(|prefix| wwn.strip_prefix(prefix))
        .unwrap_or(wwn);
    !plain.is_empty()
        && wwid
            .get(1..)
            .is_some_and(|id| id.eq_ignore_ascii_case(plain))
}
