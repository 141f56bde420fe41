// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which bytes of a physical volume are in use: what a copy of it must have.

use std::ops::Range;

use crate::filesystem::merged;

use super::label::Label;
use super::metadata::Group;
use super::segment::SegmentKind;

/// The label may stand in any of the first sectors, and a boot loader before it.
const HEAD_BYTES: u64 = 4096;

/// The bytes in use of physical volume `index`, ascending, within a device of that length.
pub(super) fn ranges(
    group: &Group,
    index: usize,
    label: &Label,
    device_bytes: u64,
) -> Vec<Range<u64>> {
    let physical = &group.physical[index];
    let mut ranges = vec![0..HEAD_BYTES, physical.boot_area.clone()];
    ranges.extend(label.metadata_areas.iter().cloned());
    ranges.extend(label.boot_areas.iter().cloned());
    for segment in group.logical.iter().flat_map(|volume| &volume.segments) {
        if let SegmentKind::Other {
            may_use_extents: true,
            ..
        } = segment.kind
        {
            // It may lie anywhere.
            ranges.push(physical.first_extent_at..u64::MAX);
        }
        for (owner, extent, length) in segment.physical_areas() {
            if owner == index {
                let start = physical.extent_at(extent, group.extent_bytes);
                ranges.push(start..start.saturating_add(length));
            }
        }
    }
    merged(ranges, device_bytes)
}
