// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads packs: the footer, single records, runs of neighbouring records. Bytes are hostile.

use super::{
    BLOB_LENGTH_MAX, BlobKind, Extent, FOOTER_ENTRY_LENGTH, FOOTER_PREFIX_LENGTH, FooterEntry,
    HEADER_LENGTH, Header, PACK_LENGTH_MAX, PROLOGUE_LENGTH, PackId, RECORD_LENGTH_FIELD,
    RECORD_OVERHEAD, RECORDS_MAX, TRAILER_LENGTH, TRAILER_MAGIC, nonce, u32_at,
};
use crate::chunk::{ChunkId, decompress};
use crate::crypto::{LibraryKey, OwnerTag, Seal, TAG_LENGTH};
use crate::error::{Error, Result};
use crate::id::ContentHash;
use crate::store::StoredObject;

/// A pack open for reading.
#[derive(Debug)]
pub(crate) struct OpenPack {
    id: PackId,
    place: String,
    object: Box<dyn StoredObject>,
    length: u64,
    seal: Seal,
}

/// The footer of a pack.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) owner: OwnerTag,
    pub(crate) entries: Vec<FooterEntry>,
}

impl OpenPack {
    /// Opens a pack of the library with this key and id.
    pub(crate) fn open(
        object: Box<dyn StoredObject>,
        id: PackId,
        key: &LibraryKey,
        library: [u8; 16],
    ) -> Result<Self> {
        let place = format!("pack {id}");
        let length = object.length();
        let smallest = (HEADER_LENGTH + FOOTER_PREFIX_LENGTH + TAG_LENGTH + TRAILER_LENGTH) as u64;
        if length < smallest || length > PACK_LENGTH_MAX {
            let problem = format!(
                "expected {smallest} to {PACK_LENGTH_MAX} bytes, found {length}: not whole"
            );
            return Err(Error::corrupt("pack", place, 0, problem));
        }
        let mut header = [0; HEADER_LENGTH];
        object.read_exact_at(&mut header, 0)?;
        let parsed = Header::from_bytes(&header, &place)?;
        if parsed.library != library {
            let problem = "expected this library's id, found another one's";
            return Err(Error::corrupt("pack header", place, 48, problem));
        }
        Ok(Self {
            id,
            place,
            object,
            length,
            seal: key.pack_seal(parsed.cipher, &header)?,
        })
    }

    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Reads bytes as they are stored.
    pub(crate) fn read_raw(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.length {
            let problem = format!("expected {end} bytes, found {}: cut off", self.length);
            return Err(Error::corrupt("pack", &*self.place, offset, problem));
        }
        self.object.read_exact_at(buffer, offset)
    }

    /// Reads the footer.
    pub(crate) fn footer(&self) -> Result<Footer> {
        let mut trailer = [0; TRAILER_LENGTH];
        let trailer_offset = self.length - TRAILER_LENGTH as u64;
        self.read_raw(trailer_offset, &mut trailer)?;
        if &trailer[8..] != TRAILER_MAGIC {
            let found = trailer[8..].escape_ascii();
            let problem = format!("expected the magic RLVPEND1, found {found}: cut off");
            return Err(self.corrupt("pack trailer", trailer_offset, problem));
        }
        let offset = u64::from(u32_at(&trailer, 0));
        let length = u64::from(u32_at(&trailer, 4));
        let longest = (FOOTER_PREFIX_LENGTH + TAG_LENGTH) as u64
            + u64::from(RECORDS_MAX) * FOOTER_ENTRY_LENGTH as u64;
        if offset < HEADER_LENGTH as u64 || offset + length != trailer_offset || length > longest {
            let problem = format!("found a footer of {length} bytes at {offset:#x}");
            return Err(self.corrupt("pack trailer", trailer_offset, problem));
        }
        let mut sealed = vec![0; length as usize];
        self.read_raw(offset, &mut sealed)?;
        let plain = self
            .seal
            .open(nonce(offset), b"footer", &mut sealed)
            .map_err(|_| {
                self.corrupt(
                    "pack footer",
                    offset,
                    "its tag is wrong: the bytes were changed",
                )
            })?;
        footer_from_bytes(plain, offset)
            .map_err(|problem| self.corrupt("pack footer", offset, problem))
    }

