// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a logical volume's description to a device.
//!
//! Each volume is put together once, whatever the result, and kept: volumes that stand on many
//! others cost no more than there are volumes, and all who open a volume share its state.
//!
//! **Limits:** volumes on volumes to a height of 16; two levels of copies or parity, of which one
//! read or write of the uppermost may need many of the lowest; four million chunks in all snapshot
//! stores together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::block::{ReadAt, Slice, WriteAt};
use crate::error::{Error, Result};
use crate::volume::ReadOnly;
use crate::volume::mapped::{Column, Failing, Mapped, Parity, Zeros};

use super::metadata::{Group, corrupt};
use super::raid::{self, Found, Shape, State};
use super::segment::{Area, Leg, Segment, SegmentKind, Volume};
use super::snapshot::{Origin, Snapshot, Store};
use super::thin::{Pool, ThinVolume};

const HEIGHT_MAX: u32 = 16;
const LAYERS_MAX: u32 = 2;
/// Chunks that all snapshots of a group may have of their own.
const CHUNKS_MAX: u64 = 4_000_000;
const STRUCTURE: &str = "LVM2 logical volume";

/// How volumes of a group belong together beyond being parts of each other.
#[derive(Debug, Default)]
pub(super) struct Relations {
    /// The origin of each store.
    pub(super) origins: BTreeMap<usize, usize>,
    /// The stores of each origin.
    stores: BTreeMap<usize, BTreeSet<usize>>,
    /// Volumes whose content is being replaced by that of a snapshot, and those snapshots.
    merging: BTreeSet<usize>,
}

/// What was opened already.
#[derive(Debug, Default)]
pub(super) struct Opened {
    volumes: BTreeMap<usize, Result<Built>>,
    stores: BTreeMap<usize, Option<Arc<Store>>>,
    /// How many chunks all these stores have together.
    chunks: u64,
    pools: BTreeMap<usize, Arc<Pool>>,
}

/// A volume that was put together.
#[derive(Debug, Clone)]
struct Built {
    device: Arc<dyn WriteAt>,
    /// How many volumes stand on each other here.
    height: u32,
    /// How many of them keep copies or parity.
    layers: u32,
}

/// Opens volumes of a group.
pub(super) struct Opener<'a> {
    pub(super) group: &'a Group,
    pub(super) relations: &'a Relations,
    /// The device of each physical volume, where it is there.
    pub(super) devices: &'a [Option<Arc<dyn WriteAt>>],
    pub(super) opened: &'a mut Opened,
    /// The volumes that are being put together now, each a part of the one before.
    path: Vec<usize>,
    /// The greatest height and number of layers among the parts of the volume that is being put
    /// together.
    below: (u32, u32),
}

impl Relations {
    pub(super) fn of(group: &Group) -> Self {
        let mut relations = Self::default();
        let segments = |index: usize| group.logical[index].segments.iter();
        let all =
            (0..group.logical.len()).flat_map(|index| segments(index).map(move |s| (index, s)));
        for (index, segment) in all {
            match &segment.kind {
                SegmentKind::Snapshot {
                    origin,
                    store,
                    is_merging,
                } => {
                    relations.origins.insert(*store, *origin);
                    relations.stores.entry(*origin).or_default().insert(*store);
                    if *is_merging {
                        relations.merging.extend([*origin, *store, index]);
                    }
                }
                SegmentKind::Thin {
                    merges_into: Some(target),
                    ..
                } => relations.merging.extend([*target, index]),
                _ => {}
            }
        }
        relations
    }
}

impl<'a> Opener<'a> {
    pub(super) fn new(
        group: &'a Group,
        relations: &'a Relations,
        devices: &'a [Option<Arc<dyn WriteAt>>],
        opened: &'a mut Opened,
    ) -> Self {
        Self {
            group,
            relations,
            devices,
            opened,
            path: Vec::new(),
            below: (0, 0),
        }
    }

    /// The volume as the system that it is of sees it.
    pub(super) fn seen(&mut self, index: usize) -> Result<Arc<dyn WriteAt>> {
        if self.relations.merging.contains(&index) {
            return Err(self.unsupported(index, "a snapshot that is being merged into its origin"));
        }
        let relations = self.relations;
        let device = if let Some(&origin) = relations.origins.get(&index) {
            self.snapshot(origin, index)?
        } else if let Some(stores) = relations.stores.get(&index) {
            self.origin(index, stores)?
        } else {
            self.raw(index)?
        };
        Ok(match self.group.logical[index].has_status("WRITE") {
            true => device,
            false => Arc::new(ReadOnly::new(device)),
        })
    }

