// SPDX-License-Identifier: MIT OR Apache-2.0
//! XFS as this package sees it, beside what a kernel, `xfs_db` and `xfs_repair` say.

mod damage;
mod images;
mod made;
#[path = "../outside/mod.rs"]
mod outside;
#[path = "../outside/testdata.rs"]
mod testdata;
#[expect(dead_code, reason = "the checker of ext is not asked here")]
#[path = "../outside/volume.rs"]
mod volume;

use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::filesystem::{FileType, Filesystem, Xfs, used_extents};
use disk::{ReadAt, Result};

/// No file of these tests is larger.
const CONTENT_MAX: u64 = 4 << 20;

fn memory(bytes: Vec<u8>) -> Arc<dyn ReadAt> {
    Arc::new(MemoryDevice::from(bytes))
}

/// Every path with what is known of it, in the words of `fixtures/build-xfs.py`.
fn listing(xfs: &Xfs) -> Result<Vec<String>> {
    let mut lines = vec![line(xfs, "/")?];
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let listed = if folder.is_empty() { "/" } else { &folder };
        for entry in xfs.read_directory(listed)? {
            let path = format!("{folder}/{}", entry.name);
            lines.push(line(xfs, &path)?);
            if entry.file_type == FileType::Directory {
                folders.push(path);
            }
        }
    }
    lines.sort();
    Ok(lines)
}

fn line(xfs: &Xfs, path: &str) -> Result<String> {
    let metadata = xfs.metadata(path)?;
    let (kind, content) = match metadata.file_type {
        FileType::File => ("file", xfs.read(path, CONTENT_MAX)?),
        FileType::Symlink => ("symlink", xfs.read_link(path)?.into_bytes()),
        FileType::Directory => ("directory", Vec::new()),
        FileType::Special => ("special", Vec::new()),
    };
    let mut checksum = flate2::Crc::new();
    checksum.update(&content);
    let label = xfs.selinux_context(path)?;
    Ok(format!(
        "{kind} {:o} {} {} {} {:08x} {} {path}",
        metadata.mode,
        metadata.uid,
        metadata.gid,
        content.len(),
        checksum.sum(),
        label.map_or("-".to_owned(), |label| label.replace(' ', "_")),
    ))
}

/// The bytes of a device with zeros wherever nothing is in use; and how many are.
fn reduced(device: &dyn ReadAt) -> (Vec<u8>, u64) {
    let mut bytes = vec![0; device.length_bytes() as usize];
    let mut kept = 0;
    for range in used_extents(device).expect("readable").expect("known") {
        kept += range.end - range.start;
        let part = &mut bytes[range.start as usize..range.end as usize];
        device.read_exact_at(range.start, part).expect("inside");
    }
    (bytes, kept)
}