    /// Opens the record that `bytes` hold and writes its blob to `plain`, which has the blob's
    /// length. The blob is checked against `id`.
    pub(crate) fn open_record(
        &self,
        key: &LibraryKey,
        id: &ChunkId,
        extent: &Extent,
        bytes: &mut [u8],
        plain: &mut [u8],
    ) -> Result<BlobKind> {
        let record = self
            .unseal(u64::from(extent.offset), bytes)
            .and_then(|record| record.decode(plain).map(|()| record.kind));
        let kind = record
            .map_err(|problem| self.damaged_record(id, u64::from(extent.offset), &problem))?;
        if key.chunk_id(&ContentHash::of(plain)) != *id {
            let problem = "its content has another hash";
            return Err(self.damaged_record(id, u64::from(extent.offset), problem));
        }
        Ok(kind)
    }

    /// The records from the front up to the first that is damaged or cut off: what is left of a
    /// pack whose footer cannot be read.
    pub(crate) fn scan(&self, key: &LibraryKey) -> Result<Vec<FooterEntry>> {
        let mut bytes = vec![0; self.length as usize];
        self.read_raw(0, &mut bytes)?;
        let mut entries = Vec::new();
        let mut offset = HEADER_LENGTH;
        while let Some((entry, end)) = self.scan_record(key, &mut bytes, offset) {
            entries.push(entry);
            offset = end;
        }
        Ok(entries)
    }

    /// The record at `offset` and the byte after it; `None` when there is no whole one.
    fn scan_record(
        &self,
        key: &LibraryKey,
        bytes: &mut [u8],
        offset: usize,
    ) -> Option<(FooterEntry, usize)> {
        let field = bytes.get(offset..offset.checked_add(RECORD_LENGTH_FIELD)?)?;
        let sealed_length = self.seal.mask_length(offset as u64, u32_at(field, 0));
        let end = (offset + RECORD_LENGTH_FIELD).checked_add(sealed_length as usize)?;
        let record = bytes.get_mut(offset..end)?;
        // What is wrong with it does not matter here: it is where the pack ends.
        let record = self.unseal(offset as u64, record).ok()?;
        if record.plain_length > BLOB_LENGTH_MAX {
            return None;
        }
        let mut plain = vec![0; record.plain_length as usize];
        record.decode(&mut plain).ok()?;
        let entry = FooterEntry {
            id: key.chunk_id(&ContentHash::of(&plain)),
            extent: Extent {
                offset: u32::try_from(offset).ok()?,
                length: u32::try_from(end - offset).ok()?,
                plain_length: record.plain_length,
            },
            kind: record.kind,
        };
        Some((entry, end))
    }

    fn unseal<'a>(&self, offset: u64, bytes: &'a mut [u8]) -> Result<Record<'a>, String> {
        if bytes.len() < RECORD_OVERHEAD {
            return Err(format!("{} bytes are too few for a record", bytes.len()));
        }
        let (length, sealed) = bytes.split_at_mut(RECORD_LENGTH_FIELD);
        let found = self.seal.mask_length(offset, u32_at(length, 0));
        if found as usize != sealed.len() {
            return Err(format!(
                "expected {} sealed bytes, found {found}",
                sealed.len()
            ));
        }
        let plain = self
            .seal
            .open(nonce(offset), b"", sealed)
            .map_err(|_| "its tag is wrong: the bytes were changed".to_owned())?;
        Record::from_bytes(plain)
    }

    fn corrupt(&self, structure: &'static str, offset: u64, problem: impl Into<String>) -> Error {
        Error::corrupt(structure, &*self.place, offset, problem)
    }

    fn damaged_record(&self, id: &ChunkId, offset: u64, problem: &str) -> Error {
        self.corrupt("chunk", offset, format!("chunk {id}: {problem}"))
    }

    pub(crate) const fn id(&self) -> PackId {
        self.id
    }
}

