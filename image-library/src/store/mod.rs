// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a library is kept for good. A store has named objects that are created as a whole or not
//! at all; [`names`] says which there are (FORMAT.md, section 1). What only this machine needs
//! (the index, uploads that go on) is in a [`Workspace`], not here.

mod directory;
pub(crate) mod file;
pub(crate) mod lock;
pub(crate) mod names;
mod workspace;

use std::fmt::Debug;
use std::path::Path;
use std::time::SystemTime;

use crate::error::Result;
use crate::id::ImageId;
use crate::pack::PackId;

pub(crate) use directory::{Directory, require_empty};
pub(crate) use workspace::Workspace;

/// The durable objects of a library, by names with slashes.
///
/// A name never belongs to half an object, and what a method has created, replaced or adopted when
/// it returns survives a loss of power. Names come from [`names`] only, never from outside.
pub(crate) trait Store: Debug + Send + Sync {
    /// Where an object is, as people are told: a path or a URL.
    fn place(&self, name: &str) -> String;

    /// The whole content, at most `limit` bytes; `None` when there is no such object. `what` names
    /// the limit in the error.
    fn read(&self, name: &str, limit: u64, what: &'static str) -> Result<Option<Vec<u8>>>;

    /// An object to be read in parts; `None` when there is none.
    fn open(&self, name: &str) -> Result<Option<Box<dyn StoredObject>>>;

    /// Whether there is such an object.
    fn exists(&self, name: &str) -> Result<bool>;

    /// Creates an object. `false` when there is one of this name, which is left as it is.
    fn create(&self, name: &str, content: &[u8]) -> Result<bool>;

    /// Creates or replaces an object.
    fn replace(&self, name: &str, content: &[u8]) -> Result<()>;

    /// Makes an object of a durable file of the workspace; the file is gone afterwards. An object
    /// of this name has the same bytes, because the name is their hash.
    fn adopt(&self, name: &str, file: &Path) -> Result<()>;

    /// Removes an object; that there is none is no error.
    fn remove(&self, name: &str) -> Result<()>;

    /// The objects whose names start with `prefix`, which ends in a slash; sorted by name.
    fn list(&self, prefix: &str) -> Result<Vec<Stored>>;
}

/// An object that is open for reading. Its content never changes while it is open.
pub(crate) trait StoredObject: Debug + Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> u64;

    /// Fills the buffer from `offset` on; an error when the object ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
}

/// An object as a store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its whole name.
    pub(crate) name: String,
    /// Its length in bytes.
    pub(crate) length: u64,
    /// When it got its content, by the store's clock.
    pub(crate) modified: SystemTime,
}

/// A pack as the store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ListedPack {
    pub(crate) id: PackId,
    pub(crate) length: u64,
}

/// Every pack, in the order of names.
pub(crate) fn list_packs(store: &dyn Store) -> Result<Vec<ListedPack>> {
    let listed = store.list(names::PACKS)?;
    let pack = |stored: &Stored| {
        let id = names::parse_pack(&stored.name)?;
        let length = stored.length;
        Some(ListedPack { id, length })
    };
    Ok(listed.iter().filter_map(pack).collect())
}

/// The ids of all images, oldest first.
pub(crate) fn list_images(store: &dyn Store) -> Result<Vec<ImageId>> {
    let listed = store.list(names::IMAGES)?;
    let mut ids: Vec<ImageId> = listed
        .iter()
        .filter_map(|stored| names::parse_image(&stored.name))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// The names of an image's side files.
pub(crate) fn list_side_files(store: &dyn Store, id: ImageId) -> Result<Vec<String>> {
    let prefix = names::side_files(id);
    let listed = store.list(&prefix)?;
    Ok(listed
        .iter()
        .filter_map(|stored| stored.name.strip_prefix(&prefix).map(str::to_owned))
        .collect())
}

#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
pub(crate) mod memory;
