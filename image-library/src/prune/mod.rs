// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frees what no image needs any more, beside uploads that go on.
//!
//! A prune has two halves, and they are not done by the same run. The first condemns packs of which
//! nothing is in use: from then on nothing is deduplicated against them. The second, after the
//! grace, looks again and removes those of which still nothing is in use. What keeps an upload safe
//! that was paused for days in between is the floor, not a clock: FORMAT.md, section 10.

mod mark;
mod policy;
mod state;
mod trash;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use disk::{Monitor, Unit};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::core::Core;
use crate::document::Image;
use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::local::LocalLibrary;
use crate::pack::PackId;
use crate::store::lock::FileLock;
use crate::store::{list_images, names};
use mark::{Marks, Use};
use state::{Condemned, Floor};

pub use policy::{Decision, KeepPolicy, KeepReason};
pub(crate) use state::Pruned;
pub use trash::DeletedImage;

/// How a prune is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneOptions {
    /// Which images are kept; the others are deleted first. `None`: all.
    pub keep: Option<KeepPolicy>,
    /// How long deleted images can be taken back, and condemned packs are left.
    pub grace: Duration,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// What the policy says about each image; empty without a policy.
    pub decisions: Vec<Decision>,
    /// Images that left the trash for good.
    pub purged: Vec<ImageId>,
    /// Packs that were removed.
    pub removed_packs: u64,
    /// Their length in bytes.
    pub removed_bytes: u64,
    /// Packs that were condemned and are in use again.
    pub spared_packs: u64,
    /// Packs that were condemned.
    pub condemned_packs: u64,
    /// Their length in bytes.
    pub condemned_bytes: u64,
    /// Packs that wait for the end of their grace.
    pub waiting_packs: u64,
    /// Bytes in packs that are in use in part.
    pub unused_bytes: u64,
}

impl LocalLibrary {
    /// Frees what no image needs any more.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] while another prune goes on; those of reading a manifest that is damaged:
    /// then nothing is removed.
    pub fn prune(&self, options: &PruneOptions, monitor: &dyn Monitor) -> Result<PruneReport> {
        let core = self.core();
        let path = core.workspace.lock("prune");
        let _lock = FileLock::try_exclusive(&path)?.ok_or(Error::Locked { path })?;
        Prune {
            core,
            options,
            now: (core.clock)(),
            report: PruneReport::default(),
        }
        .run(monitor)
    }
}

struct Prune<'a> {
    core: &'a Core,
    options: &'a PruneOptions,
    now: Timestamp,
    report: PruneReport,
}

