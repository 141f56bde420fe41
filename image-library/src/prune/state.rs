// SPDX-License-Identifier: MIT OR Apache-2.0
//! What prunes have published: lists of condemned packs, and the floor below which images count
//! only when they are named (FORMAT.md, section 10).

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::core::Core;
use crate::document::Image;
use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::pack::PackId;
use crate::store::{Version, names};

/// Longest record, in bytes: a million packs (16 TiB) are 70 MB.
const RECORD_LENGTH_MAX: u64 = 256 << 20;

/// Packs that are to be removed. Nothing is deduplicated against them from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Condemned {
    /// Counts the lists; uploads that began before this one have a lower generation.
    pub(crate) generation: u64,
    /// When it was published, by the clock of who published it.
    pub(crate) published_at: Timestamp,
    packs: Vec<String>,
}

impl Condemned {
    pub(crate) fn new(generation: u64, published_at: Timestamp, packs: &[PackId]) -> Self {
        Self {
            generation,
            published_at,
            packs: packs.iter().map(ToString::to_string).collect(),
        }
    }

    pub(crate) fn packs(&self) -> impl Iterator<Item = PackId> {
        self.packs.iter().filter_map(|name| PackId::from_hex(name))
    }
}

/// Up to which generation packs may have been removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Floor {
    /// Commits of older generations are refused from now on.
    pub(crate) closing: u64,
    /// Images of older generations count only when they are in `accepted`.
    pub(crate) generation: u64,
    /// The images of older generations that were there when they were last looked for.
    pub(crate) accepted: BTreeSet<ImageId>,
    /// The highest generation that was given to a list.
    #[serde(default)]
    pub(crate) issued: u64,
    /// The generations of the lists that hold; `None`: all that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lists: Option<BTreeSet<u64>>,
    /// Which packs are being removed: names the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) removing: Option<Uuid>,
}

impl Floor {
    /// Whether a list was published by who found the floor as it left it.
    pub(crate) fn holds(&self, list: &Condemned) -> bool {
        let lists = self.lists.as_ref();
        lists.is_none_or(|lists| lists.contains(&list.generation))
    }

    /// Whether an image counts: it was committed, and nothing of it may have been removed.
    pub(crate) fn counts(&self, image: &Image) -> bool {
        image.generation >= self.generation || self.accepted.contains(&image.id)
    }

    /// Whether an image that was just created stays: nobody removes what it names.
    pub(crate) fn admits(&self, image: &Image) -> bool {
        image.generation >= self.closing
            || (self.closing == self.generation && self.accepted.contains(&image.id))
    }
}

/// The floor as one prune found it and changes it. Where several machines share the store, each
/// change is made only to what this prune has last seen: who was overtaken fails instead.
#[derive(Debug)]
pub(super) struct Register<'a> {
    core: &'a Core,
    pub(super) floor: Floor,
    version: Option<Version>,
}

impl<'a> Register<'a> {
    pub(super) fn read(core: &'a Core) -> Result<Self> {
        let (floor, version) = match core.conditional() {
            None => (core.floor()?, None),
            Some(store) => match core.record_version(store, names::FLOOR, RECORD_LENGTH_MAX)? {
                None => (Floor::default(), None),
                Some((bytes, version)) => (parse(names::FLOOR, &bytes)?, Some(version)),
            },
        };
        Ok(Self {
            core,
            floor,
            version,
        })
    }

    /// Changes the floor; it is durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when another prune has changed it meanwhile.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Floor)) -> Result<()> {
        let mut floor = self.floor.clone();
        change(&mut floor);
        let json = to_json(&floor)?;
        match self.core.conditional() {
            None => self.core.replace_record(names::FLOOR, &json)?,
            Some(store) => {
                let expected = self.version.as_ref();
                let swapped = self
                    .core
                    .swap_record(store, names::FLOOR, &json, expected)?;
                self.version = Some(swapped.ok_or_else(overtaken)?);
            }
        }
        self.floor = floor;
        Ok(())
    }
}

