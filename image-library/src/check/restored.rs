// SPDX-License-Identifier: MIT OR Apache-2.0
//! `verify` of single images: each disk is read as a restore would read it.

use std::sync::Arc;

use disk::block::ExtentKind;
use disk::{ReadAt, Unit};

use super::Findings;
use super::images::{LostRun, REMEDY, check_side_files, findings_so_far, lose_root, text};
use crate::core::Core;
use crate::document::{Image, ImageDisk};
use crate::error::{Error, Result, chain_text};
use crate::id::ImageId;
use crate::image::ImageDevice;

/// Read at once; where that fails, chunk by chunk.
const PIECE_LENGTH: u64 = 8 << 20;

/// Checks these images and their side files. That there is none of an id is an error: the caller
/// means one that exists.
pub(super) fn check(core: &Arc<Core>, ids: &[ImageId], findings: &Findings<'_>) -> Result<()> {
    for &id in ids {
        findings.monitor.stage(&format!("Reading image {id}"));
        findings.update(|report| report.images += 1);
        let before = findings_so_far(findings);
        match core.image(id) {
            Ok(image) => check_image(core, &image, findings)?,
            Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                let place = format!("image {id}");
                findings.add("library.image.damaged", place, text(&error), Some(REMEDY));
            }
            Err(error) => return Err(error),
        }
        check_side_files(core, id, findings)?;
        if findings_so_far(findings) > before {
            findings.update(|report| report.damaged_images.push(id.to_string()));
        }
    }
    Ok(())
}

fn check_image(core: &Arc<Core>, image: &Image, findings: &Findings<'_>) -> Result<()> {
    let total = image.disks.iter().map(|disk| disk.data_bytes).sum();
    findings.monitor.expect(total, Unit::Bytes);
    for disk in &image.disks {
        let place = format!("image {}, disk {:?}", image.id, disk.name);
        match ImageDevice::open(Arc::clone(core), image, disk) {
            Ok(device) => check_disk(core, &device, disk, &place, findings)?,
            Err(error) => {
                lose_root(core, disk, findings)?;
                let problem = format!("its manifest cannot be read: {}", text(&error));
                findings.add("library.image.damaged", place, problem, Some(REMEDY));
            }
        }
    }
    Ok(())
}

fn check_disk(
    core: &Core,
    device: &ImageDevice,
    disk: &ImageDisk,
    place: &str,
    findings: &Findings<'_>,
) -> Result<()> {
    let chunk_size = u64::from(device.chunk_size_bytes());
    let mut lost = LostRun::new(disk.size_bytes, device.chunk_size_bytes());
    let mut buffer = vec![0; PIECE_LENGTH as usize];
    let mut at = 0;
    while at < disk.size_bytes {
        // A leaf that cannot be read has no map: it is read, and found to be lost.
        let extent = device.extent_at(at).ok();
        let length = extent.map_or(chunk_size, |extent| extent.length.max(1));
        let end = at.saturating_add(length).min(disk.size_bytes);
        if extent.is_some_and(|extent| extent.kind == ExtentKind::Zero) {
            lost.end(place, findings);
            at = end;
            continue;
        }
        let end = end.min(at + PIECE_LENGTH);
        let read = device.read_exact_at(at, &mut buffer[..(end - at) as usize]);
        if read.is_ok() {
            lost.end(place, findings);
        } else {
            for start in (at..end).step_by(chunk_size as usize) {
                let length = (disk.size_bytes - start).min(chunk_size) as usize;
                let problem = device.read_exact_at(start, &mut buffer[..length]).err();
                if problem.is_some()
                    && let Some(id) = device.needed_at(start)
                {
                    findings.losses().lose(core, &id)?;
                }
                let problem = problem.map(|error| chain_text(&error));
                lost.next(start / chunk_size, problem, place, findings);
            }
        }
        findings.update(|report| report.bytes_read += end - at);
        findings.monitor.advance(end - at);
        at = end;
    }
    lost.end(place, findings);
    Ok(())
}
