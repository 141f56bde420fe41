// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frees what no image needs any more, beside uploads that go on.
//!
//! A prune has two halves, and they are not done by the same run. The first condemns packs of which
//! nothing is in use: from then on nothing is deduplicated against them. The second, after the
//! grace, looks again and removes those of which still nothing is in use. What keeps an upload safe
//! that was paused for days in between is the floor, not a clock: FORMAT.md, section 10.

mod lease;
mod mark;
mod policy;
mod state;
mod trash;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use disk::{Monitor, Unit};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use crate::core::Core;
use crate::document::Image;
use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::local::LocalLibrary;
use crate::pack::PackId;
use crate::store::lock::FileLock;
use crate::store::{list_images, names};
use lease::Lease;
use mark::{Marks, Use};
use state::{Condemned, Floor, Register, overtaken};

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
    /// Somebody made sure that no other program prunes this library: asked for where a shared
    /// store does not honour conditions of writes.
    pub is_sole_pruner: bool,
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
    /// [`Error::Locked`] while another prune goes on; [`Error::Refused`] where prunes of several
    /// machines would not see each other; those of reading a manifest that is damaged:
    /// then nothing is removed.
    pub fn prune(&self, options: &PruneOptions, monitor: &dyn Monitor) -> Result<PruneReport> {
        let core = self.core();
        let path = core.workspace.lock("prune");
        let _lock = FileLock::try_exclusive(&path)?.ok_or(Error::Locked { path })?;
        let is_alone = !core.store.is_shared() || options.is_sole_pruner || options.dry_run;
        let conditional = core.conditional();
        if conditional.is_none() && !is_alone {
            return Err(Error::Refused {
                what: "the prune",
                problem: "this library's bucket does not honour conditions of writes, so two \
                          prunes would not see each other: choose one machine for it, and prune \
                          there with --sole-pruner"
                    .to_owned(),
            });
        }
        let lease = match conditional.filter(|_| !options.dry_run) {
            Some(store) => Some(Lease::take(core, store)?),
            None => None,
        };
        let mut prune = Prune {
            core,
            options,
            now: (core.clock)(),
            report: PruneReport::default(),
            register: Register::read(core)?,
            lease,
        };
        prune.run(monitor)?;
        if let Some(lease) = prune.lease {
            lease.give_back()?;
        }
        Ok(prune.report)
    }
}

struct Prune<'a> {
    core: &'a Core,
    options: &'a PruneOptions,
    now: Timestamp,
    report: PruneReport,
    register: Register<'a>,
    lease: Option<Lease<'a>>,
}

