// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which hash each chunk of a disk has: leaf by leaf, a bounded number of them in memory.

use std::sync::Arc;
use std::time::Duration;

use disk::{Error, Result};
use image_library::{ContentHash, DiskHashes, LEAF_CHUNKS};

use super::flight::{Flights, Outcome};
use super::memory::Recent;

/// Chunks of a leaf.
const LEAF: u64 = LEAF_CHUNKS as u64;
/// How long somebody else's question for a leaf is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// One leaf.
pub(super) type Leaf = Arc<[Option<ContentHash>]>;

/// The hashes of a disk.
#[derive(Debug)]
pub(super) struct Leaves {
    hashes: Arc<dyn DiskHashes>,
    recent: Recent<u64, Leaf>,
    flights: Flights<u64, Leaf>,
    chunk_size: u64,
    chunk_count: u64,
}

impl Leaves {
    /// Of a disk of this length.
    ///
    /// # Errors
    ///
    /// They are those of a disk of another length.
    pub(super) fn new(hashes: Arc<dyn DiskHashes>, length: u64, count_max: usize) -> Result<Self> {
        let chunk_size = u64::from(hashes.chunk_size_bytes());
        let chunk_count = hashes.chunk_count();
        if !chunk_size.is_power_of_two() || length.div_ceil(chunk_size) != chunk_count {
            let problem = format!(
                "expected those of a disk of {length} bytes, found {chunk_count} chunks of \
                 {chunk_size} bytes"
            );
            return Err(Error::corrupt("hashes of the disk", 0, problem));
        }
        Ok(Self {
            recent: Recent::new(count_max.max(1) as u64),
            flights: Flights::default(),
            chunk_size,
            chunk_count,
            hashes,
        })
    }

    /// The hash of a chunk, `None` for one of zeros.
    pub(super) fn hash_of(&self, chunk: u64) -> Result<Option<ContentHash>> {
        let leaf = self.leaf(chunk / LEAF)?;
        Ok(entry(&leaf, chunk))
    }

    /// The hash of a chunk if its leaf is in memory; `None` for one of zeros too.
    pub(super) fn known_hash_of(&self, chunk: u64) -> Option<ContentHash> {
        entry(&self.recent.get(&(chunk / LEAF))?, chunk)
    }

    /// How many chunks are alike from this one on, all with data or all zeros, within its leaf.
    pub(super) fn run_from(&self, chunk: u64) -> Result<(u64, bool)> {
        let leaf = self.leaf(chunk / LEAF)?;
        let start = usize::try_from(chunk % LEAF).unwrap_or(usize::MAX);
        let rest = leaf.get(start..).unwrap_or_default();
        let is_hole = rest.first().is_none_or(Option::is_none);
        let alike = rest.iter().take_while(|hash| hash.is_none() == is_hole);
        Ok((alike.count().max(1) as u64, is_hole))
    }

    /// Whether a chunk is the first of its leaf.
    pub(super) const fn is_leaf_start(chunk: u64) -> bool {
        chunk.is_multiple_of(LEAF)
    }

    fn leaf(&self, number: u64) -> Result<Leaf> {
        let mut has_failed = false;
        loop {
            if let Some(leaf) = self.recent.get(&number) {
                return Ok(leaf);
            }
            let claim = match self.flights.claim(number) {
                Ok(claim) => claim,
                Err(flight) => match flight.wait(PATIENCE) {
                    Some(Outcome::Done(leaf)) => return Ok(leaf),
                    Some(Outcome::Failed(error)) if has_failed => {
                        return Err(self.shared(number, error));
                    }
                    Some(Outcome::Failed(_)) => {
                        has_failed = true;
                        continue;
                    }
                    Some(Outcome::Abandoned) => continue,
                    None => return self.read(number),
                },
            };
            // Between the look and the claim somebody else may have brought it.
            let read = self
                .recent
                .get(&number)
                .map_or_else(|| self.read(number), Ok);
            return match read {
                Ok(leaf) => {
                    self.recent.insert(number, Arc::clone(&leaf), 1);
                    claim.done(Arc::clone(&leaf));
                    Ok(leaf)
                }
                Err(error) => {
                    let error = Arc::new(error);
                    claim.failed(Arc::clone(&error));
                    Err(self.shared(number, error))
                }
            };
        }
    }

    fn read(&self, number: u64) -> Result<Leaf> {
        let leaf = self.hashes.leaf(number).map_err(|source| Error::Device {
            action: "read the hashes of",
            offset: self.offset_of(number),
            length: LEAF.saturating_mul(self.chunk_size),
            source: Box::new(source),
        })?;
        let first = number.saturating_mul(LEAF);
        let expected = self.chunk_count.saturating_sub(first).min(LEAF);
        if leaf.len() as u64 != expected {
            let problem = format!("expected {expected} in leaf {number}, found {}", leaf.len());
            let offset = self.offset_of(number);
            return Err(Error::corrupt("hashes of the disk", offset, problem));
        }
        Ok(leaf.into())
    }

    fn shared(&self, number: u64, error: Arc<Error>) -> Error {
        shared_error(self.offset_of(number), self.chunk_size, error)
    }

    fn offset_of(&self, number: u64) -> u64 {
        number.saturating_mul(LEAF).saturating_mul(self.chunk_size)
    }
}

fn entry(leaf: &Leaf, chunk: u64) -> Option<ContentHash> {
    let number = usize::try_from(chunk % LEAF).ok()?;
    leaf.get(number).copied().flatten()
}

/// The error of one fetch as that of each who waited for it.
pub(super) fn shared_error(offset: u64, length: u64, error: Arc<Error>) -> Error {
    Error::Device {
        action: "read",
        offset,
        length,
        source: Box::new(error),
    }
}
