// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which bytes of a FAT filesystem are in use: everything before the data area, and the clusters
//! that the first table says are taken. Clusters marked bad are not read.

use std::ops::Range;

use super::super::extents::Extents;
use super::super::superblock::fat::{BootSector, Width};
use crate::block::ReadAt;
use crate::error::Result;

/// Divisible by the size of a pair of 12-bit entries and of the wider ones.
const WINDOW_BYTES: u64 = 3 * 16384;

pub(crate) fn used_extents(device: &dyn ReadAt, boot: &BootSector) -> Result<Vec<Range<u64>>> {
    let mut used = Extents::default();
    used.push(0..boot.data_offset);
    let end = boot.clusters + 2;
    let mut cluster = 0;
    while cluster < end {
        let start = boot.width.entry_offset(cluster);
        let length = WINDOW_BYTES.min(boot.table_bytes.saturating_sub(start));
        let mut window = vec![0; length as usize];
        device.read_exact_at(boot.table_offset + start, &mut window)?;
        let next = end.min(cluster + entries_in(boot.width));
        for number in cluster.max(2)..next {
            let at = (boot.width.entry_offset(number) - start) as usize;
            if is_used(boot.width, number, &window, at) {
                let offset = boot.cluster_offset(number);
                used.push(offset..offset + boot.cluster_bytes);
            }
        }
        cluster = next;
    }
    Ok(used.finish(device.length_bytes()))
}

fn entries_in(width: Width) -> u64 {
    match width {
        Width::Bits12 => WINDOW_BYTES / 3 * 2,
        Width::Bits16 => WINDOW_BYTES / 2,
        Width::Bits32 => WINDOW_BYTES / 4,
    }
}

fn is_used(width: Width, cluster: u64, window: &[u8], at: usize) -> bool {
    let fields = crate::fields::Fields(window);
    let (entry, bad) = match width {
        Width::Bits12 if cluster.is_multiple_of(2) => (u32::from(fields.u16(at)) & 0xfff, 0xff7),
        Width::Bits12 => (u32::from(fields.u16(at)) >> 4, 0xff7),
        Width::Bits16 => (fields.u16(at).into(), 0xfff7),
        Width::Bits32 => (fields.u32(at) & 0x0fff_ffff, 0x0fff_fff7),
    };
    entry != 0 && entry != bad
}
