// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of an image behind a server, in two ways: in ranges of 1 MiB, kept a while, read ahead in
//! sequence; or directly, each read asked for as it is, for a reader that keeps what it was given.
//!
//! Holes are known from pages of extents and never asked for, but by direct readers, who know them
//! from the disk's hashes. Limits: 48 blocks of 1 MiB and 64 pages are kept, the ones not used for
//! longest are dropped.

use std::sync::{Arc, Mutex, PoisonError};

use disk::ReadAt;
use disk::block::{Extent, ExtentKind};

use crate::client::connection::{Answer, Connection};
use crate::error::{Error, Result};
use crate::id::{DiskIndex, ImageId};
use crate::protocol::{ExtentPage, READ_BYTES_MAX, WireExtent};

/// Bytes of a block: what one random read costs at least.
const BLOCK_BYTES: u64 = 1 << 20;
/// How many blocks are asked for at once when reads follow each other.
const AHEAD_BLOCKS: u64 = READ_BYTES_MAX / BLOCK_BYTES;
/// How many blocks are kept.
const BLOCKS_MAX: usize = 48;
/// How many pages of extents are kept.
const PAGES_MAX: usize = 64;

/// A disk behind a server, of which a part is kept in memory.
#[derive(Debug)]
pub(super) struct RemoteDevice {
    remote: DirectDevice,
    kept: Mutex<Kept>,
}

/// A disk behind a server, of which nothing is kept.
#[derive(Debug)]
pub(super) struct DirectDevice {
    connection: Arc<Connection>,
    image: String,
    disk: String,
    disk_bytes: u64,
}

/// What was read; the last used last.
#[derive(Debug, Default)]
struct Kept {
    blocks: Vec<(u64, Arc<Vec<u8>>)>,
    pages: Vec<Arc<Page>>,
    /// The block after the one that was read last.
    next_block: u64,
}

/// Extents from `start`, one after the other.
#[derive(Debug)]
struct Page {
    start: u64,
    /// End of each extent and its kind.
    ends: Vec<(u64, ExtentKind)>,
}

impl Page {
    fn new(start: u64, extents: &[WireExtent]) -> Self {
        let mut end = start;
        let ends = extents
            .iter()
            .map(|extent| {
                end = end.saturating_add(extent.length);
                let kind = if extent.zero {
                    ExtentKind::Zero
                } else {
                    ExtentKind::Data
                };
                (end, kind)
            })
            .collect();
        Self { start, ends }
    }

    fn extent_at(&self, offset: u64) -> Option<Extent> {
        if offset < self.start {
            return None;
        }
        let index = self.ends.partition_point(|(end, _)| *end <= offset);
        let (end, kind) = *self.ends.get(index)?;
        Some(Extent {
            length: end.saturating_sub(offset),
            kind,
        })
    }
}

impl DirectDevice {
    /// Asks for the disk's size.
    pub(super) fn open(
        connection: Arc<Connection>,
        image: ImageId,
        disk: DiskIndex,
    ) -> Result<Self> {
        Ok(Self::open_with_extents(connection, image, disk)?.0)
    }

    /// Gives the first extents too, which come with the size.
    fn open_with_extents(
        connection: Arc<Connection>,
        image: ImageId,
        disk: DiskIndex,
    ) -> Result<(Self, ExtentPage)> {
        let mut device = Self {
            connection,
            image: image.to_string(),
            disk: disk.to_string(),
            disk_bytes: 0,
        };
        let first = device.fetch_page(0)?;
        device.disk_bytes = first.disk_bytes;
        Ok((device, first))
    }

    fn path<'a>(&'a self, what: &'a str) -> [&'a str; 6] {
        ["v1", "images", &self.image, "disks", &self.disk, what]
    }

    fn fetch_page(&self, from: u64) -> Result<ExtentPage> {
        let from = from.to_string();
        let query = [("from", from.as_str())];
        self.connection
            .get_json("tell what is a hole", &self.path("extents"), &query)
    }

    /// Fills the buffer; the server may give it in several answers.
    fn fetch(&self, start: u64, buffer: &mut [u8]) -> Result<()> {
        let end = start.saturating_add(buffer.len() as u64);
        let (mut offset, mut rest) = (start, buffer);
        while !rest.is_empty() {
            let range = Some((offset, end - 1));
            let answer =
                self.connection
                    .get_bytes("read a disk", &self.path("data"), &[], range)?;
            self.check_range(&answer, offset, end)?;
            let (now, later) = rest.split_at_mut(answer.bytes.len());
            now.copy_from_slice(&answer.bytes);
            offset = offset.saturating_add(answer.bytes.len() as u64);
            rest = later;
        }
        Ok(())
    }

    fn check_range(&self, answer: &Answer, offset: u64, end: u64) -> Result<()> {
        let length = answer.bytes.len() as u64;
        let last = offset.saturating_add(length).saturating_sub(1);
        let expected = format!("bytes {offset}-{last}/{}", self.disk_bytes);
        let found = answer.range.as_deref().unwrap_or("none");
        if length == 0 || length > end - offset || found != expected {
            return Err(self.protocol(format!("expected the range {expected}, found {found}")));
        }
        Ok(())
    }

    fn protocol(&self, problem: String) -> Error {
        self.connection.protocol(problem)
    }

    fn check_bounds(&self, offset: u64, length: u64) -> disk::Result<()> {
        let end = offset.checked_add(length);
        if end.is_some_and(|end| end <= self.disk_bytes) {
            return Ok(());
        }
        let past_end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        Err(failed(offset, length, past_end))
    }
}

