// SPDX-License-Identifier: MIT OR Apache-2.0
//! The filesystems of a guest while it is changed: some written, some only read.

use std::collections::BTreeMap;

use disk::filesystem::{Filesystem, WritableFilesystem};

use crate::error::{Error, Result};
use crate::inspect::{FilePlace, VolumeId};

/// The filesystems of a guest during a conversion.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    /// Those with files to be written.
    pub(crate) writable: BTreeMap<VolumeId, Box<dyn WritableFilesystem>>,
    /// Those that are only read.
    pub(crate) readable: BTreeMap<VolumeId, Box<dyn Filesystem>>,
    /// Bytes free on those to be written, where that is known.
    pub(crate) free_bytes: BTreeMap<VolumeId, u64>,
}

impl Volumes {
    /// A file's content.
    pub(crate) fn read(&self, place: &FilePlace, limit_bytes: u64) -> Result<Vec<u8>> {
        self.reader(place)?
            .read(&place.path, limit_bytes)
            .map_err(Error::guest(&place.guest_path))
    }

    pub(super) fn reader(&self, place: &FilePlace) -> Result<&dyn Filesystem> {
        if let Some(filesystem) = self.writable.get(&place.volume) {
            return Ok(&**filesystem);
        }
        match self.readable.get(&place.volume) {
            Some(filesystem) => Ok(&**filesystem),
            None => Err(Error::Changed {
                place: place.volume.to_string(),
            }),
        }
    }

    pub(super) fn writer(&mut self, place: &FilePlace) -> Result<&mut Box<dyn WritableFilesystem>> {
        self.writable
            .get_mut(&place.volume)
            .ok_or_else(|| Error::Changed {
                place: place.volume.to_string(),
            })
    }

    /// Closes those that are only read, and `written`: what they keep in memory is in the way of a
    /// machine that writes them, and old afterwards.
    pub(super) fn close(&mut self, written: impl Iterator<Item = VolumeId>) {
        self.readable.clear();
        for id in written {
            self.writable.remove(&id);
        }
    }

    pub(super) fn exists(&self, place: &FilePlace, path: &str) -> Result<bool> {
        match self.reader(place)?.metadata(path) {
            Ok(_) => Ok(true),
            Err(disk::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(Error::Guest {
                place: path.to_owned(),
                source,
            }),
        }
    }
}
