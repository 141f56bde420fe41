// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of a disk is worth reading: everything but the space that a filesystem says it does not
//! use.
//!
//! Outside of partitions everything is read: boot loaders live there. A partition whose
//! filesystem is not known, whose structures are broken, or which changes while it is read, is
//! read whole: its map would be older than its bytes. The first 64 KiB of a partition are always
//! read, because boot code there belongs to no file. Where partitions overlap, what one of them
//! needs is read.

use std::ops::Range;
use std::sync::Arc;

use disk::filesystem::used_extents;
use disk::partition::{PartitionType, partition, read_partition_table};
use disk::{Finding, Level, Monitor, ReadAt};

use crate::error::Result;
use crate::source::Source;

/// Boot code of a partition, and the superblock of most filesystems.
const PARTITION_HEAD_BYTES: u64 = 64 << 10;
/// Types of partitions that only contain others.
const EXTENDED_TYPES: [u8; 3] = [0x05, 0x0f, 0x85];

/// A partition, with what it uses where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Area {
    range: Range<u64>,
    /// Relative to the partition; `None`: all of it.
    used: Option<Vec<Range<u64>>>,
}

/// Ascending, merged ranges of bytes of the disk.
pub(super) fn worth_reading(source: &Source, monitor: &dyn Monitor) -> Result<Vec<Range<u64>>> {
    let disk_bytes = source.device.length_bytes();
    let areas = match read_partition_table(&source.device, source.sector_size) {
        Ok(table) if table.partitions.is_empty() => whole_disk(source, monitor),
        Ok(table) => {
            table.findings.iter().for_each(|f| monitor.finding(f));
            let parts = table
                .partitions
                .iter()
                .filter(|part| match part.partition_type {
                    PartitionType::Mbr(byte) => !EXTENDED_TYPES.contains(&byte),
                    PartitionType::Gpt(_) => true,
                });
            let area = |part: &disk::partition::Partition| Area {
                range: part.start_bytes..part.end_bytes().min(disk_bytes),
                used: used_of_partition(source, part, monitor),
            };
            parts.map(area).collect()
        }
        Err(error) => {
            monitor.finding(&unreadable(
                "agent.snapshot.table-unread",
                &source.name,
                &error,
            ));
            Vec::new()
        }
    };
    Ok(needed(disk_bytes, &areas))
}

fn unreadable(code: &str, place: &str, error: &disk::Error) -> Finding {
    Finding {
        level: Level::Warning,
        code: code.to_owned(),
        place: place.to_owned(),
        problem: format!("{error}; all of it is read"),
        remedy: None,
    }
}

/// A filesystem without a partition table under it.
fn whole_disk(source: &Source, monitor: &dyn Monitor) -> Vec<Area> {
    if !source.busy_partitions.is_empty() {
        return Vec::new();
    }
    let used = used_or_all(&*source.device, &source.name, monitor);
    vec![Area {
        range: 0..source.device.length_bytes(),
        used,
    }]
}

fn used_of_partition(
    source: &Source,
    part: &disk::partition::Partition,
    monitor: &dyn Monitor,
) -> Option<Vec<Range<u64>>> {
    let busy = &source.busy_partitions;
    if busy.contains(&0) || busy.contains(&part.number.get()) {
        return None;
    }
    // A partition that ends beyond the disk was told with the table; what there is of it is read.
    let device: Arc<dyn ReadAt> = Arc::new(partition(&source.device, part).ok()?);
    let place = format!("{}, partition {}", source.name, part.number);
    used_or_all(&*device, &place, monitor)
}

fn used_or_all(device: &dyn ReadAt, place: &str, monitor: &dyn Monitor) -> Option<Vec<Range<u64>>> {
    match used_extents(device) {
        Ok(used) => used,
        Err(error) => {
            monitor.finding(&unreadable("agent.snapshot.map-unread", place, &error));
            None
        }
    }
}

/// The union of what no area covers and of what each area needs.
fn needed(disk_bytes: u64, areas: &[Area]) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    for area in areas {
        let head = area.range.start..area.range.start.saturating_add(PARTITION_HEAD_BYTES);
        match &area.used {
            None => ranges.push(area.range.clone()),
            Some(used) => {
                ranges.push(head);
                let shift = |at: u64| area.range.start.saturating_add(at).min(area.range.end);
                ranges.extend(used.iter().map(|used| shift(used.start)..shift(used.end)));
            }
        }
    }
    let covered = merged(
        areas.iter().map(|area| area.range.clone()).collect(),
        disk_bytes,
    );
    let mut end_of_last = 0;
    for range in covered {
        ranges.push(end_of_last..range.start);
        end_of_last = range.end;
    }
    ranges.push(end_of_last..disk_bytes);
    merged(ranges, disk_bytes)
}

/// Sorted, cut at the end of the disk, without overlaps.
fn merged(mut ranges: Vec<Range<u64>>, disk_bytes: u64) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end.min(disk_bytes));
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let end = range.end.min(disk_bytes);
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(end),
            _ => merged.push(range.start..end),
        }
    }
    merged
}

/// Byte ranges as runs of chunks: a chunk of which any byte is needed is read whole.
pub(super) fn chunk_runs(ranges: &[Range<u64>], chunk_bytes: u64) -> Vec<Range<u64>> {
    let in_chunks = ranges
        .iter()
        .map(|range| range.start / chunk_bytes..range.end.div_ceil(chunk_bytes))
        .collect();
    merged(in_chunks, u64::MAX)
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "lists of one range are meant"
)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn area(range: Range<u64>, used: Option<&[Range<u64>]>) -> Area {
        Area {
            range,
            used: used.map(<[_]>::to_vec),
        }
    }

    #[test]
    fn a_disk_without_known_filesystems_is_read_whole() {
        assert_eq!(needed(10 * MIB, &[]), [0..10 * MIB]);
        assert_eq!(needed(10 * MIB, &[area(MIB..4 * MIB, None)]), [0..10 * MIB]);
    }

    #[test]
    fn unused_space_of_a_filesystem_is_left_out_and_gaps_are_not() {
        let used = [0..4096, MIB..MIB + 4096];
        let areas = [area(MIB..8 * MIB, Some(&used))];
        assert_eq!(
            needed(10 * MIB, &areas),
            [0..MIB + 65_536, 2 * MIB..2 * MIB + 4096, 8 * MIB..10 * MIB]
        );
    }

    #[test]
    fn where_partitions_overlap_what_one_needs_is_read() {
        let areas = [area(MIB..8 * MIB, Some(&[])), area(4 * MIB..5 * MIB, None)];
        assert_eq!(needed(8 * MIB, &areas), [0..MIB + 65_536, 4 * MIB..5 * MIB]);
    }

    #[test]
    fn a_map_or_partition_beyond_the_disk_is_cut() {
        let areas = [area(MIB..u64::MAX, Some(&[0..u64::MAX]))];
        assert_eq!(needed(2 * MIB, &areas), [0..2 * MIB]);
    }

    #[test]
    fn ranges_become_runs_of_whole_chunks() {
        let runs = chunk_runs(&[0..1, 65_535..65_537, 300_000..300_001], 65_536);
        assert_eq!(runs, [0..2, 4..5]);
    }
}
