// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hashes of a stored disk, for whoever takes the next snapshot of it.

use std::sync::Arc;

use crate::access::DiskHashes;
use crate::core::Core;
use crate::document::{Image, ImageDisk};
use crate::error::Result;
use crate::id::{ContentHash, ImageId};
use crate::manifest::Root;
use crate::wanted::Avoided;

/// Stands for a chunk that the library has lost, or is about to: no bytes have this hash, so its chunk is sent
/// again and the library heals.
pub(crate) const LOST: ContentHash = ContentHash::from_bytes([0xff; 32]);

/// The hashes of one disk of an image.
#[derive(Debug)]
pub(crate) struct StoredHashes {
    core: Arc<Core>,
    image: ImageId,
    root: Root,
    place: String,
    /// What is told to be lost: for whoever sends the disk again, not for whoever reads it.
    told: Told,
}

/// How chunks are told that are not there.
#[derive(Debug)]
enum Told {
    /// As they were.
    AsTheyAre,
    /// As lost, and those of which only such copies are left too: no upload may rely on these, so
    /// they have to be sent again. An image that was committed after its packs were condemned names
    /// chunks in them.
    Lost(Arc<Avoided>),
}

impl StoredHashes {
    /// The hashes as they were put. A leaf that is damaged is an error.
    pub(crate) fn as_they_are(core: &Arc<Core>, image: &Image, disk: &ImageDisk) -> Result<Self> {
        let place = format!("image {}, disk {:?}", image.id, disk.name);
        Ok(Self {
            core: Arc::clone(core),
            image: image.id,
            root: core.read_root(&disk.manifest, &place)?,
            place,
            told: Told::AsTheyAre,
        })
    }

    /// The hashes of a disk for an upload that relies on nothing of `avoided`; `None` when the image
    /// has no such disk or the root of its manifest is damaged: nothing is known then.
    pub(crate) fn for_upload(
        core: &Arc<Core>,
        image: &Image,
        disk_name: &str,
        avoided: Arc<Avoided>,
    ) -> Result<Option<Arc<dyn DiskHashes>>> {
        let Some(disk) = image.disks.iter().find(|disk| disk.name == disk_name) else {
            return Ok(None);
        };
        let place = format!("image {}, disk {:?}", image.id, disk.name);
        match core.read_root(&disk.manifest, &place) {
            Ok(root) => Ok(Some(Arc::new(Self {
                core: Arc::clone(core),
                image: image.id,
                root,
                place,
                told: Told::Lost(avoided),
            }))),
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl DiskHashes for StoredHashes {
    fn image(&self) -> ImageId {
        self.image
    }

    fn chunk_size_bytes(&self) -> u32 {
        self.root.chunk_size
    }

    fn chunk_count(&self) -> u64 {
        self.root.chunk_count()
    }

    fn leaf(&self, number: u64) -> Result<Vec<Option<ContentHash>>> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let leaf = self.core.read_leaf(&self.root, number, &self.place);
        let Told::Lost(avoided) = &self.told else {
            return leaf;
        };
        let mut hashes = match leaf {
            Ok(entries) => entries,
            Err(error) if error.is_damage() => vec![Some(LOST); self.root.leaf_entries(number)],
            Err(error) => return Err(error),
        };
        for hash in hashes.iter_mut().flatten() {
            let id = self.core.key.chunk_id(hash);
            if self.core.find_outside(&id, avoided)?.is_none() {
                *hash = LOST;
            }
        }
        Ok(hashes)
    }
}
