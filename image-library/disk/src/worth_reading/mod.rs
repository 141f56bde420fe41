// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of disks is worth reading: everything but the space that a filesystem says it does not
//! use, on partitions and on volumes that lie on them.
//!
//! Outside of partitions everything is read: boot loaders live there. A partition whose
//! filesystem is not known, whose structures are broken, or which changes while it is read, is
//! read whole: its map would be older than its bytes. The first 64 KiB of a partition are always
//! read, because boot code there belongs to no file. Where partitions overlap, what one of them
//! needs is read. A disk of a firmware's RAID is read whole: what its partitions seem to hold may
//! be every other stripe of it. What is seen through LVM2 and md is told in [`stack`].
//!
//! **Invariant:** the ranges are ascending and apart, and end at the end of the disk at the latest.

mod stack;

use std::ops::Range;
use std::sync::Arc;

use crate::block::{ReadAt, SectorSize};
use crate::error::Error;
use crate::filesystem::{merged, used_extents};
use crate::finding::{Finding, Level};
use crate::monitor::Monitor;
use crate::partition::{Partition, partition, read_partition_table};
use crate::volume::md::firmware;

use stack::Part;

/// Boot code of a partition, and the superblock of most filesystems.
const PARTITION_HEAD_BYTES: u64 = 64 << 10;

/// A disk that is to be read, and what of it changes meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct DiskToRead<'a> {
    /// Its bytes.
    pub device: &'a Arc<dyn ReadAt>,
    /// Its logical sector size.
    pub sector_size: SectorSize,
    /// What findings call it.
    pub name: &'a str,
    /// Numbers of the partitions that change while they are read; 0 for the disk itself.
    pub busy_partitions: &'a [u32],
}

/// Which bytes of each disk are worth reading; what cannot be mapped is read whole, and a finding
/// where its structures are broken.
///
/// A volume that also lies on disks that are not given is read whole.
pub fn worth_reading(disks: &[DiskToRead<'_>], monitor: &dyn Monitor) -> Vec<Vec<Range<u64>>> {
    let mut parts = Vec::new();
    let areas: Vec<Vec<Area>> = disks
        .iter()
        .map(|disk| disk.areas(&mut parts, monitor))
        .collect();
    let used = stack::used(parts, monitor);
    let pairs = disks.iter().zip(&areas);
    pairs
        .map(|(disk, areas)| needed(disk.device.length_bytes(), areas, &used))
        .collect()
}

/// A partition, or a disk without any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Area {
    range: Range<u64>,
    /// Which part of the stack it is; `None`: all of it is read.
    part: Option<usize>,
}

impl DiskToRead<'_> {
    /// The partitions, of which those that can be mapped join the parts.
    fn areas(&self, parts: &mut Vec<Part>, monitor: &dyn Monitor) -> Vec<Area> {
        match read_partition_table(self.device, self.sector_size) {
            Ok(table) if table.partitions.is_empty() => vec![self.whole(parts)],
            Ok(table) => {
                table.findings.iter().for_each(|f| monitor.finding(f));
                // What cannot be read here will be told when it is read.
                let is_striped = !matches!(firmware::detect(self.device), Ok(None));
                let partitions = table.partitions.iter();
                partitions
                    .filter(|part| !part.partition_type.is_extended() && !is_striped)
                    .map(|part| self.area(part, parts))
                    .collect()
            }
            Err(error) => {
                monitor.finding(&read_whole("disk.table.unreadable", self.name, &error));
                Vec::new()
            }
        }
    }

    /// A disk without partitions: a filesystem may be on all of it.
    fn whole(&self, parts: &mut Vec<Part>) -> Area {
        let device = Arc::clone(self.device);
        let part = self.busy_partitions.is_empty().then(|| {
            let place = self.name.to_owned();
            self.join(parts, device, place)
        });
        Area {
            range: 0..self.device.length_bytes(),
            part,
        }
    }

    fn area(&self, part: &Partition, parts: &mut Vec<Part>) -> Area {
        let is_busy = |number| self.busy_partitions.contains(&number);
        // A partition that ends beyond the disk was told with the table; what there is of it is
        // read.
        let index = match partition(self.device, part) {
            Ok(device) if !is_busy(0) && !is_busy(part.number.get()) => {
                let place = format!("{}, partition {}", self.name, part.number);
                Some(self.join(parts, Arc::new(device), place))
            }
            _ => None,
        };
        Area {
            range: part.start_bytes..part.end_bytes(),
            part: index,
        }
    }

    fn join(&self, parts: &mut Vec<Part>, device: Arc<dyn ReadAt>, place: String) -> usize {
        parts.push(Part::new(device, self.sector_size, place));
        parts.len() - 1
    }
}

