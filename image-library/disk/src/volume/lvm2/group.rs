// SPDX-License-Identifier: MIT OR Apache-2.0
//! A volume group that was put together from devices, and its volumes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::block::{ReadAt, WriteAt};
use crate::error::Result;
use crate::finding::{Finding, Level};

use super::label::Label;
use super::metadata::{Group, Logical};
use super::open::{Opened, Opener, Relations};
use super::segment::SegmentKind;
use super::used::{self, Inside};

/// A volume group.
#[derive(Debug, Clone)]
pub struct VolumeGroup {
    assembled: Arc<Assembled>,
}

/// A physical volume of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysicalVolume {
    /// What the group calls it: `pv0`.
    pub name: String,
    /// Its UUID, as LVM shows it.
    pub uuid: String,
    /// Which of the candidates it is; `None` where it is missing.
    pub candidate: Option<usize>,
    /// The device that LVM saw it on last, such as `/dev/sda2`.
    pub device_hint: Option<String>,
    /// Flags: `ALLOCATABLE`, `EXPORTED`, `MISSING`.
    pub status: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// What a logical volume is, by its first segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogicalVolumeKind {
    /// Extents one after the other.
    Linear,
    /// In stripes over several devices.
    Striped,
    /// A mirror of the old kind, also the one that moves a physical volume.
    Mirror,
    /// A RAID of any level.
    Raid,
    /// Holds thin volumes, is none.
    ThinPool,
    /// A thin volume.
    Thin,
    /// A snapshot of the old kind.
    Snapshot,
    /// Reads and writes fail.
    Error,
    /// Reads as zeros.
    Zero,
    /// Something that is only known by name, a cache for example.
    Other,
}

/// A logical volume of a group.
#[derive(Clone)]
pub struct LogicalVolume {
    assembled: Arc<Assembled>,
    index: usize,
}

/// A group with the devices that it is on.
#[derive(Debug)]
pub(super) struct Assembled {
    group: Group,
    relations: Relations,
    members: Vec<Option<Member>>,
    /// Those of the members, where they are there.
    devices: Vec<Option<Arc<dyn WriteAt>>>,
    opened: Mutex<Opened>,
    findings: Vec<Finding>,
}

/// A candidate that is a physical volume.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) candidate: usize,
    pub(super) device: Arc<dyn WriteAt>,
    pub(super) label: Label,
}

impl VolumeGroup {
    /// Puts a group together from the members that have its physical volumes' UUIDs.
    pub(super) fn assemble(
        group: Group,
        members: &BTreeMap<String, Member>,
        mut findings: Vec<Finding>,
    ) -> Self {
        let mut found = Vec::new();
        let mut devices = Vec::new();
        for physical in &group.physical {
            let member = members.get(&physical.uuid);
            let is_usable = member.is_some() && !physical.is_marked_missing();
            if !is_usable {
                findings.push(missing(&group, &physical.describe(), member.is_some()));
            }
            let device = member.filter(|_| is_usable);
            devices.push(device.map(|member| Arc::clone(&member.device)));
            found.push(member.cloned());
        }
        Self {
            assembled: Arc::new(Assembled {
                relations: Relations::of(&group),
                group,
                members: found,
                devices,
                opened: Mutex::default(),
                findings,
            }),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.assembled.group.name
    }

    /// Its UUID, as LVM shows it.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.assembled.group.uuid
    }

    /// How often its metadata was changed.
    #[must_use]
    pub fn seqno(&self) -> u64 {
        self.assembled.group.seqno
    }

    /// Bytes of an extent.
    #[must_use]
    pub fn extent_bytes(&self) -> u64 {
        self.assembled.group.extent_bytes
    }

    /// Flags: `RESIZEABLE`, `READ`, `WRITE`, `EXPORTED`, ...
    #[must_use]
    pub fn status(&self) -> &[String] {
        &self.assembled.group.status
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.assembled.group.tags
    }

