// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deleted images: they stay in the trash, whole, until a prune finds that their time is over.

use jiff::Timestamp;

use crate::core::Core;
use crate::document::Image;
use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::local::LocalLibrary;
use crate::store::names;

/// Longest document, as in [`crate::catalog`].
const DOCUMENT_LENGTH_MAX: u64 = 17 << 20;
const WHAT: &str = "the length of an image document in bytes";

/// An image in the trash.
#[derive(Debug, Clone, PartialEq)]
pub struct DeletedImage {
    /// The image.
    pub image: Image,
    /// Since when, by the store's clock.
    pub deleted_at: Timestamp,
}

impl LocalLibrary {
    /// Moves an image into the trash. Its chunks stay until a prune, so it can be taken back.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchImage`]; [`Error::Refused`] while the library protects it.
    pub fn delete_image(&self, id: ImageId) -> Result<()> {
        self.core().delete_image(id)
    }

    /// Takes an image back from the trash.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchImage`] when it is not there.
    pub fn undelete_image(&self, id: ImageId) -> Result<()> {
        self.core().undelete_image(id)
    }

    /// The images in the trash, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the store cannot be read.
    pub fn deleted_images(&self) -> Result<Vec<DeletedImage>> {
        self.core().deleted_images()
    }
}

impl Core {
    pub(super) fn delete_image(&self, id: ImageId) -> Result<()> {
        let image = self.image(id)?;
        self.check_protection(&image)?;
        let name = names::image(id);
        let bytes = self.store.read(&name, DOCUMENT_LENGTH_MAX, WHAT)?;
        let bytes = bytes.ok_or_else(|| absent(id))?;
        // In both places for a moment: an image that is there counts, whatever the trash has.
        self.store.replace(&names::trash(id), &bytes)?;
        self.store.remove(&name)
    }

    /// An image that is in the trash.
    pub(super) fn read_deleted(&self, id: ImageId) -> Result<Image> {
        self.parse_image(id, self.deleted_document(id)?)
    }

    fn deleted_document(&self, id: ImageId) -> Result<Vec<u8>> {
        let stored = self
            .store
            .read(&names::trash(id), DOCUMENT_LENGTH_MAX, WHAT)?;
        stored.ok_or_else(|| absent(id))
    }

    fn undelete_image(&self, id: ImageId) -> Result<()> {
        let name = names::trash(id);
        let bytes = self.deleted_document(id)?;
        self.parse_image(id, bytes.clone())?;
        if !self.store.create(&names::image(id), &bytes)? {
            // It is in both places: a deletion goes on, or ended half-way. The copy in the trash
            // stays, so that the end of that deletion does not take the last one.
            return Ok(());
        }
        self.store.remove(&name)
    }

    pub(super) fn deleted_images(&self) -> Result<Vec<DeletedImage>> {
        let floor = self.floor()?;
        let mut deleted = Vec::new();
        for stored in self.store.list(names::TRASH)? {
            let Some(id) = names::parse_trash(&stored.name) else {
                continue;
            };
            let Some(bytes) = self.store.read(&stored.name, DOCUMENT_LENGTH_MAX, WHAT)? else {
                continue;
            };
            match self.parse_image(id, bytes) {
                Ok(image) if floor.counts(&image) => deleted.push(DeletedImage {
                    image,
                    deleted_at: Timestamp::try_from(stored.modified)
                        .unwrap_or(Timestamp::UNIX_EPOCH),
                }),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(image = %id, %error, "a deleted image cannot be read");
                }
            }
        }
        deleted.sort_by_key(|deleted| (deleted.deleted_at, deleted.image.id));
        Ok(deleted)
    }

    fn check_protection(&self, image: &Image) -> Result<()> {
        let until = self.config.protected_until(image.received_at);
        if (self.clock)() >= until {
            return Ok(());
        }
        Err(Error::Refused {
            what: "the deletion",
            problem: format!("this library keeps image {} until {until}", image.id),
        })
    }
}

fn absent(id: ImageId) -> Error {
    Error::NoSuchImage {
        problem: format!("no image {id}"),
    }
}
