// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunks from the image: neighbours with one request, each checked by itself.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use disk::{Error, Result};
use image_library::ContentHash;

use super::Keep;
use super::cached_disk::CachedDisk;
use super::files::Bytes;
use super::flight::{Claim, Flight};

/// The most bytes of one request, but for one chunk at least.
const UNIT_BYTES_MAX: u64 = 4 << 20;
/// A request that takes longer to fail is not made again chunk by chunk: what failed then is the
/// way to the image, not a piece of it.
const FAILURE_PATIENCE: Duration = Duration::from_secs(2);

/// Neighbouring chunks that nobody has and nobody else fetches.
pub(super) struct Unit<'a> {
    first: u64,
    chunks: VecDeque<Wanted<'a>>,
}

impl Unit<'_> {
    /// The chunk after its last.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.chunks.len() as u64)
    }
}

/// One of them.
struct Wanted<'a> {
    hash: ContentHash,
    claim: Claim<'a, ContentHash, Bytes>,
}

/// Who fetches a chunk.
pub(super) enum Claimed<'a> {
    /// Who asks.
    Mine(Claim<'a, ContentHash, Bytes>),
    /// Somebody else does.
    Others(Arc<Flight<Bytes>>),
    /// It is here by now.
    Here(Bytes),
}

/// What became of the chunks of a unit. What was to be had along with others and was not is left
/// out.
pub(super) type Fetched = BTreeMap<u64, Result<Bytes, Arc<Error>>>;

impl CachedDisk {
    /// The chunk that was claimed, and its neighbours within `bounds` as far as they are missing:
    /// those after it first.
    pub(super) fn unit<'a>(
        &'a self,
        chunk: u64,
        hash: ContentHash,
        claim: Claim<'a, ContentHash, Bytes>,
        bounds: &Range<u64>,
    ) -> Unit<'a> {
        let count_max = (UNIT_BYTES_MAX / self.chunk_size).max(1);
        let mut chunks = VecDeque::from([Wanted { hash, claim }]);
        let mut all = chunk..chunk.saturating_add(1);
        while all.end < bounds.end && all.end - all.start < count_max {
            let Some(next) = self.claim_missing(all.end) else {
                break;
            };
            chunks.push_back(next);
            all.end += 1;
        }
        while all.start > bounds.start && all.end - all.start < count_max {
            let Some(previous) = self.claim_missing(all.start - 1) else {
                break;
            };
            chunks.push_front(previous);
            all.start -= 1;
        }
        Unit {
            first: all.start,
            chunks,
        }
    }

    fn claim_missing(&self, chunk: u64) -> Option<Wanted<'_>> {
        let hash = self.leaves.known_hash_of(chunk)?;
        if self.cache.has(&hash) {
            return None;
        }
        match self.claim(hash) {
            Claimed::Mine(claim) => Some(Wanted { hash, claim }),
            Claimed::Here(_) | Claimed::Others(_) => None,
        }
    }

    /// The claim to a chunk that was not found.
    pub(super) fn claim(&self, hash: ContentHash) -> Claimed<'_> {
        match self.flights.claim(hash) {
            Err(flight) => Claimed::Others(flight),
            // Between the look and the claim somebody else may have brought it.
            Ok(claim) => match self.cache.memory.get(&hash) {
                Some(bytes) => {
                    claim.done(Arc::clone(&bytes));
                    Claimed::Here(bytes)
                }
                None => Claimed::Mine(claim),
            },
        }
    }

    /// Fetches a unit. Of what cannot be had with the others, only the `wanted` chunks are asked
    /// for by themselves.
    pub(super) fn fetch(&self, unit: Unit<'_>, wanted: &Range<u64>, keep: Keep) -> Fetched {
        let (start, end) = (self.offset_of(unit.first), self.offset_of(unit.end()));
        let Unit { first, chunks } = unit;
        // At most `UNIT_BYTES_MAX`, or a chunk.
        let mut bytes = vec![0; (end.min(self.length) - start) as usize];
        let mut answer = self.ask(start, &mut bytes, chunks.len());
        let mut rest = &bytes[..];
        let mut fetched = Fetched::new();
        let mut to_write = Vec::new();
        for (chunk, Wanted { hash, claim }) in (first..).zip(chunks) {
            let (plain, others) = rest.split_at(self.chunk_length(chunk).min(rest.len()));
            rest = others;
            let outcome = match &answer {
                Answer::Bytes if self.is_whole(&hash, plain) => Ok(plain.into()),
                Answer::Failed(error) => Err(Arc::clone(error)),
                _ if wanted.contains(&chunk) => self.fetch_alone(chunk, &hash, &mut answer),
                // The claim is dropped: who wants the chunk tries by himself.
                _ => continue,
            };
            match &outcome {
                Ok(bytes) => {
                    self.cache.keep_in_memory(hash, bytes, keep);
                    claim.done(Arc::clone(bytes));
                    to_write.push((hash, Arc::clone(bytes)));
                }
                Err(error) => claim.failed(Arc::clone(error)),
            }
            fetched.insert(chunk, outcome);
        }
        // Which may take its time: nobody waits for any of them any more.
        for (hash, bytes) in to_write {
            self.cache.keep_on_disk(hash, &bytes, keep);
        }
        fetched
    }

    fn ask(&self, start: u64, bytes: &mut [u8], chunk_count: usize) -> Answer {
        let began = Instant::now();
        match self.read_image(start, bytes) {
            Ok(()) => Answer::Bytes,
            Err(error) if chunk_count == 1 || began.elapsed() > FAILURE_PATIENCE => {
                Answer::Failed(Arc::new(error))
            }
            Err(_) => Answer::NotTogether,
        }
    }

    fn fetch_alone(
        &self,
        chunk: u64,
        hash: &ContentHash,
        answer: &mut Answer,
    ) -> Result<Bytes, Arc<Error>> {
        let began = Instant::now();
        let outcome = self.read_chunk(chunk, hash).map_err(Arc::new);
        if let (Err(error), Answer::NotTogether) = (&outcome, &*answer)
            && began.elapsed() > FAILURE_PATIENCE
        {
            *answer = Answer::Failed(Arc::clone(error));
        }
        outcome
    }

    /// One chunk by itself, checked.
    pub(super) fn read_chunk(&self, chunk: u64, hash: &ContentHash) -> Result<Bytes> {
        let offset = self.offset_of(chunk);
        let mut bytes = vec![0; self.chunk_length(chunk)];
        self.read_image(offset, &mut bytes)?;
        if self.is_whole(hash, &bytes) {
            return Ok(bytes.into());
        }
        let expected = blake3::Hash::from_bytes(*hash.as_bytes());
        let found = blake3::hash(&bytes);
        let problem = format!("expected the hash {expected}, found {found}");
        Err(Error::corrupt("chunk", offset, problem))
    }

    fn is_whole(&self, hash: &ContentHash, bytes: &[u8]) -> bool {
        let is_whole = ContentHash::of(bytes) == *hash;
        if !is_whole {
            self.counters.damaged_fetches.add(1);
        }
        is_whole
    }

    fn read_image(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.counters.fetches.add(1);
        self.image.read_exact_at(offset, bytes)?;
        self.counters.fetched_bytes.add(bytes.len() as u64);
        Ok(())
    }
}

/// What became of a request for several chunks.
enum Answer {
    /// Bytes, of which each chunk is to be checked.
    Bytes,
    /// It failed; a chunk by itself may be had.
    NotTogether,
    /// It failed, and so would others.
    Failed(Arc<Error>),
}
