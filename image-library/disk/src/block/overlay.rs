// SPDX-License-Identifier: MIT OR Apache-2.0
//! The changes to a device, kept beside it: the base is never written.
//!
//! Clusters of 64 KiB, whole in memory once something in them differs from the base, in a sorted
//! map: the cost follows the changes, not the disk. Bytes that are written as they already are
//! change nothing, so applying the same edits twice leaves the same overlay.
//!
//! Limit: [`OverlayOptions::limit_bytes`] of changed clusters. Not here: discarding, a base of
//! another size, changes that do not fit into memory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::copy::NewFile;
use super::qcow2::{Backing, CLUSTER_SIZE, Qcow2Image, Qcow2Writer, read_header};
use super::{Extent, ExtentKind, ReadAt, WriteAt, check_range, is_zero};
use crate::error::{Error, Result};

/// How an overlay behaves.
#[derive(Debug, Clone)]
pub struct OverlayOptions {
    /// How many bytes of changed clusters are kept in memory at most.
    pub limit_bytes: u64,
}

impl Default for OverlayOptions {
    fn default() -> Self {
        Self {
            limit_bytes: 160 << 20,
        }
    }
}

type Clusters = BTreeMap<u64, Box<[u8]>>;

/// A copy-on-write layer over a device.
pub struct Overlay {
    base: Arc<dyn ReadAt>,
    options: OverlayOptions,
    /// By number; each has [`CLUSTER_SIZE`] bytes, the last one of the disk what there is of it.
    clusters: RwLock<Clusters>,
}

impl Overlay {
    /// An overlay without changes.
    #[must_use]
    pub fn new(base: Arc<dyn ReadAt>, options: OverlayOptions) -> Self {
        Self {
            base,
            options,
            clusters: RwLock::new(BTreeMap::new()),
        }
    }

    /// The overlay that [`Overlay::write_qcow2`] wrote, over the same base again.
    ///
    /// Any qcow2 image whose disk has the base's size will do; the backing file that it names is
    /// not looked at.
    pub fn from_qcow2(
        image: Arc<dyn ReadAt>,
        base: Arc<dyn ReadAt>,
        options: OverlayOptions,
    ) -> Result<Self> {
        let header = read_header(&*image)?;
        if header.size_bytes != base.length_bytes() {
            return Err(Error::corrupt(
                "qcow2 header",
                24,
                format!(
                    "expected the size of the disk below, {} bytes, found {}",
                    base.length_bytes(),
                    header.size_bytes
                ),
            ));
        }
        let image = Qcow2Image::open(image, header, Some(Arc::clone(&base)))?;
        let overlay = Self::new(base, options);
        let mut buffer = vec![0; CLUSTER_SIZE as usize];
        for run in image.own_runs() {
            let (mut offset, length) = run?;
            let end = offset + length;
            while offset < end {
                let length = (CLUSTER_SIZE - offset % CLUSTER_SIZE).min(end - offset);
                let bytes = &mut buffer[..length as usize];
                image.read_exact_at(offset, bytes)?;
                overlay.write_all_at(offset, bytes)?;
                offset += length;
            }
        }
        Ok(overlay)
    }

    /// The device below.
    #[must_use]
    pub fn base(&self) -> &Arc<dyn ReadAt> {
        &self.base
    }

    /// How many clusters of 64 KiB differ from the base.
    #[must_use]
    pub fn changed_clusters(&self) -> u64 {
        self.read_clusters().len() as u64
    }

    /// How many bytes the changed clusters have.
    #[must_use]
    pub fn changed_bytes(&self) -> u64 {
        self.changed_clusters() * CLUSTER_SIZE
    }

    /// Writes the changes as a qcow2 image of the base's size, and tells its length in bytes.
    ///
    /// Without `backing` the image names none; whoever attaches it names the device below.
    /// `target` must be empty. An error leaves bytes in it that are no image.
    pub fn write_qcow2<W: Write + Seek>(
        &self,
        target: &mut W,
        backing: Option<Backing>,
    ) -> Result<u64> {
        let mut writer = Qcow2Writer::new(target, self.length_bytes(), backing)?;
        for (number, bytes) in self.read_clusters().iter() {
            if is_zero(bytes) {
                writer.zero(*number)?;
            } else {
                writer.data(*number, bytes)?;
            }
        }
        writer.finish()
    }

    /// Like [`Overlay::write_qcow2`], into a new file that appears under its name only when it
    /// is whole and durable.
    pub fn save_qcow2(&self, path: &Path, backing: Option<Backing>) -> Result<u64> {
        let mut file = NewFile::create(path)?;
        let length = file.write(|target: &mut File| self.write_qcow2(target, backing))?;
        file.finish()?;
        Ok(length)
    }

