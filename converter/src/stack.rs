// SPDX-License-Identifier: MIT OR Apache-2.0
//! Volumes that are made of others, put together as the guest's kernel does it: md arrays, LUKS, LVM2 on
//! partitions and arrays, and whatever lies on these again.
//!
//! ```text
//! partitions -> md arrays -> their partitions -> what secrets open of LUKS -> LVM2 volumes
//!     -> (once more, until nothing is new)
//! ```
//! The same devices give the same volumes with the same numbers, whether they are only looked at or are
//! overlays that are to be changed: a plan made from the one can be carried out on the other.
//!
//! **Limits:** 8 layers, 4096 volumes.

mod arrays;
mod encrypted;
mod groups;

use std::sync::Arc;

use disk::block::Slice;
use disk::filesystem::{self, Filesystem, FilesystemKind};
use disk::partition::{Partition, PartitionTable, read_partition_table};
use disk::volume::ReadOnly;
use disk::{Finding, Level, ReadAt, SectorSize, WriteAt};

use crate::error::{Error, Result};
use crate::guest_disk::{GuestDisk, secrets_of};
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::volume_facts::{AssembledKind, VolumeId};
use crate::secrets::Secrets;

pub(crate) use arrays::partition_node;

const LAYERS_MAX: usize = 8;
const VOLUMES_MAX: u16 = 4096;
const ALL_DISKS: &str = "take all disks of the server into the image";
const UNKNOWN_KIND: &str = "the image stays complete in the library: what is on this volume can be read \
                            by a Linux of its own from an export";

/// A device that may be a part of another.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) id: VolumeId,
    pub(crate) device: Arc<dyn WriteAt>,
    pub(crate) sector_size: SectorSize,
}

/// A volume that was put together.
#[derive(Debug, Clone)]
pub(crate) struct Assembled {
    pub(crate) part: Part,
    pub(crate) kind: AssembledKind,
    /// What people call it: `vg0/root`, `md0`.
    pub(crate) name: String,
    /// Every name of its device node, below `/dev/`.
    pub(crate) nodes: Vec<String>,
    /// What it is made of.
    pub(crate) parts: Vec<VolumeId>,
}

/// What devices are when everything on them is put together.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    pub(crate) volumes: Vec<Assembled>,
    /// What was noticed, each with a part of what it is about.
    pub(crate) findings: Vec<(VolumeId, Finding)>,
}

/// Puts together what is on `parts`: partitions, and disks without a table.
pub(crate) fn assemble(parts: &[Part], secrets: &Secrets) -> Result<Stack> {
    let mut builder = Builder {
        secrets,
        free: parts.to_vec(),
        stack: Stack::default(),
    };
    for _ in 0..LAYERS_MAX {
        let before = builder.stack.volumes.len();
        while builder.arrays()? {}
        builder.encrypted()?;
        builder.groups()?;
        if builder.stack.volumes.len() == before {
            break;
        }
    }
    Ok(builder.stack)
}

/// The volumes of a guest's disks, to be read.
#[derive(Debug)]
pub struct GuestVolumes(Devices);

impl GuestVolumes {
    /// Looks for volumes on disks, and puts together what is made of several.
    pub fn open(disks: &[GuestDisk]) -> Result<Self> {
        let whole = disks.iter().map(|disk| Part {
            id: VolumeId::on_disk(disk.index, None),
            device: Arc::new(ReadOnly::new(Arc::clone(&disk.device))),
            sector_size: disk.sector_size,
        });
        let devices = Devices::new(whole.collect(), &secrets_of(disks), true);
        Ok(Self(devices?))
    }

    /// The filesystem on a volume.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] where there is no such volume on these disks.
    pub fn filesystem(&self, id: VolumeId) -> Result<Box<dyn Filesystem>> {
        self.0.filesystem(id)
    }

    /// A volume by what an inspection calls it.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] where there is no such volume on these disks.
    pub fn device(&self, id: VolumeId) -> Result<Arc<dyn ReadAt>> {
        Ok(self.0.open(id)?)
    }
}

