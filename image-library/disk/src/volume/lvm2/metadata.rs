// SPDX-License-Identifier: MIT OR Apache-2.0
//! A volume group as its text describes it: names resolved, numbers checked, nothing read from any
//! device.
//!
//! ```text
//! vg { id seqno status extent_size                    (in sectors)
//!     physical_volumes { pv0 { id device status pe_start pe_count } }
//!     logical_volumes { root { id status tags
//!         segment1 { start_extent extent_count type ... } } } }
//! ```
//!
//! From lib/format_text/import_vsn1.c of LVM2, and for segments from the file of each type.
//!
//! **Invariants:** the segments of a logical volume follow each other without a gap, from extent 0,
//! and all indexes are valid. **Limits:** those of [`Section`]; 4096 physical volumes; 2^63 bytes a
//! volume.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, Result};

use super::config::Section;
use super::segment::{Segment, SegmentKind};

pub(super) const SECTOR_BYTES: u64 = 512;
const PHYSICAL_VOLUMES_MAX: usize = 4096;
const BYTES_MAX: u64 = 1 << 63;
pub(super) const STRUCTURE: &str = "LVM2 metadata";

/// A volume group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) seqno: u64,
    pub(super) status: Vec<String>,
    pub(super) tags: Vec<String>,
    pub(super) extent_bytes: u64,
    pub(super) physical: Vec<Physical>,
    pub(super) logical: Vec<Logical>,
}

/// A physical volume.
#[derive(Debug)]
pub(super) struct Physical {
    /// What the group calls it: `pv0`.
    pub(super) name: String,
    pub(super) uuid: String,
    /// The device that it was seen on last: `/dev/sda2`.
    pub(super) device_hint: Option<String>,
    pub(super) status: Vec<String>,
    pub(super) tags: Vec<String>,
    pub(super) first_extent_at: u64,
    pub(super) extent_count: u64,
    pub(super) boot_area: Range<u64>,
}

/// A logical volume.
#[derive(Debug)]
pub(super) struct Logical {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) status: Vec<String>,
    pub(super) tags: Vec<String>,
    pub(super) size_bytes: u64,
    pub(super) segments: Vec<Segment>,
}

/// Which index each name has.
pub(super) struct Names {
    pub(super) physical: BTreeMap<String, usize>,
    pub(super) logical: BTreeMap<String, usize>,
}

impl Group {
    /// Parses the text of a volume group.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let root = Section::parse(text)?;
        let found = root
            .sections()
            .find(|(_, section)| section.section("physical_volumes").is_some());
        let Some((name, section)) = found else {
            return Err(corrupt(
                "expected a volume group with physical volumes".to_owned(),
            ));
        };
        let empty = Section::default();
        let of = |key| section.section(key).unwrap_or(&empty);
        let (physical, logical) = (of("physical_volumes"), of("logical_volumes"));
        let extent_bytes = required(section, "extent_size", name)?
            .checked_mul(SECTOR_BYTES)
            .filter(|&bytes| bytes != 0)
            .ok_or_else(|| corrupt(format!("expected the extent size of {name} to be possible")))?;
        let names = Names {
            physical: indexes(physical),
            logical: indexes(logical),
        };
        if names.physical.len() > PHYSICAL_VOLUMES_MAX {
            return Err(Error::Limit {
                what: "physical volumes of a volume group",
                limit: PHYSICAL_VOLUMES_MAX as u64,
            });
        }
        let physical = physical
            .sections()
            .map(|(name, pv)| Physical::parse(name, pv));
        let logical = logical
            .sections()
            .map(|(name, lv)| Logical::parse(name, lv, extent_bytes, &names));
        Ok(Self {
            name: name.to_owned(),
            uuid: text_of(section, "id", name)?,
            seqno: required(section, "seqno", name)?,
            status: status(section),
            tags: section.texts("tags"),
            extent_bytes,
            physical: physical.collect::<Result<_>>()?,
            logical: logical.collect::<Result<_>>()?,
        })
    }
}

impl Physical {
    fn parse(name: &str, section: &Section) -> Result<Self> {
        let sectors = |key| {
            section
                .number(key)
                .unwrap_or(0)
                .saturating_mul(SECTOR_BYTES)
        };
        let boot_start = sectors("ba_start");
        Ok(Self {
            name: name.to_owned(),
            uuid: text_of(section, "id", name)?,
            device_hint: section.text("device").map(str::to_owned),
            status: status(section),
            tags: section.texts("tags"),
            first_extent_at: required(section, "pe_start", name)?.saturating_mul(SECTOR_BYTES),
            extent_count: required(section, "pe_count", name)?,
            boot_area: boot_start..boot_start.saturating_add(sectors("ba_size")),
        })
    }

    /// What messages call it.
    pub(super) fn describe(&self) -> String {
        match &self.device_hint {
            Some(device) => format!("{} ({}, once {device})", self.name, self.uuid),
            None => format!("{} ({})", self.name, self.uuid),
        }
    }

    /// Whether LVM has it down as missing, and so would not use it if it came back.
    pub(super) fn is_marked_missing(&self) -> bool {
        self.status.iter().any(|status| status == "MISSING")
    }

    /// Where an extent begins on the device, in bytes.
    pub(super) fn extent_at(&self, extent: u64, extent_bytes: u64) -> u64 {
        let before = extent.saturating_mul(extent_bytes);
        self.first_extent_at.saturating_add(before)
    }
}

