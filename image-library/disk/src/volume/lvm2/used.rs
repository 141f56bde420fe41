// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which bytes of a physical volume are in use: what a copy of it must have.
//!
//! Everything outside of extents is: labels, metadata and boot loader areas, what rounding leaves
//! over. Of extents those that a logical volume has. Of a *plain* logical volume (linear or striped on
//! physical volumes, and no part of any other volume) it may be known which of its bytes are in use;
//! every other one uses all of its extents.
//!
//! **Limits:** stripes over 16 physical volumes, four million ranges inside the volumes of a group;
//! beyond, all of a volume counts as in use.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::filesystem::merged;

use super::metadata::{Group, Logical};
use super::segment::{Segment, SegmentKind, Volume};

const STRIPES_MAX: usize = 16;
/// Beyond this, what is in use inside of further volumes is not kept.
pub(super) const RANGES_MAX: usize = 4 << 20;
/// What is understood of the status of a group and of a volume. A group that several servers share has
/// another word instead of `WRITE`.
const GROUP_STATUS: [&str; 3] = ["RESIZEABLE", "READ", "WRITE"];
const VOLUME_STATUS: [&str; 4] = ["READ", "WRITE", "VISIBLE", "FIXED_MINOR"];

/// What of the logical volumes is in use, ascending, by their indexes; all of one that is not here.
pub(super) type Inside = BTreeMap<usize, Vec<Range<u64>>>;

/// The bytes in use of physical volume `index`, ascending, within a device of that length.
///
/// `own` are the areas that its label names.
pub(super) fn ranges(
    group: &Group,
    index: usize,
    own: impl Iterator<Item = Range<u64>>,
    (device_bytes, inside): (u64, &Inside),
) -> Vec<Range<u64>> {
    let physical = &group.physical[index];
    let extents_end = physical.extent_at(physical.extent_count, group.extent_bytes);
    let mut ranges = vec![
        0..physical.first_extent_at,
        physical.boot_area.clone(),
        extents_end..u64::MAX,
    ];
    ranges.extend(own);
    for (number, volume) in group.logical.iter().enumerate() {
        for segment in &volume.segments {
            if may_lie_anywhere(segment) {
                ranges.push(physical.first_extent_at..u64::MAX);
            }
            for area in segment.physical_areas().filter(|area| area.volume == index) {
                let start = physical.extent_at(area.extent, group.extent_bytes);
                let shift = |at: u64| start.saturating_add(at);
                match inside.get(&number) {
                    None => ranges.push(start..shift(area.length_bytes)),
                    Some(used) => ranges.extend(
                        column_ranges(segment, area.column, used)
                            .map(|used| shift(used.start)..shift(used.end)),
                    ),
                }
            }
        }
    }
    merged(ranges, device_bytes)
}

fn may_lie_anywhere(segment: &Segment) -> bool {
    matches!(
        segment.kind,
        SegmentKind::Other {
            may_use_extents: true,
            ..
        }
    )
}

/// What of one area of a striped segment is in use when `used` of its volume is.
fn column_ranges(
    segment: &Segment,
    column: usize,
    used: &[Range<u64>],
) -> impl Iterator<Item = Range<u64>> {
    let (count, chunk) = match &segment.kind {
        SegmentKind::Striped {
            areas,
            stripe_bytes,
        } if areas.len() > 1 => (areas.len() as u64, (*stripe_bytes).max(1)),
        _ => (1, segment.length_bytes().max(1)),
    };
    let row = chunk.saturating_mul(count);
    let before_column = chunk.saturating_mul(column as u64);
    // How many bytes of the area hold what lies before `at` in the volume. What is one run in the
    // volume is one run in each area, too.
    let place = move |at: u64| {
        let at = at - segment.bytes.start;
        at / row * chunk + (at % row).saturating_sub(before_column).min(chunk)
    };
    let first = used.partition_point(|range| range.end <= segment.bytes.start);
    let overlapping = used[first..].iter();
    let overlapping = overlapping.take_while(|range| range.start < segment.bytes.end);
    overlapping
        .map(move |range| {
            let start = range.start.max(segment.bytes.start);
            place(start)..place(range.end.min(segment.bytes.end))
        })
        .filter(|range| !range.is_empty())
}

