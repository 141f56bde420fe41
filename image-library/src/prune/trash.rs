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

/// What stands in the trash under the name of an image.
#[derive(Debug)]
pub(crate) struct TrashEntry {
    pub(crate) id: ImageId,
    pub(crate) deleted_at: Timestamp,
    /// The image, or what is wrong with its document.
    pub(crate) image: Result<Image>,
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
    /// [`Error::NoSuchImage`] when it is not there; [`Error::Refused`] while a prune raises
    /// the floor, or after one was killed over that, until the next one.
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
        let image = self.parse_image(id, bytes.clone())?;
        if !self.store.create(&names::image(id), &bytes)? {
            // It is in both places: a deletion goes on, or ended half-way. The copy in the trash
            // stays, so that the end of that deletion does not take the last one.
            return Ok(());
        }
        // Like a commit: whoever prunes meanwhile has either seen the image, or says so here.
        if !self.floor()?.admits(&image) {
            self.store.remove(&names::image(id))?;
            return Err(Error::Refused {
                what: "taking an image back",
                problem: "a prune goes on or was interrupted; try again when one has ended"
                    .to_owned(),
            });
        }
        self.store.remove(&name)
    }

    /// The images in the trash that can be read and count.
    pub(super) fn deleted_images(&self) -> Result<Vec<DeletedImage>> {
        let floor = self.floor_for_readers()?;
        let mut deleted = Vec::new();
        for entry in self.trash()? {
            match entry.image {
                Ok(image) if floor.counts(&image) => deleted.push(DeletedImage {
                    image,
                    deleted_at: entry.deleted_at,
                }),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(image = %entry.id, %error, "a deleted image cannot be read");
                }
            }
        }
        deleted.sort_by_key(|deleted| (deleted.deleted_at, deleted.image.id));
        Ok(deleted)
    }

    /// Everything in the trash, readable or not.
    pub(crate) fn trash(&self) -> Result<Vec<TrashEntry>> {
        let mut entries = Vec::new();
        for stored in self.store.list(names::TRASH)? {
            let Some(id) = names::parse_trash(&stored.name) else {
                continue;
            };
            let image = match self.read_deleted(id) {
                // Taken back or purged since it was listed.
                Err(Error::NoSuchImage { .. }) => continue,
                Err(error @ Error::File { .. }) => return Err(error),
                image => image,
            };
            entries.push(TrashEntry {
                id,
                deleted_at: Timestamp::try_from(stored.modified).unwrap_or(Timestamp::UNIX_EPOCH),
                image,
            });
        }
        Ok(entries)
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
