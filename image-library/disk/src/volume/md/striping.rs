// SPDX-License-Identifier: MIT OR Apache-2.0
//! Levels without parity: which members hold a byte, and where.
//!
//! | level | layout |
//! |---|---|
//! | linear | one member after the other |
//! | raid0 | chunks in turn; where members differ in size, zones over those that still have room |
//! | raid1 | every member holds everything |
//! | raid10 | chunks in turn, each `near` times on neighbours, all of it `far` times further on |
//!
//! Source: Linux, `drivers/md/{md-linear,raid0,raid10}.c`. RAID0 has two layouts for zones after
//! the first, because Linux 3.14 chose the member by the chunk within the zone, where older kernels
//! had counted chunks from the start of the array; since 5.4 the superblock tells which it is.

use crate::error::{Error, Result};

use super::Raid0Layout;

/// Where a run of bytes is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// For how many bytes the copies go on side by side.
    pub(super) length: u64,
    /// Position in the array and offset on that member's data, for each copy.
    pub(super) copies: Vec<(usize, u64)>,
}

/// How an array without parity spreads its bytes.
#[derive(Debug, Clone)]
pub(super) enum Striping {
    /// Where each member ends, in bytes of the array.
    Linear(Vec<u64>),
    Zones(Zones),
    Mirror {
        members: usize,
        length_bytes: u64,
    },
    Raid10(Raid10),
}

impl Striping {
    pub(super) fn linear(sizes: &[u64], rounding_bytes: u64) -> Self {
        let mut end = 0_u64;
        let ends = sizes.iter().map(|size| {
            end = end.saturating_add(rounded(*size, rounding_bytes));
            end
        });
        Self::Linear(ends.collect())
    }

    pub(super) fn length_bytes(&self) -> u64 {
        match self {
            Self::Linear(ends) => ends.last().copied().unwrap_or(0),
            Self::Zones(zones) => zones.length_bytes,
            Self::Mirror { length_bytes, .. } => *length_bytes,
            Self::Raid10(raid10) => raid10.length_bytes,
        }
    }

    /// Where the bytes from `offset`, which is inside the array, are.
    pub(super) fn locate(&self, offset: u64) -> Piece {
        match self {
            Self::Linear(ends) => {
                let member = ends.partition_point(|end| *end <= offset);
                let start = member.checked_sub(1).map_or(0, |before| ends[before]);
                Piece {
                    length: ends.get(member).map_or(0, |end| end - offset),
                    copies: vec![(member, offset - start)],
                }
            }
            Self::Zones(zones) => zones.locate(offset),
            Self::Mirror {
                members,
                length_bytes,
            } => Piece {
                length: length_bytes - offset,
                copies: (0..*members).map(|member| (member, offset)).collect(),
            },
            Self::Raid10(raid10) => raid10.locate(offset),
        }
    }
}

fn rounded(size: u64, unit: u64) -> u64 {
    match unit {
        0 => size,
        unit => size / unit * unit,
    }
}

#[derive(Debug, Clone)]
struct Zone {
    /// Of the array.
    start: u64,
    end: u64,
    /// Of each member.
    member_start: u64,
    members: Vec<usize>,
}

/// The zones of a RAID0.
#[derive(Debug, Clone)]
pub(super) struct Zones {
    list: Vec<Zone>,
    chunk_bytes: u64,
    length_bytes: u64,
    layout: Raid0Layout,
}

impl Zones {
    /// An error where the layout matters and is not known.
    pub(super) fn new(
        sizes: &[u64],
        chunk_bytes: u64,
        layout: Option<Raid0Layout>,
    ) -> Result<Self> {
        let sizes: Vec<u64> = sizes.iter().map(|s| rounded(*s, chunk_bytes)).collect();
        let mut list: Vec<Zone> = Vec::new();
        let (mut member_start, mut start) = (0, 0_u64);
        while let Some(smallest) = sizes.iter().filter(|s| **s > member_start).min() {
            let members: Vec<usize> = (0..sizes.len())
                .filter(|member| sizes[*member] > member_start)
                .collect();
            let length = (smallest - member_start).saturating_mul(members.len() as u64);
            let end = start.saturating_add(length);
            list.push(Zone {
                start,
                end,
                member_start,
                members,
            });
            (member_start, start) = (*smallest, end);
        }
        // With one member in the second zone, both layouts are the same.
        let ambiguous = list.get(1).is_some_and(|zone| zone.members.len() > 1);
        match layout {
            None if ambiguous => Err(Error::unsupported(
                "md array",
                "a RAID0 of members of different sizes that does not say how they are laid out",
            )),
            layout => Ok(Self {
                list,
                chunk_bytes,
                // The kernel rounds down once more, and in a way that is meant for powers of two.
                length_bytes: sizes.iter().map(|size| size & !(chunk_bytes - 1)).sum(),
                layout: layout.unwrap_or(Raid0Layout::Alternate),
            }),
        }
    }