/// Which logical volumes of a group are plain; none where the group is not understood entirely.
///
/// `device_bytes` are the lengths of its physical volumes, where they are there.
pub(super) fn plain_volumes(group: &Group, device_bytes: &[Option<u64>]) -> Option<Vec<usize>> {
    let segments = || group.logical.iter().flat_map(|volume| &volume.segments);
    let is_whole = group.physical.iter().zip(device_bytes).all(|(pv, length)| {
        let end = pv.extent_at(pv.extent_count, group.extent_bytes);
        length.is_some_and(|length| end <= length)
    });
    if !is_whole
        || !is_within(&group.status, &GROUP_STATUS)
        || segments().any(may_lie_anywhere)
        || areas_overlap(group)
    {
        return None;
    }
    let parts: BTreeSet<usize> = segments().flat_map(Segment::logical_volumes).collect();
    let volumes = group.logical.iter().enumerate();
    let plain = volumes.filter(|(index, volume)| !parts.contains(index) && is_plain(volume));
    Some(plain.map(|(index, _)| index).collect())
}

fn is_within(status: &[String], known: &[&str]) -> bool {
    status.iter().all(|status| known.contains(&status.as_str()))
}

fn is_plain(volume: &Logical) -> bool {
    let is_striped = |segment: &Segment| match &segment.kind {
        SegmentKind::Striped { areas, .. } => {
            let mut volumes = areas.iter().map(|area| area.volume);
            areas.len() <= STRIPES_MAX && volumes.all(|v| matches!(v, Volume::Physical(_)))
        }
        _ => false,
    };
    volume.has_status("VISIBLE")
        && is_within(&volume.status, &VOLUME_STATUS)
        && volume.segments.iter().all(is_striped)
}

