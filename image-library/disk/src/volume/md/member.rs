// SPDX-License-Identifier: MIT OR Apache-2.0
//! The members of an array as devices: where their data begins, and which of it must not be read.
//!
//! A member that is being rebuilt holds nothing yet beyond a point; the bad block log names blocks
//! whose content was lost. Both are written all the same: what is written there harms nobody, and
//! the kernel goes on from where it stood.
//!
//! | bits of an entry of the log | field |
//! |---|---|
//! | 0 to 9 | units that are bad |
//! | 10 to 63 | where, in units from the start of the device |

use std::sync::Arc;

use crate::block::{Extent, ReadAt, WriteAt, array_at};
use crate::error::{Error, Result};
use crate::fields::read_block;

use super::superblock::{BadBlockLog, SECTOR_BYTES, Superblock, corrupt};

/// The kernel gives the log 8 sectors; 128 KiB is what the field can say with room to spare.
const BAD_BLOCK_LOG_MAX: u64 = 128 * 1024;

/// Whether bytes can be read, and for how many this is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    readable: bool,
    length: u64,
}

/// One device of an array; offsets are counted from the start of its data.
#[derive(Debug, Clone)]
pub(super) struct MemberDevice {
    device: Arc<dyn WriteAt>,
    data_offset: u64,
    in_sync_bytes: u64,
    /// Start and end of what must not be read, in order.
    bad: Vec<(u64, u64)>,
}

impl MemberDevice {
    pub(super) fn new(device: &Arc<dyn WriteAt>, superblock: &Superblock) -> Result<Self> {
        let log = superblock.bad_blocks;
        Ok(Self {
            device: Arc::clone(device),
            data_offset: superblock.data_offset,
            in_sync_bytes: superblock.recovered_bytes.unwrap_or(u64::MAX),
            bad: match log {
                Some(log) => bad_blocks(device, log, superblock.data_offset)?,
                None => Vec::new(),
            },
        })
    }

    pub(super) fn has_bad_blocks(&self) -> bool {
        !self.bad.is_empty()
    }

    fn run_at(&self, offset: u64) -> Run {
        if offset >= self.in_sync_bytes {
            return Run {
                readable: false,
                length: u64::MAX - offset,
            };
        }
        let next = self.bad.iter().find(|(_, end)| *end > offset);
        match next {
            Some((start, end)) if *start <= offset => Run {
                readable: false,
                length: end - offset,
            },
            Some((start, _)) => Run {
                readable: true,
                length: self.in_sync_bytes.min(*start) - offset,
            },
            None => Run {
                readable: true,
                length: self.in_sync_bytes - offset,
            },
        }
    }

    fn place(&self, offset: u64) -> Result<u64> {
        let place = self.data_offset.checked_add(offset);
        place.ok_or_else(|| corrupt(self.data_offset, "expected a place on the device"))
    }
}

fn bad_blocks(
    device: &Arc<dyn WriteAt>,
    log: BadBlockLog,
    data_offset: u64,
) -> Result<Vec<(u64, u64)>> {
    if log.length > BAD_BLOCK_LOG_MAX || log.shift > 32 {
        return Err(corrupt(log.offset, "expected a bad block log of a few KiB"));
    }
    let Some(bytes) = read_block(&**device, log.offset, log.length as usize)? else {
        return Err(corrupt(
            log.offset,
            "expected the bad block log on the device",
        ));
    };
    let mut bad = Vec::new();
    for entry in bytes.chunks_exact(8) {
        let entry = u64::from_le_bytes(array_at(entry, 0));
        if entry == u64::MAX {
            break;
        }
        let unit = SECTOR_BYTES << log.shift;
        let start = (entry >> 10).saturating_mul(unit);
        let end = start.saturating_add((entry & 0x3ff).saturating_mul(unit));
        if end > data_offset && end > start {
            bad.push((start.saturating_sub(data_offset), end - data_offset));
        }
    }
    bad.sort_unstable();
    Ok(bad)
}

/// A position of the array: its member, and beside it the one that is to take over.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(pub(super) Vec<MemberDevice>);

impl Slot {
    /// Whether something can be read at `offset`, and for how many bytes that is the answer.
    pub(super) fn run_at(&self, offset: u64) -> (bool, u64) {
        let runs = self.0.iter().map(|member| member.run_at(offset));
        runs.fold((false, u64::MAX), |(readable, length), run| {
            (readable || run.readable, length.min(run.length))
        })
    }

    /// Reads what [`Slot::run_at`] called readable, from the first member that gives it.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut result = Err(lost(offset, buffer.len()));
        for member in self.0.iter().filter(|m| m.run_at(offset).readable) {
            result = member
                .place(offset)
                .and_then(|place| member.device.read_exact_at(place, buffer));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Writes to every member of the position.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        for member in &self.0 {
            member.device.write_all_at(member.place(offset)?, bytes)?;
        }
        Ok(())
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.0.iter().try_for_each(|member| member.device.flush())
    }

    /// What is known about the bytes at `offset`, which are readable.
    pub(super) fn extent_at(&self, offset: u64) -> Option<Result<Extent>> {
        let member = self.0.iter().find(|m| m.run_at(offset).readable)?;
        let extent = member
            .place(offset)
            .and_then(|place| member.device.extent_at(place));
        Some(extent)
    }
}

/// The error for bytes that no member has.
pub(super) fn lost(offset: u64, length: usize) -> Error {
    Error::Device {
        action: "read",
        offset,
        length: length as u64,
        source: "too few members of the md array have these bytes".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;

    fn member(in_sync_bytes: u64, bad: &[(u64, u64)]) -> MemberDevice {
        MemberDevice {
            device: Arc::new(MemoryDevice::from(vec![0; 4096])),
            data_offset: 512,
            in_sync_bytes,
            bad: bad.to_vec(),
        }
    }

    #[test]
    fn runs_end_where_the_answer_changes() {
        let slot = |members: &[MemberDevice]| Slot(members.to_vec());
        assert_eq!(slot(&[]).run_at(0), (false, u64::MAX));
        let one = slot(&[member(2048, &[(512, 1024)])]);
        assert_eq!(one.run_at(0), (true, 512));
        assert_eq!(one.run_at(600), (false, 424));
        assert_eq!(one.run_at(1024), (true, 1024));
        assert!(!one.run_at(2048).0);
        let two = slot(&[member(2048, &[(512, 1024)]), member(900, &[])]);
        assert_eq!(two.run_at(600), (true, 300));
        assert_eq!(two.run_at(950), (false, 74));
    }

    #[test]
    fn the_log_of_bad_blocks_is_counted_from_the_start_of_the_device() {
        let mut bytes = vec![0xff; 4096];
        for (index, (sector, count)) in [(4_u64, 2_u64), (0, 3)].iter().enumerate() {
            let entry = sector << 10 | count;
            bytes[1024 + index * 8..1032 + index * 8].copy_from_slice(&entry.to_le_bytes());
        }
        let device: Arc<dyn WriteAt> = Arc::new(MemoryDevice::from(bytes));
        let log = |length| BadBlockLog {
            offset: 1024,
            length,
            shift: 0,
        };
        let bad = bad_blocks(&device, log(512), 1024).expect("sound");
        assert_eq!(bad, [(0, 512), (1024, 2048)]);
        for length in [4096, u64::MAX] {
            assert!(bad_blocks(&device, log(length), 1024).is_err());
        }
    }
}
