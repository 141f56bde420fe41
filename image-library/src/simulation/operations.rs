// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the users of a library do, and what each may answer.
//!
//! An operation that no fault struck must succeed, but for the refusals that the format promises.
//! One that was struck leaves doubt, and the model keeps it.

use std::collections::BTreeMap;
use std::time::Duration;

use disk::{Finding, Monitor, Silent, Unit};

use super::coverage::Event;
use super::model::Places;
use super::turns::Actor;
use super::world::{World, lock, now};
use crate::tests::draft;
use crate::{
    DiskIndex, Error, ImageId, ImageReader, KeepPolicy, LocalLibrary, PruneOptions, PruneReport,
    UploadTarget, ingest,
};

/// The name of the side file that images get.
pub(super) const SIDE: &str = "readiness.json";

/// How often the turn passes on while a disk is read.
const DISK_TURNS: usize = 10;

/// What an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Upload,
    Prune,
    Delete,
    Undelete,
    Read,
    SideFile,
    Verify,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::Upload,
        Self::Prune,
        Self::Delete,
        Self::Undelete,
        Self::Read,
        Self::SideFile,
        Self::Verify,
    ];
}

/// An operation with its arguments.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Upload { server: usize },
    Prune { grace: Duration, keep_last: u32 },
    Delete(ImageId),
    Undelete(ImageId),
    Read(ImageId),
    SideFile(ImageId, Vec<u8>),
    Verify,
}

impl Act {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Upload { .. } => Kind::Upload,
            Self::Prune { .. } => Kind::Prune,
            Self::Delete(_) => Kind::Delete,
            Self::Undelete(_) => Kind::Undelete,
            Self::Read(_) => Kind::Read,
            Self::SideFile(..) => Kind::SideFile,
            Self::Verify => Kind::Verify,
        }
    }

    /// The image that it changes: one such operation at a time.
    pub(super) const fn changes(&self) -> Option<ImageId> {
        match self {
            Self::Delete(id) | Self::Undelete(id) | Self::SideFile(id, _) => Some(*id),
            Self::Upload { .. } | Self::Prune { .. } | Self::Read(_) | Self::Verify => None,
        }
    }
}

/// One operation by one process.
pub(super) struct Performance<'a> {
    pub(super) world: &'a World,
    pub(super) library: &'a LocalLibrary,
    pub(super) actor: Actor,
}

