// SPDX-License-Identifier: MIT OR Apache-2.0
//! Digests by which it is proved that an image is what it was.
//!
//! [`image_digest`] is cheap: the manifest roots in the document are hashes over everything below
//! them, so hashing those covers every byte that a whole library gives back. [`content_digest`]
//! reads every byte, whatever the manifests say, and is the same for the same disks in any library
//! and any chunk size.

use std::fmt;

use disk::block::ExtentKind;
use disk::{Monitor, ReadAt, Unit};

use crate::access::ImageReader;
use crate::document::Image;
use crate::error::Result;
use crate::id::ImageId;

/// Blocks of the content digest, in bytes.
const BLOCK_LENGTH: u64 = 1 << 20;

/// A digest of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(blake3::Hash);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

/// The digest of an image by its document: server, time, disks and their manifests.
pub fn image_digest(reader: &dyn ImageReader, id: ImageId) -> Result<Digest> {
    let image = reader.image(id)?;
    let mut hasher = blake3::Hasher::new_derive_key("relevo image-library v1 image digest");
    hash_text(&mut hasher, &image.id.to_string());
    hash_text(&mut hasher, image.server.as_str());
    hash_text(&mut hasher, &image.taken_at.to_string());
    hash_text(&mut hasher, &image.received_at.to_string());
    for disk in &image.disks {
        hash_text(&mut hasher, &disk.name);
        hash_text(&mut hasher, &disk.manifest);
        hasher.update(&disk.index.0.to_le_bytes());
        hasher.update(&disk.size_bytes.to_le_bytes());
        hasher.update(&disk.sector_size.bytes().to_le_bytes());
    }
    Ok(Digest(hasher.finalize()))
}

/// The digest of all bytes of all disks of an image, each read and checked again.
pub fn content_digest(
    reader: &dyn ImageReader,
    id: ImageId,
    monitor: &dyn Monitor,
) -> Result<Digest> {
    let image: Image = reader.image(id)?;
    monitor.stage("Reading the whole image");
    monitor.expect(
        image.disks.iter().map(|disk| disk.size_bytes).sum(),
        Unit::Bytes,
    );
    let mut hasher = blake3::Hasher::new_derive_key("relevo image-library v1 content digest");
    for disk in &image.disks {
        let device = reader.open_disk(id, disk.index)?;
        hasher.update(&device.length_bytes().to_le_bytes());
        hash_device(&mut hasher, &*device, monitor)?;
    }
    Ok(Digest(hasher.finalize()))
}

/// Hashes number and content of every block that is not all zeros.
fn hash_device(
    hasher: &mut blake3::Hasher,
    device: &dyn ReadAt,
    monitor: &dyn Monitor,
) -> Result<()> {
    let length = device.length_bytes();
    let mut buffer = vec![0; BLOCK_LENGTH as usize];
    let mut offset = 0;
    while offset < length {
        let extent = device.extent_at(offset)?;
        let whole_blocks = (extent.length.min(length - offset) / BLOCK_LENGTH) * BLOCK_LENGTH;
        if extent.kind == ExtentKind::Zero && whole_blocks > 0 {
            offset += whole_blocks;
            monitor.advance(whole_blocks);
            continue;
        }
        let block = &mut buffer[..BLOCK_LENGTH.min(length - offset) as usize];
        device.read_exact_at(offset, block)?;
        if block.iter().any(|byte| *byte != 0) {
            hasher.update(&offset.to_le_bytes());
            hasher.update(blake3::hash(block).as_bytes());
        }
        offset += block.len() as u64;
        monitor.advance(block.len() as u64);
    }
    Ok(())
}

/// With its length, so that two texts never run into each other.
fn hash_text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use disk::Silent;

    use super::{content_digest, image_digest};
    use crate::InitOptions;
    use crate::tests::{TestLibrary, sample_disk};

    #[test]
    fn the_content_digest_depends_on_the_bytes_alone() {
        let disk = sample_disk(1, 5_000_000);
        let digest = |chunk_size_bytes, disk: &[u8]| {
            let library = TestLibrary::with(&InitOptions {
                chunk_size_bytes,
                ..InitOptions::default()
            });
            let image = library.store("web", disk);
            content_digest(&library.library, image.id, &Silent).expect("reads")
        };
        let small = digest(16 << 10, &disk);
        assert_eq!(small, digest(4 << 20, &disk));
        let mut changed = disk.clone();
        changed[4_000_000] ^= 1;
        assert_ne!(small, digest(16 << 10, &changed));
    }

    #[test]
    fn the_image_digest_tells_images_apart_and_stays() {
        let library = TestLibrary::new();
        let disk = sample_disk(2, 100_000);
        let first = library.store("web", &disk);
        let second = library.store("web", &disk);
        let digest = |id| image_digest(&library.library, id).expect("reads");
        assert_ne!(digest(first.id), digest(second.id));
        let before = digest(first.id);
        library.store("web", &sample_disk(3, 100_000));
        assert_eq!(digest(first.id), before);
    }
}