/// What is inside the seal of a record.
struct Record<'a> {
    kind: BlobKind,
    is_compressed: bool,
    plain_length: u32,
    body: &'a [u8],
}

impl<'a> Record<'a> {
    fn from_bytes(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() < PROLOGUE_LENGTH {
            return Err(format!("{} bytes are too few for a record", bytes.len()));
        }
        let (prologue, body) = bytes.split_at(PROLOGUE_LENGTH);
        let kind = BlobKind::from_byte(prologue[0])
            .ok_or_else(|| format!("expected a kind of 1 to 3, found {}", prologue[0]))?;
        let is_compressed = match prologue[1] {
            0 => false,
            1 => true,
            other => return Err(format!("expected an encoding of 0 or 1, found {other}")),
        };
        Ok(Self {
            kind,
            is_compressed,
            plain_length: u32_at(prologue, 4),
            body,
        })
    }

    fn decode(&self, plain: &mut [u8]) -> Result<(), String> {
        if self.plain_length as usize != plain.len() {
            let found = self.plain_length;
            return Err(format!(
                "expected {} plain bytes, found {found}",
                plain.len()
            ));
        }
        if self.is_compressed {
            return decompress(self.body, plain);
        }
        if self.body.len() != plain.len() {
            let found = self.body.len();
            return Err(format!(
                "expected {} plain bytes, found {found}",
                plain.len()
            ));
        }
        plain.copy_from_slice(self.body);
        Ok(())
    }
}

/// Parses an opened footer that stands at `footer_offset`; says what is wrong with it.
fn footer_from_bytes(bytes: &[u8], footer_offset: u64) -> Result<Footer, String> {
    if bytes.len() < FOOTER_PREFIX_LENGTH {
        return Err(format!("{} bytes are too few for a footer", bytes.len()));
    }
    let (prefix, body) = bytes.split_at(FOOTER_PREFIX_LENGTH);
    let count = u32_at(prefix, 0);
    if count > RECORDS_MAX || body.len() != count as usize * FOOTER_ENTRY_LENGTH {
        return Err(format!("found {count} entries in {} bytes", body.len()));
    }
    let records_length = u64::from(u32_at(prefix, 4));
    if records_length + HEADER_LENGTH as u64 != footer_offset {
        return Err(format!("found {records_length} bytes of records"));
    }
    let mut owner = [0; 16];
    owner.copy_from_slice(&prefix[8..]);
    let mut entries = Vec::with_capacity(count as usize);
    let mut next = HEADER_LENGTH as u64;
    for bytes in body.chunks_exact(FOOTER_ENTRY_LENGTH) {
        let entry = entry_from_bytes(bytes)?;
        if u64::from(entry.extent.offset) != next || entry.extent.end() > footer_offset {
            return Err(format!("the entry of chunk {} has no record", entry.id));
        }
        next = entry.extent.end();
        entries.push(entry);
    }
    Ok(Footer {
        owner: OwnerTag(owner),
        entries,
    })
}

fn entry_from_bytes(bytes: &[u8]) -> Result<FooterEntry, String> {
    let mut id = [0; 32];
    id.copy_from_slice(&bytes[..32]);
    let extent = Extent {
        offset: u32_at(bytes, 32),
        length: u32_at(bytes, 36),
        plain_length: u32_at(bytes, 40),
    };
    let longest = BLOB_LENGTH_MAX + RECORD_OVERHEAD as u32;
    if (extent.length as usize) < RECORD_OVERHEAD
        || extent.length > longest
        || extent.plain_length > BLOB_LENGTH_MAX
    {
        let found = (extent.length, extent.plain_length);
        return Err(format!("found the lengths {found:?} in an entry"));
    }
    let kind = BlobKind::from_byte(bytes[44])
        .ok_or_else(|| format!("expected a kind of 1 to 3, found {}", bytes[44]))?;
    Ok(FooterEntry {
        id: ChunkId::from_bytes(id),
        extent,
        kind,
    })
}