impl Performance<'_> {
    /// Does it. Gives whether it succeeded.
    pub(super) fn perform(&self, act: &Act) -> bool {
        match act {
            Act::Upload { server } => self.upload(*server),
            Act::Prune { grace, keep_last } => self.prune(*grace, *keep_last),
            Act::Delete(id) => self.delete(*id),
            Act::Undelete(id) => self.undelete(*id),
            Act::Read(id) => self.read(*id),
            Act::SideFile(id, content) => self.side_file(*id, content),
            Act::Verify => self.verify(),
        }
    }

    /// An error that nothing explains is a violation.
    fn explain(&self, what: &str, error: &Error, is_promised: bool) {
        let damage = self.world.is_damaged() && (is_damage(error) || is_promised);
        if !(is_promised || damage || self.world.is_struck(self.actor)) {
            self.world.violation(format!("{what}: {error:?}"));
        }
    }

    fn upload(&self, server: usize) -> bool {
        let world = self.world;
        let prunes = self.prunes();
        let upload = lock(&world.model).begin_upload(server);
        let name = lock(&world.model).servers[server].name;
        let server = name.parse().expect("a legal name");
        let disks: Vec<_> = upload.disks.iter().map(|disk| disk.to_ingest()).collect();
        let target = UploadTarget { server };
        let slow = SlowDisks(self);
        match ingest(self.library, &target, &disks, &draft(), &slow) {
            Ok((image, stats)) => {
                world.count(Event::NothingSent, u64::from(stats.new_chunks == 0));
                lock(&world.model).commit(image.id, &upload);
                true
            }
            Err(error) => {
                let is_refused =
                    matches!(&error, Error::Refused { what, .. } if *what == "the commit");
                if is_refused {
                    world.count(Event::CommitRefused, 1);
                    lock(&world.model).end_upload(&upload);
                }
                // A prune removes packs of which nothing was in use, and the upload may have begun
                // before it: its commit would be refused too. Damage is found at any time.
                let is_outdated = matches!(&error, Error::Refused { what, .. } if *what == "a disk")
                    && (!self.had_no_prunes(prunes) || world.is_damaged());
                self.explain("an upload failed", &error, is_refused || is_outdated);
                false
            }
        }
    }

    fn delete(&self, id: ImageId) -> bool {
        let prunes = self.prunes();
        let before = self.loosen(id, |places| places.trash = true);
        match self.library.delete_image(id) {
            Ok(()) => {
                // A prune may remove it at once, and then fail.
                let gone = lock(&self.world.model).prunes_going > 0;
                let places = Places {
                    gone,
                    ..Places::DELETED
                };
                self.settle(id, places);
                true
            }
            Err(error) => {
                let is_absent = matches!(error, Error::NoSuchImage { .. });
                if is_absent && !self.world.is_struck(self.actor) {
                    self.doubt(id, before);
                } else {
                    self.doubt_all(id, before);
                }
                let is_certain = before == Places::COMMITTED && self.had_no_prunes(prunes);
                self.explain("a delete failed", &error, is_absent && !is_certain);
                false
            }
        }
    }

    fn undelete(&self, id: ImageId) -> bool {
        let prunes = self.prunes();
        let before = self.loosen(id, |places| places.images = true);
        match self.library.undelete_image(id) {
            Ok(()) => {
                // A policy may drop it again at once.
                let is_safe = lock(&self.world.model).policies_going == 0;
                let places = if is_safe {
                    Places::COMMITTED
                } else {
                    Places::ANYWHERE
                };
                self.settle(id, places);
                true
            }
            Err(error) => {
                let is_refused = matches!(error, Error::NoSuchImage { .. } | Error::Refused { .. });
                if is_refused && !self.world.is_struck(self.actor) {
                    self.doubt(id, before);
                } else {
                    self.doubt_all(id, before);
                }
                let is_certain = match &error {
                    // A prune that was killed while it raised the floor leaves it half raised.
                    Error::Refused { .. } => !self.has_prunes(),
                    _ => before == Places::DELETED && self.had_no_prunes(prunes),
                };
                self.explain("an undelete failed", &error, is_refused && !is_certain);
                false
            }
        }
    }

    /// An operation on an image begins: it may be in more places.
    fn loosen(&self, id: ImageId, change: impl FnOnce(&mut Places)) -> Places {
        let mut model = lock(&self.world.model);
        let Some(known) = model.known.get_mut(&id) else {
            return Places::GONE;
        };
        let before = known.places;
        known.version += 1;
        known.is_busy = true;
        change(&mut known.places);
        before
    }

    fn settle(&self, id: ImageId, places: Places) {
        if let Some(known) = lock(&self.world.model).known.get_mut(&id) {
            known.places = places;
            known.version += 1;
            known.is_busy = false;
        }
    }

    /// An operation on an image did nothing; a prune may have done something meanwhile.
    fn doubt(&self, id: ImageId, before: Places) {
        let places = Places {
            images: before.images,
            trash: true,
            gone: true,
        };
        self.settle(id, places);
    }

    /// An operation on an image failed half-way: it was done or not; and beside a prune, what it
    /// left in the trash may be gone.
    fn doubt_all(&self, id: ImageId, before: Places) {
        let gone = before.gone || self.has_prunes();
        let places = Places {
            images: true,
            trash: true,
            gone,
        };
        self.settle(id, places);
    }

    /// How many prunes have begun or ended, and how many go on.
    fn prunes(&self) -> (u64, u64) {
        let model = lock(&self.world.model);
        (model.prune_edges, model.prunes_going)
    }

    /// Whether no prune went on since then.
    fn had_no_prunes(&self, since: (u64, u64)) -> bool {
        since.1 == 0 && self.prunes() == since
    }

    /// Whether there was a prune yet.
    fn has_prunes(&self) -> bool {
        lock(&self.world.model).prune_edges > 0
    }

    fn prune(&self, grace: Duration, keep_last: u32) -> bool {
        lock(&self.world.model).count_prune(true);
        let policies = u64::from(keep_last > 0);
        lock(&self.world.model).policies_going += policies;
        let is_done = self.prune_counted(grace, keep_last);
        lock(&self.world.model).policies_going -= policies;
        lock(&self.world.model).count_prune(false);
        is_done
    }

    fn prune_counted(&self, grace: Duration, keep_last: u32) -> bool {
        let before = self.loosen_all(keep_last > 0);
        let keep = (keep_last > 0).then(|| KeepPolicy {
            last: keep_last,
            ..KeepPolicy::default()
        });
        let options = PruneOptions {
            keep,
            grace,
            dry_run: false,
            is_sole_pruner: false,
        };
        match self.library.prune(&options, &Silent) {
            Ok(report) => {
                self.pruned(&before, &report);
                true
            }
            Err(error) => {
                let is_locked = matches!(error, Error::Locked { .. });
                lock(&self.world.model).policies_failed += u64::from(keep_last > 0 && !is_locked);
                if is_locked {
                    self.pruned(&before, &PruneReport::default());
                }
                self.explain("a prune failed", &error, is_locked);
                false
            }
        }
    }

    /// A prune begins: what is in the trash may go, and a policy may put more there.
    fn loosen_all(&self, has_policy: bool) -> BTreeMap<ImageId, (u64, Places)> {
        let mut model = lock(&self.world.model);
        let loosen = |(id, known): (&ImageId, &mut super::model::Known)| {
            let before = (known.version, known.places);
            known.places.trash |= known.places.images && has_policy;
            known.places.gone |= known.places.trash;
            (*id, before)
        };
        model.known.iter_mut().map(loosen).collect()
    }

    fn pruned(&self, before: &BTreeMap<ImageId, (u64, Places)>, report: &PruneReport) {
        let world = self.world;
        world.count(Event::PackCondemned, report.condemned_packs);
        world.count(Event::PackRemoved, report.removed_packs);
        world.count(Event::PackSpared, report.spared_packs);
        world.count(Event::ImagePurged, report.purged.len() as u64);
        let mut model = lock(&world.model);
        for (id, (version, places)) in before {
            let known = model.known.get_mut(id);
            if let Some(known) = known.filter(|known| known.version == *version && !known.is_busy) {
                known.places = *places;
            }
        }
        // Those that were committed meanwhile, and may have been dropped at once.
        let is_only = !report.decisions.is_empty() && model.policies_going <= 1;
        for (id, known) in &mut model.known {
            let is_new = !before.contains_key(id) && known.version == 0 && !known.is_busy;
            if is_only && is_new && known.places == Places::ANYWHERE {
                known.places = Places::COMMITTED;
            }
        }
        let dropped = report
            .decisions
            .iter()
            .filter(|decision| decision.keep.is_empty());
        for decision in dropped {
            world.count(Event::ImageDropped, 1);
            let id = decision.image;
            match (model.known.get_mut(&id), before.get(&id)) {
                (Some(known), Some((version, _)))
                    if known.version == *version && !known.is_busy =>
                {
                    known.places = Places::DELETED;
                }
                (Some(known), _) => {
                    known.places.trash = true;
                    known.places.gone = true;
                }
                (None, _) => drop(model.dropped_early.insert(id)),
            }
        }
        for id in &report.purged {
            match (model.known.get_mut(id), before.get(id)) {
                (Some(known), Some((version, _)))
                    if known.version == *version && !known.is_busy =>
                {
                    known.places = Places::GONE;
                }
                // Taken back or deleted once more meanwhile.
                (Some(known), _) => known.places.gone |= !known.places.images || known.places.trash,
                (None, _) => drop(model.dropped_early.insert(*id)),
            }
        }
    }

    fn read(&self, id: ImageId) -> bool {
        let world = self.world;
        let before = lock(&world.model).clone();
        let certain = lock(&world.model).certain();
        let listed = match self.library.images() {
            Ok(listed) => listed,
            Err(error) => {
                self.explain("images cannot be listed", &error, false);
                return false;
            }
        };
        {
            let model = lock(&world.model);
            for image in &listed {
                let server = image.server.as_str();
                let was_there = before.may_be_there(image.id, server);
                // A commit that began meanwhile may have come and gone.
                let has_begun = model.uploads > before.uploads;
                if !was_there && !has_begun && !model.may_be_there(image.id, server) {
                    world.violation(format!("image {} was never committed", image.id));
                }
            }
            for (id, version) in &certain {
                let is_listed = listed.iter().any(|image| image.id == *id);
                if !is_listed && !world.is_damaged() && model.is_certain_still(*id, *version) {
                    world.violation(format!("image {id} is not listed"));
                }
            }
        }
        self.read_disks(id, certain.get(&id).copied())
    }

    fn read_disks(&self, id: ImageId, certain: Option<u64>) -> bool {
        let Some(known) = lock(&self.world.model).known.get(&id).cloned() else {
            return false;
        };
        for (index, disk) in known.disks.iter().enumerate() {
            let device = self.library.open_disk(id, DiskIndex(index as u16));
            let read = device.and_then(|device| Ok(disk.difference(&*device)?));
            match read {
                Ok(None) => {}
                Ok(Some(problem)) => {
                    self.world.violation(format!("image {id} has {problem}"));
                }
                Err(error) => {
                    let model = lock(&self.world.model);
                    let must_be_there =
                        certain.is_some_and(|version| model.is_certain_still(id, version));
                    drop(model);
                    self.explain("an image cannot be read", &error, !must_be_there);
                    return false;
                }
            }
        }
        true
    }

    fn side_file(&self, id: ImageId, content: &[u8]) -> bool {
        let world = self.world;
        if let Some(known) = lock(&world.model).known.get_mut(&id) {
            known.side.insert(Some(content.to_vec()));
        }
        match self.library.put_side_file(id, SIDE, content) {
            Ok(()) => {
                if let Some(known) = lock(&world.model).known.get_mut(&id) {
                    known.side = [Some(content.to_vec())].into();
                }
                true
            }
            Err(error) => {
                let is_absent = matches!(error, Error::NoSuchImage { .. });
                let certain = lock(&world.model).certain();
                let is_promised = is_absent && !certain.contains_key(&id);
                self.explain("a side file cannot be put", &error, is_promised);
                false
            }
        }
    }

    fn verify(&self) -> bool {
        let world = self.world;
        world.note_step(self.actor);
        let report = match self.library.verify(&Silent) {
            Ok(report) => report,
            Err(error) => {
                world.violation(format!("verify failed: {error:?}"));
                return false;
            }
        };
        let is_damaged = world.is_damaged();
        world.count(
            Event::DamageFound,
            u64::from(is_damaged && !report.is_sound()),
        );
        let certain = lock(&world.model).certain();
        for finding in &report.findings {
            let is_image = finding.code.starts_with("library.image");
            let is_certain = certain
                .keys()
                .any(|id| report.damaged_images.contains(&id.to_string()));
            if !is_damaged && (!is_image || is_certain) {
                world.violation(format!("nothing is damaged, and {finding:?} at {}", now()));
            }
        }
        true
    }
}

/// Disks take long to read: others go on meanwhile, as if the store were used.
struct SlowDisks<'a>(&'a Performance<'a>);

impl Monitor for SlowDisks<'_> {
    fn stage(&self, _title: &str) {
        let Performance { world, actor, .. } = self.0;
        for _ in 0..DISK_TURNS {
            world.turns.stop();
            world.note_step(*actor);
        }
    }

    fn expect(&self, _total: u64, _unit: Unit) {}

    fn advance(&self, _amount: u64) {}

    fn finding(&self, _finding: &Finding) {}
}

/// Whether an error tells of damage, whoever wraps it.
pub(super) fn is_damage(error: &Error) -> bool {
    let text = format!("{error:?}");
    [
        "Corrupt",
        "ChunkMissing",
        "PackMissing",
        "Lost",
        "Unsupported",
        "NoSuchImage",
        "Limit",
    ]
    .iter()
    .any(|kind| text.contains(kind))
}
