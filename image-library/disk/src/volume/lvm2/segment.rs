// SPDX-License-Identifier: MIT OR Apache-2.0
//! A segment of a logical volume: some extents that are mapped in one way.
//!
//! | `type` | its own keys |
//! |---|---|
//! | striped, linear | stripe_count, stripe_size, stripes = [volume, first extent, ...] |
//! | mirror | mirror_count, mirrors = [volume, first extent, ...] |
//! | raid0 to raid10 | device_count or stripe_count, stripe_size, raids or raid0_lvs = [volume, ...] |
//! | thin-pool | metadata, pool, chunk_size |
//! | thin | thin_pool, device_id, external_origin, merge |
//! | snapshot | origin, cow_store or merging_store, chunk_size |
//! | error, zero, free | none |
//!
//! All sizes are in sectors. A type may carry flags that an old LVM must not ignore:
//! `raid5+RESHAPE`. Other types, the caches among them, are kept by name: they can be told, not
//! opened.

use std::ops::Range;

use crate::error::Result;

use super::config::{Section, Value};
use super::metadata::{Names, SECTOR_BYTES, corrupt, required};

/// Flags behind a type that change nothing for who reads or writes the data.
const HARMLESS_FLAGS: [&str; 3] = ["METADATA_FORMAT", "CROP_METADATA", "CACHE_USES_CACHEVOL"];
/// Types that stand on logical volumes only, so that they take no extent of a physical volume.
const TYPES_ON_LOGICAL_VOLUMES: [&str; 7] = [
    "cache",
    "cache-pool",
    "writecache",
    "vdo",
    "vdo-pool",
    "integrity",
    "clone",
];

/// Some extents of a logical volume.
#[derive(Debug)]
pub(super) struct Segment {
    /// Which bytes of the logical volume.
    pub(super) bytes: Range<u64>,
    pub(super) kind: SegmentKind,
}

/// A part of another volume, from an extent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) volume: Volume,
    pub(super) extent: u64,
}

/// An area of a physical volume that a segment takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PhysicalArea {
    /// Its index in the group.
    pub(super) volume: usize,
    /// Which of the segment's areas it is.
    pub(super) column: usize,
    pub(super) extent: u64,
    pub(super) length_bytes: u64,
}

/// What an area is a part of, by its index in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Volume {
    Physical(usize),
    Logical(usize),
}

/// A device of a RAID, as indexes of logical volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leg {
    /// Where its superblock is.
    pub(super) metadata: Option<usize>,
    pub(super) image: usize,
}

/// How a segment is mapped.
#[derive(Debug)]
pub(super) enum SegmentKind {
    Striped {
        areas: Vec<Area>,
        stripe_bytes: u64,
    },
    Mirror {
        areas: Vec<Area>,
    },
    Raid {
        level: String,
        legs: Vec<Leg>,
        stripe_bytes: u64,
        copies: usize,
        /// Why it cannot be read as it is.
        obstacle: Option<&'static str>,
    },
    ThinPool {
        metadata: usize,
        data: usize,
        chunk_bytes: u64,
    },
    Thin {
        pool: usize,
        device_id: u64,
        external_origin: Option<usize>,
        /// The volume that this one will take the place of.
        merges_into: Option<usize>,
    },
    Snapshot {
        origin: usize,
        store: usize,
        is_merging: bool,
    },
    Error,
    Zero,
    /// Known by name only.
    Other {
        name: String,
        /// Whether it can take extents of physical volumes in a way that is not known.
        may_use_extents: bool,
    },
}

impl Segment {
    /// Parses a segment of the logical volume `owner`.
    pub(super) fn parse(
        owner: &str,
        section: &Section,
        extent_bytes: u64,
        names: &Names,
    ) -> Result<Self> {
        let bytes = |key| -> Result<u64> {
            let bytes = required(section, key, owner)?.checked_mul(extent_bytes);
            let problem = || corrupt(format!("expected a possible {key} in a segment of {owner}"));
            bytes.ok_or_else(problem)
        };
        let start = bytes("start_extent")?;
        let end = start.checked_add(bytes("extent_count")?);
        let Some(end) = end.filter(|&end| end > start) else {
            return Err(corrupt(format!(
                "expected a segment of {owner} to have extents"
            )));
        };
        let parser = Parser {
            owner,
            section,
            names,
        };
        Ok(Self {
            bytes: start..end,
            kind: parser.kind()?,
        })
    }

