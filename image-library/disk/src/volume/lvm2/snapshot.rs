// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots of the old kind: a store beside the origin keeps what one of the two changed.
//! Little-endian.
//!
//! | chunk of the store | holds |
//! |---|---|
//! | 0 | magic `SnAp`, whether it is valid, version 1, sectors of a chunk (4 bytes each) |
//! | 1 | pairs (8 bytes each): a chunk of the origin, its chunk in the store; 0 ends them |
//! | then | as many chunks as pairs have room in one, then the next chunk of pairs, and so on |
//!
//! From drivers/md/dm-snap-persistent.c of Linux.
//!
//! Writing to the origin first copies what the snapshots do not have yet, and writing to a snapshot
//! puts the whole chunk into its store, so that both stay what they are.
//!
//! **Limits:** chunks of 16 MiB, and as many pairs as whoever opens the store allows.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::block::{Extent, ReadAt, WriteAt, check_range};
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block};

const MAGIC: &[u8; 4] = b"SnAp";
const HEADER_BYTES: usize = 16;
const PAIR_BYTES: u64 = 16;
const CHUNK_BYTES_MAX: u64 = 16 << 20;
/// The first chunk that is not the header.
const FIRST_AREA: u64 = 1;
const STRUCTURE: &str = "snapshot store";

/// What a snapshot has of its own.
#[derive(Debug)]
pub(super) struct Store {
    device: Arc<dyn WriteAt>,
    chunk_bytes: u64,
    pairs: RwLock<Pairs>,
}

#[derive(Debug, Default)]
struct Pairs {
    /// Chunks of the origin with their chunks in the store.
    stored: BTreeMap<u64, u64>,
    /// Where the next pair goes, counted in pairs.
    count: u64,
    next_free: u64,
}

impl Store {
    /// Opens a store of at most so many chunks; `None` where it overflowed, so that the snapshot is
    /// lost.
    pub(super) fn open(device: Arc<dyn WriteAt>, chunks_max: u64) -> Result<Option<Self>> {
        let header = read_block(&device, 0, HEADER_BYTES)?.unwrap_or_default();
        let fields = Fields(&header);
        if fields.bytes(0, 4) != MAGIC {
            let feature = "a snapshot that was never activated";
            return Err(Error::unsupported(STRUCTURE, feature));
        }
        if fields.u32(4) == 0 {
            return Ok(None);
        }
        if fields.u32(8) != 1 {
            let feature = format!("version {}", fields.u32(8));
            return Err(Error::unsupported(STRUCTURE, feature));
        }
        let chunk_bytes = u64::from(fields.u32(12)) * 512;
        if !chunk_bytes.is_power_of_two() || chunk_bytes > CHUNK_BYTES_MAX {
            let feature = format!("a chunk of {chunk_bytes} bytes");
            return Err(Error::unsupported(STRUCTURE, feature));
        }
        let mut store = Self {
            device,
            chunk_bytes,
            pairs: RwLock::default(),
        };
        store.pairs = RwLock::new(store.load(chunks_max)?);
        Ok(Some(store))
    }

    fn load(&self, chunks_max: u64) -> Result<Pairs> {
        let mut pairs = Pairs {
            next_free: FIRST_AREA + 1,
            ..Pairs::default()
        };
        loop {
            let place = self.place_of_pair(pairs.count);
            let length = self.chunk_bytes as usize;
            // A store that is full to the last chunk has no further area.
            let Some(area) = read_block(&self.device, place, length)? else {
                return Ok(pairs);
            };
            for pair in area.chunks_exact(PAIR_BYTES as usize) {
                let (old, new) = (Fields(pair).u64(0), Fields(pair).u64(8));
                if new == 0 {
                    return Ok(pairs);
                }
                if !self.fits(new) {
                    let problem = format!("expected chunk {new:#x} within the store");
                    return Err(Error::corrupt(STRUCTURE, place, problem));
                }
                pairs.add(old, new);
            }
            if pairs.count > chunks_max {
                return Err(Error::Limit {
                    what: "chunks in a snapshot store",
                    limit: chunks_max,
                });
            }
        }
    }

    /// How many chunks the snapshot has of its own.
    pub(super) fn chunk_count(&self) -> u64 {
        self.read_pairs().count
    }

    fn pairs_per_area(&self) -> u64 {
        self.chunk_bytes / PAIR_BYTES
    }

    /// Where pair number `index` stands, in bytes.
    fn place_of_pair(&self, index: u64) -> u64 {
        let (area, within) = (index / self.pairs_per_area(), index % self.pairs_per_area());
        self.area(area) * self.chunk_bytes + within * PAIR_BYTES
    }

    /// The chunk with the pairs of an area.
    fn area(&self, number: u64) -> u64 {
        FIRST_AREA + number * (self.pairs_per_area() + 1)
    }

    fn fits(&self, chunk: u64) -> bool {
        let end = chunk
            .checked_add(1)
            .and_then(|end| end.checked_mul(self.chunk_bytes));
        end.is_some_and(|end| end <= self.device.length_bytes())
    }