impl Prune<'_> {
    fn run(&mut self, monitor: &dyn Monitor) -> Result<()> {
        if !self.options.dry_run {
            self.carry_out_removal()?;
        }
        self.delete(monitor)?;
        let purged = self.purge()?;
        let lists = self.lists()?;
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
        self.condemn(&packs, &known)
    }

    /// The lists that hold. Those that a prune published which was overtaken are removed when
    /// nobody can make them hold any more.
    fn lists(&self) -> Result<Vec<Condemned>> {
        let floor = &self.register.floor;
        let (hold, void): (Vec<_>, Vec<_>) = self
            .core
            .condemned()?
            .into_iter()
            .partition(|list| floor.holds(list));
        for list in void.iter().filter(|list| list.generation <= floor.closing) {
            if !self.options.dry_run {
                self.core.store.remove(&names::condemned(list.generation))?;
            }
        }
        Ok(hold)
    }

    /// Changes the floor, and takes the lease for longer where it is time.
    fn change(&mut self, change: impl FnOnce(&mut Floor)) -> Result<()> {
        if let Some(lease) = &mut self.lease {
            lease.keep()?;
        }
        self.register.change(change)
    }

    /// How much of each pack these images use.
    fn mark(
        &self,
        reaching: &[Image],
        condemned: &HashSet<PackId>,
        monitor: &dyn Monitor,
    ) -> Result<HashMap<PackId, Use>> {
        let view = self.core.index.view()?;
        let mut marks = Marks::new(self.core, &view, condemned)?;
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
    fn raise_floor(&mut self, due: &[Condemned], purged: &HashSet<ImageId>) -> Result<Vec<Image>> {
        let generation = due.iter().map(|list| list.generation).max();
        let is_new = |new: &u64| *new > self.register.floor.generation && !self.options.dry_run;
        let generation = generation.filter(is_new);
        if let Some(generation) = generation {
            self.change(|floor| floor.closing = generation)?;
        }
        let reaching = self.reaching(&self.register.floor, purged)?;
        if let Some(generation) = generation {
            let older = reaching
                .iter()
                .filter(|image| image.generation < generation);
            let accepted: BTreeSet<ImageId> = older.map(|image| image.id).collect();
            self.change(|floor| {
                floor.generation = generation;
                floor.accepted = accepted;
            })?;
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

    /// Removes the packs of these lists of which nothing is in use. Which they are is decided once,
    /// with a change of the floor, and is never decided otherwise afterwards: whoever carries it
    /// out, and however late, removes nothing that anybody relies on.
    fn sweep(&mut self, due: &[Condemned], packs: &HashMap<PackId, Use>) -> Result<()> {
        let mut doomed = Vec::new();
        for pack in due.iter().flat_map(Condemned::packs) {
            let found = packs.get(&pack).copied().unwrap_or_default();
            if found.live_records > 0 {
                self.report.spared_packs += 1;
                continue;
            }
            self.report.removed_packs += 1;
            self.report.removed_bytes += found.bytes;
            doomed.push(pack);
        }
        if due.is_empty() || self.options.dry_run {
            return Ok(());
        }
        let decision = Uuid::new_v4();
        self.core.note_removal(decision, &doomed)?;
        let held = self.held_lists()?;
        let done: BTreeSet<u64> = due.iter().map(|list| list.generation).collect();
        self.change(|floor| {
            floor.lists = Some(held.difference(&done).copied().collect());
            floor.removing = Some(decision);
        })?;
        self.carry_out_removal()?;
        // After the packs: as long as a list is there, nothing is deduplicated against its packs.
        for list in due {
            self.core.store.remove(&names::condemned(list.generation))?;
        }
        Ok(())
    }

    /// Removes the packs that were decided on, by this prune or by one that was killed.
    fn carry_out_removal(&mut self) -> Result<()> {
        let Some(decision) = self.register.floor.removing else {
            return self.forget_decisions();
        };
        let packs = self.core.removal(decision)?;
        for pack in &packs {
            self.core.store.remove(&names::pack(pack))?;
        }
        self.core.forget_wanted(&packs.into_iter().collect())?;
        self.change(|floor| floor.removing = None)?;
        let name = names::removing(&decision.to_string());
        self.core.store.remove(&name)
    }

    /// Removes the decisions of prunes that were overtaken or killed before they counted.
    fn forget_decisions(&self) -> Result<()> {
        for stored in self.core.store.list(names::PRUNE)? {
            if names::is_removing(&stored.name) {
                self.core.store.remove(&stored.name)?;
            }
        }
        Ok(())
    }

    /// The generations of the lists that hold.
    fn held_lists(&self) -> Result<BTreeSet<u64>> {
        if let Some(lists) = &self.register.floor.lists {
            return Ok(lists.clone());
        }
        let lists = self.core.condemned()?;
        Ok(lists.iter().map(|list| list.generation).collect())
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
        // The number first, so that no two lists ever have the same one; the list holds when the
        // floor says so.
        let newest = self.core.pruned()?.generation;
        let generation = newest.max(self.register.floor.issued) + 1;
        let mut held = self.held_lists()?;
        self.change(|floor| floor.issued = generation)?;
        let list = Condemned::new(generation, self.now, &condemned);
        if !self.core.publish_condemned(&list)? {
            return Err(overtaken());
        }
        held.insert(generation);
        self.change(|floor| floor.lists = Some(held))
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
mod shared_tests;
#[cfg(test)]
mod tests;