/// Partitions, and disks without a table, of some disks.
pub(crate) fn parts_of(disks: Vec<Part>) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for whole in disks {
        let device: Arc<dyn ReadAt> = Arc::clone(&whole.device) as _;
        let table = match read_partition_table(&device, whole.sector_size) {
            Ok(table) => table,
            // Nothing of this disk was inspected.
            Err(disk::Error::Corrupt { .. } | disk::Error::Unsupported { .. }) => continue,
            Err(error) => return Err(Error::guest(whole.id.to_string())(error)),
        };
        if entries(&table).next().is_none() {
            parts.push(whole);
            continue;
        }
        parts.extend(entries(&table).filter_map(|entry| partition_of(&whole, entry)));
    }
    Ok(parts)
}

/// The partitions that can hold something.
pub(crate) fn entries(table: &PartitionTable) -> impl Iterator<Item = &Partition> {
    let entries = table.partitions.iter();
    entries.filter(|entry| !entry.partition_type.is_extended())
}

/// A partition of a disk; `None` where it lies beyond the disk's end.
pub(crate) fn partition_of(whole: &Part, entry: &Partition) -> Option<Part> {
    Some(Part {
        id: VolumeId::on_disk(whole.id.disk()?, Some(entry.number.get())),
        device: slice_of(&whole.device, entry)?,
        sector_size: whole.sector_size,
    })
}

fn slice_of(device: &Arc<dyn WriteAt>, entry: &Partition) -> Option<Arc<dyn WriteAt>> {
    let slice = Slice::new(Arc::clone(device), entry.start_bytes, entry.length_bytes);
    Some(Arc::new(slice.ok()?))
}

/// The devices of volumes, on disks that may be overlays.
#[derive(Debug)]
pub(crate) struct Devices {
    parts: Vec<Part>,
    assembled: Vec<Assembled>,
}

impl Devices {
    /// On these whole disks. What is made of other volumes is put together where `is_stacked`.
    pub(crate) fn new(disks: Vec<Part>, secrets: &Secrets, is_stacked: bool) -> Result<Self> {
        let parts = parts_of(disks)?;
        let assembled = match is_stacked {
            true => assemble(&parts, secrets)?.volumes,
            false => Vec::new(),
        };
        Ok(Self { parts, assembled })
    }

    /// A volume's device.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] where it is not there any more.
    pub(crate) fn open(&self, id: VolumeId) -> Result<Arc<dyn WriteAt>> {
        Ok(self.part(id)?.device)
    }

    /// A volume with what it is.
    pub(crate) fn part(&self, id: VolumeId) -> Result<Part> {
        let assembled = self.assembled.iter().map(|volume| &volume.part);
        let mut parts = self.parts.iter().chain(assembled);
        let part = parts
            .find(|part| part.id == id)
            .ok_or_else(|| Error::Changed {
                place: id.to_string(),
            })?;
        Ok(part.clone())
    }

    /// The filesystem on a volume, to be read: of btrfs all subvolumes, from all of its devices.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] where the volume is not there any more.
    pub(crate) fn filesystem(&self, id: VolumeId) -> Result<Box<dyn Filesystem>> {
        filesystem_on(&self.filesystem_parts(id)?)
    }

    /// The volumes that a filesystem lies on, that one first.
    pub(crate) fn filesystem_parts(&self, id: VolumeId) -> Result<Vec<Part>> {
        let first = self.part(id)?;
        let identity = filesystem::detect(&first.device).map_err(Error::guest(id.to_string()))?;
        let mut parts = vec![first];
        if let Some(identity) = identity.filter(|found| found.kind == FilesystemKind::Btrfs) {
            let assembled = self.assembled.iter().map(|volume| &volume.part);
            let others = self.parts.iter().chain(assembled);
            for part in others.filter(|part| part.id != id) {
                // One that cannot be read is not asked for: the filesystem says what it lacks.
                let found = filesystem::detect(&part.device).ok().flatten();
                if found
                    .is_some_and(|found| found.kind == identity.kind && found.uuid == identity.uuid)
                {
                    parts.push(part.clone());
                }
            }
        }
        Ok(parts)
    }
}

/// The filesystem on these parts, to be read.
pub(crate) fn filesystem_on(parts: &[Part]) -> Result<Box<dyn Filesystem>> {
    let devices: Vec<Arc<dyn ReadAt>> = parts
        .iter()
        .map(|part| Arc::clone(&part.device) as _)
        .collect();
    let place = parts.first().map(|part| part.id.to_string());
    filesystem::open_devices(&devices).map_err(Error::guest(place.unwrap_or_default()))
}