    /// What LVM calls its type.
    pub(super) fn type_name(&self) -> &str {
        match &self.kind {
            SegmentKind::Striped { areas, .. } if areas.len() == 1 => "linear",
            SegmentKind::Striped { .. } => "striped",
            SegmentKind::Mirror { .. } => "mirror",
            SegmentKind::Raid { level, .. } => level,
            SegmentKind::ThinPool { .. } => "thin-pool",
            SegmentKind::Thin { .. } => "thin",
            SegmentKind::Snapshot { .. } => "snapshot",
            SegmentKind::Error => "error",
            SegmentKind::Zero => "zero",
            SegmentKind::Other { name, .. } => name,
        }
    }

    pub(super) fn length_bytes(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    /// The areas that it takes of physical volumes.
    pub(super) fn physical_areas(&self) -> impl Iterator<Item = PhysicalArea> {
        let (areas, length_bytes): (&[Area], u64) = match &self.kind {
            SegmentKind::Striped { areas, .. } => {
                (areas, self.length_bytes() / (areas.len() as u64).max(1))
            }
            SegmentKind::Mirror { areas } => (areas, self.length_bytes()),
            _ => (&[], 0),
        };
        let areas = areas.iter().enumerate();
        areas.filter_map(move |(column, area)| match area.volume {
            Volume::Physical(volume) => Some(PhysicalArea {
                volume,
                column,
                extent: area.extent,
                length_bytes,
            }),
            Volume::Logical(_) => None,
        })
    }

    /// The logical volumes that it is made of or belongs to, as indexes.
    pub(super) fn logical_volumes(&self) -> Vec<usize> {
        match &self.kind {
            SegmentKind::Striped { areas, .. } | SegmentKind::Mirror { areas } => {
                let volumes = areas.iter().filter_map(|area| match area.volume {
                    Volume::Logical(index) => Some(index),
                    Volume::Physical(_) => None,
                });
                volumes.collect()
            }
            SegmentKind::Raid { legs, .. } => {
                let parts = legs.iter().flat_map(|leg| [leg.metadata, Some(leg.image)]);
                parts.flatten().collect()
            }
            SegmentKind::ThinPool { metadata, data, .. } => vec![*metadata, *data],
            SegmentKind::Thin {
                pool,
                external_origin,
                merges_into,
                ..
            } => {
                let parts = [Some(*pool), *external_origin, *merges_into];
                parts.into_iter().flatten().collect()
            }
            SegmentKind::Snapshot { origin, store, .. } => vec![*origin, *store],
            SegmentKind::Error | SegmentKind::Zero | SegmentKind::Other { .. } => Vec::new(),
        }
    }
}

struct Parser<'a> {
    owner: &'a str,
    section: &'a Section,
    names: &'a Names,
}

