// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transactions: the operations of the records, put together again.
//!
//! | byte | field of an operation, big-endian |
//! |---|---|
//! | 0, 4 | transaction, length of what follows |
//! | 8, 9 | who wrote it, flags: 1 start, 2 commit, 4 goes on in the next record, 8 continues, 32 unmount |
//!
//! A transaction is a header of 16 bytes and items; an item is a few regions, of which the first
//! says how many there are. A region that does not fit a record goes on in the next one.
//!
//! **Limit:** 256 MiB of transactions whose end has not been seen, with what it costs to keep them.

use std::collections::BTreeMap;

use super::STRUCTURE;
use super::record::Record;
use crate::error::{Error, Result};
use crate::fields::Fields;

const OPERATION_LENGTH: usize = 12;
const HEADER_LENGTH: usize = 16;
/// Little-endian, as all that the items hold.
const HEADER_MAGIC: u32 = 0x5452_414e;
const PENDING_BYTES_MAX: usize = 256 << 20;
/// What an operation costs besides its content.
const OPERATION_COST: usize = 96;

const FROM_TRANSACTION: u8 = 0x69;
const FROM_LOG: u8 = 0xaa;
const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const CONTINUES: u8 = 0x08;
const UNMOUNT: u8 = 0x20;

/// Changes that belong together: all of them happened, or none.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// The log's sequence number of its start.
    pub(super) sequence: u64,
    header: Vec<u8>,
    pub(super) items: Vec<Item>,
    /// Its part of the pending bytes.
    cost: usize,
}

/// One change: its regions, of which the first describes the others.
#[derive(Debug, Default)]
pub(super) struct Item {
    regions_expected: usize,
    regions: Vec<Vec<u8>>,
}

impl Item {
    pub(super) fn region(&self, index: usize) -> &[u8] {
        self.regions.get(index).map_or(&[], Vec::as_slice)
    }

    /// The region that says what the item is.
    pub(super) fn format(&self) -> Fields<'_> {
        Fields(self.region(0))
    }

    pub(super) fn kind(&self) -> u16 {
        self.format().u16(0)
    }
}

/// Transactions of which the end has not been seen.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: BTreeMap<u32, Transaction>,
    pending_bytes: usize,
}

impl Transactions {
    /// Takes the operations of the next record; what they commit is given to `commit`.
    pub(super) fn feed(
        &mut self,
        record: &Record,
        mut commit: impl FnMut(Transaction) -> Result<()>,
    ) -> Result<()> {
        let mut rest = record.data.as_slice();
        for _ in 0..record.operations {
            let Some((header, behind)) = rest.split_at_checked(OPERATION_LENGTH) else {
                return Err(broken(record, "it ends within an operation"));
            };
            let fields = Fields(header);
            let Some((content, behind)) = behind.split_at_checked(fields.u32_be(4) as usize) else {
                return Err(broken(record, "an operation is longer than its record"));
            };
            rest = behind;
            if !matches!(fields.u8(8), FROM_TRANSACTION | FROM_LOG) {
                return Err(broken(record, "an operation is of nobody known"));
            }
            self.take(record, fields.u32_be(0), fields.u8(9), content, &mut commit)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        record: &Record,
        number: u32,
        flags: u8,
        content: &[u8],
        commit: &mut impl FnMut(Transaction) -> Result<()>,
    ) -> Result<()> {
        if flags & START != 0 {
            let started = Transaction {
                sequence: record.place.number(),
                ..Transaction::default()
            };
            self.forget(number);
            self.open.insert(number, started);
            return self.charge(number, 0);
        }
        if flags & (COMMIT | UNMOUNT) != 0 {
            let finished = self.forget(number).filter(|_| flags & COMMIT != 0);
            return finished.map_or(Ok(()), commit);
        }
        self.charge(number, content.len())?;
        // The start of one that is not known was before the oldest record that is needed.
        let Some(transaction) = self.open.get_mut(&number) else {
            return Ok(());
        };
        match flags & CONTINUES {
            0 => transaction.add(record, content),
            _ => transaction.go_on(record, content),
        }
    }

    fn forget(&mut self, number: u32) -> Option<Transaction> {
        let transaction = self.open.remove(&number)?;
        self.pending_bytes -= transaction.cost;
        Some(transaction)
    }

    fn charge(&mut self, number: u32, length: usize) -> Result<()> {
        if let Some(transaction) = self.open.get_mut(&number) {
            transaction.cost += length + OPERATION_COST;
            self.pending_bytes += length + OPERATION_COST;
        }
        match self.pending_bytes <= PENDING_BYTES_MAX {
            true => Ok(()),
            false => Err(Error::Limit {
                what: "the bytes of unfinished transactions in the log of an XFS",
                limit: PENDING_BYTES_MAX as u64,
            }),
        }
    }
}

impl Transaction {
    fn add(&mut self, record: &Record, content: &[u8]) -> Result<()> {
        if content.is_empty() {
            return Ok(());
        }
        if self.header.is_empty() {
            if Fields(content).u32(0) != HEADER_MAGIC || content.len() > HEADER_LENGTH {
                return Err(broken(record, "expected the header of a transaction"));
            }
            self.header.extend_from_slice(content);
            return Ok(());
        }
        match self.items.last_mut() {
            Some(item) if item.regions.len() < item.regions_expected => {
                item.regions.push(content.to_vec());
            }
            _ => self.items.push(Item {
                regions_expected: match Fields(content).u16(2) {
                    0 => return Err(broken(record, "an item of no regions")),
                    count => count.into(),
                },
                regions: vec![content.to_vec()],
            }),
        }
        Ok(())
    }

    /// More of the last region, or of the header.
    fn go_on(&mut self, record: &Record, content: &[u8]) -> Result<()> {
        let last = self
            .items
            .last_mut()
            .and_then(|item| item.regions.last_mut());
        match last {
            Some(region) => region.extend_from_slice(content),
            None if self.header.len() + content.len() <= HEADER_LENGTH => {
                self.header.extend_from_slice(content);
            }
            None => return Err(broken(record, "nothing is there to be continued")),
        }
        Ok(())
    }
}

fn broken(record: &Record, problem: &str) -> Error {
    // Where the log is on the device is not known here: the place within it is said instead.
    let number = record.place.number();
    Error::corrupt(
        "XFS log record",
        (number & u64::from(u32::MAX)) * 512,
        format!("{problem} ({STRUCTURE} sequence number {number:#x}, byte within the log)"),
    )
}
