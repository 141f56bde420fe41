// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library that this program opens itself, with its key: in a directory or a bucket.

use std::path::Path;
use std::sync::Arc;

use disk::ReadAt;
use jiff::Timestamp;

use crate::access::{DiskHashes, ImageReader, ImageWriter, Upload, UploadTarget};
use crate::config::{Config, InitOptions};
use crate::core::Core;
use crate::crypto::{LibraryKey, random_bytes};
use crate::document::{Image, ImageDisk};
use crate::error::{Error, Result};
use crate::id::{DiskIndex, ImageId, ServerName};
use crate::image::ImageDevice;
use crate::key_file::{self, KeyAccess, Passphrase, PassphraseSource};
use crate::location::{self, LibraryAccess, Location};
use crate::store::{Directory, Store, Workspace, file, names, probe};
use crate::stored_hashes::StoredHashes;
use crate::upload::LocalUpload;
use crate::wanted::{Avoided, WantedRange};

/// A library in a directory or a bucket that this program opens itself. Clones share everything;
/// several processes may have it open at once, in a bucket on several machines.
#[derive(Debug, Clone)]
pub struct LocalLibrary {
    core: Arc<Core>,
}

impl LocalLibrary {
    /// Creates a library where nothing is yet, and opens it. Its key has no passphrase.
    pub fn init(location: impl Into<Location>, options: &InitOptions) -> Result<Self> {
        Self::init_with_passphrase(location, LibraryAccess::default(), options, None)
    }

    /// The same, with the key sealed under a passphrase. A key file that `access` names outside
    /// the library is created there; the passphrase of `access` is not used.
    ///
    /// # Errors
    ///
    /// [`Error::NotEmpty`] when something is there.
    pub fn init_with_passphrase(
        location: impl Into<Location>,
        access: impl Into<LibraryAccess>,
        options: &InitOptions,
        passphrase: Option<&Passphrase>,
    ) -> Result<Self> {
        let (location, mut access) = (location.into(), access.into());
        let store = location::new_store(&location, &access)?;
        write_new(&*store, options, access.key.file.as_deref(), passphrase)?;
        access.key.passphrase = passphrase
            .cloned()
            .map_or(PassphraseSource::None, PassphraseSource::Given);
        Self::open_with_key(location, access)
    }

    /// Opens an existing library with the key that is in it, which has no passphrase.
    pub fn open(location: impl Into<Location>) -> Result<Self> {
        Self::open_with_key(location, LibraryAccess::default())
    }

    /// Opens an existing library.
    ///
    /// # Errors
    ///
    /// [`Error::KeyMissing`], [`Error::WrongKey`], [`Error::PassphraseNeeded`] and
    /// [`Error::WrongPassphrase`] say what is wrong with the key.
    pub fn open_with_key(
        location: impl Into<Location>,
        access: impl Into<LibraryAccess>,
    ) -> Result<Self> {
        let (location, access) = (location.into(), access.into());
        let store = location::store(&location, &access)?;
        let config = Config::read(&*store)?;
        let workspace = location::workspace(&location, &access, &config)?;
        Self::over(store, workspace, &access.key, Timestamp::now)
    }

    /// Opens a library that takes its time from `clock`.
    pub fn open_with_clock(directory: &Path, clock: fn() -> Timestamp) -> Result<Self> {
        let store = Arc::new(Directory::new(directory));
        Self::over(
            store,
            Workspace::new(directory),
            &KeyAccess::default(),
            clock,
        )
    }

    /// A library over any store.
    pub(crate) fn over(
        store: Arc<dyn Store>,
        workspace: Workspace,
        key: &KeyAccess,
        clock: fn() -> Timestamp,
    ) -> Result<Self> {
        let core = Core::open(store, workspace, key, clock)?;
        Ok(Self::from_core(Arc::new(core)))
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

/// Writes what makes an empty store a library.
pub(crate) fn write_new(
    store: &dyn Store,
    options: &InitOptions,
    key_path: Option<&Path>,
    passphrase: Option<&Passphrase>,
) -> Result<()> {
    let key = LibraryKey::from_secret(random_bytes()?);
    let mut config = Config::new(options, &key, Timestamp::now())?;
    if store.is_shared() {
        config.conditional_writes = Some(probe(store)?);
    }
    let key_file = key_file::to_bytes(key.secret(), config.id, passphrase)?;
    let is_new = match key_path {
        Some(path) if path.exists() => false,
        Some(path) => file::write_durably(path, &key_file).map(|()| true)?,
        None => store.create(names::KEY, &key_file)?,
    };
    // The configuration last: a place without it is no library.
    if is_new && config.create(store)? {
        return Ok(());
    }
    let of_key = key_path.filter(|_| !is_new).map(Path::to_owned);
    Err(Error::NotEmpty {
        path: of_key.unwrap_or_else(|| store.place("").into()),
    })
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

    fn disk_hashes(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn DiskHashes>> {
        let (image, disk) = self.disk(id, disk)?;
        let hashes = StoredHashes::as_they_are(&self.core, &image, &disk)?;
        Ok(Arc::new(hashes))
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
    ) -> Result<Option<Arc<dyn DiskHashes>>> {
        let Some(image) = self.core.latest_image(server)? else {
            return Ok(None);
        };
        let avoided = Avoided {
            condemned: self.core.pruned()?.condemned,
            wanted: self.core.wanted()?,
        };
        StoredHashes::for_upload(&self.core, &image, disk_name, Arc::new(avoided))
    }

    fn wanted(&self, server: &ServerName) -> Result<Vec<WantedRange>> {
        self.core.wanted_ranges(server)
    }
}
