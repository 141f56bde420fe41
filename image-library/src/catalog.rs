// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sealed documents: the images of a library and their side files.
//!
//! ```text
//! 0    64  header   magic "RLVDOCM1", version u16, cipher u8, kind u8 (1 image, 2 side file),
//!                   4 zero, salt [32], library id [16]
//! 64    n  sealed   an image: JSON; a side file: its bytes; then the tag [16]
//! -32  32  BLAKE3 of everything before, so damage is seen without a key
//! ```
//!
//! The name of the document is sealed with it (as associated data), so one document cannot stand
//! in another's place.

use crate::core::Core;
use crate::crypto::{Cipher, TAG_LENGTH};
use crate::document::Image;
use crate::error::{Error, Result};
use crate::id::{ImageId, ServerName};
use crate::store::{Conditional, Version, for_each_object, list_images, names};

/// Longest image document, in bytes.
const IMAGE_LENGTH_MAX: u64 = 16 << 20;
/// Longest side file, in bytes.
pub(crate) const SIDE_FILE_LENGTH_MAX: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"RLVDOCM1";
const VERSION: u16 = 1;
const HEADER_LENGTH: usize = 64;
const CHECKSUM_LENGTH: usize = 32;
const OVERHEAD: usize = HEADER_LENGTH + TAG_LENGTH + CHECKSUM_LENGTH;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image = 1,
    SideFile = 2,
    /// What the library notes about itself.
    Record = 3,
}

impl Core {
    /// Commits an image: creates its document. `false` when there is one of this id.
    pub(crate) fn create_image(&self, image: &Image) -> Result<bool> {
        let json = serde_json::to_vec(image).map_err(|source| Error::Encode {
            what: "image document",
            source,
        })?;
        if json.len() as u64 > IMAGE_LENGTH_MAX {
            return Err(Error::Limit {
                what: "the length of an image document in bytes",
                limit: IMAGE_LENGTH_MAX,
            });
        }
        let sealed = self.seal_document(Kind::Image, &image_name(image.id), &json)?;
        self.store.create(&names::image(image.id), &sealed)
    }

    /// One image.
    pub(crate) fn image(&self, id: ImageId) -> Result<Image> {
        let image = self.read_image(id)?;
        if self.floor_for_readers()?.counts(&image) {
            return Ok(image);
        }
        Err(no_image(id))
    }

    /// The document of an image, whether or not the image counts.
    pub(crate) fn read_image(&self, id: ImageId) -> Result<Image> {
        let limit = IMAGE_LENGTH_MAX + OVERHEAD as u64;
        let what = "the length of an image document in bytes";
        let stored = self.store.read(&names::image(id), limit, what)?;
        self.parse_image(id, stored.ok_or_else(|| no_image(id))?)
    }

    /// An image from its document, wherever that stands.
    pub(crate) fn parse_image(&self, id: ImageId, bytes: Vec<u8>) -> Result<Image> {
        let name = image_name(id);
        let json = self.open_document(Kind::Image, &name, bytes)?;
        let corrupt = |problem| Error::corrupt("image document", &*name, 64, problem);
        let image: Image =
            serde_json::from_slice(&json).map_err(|error| corrupt(error.to_string()))?;
        if image.id != id {
            return Err(corrupt(format!("expected image {id}, found {}", image.id)));
        }
        Ok(image)
    }

    /// Every image that can be read, oldest first. A damaged document must not hide the others:
    /// it is logged here and a finding of `verify`.
    pub(crate) fn images(&self) -> Result<Vec<Image>> {
        let floor = self.floor_for_readers()?;
        let ids = list_images(&*self.store)?;
        let read = for_each_object(&*self.store, &ids, |id| self.image_if_readable(*id))?;
        let read = read.into_iter().flatten();
        let mut images: Vec<Image> = read.filter(|image| floor.counts(image)).collect();
        images.sort_by_key(|image| (image.received_at, image.id));
        Ok(images)
    }

