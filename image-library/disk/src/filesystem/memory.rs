// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device in memory, for tests: counts what is written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cache::check_bounds;
use crate::block::{ReadAt, WriteAt};
use crate::error::Result;

#[derive(Debug)]
pub(crate) struct MemoryDevice {
    bytes: Mutex<Vec<u8>>,
    written: AtomicU64,
}

impl MemoryDevice {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Mutex::new(bytes),
            written: AtomicU64::new(0),
        }
    }

    pub(crate) fn zeroed(length: usize) -> Self {
        Self::new(vec![0; length])
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("no test panics inside").clone()
    }
}

impl ReadAt for MemoryDevice {
    fn length_bytes(&self) -> u64 {
        self.bytes.lock().expect("no test panics inside").len() as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = self.bytes.lock().expect("no test panics inside");
        check_bounds(bytes.len() as u64, offset, buffer.len())?;
        buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

impl WriteAt for MemoryDevice {
    fn write_all_at(&self, offset: u64, content: &[u8]) -> Result<()> {
        self.written
            .fetch_add(content.len() as u64, Ordering::Relaxed);
        let mut bytes = self.bytes.lock().expect("no test panics inside");
        check_bounds(bytes.len() as u64, offset, content.len())?;
        bytes[offset as usize..][..content.len()].copy_from_slice(content);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