    /// What was noticed when it was put together: missing devices, damaged metadata.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.assembled.findings
    }

    /// Its physical volumes, those that are missing too.
    #[must_use]
    pub fn physical_volumes(&self) -> Vec<PhysicalVolume> {
        let members = self.assembled.members.iter();
        let volumes = self.assembled.group.physical.iter().zip(members);
        let describe =
            |(physical, member): (&super::metadata::Physical, &Option<Member>)| PhysicalVolume {
                name: physical.name.clone(),
                uuid: physical.uuid.clone(),
                candidate: member.as_ref().map(|member| member.candidate),
                device_hint: physical.device_hint.clone(),
                status: physical.status.clone(),
                tags: physical.tags.clone(),
            };
        volumes.map(describe).collect()
    }

    /// Its logical volumes in the order of the metadata, the internal ones too.
    #[must_use]
    pub fn logical_volumes(&self) -> Vec<LogicalVolume> {
        let volume = |index| LogicalVolume {
            assembled: Arc::clone(&self.assembled),
            index,
        };
        (0..self.assembled.group.logical.len())
            .map(volume)
            .collect()
    }

    /// The logical volume of that name.
    #[must_use]
    pub fn logical_volume(&self, name: &str) -> Option<LogicalVolume> {
        let mut volumes = self.logical_volumes().into_iter();
        volumes.find(|volume| volume.name() == name)
    }

    /// For each of its physical volumes that is there, which candidate it is and which bytes of it
    /// are in use, ascending: headers, metadata, and the extents of logical volumes.
    #[must_use]
    pub fn used_ranges(&self) -> Vec<(usize, Vec<Range<u64>>)> {
        self.used_with(&Inside::new())
    }

    /// The same where `used` knows, ascending, which bytes of a logical volume are in use.
    ///
    /// It is asked of volumes that are linear or striped and part of no other. `None` for a group
    /// that is not understood entirely, because it lacks physical volumes for example: then all of
    /// what is there may be in use.
    #[must_use]
    pub fn used_ranges_inside(
        &self,
        mut used: impl FnMut(&LogicalVolume) -> Option<Vec<Range<u64>>>,
    ) -> Option<Vec<(usize, Vec<Range<u64>>)>> {
        let Assembled {
            group,
            devices,
            findings,
            ..
        } = &*self.assembled;
        if !findings.is_empty() {
            return None;
        }
        let lengths = devices
            .iter()
            .map(|device| Some(device.as_ref()?.length_bytes()));
        let lengths: Vec<Option<u64>> = lengths.collect();
        let mut inside = Inside::new();
        let mut count = 0;
        for index in used::plain_volumes(group, &lengths)? {
            let volume = LogicalVolume {
                assembled: Arc::clone(&self.assembled),
                index,
            };
            if count < used::RANGES_MAX
                && let Some(ranges) = used(&volume)
            {
                count += ranges.len();
                inside.insert(index, ranges);
            }
        }
        Some(self.used_with(&inside))
    }

    fn used_with(&self, inside: &Inside) -> Vec<(usize, Vec<Range<u64>>)> {
        let members = self.assembled.members.iter().enumerate();
        let ranges = members.filter_map(|(index, member)| {
            let Member { label, device, .. } = member.as_ref()?;
            let own = label
                .metadata_areas
                .iter()
                .chain(&label.boot_areas)
                .cloned();
            let within = (device.length_bytes(), inside);
            let ranges = used::ranges(&self.assembled.group, index, own, within);
            Some((member.as_ref()?.candidate, ranges))
        });
        ranges.collect()
    }
}

impl LogicalVolume {
    fn metadata(&self) -> &Logical {
        &self.assembled.group.logical[self.index]
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.metadata().name
    }