    fn read_pairs(&self) -> RwLockReadGuard<'_, Pairs> {
        self.pairs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_pairs(&self) -> RwLockWriteGuard<'_, Pairs> {
        self.pairs.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes through a range by chunks: each chunk's number, where the part of the range begins in
    /// it, and which part that is.
    fn chunks(
        &self,
        (offset, length): (u64, u64),
        mut visit: impl FnMut(u64, u64, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset + done;
            let within = at % self.chunk_bytes;
            let count = (self.chunk_bytes - within).min(length - done);
            visit(
                at / self.chunk_bytes,
                within,
                done as usize..(done + count) as usize,
            )?;
            done += count;
        }
        Ok(())
    }

    /// Copies what the origin has in a range and the store does not have yet.
    fn preserve(&self, origin: &dyn ReadAt, offset: u64, length: u64) -> Result<()> {
        let mut pairs = self.write_pairs();
        self.chunks((offset, length), |chunk, _, _| {
            self.provide(&mut pairs, origin, chunk).map(drop)
        })
    }

    /// The chunk of the store that has this chunk, copied from the origin where it is not there
    /// yet.
    fn provide(&self, pairs: &mut Pairs, origin: &dyn ReadAt, chunk: u64) -> Result<u64> {
        if let Some(&stored) = pairs.stored.get(&chunk) {
            return Ok(stored);
        }
        let period = self.pairs_per_area() + 1;
        let is_area = pairs.next_free % period == FIRST_AREA;
        let target = pairs.next_free + u64::from(is_area);
        let place = self.place_of_pair(pairs.count);
        if !self.fits(target) || !self.fits(place / self.chunk_bytes) {
            return Err(Error::Device {
                action: "write",
                offset: chunk.saturating_mul(self.chunk_bytes),
                length: self.chunk_bytes,
                source: "the store of a snapshot has no room left".into(),
            });
        }
        let from = chunk * self.chunk_bytes;
        let rest = origin.length_bytes().saturating_sub(from);
        let mut bytes = vec![0; rest.min(self.chunk_bytes) as usize];
        origin.read_exact_at(from, &mut bytes)?;
        self.device
            .write_all_at(target * self.chunk_bytes, &bytes)?;
        // The last pair of an area makes the next area count, which must be empty by then.
        if (pairs.count + 1).is_multiple_of(self.pairs_per_area()) {
            let next = self.area((pairs.count + 1) / self.pairs_per_area());
            if self.fits(next) {
                let zeroed = next * self.chunk_bytes;
                self.device.write_zeroes_at(zeroed, self.chunk_bytes)?;
            }
        }
        let pair = [chunk.to_le_bytes(), target.to_le_bytes()].concat();
        self.device.write_all_at(place, &pair)?;
        pairs.add(chunk, target);
        Ok(target)
    }
}

impl Pairs {
    fn add(&mut self, old: u64, new: u64) {
        self.stored.insert(old, new);
        self.count += 1;
        self.next_free = self.next_free.max(new + 1);
    }
}

/// A snapshot: its store over its origin.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) origin: Arc<dyn WriteAt>,
    pub(super) store: Arc<Store>,
}

impl ReadAt for Snapshot {
    fn length_bytes(&self) -> u64 {
        self.origin.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes(), offset, buffer.len())?;
        let length = buffer.len() as u64;
        // While this is held nothing is written to the origin that the store does not have.
        let pairs = self.store.read_pairs();
        self.store.chunks((offset, length), |chunk, within, part| {
            let at = offset + part.start as u64;
            let target = &mut buffer[part];
            match pairs.stored.get(&chunk) {
                Some(stored) => {
                    let place = stored * self.store.chunk_bytes + within;
                    self.store.device.read_exact_at(place, target)
                }
                None => self.origin.read_exact_at(at, target),
            }
        })
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes(), offset, 1)?;
        let chunk_bytes = self.store.chunk_bytes;
        let (chunk, within) = (offset / chunk_bytes, offset % chunk_bytes);
        let pairs = self.store.read_pairs();
        let (extent, length) = match pairs.stored.get(&chunk) {
            Some(stored) => {
                let place = stored * chunk_bytes + within;
                (self.store.device.extent_at(place)?, chunk_bytes - within)
            }
            None => {
                let next = pairs.stored.range(chunk..).next();
                let end = next.map_or(u64::MAX, |(next, _)| next.saturating_mul(chunk_bytes));
                (self.origin.extent_at(offset)?, end - offset)
            }
        };
        let rest = self.length_bytes() - offset;
        Ok(Extent {
            length: extent.length.min(length).min(rest),
            kind: extent.kind,
        })
    }
}

impl WriteAt for Snapshot {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes(), offset, bytes.len())?;
        let store = &self.store;
        let mut pairs = store.write_pairs();
        store.chunks((offset, bytes.len() as u64), |chunk, within, part| {
            let stored = store.provide(&mut pairs, &*self.origin, chunk)?;
            let place = stored * store.chunk_bytes + within;
            store.device.write_all_at(place, &bytes[part])
        })
    }

    fn flush(&self) -> Result<()> {
        self.store.device.flush()
    }
}

