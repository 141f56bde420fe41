// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disks of simulated servers: few chunks, of contents that several servers have in common.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use disk::ReadAt;

use super::random::Random;
use crate::manifest::LEAF_CHUNKS;
use crate::tests::{disk_draft, noise};
use crate::{DiskDraft, IngestDisk};

/// Size of a chunk in bytes.
pub(super) const CHUNK: u64 = 16 << 10;
/// How many different chunks there are in the world.
const CONTENTS: u64 = 28;

/// What a disk holds: the number of the content by chunk; the rest are zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) name: &'static str,
    pub(super) size: u64,
    pub(super) chunks: BTreeMap<u64, u64>,
}

/// The bytes of a content; every fourth compresses well.
pub(super) fn content(number: u64) -> &'static [u8] {
    static ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let make = |number: u64| match number % 4 {
            0 => vec![number as u8 + 1; CHUNK as usize],
            _ => noise(number, CHUNK as usize),
        };
        (0..CONTENTS).map(make).collect()
    });
    &all[number as usize]
}

impl Disk {
    /// A small disk, or (`is_large`) one whose data are in the second leaf of its manifest.
    pub(super) fn new(name: &'static str, is_large: bool, random: &mut Random) -> Self {
        let first = if is_large { LEAF_CHUNKS as u64 - 2 } else { 0 };
        // The last chunk of some is short.
        let size = (first + 8) * CHUNK - 512 * random.below(2);
        let mut disk = Self {
            name,
            size,
            chunks: BTreeMap::new(),
        };
        for _ in 0..9 {
            disk.change(random);
        }
        disk
    }

    fn data(&self) -> Range<u64> {
        let count = self.size.div_ceil(CHUNK);
        count - 8..count
    }

    /// Writes one chunk, now and then with zeros.
    pub(super) fn change(&mut self, random: &mut Random) {
        let chunks = self.data();
        // One batch of an ingest, so that its threads do nothing beside each other.
        let first = if chunks.start == 0 {
            0
        } else {
            LEAF_CHUNKS as u64
        };
        let chunk = first + random.below(chunks.end - first);
        if random.chance(1, 6) {
            self.chunks.remove(&chunk);
        } else {
            self.chunks.insert(chunk, random.below(CONTENTS));
        }
    }

    pub(super) fn draft(&self) -> DiskDraft {
        disk_draft(self.name, self.size)
    }

    pub(super) fn to_ingest(&self) -> IngestDisk {
        let extent = |(chunk, _): (&u64, &u64)| chunk * CHUNK..((chunk + 1) * CHUNK).min(self.size);
        IngestDisk {
            draft: self.draft(),
            device: Arc::new(self.clone()),
            used: Some(self.chunks.iter().map(extent).collect()),
            known: None,
        }
    }

    /// What a device that should be this disk gives instead; `None` when it is this disk.
    pub(super) fn difference(&self, device: &dyn ReadAt) -> disk::Result<Option<String>> {
        if device.length_bytes() != self.size {
            return Ok(Some(format!("{} bytes", device.length_bytes())));
        }
        let first = self.data().start;
        for chunk in (first..self.data().end).chain((first > 0).then_some(0)) {
            let length = CHUNK.min(self.size - chunk * CHUNK) as usize;
            let mut found = vec![0xee; length];
            device.read_exact_at(chunk * CHUNK, &mut found)?;
            let is_right = match self.chunks.get(&chunk) {
                Some(number) => found == content(*number)[..length],
                None => found.iter().all(|byte| *byte == 0),
            };
            if !is_right {
                return Ok(Some(format!("other bytes in chunk {chunk}")));
            }
        }
        Ok(None)
    }
}

impl ReadAt for Disk {
    fn length_bytes(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let start = (at % CHUNK) as usize;
            let length = rest.len().min(CHUNK as usize - start);
            let (part, tail) = rest.split_at_mut(length);
            match self.chunks.get(&(at / CHUNK)) {
                Some(number) => part.copy_from_slice(&content(*number)[start..start + length]),
                None => part.fill(0),
            }
            rest = tail;
            at += length as u64;
        }
        Ok(())
    }
}
