// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records of the log: where the newest one is, and which are needed.
//!
//! | byte | field of a record's header, big-endian | byte | field |
//! |---|---|---|---|
//! | 0, 4 | magic `0xfeedbabe`, round | 32 | CRC-32C of header and data, little-endian; 0: none |
//! | 8 | version: 1 or 2 | 40 | count of operations |
//! | 12 | length of the data | 44 | first words of the first 64 sectors of data |
//! | 16, 24 | own place, and that of the oldest record needed: round, sector | 300, 320 | byte order of items, size of buffers |
//!
//! In the log the first word of each sector of data is the round instead. More than 32 KiB of data
//! need more sectors of header, each with the round and 64 words. Behind the end of the ring,
//! writing goes on at its start in the next round.

use std::ops::Range;

use super::super::super::superblock::xfs::crc32c;
use super::STRUCTURE;
use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::Fields;

const SECTOR: usize = 512;
const MAGIC: u32 = 0xfeed_babe;
/// The kernel writes up to eight records at once, of up to 256 KiB each, in any order: behind a gap
/// of at most so many sectors there may be records that count for nothing.
const UNORDERED_RECORDS: u32 = 8;
const UNORDERED_SECTORS: u32 = UNORDERED_RECORDS * DATA_BYTES_MAX / SECTOR as u32;
const DATA_BYTES_MAX: u32 = 256 << 10;
const WORDS_PER_SECTOR: usize = 64;
/// The header's own length, which its checksum covers: on 64-bit and on 32-bit computers.
const HEADER_LENGTHS: [usize; 2] = [328, 324];
const LITTLE_ENDIAN: u32 = 1;
const UNMOUNT: u8 = 0x20;

/// A sector of the log, and the round in which it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    round: u32,
    sector: u32,
}

impl Place {
    fn from_number(number: u64) -> Self {
        Self {
            round: (number >> 32) as u32,
            sector: number as u32,
        }
    }

    /// As the log's sequence number, which orders all writes.
    pub(super) fn number(self) -> u64 {
        u64::from(self.round) << 32 | u64::from(self.sector)
    }
}

/// A record whose bytes are sound.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    next: Place,
    /// The oldest record that is still needed.
    oldest: Place,
    pub(super) operations: u32,
    pub(super) data: Vec<u8>,
}

impl Record {
    /// Whether it is the one that an unmount writes.
    pub(super) fn is_unmount(&self) -> bool {
        self.operations == 1 && Fields(&self.data).u8(9) & UNMOUNT != 0
    }
}

/// The ring of sectors.
#[derive(Debug)]
pub(super) struct Log<'d, D> {
    device: &'d D,
    start: u64,
    sectors: u32,
}

impl<'d, D: std::ops::Deref<Target: ReadAt>> Log<'d, D> {
    pub(super) fn open(device: &'d D, range: Range<u64>) -> Self {
        Self {
            device,
            start: range.start,
            // The superblock's parser has bounded it.
            sectors: ((range.end - range.start) / SECTOR as u64) as u32,
        }
    }

    /// The newest record; `None` where the log was never written.
    pub(super) fn newest(&self) -> Result<Option<Record>> {
        if self.round_at(0)? == 0 {
            return Ok(None);
        }
        let head = self.head()?;
        let mut at = head;
        let mut remaining = self.sectors.min(2 * UNORDERED_SECTORS);
        while remaining > 0 {
            let count = remaining.min(256);
            let from = self.back(at, count);
            let bytes = self.read(from, count)?;
            for (index, sector) in (0..count).zip(bytes.chunks_exact(SECTOR)).rev() {
                if Fields(sector).u32_be(0) != MAGIC {
                    continue;
                }
                let place = Place {
                    round: Fields(sector).u32_be(4),
                    sector: (from + index) % self.sectors,
                };
                if let Some(record) = self.record(place)? {
                    return self.last_from(record).map(Some);
                }
            }
            at = from;
            remaining -= count;
        }
        Err(self.broken(head, "expected a record before its head, found none"))
    }

    /// The records from the oldest needed to the newest.
    pub(super) fn needed(&self, mut newest: Record) -> Result<Vec<Place>> {
        let head = newest.next;
        // Each turn ends earlier than the one before, by a record that was written out of order.
        for _ in 0..UNORDERED_RECORDS {
            let mut places = Vec::new();
            let mut place = newest.oldest;
            let mut last = None;
            while let Some(record) = self.record(place)? {
                places.push(place);
                if place == newest.place {
                    return Ok(places);
                }
                if places.len() as u64 > u64::from(self.sectors) {
                    return Err(self.broken(place.sector, "its records go round in circles"));
                }
                place = record.next;
                last = Some(record);
            }
            // A gap: what is behind it was written, but not in order, and does not count.
            let behind = (head.sector + self.sectors - place.sector % self.sectors) % self.sectors;
            newest = match last.filter(|last| last.place.number() < newest.place.number()) {
                Some(last) if behind <= UNORDERED_SECTORS => last,
                _ => {
                    return Err(self.broken(place.sector, "expected a record that is needed"));
                }
            };
        }
        Err(self.broken(head.sector, "expected fewer gaps before its head"))
    }

    /// A record that was found to be sound before.
    pub(super) fn expect(&self, place: Place) -> Result<Record> {
        let record = self.record(place)?;
        record.ok_or_else(|| self.broken(place.sector, "a record changed while it was read"))
    }

