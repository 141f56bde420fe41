// SPDX-License-Identifier: MIT OR Apache-2.0
//! `library.json`, the document that makes a directory a library and says what it is.
//!
//! It is JSON, so that a person can see what they have in front of them. A feature that a program
//! does not know makes it refuse the library.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chunk::{CHUNK_SIZE_DEFAULT, chunk_size_is_legal};
use crate::crypto::{Cipher, LibraryKey};
use crate::error::{Error, Result};
use crate::store::{Store, names};

const FORMAT: &str = "relevo image library";
const VERSION: u32 = 1;
const DOCUMENT_LENGTH_MAX: u64 = 64 << 10;

/// What is chosen once, when a library is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// Size of a chunk in bytes: a power of two from 16 KiB to 4 MiB.
    pub chunk_size_bytes: u32,
    /// With which cipher packs and documents are sealed.
    pub cipher: Cipher,
    /// For how long nobody can delete an image after the library received it.
    pub immutable_for: Duration,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            chunk_size_bytes: CHUNK_SIZE_DEFAULT,
            cipher: Cipher::default(),
            immutable_for: Duration::ZERO,
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
    /// For how long an image cannot be deleted after it was received, in seconds.
    #[serde(default)]
    immutable_for_seconds: u64,
    /// Whether the store of a shared library honours conditions of writes; absent where it has
    /// locks instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) conditional_writes: Option<bool>,
    /// By which the key is recognised.
    key_check: String,
    /// What a reader must know to read this library; none in version 1.
    #[serde(default)]
    features: Vec<String>,
}

impl Config {
    /// The configuration of a new library with this key.
    pub(crate) fn new(
        options: &InitOptions,
        key: &LibraryKey,
        created_at: Timestamp,
    ) -> Result<Self> {
        if !chunk_size_is_legal(options.chunk_size_bytes) {
            return Err(Error::InvalidName {
                kind: "chunk size (a power of two from 16384 to 4194304)",
                name: options.chunk_size_bytes.to_string(),
            });
        }
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            id: Uuid::new_v4(),
            chunk_size_bytes: options.chunk_size_bytes,
            cipher: options.cipher,
            created_at,
            immutable_for_seconds: options.immutable_for.as_secs(),
            conditional_writes: None,
            key_check: key.check_value(),
            features: Vec::new(),
        })
    }

    /// Writes it: from now on there is a library. `false` when there was one.
    pub(crate) fn create(&self, store: &dyn Store) -> Result<bool> {
        store.create(names::CONFIG, &to_json("configuration", self)?)
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

    /// Until when an image cannot be deleted that was received then.
    pub(crate) fn protected_until(&self, received_at: Timestamp) -> Timestamp {
        let seconds = i64::try_from(self.immutable_for_seconds).unwrap_or(i64::MAX);
        received_at
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap_or(Timestamp::MAX)
    }

    /// Whether a key is this library's.
    pub(crate) fn is_key(&self, key: &LibraryKey) -> bool {
        key.check_value() == self.key_check
    }
}

/// What every version of both documents has.
#[derive(Deserialize)]
struct Versioned {
    format: String,
    version: u32,
}

pub(crate) fn check_version(
    structure: &'static str,
    place: &str,
    format: &str,
    bytes: &[u8],
) -> Result<()> {
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

pub(crate) fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|source| Error::Encode { what, source })?;
    bytes.push(b'\n');
    Ok(bytes)
}
