// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory that holds a library: where everything is, and how files get there for good.
//!
//! ```text
//! library.json          what the library is; written once
//! keys/library.key      the secret, readable by its owner only
//! packs/<2 hex>/<64 hex>.pack
//! images/<uuid>.image   one document for each image; creating it is the commit
//! side/<uuid>/<name>    side files of an image; replaced as a whole
//! uploads/<owner>.<uuid>/   uploads that are going on or were interrupted
//! index/                a cache; can be deleted at any time
//! locks/                files that are locked and never read
//! tmp/                  files that have no name yet
//! ```

pub(crate) mod file;
pub(crate) mod lock;

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::pack::PackId;

const PACK_SUFFIX: &str = "pack";
const IMAGE_SUFFIX: &str = "image";

/// The paths of a library.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
}

/// A pack as the directory lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ListedPack {
    pub(crate) id: PackId,
    pub(crate) length: u64,
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("library.json")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.root.join("keys/library.key")
    }

    pub(crate) fn pack(&self, id: &PackId) -> PathBuf {
        let name = id.to_string();
        let directory = self.root.join("packs").join(&name[..2]);
        directory.join(format!("{name}.{PACK_SUFFIX}"))
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn image(&self, id: ImageId) -> PathBuf {
        self.images().join(format!("{id}.{IMAGE_SUFFIX}"))
    }

    pub(crate) fn side(&self) -> PathBuf {
        self.root.join("side")
    }

    pub(crate) fn side_file(&self, id: ImageId, name: &str) -> PathBuf {
        self.side().join(id.to_string()).join(name)
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    pub(crate) fn temporary_directory(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn temporary(&self) -> PathBuf {
        self.temporary_directory().join(Uuid::new_v4().to_string())
    }

    /// Creates the directories of an empty library.
    pub(crate) fn create(&self) -> Result<()> {
        for name in [
            "keys", "packs", "images", "side", "uploads", "index", "locks", "tmp",
        ] {
            file::create_directory(&self.root.join(name))?;
        }
        file::restrict_to_owner(&self.root.join("keys"), 0o700)?;
        file::sync_directory(&self.root)
    }

    /// Creates a file as a whole, durably. `false` when there is one of this name already, which
    /// is left as it is.
    pub(crate) fn create_file(&self, path: &Path, content: &[u8]) -> Result<bool> {
        let temporary = self.temporary();
        file::write_durably(&temporary, content)?;
        let created = file::link_new(&temporary, path);
        file::remove(&temporary)?;
        if created? {
            file::sync_directory(file::parent(path))?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Creates or replaces a file as a whole, durably.
    pub(crate) fn replace_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        let temporary = self.temporary();
        file::write_durably(&temporary, content)?;
        file::rename(&temporary, path)?;
        file::sync_directory(file::parent(path))
    }

    /// Gives a durable temporary file its name as a pack, durably.
    pub(crate) fn adopt_pack(&self, temporary: &Path, id: &PackId) -> Result<()> {
        let path = self.pack(id);
        let directory = file::parent(&path);
        if !directory.is_dir() {
            file::create_directory(directory)?;
            file::sync_directory(file::parent(directory))?;
        }
        // A file of this name has these bytes: the name is their hash.
        file::link_new(temporary, &path)?;
        file::remove(temporary)?;
        file::sync_directory(directory)
    }

    /// Every pack, in the order of names.
    pub(crate) fn list_packs(&self) -> Result<Vec<ListedPack>> {
        let mut packs = Vec::new();
        for directory in file::list(&self.root.join("packs"))? {
            if !directory.path.is_dir() {
                continue;
            }
            for entry in file::list(&directory.path)? {
                let stem = entry.name.strip_suffix(".pack");
                let Some(id) = stem.and_then(PackId::from_hex) else {
                    continue;
                };
                // A pack in a wrong directory would not be found by its name.
                if self.pack(&id) != entry.path {
                    continue;
                }
                if let Some(length) = file::length(&entry.path)? {
                    packs.push(ListedPack { id, length });
                }
            }
        }
        packs.sort_unstable_by_key(|pack| pack.id);
        Ok(packs)
    }

    /// The ids of all images, oldest first.
    pub(crate) fn list_images(&self) -> Result<Vec<ImageId>> {
        let parse = |entry: file::Listed| {
            let stem = entry.name.strip_suffix(".image")?;
            // A name in another spelling (upper case, no dashes) is not ours.
            stem.parse::<ImageId>()
                .ok()
                .filter(|id| id.to_string() == stem)
        };
        let listed = file::list(&self.images())?;
        let mut ids: Vec<ImageId> = listed.into_iter().filter_map(parse).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The names of an image's side files.
    pub(crate) fn list_side_files(&self, id: ImageId) -> Result<Vec<String>> {
        let directory = self.side().join(id.to_string());
        if !directory.is_dir() {
            return Ok(Vec::new());
        }
        let listed = file::list(&directory)?;
        Ok(listed.into_iter().map(|entry| entry.name).collect())
    }
}

/// A library is created only where nothing is.
pub(crate) fn require_empty(root: &Path) -> Result<()> {
    if !root.exists() {
        return file::create_directory(root);
    }
    if !root.is_dir() || !file::list(root)?.is_empty() {
        return Err(Error::NotEmpty {
            path: root.to_owned(),
        });
    }
    Ok(())
}
