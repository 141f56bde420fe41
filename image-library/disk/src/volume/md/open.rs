// SPDX-License-Identifier: MIT OR Apache-2.0
//! From an array's members to a device, or to the reason why not.

use std::sync::{Arc, Mutex};

use crate::block::WriteAt;
use crate::error::{Error, Result};
use crate::finding::Level as Weight;

use super::bitmap::Bitmap;
use super::device::{StripedArray, WriteGate};
use super::journal::{Journal, ppl_has_entries};
use super::member::{MemberDevice, Slot};
use super::parity::Parity;
use super::parity_array::ParityArray;
use super::striping::{Raid10, Striping, Zones};
use super::superblock::Superblock;
use super::{Array, Level, MemberState, Raid0Layout};

/// How an array spreads its bytes.
enum Geometry {
    Striped(Striping),
    Parity(Parity),
}

impl Geometry {
    fn length_bytes(&self) -> u64 {
        match self {
            Self::Striped(striping) => striping.length_bytes(),
            Self::Parity(parity) => parity.length_bytes,
        }
    }
}

/// Fills in the size and the obstacle.
pub(super) fn judge(array: &mut Array) {
    let geometry = geometry(array);
    array.size_bytes = geometry.as_ref().ok().map(Geometry::length_bytes);
    array.obstacle = match geometry {
        Err(Error::Unsupported { feature, .. }) => Some(feature),
        Err(error) => Some(error.to_string()),
        Ok(geometry) => obstacle(array, &geometry),
    };
    array.findings.retain(|finding| finding.code != UNUSABLE);
    if let Some(obstacle) = array.obstacle.clone() {
        let problem = format!("cannot be read: {obstacle}");
        let remedy = "take all disks of the server into the image";
        let remedy = array.is_degraded().then_some(remedy);
        array.note(Weight::Error, UNUSABLE, problem, remedy);
    }
}

const UNUSABLE: &str = "storage.md.unusable";

/// The array as a device.
pub(super) fn open(array: &Array) -> Result<Arc<dyn WriteAt>> {
    if let Some(obstacle) = &array.obstacle {
        return Err(Error::unsupported("md array", obstacle.clone()));
    }
    let slots = slots(array)?;
    let gate = gate(array)?;
    Ok(match geometry(array)? {
        Geometry::Striped(striping) => StripedArray::open(striping, slots, gate),
        Geometry::Parity(parity) => ParityArray::open(parity, slots, gate),
    })
}

fn geometry(array: &Array) -> Result<Geometry> {
    let Some(decides) = array.sources.best() else {
        return Err(Error::unsupported("md array", "an array without members"));
    };
    let (chunk, size) = (array.chunk_bytes, decides.component_bytes);
    let needs_power = matches!(
        array.level,
        Level::Raid4 | Level::Raid5 | Level::Raid6 | Level::Raid10
    );
    if array.level == Level::Raid0 && (chunk == 0 || !chunk.is_multiple_of(512))
        || needs_power && (chunk < 512 || !chunk.is_power_of_two())
    {
        let feature = format!("{} with chunks of {chunk} bytes", array.level);
        return Err(Error::unsupported("md array", feature));
    }
    let layout = array.layout.unwrap_or(0);
    Ok(match array.level {
        Level::Linear => Geometry::Striped(Striping::linear(&sizes(array)?, chunk)),
        Level::Raid0 => {
            let layout = match array.layout {
                Some(1) => Some(Raid0Layout::Original),
                Some(2) => Some(Raid0Layout::Alternate),
                _ => None,
            };
            Geometry::Striped(Striping::Zones(Zones::new(&sizes(array)?, chunk, layout)?))
        }
        Level::Raid1 => Geometry::Striped(Striping::Mirror {
            members: array.disks as usize,
            length_bytes: size,
        }),
        Level::Raid10 => {
            let raid10 = Raid10::new(layout, array.disks, chunk, size)?;
            Geometry::Striped(Striping::Raid10(raid10))
        }
        Level::Raid4 | Level::Raid5 | Level::Raid6 => {
            Geometry::Parity(Parity::new(array.level, layout, array.disks, chunk, size)?)
        }
        level @ Level::Other(_) => {
            return Err(Error::unsupported("md array", level.to_string()));
        }
    })
}

/// The sizes of all members of an array without redundancy.
fn sizes(array: &Array) -> Result<Vec<u64>> {
    let size = |role| {
        let mut members = in_use(array);
        members.find_map(|(of, _, superblock)| (of == role).then_some(superblock.data_bytes))
    };
    let sizes: Option<Vec<u64>> = (0..array.disks).map(size).collect();
    sizes.ok_or_else(|| Error::unsupported("md array", missing(array)))
}

/// Position, device and superblock of the members that have a position.
fn in_use(array: &Array) -> impl Iterator<Item = (u32, &Arc<dyn WriteAt>, &Superblock)> {
    let members = array.members.iter().zip(&array.sources.members);
    members.filter_map(|(member, (device, superblock))| {
        let used = matches!(
            member.state,
            MemberState::InSync | MemberState::Rebuilding { .. }
        );
        Some((member.role.filter(|_| used)?, device, superblock))
    })
}