/// What a prune is told that finds another one's traces.
pub(super) fn overtaken() -> Error {
    Error::Refused {
        what: "the prune",
        problem: "another program prunes this library at the same time; what it does is not \
                  undone"
            .to_owned(),
    }
}

/// What an upload must know of prunes when it begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pruned {
    /// The generation that the upload belongs to.
    pub(crate) generation: u64,
    /// Packs against which nothing is deduplicated.
    pub(crate) condemned: HashSet<PackId>,
}

impl Core {
    pub(crate) fn floor(&self) -> Result<Floor> {
        let record = self.record(names::FLOOR, RECORD_LENGTH_MAX)?;
        record.map_or_else(|| Ok(Floor::default()), |bytes| parse(names::FLOOR, &bytes))
    }

    /// The floor for those who read images. A damaged one keeps nobody from the images: the worst
    /// that then shows is one whose commit was refused and could not be removed again. Uploads and
    /// prunes need the true one.
    pub(crate) fn floor_for_readers(&self) -> Result<Floor> {
        match self.floor() {
            Err(error @ Error::Corrupt { .. }) => {
                tracing::warn!(%error, "every image is taken to count");
                Ok(Floor::default())
            }
            floor => floor,
        }
    }

    /// Every list of condemned packs that has not been dealt with, oldest first.
    pub(crate) fn condemned(&self) -> Result<Vec<Condemned>> {
        let mut lists = Vec::new();
        for stored in self.store.list(names::PRUNE)? {
            let Some(generation) = names::parse_condemned(&stored.name) else {
                continue;
            };
            // Dealt with since it was listed.
            let Some(bytes) = self.record(&stored.name, RECORD_LENGTH_MAX)? else {
                continue;
            };
            let list: Condemned = parse(&stored.name, &bytes)?;
            if list.generation != generation {
                let problem = format!(
                    "expected generation {generation}, found {}",
                    list.generation
                );
                return Err(Error::corrupt("record", &*stored.name, 64, problem));
            }
            lists.push(list);
        }
        lists.sort_by_key(|list| list.generation);
        Ok(lists)
    }

    /// Writes down which packs are removed.
    pub(super) fn note_removal(&self, decision: Uuid, packs: &[PackId]) -> Result<()> {
        let packs: Vec<String> = packs.iter().map(ToString::to_string).collect();
        self.replace_record(&names::removing(&decision.to_string()), &to_json(&packs)?)
    }

    /// The packs of such a decision; none when it was carried out.
    pub(super) fn removal(&self, decision: Uuid) -> Result<Vec<PackId>> {
        let name = names::removing(&decision.to_string());
        let Some(bytes) = self.record(&name, RECORD_LENGTH_MAX)? else {
            return Ok(Vec::new());
        };
        let packs: Vec<String> = parse(&name, &bytes)?;
        Ok(packs
            .iter()
            .filter_map(|pack| PackId::from_hex(pack))
            .collect())
    }

    /// Publishes a list. `false` when there is one of this generation.
    pub(crate) fn publish_condemned(&self, list: &Condemned) -> Result<bool> {
        self.create_record(&names::condemned(list.generation), &to_json(list)?)
    }

    pub(crate) fn pruned(&self) -> Result<Pruned> {
        // The floor first: a list that is published and dealt with between the two is in neither,
        // and then the generation is too low for a commit, not too high.
        let floor = self.floor()?;
        let lists = self.condemned()?;
        let newest = lists.last().map_or(0, |list| list.generation);
        Ok(Pruned {
            generation: newest.max(floor.closing),
            condemned: lists.iter().flat_map(Condemned::packs).collect(),
        })
    }
}

pub(super) fn to_json<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|source| Error::Encode {
        what: "record",
        source,
    })
}

pub(super) fn parse<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt("record", name, 64, error.to_string()))
}
