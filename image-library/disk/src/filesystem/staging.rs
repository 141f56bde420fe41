// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes of one operation, held back until the operation has succeeded.
//!
//! A filesystem writer that fails half-way leaves half-written structures. Here it writes into
//! pages in memory: [`Staging::commit`] passes them on in long runs, [`Staging::discard`] forgets
//! them, and the device below has never seen them. Reads see what was written.
//!
//! **Limit:** the pages of one operation are in memory together: about the size of what it writes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::{CachedDevice, check_bounds};
use crate::block::{ReadAt, WriteAt};
use crate::error::Result;

const PAGE_BYTES: u64 = 4096;
/// The longest single write to the device below.
const RUN_BYTES_MAX: usize = 1 << 20;

/// A device whose writes wait for a commit.
#[derive(Debug)]
pub(crate) struct Staging {
    device: Arc<dyn WriteAt>,
    clean: CachedDevice,
    pages: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Staging {
    pub(crate) fn new(device: Arc<dyn WriteAt>) -> Self {
        Self {
            clean: CachedDevice::new(Arc::new(Arc::clone(&device)) as Arc<dyn ReadAt>),
            device,
            pages: Mutex::default(),
        }
    }

    /// Writes what the operation wrote to the device below.
    pub(crate) fn commit(&self) -> Result<()> {
        let pages = std::mem::take(&mut *self.lock());
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for (index, page) in pages {
            let offset = index * PAGE_BYTES;
            if start + run.len() as u64 != offset || run.len() >= RUN_BYTES_MAX {
                self.write_below(start, &run)?;
                run.clear();
                start = offset;
            }
            run.extend_from_slice(&page);
        }
        self.write_below(start, &run)
    }

    /// Forgets what the operation wrote.
    pub(crate) fn discard(&self) {
        self.lock().clear();
    }

    fn write_below(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.clean.forget(offset, bytes.len() as u64);
        self.device.write_all_at(offset, bytes)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page_length(&self, index: u64) -> usize {
        PAGE_BYTES.min(self.length_bytes() - index * PAGE_BYTES) as usize
    }
}

impl ReadAt for Staging {
    fn length_bytes(&self) -> u64 {
        self.device.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.clean.read_exact_at(offset, buffer)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = offset + buffer.len() as u64;
        let pages = self.lock();
        for (index, page) in pages.range(offset / PAGE_BYTES..=(end - 1) / PAGE_BYTES) {
            let page_start = index * PAGE_BYTES;
            let from = page_start.max(offset);
            let to = (page_start + page.len() as u64).min(end);
            if from < to {
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(
                    &page[(from - page_start) as usize..(to - page_start) as usize],
                );
            }
        }
        Ok(())
    }
}

impl WriteAt for Staging {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_bounds(self.length_bytes(), offset, bytes.len())?;
        let mut pages = self.lock();
        let mut done = 0;
        while done < bytes.len() {
            let position = offset + done as u64;
            let index = position / PAGE_BYTES;
            let length = self.page_length(index);
            let within = (position % PAGE_BYTES) as usize;
            let count = (length - within).min(bytes.len() - done);
            let page = match pages.entry(index) {
                std::collections::btree_map::Entry::Occupied(page) => page.into_mut(),
                std::collections::btree_map::Entry::Vacant(vacant) => {
                    let mut page = vec![0; length];
                    if count < length {
                        self.clean.read_exact_at(index * PAGE_BYTES, &mut page)?;
                    }
                    vacant.insert(page)
                }
            };
            page[within..within + count].copy_from_slice(&bytes[done..done + count]);
            done += count;
        }
        Ok(())
    }

    /// Nothing: durability is the commit's business.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Staging;
    use crate::block::{ReadAt, WriteAt};
    use crate::filesystem::memory::MemoryDevice;

    #[test]
    fn what_is_discarded_never_reaches_the_device() {
        let below = Arc::new(MemoryDevice::zeroed(10_000));
        let staging = Staging::new(Arc::clone(&below) as Arc<dyn WriteAt>);
        staging.write_all_at(4090, &[1; 12]).expect("inside");
        let mut seen = [9; 14];
        staging.read_exact_at(4089, &mut seen).expect("inside");
        assert_eq!(seen, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
        staging.discard();
        staging.read_exact_at(4089, &mut seen).expect("inside");
        assert_eq!(seen, [0; 14]);
        staging.write_all_at(9_999, &[7]).expect("the last byte");
        staging.commit().expect("fits");
        assert_eq!(below.bytes()[9_998..], [0, 7]);
        assert_eq!(below.written_bytes(), 10_000 - 8192, "one short page");
    }
}