    /// The newest image of a server. Ids sort by the time of the commit.
    pub(crate) fn latest_image(&self, server: &ServerName) -> Result<Option<Image>> {
        let floor = self.floor()?;
        for id in list_images(&*self.store)?.into_iter().rev() {
            let image = self.image_if_readable(id)?;
            let fits = |image: &Image| image.server == *server && floor.counts(image);
            if let Some(image) = image.filter(fits) {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    fn image_if_readable(&self, id: ImageId) -> Result<Option<Image>> {
        match self.read_image(id) {
            Ok(image) => Ok(Some(image)),
            // Deleted since it was listed.
            Err(Error::NoSuchImage { .. }) => Ok(None),
            Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                tracing::warn!(image = %id, %error, "an image document cannot be read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A side file; `None` when there is none.
    pub(crate) fn side_file(&self, id: ImageId, name: &str) -> Result<Option<Vec<u8>>> {
        check_side_name(name)?;
        let limit = SIDE_FILE_LENGTH_MAX + OVERHEAD as u64;
        let what = "the length of a side file in bytes";
        let Some(bytes) = self.store.read(&names::side_file(id, name), limit, what)? else {
            return Ok(None);
        };
        self.open_document(Kind::SideFile, &side_name(id, name), bytes)
            .map(Some)
    }

    /// Creates or replaces a side file of an image that exists.
    pub(crate) fn put_side_file(&self, id: ImageId, name: &str, content: &[u8]) -> Result<()> {
        check_side_name(name)?;
        if content.len() as u64 > SIDE_FILE_LENGTH_MAX {
            return Err(Error::Limit {
                what: "the length of a side file in bytes",
                limit: SIDE_FILE_LENGTH_MAX,
            });
        }
        if !self.store.exists(&names::image(id))? {
            return Err(Error::NoSuchImage {
                problem: format!("no image {id}"),
            });
        }
        let sealed = self.seal_document(Kind::SideFile, &side_name(id, name), content)?;
        self.store.replace(&names::side_file(id, name), &sealed)
    }

    /// A record that the library keeps about itself; `None` when there is none.
    pub(crate) fn record(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let what = "the length of a record in bytes";
        let stored = self.store.read(name, limit + OVERHEAD as u64, what)?;
        let open = |bytes| self.open_document(Kind::Record, name, bytes);
        stored.map(open).transpose()
    }

    /// Creates a record. `false` when there is one of this name.
    pub(crate) fn create_record(&self, name: &str, content: &[u8]) -> Result<bool> {
        let sealed = self.seal_document(Kind::Record, name, content)?;
        self.store.create(name, &sealed)
    }

    /// Creates or replaces a record.
    pub(crate) fn replace_record(&self, name: &str, content: &[u8]) -> Result<()> {
        let sealed = self.seal_document(Kind::Record, name, content)?;
        self.store.replace(name, &sealed)
    }

    /// A record and its version, for stores that have them.
    pub(crate) fn record_version(
        &self,
        store: &dyn Conditional,
        name: &str,
        limit: u64,
    ) -> Result<Option<(Vec<u8>, Version)>> {
        let what = "the length of a record in bytes";
        let stored = store.read_version(name, limit + OVERHEAD as u64, what)?;
        let open = |(bytes, version)| -> Result<_> {
            Ok((self.open_document(Kind::Record, name, bytes)?, version))
        };
        stored.map(open).transpose()
    }

    /// Replaces a record that still has this version; `None` when it is another one by now.
    pub(crate) fn swap_record(
        &self,
        store: &dyn Conditional,
        name: &str,
        content: &[u8],
        expected: Option<&Version>,
    ) -> Result<Option<Version>> {
        let sealed = self.seal_document(Kind::Record, name, content)?;
        store.swap(name, &sealed, expected)
    }

    fn seal_document(&self, kind: Kind, name: &str, content: &[u8]) -> Result<Vec<u8>> {
        let cipher = self.config.cipher;
        let mut header = [0; HEADER_LENGTH];
        header[..8].copy_from_slice(MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[10] = cipher.to_byte();
        header[11] = kind as u8;
        header[16..48].copy_from_slice(&self.surroundings.salt()?);
        header[48..].copy_from_slice(self.config.id.as_bytes());
        let mut bytes = Vec::with_capacity(content.len() + OVERHEAD);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(content);
        // The key is this document's alone (the salt is in the header), so is the nonce.
        let seal = self.key.document_seal(cipher, &header)?;
        seal.seal([0; 12], name.as_bytes(), &mut bytes, HEADER_LENGTH)?;
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        Ok(bytes)
    }

    fn open_document(&self, kind: Kind, name: &str, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        let structure = match kind {
            Kind::Image => "image document",
            Kind::SideFile => "side file",
            Kind::Record => "record",
        };
        let corrupt = |offset, problem: &str| Error::corrupt(structure, name, offset, problem);
        let Some(end) = bytes.len().checked_sub(CHECKSUM_LENGTH) else {
            return Err(corrupt(0, "it is cut off"));
        };
        let (content, checksum) = bytes.split_at_mut(end);
        if content.len() < HEADER_LENGTH + TAG_LENGTH {
            return Err(corrupt(0, "it is cut off"));
        }
        if blake3::hash(content).as_bytes() != checksum {
            return Err(corrupt(0, "its checksum is wrong: the bytes were changed"));
        }
        let mut header = [0; HEADER_LENGTH];
        header.copy_from_slice(&content[..HEADER_LENGTH]);
        let cipher = check_header(&header, structure, name)?;
        if header[48..] != *self.config.id.as_bytes() || header[11] != kind as u8 {
            return Err(corrupt(11, "it belongs to another library or place"));
        }
        let seal = self.key.document_seal(cipher, &header)?;
        let plain = seal
            .open([0; 12], name.as_bytes(), &mut content[HEADER_LENGTH..])
            .map_err(|_| corrupt(64, "its tag is wrong: the bytes were changed"))?;
        Ok(plain.to_vec())
    }
}

fn check_header(
    header: &[u8; HEADER_LENGTH],
    structure: &'static str,
    name: &str,
) -> Result<Cipher> {
    if &header[..8] != MAGIC {
        return Err(Error::corrupt(
            structure,
            name,
            0,
            "expected the magic RLVDOCM1",
        ));
    }
    let unsupported = |feature| Error::Unsupported {
        structure,
        place: name.to_owned(),
        feature,
    };
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != VERSION {
        return Err(unsupported(format!("version {version}")));
    }
    if header[12..16] != [0; 4] {
        return Err(unsupported("a feature in bytes 12 to 15".to_owned()));
    }
    Cipher::from_byte(header[10]).ok_or_else(|| unsupported(format!("cipher {}", header[10])))
}

fn no_image(id: ImageId) -> Error {
    Error::NoSuchImage {
        problem: format!("no image {id}"),
    }
}

fn image_name(id: ImageId) -> String {
    format!("image/{id}")
}

fn side_name(id: ImageId, name: &str) -> String {
    format!("side/{id}/{name}")
}

/// 1 to 100 of `a-z 0-9 . -`, and neither `.` nor `..`: it becomes a file name.
fn check_side_name(name: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    if (1..=100).contains(&name.len()) && !name.starts_with('.') && name.chars().all(legal) {
        return Ok(());
    }
    Err(Error::InvalidName {
        kind: "side file name",
        name: name.to_owned(),
    })
}