    fn snapshot(&mut self, origin: usize, store: usize) -> Result<Arc<dyn WriteAt>> {
        match self.store(store)? {
            Some(opened) => Ok(Arc::new(Snapshot {
                origin: self.raw(origin)?,
                store: opened,
            })),
            None => Err(self.unsupported(store, "a snapshot that overflowed")),
        }
    }

    fn origin(&mut self, index: usize, stores: &BTreeSet<usize>) -> Result<Arc<dyn WriteAt>> {
        let device = self.raw(index)?;
        let mut origin = Origin {
            device,
            stores: Vec::new(),
            obstacle: None,
        };
        for &store in stores {
            match self.store(store) {
                // One that overflowed keeps nothing any more.
                Ok(opened) => origin.stores.extend(opened),
                Err(error) => origin.obstacle = Some(with_sources(&error)),
            }
        }
        Ok(Arc::new(origin))
    }

    fn store(&mut self, index: usize) -> Result<Option<Arc<Store>>> {
        if let Some(store) = self.opened.stores.get(&index) {
            return Ok(store.clone());
        }
        let chunks_left = CHUNKS_MAX.saturating_sub(self.opened.chunks);
        let store = Store::open(self.raw(index)?, chunks_left)?.map(Arc::new);
        self.opened.chunks += store.as_ref().map_or(0, |store| store.chunk_count());
        self.opened.stores.insert(index, store.clone());
        Ok(store)
    }

    /// The volume as its segments say, without what its snapshots add to it.
    fn raw(&mut self, index: usize) -> Result<Arc<dyn WriteAt>> {
        if !self.opened.volumes.contains_key(&index) {
            if self.path.contains(&index) || self.path.len() > HEIGHT_MAX as usize {
                let name = &self.group.logical[index].name;
                return Err(corrupt(format!(
                    "expected {name} not to be a part of itself"
                )));
            }
            self.path.push(index);
            let outer = std::mem::take(&mut self.below);
            let built = self.build(index);
            self.below = outer;
            self.path.pop();
            self.opened.volumes.insert(index, built);
        }
        match self.opened.volumes.get(&index) {
            Some(Ok(built)) => {
                self.below.0 = self.below.0.max(built.height);
                self.below.1 = self.below.1.max(built.layers);
                Ok(Arc::clone(&built.device))
            }
            Some(Err(error)) => Err(again(error)),
            None => Err(self.unsupported(index, "a volume that was not put together")),
        }
    }

    fn build(&mut self, index: usize) -> Result<Built> {
        let volume = &self.group.logical[index];
        let mut parts = Vec::with_capacity(volume.segments.len());
        let mut has_copies = false;
        for segment in &volume.segments {
            let kind = &segment.kind;
            has_copies |= matches!(kind, SegmentKind::Mirror { .. } | SegmentKind::Raid { .. });
            let part = self.segment(index, segment)?;
            if part.length_bytes() != segment.length_bytes() {
                return Err(corrupt(format!(
                    "expected a segment of {} to have {:#x} bytes, found {:#x}",
                    volume.name,
                    segment.length_bytes(),
                    part.length_bytes()
                )));
            }
            parts.push(part);
        }
        let (height, layers) = (self.below.0 + 1, self.below.1 + u32::from(has_copies));
        if height > HEIGHT_MAX || layers > LAYERS_MAX {
            return Err(self.unsupported(index, "a volume on so many others"));
        }
        let device = match <[_; 1]>::try_from(parts) {
            Ok([only]) => only,
            Err(parts) => Arc::new(Mapped::concatenated(parts)?),
        };
        Ok(Built {
            device,
            height,
            layers,
        })
    }