impl Prune<'_> {
    fn run(mut self, monitor: &dyn Monitor) -> Result<PruneReport> {
        self.delete(monitor)?;
        let purged = self.purge()?;
        let lists = self.core.condemned()?;
        let (due, waiting): (Vec<_>, Vec<_>) = lists
            .into_iter()
            .partition(|list| self.is_over(list.published_at));
        let reaching = self.raise_floor(&due, &purged)?;

        self.core.sync_index()?;
        let condemned: HashSet<PackId> = due
            .iter()
            .chain(&waiting)
            .flat_map(Condemned::packs)
            .collect();
        let packs = match self.mark(&reaching, &condemned, monitor) {
            // A damaged index is made again: it is a cache, and no reason not to prune.
            Err(Error::Corrupt { structure, .. }) if structure.starts_with("index") => {
                self.core.index.discard()?;
                self.core.sync_index()?;
                self.mark(&reaching, &condemned, monitor)?
            }
            packs => packs?,
        };

        self.sweep(&due, &packs)?;
        let waiting: HashSet<PackId> = waiting.iter().flat_map(Condemned::packs).collect();
        self.report.waiting_packs = waiting.len() as u64;
        let dealt_with: HashSet<PackId> = due.iter().flat_map(Condemned::packs).collect();
        let known = waiting.union(&dealt_with).copied().collect();
        self.condemn(&packs, &known)?;
        Ok(self.report)
    }

    /// How much of each pack these images use.
    fn mark(
        &self,
        reaching: &[Image],
        condemned: &HashSet<PackId>,
        monitor: &dyn Monitor,
    ) -> Result<HashMap<PackId, Use>> {
        let view = self.core.index.view()?;
        let mut marks = Marks::new(self.core, &view, condemned);
        monitor.stage("Marking what is in use");
        monitor.expect(reaching.len() as u64, Unit::Items);
        marks.mark(reaching, monitor)?;
        marks.packs()
    }

    fn is_over(&self, since: Timestamp) -> bool {
        let grace = SignedDuration::try_from(self.options.grace).unwrap_or(SignedDuration::MAX);
        self.now.duration_since(since) >= grace
    }

    /// Deletes what the policy does not keep.
    fn delete(&mut self, monitor: &dyn Monitor) -> Result<()> {
        let Some(policy) = self.options.keep else {
            return Ok(());
        };
        monitor.stage("Choosing the images to keep");
        self.report.decisions = policy.decide(&self.core.images()?);
        if self.options.dry_run {
            return Ok(());
        }
        for decision in &self.report.decisions {
            if decision.keep.is_empty() {
                match self.core.delete_image(decision.image) {
                    // Protected, or deleted meanwhile.
                    Ok(()) | Err(Error::Refused { .. } | Error::NoSuchImage { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Empties the trash of what has been there long enough.
    fn purge(&mut self) -> Result<HashSet<ImageId>> {
        let mut purged = HashSet::new();
        let floor = self.core.floor()?;
        for deleted in self.core.trash()? {
            let id = deleted.id;
            // What cannot be read goes too, when its time is over; what does not count stays.
            if deleted.image.is_ok_and(|image| !floor.counts(&image)) {
                continue;
            }
            if !self.is_over(deleted.deleted_at) || self.core.store.exists(&names::image(id))? {
                continue;
            }
            if !self.options.dry_run {
                for name in self.core.store.list(&names::side_files(id))? {
                    self.core.store.remove(&name.name)?;
                }
                self.core.store.remove(&names::trash(id))?;
            }
            purged.insert(id);
            self.report.purged.push(id);
        }
        Ok(purged)
    }

    /// From here on no commit of an upload that began before the lists that are due is accepted
    /// unless its image is there already. Gives every image that counts, deleted ones too.
    fn raise_floor(&self, due: &[Condemned], purged: &HashSet<ImageId>) -> Result<Vec<Image>> {
        let mut floor = self.core.floor()?;
        let generation = due.iter().map(|list| list.generation).max();
        let generation = generation.filter(|new| *new > floor.generation && !self.options.dry_run);
        if let Some(generation) = generation {
            floor.closing = generation;
            self.core.publish_floor(&floor)?;
        }
        let reaching = self.reaching(&floor, purged)?;
        if let Some(generation) = generation {
            let older = reaching
                .iter()
                .filter(|image| image.generation < generation);
            let accepted: BTreeSet<ImageId> = older.map(|image| image.id).collect();
            let floor = Floor {
                closing: generation,
                generation,
                accepted,
            };
            self.core.publish_floor(&floor)?;
        }
        Ok(reaching)
    }

    /// Every image that counts, some of them twice. One that cannot be read is an error here: what it names would be
    /// removed.
    fn reaching(&self, floor: &Floor, purged: &HashSet<ImageId>) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        // Twice: an image that is taken back while the trash is read is in the second listing, one
        // that is deleted meanwhile in the first or in the trash.
        let mut ids: BTreeSet<ImageId> = list_images(&*self.core.store)?.into_iter().collect();
        let deleted = self.core.trash()?;
        ids.extend(list_images(&*self.core.store)?);
        for id in ids {
            let image = match self.core.read_image(id) {
                // Deleted since it was listed.
                Err(Error::NoSuchImage { .. }) => self.core.read_deleted(id),
                image => image,
            };
            match image {
                Ok(image) if floor.counts(&image) => images.push(image),
                Ok(_) | Err(Error::NoSuchImage { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for deleted in deleted {
            if purged.contains(&deleted.id) {
                continue;
            }
            let image = deleted.image?;
            if floor.counts(&image) {
                images.push(image);
            }
        }
        Ok(images)
    }

    fn sweep(&mut self, due: &[Condemned], packs: &HashMap<PackId, Use>) -> Result<()> {
        for list in due {
            for pack in list.packs() {
                let found = packs.get(&pack).copied().unwrap_or_default();
                if found.live_records > 0 {
                    self.report.spared_packs += 1;
                    continue;
                }
                self.report.removed_packs += 1;
                self.report.removed_bytes += found.bytes;
                if !self.options.dry_run {
                    self.core.store.remove(&names::pack(&pack))?;
                }
            }
            // Last: as long as it is there, nothing is deduplicated against its packs.
            if !self.options.dry_run {
                self.core.store.remove(&names::condemned(list.generation))?;
            }
        }
        Ok(())
    }

    fn condemn(&mut self, packs: &HashMap<PackId, Use>, known: &HashSet<PackId>) -> Result<()> {
        let fresh = self.fresh_packs()?;
        let mut condemned = Vec::new();
        for (&pack, found) in packs {
            if found.live_records > 0 {
                self.report.unused_bytes += found.bytes - found.live_bytes;
            } else if !known.contains(&pack) && !fresh.contains(&pack) {
                condemned.push(pack);
                self.report.condemned_bytes += found.bytes;
            }
        }
        condemned.sort_unstable();
        self.report.condemned_packs = condemned.len() as u64;
        if condemned.is_empty() || self.options.dry_run {
            return Ok(());
        }
        let generation = self.core.pruned()?.generation + 1;
        let list = Condemned::new(generation, self.now, &condemned);
        if self.core.publish_condemned(&list)? {
            return Ok(());
        }
        Err(Error::Refused {
            what: "the prune",
            problem: "another program prunes this library at the same time".to_owned(),
        })
    }

    /// Packs that are younger than the grace: an upload that goes on, or will be taken up again,
    /// may be about to name what is in them.
    fn fresh_packs(&self) -> Result<HashSet<PackId>> {
        let listed = self.core.store.list(names::PACKS)?;
        let fresh = listed.iter().filter(|stored| {
            let modified = Timestamp::try_from(stored.modified);
            modified.is_ok_and(|modified| !self.is_over(modified))
        });
        Ok(fresh
            .filter_map(|stored| names::parse_pack(&stored.name))
            .collect())
    }
}

#[cfg(test)]
mod tests;