    fn locate(&self, offset: u64) -> Piece {
        let index = self.list.partition_point(|zone| zone.end <= offset);
        let Some(zone) = self.list.get(index) else {
            return Piece {
                length: 0,
                copies: Vec::new(),
            };
        };
        let in_zone = offset - zone.start;
        let in_chunk = in_zone % self.chunk_bytes;
        let count = zone.members.len() as u64;
        let chunk = in_zone / self.chunk_bytes;
        let turn = match self.layout {
            Raid0Layout::Original => offset / self.chunk_bytes,
            Raid0Layout::Alternate => chunk,
        };
        let place = zone.member_start + chunk / count * self.chunk_bytes + in_chunk;
        Piece {
            length: self.chunk_bytes - in_chunk,
            copies: vec![(zone.members[(turn % count) as usize], place)],
        }
    }
}

/// The geometry of a RAID10.
#[derive(Debug, Clone)]
pub(super) struct Raid10 {
    disks: u64,
    near: u64,
    far: u64,
    /// Far copies stand right below, not in another part of the members.
    offset_layout: bool,
    far_set: u64,
    chunk_bytes: u64,
    /// From one far copy to the next.
    stride: u64,
    length_bytes: u64,
}

impl Raid10 {
    pub(super) fn new(
        layout: u32,
        disks: u32,
        chunk_bytes: u64,
        component_bytes: u64,
    ) -> Result<Self> {
        let (near, far) = (u64::from(layout & 0xff), u64::from(layout >> 8 & 0xff));
        let disks = u64::from(disks);
        let far_set = match layout >> 17 {
            0 => disks,
            1 if far > 0 => disks / far,
            2 => near * far,
            _ => 0,
        };
        if near == 0 || far == 0 || near * far > disks || far_set == 0 || far_set > disks {
            let feature = format!("the RAID10 layout {layout:#x} of {disks} members");
            return Err(Error::unsupported("md array", feature));
        }
        let offset_layout = layout & 1 << 16 != 0;
        let chunks = component_bytes / chunk_bytes / far * disks / near;
        // What of each member is used, rounded up to whole chunks.
        let used = (chunks * near * far).div_ceil(disks);
        Ok(Self {
            disks,
            near,
            far,
            offset_layout,
            far_set,
            chunk_bytes,
            stride: match offset_layout {
                true => chunk_bytes,
                false => used / far * chunk_bytes,
            },
            // The kernel computes the size again from the chunks that are used.
            length_bytes: (used / far * disks / near).saturating_mul(chunk_bytes),
        })
    }

    fn locate(&self, offset: u64) -> Piece {
        let in_chunk = offset % self.chunk_bytes;
        let chunk = offset / self.chunk_bytes * self.near;
        let mut stripe = chunk / self.disks;
        if self.offset_layout {
            stripe *= self.far;
        }
        let mut place = stripe * self.chunk_bytes + in_chunk;
        let mut device = chunk % self.disks;
        let mut copies = Vec::with_capacity((self.near * self.far) as usize);
        for _ in 0..self.near {
            let mut far_device = device;
            copies.push((device as usize, place));
            for copy in 1..self.far {
                far_device = self.next_far(far_device);
                copies.push((far_device as usize, place + copy * self.stride));
            }
            device += 1;
            if device >= self.disks {
                device = 0;
                place += self.chunk_bytes;
            }
        }
        Piece {
            length: self.chunk_bytes - in_chunk,
            copies,
        }
    }

    /// The member with the next far copy: `near` further, within a set of members where the layout
    /// divides them into sets; the last set has what remains.
    fn next_far(&self, device: u64) -> u64 {
        let rest = self.disks % self.far_set;
        let last_start = (self.disks / self.far_set - 1) * self.far_set;
        let set = device / self.far_set;
        let next = device + self.near;
        if rest != 0 && next > last_start {
            (next - last_start) % (self.far_set + rest) + last_start
        } else {
            next % self.far_set + self.far_set * set
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_layouts_of_raid0_differ_after_the_first_zone() {
        let sizes = [8, 24, 24];
        let zones = |layout| Zones::new(&sizes, 8, layout);
        assert!(zones(None).is_err());
        let at = |layout, offset| {
            let piece = Striping::Zones(zones(Some(layout)).expect("known")).locate(offset);
            (piece.length, piece.copies[0])
        };
        assert_eq!(at(Raid0Layout::Original, 20), (4, (2, 4)));
        assert_eq!(at(Raid0Layout::Original, 24), (8, (2, 8)));
        assert_eq!(at(Raid0Layout::Alternate, 24), (8, (1, 8)));
        assert_eq!(at(Raid0Layout::Alternate, 55), (1, (2, 23)));
        let one = Zones::new(&[8, 24], 8, None).expect("both are the same");
        assert_eq!(one.locate(28).copies, [(1, 20)]);
    }

    #[test]
    fn impossible_raid10_layouts_are_refused() {
        for layout in [0, 0x100, 0x001, 0x105, 0x505, 7 << 17 | 0x102, u32::MAX] {
            assert!(
                Raid10::new(layout, 4, 4096, 1 << 20).is_err(),
                "{layout:#x}"
            );
        }
        assert!(Raid10::new(0x102, 4, 4096, 1 << 20).is_ok());
    }
}