impl Logical {
    fn parse(name: &str, section: &Section, extent_bytes: u64, names: &Names) -> Result<Self> {
        let parts = section.sections();
        let parts = parts.filter(|(key, _)| key.starts_with("segment"));
        let segments = parts.map(|(_, part)| Segment::parse(name, part, extent_bytes, names));
        let mut segments = segments.collect::<Result<Vec<_>>>()?;
        segments.sort_by_key(|segment| segment.bytes.start);
        let mut end = 0;
        for segment in &segments {
            if segment.bytes.start != end {
                return Err(corrupt(format!(
                    "expected a segment of {name} from byte {end:#x}, found {:#x}",
                    segment.bytes.start
                )));
            }
            end = segment.bytes.end;
        }
        if end > BYTES_MAX {
            return Err(Error::Limit {
                what: "bytes of a logical volume",
                limit: BYTES_MAX,
            });
        }
        Ok(Self {
            name: name.to_owned(),
            uuid: text_of(section, "id", name)?,
            status: status(section),
            tags: section.texts("tags"),
            size_bytes: end,
            segments,
        })
    }

    pub(super) fn has_status(&self, flag: &str) -> bool {
        self.status.iter().any(|status| status == flag)
    }

    /// What the first segment is, which tells what the volume is.
    pub(super) fn first_kind(&self) -> Option<&SegmentKind> {
        self.segments.first().map(|segment| &segment.kind)
    }
}

fn indexes(section: &Section) -> BTreeMap<String, usize> {
    let names = section.sections().map(|(name, _)| name.to_owned());
    names
        .enumerate()
        .map(|(index, name)| (name, index))
        .collect()
}

/// Flags of both lists: those that every LVM must know, and those that an old one may ignore.
fn status(section: &Section) -> Vec<String> {
    let mut flags = section.texts("status");
    flags.extend(section.texts("flags"));
    flags
}

pub(super) fn required(section: &Section, key: &str, owner: &str) -> Result<u64> {
    let missing = || corrupt(format!("expected the number {key} of {owner}"));
    section.number(key).ok_or_else(missing)
}

pub(super) fn text_of(section: &Section, key: &str, owner: &str) -> Result<String> {
    let missing = || corrupt(format!("expected the text {key} of {owner}"));
    section.text(key).map(str::to_owned).ok_or_else(missing)
}

/// The text has no place of its own on a device: it may stand in several areas.
pub(super) fn corrupt(problem: String) -> Error {
    Error::corrupt(STRUCTURE, 0, problem)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{group, logical};
    use super::*;

    const LINEAR: &str = "type = \"striped\" stripe_count = 1 stripes = [\"pv0\", 0]";

    #[test]
    fn a_group_is_read_with_its_sizes_in_bytes() {
        let volumes = logical("root", "\"READ\", \"VISIBLE\"", &[(2, LINEAR), (3, LINEAR)]);
        let group = Group::parse(group(7, 2, &volumes).as_bytes()).expect("it is sound");
        assert_eq!((group.name.as_str(), group.seqno), ("vg", 7));
        assert_eq!(group.extent_bytes, 65536);
        assert_eq!(group.physical[1].first_extent_at, 128 << 10);
        assert_eq!(group.physical[0].device_hint.as_deref(), Some("/dev/sda"));
        let root = &group.logical[0];
        assert_eq!(root.size_bytes, 5 * 65536);
        assert!(root.has_status("VISIBLE") && !root.has_status("WRITE"));
        assert_eq!(root.segments[1].bytes, 2 * 65536..5 * 65536);
    }

    #[test]
    fn what_is_impossible_is_refused() {
        let sound = group(1, 1, &logical("a", "", &[(1, LINEAR), (1, LINEAR)]));
        Group::parse(sound.as_bytes()).expect("it is sound");
        let cases = [
            ("physical_volumes", "others", "expected a volume group"),
            (
                "extent_size = 128",
                "extent_size = 0",
                "the extent size of vg",
            ),
            ("seqno = 1", "seqno = -1", "the number seqno of vg"),
            (
                "start_extent = 1",
                "start_extent = 2",
                "a segment of a from byte 0x10000",
            ),
            ("pe_start", "start", "the number pe_start of pv0"),
            ("[\"pv0\", 0]", "[\"pv9\", 0]", "`pv9` of a to be a volume"),
            ("[\"pv0\", 0]", "[\"pv0\"]", "a name and a number for each"),
            (
                "extent_count = 1",
                "extent_count = 9223372036854775807",
                "segment of a",
            ),
            (
                "stripe_count = 1",
                "stripe_count = 2",
                "1 areas of a, found 2",
            ),
        ];
        for (from, to, expected) in cases {
            let error = Group::parse(sound.replacen(from, to, 1).as_bytes());
            let error = error.expect_err(to).to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_gives_an_error_or_another_group() {
        let raid = "type = \"raid1\" device_count = 2 raids = [\"a\", \"a\"]";
        let text = group(1, 1, &logical("a", "", &[(1, LINEAR), (1, raid)]));
        for at in 0..text.len() {
            let _ = Group::parse(&text.as_bytes()[..at]);
            for value in [b'{', b'}', b'"', b'9', b'-', 0xff] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = value;
                let _ = Group::parse(&bytes);
            }
        }
    }
}