fn used_or_all(device: &dyn ReadAt, place: &str, monitor: &dyn Monitor) -> Option<Vec<Range<u64>>> {
    used_extents(device).unwrap_or_else(|error| {
        monitor.finding(&read_whole("filesystem.map-unreadable", place, &error));
        None
    })
}

fn read_whole(code: &str, place: &str, error: &Error) -> Finding {
    Finding {
        level: Level::Warning,
        code: code.to_owned(),
        place: place.to_owned(),
        problem: format!("{error}; all of it is read"),
        remedy: None,
    }
}

/// The union of what no area covers and of what each area needs.
fn needed(disk_bytes: u64, areas: &[Area], used: &[Option<Vec<Range<u64>>>]) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    for Area { range, part } in areas {
        let used = part.and_then(|part| used.get(part)?.as_ref());
        let Some(used) = used else {
            ranges.push(range.clone());
            continue;
        };
        let shift = |at: u64| range.start.saturating_add(at).min(range.end);
        ranges.push(range.start..shift(PARTITION_HEAD_BYTES));
        ranges.extend(used.iter().map(|used| shift(used.start)..shift(used.end)));
    }
    let all = areas.iter().map(|area| area.range.clone()).collect();
    let mut end_of_last = 0;
    for covered in merged(all, disk_bytes) {
        ranges.push(end_of_last..covered.start);
        end_of_last = covered.end;
    }
    ranges.push(end_of_last..disk_bytes);
    merged(ranges, disk_bytes)
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "lists of one range are meant"
)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;
    use crate::monitor::Recorder;

    const MIB: u64 = 1 << 20;
    const HEAD: u64 = PARTITION_HEAD_BYTES;

    type Mapped<'a> = (Range<u64>, Option<&'a [Range<u64>]>);

    /// Of a disk with these areas and what is in use of each.
    fn needed(disk_bytes: u64, mapped: &[Mapped<'_>]) -> Vec<Range<u64>> {
        let areas = mapped.iter().enumerate().map(|(index, (range, _))| Area {
            range: range.clone(),
            part: Some(index),
        });
        let used = mapped.iter().map(|(_, used)| used.map(<[_]>::to_vec));
        let (areas, used): (Vec<_>, Vec<_>) = (areas.collect(), used.collect());
        super::needed(disk_bytes, &areas, &used)
    }

    #[test]
    fn a_disk_without_known_filesystems_is_needed_whole() {
        assert_eq!(needed(10 * MIB, &[]), [0..10 * MIB]);
        assert_eq!(needed(10 * MIB, &[(MIB..4 * MIB, None)]), [0..10 * MIB]);
    }

    #[test]
    fn unused_space_of_a_filesystem_is_left_out_and_gaps_are_not() {
        let used = [0..4096, MIB..MIB + 4096];
        let areas = [(MIB..8 * MIB, Some(&used[..]))];
        assert_eq!(
            needed(10 * MIB, &areas),
            [0..MIB + HEAD, 2 * MIB..2 * MIB + 4096, 8 * MIB..10 * MIB]
        );
    }

    #[test]
    fn where_partitions_overlap_what_one_needs_is_read() {
        let areas = [(MIB..8 * MIB, Some(&[][..])), (4 * MIB..5 * MIB, None)];
        assert_eq!(needed(8 * MIB, &areas), [0..MIB + HEAD, 4 * MIB..5 * MIB]);
    }

    #[test]
    fn a_map_or_partition_beyond_the_disk_is_cut() {
        let areas = [(MIB..u64::MAX, Some(&[0..u64::MAX][..]))];
        assert_eq!(needed(2 * MIB, &areas), [0..2 * MIB]);
    }

    /// 16 MiB: swap, which uses its first page only, and a FAT that lies about itself; an extended
    /// partition with swap in it.
    fn disk() -> Vec<u8> {
        let mut disk = vec![0; 16 << 20];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        entry(&mut disk, 0, 0, 0x82, MIB, 4 * MIB);
        entry(&mut disk, 0, 1, 0x0c, 5 * MIB, MIB);
        entry(&mut disk, 0, 2, 0x05, 8 * MIB, 8 * MIB);
        let record = 8 * MIB as usize;
        disk[record + 510..record + 512].copy_from_slice(&[0x55, 0xaa]);
        entry(&mut disk, record, 0, 0x82, MIB, 4 * MIB);
        swap(&mut disk, MIB as usize);
        swap(&mut disk, 9 * MIB as usize);
        disk
    }

    fn entry(disk: &mut [u8], record: usize, index: usize, kind: u8, start: u64, length: u64) {
        let at = record + 446 + 16 * index;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&((length / 512) as u32).to_le_bytes());
    }

    fn swap(disk: &mut [u8], at: usize) {
        disk[at + 1024] = 1;
        disk[at + 1028..at + 1032].copy_from_slice(&1023_u32.to_le_bytes());
        disk[at + 4086..at + 4096].copy_from_slice(b"SWAPSPACE2");
    }

    /// An ext superblock whose block size is impossible.
    fn broken_ext(disk: &mut [u8], at: usize) {
        disk[at + 0x438..at + 0x43a].copy_from_slice(&0xef53_u16.to_le_bytes());
        disk[at + 0x418..at + 0x41c].copy_from_slice(&99_u32.to_le_bytes());
    }

    /// What is worth reading, and code and place of the findings.
    fn read(bytes: Vec<u8>, busy_partitions: &[u32]) -> (Vec<Range<u64>>, Vec<(String, String)>) {
        let device: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(bytes));
        let disk = DiskToRead {
            device: &device,
            sector_size: SectorSize::B512,
            name: "sda",
            busy_partitions,
        };
        let recorder = Recorder::default();
        let ranges = worth_reading(&[disk], &recorder).remove(0);
        let findings = recorder.findings().into_iter();
        (ranges, findings.map(|f| (f.code, f.place)).collect())
    }

    #[test]
    fn free_space_of_partitions_and_logical_partitions_is_left_out() {
        let (ranges, findings) = read(disk(), &[]);
        assert_eq!(
            ranges,
            [0..MIB + HEAD, 5 * MIB..9 * MIB + HEAD, 13 * MIB..16 * MIB]
        );
        assert_eq!(findings, []);
    }

    #[test]
    fn a_busy_partition_and_all_of_a_busy_disk_are_read_whole() {
        let (ranges, _) = read(disk(), &[1]);
        assert_eq!(ranges, [0..9 * MIB + HEAD, 13 * MIB..16 * MIB]);
        assert_eq!(read(disk(), &[0]).0, [0..16 * MIB]);
    }

    #[test]
    fn a_broken_filesystem_is_a_finding_and_read_whole() {
        let mut bytes = disk();
        broken_ext(&mut bytes, 5 * MIB as usize);
        let (ranges, findings) = read(bytes, &[]);
        assert_eq!(
            ranges,
            [0..MIB + HEAD, 5 * MIB..9 * MIB + HEAD, 13 * MIB..16 * MIB]
        );
        let expected = ("filesystem.map-unreadable", "sda, partition 2");
        assert_eq!(findings, [(expected.0.to_owned(), expected.1.to_owned())]);
    }

    #[test]
    fn a_partition_that_ends_beyond_the_disk_is_read_as_far_as_it_goes() {
        let mut bytes = disk();
        entry(&mut bytes, 0, 0, 0x82, MIB, 40 * MIB);
        let (ranges, findings) = read(bytes, &[]);
        assert_eq!(ranges, [0..16 * MIB]);
        let codes: Vec<&str> = findings.iter().map(|(code, _)| &**code).collect();
        assert!(
            codes.contains(&"disk.partition.beyond-end"),
            "found {codes:?}"
        );
    }

    #[test]
    fn a_filesystem_on_the_whole_disk_is_mapped_unless_it_is_busy() {
        let mut bytes = vec![0; 4 << 20];
        swap(&mut bytes, 0);
        assert_eq!(read(bytes.clone(), &[]), (vec![0..HEAD], vec![]));
        assert_eq!(read(bytes, &[0]).0, [0..4 * MIB]);
    }

    #[test]
    fn a_disk_of_a_firmware_raid_is_read_whole() {
        let mut bytes = disk();
        bytes[(16 << 20) - 1024..][..24].copy_from_slice(b"Intel Raid ISM Cfg Sig. ");
        assert_eq!(read(bytes, &[]).0, [0..16 * MIB]);
    }

    #[test]
    fn a_disk_too_small_for_a_table_is_a_finding_and_read_whole() {
        let (ranges, findings) = read(vec![0; 100], &[]);
        assert_eq!(ranges, [0..100]);
        let expected = ("disk.table.unreadable", "sda");
        assert_eq!(findings, [(expected.0.to_owned(), expected.1.to_owned())]);
    }
}