fn failed(
    offset: u64,
    length: u64,
    source: impl std::error::Error + Send + Sync + 'static,
) -> disk::Error {
    disk::Error::Device {
        action: "read",
        offset,
        length,
        source: Box::new(source),
    }
}

impl ReadAt for DirectDevice {
    fn length_bytes(&self) -> u64 {
        self.disk_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        let length = buffer.len() as u64;
        self.check_bounds(offset, length)?;
        self.fetch(offset, buffer)
            .map_err(|error| failed(offset, length, error))
    }
}

impl RemoteDevice {
    /// Asks for the disk's size and its first extents.
    pub(super) fn open(
        connection: Arc<Connection>,
        image: ImageId,
        disk: DiskIndex,
    ) -> Result<Self> {
        let (remote, first) = DirectDevice::open_with_extents(connection, image, disk)?;
        let device = Self {
            remote,
            kept: Mutex::default(),
        };
        device.keep_page(Page::new(0, &first.extents));
        Ok(device)
    }

    fn keep_page(&self, page: Page) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.pages.len() >= PAGES_MAX {
            kept.pages.remove(0);
        }
        kept.pages.push(Arc::new(page));
    }

    fn known_extent(&self, offset: u64) -> Option<Extent> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, extent) = kept
            .pages
            .iter()
            .enumerate()
            .find_map(|(index, page)| Some((index, page.extent_at(offset)?)))?;
        let page = kept.pages.remove(index);
        kept.pages.push(page);
        Some(extent)
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        if let Some(extent) = self.known_extent(offset) {
            return Ok(extent);
        }
        let page = Page::new(offset, &self.remote.fetch_page(offset)?.extents);
        let extent = page.extent_at(offset).ok_or_else(|| {
            self.remote
                .protocol(format!("no extent at byte {offset:#x}"))
        })?;
        self.keep_page(page);
        Ok(extent)
    }

    /// One block: kept from before, or fetched, with those after it when reads follow each other.
    fn block(&self, index: u64) -> Result<Arc<Vec<u8>>> {
        let count = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let in_sequence = index == kept.next_block;
            kept.next_block = index.saturating_add(1);
            if let Some(position) = kept.blocks.iter().position(|(known, _)| *known == index) {
                let entry = kept.blocks.remove(position);
                let block = Arc::clone(&entry.1);
                kept.blocks.push(entry);
                return Ok(block);
            }
            if in_sequence { AHEAD_BLOCKS } else { 1 }
        };
        let start = index.saturating_mul(BLOCK_BYTES);
        // What follows is fetched with it only as far as it is no hole.
        let data = self.extent(start)?;
        let ahead = if data.kind == ExtentKind::Data {
            data.length.max(BLOCK_BYTES)
        } else {
            BLOCK_BYTES
        };
        let length = count
            .saturating_mul(BLOCK_BYTES)
            .min(ahead.next_multiple_of(BLOCK_BYTES))
            .min(self.remote.disk_bytes.saturating_sub(start));
        // At most `READ_BYTES_MAX`.
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.remote.fetch(start, &mut bytes)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = None;
        let block_bytes = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        for (index, block) in (index..).zip(bytes.chunks(block_bytes)) {
            let block = Arc::new(block.to_vec());
            wanted.get_or_insert_with(|| Arc::clone(&block));
            kept.blocks.retain(|(known, _)| *known != index);
            kept.blocks.push((index, block));
        }
        let surplus = kept.blocks.len().saturating_sub(BLOCKS_MAX);
        kept.blocks.drain(..surplus);
        wanted.ok_or_else(|| self.remote.protocol("an empty range".to_owned()))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut offset = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let extent = self.extent(offset)?;
            let in_block = offset % BLOCK_BYTES;
            let length = (rest.len() as u64)
                .min(extent.length)
                .min(BLOCK_BYTES - in_block);
            // At most 1 MiB, as is the offset in the block.
            let length = usize::try_from(length).unwrap_or_default().max(1);
            let (now, later) = rest.split_at_mut(length);
            if extent.kind == ExtentKind::Zero {
                now.fill(0);
            } else {
                let block = self.block(offset / BLOCK_BYTES)?;
                let start = usize::try_from(in_block).unwrap_or_default();
                let bytes = block
                    .get(start..start.saturating_add(length))
                    .ok_or_else(|| self.remote.protocol("a short block".to_owned()))?;
                now.copy_from_slice(bytes);
            }
            offset = offset.saturating_add(length as u64);
            rest = later;
        }
        Ok(())
    }
}

impl ReadAt for RemoteDevice {
    fn length_bytes(&self) -> u64 {
        self.remote.disk_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        let length = buffer.len() as u64;
        self.remote.check_bounds(offset, length)?;
        self.read(offset, buffer)
            .map_err(|error| failed(offset, length, error))
    }

    fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
        self.extent(offset)
            .map_err(|error| failed(offset, 1, error))
    }
}
