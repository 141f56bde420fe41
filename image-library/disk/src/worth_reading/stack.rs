// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in use of partitions that filesystems do not lie on directly.
//!
//! ```text
//! partitions, disks without any -> md RAID1 -> LVM2, linear or striped -> filesystem, swap
//! ```
//! Everything else is used whole: other levels of RAID, arrays and groups that are not complete or to
//! which something is to be remarked; volumes with snapshots, thin, cached, mirrored or being moved;
//! volumes that hold partitions or further volumes; LUKS, of which only who has the key knows more.
//! Superblocks, labels, bitmaps and metadata of the volumes are always in use.

use std::ops::Range;
use std::sync::Arc;

use crate::block::{ReadAt, SectorSize, WriteAt};
use crate::filesystem::{FilesystemKind, Identity, detect, merged};
use crate::monitor::Monitor;
use crate::partition::read_partition_table;
use crate::volume::ReadOnly;
use crate::volume::lvm2::{self, LogicalVolume};
use crate::volume::md::{self, Array};

use super::{PARTITION_HEAD_BYTES, used_or_all};

/// Ranges in use, ascending; `None`: all of it.
type Used = Option<Vec<Range<u64>>>;

/// A device that may hold a filesystem or be a part of a volume.
#[derive(Debug)]
pub(super) struct Part {
    device: Arc<dyn ReadAt>,
    sector_size: SectorSize,
    /// What findings call it.
    place: String,
    identity: Option<Identity>,
}

impl Part {
    pub(super) fn new(device: Arc<dyn ReadAt>, sector_size: SectorSize, place: String) -> Self {
        Self {
            // An error is told when the part is mapped.
            identity: detect(&device).ok().flatten(),
            device,
            sector_size,
            place,
        }
    }

    /// What its filesystem uses, and all that is behind the filesystem: the metadata of DRBD lie
    /// there, for one, which looks like a filesystem otherwise.
    fn used(&self, monitor: &dyn Monitor) -> Used {
        let length = self.device.length_bytes();
        let mut used = used_or_all(&self.device, &self.place, monitor)?;
        let size = self.identity.as_ref().and_then(|found| found.size_bytes);
        used.push(size.unwrap_or(length)..length);
        Some(merged(used, length))
    }

    /// The same of a volume, which may be the disk of a virtual machine or hold others.
    fn used_as_volume(&self, monitor: &dyn Monitor) -> Used {
        let table = read_partition_table(&self.device, self.sector_size);
        if !table.is_ok_and(|table| table.partitions.is_empty()) {
            return None;
        }
        let mut used = self.used(monitor)?;
        used.push(0..PARTITION_HEAD_BYTES);
        Some(merged(used, self.device.length_bytes()))
    }
}

/// A mirror, as the part that it is itself.
struct Mirror {
    array: Array,
    part: usize,
}

/// What is in use of each part.
pub(super) fn used(mut parts: Vec<Part>, monitor: &dyn Monitor) -> Vec<Used> {
    let members = of_kind(&parts, FilesystemKind::MdMember);
    let mirrors = mirrors(&mut parts, &members);
    let is_array = |index: usize| mirrors.iter().any(|mirror| mirror.part == index);
    let mut used: Vec<Used> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| match is_array(index) {
            true => part.used_as_volume(monitor),
            false => part.used(monitor),
        })
        .collect();
    for (part, ranges) in of_groups(&parts, monitor) {
        used[part] = Some(ranges);
    }
    for Mirror { array, part } in &mirrors {
        let inside = used[*part].as_deref();
        let ranges = inside.and_then(|inside| array.used_ranges(inside));
        for (candidate, ranges) in ranges.into_iter().flatten() {
            used[members[candidate]] = Some(ranges);
        }
    }
    used
}

fn of_kind(parts: &[Part], kind: FilesystemKind) -> Vec<usize> {
    let indexes = 0..parts.len();
    indexes
        .filter(|index| {
            let identity = parts[*index].identity.as_ref();
            identity.is_some_and(|found| found.kind == kind)
        })
        .collect()
}

fn devices(parts: &[Part], indexes: &[usize]) -> Vec<Arc<dyn WriteAt>> {
    let devices = indexes
        .iter()
        .map(|index| Arc::clone(&parts[*index].device));
    devices
        .map(|device| Arc::new(ReadOnly::new(device)) as Arc<dyn WriteAt>)
        .collect()
}

/// The mirrors that are understood, which become parts.
fn mirrors(parts: &mut Vec<Part>, members: &[usize]) -> Vec<Mirror> {
    let arrays = md::assemble(&devices(parts, members)).arrays;
    let mut mirrors = Vec::new();
    for array in arrays.into_iter().filter(Array::is_clean_mirror) {
        let first = array.members.first();
        // Of one that cannot be opened the members stay used whole.
        let (Some(first), Ok(device)) = (first, array.open()) else {
            continue;
        };
        let sector_size = parts[members[first.candidate]].sector_size;
        parts.push(Part::new(device, sector_size, array.place()));
        let part = parts.len() - 1;
        mirrors.push(Mirror { array, part });
    }
    mirrors
}