    fn segment(&mut self, index: usize, segment: &Segment) -> Result<Arc<dyn WriteAt>> {
        let length = segment.length_bytes();
        match &segment.kind {
            SegmentKind::Striped {
                areas,
                stripe_bytes,
            } => self.striped(index, areas, *stripe_bytes, length),
            SegmentKind::Mirror { areas } => self.mirrored(index, areas, length),
            SegmentKind::Raid {
                obstacle: Some(obstacle),
                ..
            } => Err(self.unsupported(index, &format!("a RAID with {obstacle}"))),
            SegmentKind::Raid {
                level,
                legs,
                stripe_bytes,
                copies,
                ..
            } => {
                let shape = Shape::of(level, legs.len(), *copies)?;
                self.raid(shape, legs, *stripe_bytes, length)
            }
            SegmentKind::Thin {
                pool,
                device_id,
                external_origin,
                ..
            } => {
                let pool = self.pool(*pool)?;
                let origin = external_origin.map(|origin| self.raw(origin)).transpose()?;
                let volume = ThinVolume::open(pool, *device_id, length, origin)?;
                Ok(Arc::new(volume))
            }
            SegmentKind::Error => Ok(Arc::new(Failing {
                length_bytes: length,
                reason: "the volume consists of errors here",
            })),
            SegmentKind::Zero => Ok(Arc::new(Zeros(length))),
            SegmentKind::ThinPool { .. } => {
                Err(self.unsupported(index, "a thin pool by itself, without one of its volumes"))
            }
            SegmentKind::Snapshot { origin, store, .. } => self.snapshot(*origin, *store),
            SegmentKind::Other { name, .. } => Err(self.unsupported(index, &explain(name))),
        }
    }

    fn striped(
        &mut self,
        owner: usize,
        areas: &[Area],
        stripe_bytes: u64,
        length: u64,
    ) -> Result<Arc<dyn WriteAt>> {
        let part = length / areas.len().max(1) as u64;
        let columns = areas.iter().map(|area| self.area(owner, *area, part));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        match <[_; 1]>::try_from(columns) {
            Ok([only]) => Ok(only),
            Err(columns) => {
                let columns = columns.into_iter().map(Column::InSync).collect();
                Ok(Arc::new(Mapped::near(STRUCTURE, columns, stripe_bytes, 1)?))
            }
        }
    }

    fn mirrored(&mut self, owner: usize, areas: &[Area], length: u64) -> Result<Arc<dyn WriteAt>> {
        let mut columns = Vec::new();
        for area in areas {
            let is_broken = matches!(area.volume, Volume::Logical(leg) if self.has_errors(leg));
            let column = match self.area(owner, *area, length) {
                Ok(_) if is_broken => absent("a leg was replaced by errors".to_owned(), true),
                Ok(device) => Column::InSync(device),
                Err(error) => absent(reason(error)?, self.is_loss_recorded()),
            };
            columns.push(column);
        }
        Ok(Arc::new(Mapped::mirrored(STRUCTURE, columns)?))
    }

    fn raid(
        &mut self,
        shape: Shape,
        legs: &[Leg],
        chunk_bytes: u64,
        length: u64,
    ) -> Result<Arc<dyn WriteAt>> {
        let superblocks = legs.iter().map(|leg| self.superblock(*leg));
        let superblocks = superblocks.collect::<Result<Vec<_>>>()?;
        let states = raid::states(shape, chunk_bytes, &superblocks)?;
        let image_bytes = shape.image_bytes(length, legs.len());
        let mut columns = Vec::new();
        for (leg, state) in legs.iter().zip(states) {
            let is_recorded = state == State::Stale;
            let is_rebuilt = self.group.logical[leg.image].has_status("REBUILD");
            let image = self
                .raw(leg.image)
                .and_then(|image| part(image, 0, image_bytes));
            columns.push(match image {
                Ok(_) if self.has_errors(leg.image) => {
                    absent("an image was replaced by errors".to_owned(), true)
                }
                Ok(image) if is_recorded || is_rebuilt => Column::Stale(image),
                Ok(image) => Column::InSync(image),
                Err(error) => absent(reason(error)?, is_recorded),
            });
        }
        Ok(match shape {
            Shape::Copies(copies) if copies == legs.len() => {
                Arc::new(Mapped::mirrored(raid::STRUCTURE, columns)?)
            }
            Shape::Copies(copies) => {
                Arc::new(Mapped::near(raid::STRUCTURE, columns, chunk_bytes, copies)?)
            }
            Shape::Parity(algorithm) => Arc::new(Parity::new(
                raid::STRUCTURE,
                columns,
                chunk_bytes,
                algorithm,
            )?),
        })
    }

    /// What stands where the superblock of a leg should be.
    fn superblock(&mut self, leg: Leg) -> Result<Found> {
        let Some(metadata) = leg.metadata else {
            return Ok(Found::Nothing);
        };
        if self.has_errors(metadata) {
            return Ok(Found::Absent);
        }
        match self.raw(metadata) {
            Ok(device) => Found::read(&device),
            Err(error) => reason(error).map(|_| Found::Absent),
        }
    }

