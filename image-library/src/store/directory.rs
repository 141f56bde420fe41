// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store that is a directory: an object is a file. A file gets its name only when its bytes are
//! durable, and the name is durable before the method returns.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::{Store, Stored, StoredObject, file};
use crate::error::{Error, Result};

/// Names have at most two slashes (`packs/ab/….pack`).
const DEPTH_MAX: u32 = 2;

/// A library's directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    root: PathBuf,
    /// Directories whose own names this program knows to be durable.
    durable: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Directory {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            durable: Arc::default(),
        }
    }

    /// Creates the directories of an empty library.
    pub(crate) fn create_tree(&self) -> Result<()> {
        for name in ["keys", "packs", "images", "side", "tmp"] {
            file::create_directory(&self.root.join(name))?;
        }
        file::restrict_to_owner(&self.root.join("keys"), 0o700)?;
        file::sync_directory(&self.root)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn temporary(&self) -> PathBuf {
        self.root.join("tmp").join(Uuid::new_v4().to_string())
    }

    /// The path of an object to be, in a directory that exists durably.
    fn path_to_create(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let directory = file::parent(&path);
        // That it is there does not say that its name is durable: who created it may have been
        // killed before.
        if !(self.durable().contains(directory) && directory.is_dir()) {
            file::create_directory(directory)?;
            let mut above = directory;
            while above != self.root && above.starts_with(&self.root) {
                above = file::parent(above);
                file::sync_directory(above)?;
            }
            self.durable().insert(directory.to_owned());
        }
        Ok(path)
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, temporary: &Path, name: &str) -> Result<bool> {
        let created = self
            .path_to_create(name)
            .and_then(|path| Ok((file::link_new(temporary, &path)?, path)));
        file::remove(temporary)?;
        let (created, path) = created?;
        if created {
            file::sync_directory(file::parent(&path))?;
        }
        Ok(created)
    }

    fn list_below(&self, prefix: &str, depth: u32, found: &mut Vec<Stored>) -> Result<()> {
        for listed in file::list(&self.path(prefix))? {
            let metadata = match fs::symlink_metadata(&listed.path) {
                Ok(metadata) => metadata,
                // Gone since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::file("read", &listed.path)(error)),
            };
            let name = format!("{prefix}{}", listed.name);
            if metadata.is_dir() && depth < DEPTH_MAX {
                self.list_below(&format!("{name}/"), depth + 1, found)?;
            } else if metadata.is_file() {
                let modified = metadata.modified();
                found.push(Stored {
                    name,
                    length: metadata.len(),
                    modified: modified.map_err(Error::file("read", &listed.path))?,
                });
            }
        }
        Ok(())
    }
}

impl Store for Directory {
    fn place(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn read(&self, name: &str, limit: u64, what: &'static str) -> Result<Option<Vec<u8>>> {
        file::read(&self.path(name), limit, what)
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn StoredObject>>> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("open", &path)(error)),
        };
        let length = file.metadata().map_err(Error::file("read", &path))?.len();
        Ok(Some(Box::new(StoredFile { path, file, length })))
    }

    fn exists(&self, name: &str) -> Result<bool> {
        let path = self.path(name);
        path.try_exists().map_err(Error::file("read", &path))
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        let temporary = self.temporary();
        file::write_durably(&temporary, content)?;
        self.link(&temporary, name)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path_to_create(name)?;
        let temporary = self.temporary();
        file::write_durably(&temporary, content)?;
        file::rename(&temporary, &path)?;
        file::sync_directory(file::parent(&path))
    }

    fn adopt(&self, name: &str, file: &Path) -> Result<()> {
        self.link(file, name)?;
        // Whoever was there first may have been killed before its name was durable.
        file::sync_directory(file::parent(&self.path(name)))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        if !path.try_exists().map_err(Error::file("read", &path))? {
            return Ok(());
        }
        file::remove(&path)?;
        file::sync_directory(file::parent(&path))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>> {
        let mut found = Vec::new();
        if self.path(prefix).is_dir() {
            self.list_below(prefix, 0, &mut found)?;
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

#[derive(Debug)]
struct StoredFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl StoredObject for StoredFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(Error::file("read", &self.path))
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