/// The physical volumes of the groups that are understood, with what of them is in use.
fn of_groups(parts: &[Part], monitor: &dyn Monitor) -> Vec<(usize, Vec<Range<u64>>)> {
    let members = of_kind(parts, FilesystemKind::Lvm2Member);
    let scan = lvm2::scan(&devices(parts, &members));
    let Some(first) = members.first().filter(|_| scan.findings.is_empty()) else {
        return Vec::new();
    };
    let sector_size = parts[*first].sector_size;
    let groups = scan.groups.iter().filter_map(|group| {
        let of_logical = |volume: &LogicalVolume| {
            let place = format!("{}/{}", group.name(), volume.name());
            // Of one that cannot be opened all extents are in use.
            let device = volume.open().ok()?;
            Part::new(device, sector_size, place).used_as_volume(monitor)
        };
        group.used_ranges_inside(of_logical)
    });
    groups
        .flatten()
        .map(|(candidate, ranges)| (members[candidate], ranges))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;
    use crate::monitor::Recorder;
    use crate::volume::lvm2::sample::{Disk, group, logical};

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    /// Where the data of a member begin.
    const DATA: u64 = 256 * KIB;

    /// A member of a mirror of two, with a superblock of version 1.2.
    fn member(role: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; DATA as usize];
        let fields: [(usize, &[u8]); 14] = [
            (0, &0xa92b_4efc_u32.to_le_bytes()),
            (4, &[1]),
            (16, &[9; 16]),
            (72, &[1]),
            (80, &(data.len() as u64 / 512).to_le_bytes()),
            (92, &[2]),
            (128, &(DATA / 512).to_le_bytes()),
            (136, &(data.len() as u64 / 512).to_le_bytes()),
            (144, &[8]),
            (160, &[role]),
            (200, &[17]),
            (208, &[0xff; 8]),
            (220, &[2]),
            (258, &[1]),
        ];
        for (at, field) in fields {
            bytes[4096 + at..4096 + at + field.len()].copy_from_slice(field);
        }
        let words = bytes[4096..4096 + 260].chunks_exact(4);
        let sum: u64 = words
            .map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])))
            .sum();
        let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
        bytes[4096 + 216..4096 + 220].copy_from_slice(&sum.to_le_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len() + 70_000, 0);
        bytes
    }

    /// A physical volume of 16 extents of 64 KiB from 128 KiB on: twelve are swap space.
    fn physical_volume() -> Vec<u8> {
        let segment = "type = \"striped\" stripe_count = 1 stripes = [\"pv0\", 2]";
        let shown = "\"READ\", \"WRITE\", \"VISIBLE\"";
        let text = group(3, 1, &logical("swap", shown, &[(12, segment)]));
        let mut swap = vec![0; 65536];
        swap[1024] = 1;
        swap[1028..1032].copy_from_slice(&191_u32.to_le_bytes());
        swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
        let disk = Disk::new('a', 1216 * KIB as usize).text(&text);
        disk.extent(2, &swap).bytes()
    }

    fn used_of(devices: Vec<Vec<u8>>) -> Vec<Used> {
        let part = |bytes: Vec<u8>| {
            let device = Arc::new(MemoryDevice::from(bytes));
            Part::new(device, SectorSize::B512, "disk".to_owned())
        };
        let recorder = Recorder::default();
        let mut used = used(devices.into_iter().map(part).collect(), &recorder);
        assert_eq!(recorder.findings(), []);
        // Arrays follow.
        used.truncate(2);
        used
    }

    #[test]
    fn a_volume_on_a_mirror_is_looked_into_through_both() {
        let data = physical_volume();
        let used = used_of(vec![member(0, &data), member(1, &data)]);
        let end = DATA + 1216 * KIB + 70_000;
        // Superblock and label, the first 64 KiB of the volume in the third extent, what is behind the
        // last extent.
        let expected = vec![
            0..DATA + 128 * KIB,
            DATA + 256 * KIB..DATA + 320 * KIB,
            DATA + 1152 * KIB..end,
        ];
        assert_eq!(used, [Some(expected.clone()), Some(expected)]);
        assert_eq!(used_of(vec![member(0, &data)]), [None]);
        let mut stale = member(1, &data);
        stale[4096 + 216] ^= 1;
        assert_eq!(used_of(vec![member(0, &data), stale]), [None, None]);
    }

    #[test]
    fn a_volume_that_holds_partitions_is_used_whole() {
        let mut data = physical_volume();
        let volume = 256 * KIB as usize;
        data[volume + 510..volume + 512].copy_from_slice(&[0x55, 0xaa]);
        data[volume + 446 + 4] = 0x83;
        data[volume + 446 + 8] = 8;
        data[volume + 446 + 12] = 8;
        let of_disk = vec![0..128 * KIB, 256 * KIB..MIB, 1152 * KIB..1216 * KIB];
        assert_eq!(used_of(vec![data.clone()]), [Some(of_disk)]);
        let mirror = vec![member(0, &data), member(1, &data)];
        let of_member = used_of(mirror).remove(0).expect("it is known");
        assert!(
            of_member.contains(&(DATA + 256 * KIB..DATA + MIB)),
            "{of_member:?}"
        );
    }

    #[test]
    fn what_lies_behind_a_filesystem_is_in_use() {
        let mut bytes = vec![0; 4 * MIB as usize];
        bytes[1024] = 1;
        bytes[1028..1032].copy_from_slice(&511_u32.to_le_bytes());
        bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
        let expected = vec![0..4096, 2 * MIB..4 * MIB];
        assert_eq!(used_of(vec![bytes]), [Some(expected)]);
    }
}