    fn read_clusters(&self) -> RwLockReadGuard<'_, Clusters> {
        self.clusters.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part of the disk that is cluster `number`.
    fn cluster_range(&self, number: u64) -> (u64, usize) {
        let start = number * CLUSTER_SIZE;
        let length = CLUSTER_SIZE.min(self.length_bytes() - start);
        (start, length as usize)
    }

    /// Cluster `number` of the base with `bytes` put in at `within`; `None`: it stays the same.
    fn changed(&self, number: u64, within: usize, bytes: &[u8]) -> Result<Option<Box<[u8]>>> {
        let (start, length) = self.cluster_range(number);
        let mut cluster = vec![0; length].into_boxed_slice();
        self.base.read_exact_at(start, &mut cluster)?;
        let part = &mut cluster[within..within + bytes.len()];
        if part == bytes {
            return Ok(None);
        }
        part.copy_from_slice(bytes);
        Ok(Some(cluster))
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Overlay")
            .field("base", &self.base)
            .field("changed_clusters", &self.changed_clusters())
            .finish_non_exhaustive()
    }
}

impl ReadAt for Overlay {
    fn length_bytes(&self) -> u64 {
        self.base.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range("read", self.length_bytes(), offset, buffer.len())?;
        if buffer.is_empty() {
            return Ok(());
        }
        let clusters = self.read_clusters();
        let last = (offset + buffer.len() as u64 - 1) / CLUSTER_SIZE;
        let (mut at, mut rest) = (offset, buffer);
        for (number, cluster) in clusters.range(offset / CLUSTER_SIZE..=last) {
            let start = number * CLUSTER_SIZE;
            if start > at {
                let (below, more) = rest.split_at_mut((start - at) as usize);
                self.base.read_exact_at(at, below)?;
                (at, rest) = (start, more);
            }
            let within = (at - start) as usize;
            let length = rest.len().min(cluster.len() - within);
            let (now, more) = rest.split_at_mut(length);
            now.copy_from_slice(&cluster[within..within + length]);
            (at, rest) = (at + length as u64, more);
        }
        if rest.is_empty() {
            return Ok(());
        }
        self.base.read_exact_at(at, rest)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes(), offset, 1)?;
        let clusters = self.read_clusters();
        let first = offset / CLUSTER_SIZE;
        let mut next = first;
        for number in clusters.range(first..).map(|(number, _)| *number) {
            if number > next {
                break;
            }
            next += 1;
        }
        if next > first {
            let end = (next * CLUSTER_SIZE).min(self.length_bytes());
            return Ok(Extent {
                length: end - offset,
                kind: ExtentKind::Data,
            });
        }
        let below = self.base.extent_at(offset)?;
        let changed = clusters.range(first..).next();
        let limit = changed.map_or(u64::MAX, |(number, _)| number * CLUSTER_SIZE - offset);
        Ok(Extent {
            length: below.length.min(limit),
            kind: below.kind,
        })
    }
}

impl WriteAt for Overlay {
    /// An error changes nothing.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes(), offset, bytes.len())?;
        let mut clusters = self
            .clusters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let room = self.options.limit_bytes / CLUSTER_SIZE;
        let mut new = Vec::new();
        for (number, within, part) in parts(offset, bytes) {
            if clusters.contains_key(&number) {
                continue;
            }
            if let Some(cluster) = self.changed(number, within, part)? {
                new.push((number, cluster));
            }
            if (clusters.len() + new.len()) as u64 > room {
                return Err(Error::Limit {
                    what: "the bytes of changes to a disk that are kept in memory",
                    limit: self.options.limit_bytes,
                });
            }
        }
        for (number, within, part) in parts(offset, bytes) {
            if let Some(cluster) = clusters.get_mut(&number) {
                cluster[within..within + part.len()].copy_from_slice(part);
            }
        }
        clusters.extend(new);
        Ok(())
    }

    /// Nothing to do: the changes are as durable as this process until they are saved.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Divides a write at cluster borders: the cluster's number, where in it, and the bytes.
fn parts(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, usize, &[u8])> {
    let (mut at, mut rest) = (offset, bytes);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let within = at % CLUSTER_SIZE;
        let length = rest.len().min((CLUSTER_SIZE - within) as usize);
        let (now, later) = rest.split_at(length);
        let part = (at / CLUSTER_SIZE, within as usize, now);
        (at, rest) = (at + length as u64, later);
        Some(part)
    })
}
