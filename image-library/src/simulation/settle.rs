// SPDX-License-Identifier: MIT OR Apache-2.0
//! After a history, when nothing fails any more: is everything there that must be, is what is
//! damaged told, does the next upload heal it, and does the index matter?

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use disk::Silent;

use super::coverage::Event;
use super::disks::Disk;
use super::history::{History, open};
use super::model::{Known, Places};
use super::operations::{SIDE, is_damage};
use super::world::{World, lock};
use crate::store::names;
use crate::tests::draft;
use crate::{
    DiskIndex, Error, Image, ImageId, ImageReader, LocalLibrary, PruneOptions, UploadTarget, ingest,
};

/// What an image gave: whether it is as it should be, or why it cannot be read.
type Answers = BTreeMap<ImageId, Result<(), String>>;

struct Settle<'a> {
    world: &'a World,
    library: LocalLibrary,
}

/// Checks a history that is over.
pub(super) fn settle(history: &mut History) {
    history.end();
    history.world.is_quiet.store(true, Ordering::SeqCst);
    let workspace = history.root.path().join("0");
    let reopen = || {
        let is_alive = Arc::new(AtomicBool::new(true));
        open(&history.world, &history.memory, &workspace, &is_alive)
    };
    let settle = Settle {
        world: &history.world,
        library: reopen(),
    };
    let before = settle.check_images();
    settle.check_trash();
    drop(settle);

    // The index is a cache: without it the answers are the same.
    remove_index(&workspace);
    let settle = Settle {
        world: &history.world,
        library: reopen(),
    };
    let after = settle.check_images();
    if before != after && !history.world.is_damaged() {
        settle.violation(&format!("without the index: {before:?}, {after:?}"));
    }
    drop(settle);

    // Another program heals than the one that found the damage.
    let settle = Settle {
        world: &history.world,
        library: reopen(),
    };
    settle.heal();
    settle.prune_all(&history.world);
}

fn remove_index(workspace: &Path) {
    fs::remove_dir_all(workspace.join("index")).expect("the index may be removed");
}