/// A volume that has snapshots.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) device: Arc<dyn WriteAt>,
    pub(super) stores: Vec<Arc<Store>>,
    /// Why a snapshot could not be kept as it is; then nothing is written.
    pub(super) obstacle: Option<String>,
}

impl Origin {
    fn preserve(&self, offset: u64, length: u64) -> Result<()> {
        if let Some(obstacle) = &self.obstacle {
            return Err(Error::Device {
                action: "write",
                offset,
                length,
                source: format!("a snapshot of the volume would change: {obstacle}").into(),
            });
        }
        let mut stores = self.stores.iter();
        stores.try_for_each(|store| store.preserve(&*self.device, offset, length))
    }
}

impl ReadAt for Origin {
    fn length_bytes(&self) -> u64 {
        self.device.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.device.read_exact_at(offset, buffer)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.device.extent_at(offset)
    }
}

impl WriteAt for Origin {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes(), offset, bytes.len())?;
        self.preserve(offset, bytes.len() as u64)?;
        self.device.write_all_at(offset, bytes)
    }

    fn flush(&self) -> Result<()> {
        for store in &self.stores {
            store.device.flush()?;
        }
        self.device.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;

    const CHUNK: usize = 512;

    /// A store of chunks of one sector, so that an area has room for 32 pairs.
    fn store(chunks: usize) -> Arc<MemoryDevice> {
        let mut bytes = vec![0; chunks * CHUNK];
        bytes[..4].copy_from_slice(MAGIC);
        (bytes[4], bytes[8], bytes[12]) = (1, 1, 1);
        Arc::new(MemoryDevice::from(bytes))
    }

    fn open(device: &Arc<MemoryDevice>) -> Arc<Store> {
        let store = Store::open(Arc::clone(device) as Arc<dyn WriteAt>, 200);
        Arc::new(store.expect("it is sound").expect("it is valid"))
    }

    fn content(device: &dyn ReadAt) -> Vec<u8> {
        let mut bytes = vec![0; device.length_bytes() as usize];
        device.read_exact_at(0, &mut bytes).expect("readable");
        bytes
    }

    #[test]
    fn origin_and_snapshot_change_independently_over_many_areas() {
        let before: Vec<u8> = (0..100 * CHUNK + 100)
            .map(|at| (at / CHUNK) as u8)
            .collect();
        let origin: Arc<dyn WriteAt> = Arc::new(MemoryDevice::from(before.clone()));
        let device = store(120);
        let shared = open(&device);
        let written = Origin {
            device: Arc::clone(&origin),
            stores: vec![Arc::clone(&shared)],
            obstacle: None,
        };
        let snapshot = Snapshot {
            origin: Arc::clone(&origin),
            store: shared,
        };
        snapshot.write_all_at(700, &[0xee; 10]).expect("room");
        written
            .write_all_at(0, &vec![0xaa; before.len()])
            .expect("room");
        let mut expected = before;
        expected[700..710].fill(0xee);
        assert!(content(&snapshot) == expected, "through what is in memory");
        assert!(content(&written).iter().all(|byte| *byte == 0xaa));
        let again = Snapshot {
            origin,
            store: open(&device),
        };
        assert!(content(&again) == expected, "as it was stored");
        assert_eq!(again.store.read_pairs().count, 101);
    }

    #[test]
    fn a_store_without_room_stops_the_write_before_the_origin_changes() {
        let origin: Arc<dyn WriteAt> = Arc::new(MemoryDevice::from(vec![1; 8 * CHUNK]));
        let written = Origin {
            device: origin,
            stores: vec![open(&store(5))],
            obstacle: None,
        };
        written.write_all_at(0, &[2; 3 * CHUNK]).expect("three fit");
        let error = written.write_all_at(3000, &[2; 1]).expect_err("no room");
        let source = std::error::Error::source(&error).expect("a reason");
        assert!(source.to_string().contains("no room left"), "{source}");
        assert_eq!(content(&written)[3 * CHUNK..], [1; 5 * CHUNK]);
    }

    #[test]
    fn a_store_that_cannot_be_used_is_told() {
        let with = |at: usize, value: u8| {
            let device = store(4);
            device.write_all_at(at as u64, &[value]).expect("inside");
            Store::open(device as Arc<dyn WriteAt>, 200)
        };
        assert!(with(4, 0).expect("it overflowed").is_none());
        assert!(with(0, 0).is_err());
        assert!(with(8, 2).is_err());
        assert!(with(12, 3).is_err());
        assert!(with(14, 1).is_err());
        let error = with(CHUNK + 8, 4).expect_err("chunk 4 of 4");
        assert!(
            error.to_string().contains("expected chunk 0x4 within"),
            "{error}"
        );
        assert!(Store::open(Arc::new(MemoryDevice::from(vec![0; 3])), 200).is_err());
    }
}
