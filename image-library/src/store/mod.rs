// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a library is kept for good. A store has named objects that are created as a whole or not
//! at all; [`names`] says which there are (FORMAT.md, section 1). What only this machine needs
//! (the index, uploads that go on) is in a [`Workspace`], not here.

mod bucket;
mod conditional;
mod directory;
pub(crate) mod file;
pub(crate) mod lock;
pub(crate) mod names;
mod read_ahead;
mod workspace;

use std::fmt::Debug;
use std::path::Path;
use std::time::SystemTime;

use crate::error::Result;
use crate::id::ImageId;
use crate::pack::PackId;

pub(crate) use bucket::Bucket;
pub use bucket::{BucketAccess, BucketAddress};
pub(crate) use conditional::{Conditional, Version, probe};
pub(crate) use directory::{Directory, require_empty};
pub(crate) use read_ahead::ReadAhead;
pub(crate) use workspace::Workspace;

/// How many requests to a distant store are made at once for many small objects.
const REQUESTS_AT_ONCE: usize = 16;

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

    /// A part of an object with as few requests as possible; `None` when there is none. It is
    /// shorter than asked for where the object ends.
    fn read_part(&self, name: &str, offset: u64, length: u64) -> Result<Option<Part>> {
        let Some(object) = self.open(name)? else {
            return Ok(None);
        };
        let total = object.length();
        // Callers ask for a few MiB at most.
        let mut bytes = vec![0; length.min(total.saturating_sub(offset)) as usize];
        object.read_exact_at(&mut bytes, offset)?;
        Ok(Some(Part { bytes, total }))
    }

    /// Says that a part of an object is wanted soon. Does nothing where reading is quick anyway.
    fn will_read(&self, _name: &str, _offset: u64, _length: u64) {}

    /// How many bytes ahead [`Self::will_read`] is worth being told; 0 where it does nothing.
    fn read_ahead_bytes(&self) -> u64 {
        0
    }

    /// Compare-and-swap, where the store has it. `None` for a directory, which has locks.
    fn conditional(&self) -> Option<&dyn Conditional> {
        None
    }

    /// Whether programs on several machines may have this store open, so that locks of this
    /// machine say nothing about the others.
    fn is_shared(&self) -> bool {
        false
    }

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

/// A part of an object.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) bytes: Vec<u8>,
    /// The length of the whole object in bytes.
    pub(crate) total: u64,
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

/// Does something for each of many objects, several at once where the store is distant; gives the
/// results in the same order.
pub(crate) fn for_each_object<T: Sync, R: Send>(
    store: &dyn Store,
    objects: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if !store.is_shared() || objects.len() < 2 {
        return objects.iter().map(work).collect();
    }
    let length = objects.len().div_ceil(REQUESTS_AT_ONCE);
    let work = &work;
    std::thread::scope(|scope| {
        let workers: Vec<_> = objects
            .chunks(length)
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Result<Vec<R>>>()))
            .collect();
        let mut results = Vec::with_capacity(objects.len());
        for worker in workers {
            match worker.join() {
                Ok(part) => results.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(results)
    })
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