    fn pool(&mut self, index: usize) -> Result<Arc<Pool>> {
        if let Some(pool) = self.opened.pools.get(&index) {
            return Ok(Arc::clone(pool));
        }
        let Some(SegmentKind::ThinPool {
            metadata,
            data,
            chunk_bytes,
        }) = self.group.logical[index].first_kind()
        else {
            let name = &self.group.logical[index].name;
            return Err(corrupt(format!("expected {name} to be a thin pool")));
        };
        let (metadata, data) = (self.raw(*metadata)?, self.raw(*data)?);
        let pool = Arc::new(Pool::open(metadata, data, *chunk_bytes)?);
        self.opened.pools.insert(index, Arc::clone(&pool));
        Ok(pool)
    }

    /// `length` bytes of another volume.
    fn area(&mut self, owner: usize, area: Area, length: u64) -> Result<Arc<dyn WriteAt>> {
        let extent_bytes = self.group.extent_bytes;
        match area.volume {
            Volume::Logical(index) => {
                let device = self.raw(index)?;
                part(device, area.extent.saturating_mul(extent_bytes), length)
            }
            Volume::Physical(index) => {
                let physical = &self.group.physical[index];
                let Some(Some(device)) = self.devices.get(index) else {
                    let missing = format!(
                        "opening it without the missing physical volume {}",
                        physical.describe()
                    );
                    return Err(self.unsupported(owner, &missing));
                };
                let end = area.extent.saturating_add(length.div_ceil(extent_bytes));
                if end > physical.extent_count {
                    return Err(corrupt(format!(
                        "expected extents {} to {end} on {}, found {} extents",
                        area.extent,
                        physical.describe(),
                        physical.extent_count
                    )));
                }
                let start = physical.extent_at(area.extent, extent_bytes);
                part(Arc::clone(device), start, length).map_err(|_| {
                    corrupt(format!(
                        "expected extents {} to {end} on {}, found its end at byte {:#x}",
                        area.extent,
                        physical.describe(),
                        device.length_bytes()
                    ))
                })
            }
        }
    }

    /// Whether LVM replaced a lost part of the volume by errors.
    fn has_errors(&self, index: usize) -> bool {
        let mut segments = self.group.logical[index].segments.iter();
        segments.any(|segment| matches!(segment.kind, SegmentKind::Error))
    }

    /// Whether the group knows of every physical volume that is not there that it is missing: LVM
    /// will not take one of these back without being told.
    fn is_loss_recorded(&self) -> bool {
        let volumes = self.group.physical.iter().zip(self.devices);
        let mut lost = volumes.filter(|(_, device)| device.is_none());
        lost.all(|(volume, _)| volume.is_marked_missing())
    }

    fn unsupported(&self, index: usize, feature: &str) -> Error {
        let name = &self.group.logical[index].name;
        Error::unsupported(STRUCTURE, format!("{name}: {feature}"))
    }
}

fn part(device: Arc<dyn WriteAt>, start: u64, length: u64) -> Result<Arc<dyn WriteAt>> {
    Ok(match start == 0 && length == device.length_bytes() {
        true => device,
        false => Arc::new(Slice::new(device, start, length)?),
    })
}

fn absent(reason: String, is_recorded: bool) -> Column {
    Column::Absent {
        reason,
        is_recorded,
    }
}

/// Why a part is not there; other errors stop everything.
fn reason(error: Error) -> Result<String> {
    match error {
        Error::Unsupported { .. } | Error::Corrupt { .. } => Ok(error.to_string()),
        other => Err(other),
    }
}

/// What is in the way of reading a type of segment.
fn explain(name: &str) -> String {
    match name {
        "cache" | "writecache" => {
            format!("a volume with a {name}, which may hold newer data than the volume under it,")
        }
        "cache-pool" => "a cache-pool, which is no volume by itself,".to_owned(),
        other => format!("the segment type {other}"),
    }
}

fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The same error once more.
fn again(error: &Error) -> Error {
    match error {
        Error::Corrupt {
            structure,
            offset,
            problem,
        } => Error::corrupt(structure, *offset, problem.clone()),
        Error::Unsupported { structure, feature } => Error::unsupported(structure, feature.clone()),
        Error::Limit { what, limit } => Error::Limit {
            what,
            limit: *limit,
        },
        other => Error::Device {
            action: "open",
            offset: 0,
            length: 0,
            source: with_sources(other).into(),
        },
    }
}
