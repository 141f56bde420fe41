// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two documents that make a directory a library: `library.json`, which says what it is, and
//! `keys/library.key`, which holds its secret.
//!
//! Both are JSON, so that a person can see what they have in front of them. A feature that a
//! program does not know makes it refuse the library.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chunk::{CHUNK_SIZE_DEFAULT, chunk_size_is_legal};
use crate::crypto::{Cipher, LibraryKey, random_bytes};
use crate::error::{Error, Result};
use crate::store::{Store, names};

const FORMAT: &str = "relevo image library";
const KEY_FORMAT: &str = "relevo image library key";
const VERSION: u32 = 1;
const DOCUMENT_LENGTH_MAX: u64 = 64 << 10;

/// What is chosen once, when a library is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// Size of a chunk in bytes: a power of two from 16 KiB to 4 MiB.
    pub chunk_size_bytes: u32,
    /// With which cipher packs and documents are sealed.
    pub cipher: Cipher,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            chunk_size_bytes: CHUNK_SIZE_DEFAULT,
            cipher: Cipher::default(),
        }
    }
}

/// `library.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    format: String,
    version: u32,
    /// The library's own id; it stands in the header of every pack and document.
    pub(crate) id: Uuid,
    pub(crate) chunk_size_bytes: u32,
    /// With what new files are sealed; each file says for itself what it was sealed with.
    pub(crate) cipher: Cipher,
    pub(crate) created_at: Timestamp,
    /// By which the key is recognised.
    key_check: String,
    /// What a reader must know to read this library; none in version 1.
    #[serde(default)]
    features: Vec<String>,
}

/// `keys/library.key`.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    format: String,
    version: u32,
    library: Uuid,
    /// How the secret is protected: `none` in version 1.
    protection: String,
    secret: String,
}

impl Config {
    /// Makes configuration and key of a new library and writes both, the configuration last: a
    /// directory without it is no library.
    pub(crate) fn create(
        store: &dyn Store,
        options: &InitOptions,
        created_at: Timestamp,
    ) -> Result<(Self, LibraryKey)> {
        if !chunk_size_is_legal(options.chunk_size_bytes) {
            return Err(Error::InvalidName {
                kind: "chunk size (a power of two from 16384 to 4194304)",
                name: options.chunk_size_bytes.to_string(),
            });
        }
        let secret = random_bytes()?;
        let key = LibraryKey::from_secret(secret);
        let config = Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            id: Uuid::new_v4(),
            chunk_size_bytes: options.chunk_size_bytes,
            cipher: options.cipher,
            created_at,
            key_check: key.check_value(),
            features: Vec::new(),
        };
        let key_file = KeyFile {
            format: KEY_FORMAT.to_owned(),
            version: VERSION,
            library: config.id,
            protection: "none".to_owned(),
            secret: blake3::Hash::from_bytes(secret).to_hex().to_string(),
        };
        let written = store.create(names::KEY, &to_json("key file", &key_file)?)?
            && store.create(names::CONFIG, &to_json("configuration", &config)?)?;
        if !written {
            return Err(Error::NotEmpty {
                path: store.place("").into(),
            });
        }
        Ok((config, key))
    }

    /// Reads the configuration of an existing library.
    pub(crate) fn read(store: &dyn Store) -> Result<Self> {
        let place = store.place(names::CONFIG);
        let not_a_library = |problem: String| Error::NotALibrary {
            path: store.place("").into(),
            problem,
        };
        let what = "the length of library.json in bytes";
        let bytes = store
            .read(names::CONFIG, DOCUMENT_LENGTH_MAX, what)?
            .ok_or_else(|| not_a_library("there is no library.json in it".to_owned()))?;
        check_version("configuration", &place, FORMAT, &bytes).map_err(|error| match error {
            Error::Corrupt { problem, .. } => not_a_library(format!("library.json: {problem}")),
            other => other,
        })?;
        let config: Self = serde_json::from_slice(&bytes)
            .map_err(|error| not_a_library(format!("library.json: {error}")))?;
        if let Some(feature) = config.features.first() {
            return Err(Error::Unsupported {
                structure: "configuration",
                place,
                feature: format!("feature {feature:?}"),
            });
        }
        if !chunk_size_is_legal(config.chunk_size_bytes) {
            let found = config.chunk_size_bytes;
            return Err(not_a_library(format!(
                "library.json: a chunk size of {found}"
            )));
        }
        Ok(config)
    }

    /// Reads the key and checks that it is this library's.
    pub(crate) fn read_key(&self, store: &dyn Store) -> Result<LibraryKey> {
        let place = store.place(names::KEY);
        let path = PathBuf::from(&place);
        let what = "the length of the key file in bytes";
        let bytes = store
            .read(names::KEY, DOCUMENT_LENGTH_MAX, what)?
            .ok_or_else(|| Error::KeyMissing { path: path.clone() })?;
        check_version("key file", &place, KEY_FORMAT, &bytes)?;
        let corrupt = |problem: String| Error::corrupt("key file", &*place, 0, problem);
        let key_file: KeyFile =
            serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if key_file.protection != "none" {
            return Err(Error::Unsupported {
                structure: "key file",
                place,
                feature: format!("protection {:?}", key_file.protection),
            });
        }
        let secret = blake3::Hash::from_hex(&key_file.secret)
            .map_err(|_| corrupt("the secret is not 64 hexadecimal digits".to_owned()))?;
        let key = LibraryKey::from_secret(*secret.as_bytes());
        if key_file.library != self.id || key.check_value() != self.key_check {
            return Err(Error::WrongKey { path });
        }
        Ok(key)
    }
}

/// What every version of both documents has.
#[derive(Deserialize)]
struct Versioned {
    format: String,
    version: u32,
}

fn check_version(structure: &'static str, place: &str, format: &str, bytes: &[u8]) -> Result<()> {
    let found: Versioned = serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt(structure, place, 0, error.to_string()))?;
    if found.format != format {
        let problem = format!("expected the format {format:?}, found {:?}", found.format);
        return Err(Error::corrupt(structure, place, 0, problem));
    }
    if found.version != VERSION {
        return Err(Error::Unsupported {
            structure,
            place: place.to_owned(),
            feature: format!("version {}", found.version),
        });
    }
    Ok(())
}

fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|source| Error::Encode { what, source })?;
    bytes.push(b'\n');
    Ok(bytes)
}