struct Builder<'a> {
    secrets: &'a Secrets,
    /// What is a part of nothing yet.
    free: Vec<Part>,
    stack: Stack,
}

impl Builder<'_> {
    /// What is free and looks like that.
    fn of_kind(&self, kind: FilesystemKind) -> Result<Vec<Part>> {
        let mut found = Vec::new();
        for part in &self.free {
            match filesystem::detect(&part.device) {
                Ok(Some(identity)) if identity.kind == kind => found.push(part.clone()),
                Ok(_) | Err(disk::Error::Corrupt { .. } | disk::Error::Unsupported { .. }) => {}
                Err(error) => return Err(Error::guest(part.id.to_string())(error)),
            }
        }
        Ok(found)
    }

    /// What was given as candidates of these numbers is free no more.
    fn take(&mut self, numbers: impl Iterator<Item = usize>, candidates: &[Part]) -> Vec<VolumeId> {
        let taken: Vec<VolumeId> = numbers
            .filter_map(|number| candidates.get(number))
            .map(|part| part.id)
            .collect();
        self.free.retain(|part| !taken.contains(&part.id));
        taken
    }

    fn part(&self, device: Arc<dyn WriteAt>, sector_size: SectorSize) -> Result<Part> {
        let number = u16::try_from(self.stack.volumes.len()).unwrap_or(u16::MAX);
        if number >= VOLUMES_MAX {
            return Err(Error::guest("the volumes")(disk::Error::Limit {
                what: "the number of volumes that are put together",
                limit: u64::from(VOLUMES_MAX),
            }));
        }
        Ok(Part {
            id: VolumeId::Assembled { number },
            device,
            sector_size,
        })
    }

    fn add(&mut self, volume: Assembled) {
        self.free.push(volume.part.clone());
        self.stack.volumes.push(volume);
    }

    /// Keeps findings, whose places are inside of `place` or empty.
    fn note(&mut self, place: &str, findings: Vec<(VolumeId, Finding)>) {
        let inside = findings.into_iter().map(|(about, mut found)| {
            found.place = match found.place.as_str() {
                "" => place.to_owned(),
                inside => format!("{place}: {inside}"),
            };
            (about, found)
        });
        self.stack.findings.extend(inside);
    }

    /// Keeps a finding about what is made of these.
    fn tell(&mut self, parts: &[VolumeId], finding: Finding) {
        let about = parts.first().map(|about| (*about, finding));
        self.stack.findings.extend(about);
    }
}

/// What is broken or not known is the guest's condition; a failing device is an error.
fn unusable(code: &str, name: &str, error: disk::Error, remedy: &str) -> Result<Finding> {
    match error {
        disk::Error::Corrupt { .. }
        | disk::Error::Unsupported { .. }
        | disk::Error::Limit { .. } => {
            Ok(finding(Level::Warning, code, name, error.to_string()).remedy(remedy))
        }
        source => Err(Error::guest(name)(source)),
    }
}

/// Findings with what they are about: a candidate by its number, which gets the name that people know, or
/// what is made of `parts`.
fn with_names(
    findings: &[Finding],
    candidates: &[Part],
    parts: &[VolumeId],
) -> Vec<(VolumeId, Finding)> {
    let candidate = candidates.first().map(|part| part.id);
    let first = parts.first().copied().or(candidate);
    let named = findings.iter().cloned().filter_map(|mut found| {
        let number = found.place.strip_prefix("device ");
        let part = number.and_then(|number| candidates.get(number.parse::<usize>().ok()?));
        found.place = name_candidates(&found.place, candidates);
        found.problem = name_candidates(&found.problem, candidates);
        // There are none where there is no candidate.
        Some((part.map(|part| part.id).or(first)?, found))
    });
    named.collect()
}

/// A text with the names of candidates in place of `device N`.
fn name_candidates(text: &str, candidates: &[Part]) -> String {
    const DEVICE: &str = "device ";
    let mut pieces = text.split(DEVICE);
    let mut named = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let behind = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = piece
            .strip_suffix(behind)
            .and_then(|number| number.parse().ok());
        match number.and_then(|number: usize| candidates.get(number)) {
            Some(part) => named.extend([&*part.id.to_string(), behind]),
            None => named.extend([DEVICE, piece]),
        }
    }
    named
}

