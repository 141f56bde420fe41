// SPDX-License-Identifier: MIT OR Apache-2.0
//! What prunes have published: lists of condemned packs, and the floor below which images count
//! only when they are named (FORMAT.md, section 10).

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::document::Image;
use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::pack::PackId;
use crate::store::names;

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
}

impl Floor {
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

    pub(crate) fn publish_floor(&self, floor: &Floor) -> Result<()> {
        self.replace_record(names::FLOOR, &to_json(floor)?)
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

fn to_json<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|source| Error::Encode {
        what: "record",
        source,
    })
}

fn parse<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt("record", name, 64, error.to_string()))
}