impl Settle<'_> {
    fn violation(&self, text: &str) {
        self.world.violation(format!("in the end: {text}"));
    }

    /// Reads every image; what cannot be read must be told by `verify`.
    fn check_images(&self) -> Answers {
        let listed = match self.library.images() {
            Ok(listed) => listed,
            Err(error) => {
                self.violation(&format!("images cannot be listed: {error:?}"));
                return Answers::new();
            }
        };
        let known = lock(&self.world.model).known.clone();
        let mut answers = Answers::new();
        for image in &listed {
            let answer = match known.get(&image.id) {
                Some(known) => self.check_known(image, known),
                None => self.check_doubtful(image),
            };
            answers.insert(image.id, answer);
        }
        let report = match self.library.verify(&Silent) {
            Ok(report) => report,
            Err(error) => {
                self.violation(&format!("verify failed: {error:?}"));
                return answers;
            }
        };
        if !self.world.is_damaged() && !report.is_sound() {
            self.violation(&format!("nothing is damaged, and {:?}", report.findings));
        }
        self.check_records();
        let told: BTreeSet<&str> = report.damaged_images.iter().map(String::as_str).collect();
        for (id, answer) in &answers {
            if let Err(problem) = answer
                && !told.contains(id.to_string().as_str())
            {
                self.violation(&format!("verify does not tell of image {id}: {problem}"));
            }
        }
        self.check_missing(&known, &listed, &told);
        answers
    }

    /// What `verify` has just written down: nothing, as long as nothing is damaged.
    fn check_records(&self) {
        let records = self.library.core().store.list(names::WANTED);
        let records = records.unwrap_or_default();
        if !self.world.is_damaged() && !records.is_empty() {
            self.violation(&format!("nothing is damaged, and {records:?}"));
        }
        self.world.count(Event::DamageKnown, records.len() as u64);
    }

    /// An image that must be there and is not listed is told of, unless nothing is left of it.
    fn check_missing(
        &self,
        known: &BTreeMap<ImageId, Known>,
        listed: &[Image],
        told: &BTreeSet<&str>,
    ) {
        let damage = lock(&self.world.damage);
        for (id, known) in known {
            if known.places != Places::COMMITTED || listed.iter().any(|image| image.id == *id) {
                continue;
            }
            let has_vanished = damage.vanished.contains(&names::image(*id));
            if !has_vanished && !told.contains(id.to_string().as_str()) {
                self.violation(&format!("image {id} is gone"));
            }
        }
    }

    fn check_known(&self, image: &Image, known: &Known) -> Result<(), String> {
        if !known.places.images {
            self.violation(&format!(
                "image {} was deleted: {:?}",
                image.id, known.places
            ));
        }
        let answer = self.read(image.id, &known.disks);
        if known.places == Places::COMMITTED && !self.world.is_damaged() {
            let side = self.library.side_file(image.id, SIDE);
            if !matches!(&side, Ok(content) if known.side.contains(content) || known.version > 0) {
                self.violation(&format!("side file of {}: {side:?}", image.id));
            }
        }
        answer
    }

    /// An image whose commit did not return must be one that was being committed.
    fn check_doubtful(&self, image: &Image) -> Result<(), String> {
        let model = lock(&self.world.model);
        let may_be = |doubtful: &&super::model::Doubtful| {
            model.servers[doubtful.server].name == image.server.as_str()
        };
        let candidates: Vec<_> = model.doubtful.iter().filter(may_be).cloned().collect();
        drop(model);
        let mut problem = "no upload made it".to_owned();
        for candidate in candidates {
            match self.try_read(image.id, &candidate.disks) {
                Ok(None) => {
                    self.world.count(Event::DoubtfulThere, 1);
                    return Ok(());
                }
                Ok(Some(difference)) => problem = difference,
                Err(error) if self.world.is_damaged() && is_damage(&error) => {
                    return Err(error.to_string());
                }
                Err(error) => problem = format!("{error:?}"),
            }
        }
        self.violation(&format!("image {} appeared: {problem}", image.id));
        Ok(())
    }

    fn try_read(&self, id: ImageId, disks: &[Disk]) -> Result<Option<String>, Error> {
        for (index, disk) in disks.iter().enumerate() {
            let device = self.library.open_disk(id, DiskIndex(index as u16))?;
            let difference = disk.difference(&*device)?;
            if difference.is_some() {
                return Ok(difference);
            }
        }
        Ok(None)
    }

    fn read(&self, id: ImageId, disks: &[Disk]) -> Result<(), String> {
        match self.try_read(id, disks) {
            Ok(None) => Ok(()),
            Ok(Some(difference)) => {
                self.violation(&format!("image {id}: {difference}"));
                Ok(())
            }
            Err(error) => {
                self.world.count(Event::DamageRead, 1);
                if !self.world.is_damaged() {
                    self.violation(&format!("image {id} cannot be read: {error:?}"));
                }
                Err(error.to_string())
            }
        }
    }

    fn check_trash(&self) {
        let deleted = match self.library.deleted_images() {
            Ok(deleted) => deleted,
            Err(error) => {
                self.violation(&format!("the trash cannot be listed: {error:?}"));
                return;
            }
        };
        let in_trash: BTreeSet<ImageId> = deleted.iter().map(|d| d.image.id).collect();
        let model = lock(&self.world.model);
        for (id, known) in &model.known {
            if known.places == Places::DELETED && !in_trash.contains(id) && !self.world.is_damaged()
            {
                self.violation(&format!("image {id} is not in the trash"));
            }
            if known.places == Places::GONE && in_trash.contains(id) {
                self.violation(&format!("image {id} is in the trash again"));
            }
        }
        let gone = model.doubtful.len() as u64;
        drop(model);
        self.world.count(Event::DoubtfulGone, gone);
    }

    /// Every server is taken again: the new image is whole, whatever was damaged before. What `verify`
    /// found is known from the library alone.
    fn heal(&self) {
        let servers = lock(&self.world.model).servers.clone();
        for server in servers {
            let target = UploadTarget {
                server: server.name.parse().expect("a legal name"),
            };
            let disks: Vec<_> = server.disks.iter().map(|disk| disk.to_ingest()).collect();
            match ingest(&self.library, &target, &disks, &draft(), &Silent) {
                Ok((image, _)) => {
                    if let Err(error) = self.try_read(image.id, &server.disks) {
                        self.violation(&format!("a new image is damaged: {error:?}"));
                    }
                    self.world
                        .count(Event::ImageHealed, u64::from(self.world.is_damaged()));
                    let mut model = lock(&self.world.model);
                    let upload = super::model::Doubtful {
                        number: u64::MAX,
                        server: 0,
                        disks: server.disks,
                        policies_failed: u64::MAX,
                    };
                    model.commit(image.id, &upload);
                }
                Err(error) => {
                    self.violation(&format!("{} cannot be taken: {error:?}", server.name));
                }
            }
        }
    }

    /// When nobody uploads, prunes end with nothing unused, and everything committed is there.
    fn prune_all(&self, world: &World) {
        let options = PruneOptions {
            keep: None,
            grace: Duration::ZERO,
            dry_run: false,
            is_sole_pruner: false,
        };
        for round in 0..4 {
            world.pass_time(Duration::from_secs(60));
            match self.library.prune(&options, &Silent) {
                Ok(report) => {
                    let rest = report.condemned_packs + report.removed_packs + report.waiting_packs;
                    if round == 3 && rest > 0 && !world.is_damaged() {
                        self.violation(&format!("something is left unused: {report:?}"));
                    }
                }
                Err(error) if world.is_damaged() && is_damage(&error) => return,
                Err(error) => self.violation(&format!("a prune failed: {error:?}")),
            }
        }
        self.check_images();
    }
}
