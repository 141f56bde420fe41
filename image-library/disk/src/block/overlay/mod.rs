// SPDX-License-Identifier: MIT OR Apache-2.0
//! The changes to a device, kept beside it: the base is never written.
//!
//! Clusters of 64 KiB, whole in memory once something in them differs from the base, in a sorted
//! map; clusters that became zeros are kept as runs, without their bytes. So the cost follows the
//! changes, not the disk. Bytes that are written as they already are change nothing, so applying
//! the same edits twice leaves the same overlay.
//!
//! The base is read while nobody is kept waiting: it never changes, so what was read of it stays
//! true. A cluster that has changed never goes back to being the base's.
//!
//! Limit: [`OverlayOptions::limit_bytes`] of changes. Not here: a base of another size, changes
//! that do not fit into memory.

mod changes;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Seek, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::copy::NewFile;
use super::qcow2::{Backing, CLUSTER_SIZE, Qcow2Image, Qcow2Writer, read_header};
use super::{
    Extent, ExtentKind, ReadAt, WriteAt, check_length, check_range, fill_with_zeros, is_zero,
};
use crate::error::{Error, Result};

use changes::{Changes, RUN_COST_BYTES, State};

/// How an overlay behaves.
#[derive(Debug, Clone)]
pub struct OverlayOptions {
    /// How many bytes of changes are kept in memory at most.
    pub limit_bytes: u64,
}

impl Default for OverlayOptions {
    fn default() -> Self {
        Self {
            limit_bytes: 160 << 20,
        }
    }
}

/// A copy-on-write layer over a device.
pub struct Overlay {
    base: Arc<dyn ReadAt>,
    options: OverlayOptions,
    changes: RwLock<Changes>,
}

