// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second pass of `verify`: every image, down to every chunk that it names.

use std::collections::HashSet;

use disk::Unit;

use super::{Damage, Findings};
use crate::core::Core;
use crate::document::{Image, ImageDisk};
use crate::error::{Error, Result};
use crate::id::{ContentHash, ImageId};
use crate::manifest::{LEAF_CHUNKS, Root};
use crate::store::{list_images, list_side_files};

pub(super) const REMEDY: &str = "take a new image of this server; older ones of it may be whole";

/// Checks all images and their side files.
pub(super) fn check(core: &Core, damage: &Damage, findings: &Findings<'_>) -> Result<()> {
    findings.monitor.stage("Checking all images");
    let ids = list_images(&*core.store)?;
    findings.monitor.expect(ids.len() as u64, Unit::Items);
    let mut sound = SoundLeaves::default();
    for id in ids {
        findings.update(|report| report.images += 1);
        let before = findings_so_far(findings);
        match core.image(id) {
            Ok(image) => check_image(core, &image, damage, &mut sound, findings)?,
            Err(Error::NoSuchImage { .. }) => {}
            Err(error) => {
                let place = format!("image {id}");
                findings.add("library.image.damaged", place, text(&error), Some(REMEDY));
            }
        }
        check_side_files(core, id, findings)?;
        if findings_so_far(findings) > before {
            findings.update(|report| report.damaged_images.push(id.to_string()));
        }
        findings.monitor.advance(1);
    }
    findings.losses().note_images();
    Ok(())
}

pub(super) fn findings_so_far(findings: &Findings<'_>) -> u64 {
    let mut count = 0;
    findings.update(|report| count = report.finding_count);
    count
}

fn check_image(
    core: &Core,
    image: &Image,
    damage: &Damage,
    sound: &mut SoundLeaves,
    findings: &Findings<'_>,
) -> Result<()> {
    for disk in &image.disks {
        let place = format!("image {}, disk {:?}", image.id, disk.name);
        match core.read_root(&disk.manifest, &place) {
            Ok(root) => check_disk(core, &root, disk, &place, damage, sound, findings)?,
            Err(error) => {
                lose_root(core, disk, findings)?;
                let problem = format!("its manifest cannot be read: {}", text(&error));
                findings.add("library.image.damaged", place, problem, Some(REMEDY));
            }
        }
    }
    Ok(())
}

/// The root of a disk's manifest is lost.
pub(super) fn lose_root(core: &Core, disk: &ImageDisk, findings: &Findings<'_>) -> Result<()> {
    // A document that names no hash is told of anyway.
    let Ok(hash) = blake3::Hash::from_hex(&disk.manifest) else {
        return Ok(());
    };
    let id = core
        .key
        .chunk_id(&ContentHash::from_bytes(*hash.as_bytes()));
    findings.losses().lose(core, &id)
}

fn check_disk(
    core: &Core,
    root: &Root,
    disk: &ImageDisk,
    place: &str,
    damage: &Damage,
    sound: &mut SoundLeaves,
    findings: &Findings<'_>,
) -> Result<()> {
    if root.disk_size != disk.size_bytes {
        let problem = format!("its manifest is of a disk of {} bytes", root.disk_size);
        let place = place.to_owned();
        findings.add("library.image.damaged", place, problem, Some(REMEDY));
    }
    let mut lost = LostRun::new(root.disk_size, root.chunk_size);
    for (leaf, hash) in root.leaves.iter().enumerate() {
        let Some(hash) = hash.filter(|hash| !sound.contains(hash)) else {
            lost.end(place, findings);
            continue;
        };
        let first = leaf as u64 * LEAF_CHUNKS as u64;
        let problems = leaf_problems(core, root, leaf, place, damage, findings)?;
        if problems.iter().all(Option::is_none) {
            sound.add(&hash);
        }
        for (chunk, problem) in (first..).zip(problems) {
            lost.next(chunk, problem, place, findings);
        }
    }
    lost.end(place, findings);
    Ok(())
}

/// Leaves of which every chunk is whole: the images of a server share most of theirs.
#[derive(Debug, Default)]
pub(super) struct SoundLeaves(HashSet<[u8; 16]>);