impl Parser<'_> {
    fn kind(&self) -> Result<SegmentKind> {
        // Since its first versions LVM takes a segment without a type for a striped one.
        let typed = self.section.text("type").unwrap_or("striped");
        let (name, flags) = typed.split_once('+').unwrap_or((typed, ""));
        let mut flags = flags.split(['+', '|']).filter(|flag| !flag.is_empty());
        let odd_flag = flags.any(|flag| !HARMLESS_FLAGS.contains(&flag));
        if odd_flag && !name.starts_with("raid") {
            return Ok(other(typed));
        }
        Ok(match name {
            "striped" | "linear" => SegmentKind::Striped {
                areas: self.areas("stripes", "stripe_count")?,
                stripe_bytes: self.bytes("stripe_size"),
            },
            "mirror" => SegmentKind::Mirror {
                areas: self.areas("mirrors", "mirror_count")?,
            },
            "thin-pool" => SegmentKind::ThinPool {
                metadata: self.logical("metadata")?,
                data: self.logical("pool")?,
                chunk_bytes: self.bytes("chunk_size"),
            },
            "thin" => SegmentKind::Thin {
                pool: self.logical("thin_pool")?,
                device_id: required(self.section, "device_id", self.owner)?,
                external_origin: self.optional("external_origin")?,
                merges_into: self.optional("merge")?,
            },
            "snapshot" => {
                let merging = self.optional("merging_store")?;
                SegmentKind::Snapshot {
                    origin: self.logical("origin")?,
                    store: merging.map_or_else(|| self.logical("cow_store"), Ok)?,
                    is_merging: merging.is_some(),
                }
            }
            "error" | "free" => SegmentKind::Error,
            "zero" => SegmentKind::Zero,
            _ if name.starts_with("raid") => self.raid(name, odd_flag)?,
            _ => other(name),
        })
    }

    fn raid(&self, level: &str, odd_flag: bool) -> Result<SegmentKind> {
        let key = if level == "raid0" {
            "raid0_lvs"
        } else {
            "raids"
        };
        let mut legs = Vec::new();
        let mut metadata = None;
        for value in self.section.list(key) {
            let name = value.as_text().unwrap_or_default();
            let index = self.find(name)?;
            // As LVM tells them apart: the metadata comes before its image, where there is any.
            if name.contains("_rmeta_") && metadata.is_none() {
                metadata = Some(index);
            } else {
                legs.push(Leg {
                    metadata: metadata.take(),
                    image: index,
                });
            }
        }
        let count = |key| self.section.number(key);
        let expected = count("device_count").or_else(|| count("stripe_count"));
        self.check_count(expected, legs.len())?;
        let number = |key| count(key).unwrap_or(0);
        let obstacle = if odd_flag {
            Some("a reshape that is not finished")
        } else if number("reshape_count") != 0 || number("data_offset") != 0 {
            Some("room for a reshape")
        } else {
            None
        };
        Ok(SegmentKind::Raid {
            level: level.to_owned(),
            legs,
            stripe_bytes: self.bytes("stripe_size"),
            copies: usize::try_from(number("data_copies")).unwrap_or(usize::MAX),
            obstacle,
        })
    }

    /// Pairs of a volume and its first extent.
    fn areas(&self, key: &str, count_key: &str) -> Result<Vec<Area>> {
        let mut areas = Vec::new();
        for pair in self.section.list(key).chunks(2) {
            let (Some(name), Some(extent)) = (
                pair.first().and_then(Value::as_text),
                pair.get(1).and_then(Value::as_number),
            ) else {
                return Err(corrupt(format!(
                    "expected {key} of {} to have a name and a number for each",
                    self.owner
                )));
            };
            let volume = match self.names.physical.get(name) {
                Some(&index) => Volume::Physical(index),
                None => Volume::Logical(self.find(name)?),
            };
            areas.push(Area { volume, extent });
        }
        self.check_count(self.section.number(count_key), areas.len())?;
        Ok(areas)
    }

    fn check_count(&self, expected: Option<u64>, found: usize) -> Result<()> {
        if found != 0 && expected == Some(found as u64) {
            return Ok(());
        }
        Err(corrupt(format!(
            "expected {found} areas of {}, found {}",
            self.owner,
            expected.unwrap_or(0)
        )))
    }

    fn bytes(&self, key: &str) -> u64 {
        let sectors = self.section.number(key).unwrap_or(0);
        sectors.saturating_mul(SECTOR_BYTES)
    }

    fn optional(&self, key: &str) -> Result<Option<usize>> {
        self.section
            .text(key)
            .map(|name| self.find(name))
            .transpose()
    }

    fn logical(&self, key: &str) -> Result<usize> {
        self.find(self.section.text(key).unwrap_or_default())
    }

    fn find(&self, name: &str) -> Result<usize> {
        let index = self.names.logical.get(name).copied();
        let owner = self.owner;
        index.ok_or_else(|| corrupt(format!("expected `{name}` of {owner} to be a volume")))
    }
}

fn other(name: &str) -> SegmentKind {
    SegmentKind::Other {
        name: name.to_owned(),
        may_use_extents: !TYPES_ON_LOGICAL_VOLUMES.contains(&name),
    }
}