impl Overlay {
    /// An overlay without changes.
    #[must_use]
    pub fn new(base: Arc<dyn ReadAt>, options: OverlayOptions) -> Self {
        Self {
            base,
            options,
            changes: RwLock::default(),
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
        self.read_changes().cluster_count()
    }

    /// How many bytes the changed clusters have on the disk; those of zeros are not in memory.
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
        for (clusters, state) in self.read_changes().runs() {
            match state {
                State::Data(bytes) if !is_zero(bytes) => writer.data(clusters.start, bytes)?,
                State::Data(_) => writer.zero(clusters.start)?,
                State::Zero => self.write_zeros(&mut writer, clusters)?,
                State::Base => {}
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

    /// Writes the changes into `target`, a device of the base's size; they stay in the overlay too.
    ///
    /// An error leaves a part of them there.
    pub fn write_to(&self, target: &dyn WriteAt) -> Result<()> {
        for (clusters, state) in self.read_changes().runs() {
            let offset = clusters.start * CLUSTER_SIZE;
            let end = (clusters.end * CLUSTER_SIZE).min(self.length_bytes());
            match state {
                State::Data(bytes) => target.write_all_at(offset, bytes)?,
                State::Zero => target.write_zeroes_at(offset, end - offset)?,
                State::Base => {}
            }
        }
        Ok(())
    }

    /// Zeros over zeros of the base are left out: a disk that was discarded as a whole would cost a
    /// table entry for each of its clusters.
    fn write_zeros<W: Write + Seek>(
        &self,
        writer: &mut Qcow2Writer<'_, W>,
        clusters: Range<u64>,
    ) -> Result<()> {
        let mut next = clusters.start;
        while next < clusters.end {
            let offset = next * CLUSTER_SIZE;
            let below = self.base.extent_at(offset)?;
            let end = offset.saturating_add(below.length);
            let same = if end >= self.length_bytes() {
                clusters.end
            } else {
                (end / CLUSTER_SIZE).min(clusters.end)
            };
            if below.kind == ExtentKind::Zero && same > next {
                next = same;
                continue;
            }
            writer.zero(next)?;
            next += 1;
        }
        Ok(())
    }

    fn read_changes(&self) -> RwLockReadGuard<'_, Changes> {
        self.changes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_changes(&self) -> RwLockWriteGuard<'_, Changes> {
        self.changes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error if `more` bytes of changes beside those that there are would be too many.
    fn check_room(&self, changes: &Changes, more: u64) -> Result<()> {
        if changes.cost_bytes().saturating_add(more) <= self.options.limit_bytes {
            return Ok(());
        }
        Err(Error::Limit {
            what: "the bytes of changes to a disk that are kept in memory",
            limit: self.options.limit_bytes,
        })
    }

    /// How many bytes of the disk cluster `number` has: less than others, if it is the last.
    fn cluster_length(&self, number: u64) -> usize {
        CLUSTER_SIZE.min(self.length_bytes() - number * CLUSTER_SIZE) as usize
    }

    fn base_cluster(&self, number: u64) -> Result<Box<[u8]>> {
        let mut cluster = vec![0; self.cluster_length(number)].into_boxed_slice();
        self.base
            .read_exact_at(number * CLUSTER_SIZE, &mut cluster)?;
        Ok(cluster)
    }

    /// The clusters of the base that a write changes first, read before anything is locked.
    fn base_clusters(&self, offset: u64, bytes: &[u8]) -> Result<BTreeMap<u64, Box<[u8]>>> {
        let still_base: Vec<u64> = {
            let changes = self.read_changes();
            parts(offset, bytes)
                .map(|(number, ..)| number)
                .filter(|number| matches!(changes.state(*number), State::Base))
                .collect()
        };
        let read = |number| Ok((number, self.base_cluster(number)?));
        still_base.into_iter().map(read).collect()
    }

    /// The clusters that lie wholly in a range; the last one of the disk may be a short one.
    fn whole_clusters(&self, offset: u64, length: u64) -> Range<u64> {
        let end = offset + length;
        let after_last = if end == self.length_bytes() {
            end.div_ceil(CLUSTER_SIZE)
        } else {
            end / CLUSTER_SIZE
        };
        offset.div_ceil(CLUSTER_SIZE)..after_last
    }

    fn keep_zeros(&self, clusters: Range<u64>) -> Result<()> {
        let mut changes = self.lock_changes();
        // What becomes zeros gives its bytes back, which is more than a run costs.
        if !changes.has_data_in(&clusters) {
            self.check_room(&changes, RUN_COST_BYTES)?;
        }
        changes.zero(clusters);
        Ok(())
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
        let end = offset + buffer.len() as u64;
        let mut of_base: Vec<Range<u64>> = Vec::new();
        let changes = self.read_changes();
        let mut at = offset;
        while at < end {
            let first = at / CLUSTER_SIZE;
            let (run_end, state) = changes.run(first, end.div_ceil(CLUSTER_SIZE));
            let until = (run_end * CLUSTER_SIZE).min(end);
            let target = &mut buffer[(at - offset) as usize..(until - offset) as usize];
            match state {
                State::Base => of_base.push(at..until),
                State::Zero => target.fill(0),
                State::Data(bytes) => {
                    let within = (at % CLUSTER_SIZE) as usize;
                    target.copy_from_slice(&bytes[within..within + target.len()]);
                }
            }
            at = until;
        }
        drop(changes);
        for part in of_base {
            let target = (part.start - offset) as usize..(part.end - offset) as usize;
            self.base.read_exact_at(part.start, &mut buffer[target])?;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range("look at", self.length_bytes(), offset, 1)?;
        let clusters = self.length_bytes().div_ceil(CLUSTER_SIZE);
        let first = offset / CLUSTER_SIZE;
        let changes = self.read_changes();
        let (end, kind) = match changes.run(first, clusters) {
            (_, State::Data(_)) => (changes.data_end(first), Some(ExtentKind::Data)),
            (end, State::Zero) => (end, Some(ExtentKind::Zero)),
            (end, State::Base) => (end, None),
        };
        drop(changes);
        let length = (end * CLUSTER_SIZE).min(self.length_bytes()) - offset;
        match kind {
            Some(kind) => Ok(Extent { length, kind }),
            None => {
                let below = self.base.extent_at(offset)?;
                Ok(Extent {
                    length: below.length.min(length),
                    kind: below.kind,
                })
            }
        }
    }
}

impl WriteAt for Overlay {
    /// An error changes nothing.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range("write", self.length_bytes(), offset, bytes.len())?;
        let mut below = self.base_clusters(offset, bytes)?;
        let mut changes = self.lock_changes();
        let mut new = Vec::new();
        let mut cost = 0;
        for (number, within, part) in parts(offset, bytes) {
            let mut cluster = match changes.state(number) {
                State::Data(_) => continue,
                State::Zero => vec![0; self.cluster_length(number)].into_boxed_slice(),
                State::Base => match below.remove(&number) {
                    Some(cluster) => cluster,
                    None => self.base_cluster(number)?,
                },
            };
            let target = &mut cluster[within..within + part.len()];
            if target == part {
                continue;
            }
            target.copy_from_slice(part);
            let kept = (!is_zero(&cluster)).then_some(cluster);
            cost += kept.as_ref().map_or(RUN_COST_BYTES, |_| CLUSTER_SIZE);
            new.push((number, kept));
        }
        if !new.is_empty() {
            self.check_room(&changes, cost)?;
        }
        for (number, within, part) in parts(offset, bytes) {
            if let Some(cluster) = changes.data_mut(number) {
                cluster[within..within + part.len()].copy_from_slice(part);
            }
        }
        for (number, kept) in new {
            match kept {
                Some(cluster) => changes.put(number, cluster),
                None => changes.zero(number..number + 1),
            }
        }
        Ok(())
    }

    /// Nothing to do: the changes are as durable as this process until they are saved.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Whole clusters are remembered without their bytes.
    fn write_zeroes_at(&self, offset: u64, length: u64) -> Result<()> {
        check_length("zero", self.length_bytes(), offset, length)?;
        let end = offset + length;
        let clusters = self.whole_clusters(offset, length);
        if clusters.is_empty() {
            return fill_with_zeros(self, offset, length);
        }
        let head_end = clusters.start * CLUSTER_SIZE;
        let tail = (clusters.end * CLUSTER_SIZE).min(end);
        fill_with_zeros(self, offset, head_end - offset)?;
        fill_with_zeros(self, tail, end - tail)?;
        self.keep_zeros(clusters)
    }

    /// Whole clusters read as zeros afterwards, and cost nothing; the rest stays as it is.
    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        check_length("discard", self.length_bytes(), offset, length)?;
        let clusters = self.whole_clusters(offset, length);
        if clusters.is_empty() {
            return Ok(());
        }
        match self.keep_zeros(clusters) {
            // It was a hint; what cannot be remembered stays as it was.
            Err(Error::Limit { .. }) => Ok(()),
            kept => kept,
        }
    }

    fn has_cheap_zeros(&self, offset: u64, length: u64) -> bool {
        let end = offset.saturating_add(length);
        offset.is_multiple_of(CLUSTER_SIZE)
            && (end.is_multiple_of(CLUSTER_SIZE) || end == self.length_bytes())
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

#[cfg(test)]
mod tests;