impl SoundLeaves {
    /// Half of a hash: 256 KiB for 1 TiB of different data, and nobody makes two leaves alike in it.
    fn half(hash: &ContentHash) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        half
    }

    fn contains(&self, hash: &ContentHash) -> bool {
        self.0.contains(&Self::half(hash))
    }

    fn add(&mut self, hash: &ContentHash) {
        self.0.insert(Self::half(hash));
    }
}

/// What is wrong with each chunk of a leaf.
fn leaf_problems(
    core: &Core,
    root: &Root,
    leaf: usize,
    place: &str,
    damage: &Damage,
    findings: &Findings<'_>,
) -> Result<Vec<Option<String>>> {
    let entries = core.read_leaf(root, leaf, place);
    if let Some(hash) = root.leaves.get(leaf).copied().flatten() {
        lost_chunk(core, &hash, damage, findings)?;
    }
    match entries {
        Ok(entries) => {
            let problem = |hash: &Option<ContentHash>| match hash {
                Some(hash) => lost_chunk(core, hash, damage, findings),
                None => Ok(None),
            };
            entries.iter().map(problem).collect()
        }
        Err(error) => {
            let problem = format!("a leaf of its manifest: {}", text(&error));
            Ok(vec![Some(problem); root.leaf_entries(leaf)])
        }
    }
}

/// Why a chunk cannot be given back; `None` when one whole copy stands somewhere.
fn lost_chunk(
    core: &Core,
    hash: &ContentHash,
    damage: &Damage,
    findings: &Findings<'_>,
) -> Result<Option<String>> {
    let id = core.key.chunk_id(hash);
    // Most chunks stand once and are whole.
    if let Ok(Some(location)) = core.find(&id)
        && !damage.covers(location.pack, id)
    {
        return Ok(None);
    }
    let found = match core.find_all(&id) {
        Ok(found) => found,
        Err(error) => return Ok(Some(text(&error))),
    };
    findings.losses().lose(core, &id)?;
    let is_whole = |pack| !damage.covers(pack, id);
    if found.iter().any(|location| is_whole(location.pack)) {
        return Ok(None);
    }
    Ok(Some(match found.first() {
        Some(location) => format!("chunk {id} in pack {} is damaged", location.pack),
        None => format!("no pack holds chunk {id}"),
    }))
}

/// Neighbouring lost chunks are one finding.
pub(super) struct LostRun {
    disk_size: u64,
    chunk_size: u64,
    first: u64,
    count: u64,
    problem: String,
}

impl LostRun {
    /// For a disk of so many bytes.
    pub(super) fn new(disk_size: u64, chunk_size: u32) -> Self {
        Self {
            disk_size,
            chunk_size: u64::from(chunk_size),
            first: 0,
            count: 0,
            problem: String::new(),
        }
    }

    /// The next chunk, and what is wrong with it.
    pub(super) fn next(
        &mut self,
        chunk: u64,
        problem: Option<String>,
        place: &str,
        findings: &Findings<'_>,
    ) {
        match problem {
            Some(problem) if self.count == 0 => {
                (self.first, self.count, self.problem) = (chunk, 1, problem);
            }
            Some(_) => self.count += 1,
            None => self.end(place, findings),
        }
    }

    /// What comes next is whole.
    pub(super) fn end(&mut self, place: &str, findings: &Findings<'_>) {
        if self.count == 0 {
            return;
        }
        let start = self.first * self.chunk_size;
        let end = ((self.first + self.count) * self.chunk_size).min(self.disk_size);
        let place = format!("{place}, bytes {start:#x} to {end:#x}");
        let problem = std::mem::take(&mut self.problem);
        findings.add("library.image.lost", place, problem, Some(REMEDY));
        self.count = 0;
    }
}

pub(super) fn check_side_files(core: &Core, id: ImageId, findings: &Findings<'_>) -> Result<()> {
    for name in list_side_files(&*core.store, id)? {
        findings.update(|report| report.side_files += 1);
        if let Err(error) = core.side_file(id, &name) {
            let place = format!("side file {name:?} of image {id}");
            let remedy = Some("delete it: it is made again from the image");
            findings.add("library.side-file.damaged", place, text(&error), remedy);
        }
    }
    Ok(())
}

/// An error in one line.
pub(super) fn text(error: &Error) -> String {
    match error {
        Error::File { source, .. } => format!("{error}: {source}"),
        other => other.to_string(),
    }
}