fn missing(array: &Array) -> String {
    let missing: Vec<String> = (0..array.disks)
        .filter(|role| !array.has(*role))
        .map(|role| role.to_string())
        .collect();
    format!("{} without its members {}", array.level, missing.join(", "))
}

fn obstacle(array: &Array, geometry: &Geometry) -> Option<String> {
    let decides = array.sources.best()?;
    if decides.reshaping {
        return Some("an array that is being reshaped".to_owned());
    }
    if decides.clustered {
        return Some("an array that a cluster shares".to_owned());
    }
    if in_use(array).any(|(_, _, s)| {
        let needed = match array.level {
            Level::Linear | Level::Raid0 => 0,
            _ => s.component_bytes.max(decides.component_bytes),
        };
        needed > s.data_bytes
    }) {
        return Some("an array that is larger than its members".to_owned());
    }
    let lacks = (0..array.disks).filter(|role| !array.has(*role)).count();
    let enough = match geometry {
        Geometry::Parity(parity) => lacks <= if parity.rows.has_q() { 2 } else { 1 },
        Geometry::Striped(striping) => every_byte_is_somewhere(array, striping),
    };
    if !enough {
        return Some(missing(array));
    }
    let one_parity_left = matches!(geometry, Geometry::Parity(_)) && lacks > 0;
    if one_parity_left && decides.dirty {
        let reason =
            "an array that lacks members and was in use, so that its parity cannot be trusted,";
        return Some(reason.to_owned());
    }
    journal_obstacle(array, decides, geometry)
}

/// Whether each chunk has a copy on a member that is in sync.
fn every_byte_is_somewhere(array: &Array, striping: &Striping) -> bool {
    let step = match striping {
        Striping::Mirror { .. } | Striping::Linear(_) | Striping::Zones(_) => 0,
        Striping::Raid10(_) => array.chunk_bytes,
    };
    // Which members share a chunk repeats after as many chunks as there are members.
    (0..u64::from(array.disks)).all(|chunk| {
        let offset = chunk.saturating_mul(step);
        let copies = match offset < striping.length_bytes() {
            true => striping.locate(offset).copies,
            false => return true,
        };
        copies.iter().any(|(role, _)| array.has(*role as u32))
    })
}

/// The write journal of an array that has one.
fn journal(array: &Array) -> Option<Journal<'_>> {
    let members = array.members.iter().zip(&array.sources.members);
    let mut journals = members.filter(|(member, _)| member.state == MemberState::Journal);
    let (_, (device, superblock)) = journals.next()?;
    Some(Journal {
        device: &**device,
        start: superblock.data_offset,
        length: superblock.data_bytes,
        tail: superblock.journal_tail.unwrap_or(0),
    })
}

fn journal_obstacle(array: &Array, decides: &Superblock, geometry: &Geometry) -> Option<String> {
    if !decides.has_journal {
        return None;
    }
    let Some(journal) = journal(array) else {
        return Some("an array without its write journal".to_owned());
    };
    let Geometry::Parity(parity) = geometry else {
        return Some(format!("{} with a write journal", array.level));
    };
    let holds_nothing_new = || -> Result<bool> {
        let Some(contents) = journal.contents()? else {
            return Ok(false);
        };
        // Of parity in the journal nothing is known; it matters where members are missing.
        if contents.is_empty || array.is_degraded() {
            return Ok(contents.is_empty);
        }
        let device = ParityArray::open(parity.clone(), slots(array)?, WriteGate::default());
        journal.is_in(&contents, &device)
    };
    match holds_nothing_new() {
        Ok(true) => None,
        Ok(false) => Some("a write journal that holds data which the members lack".to_owned()),
        Err(error) => Some(format!("a write journal that cannot be read ({error})")),
    }
}

/// The devices of each position; where one is to be replaced by another, both, the old one first.
fn slots(array: &Array) -> Result<Vec<Slot>> {
    let mut slots = vec![Slot::default(); array.disks as usize];
    for replacement in [false, true] {
        for (role, device, superblock) in in_use(array) {
            if superblock.replacement == replacement
                && let Some(slot) = slots.get_mut(role as usize)
            {
                slot.0.push(MemberDevice::new(device, superblock)?);
            }
        }
    }
    Ok(slots)
}

fn gate(array: &Array) -> Result<WriteGate> {
    let mut gate = WriteGate::default();
    let mut bitmaps = Vec::new();
    for (_, device, superblock) in in_use(array) {
        if let Some(offset) = superblock.ppl
            && superblock.dirty
            && ppl_has_entries(&**device, offset)?
        {
            gate.refusal =
                Some("writing to an array whose partial parity log has entries".to_owned());
        }
        if let Some(offset) = superblock.bitmap
            && array.is_degraded()
        {
            let device = Arc::clone(device);
            bitmaps.push(Bitmap { device, offset });
        }
    }
    if let Some(journal) = journal(array)
        && !journal
            .contents()?
            .is_some_and(|contents| contents.is_empty)
    {
        gate.refusal = Some("writing to an array whose write journal is not empty".to_owned());
    }
    gate.bitmaps = Mutex::new(bitmaps);
    Ok(gate)
}
