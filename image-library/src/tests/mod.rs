// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole libraries in temporary directories: what goes in comes out, or its damage is told.

mod catalogue;
mod clock;
mod damage;
pub(crate) mod damaged;
mod keys;
mod matrix;
mod round_trip;

use std::sync::Arc;

use disk::{ReadAt, SectorSize};
use jiff::Timestamp;
use tempfile::TempDir;

use crate::chunk::compress;
use crate::{
    ChunkUpload, Consistency, ContentHash, DiskDraft, DiskHashes, DiskIndex, DiskWriter, Image,
    ImageDraft, ImageReader, ImageWriter, InitOptions, LEAF_CHUNKS, LocalLibrary, Result, Upload,
    UploadTarget,
};

/// A library that is removed with the test.
pub(crate) struct TestLibrary {
    pub(crate) directory: TempDir,
    pub(crate) library: LocalLibrary,
}

impl TestLibrary {
    pub(crate) fn new() -> Self {
        Self::with(&InitOptions {
            chunk_size_bytes: 16 << 10,
            ..InitOptions::default()
        })
    }

    pub(crate) fn with(options: &InitOptions) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let library = LocalLibrary::init(directory.path(), options).expect("creates");
        Self { directory, library }
    }

    pub(crate) fn begin(&self, server: &str) -> Box<dyn Upload> {
        begin(&self.library, server)
    }

    /// Puts one disk as an image of `server`.
    pub(crate) fn store(&self, server: &str, disk: &[u8]) -> Image {
        store(&self.library, server, disk)
    }

    pub(crate) fn read(&self, image: &Image) -> Vec<u8> {
        read(&self.library, image)
    }

    pub(crate) fn open(&self, image: &Image) -> Arc<dyn ReadAt> {
        self.library
            .open_disk(image.id, DiskIndex(0))
            .expect("opens")
    }
}

pub(crate) fn read(library: &LocalLibrary, image: &Image) -> Vec<u8> {
    let device = library.open_disk(image.id, DiskIndex(0)).expect("opens");
    let mut bytes = vec![0xee; device.length_bytes() as usize];
    device.read_exact_at(0, &mut bytes).expect("reads");
    bytes
}

pub(crate) fn begin(library: &LocalLibrary, server: &str) -> Box<dyn Upload> {
    let server = server.parse().expect("a legal name");
    library.begin(&UploadTarget { server }).expect("begins")
}

pub(crate) fn store(library: &LocalLibrary, server: &str, disk: &[u8]) -> Image {
    let upload = begin(library, server);
    let hashes = put_all(library, &*upload, disk);
    put_disk(&*upload, "sda", disk.len() as u64, &hashes).expect("puts the disk");
    upload.commit(&draft()).expect("commits")
}

/// Puts the manifest of a disk whose chunks are there.
pub(crate) fn put_disk(
    upload: &dyn Upload,
    name: &str,
    size_bytes: u64,
    hashes: &[Option<ContentHash>],
) -> Result<()> {
    let draft = disk_draft(name, size_bytes);
    let mut writer = DiskWriter::new(upload, &draft);
    writer.push(hashes)?;
    writer.finish()
}

/// All hashes of a disk.
pub(crate) fn all_hashes(hashes: &dyn DiskHashes) -> Vec<Option<ContentHash>> {
    let leaves = hashes.chunk_count().div_ceil(LEAF_CHUNKS as u64);
    let leaf = |number| hashes.leaf(number).expect("reads a leaf");
    (0..leaves).flat_map(leaf).collect()
}

/// Puts every chunk of a disk; gives the hashes.
pub(crate) fn put_all(
    library: &LocalLibrary,
    upload: &dyn Upload,
    disk: &[u8],
) -> Vec<Option<ContentHash>> {
    let mut hashes = Vec::new();
    for bytes in disk.chunks(library.chunk_size_bytes() as usize) {
        if bytes.iter().all(|byte| *byte == 0) {
            hashes.push(None);
            continue;
        }
        upload.put_chunks(vec![chunk(bytes)]).expect("puts");
        hashes.push(Some(ContentHash::of(bytes)));
    }
    hashes
}

pub(crate) fn chunk(bytes: &[u8]) -> ChunkUpload {
    ChunkUpload {
        hash: ContentHash::of(bytes),
        length: bytes.len() as u32,
        compressed: compress(bytes).expect("compresses"),
    }
}

pub(crate) fn disk_draft(name: &str, size_bytes: u64) -> DiskDraft {
    DiskDraft {
        name: name.to_owned(),
        size_bytes,
        sector_size: SectorSize::B512,
    }
}

pub(crate) fn draft() -> ImageDraft {
    ImageDraft {
        taken_at: "2026-11-01T10:00:00Z".parse::<Timestamp>().expect("a time"),
        consistency: Consistency::Crash,
        machine: None,
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// A disk of `length` bytes: noise, text, holes.
pub(crate) fn sample_disk(seed: u64, length: usize) -> Vec<u8> {
    let mut disk = noise(seed, length);
    let third = length / 3;
    for (position, byte) in disk[third..2 * third].iter_mut().enumerate() {
        *byte = b"the quick brown fox "[position % 20];
    }
    disk[2 * third..length - length / 8].fill(0);
    disk
}
