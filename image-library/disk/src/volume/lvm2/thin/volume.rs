// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thin volume as a device.

use std::ops::Range;
use std::sync::Arc;

use crate::block::{Extent, ExtentKind, ReadAt, WriteAt, check_length, check_range, is_zero};
use crate::error::{Error, Result};

use super::{Mapping, Pool};

/// A thin volume.
#[derive(Debug)]
pub(in super::super) struct ThinVolume {
    pool: Arc<Pool>,
    /// The tree of its blocks.
    root: u64,
    /// Blocks that it was given before this time are shared with a snapshot.
    shared_before: u32,
    length_bytes: u64,
    /// What is read where the volume has no block.
    origin: Option<Arc<dyn WriteAt>>,
}

/// What the bytes of a block are read from.
enum Source {
    /// At this offset of the pool's data.
    Data { at: u64, is_shared: bool },
    /// Nothing was ever written there.
    Hole,
}

impl ThinVolume {
    /// The volume with that number in its pool, of a length that only LVM knows.
    pub(in super::super) fn open(
        pool: Arc<Pool>,
        number: u64,
        length_bytes: u64,
        origin: Option<Arc<dyn WriteAt>>,
    ) -> Result<Self> {
        let (root, shared_before) = pool.device(number)?;
        Ok(Self {
            pool,
            root,
            shared_before,
            length_bytes,
            origin,
        })
    }

    /// Where the bytes from `offset` are, and for how many that holds.
    fn source(&self, offset: u64) -> Result<(Source, u64)> {
        let block_bytes = self.pool.block_bytes;
        let (block, within) = (offset / block_bytes, offset % block_bytes);
        let rest = self.length_bytes - offset;
        match self.pool.mapping(self.root, block)? {
            Some(mapping) if mapping.block == block => {
                let at = self.data_offset(mapping)? + within;
                let is_shared = mapping.time < self.shared_before;
                let length = (block_bytes - within).min(rest);
                Ok((Source::Data { at, is_shared }, length))
            }
            Some(mapping) => {
                let next = mapping.block.saturating_mul(block_bytes);
                Ok((Source::Hole, rest.min(next - offset)))
            }
            None => Ok((Source::Hole, rest)),
        }
    }

    /// Where a block begins in the pool's data; all of it lies there.
    fn data_offset(&self, mapping: Mapping) -> Result<u64> {
        let block_bytes = self.pool.block_bytes;
        let at = mapping.data_block.checked_mul(block_bytes);
        let fits = |at: &u64| {
            let end = at.checked_add(block_bytes);
            end.is_some_and(|end| end <= self.pool.data.length_bytes())
        };
        at.filter(fits).ok_or_else(|| {
            Error::corrupt(
                "thin pool metadata",
                0,
                format!("expected data block {} within the pool", mapping.data_block),
            )
        })
    }

    fn read_hole(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        buffer.fill(0);
        let Some(origin) = &self.origin else {
            return Ok(());
        };
        // The volume may have grown beyond its origin.
        let there = origin.length_bytes().saturating_sub(offset);
        let count = (buffer.len() as u64).min(there) as usize;
        if count > 0 {
            origin.read_exact_at(offset, &mut buffer[..count])?;
        }
        Ok(())
    }

    /// Goes through the runs of a range that is changed: each with where it is in the pool's data.
    /// Nothing is changed unless all of the range can be.
    fn change(
        &self,
        (offset, length): (u64, u64),
        mut change: impl FnMut(u64, Range<u64>) -> Result<()>,
        may_be_hole: impl Fn(Range<u64>) -> bool,
    ) -> Result<()> {
        for is_checked in [false, true] {
            let mut done = 0;
            while done < length {
                let (source, run) = self.source(offset + done)?;
                let part = done..length.min(done + run);
                done = part.end;
                match source {
                    Source::Data { at, .. } if is_checked => change(at, part)?,
                    Source::Data {
                        is_shared: false, ..
                    } => {}
                    Source::Data { .. } => return Err(refused("a block that a snapshot shares")),
                    Source::Hole if is_checked => {}
                    Source::Hole if self.origin.is_none() && may_be_hole(part) => {}
                    Source::Hole => {
                        return Err(refused("a block that the volume does not have yet"));
                    }
                }
            }
        }
        Ok(())
    }
}

fn refused(what: &str) -> Error {
    Error::unsupported("thin volume", format!("writing to {what}"))
}

impl ReadAt for ThinVolume {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes, offset, buffer.len())?;
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (source, run) = self.source(at)?;
            let count = run.min((buffer.len() - done) as u64) as usize;
            let part = &mut buffer[done..done + count];
            match source {
                Source::Data { at, .. } => self.pool.data.read_exact_at(at, part)?,
                Source::Hole => self.read_hole(at, part)?,
            }
            done += count;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes, offset, 1)?;
        let (source, run) = self.source(offset)?;
        let below = match (source, &self.origin) {
            (Source::Data { at, .. }, _) => self.pool.data.extent_at(at)?,
            (Source::Hole, Some(origin)) if offset < origin.length_bytes() => {
                origin.extent_at(offset)?
            }
            (Source::Hole, _) => Extent {
                length: run,
                kind: ExtentKind::Zero,
            },
        };
        Ok(Extent {
            length: below.length.min(run),
            kind: below.kind,
        })
    }
}

impl WriteAt for ThinVolume {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes, offset, bytes.len())?;
        let part_of = |part: Range<u64>| &bytes[part.start as usize..part.end as usize];
        self.change(
            (offset, bytes.len() as u64),
            |at, part| self.pool.data.write_all_at(at, part_of(part)),
            |part| is_zero(part_of(part)),
        )
    }

    fn flush(&self) -> Result<()> {
        self.pool.data.flush()
    }

    fn write_zeroes_at(&self, offset: u64, length: u64) -> Result<()> {
        check_length("zero", self.length_bytes, offset, length)?;
        self.change(
            (offset, length),
            |at, part| self.pool.data.write_zeroes_at(at, part.end - part.start),
            |_| true,
        )
    }
}
