// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library in a directory that this program opens itself, with its key.

use std::path::Path;
use std::sync::Arc;

use disk::ReadAt;
use jiff::Timestamp;

use crate::access::{ImageReader, ImageWriter, Upload, UploadTarget};
use crate::config::{Config, InitOptions};
use crate::core::Core;
use crate::crypto::{LibraryKey, random_bytes};
use crate::document::{Image, ImageDisk};
use crate::error::{Error, Result};
use crate::id::{ContentHash, DiskIndex, ImageId, ServerName};
use crate::image::ImageDevice;
use crate::key_file::{self, KeyAccess, Passphrase, PassphraseSource};
use crate::manifest::LEAF_ENTRIES;
use crate::store::{Directory, Store, Workspace, names, require_empty};
use crate::upload::LocalUpload;

/// A library in a directory. Clones share everything; several processes may open the same
/// directory at once.
#[derive(Debug, Clone)]
pub struct LocalLibrary {
    core: Arc<Core>,
}

impl LocalLibrary {
    /// Creates a library in a new or empty directory, and opens it. Its key has no passphrase.
    pub fn init(directory: &Path, options: &InitOptions) -> Result<Self> {
        Self::init_with_passphrase(directory, options, None)
    }

    /// The same, with the key sealed under a passphrase.
    pub fn init_with_passphrase(
        directory: &Path,
        options: &InitOptions,
        passphrase: Option<&Passphrase>,
    ) -> Result<Self> {
        require_empty(directory)?;
        let store = Directory::new(directory);
        store.create_tree()?;
        Workspace::new(directory).create()?;
        let key = LibraryKey::from_secret(random_bytes()?);
        let config = Config::new(options, &key, Timestamp::now())?;
        let key_file = key_file::to_bytes(key.secret(), config.id, passphrase)?;
        // The configuration last: a directory without it is no library.
        if !(store.create(names::KEY, &key_file)? && config.create(&store)?) {
            return Err(Error::NotEmpty {
                path: directory.to_owned(),
            });
        }
        let access = KeyAccess {
            file: None,
            passphrase: passphrase
                .cloned()
                .map_or(PassphraseSource::None, PassphraseSource::Given),
        };
        Self::open_with_key(directory, &access)
    }

    /// Opens an existing library with the key that is in it, which has no passphrase.
    pub fn open(directory: &Path) -> Result<Self> {
        Self::open_with_key(directory, &KeyAccess::default())
    }

    /// Opens an existing library.
    ///
    /// # Errors
    ///
    /// [`Error::KeyMissing`], [`Error::WrongKey`], [`Error::PassphraseNeeded`] and
    /// [`Error::WrongPassphrase`] say what is wrong with the key.
    pub fn open_with_key(directory: &Path, access: &KeyAccess) -> Result<Self> {
        let store = Arc::new(Directory::new(directory));
        let core = Core::open(store, Workspace::new(directory), access, Timestamp::now)?;
        Ok(Self::from_core(Arc::new(core)))
    }

    /// Opens a library that takes its time from `clock`.
    pub fn open_with_clock(directory: &Path, clock: fn() -> Timestamp) -> Result<Self> {
        let store = Arc::new(Directory::new(directory));
        let core = Core::open(
            store,
            Workspace::new(directory),
            &KeyAccess::default(),
            clock,
        )?;
        Ok(Self {
            core: Arc::new(core),
        })
    }

    /// A library whose parts were put together by the caller.
    pub(crate) const fn from_core(core: Arc<Core>) -> Self {
        Self { core }
    }

    pub(crate) const fn core(&self) -> &Arc<Core> {
        &self.core
    }

    fn disk(&self, id: ImageId, disk: DiskIndex) -> Result<(Image, ImageDisk)> {
        let image = self.core.image(id)?;
        let found = image.disks.iter().find(|d| d.index == disk).cloned();
        let found = found.ok_or_else(|| Error::NoSuchImage {
            problem: format!(
                "image {id} has no disk {disk}; it has {} disks, from 0",
                image.disks.len()
            ),
        })?;
        Ok((image, found))
    }
}

impl ImageReader for LocalLibrary {
    fn images(&self) -> Result<Vec<Image>> {
        self.core.images()
    }

    fn image(&self, id: ImageId) -> Result<Image> {
        self.core.image(id)
    }

    fn open_disk(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        let (image, disk) = self.disk(id, disk)?;
        let device = ImageDevice::open(Arc::clone(&self.core), &image, &disk)?;
        Ok(Arc::new(device))
    }

    fn side_file(&self, id: ImageId, name: &str) -> Result<Option<Vec<u8>>> {
        self.core.side_file(id, name)
    }

    fn put_side_file(&self, id: ImageId, name: &str, content: &[u8]) -> Result<()> {
        self.core.put_side_file(id, name, content)
    }
}

impl ImageWriter for LocalLibrary {
    fn chunk_size_bytes(&self) -> u32 {
        self.core.config.chunk_size_bytes
    }

    fn begin(&self, target: &UploadTarget) -> Result<Box<dyn Upload>> {
        let upload = LocalUpload::begin(Arc::clone(&self.core), target)?;
        Ok(Box::new(upload))
    }

    fn latest_hashes(
        &self,
        server: &ServerName,
        disk_name: &str,
    ) -> Result<Option<Vec<Option<ContentHash>>>> {
        let Some(image) = self.core.latest_image(server)? else {
            return Ok(None);
        };
        let Some(disk) = image.disks.iter().find(|disk| disk.name == disk_name) else {
            return Ok(None);
        };
        let place = format!("image {}, disk {disk_name:?}", image.id);
        let root = match self.core.read_root(&disk.manifest, &place) {
            Ok(root) => root,
            Err(error) if error.is_damage() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut hashes = Vec::with_capacity(root.leaves.len() * LEAF_ENTRIES);
        for leaf in 0..root.leaves.len() {
            match self.core.read_leaf(&root, leaf, &place) {
                Ok(entries) => hashes.extend(entries),
                Err(error) if error.is_damage() => {
                    hashes.extend(vec![Some(UNKNOWN); root.leaf_entries(leaf)]);
                }
                Err(error) => return Err(error),
            }
        }
        // An image that was committed after its packs were condemned names chunks that no upload
        // may rely on before a prune has spared those packs: they have to be sent again.
        let condemned = self.core.pruned()?.condemned;
        for hash in hashes.iter_mut().flatten() {
            let id = self.core.key.chunk_id(hash);
            if self.core.find_outside(&id, &condemned)?.is_none() {
                *hash = UNKNOWN;
            }
        }
        Ok(Some(hashes))
    }
}

/// Stands for a chunk that the library has lost: no bytes have this hash, so its chunk is sent
/// again and the library heals.
const UNKNOWN: ContentHash = ContentHash::from_bytes([0xff; 32]);