    /// Its UUID, as LVM shows it.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.metadata().uuid
    }

    /// Its size in bytes; of a snapshot, that of its origin, which it shows.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let index = self.assembled.relations.origins.get(&self.index);
        self.assembled.group.logical[*index.unwrap_or(&self.index)].size_bytes
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> LogicalVolumeKind {
        if self.assembled.relations.origins.contains_key(&self.index) {
            return LogicalVolumeKind::Snapshot;
        }
        match self.metadata().first_kind() {
            None => LogicalVolumeKind::Linear,
            Some(SegmentKind::Striped { areas, .. }) if areas.len() == 1 => {
                LogicalVolumeKind::Linear
            }
            Some(SegmentKind::Striped { .. }) => LogicalVolumeKind::Striped,
            Some(SegmentKind::Mirror { .. }) => LogicalVolumeKind::Mirror,
            Some(SegmentKind::Raid { .. }) => LogicalVolumeKind::Raid,
            Some(SegmentKind::ThinPool { .. }) => LogicalVolumeKind::ThinPool,
            Some(SegmentKind::Thin { .. }) => LogicalVolumeKind::Thin,
            Some(SegmentKind::Snapshot { .. }) => LogicalVolumeKind::Snapshot,
            Some(SegmentKind::Error) => LogicalVolumeKind::Error,
            Some(SegmentKind::Zero) => LogicalVolumeKind::Zero,
            Some(SegmentKind::Other { .. }) => LogicalVolumeKind::Other,
        }
    }

    /// What LVM calls the type of its first segment: `linear`, `raid5_ls`, `thin`, `cache`, ...
    #[must_use]
    pub fn type_name(&self) -> &str {
        let first = self.metadata().segments.first();
        first.map_or("linear", |segment| segment.type_name())
    }

    /// Whether LVM shows it to users; the parts of other volumes are not shown.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        match self.assembled.relations.origins.get(&self.index) {
            // LVM writes the flag with the part that ties a snapshot to its origin. An origin that
            // is nothing but zeros is hidden, its snapshot is not.
            Some(&origin) => {
                let origin = &self.assembled.group.logical[origin];
                let is_nothing = matches!(origin.first_kind(), Some(SegmentKind::Zero));
                is_nothing || origin.has_status("VISIBLE")
            }
            None => {
                let is_tie = matches!(
                    self.metadata().first_kind(),
                    Some(SegmentKind::Snapshot { .. })
                );
                !is_tie && self.metadata().has_status("VISIBLE")
            }
        }
    }

    /// Flags: `READ`, `WRITE`, `VISIBLE`, `LOCKED`, `PVMOVE`, ...
    #[must_use]
    pub fn status(&self) -> &[String] {
        &self.metadata().status
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.metadata().tags
    }

    /// The volume as a device, as the system that it is of sees it.
    ///
    /// Everybody who opens it gets the same device. A volume that LVM has as read-only refuses
    /// writes; which writes the other kinds refuse is told in [`super`].
    pub fn open(&self) -> Result<Arc<dyn WriteAt>> {
        let assembled = &*self.assembled;
        let mut opened = assembled
            .opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Opener::new(
            &assembled.group,
            &assembled.relations,
            &assembled.devices,
            &mut opened,
        )
        .seen(self.index)
    }

    /// Why it cannot be opened; `None` where it can. Opens it, which reads little.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        self.open().err().map(|error| error.to_string())
    }
}

impl fmt::Debug for LogicalVolume {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = &self.assembled.group.name;
        write!(formatter, "LogicalVolume({group}/{})", self.name())
    }
}

fn missing(group: &Group, volume: &str, is_there: bool) -> Finding {
    let problem = match is_there {
        false => format!("physical volume {volume} is on none of the disks"),
        true => format!("physical volume {volume} is there, but LVM has it as missing"),
    };
    Finding {
        level: Level::Warning,
        code: "storage.lvm.volume-missing".to_owned(),
        place: group.name.clone(),
        problem,
        remedy: Some("check that the image has all disks of the volume group".to_owned()),
    }
}