fn devices(parts: &[Part]) -> Vec<Arc<dyn WriteAt>> {
    parts.iter().map(|part| Arc::clone(&part.device)).collect()
}

/// The largest of the parts that are meant.
fn sector_size(candidates: &[Part], parts: &[VolumeId]) -> SectorSize {
    let mut size = SectorSize::B512;
    for part in candidates.iter().filter(|part| parts.contains(&part.id)) {
        if part.sector_size.bytes() > size.bytes() {
            size = part.sector_size;
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use disk::block::MemoryDevice;
    use image_library::DiskIndex;

    use super::*;

    /// The disks of a volume group that LVM's tools made; the `disk` package says what is on them.
    const DISKS: &[u8] = include_bytes!("../../image-library/disk/fixtures/lvm2/disks.img.xz");
    const DISK_BYTES: usize = 12 << 20;

    fn disks() -> Vec<Part> {
        let mut image = Vec::new();
        let mut reader = liblzma::read::XzDecoder::new(DISKS);
        reader
            .read_to_end(&mut image)
            .expect("the fixture is sound");
        let part = |(number, bytes): (u16, &[u8])| Part {
            id: VolumeId::on_disk(DiskIndex(number), None),
            device: Arc::new(MemoryDevice::from(bytes.to_vec())),
            sector_size: SectorSize::B512,
        };
        (0..)
            .zip(image.chunks_exact(DISK_BYTES))
            .map(part)
            .collect()
    }

    #[test]
    fn what_is_written_to_a_volume_is_there_when_it_is_put_together_again() {
        let disks = disks();
        let volumes = assemble(&disks, &Secrets::default())
            .expect("the disks can be read")
            .volumes;
        assert!(volumes.len() > 8, "only {}", volumes.len());
        let mut written = Vec::new();
        for (number, volume) in (1..).zip(&volumes) {
            let bytes = [number; 4096];
            // Some refuse, as snapshots that are full, and one is nothing but zeros: the `disk`
            // package has their tests.
            let device = &volume.part.device;
            let mut found = [0; 4096];
            if device.write_all_at(8192, &bytes).is_ok()
                && device.read_exact_at(8192, &mut found).is_ok()
                && found == bytes
            {
                written.push((volume.part.id, bytes));
            }
        }
        assert!(written.len() > 8, "only {}", written.len());
        let again = Devices::new(disks, &Secrets::default(), true).expect("the disks can be read");
        for (id, bytes) in written {
            let device = again.open(id).expect("it is there");
            let mut found = [0; 4096];
            device.read_exact_at(8192, &mut found).expect("inside");
            assert!(found == bytes, "{id}");
        }
        let nobody = VolumeId::Assembled { number: 999 };
        assert!(matches!(again.open(nobody), Err(Error::Changed { .. })));
    }

    #[test]
    fn the_same_disks_give_the_same_volumes_and_a_lost_one_is_told() {
        let mut disks = disks();
        let names = |disks: &[Part]| -> Vec<String> {
            let stack = assemble(disks, &Secrets::default()).expect("the disks can be read");
            stack
                .volumes
                .into_iter()
                .map(|volume| volume.name)
                .collect()
        };
        assert_eq!(names(&disks), names(&disks));
        disks.remove(0);
        let stack = assemble(&disks, &Secrets::default()).expect("the disks can be read");
        let codes: Vec<&str> = stack
            .findings
            .iter()
            .map(|(_, f)| f.code.as_str())
            .collect();
        assert!(codes.contains(&"storage.lvm.unusable"), "{codes:?}");
    }

    #[test]
    fn findings_name_devices_as_people_do() {
        let candidates: Vec<Part> = disks().split_off(3);
        let named = |text| name_candidates(text, &candidates);
        assert_eq!(named("device 0"), "disk 3");
        assert_eq!(
            named("device 2 and device 1, device 9"),
            "disk 5 and disk 4, device 9"
        );
        assert_eq!(named("a device of device"), "a device of device");
    }
}