    fn broken(&self, sector: u32, problem: &str) -> Error {
        let offset = self.start + u64::from(sector) * SECTOR as u64;
        Error::corrupt(STRUCTURE, offset, problem)
    }

    fn back(&self, sector: u32, count: u32) -> u32 {
        (sector + self.sectors - count) % self.sectors
    }

    /// Follows records for as long as they are sound.
    fn last_from(&self, mut record: Record) -> Result<Record> {
        for _ in 0..self.sectors {
            match self.record(record.next)? {
                Some(next) => record = next,
                None => break,
            }
        }
        Ok(record)
    }

    /// Where the latest round ends, as far as single sectors tell.
    fn head(&self) -> Result<u32> {
        let round = self.round_at(0)?;
        let (mut first, mut last) = (0, self.sectors - 1);
        if self.round_at(last)? == round {
            return Ok(0);
        }
        while last - first > 1 {
            let middle = first + (last - first) / 2;
            match self.round_at(middle)? == round {
                true => first = middle,
                false => last = middle,
            }
        }
        Ok(last)
    }

    fn round_at(&self, sector: u32) -> Result<u32> {
        let bytes = self.read(sector, 1)?;
        let fields = Fields(&bytes);
        Ok(match fields.u32_be(0) {
            MAGIC => fields.u32_be(4),
            round => round,
        })
    }

    /// Reads sectors, over the end of the ring.
    fn read(&self, sector: u32, count: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count as usize * SECTOR];
        let sector = sector % self.sectors;
        let until_end = (self.sectors - sector).min(count) as usize * SECTOR;
        let (first, rest) = bytes.split_at_mut(until_end);
        let offset = self.start + u64::from(sector) * SECTOR as u64;
        self.device.read_exact_at(offset, first)?;
        if !rest.is_empty() {
            self.device.read_exact_at(self.start, rest)?;
        }
        Ok(bytes)
    }

    /// The record that begins in this sector in this round; `None` where there is none, or it was
    /// not written whole.
    fn record(&self, place: Place) -> Result<Option<Record>> {
        if place.sector >= self.sectors {
            return Ok(None);
        }
        let header = self.read(place.sector, 1)?;
        let fields = Fields(&header);
        let (version, length) = (fields.u32_be(8), fields.u32_be(12));
        let is_header = fields.u32_be(0) == MAGIC
            && fields.u32_be(4) == place.round
            && fields.u64_be(16) == place.number()
            && matches!(version, 1 | 2)
            && (1..=DATA_BYTES_MAX).contains(&length);
        let headers = match fields.u32_be(320).min(DATA_BYTES_MAX).div_ceil(32 << 10) {
            more @ 2.. if version == 2 => more,
            _ => 1,
        };
        let count = headers + length.div_ceil(SECTOR as u32);
        if !is_header || count > self.sectors {
            return Ok(None);
        }
        let mut bytes = self.read(place.sector, count)?;
        let data_at = headers as usize * SECTOR;
        if !self.is_of_round(place, &bytes) || !is_whole(&bytes, data_at, length as usize) {
            return Ok(None);
        }
        if !matches!(fields.u32_be(300), 0 | LITTLE_ENDIAN) {
            return Err(Error::unsupported(
                STRUCTURE,
                "one of a big-endian computer",
            ));
        }
        restore_words(&mut bytes, data_at);
        bytes.truncate(data_at + length as usize);
        Ok(Some(Record {
            place,
            next: self.behind(place, count),
            oldest: Place::from_number(fields.u64_be(24)),
            operations: fields.u32_be(40),
            data: bytes.split_off(data_at),
        }))
    }

    fn behind(&self, place: Place, count: u32) -> Place {
        let sector = place.sector + count;
        Place {
            round: place.round.wrapping_add(u32::from(sector >= self.sectors)),
            sector: sector % self.sectors,
        }
    }

    /// Whether all sectors behind the first were written together with it.
    fn is_of_round(&self, place: Place, bytes: &[u8]) -> bool {
        let mut sectors = (0..).zip(bytes.chunks_exact(SECTOR)).skip(1);
        sectors.all(|(index, sector)| Fields(sector).u32_be(0) == self.behind(place, index).round)
    }
}

/// Whether the checksum is right, or there is none, as in what mkfs writes.
fn is_whole(bytes: &[u8], data_at: usize, length: usize) -> bool {
    let found = Fields(bytes).u32(32);
    if found == 0 {
        return true;
    }
    let headers = length
        .div_ceil(WORDS_PER_SECTOR * SECTOR)
        .min(data_at / SECTOR);
    HEADER_LENGTHS.iter().any(|&header_length| {
        let mut state = crc32c(!0, &bytes[..32]);
        state = crc32c(state, &[0; 4]);
        state = crc32c(state, Fields(bytes).bytes(36, header_length - 36));
        for index in 1..headers {
            state = crc32c(state, Fields(bytes).bytes(index * SECTOR, 260));
        }
        !crc32c(state, Fields(bytes).bytes(data_at, length)) == found
    })
}

/// Puts back the words that the numbers of the round replaced.
fn restore_words(bytes: &mut [u8], data_at: usize) {
    let (headers, data) = bytes.split_at_mut(data_at);
    for (index, sector) in data.chunks_exact_mut(SECTOR).enumerate() {
        let within = index % WORDS_PER_SECTOR * 4;
        let at = match index / WORDS_PER_SECTOR {
            0 => 44 + within,
            header => header * SECTOR + 4 + within,
        };
        if let Some(word) = headers.get(at..at + 4) {
            sector[..4].copy_from_slice(word);
        }
    }
}
