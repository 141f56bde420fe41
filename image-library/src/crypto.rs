// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library's secret and what is derived from it: chunk ids, owner tags, sealing keys.
//!
//! Every derivation is BLAKE3 `derive_key` under a context of its own, so no key serves two
//! purposes. A sealing key is derived from the whole header of the file that it seals, which
//! holds a random salt: it is used for that file only, so counters serve as nonces, and a changed
//! header makes every tag wrong.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::id::{ContentHash, ServerName};

/// Length of the tag that sealing adds, in bytes.
pub(crate) const TAG_LENGTH: usize = 16;

const CONTEXT_CHUNK_ID: &str = "relevo image-library 2026-11 v1 chunk id";
const CONTEXT_OWNER: &str = "relevo image-library 2026-11 v1 owner tag";
const CONTEXT_PACK: &str = "relevo image-library 2026-11 v1 pack";
const CONTEXT_LENGTHS: &str = "relevo image-library 2026-11 v1 pack record lengths";
const CONTEXT_DOCUMENT: &str = "relevo image-library 2026-11 v1 document";
const CONTEXT_CHECK: &str = "relevo image-library 2026-11 v1 key check";

/// With which cipher a file is sealed; stored as one byte in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Cipher {
    /// AES-256-GCM: fastest where the processor has AES instructions.
    #[default]
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305: fastest elsewhere.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Cipher {
    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// Whose upload wrote a pack: 16 bytes of a keyed hash of the server's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OwnerTag(pub(crate) [u8; 16]);

impl OwnerTag {
    /// As 32 hexadecimal digits, for a file name.
    pub(crate) fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The secret of a library, and the keys that are used often.
pub(crate) struct LibraryKey {
    secret: [u8; 32],
    chunk_id_key: [u8; 32],
    owner_key: [u8; 32],
}

impl fmt::Debug for LibraryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LibraryKey(..)")
    }
}

impl LibraryKey {
    pub(crate) fn from_secret(secret: [u8; 32]) -> Self {
        Self {
            chunk_id_key: blake3::derive_key(CONTEXT_CHUNK_ID, &secret),
            owner_key: blake3::derive_key(CONTEXT_OWNER, &secret),
            secret,
        }
    }

    pub(crate) fn chunk_id(&self, hash: &ContentHash) -> ChunkId {
        let id = blake3::keyed_hash(&self.chunk_id_key, hash.as_bytes());
        ChunkId::from_bytes(*id.as_bytes())
    }

    pub(crate) fn owner(&self, server: &ServerName) -> OwnerTag {
        let hash = blake3::keyed_hash(&self.owner_key, server.as_str().as_bytes());
        let mut tag = [0; 16];
        tag.copy_from_slice(&hash.as_bytes()[..16]);
        OwnerTag(tag)
    }

    /// The secret itself, for the key file and the recovery sheet.
    pub(crate) const fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// What the configuration keeps to recognise the key.
    pub(crate) fn check_value(&self) -> String {
        let check = blake3::derive_key(CONTEXT_CHECK, &self.secret);
        blake3::Hash::from_bytes(check).to_hex().to_string()
    }

    /// The seal of one pack.
    pub(crate) fn pack_seal(&self, cipher: Cipher, header: &[u8]) -> Result<Seal> {
        self.seal(CONTEXT_PACK, cipher, header)
    }

    /// The seal of one document.
    pub(crate) fn document_seal(&self, cipher: Cipher, header: &[u8]) -> Result<Seal> {
        self.seal(CONTEXT_DOCUMENT, cipher, header)
    }

    fn seal(&self, context: &str, cipher: Cipher, header: &[u8]) -> Result<Seal> {
        let mut material = Vec::with_capacity(self.secret.len() + header.len());
        material.extend_from_slice(&self.secret);
        material.extend_from_slice(header);
        Seal::new(cipher, &blake3::derive_key(context, &material))
    }
}

/// Seals and opens the parts of one file.
pub(crate) struct Seal {
    key: LessSafeKey,
    length_key: [u8; 32],
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

/// The bytes are not what was sealed here, or were sealed under another key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotAuthentic;

impl Seal {
    fn new(cipher: Cipher, key: &[u8; 32]) -> Result<Self> {
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let unbound = UnboundKey::new(algorithm, key).map_err(|_| sealing_failed())?;
        Ok(Self {
            key: LessSafeKey::new(unbound),
            length_key: blake3::derive_key(CONTEXT_LENGTHS, key),
        })
    }

    /// Encrypts `buffer[from..]` in place and appends the tag.
    pub(crate) fn seal(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        buffer: &mut Vec<u8>,
        from: usize,
    ) -> Result<()> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(associated), &mut buffer[from..])
            .map_err(|_| sealing_failed())?;
        buffer.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Checks the tag at the end of `buffer` and decrypts the rest in place.
    pub(crate) fn open<'a>(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        buffer: &'a mut [u8],
    ) -> Result<&'a [u8], NotAuthentic> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .open_in_place(nonce, Aad::from(associated), buffer)
            .map(|plain| &*plain)
            .map_err(|_| NotAuthentic)
    }

    /// Hides or shows the length field of the record at `offset`: compressed lengths alone would
    /// let known files be recognised.
    pub(crate) fn mask_length(&self, offset: u64, length: u32) -> u32 {
        let hash = blake3::keyed_hash(&self.length_key, &offset.to_le_bytes());
        let mut mask = [0; 4];
        mask.copy_from_slice(&hash.as_bytes()[..4]);
        length ^ u32::from_le_bytes(mask)
    }
}

fn sealing_failed() -> Error {
    // ring refuses only keys of a wrong length and inputs beyond 64 GiB; neither occurs here.
    Error::Limit {
        what: "the length in bytes of one sealed record",
        limit: 1 << 36,
    }
}

/// Fills an array from the operating system's random source.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::File {
        action: "read random bytes from",
        path: "the operating system".into(),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_has_different_ids_in_different_libraries() {
        let hash = ContentHash::of(b"a chunk");
        let ours = LibraryKey::from_secret([1; 32]).chunk_id(&hash);
        let theirs = LibraryKey::from_secret([2; 32]).chunk_id(&hash);
        assert_ne!(ours, theirs);
        assert_ne!(ours.as_bytes(), hash.as_bytes());
    }

    #[test]
    fn what_was_sealed_opens_only_at_its_place_and_under_its_header() {
        let key = LibraryKey::from_secret([7; 32]);
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let seal = key.pack_seal(cipher, b"header").expect("key fits");
            let mut sealed = b"plain".to_vec();
            seal.seal([1; 12], b"", &mut sealed, 0).expect("seals");
            assert_eq!(sealed.len(), 5 + TAG_LENGTH);
            assert!(seal.open([2; 12], b"", &mut sealed.clone()).is_err());
            let other = key.pack_seal(cipher, b"Header").expect("key fits");
            assert!(other.open([1; 12], b"", &mut sealed.clone()).is_err());
            let opened = seal.open([1; 12], b"", &mut sealed).expect("authentic");
            assert_eq!(opened, b"plain");
        }
    }
}
