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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;
    use proptest::prelude::{any, prop, proptest};
    use std::io::{self, Cursor, SeekFrom};

    const CLUSTER: usize = CLUSTER_SIZE as usize;

    /// A disk of 1 TiB that reads as zeros and counts the bytes that are read of it.
    #[derive(Debug, Default)]
    struct Huge(std::sync::atomic::AtomicU64);

    impl ReadAt for Huge {
        fn length_bytes(&self) -> u64 {
            1 << 40
        }

        fn read_exact_at(&self, _offset: u64, buffer: &mut [u8]) -> Result<()> {
            let length = buffer.len() as u64;
            self.0
                .fetch_add(length, std::sync::atomic::Ordering::Relaxed);
            buffer.fill(0);
            Ok(())
        }
    }

    fn over(bytes: Vec<u8>) -> Overlay {
        Overlay::new(
            Arc::new(MemoryDevice::from(bytes)),
            OverlayOptions::default(),
        )
    }

    fn read_all(device: &dyn ReadAt) -> Vec<u8> {
        let length = usize::try_from(device.length_bytes()).expect("it is small");
        let mut bytes = vec![0xee; length];
        device.read_exact_at(0, &mut bytes).expect("all of it");
        bytes
    }

    #[test]
    fn changes_are_read_and_the_base_is_not_written() {
        let base = Arc::new(MemoryDevice::from(vec![1; 3 * CLUSTER + 512]));
        let overlay = Overlay::new(base.clone(), OverlayOptions::default());
        overlay
            .write_all_at(CLUSTER_SIZE - 2, b"edit")
            .expect("inside");
        overlay
            .write_all_at(3 * CLUSTER_SIZE + 508, b"last")
            .expect("inside");
        overlay.flush().expect("nothing to do");
        let mut read = [0; 8];
        overlay
            .read_exact_at(CLUSTER_SIZE - 4, &mut read)
            .expect("inside");
        assert_eq!(&read, b"\x01\x01edit\x01\x01");
        assert_eq!(&read_all(&overlay)[3 * CLUSTER + 506..], b"\x01\x01last");
        assert_eq!(
            (overlay.changed_clusters(), overlay.changed_bytes()),
            (3, 3 * 65_536)
        );
        assert!(read_all(&base).iter().all(|byte| *byte == 1));
        assert!(
            overlay
                .write_all_at(3 * CLUSTER_SIZE + 509, b"last")
                .is_err()
        );
        assert_eq!(overlay.base().length_bytes(), 3 * CLUSTER_SIZE + 512);
    }

    #[test]
    fn writing_what_is_there_changes_nothing() {
        let overlay = over(vec![1; 2 * CLUSTER]);
        overlay.write_all_at(100, &[1; CLUSTER]).expect("inside");
        assert_eq!(overlay.changed_clusters(), 0);
    }

    #[test]
    fn extents_of_changes_are_data_and_the_rest_is_the_bases() {
        let overlay = Overlay::new(Arc::new(Huge::default()), OverlayOptions::default());
        overlay
            .write_all_at(5 * CLUSTER_SIZE, &[1; 2 * CLUSTER])
            .expect("inside");
        let extent = |offset| overlay.extent_at(offset).expect("inside").length;
        assert_eq!(extent(CLUSTER_SIZE), 4 * CLUSTER_SIZE);
        assert_eq!(extent(5 * CLUSTER_SIZE + 1), 2 * CLUSTER_SIZE - 1);
        assert_eq!(extent(7 * CLUSTER_SIZE), (1 << 40) - 7 * CLUSTER_SIZE);
        assert!(overlay.extent_at(1 << 40).is_err());
    }

    #[test]
    fn beyond_the_limit_a_write_is_refused_whole() {
        let options = OverlayOptions {
            limit_bytes: 2 * CLUSTER_SIZE,
        };
        let overlay = Overlay::new(Arc::new(MemoryDevice::from(vec![0; 5 * CLUSTER])), options);
        overlay.write_all_at(0, b"x").expect("there is room");
        let error = overlay
            .write_all_at(CLUSTER_SIZE, &[1; 2 * CLUSTER])
            .expect_err("there is no room");
        assert!(
            matches!(error, Error::Limit { limit: 131_072, .. }),
            "{error}"
        );
        assert_eq!(overlay.changed_clusters(), 1);
        overlay
            .write_all_at(1, b"y")
            .expect("the cluster is there already");
    }

    #[test]
    fn a_disk_of_1_tib_costs_what_is_changed() {
        let base = Arc::new(Huge::default());
        let overlay = Overlay::new(base.clone(), OverlayOptions::default());
        overlay.write_all_at(0, b"first").expect("inside");
        overlay
            .write_all_at((1 << 39) + 7, b"middle")
            .expect("inside");
        overlay
            .write_all_at((1 << 40) - 4, b"last")
            .expect("inside");
        let mut file = Cursor::new(Vec::new());
        let length = overlay.write_qcow2(&mut file, None).expect("memory");
        // Header, 3 data clusters, 3 L2 tables, L1 table, refcounts 2.
        assert_eq!(length, 10 * CLUSTER_SIZE);
        let again = Overlay::from_qcow2(
            Arc::new(MemoryDevice::from(file.into_inner())),
            base.clone(),
            OverlayOptions::default(),
        )
        .expect("it was just written");
        assert_eq!(again.changed_clusters(), 3);
        assert!(*again.read_clusters() == *overlay.read_clusters());
        let read = base.0.load(std::sync::atomic::Ordering::Relaxed);
        assert!(
            read <= 6 * CLUSTER_SIZE,
            "{read} bytes of the base were read"
        );
    }

    #[test]
    fn an_overlay_of_another_disk_is_refused() {
        let mut file = Cursor::new(Vec::new());
        over(vec![0; 1024])
            .write_qcow2(&mut file, None)
            .expect("memory");
        let image = Arc::new(MemoryDevice::from(file.into_inner()));
        let base = Arc::new(MemoryDevice::from(vec![0; 512]));
        let error = Overlay::from_qcow2(image, base, OverlayOptions::default())
            .expect_err("the sizes differ");
        assert_eq!(
            error.to_string(),
            "qcow2 header at byte 0x18: expected the size of the disk below, 512 bytes, found 1024"
        );
    }

    /// Takes `room` bytes, then is full.
    struct Full {
        room: u64,
        at: u64,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.at += bytes.len() as u64;
            if self.at > self.room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Full {
        fn seek(&mut self, _position: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }

    #[test]
    fn a_full_filesystem_is_told_with_a_hint_wherever_it_happens() {
        let overlay = over(vec![0; 4 * CLUSTER]);
        overlay.write_all_at(0, &[1; 2 * CLUSTER]).expect("inside");
        // Header, 2 data clusters, L2 and L1 table, refcounts 2, header again.
        for clusters in 0..7 {
            let room = clusters * CLUSTER_SIZE + 1;
            let error = overlay
                .write_qcow2(&mut Full { room, at: 0 }, None)
                .expect_err("it is full");
            assert!(
                matches!(
                    error,
                    Error::Device {
                        action: "write",
                        ..
                    }
                ),
                "{error}"
            );
            assert_eq!(
                error.hint().as_deref(),
                Some("make room on that filesystem and run the command again")
            );
        }
        let room = u64::MAX;
        overlay
            .write_qcow2(&mut Full { room, at: 0 }, None)
            .expect("there is room");
    }

    #[test]
    fn a_saved_overlay_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("overlay.qcow2");
        let odd = over(vec![0; 1000]);
        assert!(
            odd.save_qcow2(&path, None).is_err(),
            "not a multiple of 512"
        );
        let count = || {
            std::fs::read_dir(directory.path())
                .expect("it exists")
                .count()
        };
        assert_eq!(count(), 0, "nothing is left");
        let overlay = over(vec![0; 1024]);
        let length = overlay.save_qcow2(&path, None).expect("there is room");
        assert_eq!(std::fs::metadata(&path).expect("saved").len(), length);
        assert_eq!(count(), 1);
        let error = overlay.save_qcow2(&path, None).expect_err("it exists");
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("another name"))
        );
    }

    #[test]
    fn a_full_device_is_told_by_its_name() {
        if !Path::new("/dev/full").exists() {
            eprintln!("skipped: there is no /dev/full");
            return;
        }
        let mut full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("it is there");
        let error = over(vec![0; 1024])
            .write_qcow2(&mut full, None)
            .expect_err("it is always full")
            .in_file(Path::new("/srv/overlay.qcow2"));
        assert_eq!(error.to_string(), "write /srv/overlay.qcow2");
        assert!(error.hint().is_some_and(|hint| hint.contains("make room")));
    }

    proptest! {
        #[test]
        fn an_overlay_is_a_copy_that_was_written(
            writes in prop::collection::vec((0..3 * CLUSTER + 90, 1..2 * CLUSTER, any::<u8>()), 1..8),
        ) {
            let mut expected = vec![0; 3 * CLUSTER + 512];
            let overlay = over(expected.clone());
            for (at, length, value) in writes {
                let end = expected.len().min(at + length);
                expected[at..end].fill(value);
                overlay.write_all_at(at as u64, &expected[at..end]).expect("inside");
            }
            assert!(read_all(&overlay) == expected);
            let mut file = Cursor::new(Vec::new());
            overlay.write_qcow2(&mut file, None).expect("memory");
            let image = Arc::new(MemoryDevice::from(file.into_inner()));
            let again = Overlay::from_qcow2(image, overlay.base().clone(), OverlayOptions::default())
                .expect("it was just written");
            assert!(read_all(&again) == expected);
        }
    }
}