/// Whether two volumes have an extent in common, which LVM never makes: each would say of it what it
/// is to the one.
fn areas_overlap(group: &Group) -> bool {
    let segments = group.logical.iter().flat_map(|volume| &volume.segments);
    let mut areas: Vec<(usize, Range<u64>)> = segments
        .flat_map(Segment::physical_areas)
        .map(|area| {
            let extents = area.length_bytes.div_ceil(group.extent_bytes);
            let end = area.extent.saturating_add(extents);
            (area.volume, area.extent..end)
        })
        .collect();
    areas.sort_unstable_by_key(|(volume, extents)| (*volume, extents.start));
    let mut pairs = areas.windows(2);
    pairs.any(|pair| matches!(pair, [(a, one), (b, next)] if a == b && next.start < one.end))
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "lists of one range are meant"
)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use super::super::VolumeGroup;
    use super::super::sample::{Disk, FIRST_EXTENT_SECTORS, group, logical, scanned};
    use crate::block::{ReadAt, WriteAt};

    const EXTENT: u64 = 65536;
    const DISK_BYTES: u64 = 18 * EXTENT + 5000;
    const FIRST: u64 = FIRST_EXTENT_SECTORS * 512;
    const SHOWN: &str = "\"READ\", \"WRITE\", \"VISIBLE\"";

    fn disks(logical_volumes: &str) -> [Arc<dyn WriteAt>; 3] {
        let text = group(7, 3, logical_volumes);
        ['a', 'b', 'c'].map(|letter| Disk::new(letter, DISK_BYTES as usize).text(&text).device())
    }

    fn group_on(disks: &[Arc<dyn WriteAt>; 3]) -> VolumeGroup {
        let scan = scanned(disks.clone());
        assert_eq!(scan.findings, []);
        scan.groups.into_iter().next().expect("a group")
    }

    fn striped(volumes: &[(&str, u64)], stripe_sectors: u64) -> String {
        let stripes = volumes
            .iter()
            .map(|(name, extent)| format!("\"{name}\", {extent}"));
        format!(
            "type = \"striped\" stripe_count = {} stripe_size = {stripe_sectors} stripes = [{}]",
            volumes.len(),
            stripes.collect::<Vec<_>>().join(", ")
        )
    }

    fn linear(name: &str, status: &str, volume: &str, extent: u64, extents: u64) -> String {
        logical(
            name,
            status,
            &[(extents, &striped(&[(volume, extent)], 128))],
        )
    }

    fn content(device: &dyn ReadAt) -> Vec<u8> {
        let mut bytes = vec![0; device.length_bytes() as usize];
        device.read_exact_at(0, &mut bytes).expect("readable");
        bytes
    }

    /// What is in use of a physical volume, only of its extents.
    fn of_extents(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let extents = FIRST..FIRST + 16 * EXTENT;
        let cut = |range: &Range<u64>| range.start.max(extents.start)..range.end.min(extents.end);
        ranges
            .iter()
            .map(cut)
            .filter(|range| !range.is_empty())
            .collect()
    }

    #[test]
    fn what_is_in_use_of_a_volume_lies_where_the_volume_writes_it() {
        let text = logical(
            "data",
            SHOWN,
            &[
                (2, &striped(&[("pv1", 3)], 0)),
                (6, &striped(&[("pv0", 1), ("pv1", 7), ("pv2", 0)], 8)),
                (4, &striped(&[("pv2", 9), ("pv0", 8)], 32)),
            ],
        );
        let sets: [&[Range<u64>]; 7] = [
            &[0..12 * EXTENT],
            &[],
            &[0..1],
            &[
                2 * EXTENT - 1..2 * EXTENT + 1,
                5 * EXTENT + 5000..5 * EXTENT + 5001,
            ],
            &[100..200, 4095..4097, 3 * EXTENT..3 * EXTENT + 40_000],
            &[
                2 * EXTENT + 4096..2 * EXTENT + 8192,
                8 * EXTENT - 10..8 * EXTENT + 16 * 1024 + 7,
            ],
            &[12 * EXTENT - 1..12 * EXTENT],
        ];
        for used in sets {
            let disks = disks(&text);
            let blank = disks.clone().map(|disk| content(&*disk));
            let group = group_on(&disks);
            let volume = group.logical_volume("data").expect("it is there").open();
            let volume = volume.expect("all of it is there");
            for range in used {
                let bytes = vec![0xff; (range.end - range.start) as usize];
                volume.write_all_at(range.start, &bytes).expect("inside");
            }
            let maps = group.used_ranges_inside(|_| Some(used.to_vec()));
            for (disk, ranges) in maps.expect("it is understood") {
                let mut expected = blank[disk].clone();
                for range in of_extents(&ranges) {
                    expected[range.start as usize..range.end as usize].fill(0xff);
                }
                assert!(
                    content(&*disks[disk]) == expected,
                    "{used:?} on {disk}: {ranges:?}"
                );
                assert_eq!(ranges.first().map(|first| first.start), Some(0));
                let end = FIRST + 16 * EXTENT..DISK_BYTES;
                assert!(
                    ranges
                        .iter()
                        .any(|r| r.start <= end.start && r.end == end.end)
                );
            }
        }
    }

    /// Which volumes are asked for, or `None` where the group is in use as a whole.
    fn asked(logical_volumes: &str) -> Option<Vec<String>> {
        let mut names = Vec::new();
        let maps = group_on(&disks(logical_volumes)).used_ranges_inside(|volume| {
            names.push(volume.name().to_owned());
            Some(Vec::new())
        });
        maps.map(|_| names)
    }

    #[test]
    fn only_volumes_that_are_nothing_else_are_looked_into() {
        let plain = linear("plain", SHOWN, "pv0", 0, 2);
        let is_asked = |other: &str| {
            let asked = asked(&(plain.clone() + other)).expect("it is understood");
            assert!(asked.contains(&"plain".to_owned()), "{other}");
            asked.len() > 1
        };
        assert!(is_asked(&linear("other", SHOWN, "pv1", 0, 2)));
        let read_only = "\"READ\", \"VISIBLE\"";
        assert!(is_asked(&linear("other", read_only, "pv1", 0, 2)));
        for status in [
            "\"READ\", \"WRITE\"",
            "\"READ\", \"WRITE\", \"VISIBLE\", \"LOCKED\"",
            "\"READ\", \"WRITE\", \"VISIBLE\", \"PVMOVE\"",
            "\"READ\", \"WRITE\", \"VISIBLE\", \"OF_THE_FUTURE\"",
        ] {
            assert!(!is_asked(&linear("other", status, "pv1", 0, 2)), "{status}");
        }
        let part = linear("other", SHOWN, "pv1", 0, 2);
        for of_it in [
            linear("whole", SHOWN, "other", 0, 2),
            logical(
                "whole",
                SHOWN,
                &[(
                    2,
                    "type = \"mirror\" mirror_count = 1 mirrors = [\"other\", 0]",
                )],
            ),
            logical(
                "snap",
                SHOWN,
                &[(
                    2,
                    "type = \"snapshot\" origin = \"other\" cow_store = \"other\" chunk_size = 8",
                )],
            ),
            logical(
                "thin",
                SHOWN,
                &[(2, "type = \"thin\" thin_pool = \"other\" device_id = 1")],
            ),
            logical(
                "pool",
                SHOWN,
                &[(
                    2,
                    "type = \"thin-pool\" metadata = \"other\" pool = \"other\" chunk_size = 128",
                )],
            ),
            logical(
                "raid",
                SHOWN,
                &[(2, "type = \"raid1\" device_count = 1 raids = [\"other\"]")],
            ),
            logical(
                "mirror",
                SHOWN,
                &[(
                    2,
                    "type = \"mirror\" mirror_count = 1 mirrors = [\"pv2\", 0]",
                )],
            ),
        ] {
            let text = match of_it.starts_with("mirror") {
                true => of_it,
                false => part.clone() + &of_it,
            };
            assert!(!is_asked(&text), "{text}");
        }
        let many = [("pv1", 0); 17].iter().enumerate();
        let many: Vec<_> = many
            .map(|(index, (name, _))| (*name, index as u64 % 16))
            .collect();
        let wide = logical("wide", SHOWN, &[(17, &striped(&many, 8))]);
        assert_eq!(asked(&wide), None, "extents are there twice");
    }

    #[test]
    fn a_group_that_is_not_understood_is_in_use_as_a_whole() {
        let plain = linear("plain", SHOWN, "pv0", 0, 2);
        let with = |other: &str| asked(&(plain.clone() + other));
        assert_eq!(with(""), Some(vec!["plain".to_owned()]));
        let unknown = logical("new", SHOWN, &[(1, "type = \"of-the-future\"")]);
        assert_eq!(with(&unknown), None);
        let cached = logical("cached", SHOWN, &[(1, "type = \"cache\"")]);
        assert_eq!(with(&cached), Some(vec!["plain".to_owned()]));
        assert_eq!(with(&linear("same", SHOWN, "pv0", 1, 2)), None);
        let group_of = |text: &str| {
            let devices = ['a', 'b', 'c'].map(|letter| {
                let length = if letter == 'c' {
                    17 * EXTENT
                } else {
                    DISK_BYTES
                };
                Disk::new(letter, length as usize).text(text).device()
            });
            group_on(&devices).used_ranges_inside(|_| None)
        };
        assert_eq!(
            group_of(&group(7, 3, &plain)),
            None,
            "the third is too small"
        );
        assert!(group_of(&group(7, 2, &plain)).is_some());
        let shared = group(7, 2, &plain).replace("\"RESIZEABLE\"", "\"WRITE_LOCKED\"");
        assert_eq!(group_of(&shared), None);
    }
}
