// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes what this library has lost from a copy of it: chunks, leaves and roots of manifests.
//!
//! ```text
//! image document -> root -> leaves -> chunks            each one of which no whole copy is known
//!                    ^        ^         ^
//!                    +--------+---------+-- the same disk of the same image in the other library
//! ```
//!
//! `replicate` keeps the ids of images, and manifests name content hashes, which are the same in
//! every library. So what is lost is read there at the same place of the same disk, and must have
//! the hash that is known here: a leaf is computed again from the chunks that it names, a root from
//! all leaves. What another library says is believed in nothing else.
//!
//! Not here: an image whose document is lost. `replicate` brings it back as a whole.
//!
//! Limits: [`LEFT_MAX`] findings are kept. Memory is one window of a disk, the hashes of one leaf,
//! a hash for each leaf of one disk, and an id for each of the first million chunks that were taken.

mod replica;
mod work;

use std::sync::atomic::AtomicBool;

use disk::{Finding, Level, Monitor, Unit};
use serde::Serialize;

use crate::access::ImageReader;
use crate::error::{Error, Result, chain_text};
use crate::id::ImageId;
use crate::local::LocalLibrary;
use crate::store::list_images;
use work::Work;

/// More of what is left is only counted.
const LEFT_MAX: usize = 1000;

/// How a library is healed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealOptions {
    /// Read and check what would be taken, and store nothing.
    pub dry_run: bool,
}

/// What was taken from the other library, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HealReport {
    /// Images that were looked through.
    pub images: u64,
    /// Chunks of disks that were taken.
    pub chunks: u64,
    /// Leaves of manifests that were made again.
    pub leaves: u64,
    /// Roots of manifests that were made again.
    pub roots: u64,
    /// Bytes of all these, before compression.
    pub bytes: u64,
    /// What is lost still; the first thousand.
    pub left: Vec<Finding>,
    /// How much there is of it.
    pub left_count: u64,
}

impl HealReport {
    fn leave(&mut self, place: String, problem: String, remedy: &str, monitor: &dyn Monitor) {
        let finding = Finding {
            level: Level::Error,
            code: "library.heal.left".to_owned(),
            place,
            problem,
            remedy: Some(remedy.to_owned()),
        };
        monitor.finding(&finding);
        self.left_count += 1;
        if self.left.len() < LEFT_MAX {
            self.left.push(finding);
        }
    }
}

impl LocalLibrary {
    /// Takes from another library what of the images of this one has no whole copy here, until
    /// `stop` is set. What is damaged is known from `verify`; missing packs and damaged manifests are
    /// found here too.
    ///
    /// # Errors
    ///
    /// When this library cannot be read or written or the other one not be reached, and
    /// [`Error::Stopped`]; what was taken before stays. What the other library has lost too is in
    /// the report.
    pub fn heal(
        &self,
        from: &dyn ImageReader,
        options: &HealOptions,
        monitor: &dyn Monitor,
        stop: &AtomicBool,
    ) -> Result<HealReport> {
        let core = self.core();
        core.sync_index()?;
        let mut report = HealReport::default();
        let mut images = Vec::new();
        for id in list_images(&*core.store)? {
            match core.image(id) {
                Ok(image) => images.push(image),
                Err(Error::NoSuchImage { .. }) => {}
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                    leave_document(&mut report, id, &error, monitor);
                }
                Err(error) => return Err(error),
            }
        }
        // One upload for each server; of a server the newest first, which is wanted most.
        images.sort_by(|a, b| (&a.server, b.id).cmp(&(&b.server, a.id)));
        let mut work = Work::begin(core, from, options, stop, monitor, &mut report)?;
        monitor.stage("Looking for what is lost");
        monitor.expect(images.len() as u64, Unit::Items);
        for image in &images {
            work.image(image)?;
            monitor.advance(1);
        }
        work.finish()?;
        Ok(report)
    }
}

fn leave_document(report: &mut HealReport, id: ImageId, error: &Error, monitor: &dyn Monitor) {
    let place = format!("image {id}");
    let problem = format!("its document cannot be read: {}", chain_text(error));
    let remedy = "remove this file, then copy the image back with `image-library replicate \
                  --older-too`";
    report.leave(place, problem, remedy, monitor);
}

#[cfg(test)]
mod tests;
