// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second pass of `verify`: every image, down to every chunk that it names.

use disk::Unit;

use super::{Damage, Findings};
use crate::core::Core;
use crate::document::{Image, ImageDisk};
use crate::error::{Error, Result};
use crate::id::{ContentHash, ImageId};
use crate::manifest::{LEAF_ENTRIES, Root};
use crate::store::{list_images, list_side_files};

const REMEDY: &str = "take a new image of this server; older ones of it may be whole";

/// Checks all images and their side files.
pub(super) fn check(core: &Core, damage: &Damage, findings: &Findings<'_>) -> Result<()> {
    findings.monitor.stage("Checking all images");
    let ids = list_images(&*core.store)?;
    findings.monitor.expect(ids.len() as u64, Unit::Items);
    for id in ids {
        findings.update(|report| report.images += 1);
        let before = findings_so_far(findings);
        match core.image(id) {
            Ok(image) => check_image(core, &image, damage, findings)?,
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
    Ok(())
}

fn findings_so_far(findings: &Findings<'_>) -> u64 {
    let mut count = 0;
    findings.update(|report| count = report.finding_count);
    count
}

fn check_image(core: &Core, image: &Image, damage: &Damage, findings: &Findings<'_>) -> Result<()> {
    for disk in &image.disks {
        let place = format!("image {}, disk {:?}", image.id, disk.name);
        match core.read_root(&disk.manifest, &place) {
            Ok(root) => check_disk(core, &root, disk, &place, damage, findings)?,
            Err(error) => {
                let problem = format!("its manifest cannot be read: {}", text(&error));
                findings.add("library.image.damaged", place, problem, Some(REMEDY));
            }
        }
    }
    Ok(())
}

fn check_disk(
    core: &Core,
    root: &Root,
    disk: &ImageDisk,
    place: &str,
    damage: &Damage,
    findings: &Findings<'_>,
) -> Result<()> {
    if root.disk_size != disk.size_bytes {
        let problem = format!("its manifest is of a disk of {} bytes", root.disk_size);
        let place = place.to_owned();
        findings.add("library.image.damaged", place, problem, Some(REMEDY));
    }
    let mut lost = LostRun::default();
    for leaf in 0..root.leaves.len() {
        let first = leaf as u64 * LEAF_ENTRIES as u64;
        match core.read_leaf(root, leaf, place) {
            Ok(entries) => {
                for (position, hash) in entries.iter().enumerate() {
                    let chunk = first + position as u64;
                    let problem = hash.and_then(|hash| lost_chunk(core, &hash, damage));
                    lost.next(root, chunk, problem, place, findings);
                }
            }
            Err(error) => {
                let problem = format!("a leaf of its manifest: {}", text(&error));
                for position in 0..root.leaf_entries(leaf) as u64 {
                    lost.next(
                        root,
                        first + position,
                        Some(problem.clone()),
                        place,
                        findings,
                    );
                }
            }
        }
    }
    lost.end(root, place, findings);
    Ok(())
}

/// Why a chunk cannot be given back; `None` when one whole copy stands somewhere.
fn lost_chunk(core: &Core, hash: &ContentHash, damage: &Damage) -> Option<String> {
    let id = core.key.chunk_id(hash);
    let found = match core.find_all(&id) {
        Ok(found) => found,
        Err(error) => return Some(text(&error)),
    };
    let is_whole = |pack| !damage.covers(pack, id);
    if found.iter().any(|location| is_whole(location.pack)) {
        return None;
    }
    Some(match found.first() {
        Some(location) => format!("chunk {id} in pack {} is damaged", location.pack),
        None => format!("no pack holds chunk {id}"),
    })
}

/// Neighbouring lost chunks are one finding.
#[derive(Default)]
struct LostRun {
    first: u64,
    count: u64,
    problem: String,
}

impl LostRun {
    fn next(
        &mut self,
        root: &Root,
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
            None => self.end(root, place, findings),
        }
    }

    fn end(&mut self, root: &Root, place: &str, findings: &Findings<'_>) {
        if self.count == 0 {
            return;
        }
        let size = u64::from(root.chunk_size);
        let start = self.first * size;
        let end = ((self.first + self.count) * size).min(root.disk_size);
        let place = format!("{place}, bytes {start:#x} to {end:#x}");
        let problem = std::mem::take(&mut self.problem);
        findings.add("library.image.lost", place, problem, Some(REMEDY));
        self.count = 0;
    }
}

fn check_side_files(core: &Core, id: ImageId, findings: &Findings<'_>) -> Result<()> {
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
