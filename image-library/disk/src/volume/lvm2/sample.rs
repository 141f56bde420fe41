// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical volumes made by hand: what LVM's tools cannot be asked for, and what they would never
//! write.

use std::ops::Range;
use std::sync::Arc;

use crate::block::{MemoryDevice, WriteAt};

use super::{Scan, checksum, scan};

/// Where the first metadata area of every [`Disk`] lies.
pub(crate) const AREA: Range<u64> = 4096..4096 + 65536;
/// Where the first extent of a [`Disk`] begins, in sectors as the metadata says it.
pub(crate) const FIRST_EXTENT_SECTORS: u64 = 256;

/// A physical volume that is being made.
pub(crate) struct Disk {
    bytes: Vec<u8>,
    areas: Vec<Range<u64>>,
    boot_areas: Vec<Range<u64>>,
    uuid: char,
}

impl Disk {
    /// A physical volume whose UUID is one character, 32 times.
    pub(crate) fn new(uuid: char, length: usize) -> Self {
        let disk = Self {
            bytes: vec![0; length],
            areas: Vec::new(),
            boot_areas: Vec::new(),
            uuid,
        };
        disk.area(AREA)
    }

    /// One that keeps no metadata.
    pub(crate) fn without_areas(mut self) -> Self {
        self.areas.clear();
        self
    }

    pub(crate) fn boot_area(mut self, area: Range<u64>) -> Self {
        self.boot_areas.push(area);
        self
    }

    /// Adds an empty metadata area.
    pub(crate) fn area(mut self, area: Range<u64>) -> Self {
        let start = area.start as usize;
        let header = &mut self.bytes[start..start + 512];
        header[4..20].copy_from_slice(b"\x20LVM2\x20x[5A%r0N*>");
        header[20] = 1;
        header[24..32].copy_from_slice(&area.start.to_le_bytes());
        header[32..40].copy_from_slice(&(area.end - area.start).to_le_bytes());
        seal_area(header);
        self.areas.push(area);
        self
    }

    /// Puts a text into the area that was added last, at an offset from its start.
    pub(crate) fn text_at(mut self, text: &str, offset: u64) -> Self {
        let area = self.areas.last().expect("there is an area").clone();
        let text = format!("{text}\0");
        for (index, byte) in text.bytes().enumerate() {
            let mut at = offset + index as u64;
            if at >= area.end - area.start {
                at = at - (area.end - area.start) + 512;
            }
            self.bytes[(area.start + at) as usize] = byte;
        }
        let header = &mut self.bytes[area.start as usize..area.start as usize + 512];
        header[40..48].copy_from_slice(&offset.to_le_bytes());
        header[48..56].copy_from_slice(&(text.len() as u64).to_le_bytes());
        header[56..60].copy_from_slice(&checksum::of_lvm(text.as_bytes()).to_le_bytes());
        seal_area(header);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.text_at(text, 512)
    }

    /// Fills an extent of 64 KiB.
    pub(crate) fn extent(mut self, number: u64, content: &[u8]) -> Self {
        let at = (FIRST_EXTENT_SECTORS * 512 + number * 65536) as usize;
        self.bytes[at..at + content.len()].copy_from_slice(content);
        self
    }

    /// The finished device.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u64;
        let sector = &mut self.bytes[512..1024];
        sector[..8].copy_from_slice(b"LABELONE");
        sector[8] = 1;
        sector[20] = 32;
        sector[24..32].copy_from_slice(b"LVM2 001");
        sector[32..64].fill(self.uuid as u8);
        sector[64..72].copy_from_slice(&length.to_le_bytes());
        let data = FIRST_EXTENT_SECTORS * 512..FIRST_EXTENT_SECTORS * 512;
        let none = 0..0;
        let lists = [data, none.clone()]
            .into_iter()
            .chain(self.areas)
            .chain([none]);
        let mut at = 72;
        for area in lists {
            sector[at..at + 8].copy_from_slice(&area.start.to_le_bytes());
            sector[at + 8..at + 16].copy_from_slice(&(area.end - area.start).to_le_bytes());
            at += 16;
        }
        sector[at] = 2;
        at += 8;
        for area in self.boot_areas {
            sector[at..at + 8].copy_from_slice(&area.start.to_le_bytes());
            sector[at + 8..at + 16].copy_from_slice(&(area.end - area.start).to_le_bytes());
            at += 16;
        }
        seal_label(sector);
        self.bytes
    }

    pub(crate) fn device(self) -> Arc<dyn WriteAt> {
        Arc::new(MemoryDevice::from(self.bytes()))
    }
}

/// Makes the checksum of a label right.
pub(crate) fn seal_label(sector: &mut [u8]) {
    let sum = checksum::of_lvm(&sector[20..512]);
    sector[16..20].copy_from_slice(&sum.to_le_bytes());
}

/// Makes the checksum of a metadata area's header right.
pub(crate) fn seal_area(header: &mut [u8]) {
    let sum = checksum::of_lvm(&header[4..512]);
    header[..4].copy_from_slice(&sum.to_le_bytes());
}

/// A UUID of one character, as the metadata has it.
pub(crate) fn uuid(character: char) -> String {
    [6, 4, 4, 4, 4, 4, 6]
        .map(|length| String::from(character).repeat(length))
        .join("-")
}

/// The metadata of the group `vg`: extents of 64 KiB, physical volumes `pv0`, `pv1`, ... with the
/// UUIDs `a`, `b`, ..., 16 extents each, and the logical volumes as their text.
pub(crate) fn group(seqno: u32, physical_volumes: usize, logical_volumes: &str) -> String {
    let mut physical = String::new();
    for (index, letter) in ('a'..='y').take(physical_volumes).enumerate() {
        let id = uuid(letter);
        physical += &format!(
            "pv{index} {{ id = \"{id}\" device = \"/dev/sd{letter}\" status = [\"ALLOCATABLE\"]\n\
             pe_start = {FIRST_EXTENT_SECTORS} pe_count = 16 }}\n"
        );
    }
    let id = uuid('V');
    format!(
        "vg {{ id = \"{id}\" seqno = {seqno} format = \"lvm2\" status = [\"RESIZEABLE\", \"READ\"]\n\
         extent_size = 128\nphysical_volumes {{\n{physical}}}\n\
         logical_volumes {{\n{logical_volumes}}}\n}}\ncontents = \"Text Format Volume Group\"\n"
    )
}

/// One logical volume; `segments` are pairs of a length in extents and the rest of the segment.
pub(crate) fn logical(name: &str, status: &str, segments: &[(u64, &str)]) -> String {
    let mut text = format!("{name} {{ id = \"{}\" status = [{status}]\n", uuid('L'));
    let mut start = 0;
    for (index, (extents, rest)) in segments.iter().enumerate() {
        text += &format!(
            "segment{} {{ start_extent = {start} extent_count = {extents} {rest} }}\n",
            index + 1
        );
        start += extents;
    }
    text + "}\n"
}

/// Looks at devices as the only candidates.
#[expect(
    clippy::needless_pass_by_value,
    reason = "tests make the list where they call it"
)]
pub(crate) fn scanned<const N: usize>(devices: [Arc<dyn WriteAt>; N]) -> Scan {
    scan(&devices)
}
