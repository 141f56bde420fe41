// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies images into another library: a second site's, or one on a disk that is sent there.
//!
//! ```text
//! image -> leaves that the other library's latest image lacks -> chunks that it has not -> its packs
//! ```
//!
//! An image keeps its id and its times. The other library checks every chunk against its hash and
//! computes the manifests itself; that they are the original's is what the commit insists on, so a
//! copy that exists is the original bit for bit. A copy that was interrupted goes on where it was,
//! because the other library keeps the chunks that it was sent.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use disk::{Finding, Level, Monitor};
use jiff::Timestamp;
use serde::Serialize;

use crate::access::{Library, UploadTarget};
use crate::document::{DiskDraft, Image, ImageDisk};
use crate::error::{Error, Result, chain_text};
use crate::id::{ImageId, ServerName};
use crate::image::ImageDevice;
use crate::ingest::{Ingest, IngestDisk, IngestStats};
use crate::local::LocalLibrary;
use crate::stored_hashes::StoredHashes;

/// How a library is replicated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicateOptions {
    /// Only these servers; empty: all.
    pub servers: Vec<ServerName>,
    /// Also images that are older than the newest of their server over there. Without it, what was
    /// pruned there does not come back.
    pub older_too: bool,
    /// Say what would be copied, and copy nothing.
    pub dry_run: bool,
}

/// What was copied, or would be.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReplicateReport {
    /// The images that were copied, oldest first.
    pub copied: Vec<CopiedImage>,
    /// Images that were there already.
    pub present: u64,
    /// Images that are older than what is there of their server.
    pub left_out: u64,
    /// Images that could not be copied, because something of them is damaged here.
    pub failed: Vec<FailedImage>,
}

/// An image that was copied.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CopiedImage {
    /// Its id, the same in both libraries.
    pub id: ImageId,
    /// Whose image.
    pub server: ServerName,
    /// When it was received here.
    pub received_at: Timestamp,
    /// Bytes of its disks.
    pub disk_bytes: u64,
    /// Bytes of chunks that were sent, before compression.
    pub new_bytes: u64,
    /// The same as they were sent.
    pub sent_bytes: u64,
}

/// An image that could not be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedImage {
    /// Its id.
    pub id: ImageId,
    /// Whose image.
    pub server: ServerName,
    /// Why.
    pub problem: String,
}

impl LocalLibrary {
    /// Copies images to another library, oldest first, until `stop` is set.
    ///
    /// # Errors
    ///
    /// Those of the other library, and [`Error::Stopped`]; what was copied before stays. An image
    /// that is damaged here is in the report, and the others are copied.
    pub fn replicate(
        &self,
        to: &dyn Library,
        options: &ReplicateOptions,
        monitor: &dyn Monitor,
        stop: &AtomicBool,
    ) -> Result<ReplicateReport> {
        let (expected, found) = (self.core().config.chunk_size_bytes, to.chunk_size_bytes());
        if expected != found {
            return Err(Error::Refused {
                what: "the other library",
                problem: format!(
                    "its chunks have {found} bytes, expected {expected}: create it with \
                     --chunk-size {expected}"
                ),
            });
        }
        let there = to.images()?;
        let mut report = ReplicateReport::default();
        let wanted = choose(self.core().images()?, &there, options, &mut report);
        for (number, image) in wanted.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let copied = if options.dry_run {
                Ok(IngestStats {
                    disk_bytes: image.disks.iter().map(|disk| disk.size_bytes).sum(),
                    ..IngestStats::default()
                })
            } else {
                let place = format!("{} of {}", number + 1, wanted.len());
                self.copy(image, to, &place, monitor, stop)
            };
            match copied {
                Ok(stats) => report.copied.push(CopiedImage {
                    id: image.id,
                    server: image.server.clone(),
                    received_at: image.received_at,
                    disk_bytes: stats.disk_bytes,
                    new_bytes: stats.new_bytes,
                    sent_bytes: stats.sent_bytes,
                }),
                Err(error) if is_damage_here(&error) => {
                    report.failed.push(failed(image, &error, monitor));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    fn copy(
        &self,
        image: &Image,
        to: &dyn Library,
        place: &str,
        monitor: &dyn Monitor,
        stop: &AtomicBool,
    ) -> Result<IngestStats> {
        let target = UploadTarget {
            server: image.server.clone(),
        };
        let upload = to.begin(&target)?;
        let ingest = Ingest {
            upload: &*upload,
            chunk_size_bytes: to.chunk_size_bytes(),
            monitor,
            stop,
        };
        let mut stats = IngestStats::default();
        for disk in &image.disks {
            monitor.stage(&format!(
                "Copying image {place}: {} of {}, disk {}",
                image.received_at, image.server, disk.name
            ));
            let previous = upload.latest_hashes(&disk.name)?;
            let source = self.source(image, disk)?;
            stats.add(&ingest.disk(&source, previous, &mut |_| ())?);
        }
        upload.commit_copy(image)?;
        Ok(stats)
    }

    /// A disk of an image whose hashes are known: only chunks that are missing over there are read.
    fn source(&self, image: &Image, disk: &ImageDisk) -> Result<IngestDisk> {
        let core = self.core();
        let device = ImageDevice::open(Arc::clone(core), image, disk)?;
        let hashes = StoredHashes::as_they_are(core, image, disk)?;
        Ok(IngestDisk {
            draft: DiskDraft {
                name: disk.name.clone(),
                size_bytes: disk.size_bytes,
                sector_size: disk.sector_size,
            },
            device: Arc::new(device),
            used: None,
            known: Some(Arc::new(hashes)),
        })
    }
}

/// The images to copy, oldest first.
fn choose(
    here: Vec<Image>,
    there: &[Image],
    options: &ReplicateOptions,
    report: &mut ReplicateReport,
) -> Vec<Image> {
    let present: HashSet<ImageId> = there.iter().map(|image| image.id).collect();
    let mut newest: BTreeMap<&ServerName, Timestamp> = BTreeMap::new();
    for image in there {
        let time = newest.entry(&image.server).or_insert(image.received_at);
        *time = (*time).max(image.received_at);
    }
    let servers = &options.servers;
    let mut wanted = Vec::new();
    for image in here {
        let is_older = newest
            .get(&image.server)
            .is_some_and(|newest| image.received_at < *newest);
        if !servers.is_empty() && !servers.contains(&image.server) {
            continue;
        } else if present.contains(&image.id) {
            report.present += 1;
        } else if is_older && !options.older_too {
            report.left_out += 1;
        } else {
            wanted.push(image);
        }
    }
    wanted
}

/// Whether the cause is in one image of this library. A device tells it as an error of a disk.
const fn is_damage_here(error: &Error) -> bool {
    error.is_damage() || matches!(error, Error::Disk(_))
}

fn failed(image: &Image, error: &Error, monitor: &dyn Monitor) -> FailedImage {
    let problem = chain_text(error);
    monitor.finding(&Finding {
        level: Level::Error,
        code: "library.replicate.damaged".to_owned(),
        place: format!("image {}", image.id),
        problem: problem.clone(),
        remedy: Some("run `image-library verify` here: it says what is lost".to_owned()),
    });
    FailedImage {
        id: image.id,
        server: image.server.clone(),
        problem,
    }
}

#[cfg(test)]
mod tests;
